"""Pre-training without labels: what is learned, resumed, drawn and saved."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from tokens._streams import NAMES, streams

from eegtensor._check import EEGTensorError
from eegtensor.tokens import EEGTokenizer, Tokens
from eegtensor.tokens.masking import MaskTokens
from eegtensor.tokens.pretrain import MaskedTokenModel, _held_out
from eegtensor.training.files import read_state, write_state

SMALL: dict[str, Any] = {
    "width": 32,
    "depth": 1,
    "n_frames": 4,
    "epochs": 12,
    "batch_size": 8,
    "lr": 5e-3,
    "dropout": 0.0,
}


@pytest.fixture(scope="module")
def fitted() -> MaskedTokenModel:
    torch.set_num_threads(1)
    return MaskedTokenModel(**SMALL).fit(streams(0))


def weights(model: MaskedTokenModel) -> NDArray:
    return np.concatenate([p.detach().ravel() for p in model.network_.parameters()])


def test_masked_tokens_are_told_by_the_others(fitted: MaskedTokenModel) -> None:
    scores = fitted.evaluate(streams(9))
    # One in ten ids is of its own; all others are those of most channels.
    assert scores.accuracy > 0.8 > 0.3 > scores.unigram_accuracy
    assert scores.cross_entropy < 0.7 * scores.unigram_cross_entropy
    assert scores.unigram_cross_entropy == pytest.approx(np.log(5.3), abs=0.1)
    assert fitted.scores_ is not None
    assert fitted.scores_.accuracy > 0.7
    best = min(fitted.history_.column("valid_loss"))
    assert fitted.scores_.cross_entropy == pytest.approx(best, rel=1e-4)
    # Whole channels, too: others tell.
    assert fitted.evaluate(streams(9), mask="channel").accuracy > 0.8


def test_without_structure_nothing_is_told(fitted: MaskedTokenModel) -> None:
    noise = streams(9, noisy=tuple(range(6)))
    scores = fitted.evaluate(noise)
    assert scores.accuracy < 0.3


def test_validation_windows_are_for_validation_alone() -> None:
    # Trials are windows: those held out become others.
    tokens, others = streams(0), streams(1, noisy=tuple(range(6)))
    held = _held_out(40, 0.1, 0).numpy()
    changed = np.where(held[:, None, None, None], others.ids, tokens.ids)
    one, two = (
        MaskedTokenModel(**{**SMALL, "epochs": 1}).fit(replace(tokens, ids=ids))
        for ids in (tokens.ids, changed)
    )
    assert np.array_equal(weights(one), weights(two))
    assert torch.equal(one.shares_, two.shares_)
    assert one.scores_ is not None
    assert two.scores_ is not None
    assert one.scores_.cross_entropy < two.scores_.cross_entropy
    assert one.scores_.n_codes < 0.2 * (tokens.ids >= 0).sum()


@pytest.mark.slow
def test_a_recording_is_told_better_than_by_shares_of_codes() -> None:
    rng = np.random.default_rng(0)
    names = ("Fz", "Cz", "Pz", "Oz", "C3", "C4", "P3", "P4")

    def record(seconds: int) -> NDArray:
        n = 200 * seconds
        f = np.fft.rfftfreq(n, 1 / 200)
        shape = np.where((f > 0.5) & (f < 44), 1 / np.maximum(f, 1), 0)
        noise = np.fft.rfft(rng.standard_normal((3, n)))
        mixing = np.random.default_rng(5).standard_normal((8, 3))
        return 1e-5 * mixing @ np.fft.irfft(noise * shape, n)

    tokenizer = EEGTokenizer(bits_per_second=40, n_states=16)
    tokenizer.fit(record(60), sfreq=200.0, ch_names=names)
    train, test = (tokenizer.encode(record(n), ch_names=names) for n in (240, 40))
    told = {}
    for known in (tokenizer, None):
        model = MaskedTokenModel(
            depth=1, n_frames=2, epochs=20, batch_size=4, lr=3e-3
        ).fit(train, tokenizer=known)
        told[known is None] = model.evaluate(test)
    assert told[False].cross_entropy < 0.95 * told[False].unigram_cross_entropy
    assert told[False].accuracy > 1.3 * told[False].unigram_accuracy
    # What codes stand for is worth more than so few tokens.
    assert told[False].cross_entropy < told[True].cross_entropy


def test_caps_of_all_kinds_in_one_run() -> None:
    caps = [
        streams(0, 20),
        streams(1, 20, 2, ("Oz", "O1", "O2")),
        replace(streams(2, 1, 9), ids=streams(2, 1, 9).ids[0]),
    ]
    model = MaskedTokenModel(**SMALL | {"epochs": 2}).fit(caps)
    assert model.transform(caps[0]).shape == (20, 32)
    assert model.transform(caps[1], pool="units").shape == (20, 3 * 32)
    assert model.transform(caps[2]).shape == (1, 32)
    unseen = streams(3, 5, 4, ("F7", "F8", "T7", "AFz", "here"))
    assert np.isfinite(model.transform(unseen)).all()


def test_channels_are_known_by_their_place(fitted: MaskedTokenModel) -> None:
    tokens = streams(4)
    order = [3, 1, 0, 5, 4, 2]
    other = replace(
        tokens, ids=tokens.ids[:, order], ch_names=tuple(NAMES[i] for i in order)
    )
    a, b = (fitted.transform(t, pool="units") for t in (tokens, other))
    expected = a.reshape(len(a), 6, -1)[:, order].reshape(len(a), -1)
    np.testing.assert_allclose(b, expected, atol=1e-5)
    np.testing.assert_allclose(
        fitted.transform(tokens), fitted.transform(other), atol=1e-5
    )
    # Their own names for the same places make no difference; other places do.
    spelled = replace(tokens, ch_names=tuple(f"EEG {n.upper()}-REF" for n in NAMES))
    np.testing.assert_allclose(fitted.transform(spelled), fitted.transform(tokens))
    away = replace(tokens, ch_names=("F7", *NAMES[1:]))
    assert not np.allclose(fitted.transform(away), fitted.transform(tokens))


def test_coordinates_stand_in_for_names(tmp_path: Path) -> None:
    from eegtensor.io.montage import standard_positions

    standard = standard_positions()
    tokens = streams(0, 10)
    mine = replace(tokens, ch_names=tuple(f"E{i}" for i in range(6)))
    places = {f"E{i}": standard[n] for i, n in enumerate(NAMES)}
    options = SMALL | {"epochs": 1}
    a = MaskedTokenModel(**options).fit(mine, coordinates=places)
    b = MaskedTokenModel(**options).fit(tokens)
    assert np.array_equal(weights(a), weights(b))
    a.save(tmp_path / "m")
    again = MaskedTokenModel.load(tmp_path / "m").transform(mine)
    assert np.array_equal(again, b.transform(tokens))


def test_means_over_windows_are_means_over_time(fitted: MaskedTokenModel) -> None:
    long = streams(5, 6, 8)
    halves = [
        replace(long, ids=long.ids[:, :, part]) for part in (slice(4), slice(4, 8))
    ]
    expected = np.mean([fitted.transform(h) for h in halves], axis=0)
    np.testing.assert_allclose(fitted.transform(long), expected, atol=1e-5)
    # A frame alone in its window counts as one of five.
    five = replace(long, ids=long.ids[:, :, :5])
    last = replace(long, ids=long.ids[:, :, 4:5])
    parts = fitted.transform(halves[0]), fitted.transform(last)
    expected = (4 * parts[0] + parts[1]) / 5
    np.testing.assert_allclose(fitted.transform(five), expected, atol=1e-5)


@pytest.mark.parametrize("mask", ["random", "hard"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    mask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = streams(0, 20)
    options = SMALL | {"epochs": 4, "mask": mask, "dropout": 0.1}
    whole = MaskedTokenModel(**options).fit(tokens)
    plain = MaskTokens.sample

    def stop(self: MaskTokens, context: Any) -> Any:
        if context.epoch == 3:
            raise KeyboardInterrupt
        return plain(self, context)

    path = tmp_path / "run"
    monkeypatch.setattr(MaskTokens, "sample", stop)
    with pytest.raises(KeyboardInterrupt):
        MaskedTokenModel(**options, checkpoint=path).fit(tokens)
    saved = read_state(path, "eegtensor training 1", what="run", fix="-")
    assert ("Teacher" in saved["kinds"].values()) == (mask == "hard")
    seen: list[int] = []

    def count(self: MaskTokens, context: Any) -> Any:
        seen.append(context.epoch)
        return plain(self, context)

    monkeypatch.setattr(MaskTokens, "sample", count)
    resumed = MaskedTokenModel(**options, checkpoint=path).fit(tokens)
    assert set(seen) == {3, 4}
    assert np.array_equal(weights(resumed), weights(whole))
    assert len(resumed.history_) == 4


def test_one_seed_one_model() -> None:
    tokens, options = streams(0, 10), SMALL | {"epochs": 1}
    a = MaskedTokenModel(**options)
    b, c = clone(a), MaskedTokenModel(**options, random_state=1)
    for model in (a, b, c):
        model.fit(tokens)
    assert np.array_equal(weights(a), weights(b))
    assert not np.array_equal(weights(a), weights(c))


@pytest.mark.parametrize("mask", ["block", "channel"])
def test_every_mask_and_bfloat16_train(mask: str) -> None:
    options = SMALL | {"epochs": 3, "mask": mask, "precision": "bfloat16"}
    model = MaskedTokenModel(**options).fit(streams(0))
    losses = model.history_.column("train_loss")
    assert losses[-1] < losses[0]


def test_what_is_drawn_fits_what_is_kept(fitted: MaskedTokenModel) -> None:
    tokens = streams(9)
    mask = np.zeros(tokens.ids.shape[:3], dtype=bool)
    mask[:, 2] = True
    drawn = fitted.sample(tokens, mask, random_state=1)
    assert np.array_equal(drawn.ids[~mask], tokens.ids[~mask])
    assert drawn.ids.dtype == tokens.ids.dtype
    first, others = drawn.ids[:, 2, :, 0], tokens.ids[:, 3, :, 0]
    assert np.mean(first == others) > 0.6
    cold = fitted.sample(tokens, mask, temperature=0.05, random_state=1)
    assert np.mean(cold.ids[:, 2, :, 0] == others) > 0.8
    # The first two slots are sent always, which a draw never breaks.
    assert (drawn.ids[..., :2] >= 0).all()
    assert np.array_equal(drawn.ids, fitted.sample(tokens, mask, random_state=1).ids)
    other = fitted.sample(tokens, mask, random_state=2)
    assert not np.array_equal(drawn.ids, other.ids)


def test_what_was_masked_is_not_looked_at(fitted: MaskedTokenModel) -> None:
    tokens, others = streams(9, 6), streams(10, 6)
    mask = np.random.default_rng(0).random(tokens.ids.shape[:-1]) < 0.7
    changed = np.where(mask[..., None], others.ids, tokens.ids)
    one, two = (
        fitted.sample(replace(tokens, ids=ids), mask) for ids in (tokens.ids, changed)
    )
    assert np.array_equal(one.ids, two.ids)


def test_the_next_frame_follows_those_just_before(fitted: MaskedTokenModel) -> None:
    tokens, seen = streams(9, 3, n_frames=9), []
    hook = fitted.network_.register_forward_pre_hook(
        lambda _, args: seen.append(args[0]["ids"].clone())
    )
    fitted.sample(tokens, n_future=1)
    hook.remove()
    assert np.array_equal(seen[0][:, :, :-1].numpy(), tokens.ids[:, :, -3:])
    assert (seen[0][:, :, -1] == -1).all()


def test_tokens_drawn_together_agree(fitted: MaskedTokenModel) -> None:
    tokens = streams(9, 60)
    everything = np.ones(tokens.ids.shape[:3], dtype=bool)

    def agreement(n_steps: int) -> float:
        ids = fitted.sample(tokens, everything, n_steps=n_steps, random_state=0).ids
        return float(np.mean(ids[:, 0, :, 0] == ids[:, 1, :, 0]))

    # All at once each channel is drawn by itself; later ones read earlier ones.
    assert agreement(6) > agreement(1) + 0.15


def test_recordings_go_on(fitted: MaskedTokenModel) -> None:
    tokens = streams(9, 8)
    longer = fitted.sample(tokens, n_future=3, random_state=0)
    assert longer.ids.shape == (8, 6, 7, 3)
    assert longer.n_times == 1400
    assert np.array_equal(longer.ids[:, :, :4], tokens.ids)
    single = replace(tokens, ids=tokens.ids[0], n_times=800)
    assert fitted.sample(single, n_future=1).ids.shape == (6, 5, 3)
    with pytest.raises(EEGTensorError, match="whole frames"):
        fitted.sample(replace(tokens, n_times=750), n_future=1)
    with pytest.raises(EEGTensorError, match="one of them"):
        fitted.sample(tokens)
    with pytest.raises(EEGTensorError, match="mask has shape"):
        fitted.sample(tokens, np.ones((8, 6), dtype=bool))


def test_what_is_saved_comes_back_in_full(
    fitted: MaskedTokenModel, tmp_path: Path
) -> None:
    tokens, path = streams(9), tmp_path / "m.safetensors"
    fitted.save(path)
    loaded = MaskedTokenModel.load(path, device="cpu")
    assert np.array_equal(loaded.transform(tokens), fitted.transform(tokens))
    assert loaded.scores_ == fitted.scores_
    assert loaded.evaluate(tokens) == fitted.evaluate(tokens)
    assert loaded.get_params() == fitted.get_params() | {"device": "cpu"}
    kind = "eegtensor masked tokens 1"
    content = read_state(path, kind, what="model", fix="-")
    content["state"]["network"]["place.bias"][0] += 1e-6
    write_state(path, content, kind)
    with pytest.raises(EEGTensorError, match="changed"):
        MaskedTokenModel.load(path)
    del content["state"]["shares_"]
    write_state(path, content, kind)
    with pytest.raises(EEGTensorError, match="shares_"):
        MaskedTokenModel.load(path)
    EEGTokenizerFile = tmp_path / "other"
    write_state(EEGTokenizerFile, content, "eegtensor.tokenizer.1")
    with pytest.raises(EEGTensorError, match="format"):
        MaskedTokenModel.load(EEGTokenizerFile)


def test_tokens_of_another_tokenizer_are_refused(fitted: MaskedTokenModel) -> None:
    tokens = streams(9, 4)
    with pytest.raises(EEGTensorError, match="tokenizer"):
        fitted.transform(replace(tokens, alphabet=np.array([6, 6, 5])))
    too_large = Tokens(tokens.ids + 1, *list(vars(tokens).values())[1:])
    with pytest.raises(EEGTensorError, match="alphabet"):
        fitted.transform(too_large)
    with pytest.raises(EEGTensorError, match="no tokens"):
        MaskedTokenModel().fit([])
    with pytest.raises(EEGTensorError, match="validation"):
        MaskedTokenModel(n_frames=4).fit(streams(0, 2))
    with pytest.raises(EEGTensorError, match="components"):
        fitted.transform(replace(tokens, ch_names=NAMES[:3]))


TOGETHER = """
import sys
import torch
import torch.distributed as dist
from tokens.test_pretrain import SMALL, streams, weights
from eegtensor.tokens import MaskedTokenModel

torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group(
    "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
)
model = MaskedTokenModel(**SMALL | {"epochs": 3}).fit(streams(0))
losses = model.history_.column("train_loss")
torch.save([losses, torch.from_numpy(weights(model))], f"{folder}/{rank}.pt")
"""


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TOGETHER)
    root = Path(__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root / "tests"),
        "OMP_NUM_THREADS": "1",
    }
    jobs = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path)], env=environment
        )
        for rank in range(2)
    ]
    assert [job.wait(timeout=240) for job in jobs] == [0, 0]
    (losses, first), (_, second) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)
    )
    assert torch.equal(first, second)
    alone = MaskedTokenModel(**SMALL | {"epochs": 3}).fit(streams(0))
    # Masks are drawn by each process: not the same numbers, the same learning.
    assert losses == pytest.approx(alone.history_.column("train_loss"), rel=0.1)
    assert losses[-1] < losses[0]
