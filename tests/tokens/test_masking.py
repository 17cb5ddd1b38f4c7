"""Masks: exact counts, the shapes they promise, and what is hard."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from eegtensor._check import EEGTensorError
from eegtensor._headmodel import channel_names, directions
from eegtensor.models.maskedtokens import MaskedTokenNetwork
from eegtensor.nn.positions import electrode_features
from eegtensor.tokens._objective import ranking_loss
from eegtensor.tokens.masking import MaskTokens, Teacher, draw_mask
from eegtensor.training import (
    Batch,
    ShuffleSampler,
    StepContext,
    evaluating,
    make_optimizer,
    train,
)
from eegtensor.training.network import Network

N_UNITS, N_FRAMES = 16, 6


def ranking_accuracy(scores: Tensor, truth: Tensor) -> float:
    """Return the share of pairs in the right order; half of them is chance."""
    larger = truth[:, :, None] > truth[:, None]
    right = larger & (scores[:, :, None] > scores[:, None])
    return float(right.sum() / larger.sum().clamp_min(1))


def inputs(batch: int = 50) -> dict[str, Tensor]:
    """Return windows of which the second half has fewer units and frames."""
    places = electrode_features(directions(channel_names(N_UNITS)))
    present = torch.ones(batch, N_UNITS, N_FRAMES, dtype=torch.bool)
    present[batch // 2 :, 11:] = present[batch // 2 :, :, 4:] = False
    return {
        "ids": torch.zeros(batch, N_UNITS, N_FRAMES, 2, dtype=torch.int16),
        "present": present,
        "places": torch.from_numpy(places).float().expand(batch, -1, -1),
        "index": torch.full((batch, N_UNITS), -1),
    }


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", ["random", "block", "hard"])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_counts_are_exact(kind: str, ratio: float) -> None:
    x = inputs()
    hard = torch.rand(x["present"].shape, generator=seeded(3))
    masked = draw_mask(
        kind, x, ratio, seeded(), difficulty=hard, hard_share=0.5 * (kind == "hard")
    )
    assert not (masked & ~x["present"]).any()
    counts = x["present"].flatten(1).sum(1)
    assert torch.equal(masked.flatten(1).sum(1), (counts * ratio).round().long())
    again = draw_mask(kind, x, ratio, seeded(), difficulty=hard, hard_share=0.5)
    if kind != "hard":
        assert torch.equal(masked, again)
        assert not torch.equal(masked, draw_mask(kind, x, ratio, seeded(1)))


def test_random_masks_favour_no_token() -> None:
    x = inputs(4000)
    share = draw_mask("random", x, 0.5, seeded())[:2000].float().mean(0)
    assert float((share - 0.5).abs().max()) < 0.06


def test_channels_are_masked_whole() -> None:
    x = inputs()
    masked = draw_mask("channel", x, 0.4, seeded())
    first, second = masked[:25], masked[25:, :11, :4]
    for part, n in ((first, round(0.4 * 16)), (second, round(0.4 * 11))):
        assert torch.equal(part.any(2), part.all(2))
        assert (part.all(2).sum(1) == n).all()
    x["present"][:, 1:] = False
    alone = draw_mask("channel", x, 0.5, seeded())
    assert (alone.flatten(1).sum(1) < x["present"].flatten(1).sum(1)).all()
    assert alone.flatten(1).any(1).all()


def test_blocks_hang_together() -> None:
    x = inputs()

    def alike(masked: Tensor) -> float:
        """Return how often the next frame of a masked token is masked too."""
        part = masked[:25]
        return float(part[:, :, 1:][part[:, :, :-1]].float().mean())

    def spread(masked: Tensor) -> float:
        place = x["places"][0, :, :3]
        apart = torch.cdist(place, place)
        pairs = masked[:25, :, 0]
        both = pairs[:, :, None] & pairs[:, None]
        return float((apart * both).sum() / both.sum())

    block, random = (draw_mask(k, x, 0.3, seeded()) for k in ("block", "random"))
    assert alike(block) > alike(random) + 0.2
    assert spread(block) < 0.9 * spread(random)


def test_the_hardest_are_masked_and_at_the_start_none_for_that() -> None:
    x = inputs()
    hard = torch.rand(x["present"].shape, generator=seeded(3))
    plain = draw_mask("random", x, 0.5, seeded())
    early = draw_mask("hard", x, 0.5, seeded(), difficulty=hard, hard_share=0.0)
    assert torch.equal(plain, early)
    late = draw_mask("hard", x, 0.5, seeded(), difficulty=hard, hard_share=1.0)
    for i in (0, 40):
        here = x["present"][i]
        n = int(late[i].sum())
        top = hard[i].masked_fill(~here, -1).flatten().topk(n).indices
        assert late[i].flatten()[top].all()
    half = draw_mask("hard", x, 0.5, seeded(), difficulty=hard, hard_share=0.5)
    top = hard[0].flatten().topk(24).indices
    assert half[0].flatten()[top].all()


def test_tokens_that_have_no_neighbour_are_seeds_of_blocks_too() -> None:
    x = inputs(4)
    x["places"] = torch.zeros_like(x["places"])
    x["index"] = torch.arange(N_UNITS).expand(4, -1)
    masked = draw_mask("block", x, 0.3, seeded())
    counts = x["present"].flatten(1).sum(1)
    assert torch.equal(masked.flatten(1).sum(1), (counts * 0.3).round().long())


def test_ranking_is_of_pairs() -> None:
    truth = torch.tensor([[3.0, 1.0, float("nan"), 2.0]])
    scores = torch.tensor([[0.5, -1.0, 9.0, 2.0]])
    pairs = [(0.5, -1.0), (0.5, 2.0), (2.0, -1.0)]
    expected = np.mean([np.log1p(np.exp(-(a - b))) for a, b in pairs])
    assert float(ranking_loss(scores, truth)) == pytest.approx(expected)
    assert ranking_accuracy(scores, truth) == pytest.approx(2 / 3)
    assert float(ranking_loss(scores, torch.full((1, 4), torch.nan))) == 0


def test_the_teacher_follows_slowly_and_is_saved() -> None:
    student = MaskedTokenNetwork((4, 4), width=8, depth=1, n_heads=2, random_state=0)
    teacher = Teacher(student, decay=0.5)
    start = teacher.network.place.weight.clone()
    with torch.no_grad():
        student.place.weight.add_(1.0)
    state = type("State", (), {"model": student, "step": 10_000})()
    teacher.on_step_end(state)
    torch.testing.assert_close(teacher.network.place.weight, start + 0.5)
    other = Teacher(student)
    other.load_state_dict(teacher.state_dict())
    assert torch.equal(other.network.place.weight, teacher.network.place.weight)
    assert not any(p.requires_grad for p in teacher.network.parameters())


def test_planted_hard_tokens_are_found_and_masked_more_often() -> None:
    from eegtensor.tokens._objective import MaskedCrossEntropy, masked_part

    torch.set_num_threads(1)
    g = seeded(5)
    x = inputs(96)
    x["present"][:] = True
    shape = x["present"].shape
    common = torch.randint(0, 6, (96, 1, N_FRAMES, 2), generator=g)
    ids = common.expand(-1, N_UNITS, -1, -1).clone()
    # Four channels hold what no other tells.
    ids[:, :4] = torch.randint(0, 6, (96, 4, N_FRAMES, 2), generator=g)
    x["ids"] = ids.short()
    model = MaskedTokenNetwork((6, 6), width=32, depth=1, random_state=0)
    teacher, epochs = Teacher(model, decay=0.9), 12
    mask = MaskTokens("hard", 0.5, epochs, teacher=teacher)
    train(
        model,
        Batch(x),
        objective=MaskedCrossEntropy(ranking=1.0),
        optimizer=make_optimizer(model, "adamw", lr=5e-3),
        sampler=ShuffleSampler(96, batch_size=8),
        epochs=epochs,
        perturbation=mask,
        callbacks=[teacher],
    )
    context = StepContext(Network(model), None, Batch(x), epochs, 1, seeded(7))
    masked = mask.sample(context).apply().x["masked"]
    each = masked.float().mean(dim=(1, 2))
    usual = each == 0.5
    assert float(masked[usual, :4].float().mean()) > 0.5 + 0.2
    # Of some windows more, up to nearly all.
    assert 0.6 < float(usual.float().mean()) < 0.9
    assert float(each.min()) == 0.5
    assert 0.85 < float(each.max()) < 1.0
    # On tokens that are masked, whose loss the network cannot see.
    fresh = {**x, "masked": draw_mask("random", x, 0.5, seeded(8))}
    with torch.no_grad(), evaluating(model):
        out = model(fresh)
        part = masked_part(model, Batch(fresh), out)
    truth = torch.full(shape, torch.nan).flatten(1)
    truth[part.window, part.place] = part.losses.codes
    assert ranking_accuracy(out.difficulty.flatten(1), truth) > 0.6


def test_what_is_no_mask_is_refused() -> None:
    with pytest.raises(EEGTensorError, match="mask="):
        draw_mask("all", inputs(2), 0.5, seeded())
    with pytest.raises(EEGTensorError, match="mask_ratio"):
        draw_mask("random", inputs(2), 1.0, seeded())
    with pytest.raises(EEGTensorError, match="teacher"):
        MaskTokens("hard", 0.5, 3)
