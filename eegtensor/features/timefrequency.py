"""Time-frequency power of trials: a channel x frequency x time tensor each."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_option, check_signals, fail
from eegtensor.features._base import DomainTransformer

METHODS = ("morlet", "multitaper")
# Samples times frequencies handed to MNE at a time: bounds its memory.
_CELLS = 20_000_000


class _Plan(NamedTuple):
    freqs: NDArray
    n_cycles: NDArray
    edges: NDArray


class TimeFrequencyTensor(DomainTransformer):
    """Power of trials over frequencies and bins of time, by MNE.

    Parameters
    ----------
    sfreq : float
        Sampling frequency, hertz.
    fmin, fmax : float
        Lowest and highest frequency, hertz.
    n_freqs : int
        Frequencies, at equal steps of the logarithm.
    n_bins : int
        Bins of equal length over which power is averaged in time.
    method : "morlet" | "multitaper"
    n_cycles : float | None
        Cycles of each wavelet; by default half the frequency in hertz, from 2 up
        (windows of half a second), and no longer than the trial.
    time_bandwidth : float
        Of "multitaper": twice the number of tapers, and one more.
    log : bool
        Whether the result is the natural logarithm of power.

    Attributes
    ----------
    freqs_ : ndarray, shape (n_freqs,), hertz
    times_ : ndarray, shape (n_bins,), seconds from the trial's first sample
        Centres of the bins.
    n_cycles_ : ndarray, shape (n_freqs,)

    Notes
    -----
    Wavelets reach over a trial's ends: power within half a window of them is too
    low. It is so in every trial alike.
    """

    trialwise = True

    def __init__(
        self,
        sfreq: float = 128.0,
        fmin: float = 4.0,
        fmax: float = 40.0,
        n_freqs: int = 16,
        n_bins: int = 16,
        method: str = "morlet",
        n_cycles: float | None = None,
        time_bandwidth: float = 4.0,
        log: bool = True,
    ) -> None:
        self.sfreq = sfreq
        self.fmin = fmin
        self.fmax = fmax
        self.n_freqs = n_freqs
        self.n_bins = n_bins
        self.method = method
        self.n_cycles = n_cycles
        self.time_bandwidth = time_bandwidth
        self.log = log

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Choose frequencies, windows and bins; nothing is learned.

        Raises
        ------
        EEGTensorError
            If frequencies do not fit the rate, or bins and windows the trials.
        """
        X = check_signals(X)
        self._n_times = X.shape[-1]
        plan = self._plan(self._n_times)
        self.freqs_, self.n_cycles_ = plan.freqs, plan.n_cycles
        self.times_ = (plan.edges[:-1] + plan.edges[1:] - 1) / 2 / self.sfreq
        return self

    def _plan(self, n_times: int) -> _Plan:
        """Return frequencies, cycles and bins for trials of a length, or raise."""
        check_option("method", self.method, METHODS)
        if not 0.0 < self.fmin <= self.fmax < self.sfreq / 2:
            fail(
                f"fmin={self.fmin}, fmax={self.fmax} at sfreq={self.sfreq} Hz",
                fix=f"give 0 < fmin <= fmax < {self.sfreq / 2:g}, half the rate",
            )
        if self.n_freqs < 1 or not 1 <= self.n_bins <= n_times:
            fail(
                f"n_freqs={self.n_freqs}, n_bins={self.n_bins} for {n_times} samples",
                fix="give at least one of each, and no more bins than samples",
            )
        freqs = np.geomspace(self.fmin, self.fmax, self.n_freqs)
        longest = (n_times - 1) / self.sfreq * freqs
        if self.method == "morlet":
            # MNE's wavelets last five standard deviations on each side.
            longest = longest * 2 * np.pi / 10
        if self.n_cycles is None:
            wanted = np.maximum(freqs / 2, 2.0)
        else:
            wanted = np.full(self.n_freqs, float(self.n_cycles))
        edges = np.linspace(0, n_times, self.n_bins + 1).round().astype(int)
        return _Plan(freqs, np.minimum(wanted, 0.999 * longest), edges)

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return power, shape (n_trials, n_channels, n_freqs, n_bins).

        In volts squared, or its natural logarithm.

        Raises
        ------
        EEGTensorError
            If trials have another length than in fit, or, with ``log``, a channel
            is constant in a trial.
        """
        X = check_signals(X)
        n_trials, n_channels, n_times = X.shape
        if n_times != getattr(self, "_n_times", n_times):
            fail(
                f"Trials have {n_times} samples, fit saw {self._n_times}",
                fix="use the same window and rate as in fit",
            )
        plan = self._plan(n_times)
        out = np.empty((n_trials, n_channels, self.n_freqs, self.n_bins))
        step = max(1, _CELLS // (n_channels * self.n_freqs * n_times))
        for at in range(0, n_trials, step):
            power = self._power(X[at : at + step], plan)
            sums = np.add.reduceat(power, plan.edges[:-1], axis=-1)
            out[at : at + step] = sums / np.diff(plan.edges)
        if not self.log:
            return out
        if not (out > 0).all():
            trial, channel = np.argwhere(~(out > 0))[0][:2]
            fail(
                f"Channel {channel} of trial {trial} has no power",
                why="It is constant, and the logarithm of zero is not finite",
                fix="drop or restore flat channels, or set log=False",
            )
        return np.log(out)

    def _power(self, X: NDArray, plan: _Plan) -> NDArray:
        from mne.time_frequency import tfr_array_morlet, tfr_array_multitaper

        options = {"n_cycles": plan.n_cycles, "output": "power", "verbose": "error"}
        # Slow drifts leak into the lowest wavelets.
        X = X.astype(np.float64)
        # First samples first: a constant channel is then zero, not its rounding.
        X -= X[..., :1]
        X -= X.mean(axis=-1, keepdims=True)
        if self.method == "morlet":
            power: NDArray = tfr_array_morlet(X, self.sfreq, plan.freqs, **options)
            return power
        options["time_bandwidth"] = self.time_bandwidth
        power = tfr_array_multitaper(X, self.sfreq, plan.freqs, **options)
        return power
