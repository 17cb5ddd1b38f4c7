"""The published tokenizers as kinds: loss, training, codec, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from numpy.typing import NDArray

from eegtensor._check import EEGTensorError
from eegtensor.codebook import code_counts, code_usage
from eegtensor.models._electrodes import OTHER, places
from eegtensor.models.neurorvq import NeuroRVQ
from eegtensor.tokens import EEGTokenizer
from eegtensor.tokens._neural_codec import patches_of
from eegtensor.tokens._neural_fit import (
    ALL_FIXES,
    Schedule,
    cut_samples,
    shifted,
    train_network,
)
from eegtensor.tokens._saving import read_digested, write_digested
from eegtensor.tokens._signals import Signals
from eegtensor.tokens.neural import NeuralBackend, NeuralCodec

CHANNELS = ("Cz", "Pz", "Oz")


def waves(n_channels: int = 3, n_seconds: int = 24, sfreq: float = 200.0) -> NDArray:
    """Return band-limited noise with an alpha rhythm, (n_channels, n_times)."""
    rng = np.random.default_rng(0)
    t = np.arange(round(n_seconds * sfreq)) / sfreq
    X = np.zeros((n_channels, len(t)))
    for f in np.arange(1, 30, 0.37):
        phase = rng.uniform(0, 2 * np.pi, (n_channels, 1))
        X += np.sin(2 * np.pi * f * t + phase) * rng.standard_normal() / f
    X += np.sin(2 * np.pi * 10 * t) * (1 + np.sin(2 * np.pi * 0.1 * t))
    return X / X.std(axis=1, keepdims=True)


def fitted(network: str = "neurorvq", **options: Any) -> tuple[NeuralCodec, NDArray]:
    X = waves()[None]
    given = {"bits_per_second": 40.0, "n_codes": 32, "n_steps": 12} | options
    signals = Signals(X, 200.0, CHANNELS, True)
    return NeuralBackend(network).fit([signals], [X], **given), X


@pytest.fixture(scope="module")
def neurorvq() -> tuple[NeuralCodec, NDArray]:
    return fitted()


def test_training_lowers_the_error() -> None:
    codec, X = fitted(n_steps=60, batch_patches=64, lr=3e-3)
    ids = codec.encode(X, 200.0, CHANNELS).ids
    rebuilt = codec.decode(ids, 200.0, CHANNELS, X.shape[-1])
    assert rebuilt.shape == X.shape
    # Zeros have an error of 1.
    error = np.mean((rebuilt - X) ** 2)
    assert error < 0.7
    shuffled = np.random.default_rng(0).permutation(ids.reshape(-1, ids.shape[-1]))
    other = codec.decode(shuffled.reshape(ids.shape), 200.0, CHANNELS, X.shape[-1])
    assert np.mean((other - X) ** 2) > error + 0.1


def test_ids(neurorvq: tuple[NeuralCodec, NDArray]) -> None:
    codec, X = neurorvq
    ids = codec.encode(X, 200.0, CHANNELS).ids
    assert ids.shape == (1, 3, 24, 8)
    assert ids.dtype == np.int32
    assert len(np.unique(ids)) > 16
    np.testing.assert_array_equal(codec.alphabet, 32)
    assert codec.bits_per_second == 40
    # Alone and permuted, bit for bit.
    one = codec.encode(X[:, 1:2, 1000:1200], 200.0, CHANNELS[1:2]).ids
    np.testing.assert_array_equal(one[:, 0, 0], ids[:, 1, 5])
    turned = codec.encode(X[:, ::-1], 200.0, CHANNELS[::-1]).ids
    np.testing.assert_array_equal(turned, ids[:, ::-1])
    unknown = codec.encode(X, 200.0, ()).ids
    assert unknown.shape == ids.shape


@pytest.mark.parametrize("network", ["neurorvq", "labram"])
@pytest.mark.parametrize("without", ["revival", "warmup", "alone", "residual"])
def test_no_code_is_dead_after_training(network: str, without: str) -> None:
    fixes = tuple(fix for fix in ALL_FIXES if fix != without)
    codec, X = fitted(network, fixes=fixes, n_steps=3)
    ids = codec.encode(X, 200.0, CHANNELS).ids
    flat = torch.from_numpy(ids.reshape(-1, ids.shape[-1])).long()
    dead = code_usage(code_counts(flat, 32)).dead
    assert bool((dead > 0).any() if without == "revival" else (dead == 0).all())


def test_streaming_decodes_as_a_whole(neurorvq: tuple[NeuralCodec, NDArray]) -> None:
    codec, X = neurorvq
    ids = codec.encode(X, 200.0, CHANNELS).ids
    for fill in (0.0, 1.0):
        whole = codec.decode(ids, 200.0, CHANNELS, 4800, fill=fill)
        second = codec.decode(ids[:, :, 7:8], 200.0, CHANNELS, 200, fill=fill)
        np.testing.assert_allclose(second, whole[..., 1400:1600], atol=1e-5)
    # Any ids: those of a short training repeat, and so does their noise.
    drawn = np.random.default_rng(0).integers(0, 32, (1, 3, 400, 8))
    rebuilt = [codec.decode(drawn, 200.0, CHANNELS, 80000, fill=f) for f in (0, 1)]
    lost = float(codec.lost.sum()) / 200
    np.testing.assert_allclose(np.mean((rebuilt[1] - rebuilt[0]) ** 2), lost, rtol=0.1)


@pytest.mark.parametrize("sfreq", [100.0, 128.0, 512.0])
def test_any_rate(neurorvq: tuple[NeuralCodec, NDArray], sfreq: float) -> None:
    codec, _ = neurorvq
    X = waves(sfreq=sfreq)[None]
    ids = codec.encode(X, sfreq, CHANNELS).ids
    there = codec.encode(waves()[None], 200.0, CHANNELS).ids
    # What is above 46 Hz, or folded there by frames' edges, differs by a tenth; second
    # levels, of 32 codes for 72 patches, tell that apart.
    assert np.mean((ids == there)[..., ::2]) > 0.85
    assert np.mean(ids == there) > 0.7
    assert codec.decode(ids, sfreq, CHANNELS, X.shape[-1]).shape == X.shape


def test_samples_of_a_recording_as_published() -> None:
    codec, X = fitted(fixes=(), n_steps=1)
    trials = np.concatenate([X, X[..., ::-1]])[..., : 19 * 200]
    # 256 patches: samples of 5 seconds where 51 channels are given.
    many = np.tile(trials, (1, 17, 1))
    names = [*CHANNELS] * 17
    ids = codec.encode(many, 200.0, names).ids
    assert ids.shape == (2, 51, 19, 8)
    rebuilt = codec.decode(ids, 200.0, names, 3800)
    where = places(names)
    for seconds in (slice(5, 10), slice(15, 19)):
        times = slice(200 * seconds.start, 200 * seconds.stop)
        part = codec.encode(many[1:, :, times], 200.0, names).ids
        np.testing.assert_array_equal(part[0], ids[1][:, seconds])
        one = codec.model.decode(torch.from_numpy(part).long(), where)[0].detach()
        # But for what the patches have above 46 Hz.
        found = patches_of(one.numpy()[None], 200.0).flatten(2)[0].numpy()
        np.testing.assert_allclose(rebuilt[1][:, times], found, atol=1e-4)


def test_patches_hold_the_signal_below_46_hz() -> None:
    X = waves(1, 3)
    found = patches_of(X, 200.0).double().numpy()
    coefs = scipy.fft.dct(found, norm="ortho")
    truth = scipy.fft.dct(X.reshape(1, 3, 200), norm="ortho")
    np.testing.assert_allclose(coefs[..., :92], truth[..., :92], atol=1e-5)
    np.testing.assert_allclose(coefs[..., 92:], 0, atol=1e-5)


@pytest.mark.parametrize("network", ["neurorvq", "labram"])
@pytest.mark.parametrize("fixes", [(), ALL_FIXES])
def test_save_and_load(network: str, fixes: tuple[str, ...], tmp_path: Path) -> None:
    codec, X = fitted(network, fixes=fixes, n_steps=3)
    again, _ = fitted(network, fixes=fixes, n_steps=3)
    path = tmp_path / "made"
    state = codec.state()
    write_digested(path, state, "test")
    loaded = NeuralCodec.from_state(
        read_digested(path, set(state), "test", what="tokenizer")
    )
    ids = codec.encode(X, 200.0, CHANNELS).ids
    np.testing.assert_array_equal(again.encode(X, 200.0, CHANNELS).ids, ids)
    np.testing.assert_array_equal(loaded.encode(X, 200.0, CHANNELS).ids, ids)
    for fill in (0.0, 0.7):
        np.testing.assert_array_equal(
            loaded.decode(ids, 200.0, CHANNELS, 4700, fill=fill),
            codec.decode(ids, 200.0, CHANNELS, 4700, fill=fill),
        )


def test_a_file_in_part_is_refused(neurorvq: tuple[NeuralCodec, NDArray]) -> None:
    codec, _ = neurorvq
    for change in (
        lambda w: w.pop("encoder.places"),
        lambda w: w.update(more=torch.zeros(1)),
        lambda w: w.update({"encoder.places": torch.zeros(3, 64)}),
        lambda w: w.update({"encoder.places": w["encoder.places"].double()}),
    ):
        state = codec.state()
        change(state["weights"])
        with pytest.raises(EEGTensorError, match="tensors fit"):
            NeuralCodec.from_state(state)


def test_bits_pay_for_levels() -> None:
    backend = NeuralBackend("neurorvq")
    assert [backend._levels(b, 256, 8) for b in (32, 104, 416)] == [1, 3, 8]
    assert backend._levels(416, 8192, 8) == 8
    with pytest.raises(EEGTensorError, match="52 bits a second"):
        backend._levels(51, 8192, 8)
    with pytest.raises(EEGTensorError, match="13 bits a second"):
        NeuralBackend("labram")._levels(12, 8192, 1)


def test_unlisted_channels_as_published() -> None:
    X = waves()[None]
    signals = Signals(X, 200.0, ("Cz", "Pz", "X1"), True)
    with pytest.raises(EEGTensorError, match="no place for X1"):
        NeuralBackend("neurorvq").fit([signals], [X], bits_per_second=64, fixes=())


def test_samples_of_unlike_recordings() -> None:
    parts = [
        [torch.arange(2 * n * 3.0).view(2, n, 3, 1).expand(2, n, 3, 200)]
        for n in (2, 5)
    ]
    where = [torch.arange(n) for n in (2, 5)]
    x, at = cut_samples(
        parts, where, n_seconds=2, most=256, others=False, random_state=0
    )
    # Two samples of the first recording, then three groups of two channels each.
    assert x.shape == (2 + 6, 2, 400)
    first = x[..., 0]
    assert first[:2].tolist() == [[0, 3], [6, 9]]
    rows = torch.arange(30).view(2, 5, 3)[:, :, 0]
    expected = torch.cat([rows[t][at[2 + 3 * t : 5 + 3 * t]] for t in (0, 1)])
    assert torch.equal(first[2:].long(), expected)
    assert set(at[2:].flatten().tolist()) == set(range(5))
    _, hidden = cut_samples(
        [[torch.zeros(200, 4, 1, 200)]],
        [torch.arange(4)],
        n_seconds=1,
        most=256,
        others=True,
        random_state=0,
    )
    assert 0.05 < float((hidden == OTHER).double().mean()) < 0.15


def test_frames_begin_at_four_places() -> None:
    X = np.arange(650.0)[None, None]
    parts = shifted(X, 200.0)
    assert [p[0, 0, 0] for p in parts] == [0, 50, 100, 150]
    assert [p.shape[-1] for p in parts] == [600, 600, 400, 400]


def test_schedule() -> None:
    network = NeuroRVQ(size="small", n_codes=8, n_levels=1, random_state=0)
    seen: list[tuple[float, bool, int]] = []

    class Watch:
        def on_step_end(self, state: Any) -> None:
            books = network.quantizers[0].levels[0].batches_seen()
            lr = state.optimizer.param_groups[0]["lr"]
            seen.append((lr, network.quantises, books))

    x = torch.from_numpy(waves(2, 24).reshape(2, 24, 200).swapaxes(0, 1)).float()
    samples = (x, places(["Cz", "Pz"]).expand(24, 2))
    train_network(network, samples, n_steps=24, batch_patches=2, callbacks=[Watch()])
    lrs, on, books = zip(*seen, strict=True)
    assert np.argmax(lrs) == 0
    assert lrs[0] < 1e-3
    assert lrs[-1] < 1e-9
    assert [i for i, v in enumerate(on) if v] == list(range(3, 24))
    assert books[3] == 0
    assert books[-1] == 20
    assert Schedule(network, 1e-3, 24, warmup=False).n_warmup == 0


@pytest.mark.parametrize("kind", ["neurorvq", "labram"])
def test_as_a_kind_of_tokenizer(kind: str, tmp_path: Path) -> None:
    X = waves()
    made = EEGTokenizer(kind, bits_per_second=64, n_codes=16, n_steps=3)
    tokens = made.fit(X * 1e-5, sfreq=200.0, ch_names=CHANNELS).encode(X * 1e-5)
    assert tokens.bits_per_second == made.bits_per_second_
    assert made.bits_per_second_ == (64 if kind == "neurorvq" else 4)
    np.testing.assert_array_equal(made.encode(X * 10).ids, tokens.ids)
    made.save(tmp_path / "made")
    again = EEGTokenizer.load(tmp_path / "made")
    np.testing.assert_array_equal(again.encode(X * 1e-5).ids, tokens.ids)
    np.testing.assert_array_equal(again.decode(tokens), made.decode(tokens))
    assert made.decode(tokens).shape == X.shape
