"""The learned kind: what codes cost, that bytes hold them, and that it pays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eegtensor._check import EEGTensorError
from eegtensor.tokens import EEGTokenizer, join
from eegtensor.tokens._context import contexts, energies
from eegtensor.tokens.learned import ids_of
from tests.tokens.test_tokenizer import NAMES, SFREQ, eeg, nrmse


@pytest.fixture(scope="module")
def single() -> EEGTokenizer:
    torch.set_num_threads(1)
    return EEGTokenizer("learned", bits_per_second=60).fit(
        [eeg(0), eeg(1)], sfreq=SFREQ
    )


@pytest.fixture(scope="module")
def spatial() -> EEGTokenizer:
    made = EEGTokenizer("learned", bits_per_second=30, spatial=True)
    return made.fit([eeg(0), eeg(1)], sfreq=SFREQ, ch_names=NAMES)


@pytest.fixture(scope="module", params=["single", "spatial"])
def either(request: pytest.FixtureRequest) -> EEGTokenizer:
    return request.getfixturevalue(request.param)


def test_a_recording_costs_what_was_asked_for(either: EEGTokenizer) -> None:
    x = eeg(9)
    tokens = either.encode(x)
    asked = either.bits_per_second
    assert 0.95 * asked < tokens.bits_per_second <= asked
    # A louder second half costs more, and takes its bits from the first.
    loud = x * np.where(np.arange(x.shape[1]) < x.shape[1] // 2, 0.2, 2.0)
    found = either.encode(loud)
    assert found.bits_per_second <= asked
    half = found.bits.shape[-1] // 2
    assert found.bits[..., half:].sum() > 1.5 * found.bits[..., :half].sum()


def test_bytes_are_what_tokens_cost(either: EEGTokenizer) -> None:
    x = eeg(9, 20)
    tokens = either.encode(x, ch_names=NAMES)
    data = either.compress(tokens)
    n_bits = tokens.bits.sum()
    # Beside the codes: the head, and 8 bytes a stream that it starts and ends with.
    head = data.index(b"}") + 1
    extra = 8 * (len(data) - head) - n_bits
    assert 0 < extra < 64 * len(x) + 16 * len(x)
    back = either.decompress(data)
    assert np.array_equal(back.ids, tokens.ids)
    np.testing.assert_allclose(back.bits, tokens.bits)
    assert (back.ch_names, back.sfreq, back.n_times, back.step) == (
        NAMES, tokens.sfreq, tokens.n_times, tokens.step
    )  # fmt: skip
    assert np.array_equal(either.decode(back), either.decode(tokens))


def test_bytes_of_trials_come_back(single: EEGTokenizer) -> None:
    x = np.stack([eeg(9, 3), eeg(10, 3)])
    tokens = single.encode(x)
    assert np.array_equal(single.decompress(single.compress(tokens)).ids, tokens.ids)


def test_bytes_that_are_not_whole_are_refused(single: EEGTokenizer) -> None:
    data = single.compress(single.encode(eeg(9, 5)))
    with pytest.raises(EEGTensorError, match="not those of"):
        single.decompress(data[:-2])
    with pytest.raises(EEGTensorError, match="no tokens"):
        single.decompress(b"x" + data)
    band = EEGTokenizer(bits_per_second=16, n_states=0).fit(eeg(0, 5), sfreq=SFREQ)
    with pytest.raises(EEGTensorError, match="no model of what tokens cost"):
        band.compress(band.encode(eeg(9, 5)))


def test_the_unit_changes_no_token(either: EEGTokenizer) -> None:
    x = eeg(9)
    a, b = either.encode(x), either.encode(1e6 * x)
    assert np.array_equal(a.ids, b.ids)
    assert a.step == b.step


def test_channels_are_coded_each_by_itself(single: EEGTokenizer) -> None:
    x, order = eeg(9), [2, 0, 3, 1]
    tokens = single.encode(x)
    moved = single.encode(x[order])
    assert np.array_equal(moved.ids, tokens.ids[order])
    np.testing.assert_allclose(moved.bits, tokens.bits[order])
    alone = single.encode(x[1:2], scale=tokens.scale[1:2])
    whole = single.encode(x, scale=tokens.scale)
    assert np.array_equal(alone.ids, whole.ids[1:2])
    np.testing.assert_allclose(alone.bits, whole.bits[1:2])


def test_a_stream_is_the_whole(either: EEGTokenizer) -> None:
    x = eeg(9, 6)
    scale = x.std(axis=1)
    whole = either.encode(x, scale=scale)
    found = join(list(either.stream(np.split(x, [90, 500], axis=1), scale=scale)))
    assert np.array_equal(found.ids, whole.ids)
    np.testing.assert_allclose(either.decode(found), either.decode(whole), atol=1e-12)


def test_what_comes_later_changes_no_cost(either: EEGTokenizer) -> None:
    codec = either.codec_
    n_units = 4 if either.spatial else 1
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.integers(-3, 4, (2, 5, n_units, 92)))
    rows = codec.costs(codes, codec.step).rows
    later = codes.clone()
    later[:, 3, :, 40:] = 9
    later[:, 4] = -9
    changed = codec.costs(later, codec.step).rows
    assert torch.equal(changed[:, :3], rows[:, :3])
    assert torch.equal(changed[:, 3, :, :41], rows[:, 3, :, :41])
    assert not torch.equal(changed[:, 3, :, 41:], rows[:, 3, :, 41:])


def test_contexts_are_relative_energies() -> None:
    codes = torch.zeros(1, 3, 1, 92, dtype=torch.int64)
    codes[0, 1] = 2
    relative = torch.full((1, 92), 4.0)
    found = contexts(codes, relative)[0, :, 0]
    one = (4 + 1 / 12) / (4 + 1 / 12)
    silent = (1 / 12) / (4 + 1 / 12)
    floor = 0.02
    # The last frame, at a bin in the middle: the frame before, that before it.
    np.testing.assert_allclose(found[2, 50, 0], np.log(one + floor), atol=1e-3)
    np.testing.assert_allclose(found[2, 50, 2], np.log(silent + floor), atol=1e-3)
    np.testing.assert_allclose(
        found[2, 50, 3], np.log((one + silent) / 2 + floor), atol=1e-3
    )
    # A quarter of each frame goes into the memory, that starts at one.
    memory = ((1 * 0.75 + silent * 0.25) * 0.75) + one * 0.25
    np.testing.assert_allclose(found[2, 50, 4], np.log(memory + floor), atol=1e-3)
    # Bins before: none yet is one; then those of the frame itself.
    np.testing.assert_allclose(found[2, 0, 5:8], np.log(1 + floor), atol=1e-3)
    np.testing.assert_allclose(found[1, 1, 5:8], np.log(one + floor), atol=1e-3)
    np.testing.assert_allclose(found[2, 60, 5:8], np.log(silent + floor), atol=1e-3)
    np.testing.assert_allclose(found[:, 3, 8], np.log(4 + 1 / 12))
    assert energies(codes, relative).dtype == torch.int64


def test_less_error_than_codebooks_at_equal_bits(single: EEGTokenizer) -> None:
    x = eeg(9)
    band = EEGTokenizer(bits_per_second=60).fit([eeg(0), eeg(1)], sfreq=SFREQ)
    a, b = (t.encode(x) for t in (single, band))
    assert a.bits_per_second <= 60
    assert nrmse(x, single.decode(a)) < 0.9 * nrmse(x, band.decode(b))


def test_noise_brings_back_energy_and_costs_error(either: EEGTokenizer) -> None:
    x = eeg(9)
    tokens = either.encode(x)
    plain, filled = (either.decode(tokens, fill=f) for f in (0.0, 1.0))
    assert nrmse(x, plain) < nrmse(x, filled)
    gap = [abs(np.log(y.var(axis=1) / x.var(axis=1)).mean()) for y in (plain, filled)]
    assert gap[1] < gap[0]


def test_ids_count_up_from_silence() -> None:
    codes = torch.tensor([0, 1, -1, 2, -2, 127, -127])
    assert ids_of(codes).tolist() == [0, 1, 2, 3, 4, 253, 254]


def test_two_runs_and_a_file_are_alike(spatial: EEGTokenizer, tmp_path: Path) -> None:
    x = eeg(9)
    again = EEGTokenizer("learned", bits_per_second=30, spatial=True)
    again.fit([eeg(0), eeg(1)], sfreq=SFREQ, ch_names=NAMES)
    spatial.save(tmp_path / "t.safetensors")
    loaded = EEGTokenizer.load(tmp_path / "t.safetensors")
    tokens = spatial.encode(x)
    for other in (again, loaded):
        found = other.encode(x)
        assert np.array_equal(found.ids, tokens.ids)
        assert np.array_equal(found.bits, tokens.bits)
        assert np.array_equal(other.decode(tokens), spatial.decode(tokens))


def test_hard_recordings(either: EEGTokenizer) -> None:
    x = eeg(9, 5)
    x[2] = 0
    y = either.decode(either.encode(x))
    assert np.isfinite(y).all()
    short = either.encode(eeg(9, 1)[:, :50])
    assert either.decode(short).shape == (4, 50)
    # A spike a thousand times the signal: clipped codes, finite result.
    spike: NDArray = eeg(9, 5)
    spike[0, 300] += 1000 * spike.std()
    assert np.isfinite(either.decode(either.encode(spike))).all()
    silent = either.encode(np.zeros((4, 400)))
    assert not either.decode(silent).any()
    with pytest.raises(EEGTensorError, match="the tokenizer that encoded"):
        tokens = either.encode(x)
        either.decode(replace(tokens, ids=tokens.ids + 300))


def test_options_of_other_kinds_are_refused() -> None:
    with pytest.raises(EEGTensorError, match="n_states"):
        EEGTokenizer("learned", n_states=4).fit(eeg(0, 5), sfreq=SFREQ)
    with pytest.raises(EEGTensorError, match="spatial"):
        EEGTokenizer("labram", spatial=True).fit(eeg(0, 5), sfreq=SFREQ)
