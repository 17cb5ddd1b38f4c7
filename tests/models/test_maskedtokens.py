"""The network over tokens: what it tells, and what it may not depend on."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eegtensor._check import EEGTensorError
from eegtensor.models.maskedtokens import MaskedTokenNetwork
from eegtensor.models.tokenclassifier import TokenClassifierNetwork

ALPHABET = (5, 3, 7)


def net(**options: object) -> MaskedTokenNetwork:
    options = {"width": 16, "depth": 2, "n_heads": 2, "random_state": 0} | options
    return MaskedTokenNetwork(ALPHABET, **options).eval()  # type: ignore[arg-type]


def inputs(batch: int = 3, n_units: int = 4, n_frames: int = 5) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    shape = (batch, n_units, n_frames)
    ids = torch.stack([torch.randint(-1, n, shape, generator=g) for n in ALPHABET], -1)
    return {
        "ids": ids,
        "present": torch.ones(shape, dtype=torch.bool),
        "places": torch.randn(batch, n_units, 23, generator=g),
        "index": torch.full((batch, n_units), -1),
        "masked": torch.rand(shape, generator=g) < 0.4,
    }


def on(x: dict[str, Tensor], device: str) -> dict[str, Tensor]:
    return {k: v.to(device) for k, v in x.items()}


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether by more than rounding."""
    return float((a - b).abs().max()) > 1e-3


def test_masked_ids_are_not_seen(device: str) -> None:
    x, model = on(inputs(), device), net().to(device)
    before = model(x).states
    other = x["ids"].clone()
    other[x["masked"]] = (other[x["masked"]] + 1) % 3
    after = model({**x, "ids": other}).states
    assert torch.equal(before, after)
    seen = x["ids"].clone()
    seen[~x["masked"]] = (seen[~x["masked"]] + 1) % 3
    assert differ(before, model({**x, "ids": seen}).states)


def test_what_is_filled_up_changes_nothing() -> None:
    x, model = inputs(), net()
    wide = inputs(3, 7, 8)
    for name in x:
        wide[name][:, :4] = 0
    for name in ("ids", "present", "masked"):
        wide[name][:, :, 5:] = 1
        wide[name][:, :4, :5] = x[name]
    wide["present"][:] = False
    wide["present"][:, :4, :5] = True
    wide["places"][:, :4], wide["index"][:, :4] = x["places"], x["index"]
    found = model(wide).states[:, :4, :5]
    torch.testing.assert_close(found, model(x).states, rtol=1e-5, atol=1e-5)


def test_the_order_of_units_does_not_matter() -> None:
    x, model = inputs(), net()
    order = torch.tensor([2, 0, 3, 1])
    found = model({k: v[:, order] for k, v in x.items()})
    expected = model(x)
    torch.testing.assert_close(found.states, expected.states[:, order])
    torch.testing.assert_close(found.difficulty, expected.difficulty[:, order])
    # Frames do have an order, and places matter.
    late = {**x, "ids": x["ids"].flip(2), "masked": x["masked"].flip(2)}
    assert differ(model(late).states.flip(2), expected.states)
    away = {**x, "places": x["places"] + 1}
    assert differ(model(away).states, expected.states)


def test_units_without_a_place_are_told_apart() -> None:
    x, model = inputs(), net()
    x["ids"][:, 1], x["masked"][:, :2] = x["ids"][:, 0], False
    x["places"][:] = 0
    same = model(x).states
    torch.testing.assert_close(same[:, 0], same[:, 1])
    x["index"] = torch.arange(4).expand(3, 4)
    other = model(x).states
    assert differ(other[:, 0], other[:, 1])


def test_losses_are_those_of_two_steps(device: str) -> None:
    torch.manual_seed(0)
    model = net().to(device)
    with torch.no_grad():
        model.teller.bias.normal_()
        model.teller.gain.uniform_(0.5, 2)
    states = torch.randn(30, 16, device=device)
    ids = inputs(5, 3, 2)["ids"].flatten(0, 2).to(device)
    found = model.losses(states, ids)
    teller = model.teller
    h = teller.last(states + teller.first(states))
    for i in range(30):
        p = teller.sent(states[i]).sigmoid()
        sent = codes = hits = 0.0
        for slot, n in enumerate(ALPHABET):
            there = int(ids[i, slot]) >= 0
            sent -= float((p[slot] if there else 1 - p[slot]).log())
            if there:
                logits = teller.gain[slot] * (model.table[slot, 1 : 1 + n] @ h[i])
                logits = logits + teller.bias[slot, :n]
                codes -= float(F.log_softmax(logits, 0)[ids[i, slot]])
                hits += float(logits.argmax() == ids[i, slot])
        assert float(found.sent[i]) == pytest.approx(sent, rel=1e-4)
        assert float(found.codes[i]) == pytest.approx(codes, rel=1e-4)
        assert float(found.hits[i]) == hits
    assert torch.equal(found.n_codes, (ids >= 0).sum(1))


def test_slot_by_slot_and_all_at_once_agree() -> None:
    model, x = net(), inputs()
    states = model(x).states.flatten(0, 2).detach().requires_grad_()
    ids = x["ids"].flatten(0, 2)
    results = []
    for told in (model.teller._each, model.teller._all):
        h = model.teller._vectors(states)
        loss, hits = told(h, model.table, ids, ids >= 0)
        grads = torch.autograd.grad(
            loss.sum(), [states, model.table, model.teller.gain]
        )
        results.append((loss, hits, *grads))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_it_starts_at_the_shares_of_codes() -> None:
    model = net(n_code_features=4)
    rates = torch.tensor([1.0, 0.25, 0.0])
    shares = torch.rand(3, 7, generator=torch.Generator().manual_seed(0)) + 0.1
    for slot, n in enumerate(ALPHABET):
        shares[slot, n:] = 0
    shares /= shares.sum(1, keepdim=True)
    # Codes that stand for nothing: no context can tell them.
    model.start_at(rates, shares, torch.zeros(3, 7, 4))
    states = model(inputs()).states.flatten(0, 2)[:2]
    ids = torch.tensor([[2, 1, -1], [4, -1, -1]])
    found = model.losses(states, ids)
    expected = -(shares[0, [2, 4]].log() + torch.tensor([shares[1, 1].log(), 0.0]))
    torch.testing.assert_close(found.codes, expected)
    drawn = model.draw(states.expand(2, -1)[:1].expand(4000, -1), torch.Generator())
    assert (drawn[:, 0] >= 0).all() and (drawn[:, 2] == -1).all()
    counts = torch.bincount(drawn[:, 0], minlength=5) / 4000
    torch.testing.assert_close(counts, shares[0, :5], atol=0.03, rtol=0)
    cold = model.draw(states[:1].expand(50, -1), torch.Generator(), temperature=1e-4)
    assert (cold[:, 0] == shares[0].argmax()).all()
    # Hot, what is sent at times is sent half of the time; the others as ever.
    hot = model.draw(states[:1].expand(400, -1), torch.Generator(), temperature=100.0)
    assert (hot[:, 0] >= 0).all() and (hot[:, 2] == -1).all()
    assert 0.4 < float((hot[:, 1] >= 0).float().mean()) < 0.6


def test_which_slots_are_sent_and_when_is_read() -> None:
    model = net(n_code_features=4)
    x = {k: v for k, v in inputs().items() if k != "masked"}
    # Vectors are zeros: only whether a slot is sent can tell.
    other = {**x, "ids": torch.where(x["ids"] >= 0, 0, x["ids"])}
    torch.testing.assert_close(model(x).states, model(other).states)
    none = {**x, "ids": torch.full_like(x["ids"], -1)}
    assert float((model(x).states - model(none).states).abs().max()) > 0.01
    # Frames that hold the same differ by when they are.
    assert float(model(none).states.diff(dim=2).abs().max()) > 0.01


def test_codes_that_never_occurred_are_not_drawn() -> None:
    model = net()
    seen = torch.zeros(3, 7, dtype=torch.bool)
    seen[0, [0, 4]] = seen[1, 1] = seen[2] = True
    shares = torch.tensor([[1 / n] * n + [0] * (7 - n) for n in ALPHABET])
    model.start_at(torch.ones(3), shares, seen=seen)
    state, again = model.state_dict(), net(random_state=1)
    again.load_state_dict(state)
    states = model(inputs()).states.flatten(0, 2)[:1].expand(200, -1)
    for one in (model, again):
        drawn = one.draw(states, torch.Generator())
        assert drawn[:, 0].unique().tolist() == [0, 4]
        assert drawn[:, 1].unique().tolist() == [1]
        assert len(drawn[:, 2].unique()) == ALPHABET[2]
    # Their loss stays finite, and files without the row are read.
    losses = model.losses(states[:1], torch.tensor([[1, 0, 0]]))
    assert bool(losses.codes.isfinite().all())
    del state["teller.seen"]
    again.load_state_dict(state)
    assert bool(again.teller.seen.all())


def test_vectors_of_codes_are_not_trained() -> None:
    model = net(n_code_features=4)
    assert not model.table.requires_grad
    assert net().table.requires_grad


def test_a_new_network_tells_what_its_neighbours_hold() -> None:
    # Two alike channels, one masked: its own code must be told better than others.
    vectors = torch.eye(7).expand(3, 7, 7).clone()
    model = net(n_code_features=7, width=32)
    shares = torch.tensor([[1 / n] * n + [0] * (7 - n) for n in ALPHABET])
    model.start_at(torch.ones(3), shares, vectors)
    g = torch.Generator().manual_seed(0)
    code = torch.randint(0, 5, (200, 1, 1, 1), generator=g)
    ids = torch.cat([code.expand(-1, 3, -1, -1), torch.full((200, 3, 1, 2), -1)], -1)
    x = {
        "ids": ids,
        "present": torch.ones(200, 3, 1, dtype=torch.bool),
        "places": torch.zeros(200, 3, 23),
        "index": torch.full((200, 3), -1),
        "masked": torch.tensor([True, False, False])[:, None].expand(200, 3, 1),
    }
    losses = model.losses(model(x).states[:, 0, 0], ids[:, 0, 0])
    assert float(losses.hits.mean()) > 0.8


def test_bfloat16_is_near(device: str) -> None:
    x = on(inputs(), device)
    plain, half = net().to(device), net(precision="bfloat16").to(device)
    a, b = plain(x).states, half(x).states
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, b, atol=0.1, rtol=0.1)
    ids = x["ids"].flatten(0, 2)
    loss = half.losses(b.flatten(0, 2), ids).codes
    torch.testing.assert_close(
        loss, plain.losses(a.flatten(0, 2), ids).codes, atol=0.1, rtol=0.1
    )


def test_copies_exports_and_seeds() -> None:
    x, model = inputs(), net()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), net()):
        assert torch.equal(other(x).states, model(x).states)
    assert not torch.equal(net(random_state=1)(x).states, model(x).states)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x).states, model(x).states)


def test_pools_are_means_of_what_is_there() -> None:
    x = inputs()
    del x["masked"]
    x["present"][:, :, 3:] = False
    encoder = net()
    states = encoder(x).states[:, :, :3]
    folded = {**x, "ids": x["ids"][:, None], "present": x["present"][:, None]}
    for pool, expected in (
        ("units", states.mean(2).flatten(1)),
        ("mean", states.mean((1, 2))),
    ):
        model = TokenClassifierNetwork(encoder, 2, 4, pool=pool, domains=["a"])
        torch.testing.assert_close(model.pooled(folded), expected)


def test_statistics_are_moved_by_fit_statistics_alone() -> None:
    x = inputs(6)
    folded = {
        "ids": x["ids"][:, None],
        "present": x["present"][:, None],
        "places": x["places"],
        "index": x["index"],
    }
    model = TokenClassifierNetwork(net(), 2, 4, domains=["a", "b"], random_state=0)
    codes = torch.tensor([0, 0, 0, 1, 1, 1])
    model.fit_statistics(folded, codes)
    y = model.features(folded, codes)
    torch.testing.assert_close(y[:3].mean(0), torch.zeros(64), atol=1e-4, rtol=0)
    before = copy.deepcopy(model.norm.state_dict())
    model.train()(folded, codes).sum().backward()
    for name, value in model.norm.state_dict().items():
        assert torch.equal(value, before[name]), name
    other = model.with_own_norm()
    other.norm.add_domains(["c"])
    assert len(model.norm.names) == 2
    assert other.encoder is model.encoder


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(EEGTensorError, match="width=15"):
        MaskedTokenNetwork(ALPHABET, width=15)
    with pytest.raises(EEGTensorError, match="alphabet"):
        MaskedTokenNetwork(())
    with pytest.raises(EEGTensorError, match="precision"):
        MaskedTokenNetwork(ALPHABET, precision="float16")
    with pytest.raises(EEGTensorError, match="pool"):
        TokenClassifierNetwork(net(), 2, 4, pool="max")
    assert np.isfinite(float(net()(inputs()).states.sum()))
