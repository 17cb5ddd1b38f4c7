"""Laws of the tokenizer: what its tokens may and may not depend on."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eegtensor._check import EEGTensorError
from eegtensor.tokens import EEGTokenizer, join
from eegtensor.tokens._saving import digest
from eegtensor.tokens._signals import signals_from, spectra
from eegtensor.training.files import read_state, write_state

SFREQ = 200.0
NAMES = ("Fz", "Cz", "Pz", "Oz")


def eeg(seed: int, seconds: int = 60, n_channels: int = 4) -> NDArray:
    """Return channels that share sources of a falling spectrum, in volts."""
    rng = np.random.default_rng(seed)
    n = int(seconds * SFREQ)
    f = np.fft.rfftfreq(n, 1 / SFREQ)
    shape = np.where((f > 0.5) & (f < 44), 1 / np.maximum(f, 1), 0)
    shape += 0.3 * np.exp(-((f - 10) ** 2))
    sources = np.fft.irfft(np.fft.rfft(rng.standard_normal((3, n))) * shape, n)
    # Energy comes and goes, or states had nothing to say.
    sources *= np.repeat(rng.uniform(0.3, 2, (3, seconds)), int(SFREQ), axis=1)
    mixing = np.random.default_rng(5).standard_normal((n_channels, 3))
    x = mixing @ sources
    return 2e-5 * x / x.std() * np.linspace(0.5, 2, n_channels)[:, None]


def nrmse(x: NDArray, y: NDArray) -> float:
    return float(np.sqrt(np.mean((x - y) ** 2) / np.var(x)))


@pytest.fixture(scope="module")
def single() -> EEGTokenizer:
    torch.set_num_threads(1)
    return EEGTokenizer(bits_per_second=40, n_states=16).fit(
        [eeg(0), eeg(1)], sfreq=SFREQ
    )


@pytest.fixture(scope="module")
def spatial() -> EEGTokenizer:
    made = EEGTokenizer(bits_per_second=12, spatial=True, n_states=4)
    return made.fit([eeg(0), eeg(1)], sfreq=SFREQ, ch_names=NAMES)


@pytest.fixture(scope="module", params=["single", "spatial"])
def either(request: pytest.FixtureRequest) -> EEGTokenizer:
    return request.getfixturevalue(request.param)


def test_what_comes_back_is_near_and_in_its_unit(either: EEGTokenizer) -> None:
    x = eeg(9)
    tokens = either.encode(x)
    y = either.decode(tokens)
    assert y.shape == x.shape
    assert nrmse(x, y) < 0.7
    assert np.array_equal(np.asarray(tokens), tokens.ids)


def test_the_unit_changes_no_token(either: EEGTokenizer) -> None:
    x = eeg(9)
    a, b = either.encode(x), either.encode(1e6 * x)
    assert np.array_equal(a.ids, b.ids)
    np.testing.assert_allclose(1e6 * either.decode(a), either.decode(b), rtol=1e-9)


def test_no_second_costs_more_than_its_bits(either: EEGTokenizer) -> None:
    tokens = either.encode(eeg(9))
    bits = np.where(tokens.ids >= 0, np.log2(tokens.alphabet), 0)
    per_frame = bits.sum(axis=-1)
    if either.spatial:
        per_frame = per_frame.mean(axis=0)
    assert per_frame.max() <= either.bits_per_second_ <= either.bits_per_second
    assert per_frame.max() > 0.7 * either.bits_per_second
    assert tokens.bits_per_second == pytest.approx(per_frame.mean())
    assert (tokens.ids < tokens.alphabet).all()


def test_levels_are_sent_in_order(either: EEGTokenizer) -> None:
    ids = either.encode(eeg(9)).ids
    n_levels = either.codec_.bands.n_levels
    sent = ids[..., 1:].reshape(*ids.shape[:-1], -1, n_levels) >= 0
    assert (sent[..., 1:] <= sent[..., :-1]).all()


def test_every_level_that_is_sent_lowers_the_error(either: EEGTokenizer) -> None:
    codec = either.codec_.bands
    left = codec.remaining
    ids = either.encode(eeg(9)).ids
    sent = ids[..., 1:].reshape(-1, len(left), codec.n_levels) >= 0
    used = torch.from_numpy(sent.any(axis=0))
    assert used.any()
    assert (left[:, 1:][used] <= 0.95 * left[:, :-1][used]).all()


def test_channels_are_coded_each_by_itself(single: EEGTokenizer) -> None:
    x = eeg(9)
    all_ids = single.encode(x).ids
    order = [2, 0, 3, 1]
    assert np.array_equal(single.encode(x[order]).ids, all_ids[order])
    assert np.array_equal(single.encode(x[1:3]).ids, all_ids[1:3])
    assert np.array_equal(single.encode(x[3:]).ids, all_ids[3:])


@pytest.mark.parametrize("sfreq", [200.0, 256.0])
def test_seconds_one_by_one_are_the_whole(either: EEGTokenizer, sfreq: float) -> None:
    x = np.random.default_rng(0).standard_normal((4, 6 * int(sfreq)))
    scale = x.std(axis=1)
    whole = either.encode(x, scale=scale, sfreq=sfreq)
    n = int(sfreq)
    parts = [
        either.encode(x[:, k * n : (k + 1) * n], scale=scale, sfreq=sfreq)
        for k in range(6)
    ]
    assert np.array_equal(np.concatenate([p.ids for p in parts], axis=1), whole.ids)
    for fill in (0.0, 0.7):
        rebuilt = np.hstack([either.decode(p, fill=fill) for p in parts])
        np.testing.assert_allclose(rebuilt, either.decode(whole, fill=fill), atol=1e-9)


def test_a_stream_is_the_whole(either: EEGTokenizer) -> None:
    x = eeg(9, 5)[:, :-70]
    scale = x.std(axis=1)
    # Chunks of no particular length, as amplifiers send them.
    cuts = [0, 30, 410, 415, 700, x.shape[1]]
    chunks = [x[:, a:b] for a, b in pairwise(cuts)]
    parts = list(either.stream(chunks, scale=scale))
    whole = either.encode(x, scale=scale)
    assert [p.n_times for p in parts] == [200, 200, 200, 200, 130]
    found = join(parts)
    assert np.array_equal(found.ids, whole.ids)
    np.testing.assert_allclose(either.decode(found), either.decode(whole), atol=1e-12)
    with pytest.raises(EEGTensorError, match="ends within a second"):
        join(parts[::-1])
    with pytest.raises(EEGTensorError, match="chunk 1"):
        list(either.stream([x, x[:2]], scale=scale[:1].item()))


def test_trials_are_coded_each_by_itself(either: EEGTokenizer) -> None:
    x = np.stack([eeg(9, 3), eeg(10, 3)])
    scale = x.std(axis=(0, 2))
    ids = either.encode(x, scale=scale).ids
    for trial, expected in zip(x, ids, strict=True):
        assert np.array_equal(either.encode(trial, scale=scale).ids, expected)
    assert either.decode(either.encode(x)).shape == x.shape


@pytest.mark.parametrize("sfreq", [100.0, 128.0, 250.0, 512.0, 1000.0])
def test_the_rate_of_a_recording_hardly_matters(
    single: EEGTokenizer, sfreq: float
) -> None:
    # One signal made of sines, sampled in the middle of every interval.
    rng = np.random.default_rng(3)
    f, phase = rng.uniform(1, 40, 20), rng.uniform(0, 6, 20)

    def sampled(rate: float) -> NDArray:
        t = (np.arange(int(8 * rate)) + 0.5) / rate
        waves = np.sin(2 * np.pi * f[:, None] * t + phase[:, None]) / f[:, None]
        return waves.sum(axis=0)[None]

    x = sampled(sfreq)
    y = single.decode(single.encode(x, sfreq=sfreq))
    base = single.decode(single.encode(sampled(200.0)))
    assert y.shape == x.shape
    assert abs(nrmse(x, y) - nrmse(sampled(200.0), base)) < 0.03


def test_the_eeg_of_a_recording_is_coded(single: EEGTokenizer) -> None:
    mne = pytest.importorskip("mne")
    x = eeg(9, 5)
    info = mne.create_info(
        ["Fz", "Trigger", "Pz", "Oz"], SFREQ, ["eeg", "stim"] + 2 * ["eeg"]
    )
    found = single.encode(mne.io.RawArray(x, info, verbose=False))
    assert found.ch_names == ("Fz", "Pz", "Oz")
    assert np.array_equal(found.ids, single.encode(x[[0, 2, 3]]).ids)


def test_spectra_come_back() -> None:
    x = np.random.default_rng(0).standard_normal((2, 250 * 2 + 30))
    coefs = spectra(x, 250.0, 250)
    assert coefs.shape == (2, 3, 250)
    np.testing.assert_allclose(signals_from(coefs, 250.0, x.shape[-1]), x, atol=1e-12)


def test_two_runs_and_a_file_are_alike(spatial: EEGTokenizer, tmp_path: Path) -> None:
    x = eeg(9)
    again = EEGTokenizer(bits_per_second=12, spatial=True, n_states=4)
    again.fit([eeg(0), eeg(1)], sfreq=SFREQ, ch_names=NAMES)
    spatial.save(tmp_path / "t.safetensors")
    loaded = EEGTokenizer.load(tmp_path / "t.safetensors")
    tokens = spatial.encode(x)
    for other in (again, loaded):
        assert np.array_equal(other.encode(x).ids, tokens.ids)
        for fill in (0.0, 0.5):
            a, b = other.decode(tokens, fill=fill), spatial.decode(tokens, fill=fill)
            assert np.array_equal(a, b)


def test_a_file_that_was_changed_is_refused(
    single: EEGTokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "t.safetensors"
    single.save(path)
    kind = "eegtensor.tokenizer.1"
    content = read_state(path, kind, what="tokenizer", fix="-")
    book = content["state"]["codec"]["books"][3]
    book[2, 7, 1] += 1e-9
    write_state(path, content, kind)
    with pytest.raises(EEGTensorError, match="changed"):
        EEGTokenizer.load(path)
    book[2, 7, 1] -= 1e-9
    seed = content["state"].pop("random_state")
    write_state(path, content, kind)
    with pytest.raises(EEGTensorError, match="random_state"):
        EEGTokenizer.load(path)
    content["state"]["random_state"] = seed
    del content["state"]["codec"]["gains"]
    content["digest"] = digest(content["state"])
    write_state(path, content, kind)
    with pytest.raises(EEGTensorError, match="gains"):
        EEGTokenizer.load(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EEGTensorError, match="no whole tokenizer"):
        EEGTokenizer.load(path)


def test_noise_brings_back_energy_and_costs_error(either: EEGTokenizer) -> None:
    x = eeg(9)
    tokens = either.encode(x)
    plain, filled = (either.decode(tokens, fill=f) for f in (0.0, 1.0))
    assert nrmse(x, plain) < nrmse(x, filled)
    gap = [abs(np.log(y.var(axis=1) / x.var(axis=1)).mean()) for y in (plain, filled)]
    assert gap[1] < gap[0]
    assert np.array_equal(filled, either.decode(tokens, fill=1.0))


@pytest.mark.slow
def test_more_bits_less_error() -> None:
    x, errors = eeg(9, 30), []
    for rate in (8, 32, 104):
        made = EEGTokenizer(bits_per_second=rate, n_states=0).fit(eeg(0), sfreq=SFREQ)
        errors.append(nrmse(x, made.decode(made.encode(x))))
    assert errors[0] > 1.1 * errors[1]
    assert errors[1] > 1.1 * errors[2]


@pytest.mark.slow
def test_states_are_chosen_where_they_pay() -> None:
    made = EEGTokenizer(bits_per_second=8).fit(eeg(0), sfreq=SFREQ)
    assert made.codec_.n_states == 0
    made = EEGTokenizer(bits_per_second=104).fit(eeg(0), sfreq=SFREQ)
    assert made.codec_.n_states > 0


def test_a_silent_channel_stays_silent(either: EEGTokenizer) -> None:
    x = eeg(9, 5)
    x[2] = 0
    y = either.decode(either.encode(x))
    assert np.isfinite(y).all()
    assert not y[2].any()


def test_a_few_seconds_are_enough_to_fit() -> None:
    made = EEGTokenizer(bits_per_second=16).fit(eeg(0, 3), sfreq=SFREQ)
    assert np.isfinite(made.decode(made.encode(eeg(9, 3)))).all()


def test_what_cannot_be_coded_is_refused(
    single: EEGTokenizer, spatial: EEGTokenizer
) -> None:
    x = eeg(9, 5)
    with pytest.raises(EEGTensorError, match="exactly those channels"):
        spatial.encode(x[:3])
    with pytest.raises(EEGTensorError, match="exactly those channels"):
        spatial.encode(x, ch_names=NAMES[::-1])
    with pytest.raises(EEGTensorError, match="not finite in Pz"):
        bad = x.copy()
        bad[2, 7] = np.nan
        single.encode(bad, ch_names=NAMES)
    with pytest.raises(EEGTensorError, match="high pass"):
        single.encode(x + 1.0)
    with pytest.raises(EEGTensorError, match="1500 Hz"):
        single.encode(x, sfreq=1500.0)
    with pytest.raises(EEGTensorError, match="not fitted"):
        EEGTokenizer().encode(x)
    with pytest.raises(EEGTensorError, match="leave no code"):
        EEGTokenizer(bits_per_second=5, n_states=0).fit(x, sfreq=SFREQ)
    with pytest.raises(EEGTensorError, match="sfreq is not given"):
        EEGTokenizer().fit(x)
    with pytest.raises(EEGTensorError, match="the tokenizer that encoded"):
        single.decode(replace(single.encode(x), ids=single.encode(x).ids + 300))
