from __future__ import annotations

import numpy as np
import pytest

from eegtensor.io.quality import measure_quality

NAMES = ["a", "b", "c"]


@pytest.fixture
def clean(rng: np.random.Generator) -> np.ndarray:
    """Ten seconds of 1/f-like signals of about 20 uV at 200 Hz, with an offset."""
    walk = np.cumsum(rng.standard_normal((3, 2000)), axis=1)
    walk -= walk.mean(axis=1, keepdims=True)
    return 2e-5 * walk / walk.std(axis=1, keepdims=True) + 0.17


def test_clean_signals_pass(clean: np.ndarray) -> None:
    quality = measure_quality(clean, 200.0, NAMES)
    assert not quality.bad.any() and quality.describe() == []


def test_offset_and_drift_do_not_count(clean: np.ndarray) -> None:
    drift = np.linspace(0, 0.02, 2000)
    a = measure_quality(clean, 200.0, NAMES).amplitude
    b = measure_quality(clean + drift, 200.0, NAMES).amplitude
    assert np.allclose(a, b, rtol=1e-6)


def test_amplitude_of_white_noise_is_its_standard_deviation(
    rng: np.random.Generator,
) -> None:
    X = 3e-5 * rng.standard_normal((2, 20000))
    assert measure_quality(X, 200.0, ["a", "b"]).amplitude == pytest.approx(
        3e-5, rel=0.05
    )


def test_each_fault_on_its_own_channel(clean: np.ndarray) -> None:
    X = np.concatenate([clean, clean[:1]])
    X[0] = 0.17
    X[1, 500:620] = X[1].max() + 1e-5
    X[2, 7] = np.nan
    X[3] *= 1e-3
    q = measure_quality(X, 200.0, ["a", "b", "c", "d"])
    assert q.flat.tolist() == [True, False, False, False]
    assert q.saturated.tolist() == [False, True, False, False]
    assert q.saturation[1] == pytest.approx(0.06)
    assert q.nonfinite.tolist() == [False, False, True, False]
    assert q.implausible.tolist() == [False, False, False, True]
    assert not q.suspect_units
    text = "; ".join(q.describe())
    for words in ("flat (no signal): a", "saturated: b", "infinite samples in c"):
        assert words in text
    assert "on_bad='drop'" in q.remedy()


@pytest.mark.parametrize(
    ("factor", "words", "scale"),
    [
        (1e6, "microvolts stored as volts", 1e-6),
        (1e3, "millivolts stored as volts", 1e-3),
        (1e-3, "a thousand times too small", 1e3),
        (1e-6, "a million times too small", 1e6),
    ],
)
def test_wrong_units(
    clean: np.ndarray, factor: float, words: str, scale: float
) -> None:
    q = measure_quality(clean * factor, 200.0, NAMES)
    assert q.implausible.all() and q.suspect_units
    assert words in q.describe()[0]
    assert q.suspected_scale() == scale
    assert f"scale={scale:g}" in q.remedy() and "on_bad='warn'" in q.remedy()


def test_bad_spans_do_not_count(clean: np.ndarray) -> None:
    X = clean.copy()
    X[:, 400:1600] = 0.0
    use = np.ones(2000, dtype=bool)
    use[400:1600] = False
    assert measure_quality(X, 200.0, NAMES).bad.all()
    assert not measure_quality(X, 200.0, NAMES, use).bad.any()


def test_trials_are_measured_like_recordings(clean: np.ndarray) -> None:
    trials = clean.reshape(3, 10, 200).transpose(1, 0, 2)
    whole = measure_quality(clean, 200.0, NAMES)
    cut = measure_quality(trials, 200.0, NAMES)
    assert np.allclose(whole.amplitude, cut.amplitude)


def test_channels_without_a_physical_range(clean: np.ndarray) -> None:
    q = measure_quality(clean, 200.0, NAMES, unscaled={"b"})
    assert q.bad.tolist() == [False, True, False]
    assert "no physical range" in q.describe()[0]


def test_a_few_samples_are_not_judged(clean: np.ndarray) -> None:
    assert not measure_quality(clean[:, :10] * 1e6, 200.0, NAMES).implausible.any()
