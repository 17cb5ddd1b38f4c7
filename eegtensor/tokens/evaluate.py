"""How far a rebuilt recording is from the true one, by band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from eegtensor._check import fail

BANDS = {
    "delta": (0.5, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 13.0),
    "beta": (13.0, 30.0),
    "gamma": (30.0, 45.0),
}
# Seconds over which a band's power is compared, and the share of its mean power
# below which powers are called equal.
_WINDOW = 2
_FLOOR = 1e-6


class Distortion(NamedTuple):
    """Errors of rebuilt recordings.

    Attributes
    ----------
    nrmse : float
        Root mean squared error by the true standard deviation.
    nmse : dict of str to float
        By band: squared error by energy, both filtered.
    power_db : dict of str to float
        By band: mean absolute ratio of powers over 2 s, in decibels.
    phase_deg : dict of str to float
        By band: mean absolute difference of phase, weighted by amplitude.
    bits_per_second : float
        Of a channel; NaN where no tokens were counted.
    """

    nrmse: float
    nmse: dict[str, float]
    power_db: dict[str, float]
    phase_deg: dict[str, float]
    bits_per_second: float = float("nan")


def distortion(
    truth: Sequence[NDArray], rebuilt: Sequence[NDArray], *, sfreq: float = 200.0
) -> Distortion:
    """Return the errors of rebuilt recordings.

    Parameters
    ----------
    truth, rebuilt : sequence of ndarray, shape (n_channels, n_times)
        At least 2 s each, in one unit.
    sfreq : float
        Hertz.
    """
    if len(truth) != len(rebuilt) or not len(truth):
        fail(
            f"{len(truth)} recordings and {len(rebuilt)} rebuilt ones",
            fix="give one rebuilt recording for each",
        )
    shapes = [(a.shape, b.shape) for a, b in zip(truth, rebuilt, strict=True)]
    window = round(_WINDOW * sfreq)
    for a, b in shapes:
        if a != b or len(a) != 2 or a[1] < window:
            fail(
                f"a recording has shape {a}, rebuilt {b}",
                fix=f"give (n_channels, n_times) of {window} samples or more twice",
            )
    flat = np.concatenate([a.ravel() for a in truth])
    missed = np.concatenate(
        [(a - b).ravel() for a, b in zip(truth, rebuilt, strict=True)]
    )
    by_band = {
        band: _band_errors(truth, rebuilt, edges, sfreq, window)
        for band, edges in BANDS.items()
    }
    return Distortion(
        float(np.sqrt(np.mean(missed**2) / flat.var())),
        {band: error for band, (error, _, _) in by_band.items()},
        {band: power for band, (_, power, _) in by_band.items()},
        {band: phase for band, (_, _, phase) in by_band.items()},
    )


def evaluate(
    tokenizer: Any,
    recordings: Sequence[NDArray],
    *,
    sfreq: float = 200.0,
    fill: float = 0.0,
) -> Distortion:
    """Return rate and distortion of a fitted tokenizer on new recordings.

    Parameters
    ----------
    tokenizer : EEGTokenizer
    recordings : sequence of ndarray, shape (n_channels, n_times)
    sfreq : float
        Hertz.
    fill : float
        See `EEGTokenizer.decode`.
    """
    tokens = [tokenizer.encode(x, sfreq=sfreq) for x in recordings]
    rebuilt = [tokenizer.decode(t, fill=fill) for t in tokens]
    cells = np.array([x.size for x in recordings])
    rates = np.array([t.bits_per_second for t in tokens])
    found = distortion(list(recordings), rebuilt, sfreq=sfreq)
    return found._replace(bits_per_second=float(rates @ cells / cells.sum()))


def _band_errors(
    truth: Sequence[NDArray],
    rebuilt: Sequence[NDArray],
    edges: tuple[float, float],
    sfreq: float,
    window: int,
) -> tuple[float, float, float]:
    """Return normalised error, decibels and degrees of one band."""
    sos = scipy.signal.butter(3, edges, btype="bandpass", fs=sfreq, output="sos")
    wrong, energy, turned, weight = 0.0, 0.0, 0.0, 0.0
    ratios = []
    for pair in zip(truth, rebuilt, strict=True):
        a, b = (scipy.signal.sosfiltfilt(sos, x, axis=-1) for x in pair)
        wrong += float(np.sum((a - b) ** 2))
        energy += float(np.sum(a**2))
        power_a, power_b = _powers(a, window), _powers(b, window)
        floor = _FLOOR * power_a.mean()
        ratio = (power_b + floor) / (power_a + floor)
        ratios.append(np.abs(10 * np.log10(ratio)).ravel())
        analytic, other = scipy.signal.hilbert(a), scipy.signal.hilbert(b)
        size = np.abs(analytic)
        # Not quite zero, so that silence has a phase.
        angle = np.angle(analytic * other.conj() + 1e-30)
        turned += float(np.sum(size * np.abs(angle)))
        weight += float(np.sum(size))
    return (
        wrong / energy,
        float(np.mean(np.concatenate(ratios))),
        float(np.degrees(turned / weight)),
    )


def _powers(x: NDArray, window: int) -> NDArray:
    n = x.shape[-1] // window
    cut = x[:, : n * window].reshape(len(x), n, window)
    return np.asarray(np.mean(cut**2, axis=-1))
