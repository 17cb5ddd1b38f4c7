"""Per channel: flat, saturated, not finite, or amplitudes no EEG has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import listing

# Scalp and intracranial signals lie well inside; volts, one second, detrended.
PLAUSIBLE = (0.15e-6, 4e-3)
_TYPICAL = (1e-6, 2e-4)
_UNITS = (
    (1e-3, "millivolts stored as volts"),
    (1e-6, "microvolts stored as volts"),
    (1e-9, "nanovolts stored as volts"),
    (1e3, "values a thousand times too small"),
    (1e6, "values a million times too small (microvolt factor applied twice)"),
)
_MAX_WINDOWS = 120
# A spread of fewer samples says nothing about a channel.
_FEWEST = 20


class Quality(NamedTuple):
    """What was measured on each channel.

    Attributes
    ----------
    ch_names : list of str
    amplitude : ndarray, shape (n_channels,)
        Volts: the spread (1.48 times the median absolute deviation) within one
        second after removing offset and slope, median over the recording; NaN
        where there are fewer than 20 samples.
    flat, nonfinite, saturated : ndarray of bool, shape (n_channels,)
    saturation : ndarray, shape (n_channels,)
        Part of the samples in runs at the channel's largest or smallest value.
    unscaled : ndarray of bool, shape (n_channels,)
        The file does not say how many volts a unit is.
    """

    ch_names: list[str]
    amplitude: NDArray
    flat: NDArray
    nonfinite: NDArray
    saturated: NDArray
    saturation: NDArray
    unscaled: NDArray

    @property
    def implausible(self) -> NDArray:
        """Channels that are neither flat nor of an amplitude that EEG has."""
        low, high = PLAUSIBLE
        outside = (self.amplitude < low) | (self.amplitude > high)
        return outside & ~self.flat & ~self.nonfinite & ~self.unscaled

    @property
    def bad(self) -> NDArray:
        """Channels with any fault."""
        return (
            self.flat
            | self.nonfinite
            | self.saturated
            | self.implausible
            | self.unscaled
        )

    @property
    def suspect_units(self) -> bool:
        """Whether the typical channel's amplitude is implausible."""
        live = ~self.flat & ~self.nonfinite
        return bool(live.any() and np.median(self.implausible[live]) > 0.5)

    def describe(self) -> list[str]:
        """Return what is wrong, one phrase for each kind of fault."""
        parts = []
        for mask, words in (
            (self.nonfinite, "NaN or infinite samples in"),
            (self.flat, "flat (no signal):"),
            (self.unscaled, "no physical range in the header, so no volts, for"),
        ):
            if mask.any():
                parts.append(f"{words} {self._names(mask)}")
        if self.saturated.any():
            share = 100 * self.saturation[self.saturated].max()
            parts.append(
                f"saturated: {self._names(self.saturated)} "
                f"(at the limit for up to {share:.2g} % of the time)"
            )
        if self.implausible.any():
            parts.append(self._describe_units())
        return parts

    def _describe_units(self) -> str:
        typical = float(np.median(self.amplitude[self.implausible]))
        low, high = PLAUSIBLE
        text = (
            f"implausible amplitude: {self._names(self.implausible)} "
            f"(spread {_volts(typical)}; EEG lies between {_volts(low)} and "
            f"{_volts(high)})"
        )
        factor = self.suspected_scale()
        if factor is not None:
            text += f"; it looks like {dict(_UNITS)[factor]}"
        return text

    def suspected_scale(self) -> float | None:
        """Return the factor that would make the amplitude typical, if one does."""
        if not self.suspect_units:
            return None
        typical = float(np.median(self.amplitude[self.implausible]))
        for factor, _ in _UNITS:
            if _TYPICAL[0] <= typical * factor <= _TYPICAL[1]:
                return factor
        return None

    def remedy(self) -> str:
        """Return what to do about it."""
        factor = self.suspected_scale()
        if self.suspect_units:
            scale = f"scale={factor:g} corrects the unit; " if factor else ""
            return (
                f"{scale}on_bad='warn' (--on-bad warn) goes on with the values as "
                "they are"
            )
        return (
            "on_bad='drop' (--on-bad drop) leaves these channels out (and restores "
            "them with channels='interpolate'), on_bad='warn' keeps them, picks= "
            "chooses others"
        )

    def _names(self, mask: NDArray) -> str:
        if mask.all() and len(mask) > 8:
            return f"all {len(mask)} channels"
        return listing([n for n, m in zip(self.ch_names, mask, strict=True) if m])


def _volts(value: float) -> str:
    for factor, unit in ((1.0, "V"), (1e-3, "mV"), (1e-6, "uV"), (1e-9, "nV")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.2g} V"


def measure_quality(
    X: NDArray,
    sfreq: float,
    ch_names: Sequence[str],
    use: NDArray | None = None,
    unscaled: Collection[str] = (),
) -> Quality:
    """Measure every channel.

    Parameters
    ----------
    X : ndarray, shape (n_channels, n_times) or (n_trials, n_channels, n_times)
        Volts.
    sfreq : float
    ch_names : sequence of str
    use : ndarray of bool, shape (n_times,) | None
        Samples that count (not within spans annotated as bad); continuous only.
    unscaled : collection of str
        Channels whose file does not say how many volts a unit is.
    """
    n_channels = X.shape[-2]
    amplitude = np.zeros(n_channels)
    flat = np.zeros(n_channels, dtype=bool)
    nonfinite = np.zeros(n_channels, dtype=bool)
    saturation = np.zeros(n_channels)
    saturated = np.zeros(n_channels, dtype=bool)
    for c in range(n_channels):
        x = X[..., c, :]
        if use is not None and use.any() and not use.all():
            x = x[use]
        # The sum is finite when every sample is, and costs no temporary.
        if not np.isfinite(x.sum()) and not np.isfinite(x).all():
            # Nothing else can be measured beside a NaN.
            nonfinite[c] = True
            continue
        windows = _windows(x, sfreq)
        spread = _spread(windows)
        amplitude[c] = np.median(spread) if windows.shape[-1] >= _FEWEST else np.nan
        # By windows: a channel that came loose halfway is flat as well.
        flat[c] = np.mean(np.ptp(windows, axis=-1) == 0) > 0.5
        saturation[c], longest = _saturation(x.ravel(), sfreq)
        # Half a second at the limit cannot be chance, nor one hundredth of all.
        saturated[c] = not flat[c] and (saturation[c] > 0.01 or longest > 0.5)
    return Quality(
        list(ch_names),
        amplitude,
        flat,
        nonfinite,
        saturated,
        saturation,
        np.asarray([name in unscaled for name in ch_names], dtype=bool),
    )


def _windows(x: NDArray, sfreq: float) -> NDArray:
    """Return up to 120 windows of a second or less, spread over the signal."""
    rows = x.reshape(-1, x.shape[-1])
    length = max(1, min(rows.shape[-1], round(sfreq)))
    per_row = rows.shape[-1] // length
    total = len(rows) * per_row
    # Fixed places, no draw: one file always gives one verdict.
    picked = np.unique(np.linspace(0, total - 1, min(total, _MAX_WINDOWS)).astype(int))
    return np.stack(
        [rows[i // per_row, (i % per_row) * length :][:length] for i in picked]
    )


def _spread(windows: NDArray) -> NDArray:
    t = np.arange(windows.shape[-1]) - (windows.shape[-1] - 1) / 2
    centred = windows - windows.mean(axis=-1, keepdims=True)
    # Drift of the electrode is no EEG, and larger than it.
    if len(t) > 2:
        centred = centred - np.outer(centred @ t / (t @ t), t)
    middle = np.median(centred, axis=-1, keepdims=True)
    # Of a normal distribution's standard deviation; blinks do not count.
    return 1.4826 * np.median(np.abs(centred - middle), axis=-1)


def _saturation(x: NDArray, sfreq: float) -> tuple[float, float]:
    """Return the part of the samples in runs at an extreme, and the longest (s)."""
    shortest = max(8, round(0.05 * sfreq))
    # Clipping shows as runs: single samples reach the extreme in any signal.
    in_runs = longest = 0
    for value in (x.min(), x.max()):
        at = np.flatnonzero(x == value)
        if len(at) < shortest:
            continue
        breaks = np.flatnonzero(np.diff(at) != 1)
        edges = np.concatenate([[-1], breaks, [len(at) - 1]])
        runs = np.diff(edges)
        runs = runs[runs >= shortest]
        in_runs += int(runs.sum())
        longest = max(longest, int(runs.max(initial=0)))
    return in_runs / len(x), longest / sfreq
