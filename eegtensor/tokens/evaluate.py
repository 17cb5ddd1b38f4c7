"""How far a rebuilt recording is from the true one, by band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.tokens._prepared import RATE, each_signals, prepared_pair

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

    def row(self) -> dict[str, float]:
        """Return one flat row of a table: means over bands, then every band."""
        found = {"bits_per_second": self.bits_per_second, "nrmse": self.nrmse}
        tables = {name: getattr(self, name) for name in BY_BAND}
        for name in BY_BAND[1:]:
            found[name] = float(np.mean(list(tables[name].values())))
        for name, table in tables.items():
            found |= {f"{name}_{band}": value for band, value in table.items()}
        return found


BY_BAND = ("nmse", "power_db", "phase_deg")


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
    # One power of two for all: errors are ratios, whatever the unit.
    largest = max(float(np.abs(a).max()) for a in truth)
    power = -math.frexp(largest)[1]
    truth, rebuilt = ([np.ldexp(a, power) for a in part] for part in (truth, rebuilt))
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
    recordings: Any,
    *,
    sfreq: float = 200.0,
    fill: float = 0.0,
) -> Distortion:
    """Return rate and distortion of a fitted tokenizer on new recordings.

    Parameters
    ----------
    tokenizer : EEGTokenizer, or any object that encodes and decodes
        ``encode(x, sfreq=...)`` of an array, with ``ch_names=`` where they are known,
        and ``decode(tokens)``, with ``fill=`` where it is not 0. Where tokens have
        no `bits_per_second`, their rate is NaN.
    recordings : recording or list of recordings
        Arrays (n_channels, n_times), compared as they are; or MNE's Raw, or paths of
        recordings or of folders of them: these are compared from 0.5 to 44.5 Hz at
        200 Hz, all channels scaled to variance one, so that numbers of several
        recordings go together.
    sfreq : float
        Hertz, of arrays.
    fill : float
        See `EEGTokenizer.decode`.

    Raises
    ------
    EEGTensorError
        If a recording cannot be read, holds trials, or is too short.
    """
    return evaluate_fills(tokenizer, recordings, (fill,), sfreq=sfreq)[0]


def evaluate_fills(
    tokenizer: Any, recordings: Any, fills: Sequence[float], *, sfreq: float = 200.0
) -> list[Distortion]:
    """Return what `evaluate` does at several fills, for one pass of encoding."""
    cells, rates, truths, rebuilt = [], [], [], []
    for signals, own in each_signals(recordings, sfreq):
        x, rate = signals.X[0], signals.sfreq
        known = {"ch_names": signals.ch_names} if signals.ch_names else {}
        tokens = tokenizer.encode(x, sfreq=rate, **known)
        decoded = [decode_filled(tokenizer, tokens, fill) for fill in fills]
        cells.append(x.size / rate)
        rates.append(float(getattr(tokens, "bits_per_second", np.nan)))
        if own:
            pairs = [prepared_pair(x, y, rate) for y in decoded]
            x, decoded, rate = pairs[0][0], [y for _, y in pairs], RATE
        truths.append(x)
        rebuilt.append(decoded)
    spent = float(np.average(rates, weights=cells))
    return [
        distortion(truths, list(one), sfreq=rate)._replace(bits_per_second=spent)
        for one in zip(*rebuilt, strict=True)
    ]


def decode_filled(tokenizer: Any, tokens: Any, fill: float) -> NDArray:
    """Return the signal of tokens; of tokenizers that know no fill, without it."""
    options = {"fill": fill} if fill else {}
    return np.asarray(tokenizer.decode(tokens, **options))


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
