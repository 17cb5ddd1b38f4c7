"""What a tokenizer is given by mistake, or by hard recordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
import torch

from eegtensor._check import EEGTensorError, EEGTensorWarning
from eegtensor.tokens import (
    EEGTokenizer,
    MaskedTokenModel,
    evaluate,
    join,
    load_tokens,
)
from eegtensor.tokens._context import contexts
from eegtensor.tokens._fit_learned import _runs
from tests.tokens.test_tokenizer import NAMES, SFREQ, eeg


@pytest.fixture(scope="module")
def learned() -> EEGTokenizer:
    return EEGTokenizer("learned", bits_per_second=60).fit(eeg(0, 10), sfreq=SFREQ)


def test_names_may_be_an_array(learned: EEGTokenizer) -> None:
    assert learned.encode(eeg(9, 2), ch_names=np.array(NAMES)).ch_names == NAMES


@pytest.mark.parametrize("kind", ["learned", "band-rvq"])
@pytest.mark.parametrize("rate", [0, -5, np.nan, np.inf, "x", None])
def test_rates_that_are_none(kind: str, rate: Any) -> None:
    with pytest.raises(EEGTensorError, match="bits_per_second"):
        EEGTokenizer(kind, bits_per_second=rate).fit(eeg(0, 5), sfreq=SFREQ)


def test_silence_teaches_nothing() -> None:
    with pytest.raises(EEGTensorError, match="constant"):
        EEGTokenizer("learned").fit(np.ones((4, 2000)), sfreq=SFREQ)


def test_a_fit_on_less_than_five_seconds() -> None:
    fitted = EEGTokenizer(bits_per_second=32, random_state=None)
    fitted.fit(eeg(0, 1)[:, :150], sfreq=SFREQ)
    assert np.isfinite(fitted.decode(fitted.encode(eeg(9, 2)))).all()


def test_what_is_no_recording(learned: EEGTokenizer) -> None:
    for x in (np.full((4, 300), "a"), 1j * eeg(9, 2)):
        with pytest.raises(EEGTensorError, match="real numbers"):
            learned.encode(x)
    with pytest.raises(EEGTensorError, match="got ndarray"):
        learned.decode(learned.encode(eeg(9, 2)).ids)  # type: ignore[arg-type]
    with pytest.raises(EEGTensorError, match="scale holds -1"):
        learned.encode(eeg(9, 2), scale=-1.0)


@pytest.mark.parametrize("scale", [0.0, np.zeros(4), np.nan, -1e-5, "a", np.ones(3)])
def test_scales_that_are_none(learned: EEGTokenizer, scale: Any) -> None:
    with pytest.raises(EEGTensorError, match="scale"):
        learned.encode(eeg(9, 2), scale=scale)
    with pytest.raises(EEGTensorError, match="scale"):
        list(learned.stream([eeg(9, 2)], scale=scale))


def test_silence_has_a_scale_and_the_same_ids_in_every_unit() -> None:
    fitted = EEGTokenizer(bits_per_second=32, n_states=4).fit(eeg(0, 10), sfreq=SFREQ)
    x = eeg(9, 2)
    x[2] = 5e-5
    tokens, other = fitted.encode(x), fitted.encode(1e6 * x)
    assert tokens.scale[2] == 0
    # A constant is silence as zeros are, in volts and in microvolts.
    assert np.array_equal(tokens.ids, other.ids)
    assert np.array_equal(fitted.encode(x, scale=tokens.scale).ids, tokens.ids)
    silent = fitted.encode(np.zeros((4, 400)))
    assert not fitted.decode(silent).any()
    assert np.array_equal(silent.ids[2], tokens.ids[2])
    again = fitted.encode(np.zeros((4, 400)), scale=silent.scale)
    assert np.array_equal(again.ids, silent.ids)


@pytest.mark.parametrize("step", [0.0, np.nan, -1.0, np.inf, "a"])
def test_steps_that_are_none(learned: EEGTokenizer, step: Any) -> None:
    with pytest.raises(EEGTensorError, match="step="):
        replace(learned.encode(eeg(9, 2)), step=step)


@pytest.mark.parametrize("sfreq", ["200", np.nan, 0, -200.0, 99.9, 1000.1, 1j])
def test_rates_of_recordings_that_are_none(learned: EEGTokenizer, sfreq: Any) -> None:
    calls = [
        lambda: learned.encode(eeg(9, 2), sfreq=sfreq),
        lambda: EEGTokenizer().fit(eeg(0, 3), sfreq=sfreq),
        lambda: list(learned.stream([eeg(9, 2)], scale=1.0, sfreq=sfreq)),
        lambda: replace(learned.encode(eeg(9, 2)), sfreq=sfreq),
    ]
    for call in calls:
        with pytest.raises(EEGTensorError, match="sfreq="):
            call()


def test_tokens_that_hold_no_recording(learned: EEGTokenizer) -> None:
    tokens = learned.encode(eeg(9, 2))
    for wrong in ({"n_times": 5.5}, {"n_times": 0}, {"scale": np.full(4, np.nan)}):
        with pytest.raises(EEGTensorError, match=next(iter(wrong))):
            replace(tokens, **wrong)
    with pytest.raises(EEGTensorError, match="2 frames of 400"):
        learned.decode(replace(tokens, n_times=401))
    for fill in (-0.1, 1.1, np.nan, "a"):
        with pytest.raises(EEGTensorError, match="fill="):
            learned.decode(tokens, fill=fill)  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", [1e-310, 1e-160, 1e160, 1e300])
def test_no_unit_is_too_large(learned: EEGTokenizer, unit: float) -> None:
    x = eeg(9, 5)
    tokens, far = learned.encode(x), learned.encode(unit * x)
    assert np.array_equal(far.ids, tokens.ids)
    rebuilt = learned.decode(tokens)
    np.testing.assert_allclose(
        learned.decode(far) / unit, rebuilt, atol=1e-8 * rebuilt.std()
    )
    for found, expected in zip(
        evaluate(learned, unit * x).row().values(),
        evaluate(learned, x).row().values(),
        strict=True,
    ):
        assert found == pytest.approx(expected, rel=1e-6)


def test_one_channel_in_another_unit_moves_no_other(learned: EEGTokenizer) -> None:
    x = eeg(9, 5)
    scale = learned.encode(x).scale
    x[1] *= 1e170
    found = learned.encode(x).scale
    np.testing.assert_array_equal(found[[0, 2, 3]], scale[[0, 2, 3]])
    assert found[1] == pytest.approx(1e170 * scale[1])


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("band-rvq", {"n_states": -1}),
        ("band-rvq", {"n_states": 2.5}),
        ("band-rvq", {"spatial": "no"}),
        ("band-rvq", {"random_state": -1}),
        ("neurorvq", {"n_codes": 1}),
        ("labram", {"n_steps": 0}),
    ],
)
def test_options_that_are_no_numbers(kind: str, wrong: Any) -> None:
    name = next(iter(wrong))
    with pytest.raises(EEGTensorError, match=f"{name}="):
        EEGTokenizer(kind, **wrong).fit(eeg(0, 3), sfreq=SFREQ)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for load in (EEGTokenizer.load, MaskedTokenModel.load, load_tokens):
        with pytest.raises(EEGTensorError, match=r"there is no .* at .*nowhere"):
            load(tmp_path / "nowhere")
        with pytest.raises(EEGTensorError, match="which is a folder"):
            load(tmp_path)


def test_a_damaged_file_of_a_folder(tmp_path: Path) -> None:
    raw = mne.io.RawArray(eeg(9, 5), mne.create_info(list(NAMES), SFREQ, "eeg"))
    raw.save(tmp_path / "a_raw.fif", verbose="ERROR")
    whole = (tmp_path / "a_raw.fif").read_bytes()
    (tmp_path / "b_raw.fif").write_bytes(whole[:300])
    made = EEGTokenizer(bits_per_second=32, n_states=4)
    with pytest.raises(EEGTensorError, match=r"b_raw\.fif.*name the others") as error:
        made.fit(tmp_path)
    assert "include" not in str(error.value)


def test_what_is_read_in_part_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eegtensor.io import formats
    from eegtensor.io.errors import Fault

    raw = mne.io.RawArray(eeg(9, 5), mne.create_info(list(NAMES), SFREQ, "eeg"))
    raw.save(tmp_path / "a_raw.fif", verbose="ERROR")
    plain = formats.open_recording

    def cut(path: Path) -> Any:
        fault = Fault(str(path), "it holds 4 of 9 data records", "-")
        return plain(path)._replace(faults=[fault])

    monkeypatch.setattr(formats, "open_recording", cut)
    made = EEGTokenizer(bits_per_second=32, n_states=4)
    with pytest.warns(EEGTensorWarning, match=r"a_raw\.fif .* 4 of 9 data records"):
        made.fit(tmp_path)


def test_files_one_by_one(learned: EEGTokenizer, tmp_path: Path) -> None:
    raw = mne.io.RawArray(eeg(9, 5), mne.create_info(list(NAMES), SFREQ, "eeg"))
    raw.save(tmp_path / "a_raw.fif", verbose="ERROR")
    assert learned.encode(tmp_path).ids.shape[:2] == (4, 5)
    raw.save(tmp_path / "b_raw.fif", verbose="ERROR")
    with pytest.raises(EEGTensorError, match="holds 2 recordings"):
        learned.encode(tmp_path)
    with pytest.raises(EEGTensorError, match="1 paths stand beside 1"):
        EEGTokenizer("learned").fit([tmp_path, eeg(0, 5)], sfreq=SFREQ)


def test_nothing_fitted_is_nothing_saved(tmp_path: Path) -> None:
    with pytest.raises(EEGTensorError, match="not fitted"):
        EEGTokenizer().save(tmp_path / "t.safetensors")


def test_damaged_heads_and_lost_steps(learned: EEGTokenizer) -> None:
    tokens = learned.encode(eeg(9, 3)[:, :500], scale=eeg(9, 3).std())
    data = learned.compress(tokens)
    back = learned.decompress(data)
    assert back.n_times == 500
    assert np.array_equal(back.scale, tokens.scale)
    wrong = bytearray(data)
    wrong[12] = 0xFF
    for bad in (data[:40], bytes(wrong)):
        with pytest.raises(EEGTensorError, match="damaged"):
            learned.decompress(bad)
    other = replace(tokens, ids=tokens.ids[..., :9], alphabet=np.full(9, 255))
    with pytest.raises(EEGTensorError, match="9 slots"):
        learned.compress(other)
    # Without a step it is that of the fit, as in decoding.
    assert learned.compress(replace(tokens, step=None)) == data


def test_joined_parts_have_the_same_units_and_add_up(learned: EEGTokenizer) -> None:
    x, scale = eeg(9, 3)[:, :500], eeg(9, 3).std(axis=1)
    parts = list(learned.stream([x], scale=scale))
    whole, found = learned.encode(x, scale=scale), join(parts)
    assert (found.n_times, len(parts)) == (500, 3)
    assert found.bits.shape == whole.bits.shape
    assert found.bits_per_second == pytest.approx(np.mean(
        [part.bits_per_second for part in parts]
    ))  # fmt: skip
    assert np.array_equal(learned.decode(found).shape, x.shape)
    with pytest.raises(EEGTensorError, match="does not follow"):
        join([parts[0], replace(parts[1], ids=parts[1].ids[:2], bits=None)])
    with pytest.raises(EEGTensorError, match="does not follow"):
        join([parts[0], replace(parts[1], step=2 * parts[1].step)])


def test_long_recordings_are_read_in_pieces(
    learned: EEGTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = eeg(9, 5)
    whole = learned.encode(x, scale=x.std(axis=1))
    # A frame at a time: what came before is remembered from piece to piece.
    monkeypatch.setattr("eegtensor.tokens.learned._PIECE", 1)
    found = learned.encode(x, scale=x.std(axis=1))
    np.testing.assert_array_equal(found.bits, whole.bits)


def test_training_runs_are_of_one_lane_and_drawn_by_the_seed() -> None:
    lane = torch.arange(3.0)[:, None] * 10_000 + torch.arange(2400.0)
    lanes = [lane[:, :, None, None], lane[:1, :50, None, None] + 50_000]
    drawn = [_runs(lanes, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    # Seconds that follow each other, of one lane.
    assert (drawn[0].diff(dim=1) == 1).all()


def test_another_seed_trains_another_network(learned: EEGTokenizer) -> None:
    other = EEGTokenizer("learned", bits_per_second=60, random_state=1)
    other.fit(eeg(0, 10), sfreq=SFREQ)
    one, two = (t.codec_.network.hidden.weight for t in (learned, other))
    assert not torch.equal(one, two)


def test_every_component_tells_of_the_others() -> None:
    codes = torch.zeros(1, 2, 3, 92, dtype=torch.int64)
    relative = torch.full((3, 92), 4.0)
    before = contexts(codes, relative)
    # Frame 0 of the last unit: all units of the next frame read it.
    codes[0, 0, 2] = 5
    after = contexts(codes, relative)
    assert (after != before)[0, 1, :, 50].any(dim=1).all()
    shared = after[0, 1, 0, 50, 5]
    loud, silent = ((v + 1 / 12) / (4 + 1 / 12) for v in (25, 0))
    np.testing.assert_allclose(
        shared, np.log((loud + 2 * silent) / 3 + 0.02), atol=1e-3
    )
    # In the frame itself: lower bins of all units, then those of the unit before.
    np.testing.assert_allclose(
        after[0, 0, 0, 50, 9:11], np.log((loud + 2 * silent) / 3 + 0.02), atol=1e-3
    )
    for unit, size in enumerate((silent, silent, silent)):
        np.testing.assert_allclose(
            after[0, 0, unit, 50, 11], np.log(size + 0.02), atol=1e-3
        )
    codes[0, 0, 1] = 5
    np.testing.assert_allclose(
        contexts(codes, relative)[0, 0, 2, 50, 11], np.log(loud + 0.02), atol=1e-3
    )


def test_no_recording_costs_more_than_its_rate(learned: EEGTokenizer) -> None:
    rng = np.random.default_rng(0)
    spent = []
    for seed in range(24):
        # Of any length and course of energy, so that first guesses are off.
        x = eeg(20 + seed, int(rng.integers(1, 12)))
        louder = np.exp(rng.normal(0, 2) * np.linspace(-1, 1, x.shape[1]))
        spent.append(learned.encode(x * louder).bits_per_second)
    assert max(spent) <= learned.bits_per_second
    assert np.median(spent) > 0.95 * learned.bits_per_second


def test_noise_is_in_proportion(learned: EEGTokenizer) -> None:
    tokens = learned.encode(eeg(9, 5))
    none, half, full = (learned.decode(tokens, fill=f) for f in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(half - none, (full - none) / 2, atol=1e-9 * full.std())
