"""Restoring lost signals of arrays, recordings and epochs."""

from __future__ import annotations

from numbers import Real
from typing import Any, Self

import mne
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from eegtensor._check import as_array, check_number, check_option, fail
from eegtensor.features._losses import (
    bad_spans,
    bad_spans_of_trials,
    eeg_picks,
    electrode_directions,
    long_gaps,
    usable,
)
from eegtensor.tensor.completion import METHODS, complete
from eegtensor.tensor.denoising import denoise_nonlocal

# Seconds of a patch that is compared with others, and how far away it may lie.
PATCH = 0.125
WINDOW = 0.0625
# What patches hold.
_DENOISE = {"nonlocal": "time", "nonlocal-tf": "time-frequency"}


class Completer(TransformerMixin, BaseEstimator):
    """Restore what was lost, by what fits each kind of loss.

    Parameters
    ----------
    method : str
        "auto", or one of `eegtensor.tensor.completion.METHODS`.
    max_gap : float
        Seconds. Longer stretches that all channels lost together stay as they
        are (arrays without info: none do): no method knows what happened in them.
    random_state : int
    denoise : "nonlocal" | "nonlocal-tf" | None
        None returns what was observed as it is, bit for bit. "nonlocal" takes the
        sensors' white noise from observed and restored samples
        (`eegtensor.tensor.denoising.denoise_nonlocal`), comparing waveforms;
        "nonlocal-tf" compares oscillations, whatever their phase: less noise is
        left, in two to three times the time.

    Attributes
    ----------
    uncertainty_ : ndarray, as the signals
        Standard deviation of what was restored, in their unit; 0 elsewhere.
        ``X +- 1.645 uncertainty_`` is a 90 % interval, of the signal with its noise.
    restored_ : ndarray of bool, as the signals
    left_ : ndarray of bool, shape (n_times,) or (n_trials, n_times)
        Stretches that all channels lost and that were too long.
    table_ : pandas.DataFrame
        One row a kind of loss: cells, method, expected relative error.
    noise_ : ndarray, shape (n_channels,)
        With `denoise`: standard deviation of each channel's noise, unit of the
        signals; 0 in channels that were left out.

    See Also
    --------
    eegtensor.tensor.completion.complete : the choice among the methods.
    """

    def __init__(
        self,
        method: str = "auto",
        max_gap: float = 1.0,
        random_state: int = 0,
        denoise: str | None = None,
    ) -> None:
        self.method = method
        self.max_gap = max_gap
        self.random_state = random_state
        self.denoise = denoise

    def fit(self, X: Any, y: Any = None) -> Self:
        """Do nothing: every recording is completed from itself."""
        check_option("method", self.method, ("auto", *METHODS))
        check_option("denoise", self.denoise, (None, *_DENOISE))
        if not isinstance(self.max_gap, Real) or not self.max_gap >= 0:
            fail(f"max_gap={self.max_gap!r}", fix="give seconds from 0 up")
        return self

    def transform(self, X: Any, *, info: mne.Info | None = None) -> Any:
        """As `fit_transform`."""
        return self.fit_transform(X, info=info)

    def fit_transform(
        self, X: Any, y: Any = None, *, info: mne.Info | None = None
    ) -> Any:
        """Return the signals with what was lost restored.

        Parameters
        ----------
        X : ndarray, (n_channels, n_times) or (n_trials, n_channels, n_times)
            NaN where lost. Or `mne.io.Raw` or `mne.Epochs`: there NaN, channels
            in ``info["bads"]`` and annotations that begin with "BAD" (of all
            channels, or of those they name) count as lost, in EEG channels alone.
        y : ignored
        info : mne.Info | None
            Of an array, for positions and rate. Channels without any data need
            positions.

        Returns
        -------
        ndarray, Raw or Epochs
            A copy. Observed samples are unchanged bit for bit, unless `denoise` asks
            for it. Raw and Epochs have no bad channels left among the restored, and no
            annotations of stretches that were restored.

        Raises
        ------
        EEGTensorError
            If nothing is observed, or a channel without data has no position.
        """
        self.fit(X)
        if isinstance(X, mne.io.BaseRaw):
            return self._raw(X)
        if isinstance(X, mne.BaseEpochs):
            return self._epochs(X)
        return self._array(as_array(X), None, info)

    def _array(
        self, X: NDArray, lost: NDArray | None, info: mne.Info | None
    ) -> NDArray:
        if X.dtype.kind != "f" or X.ndim not in (2, 3) or 0 in X.shape:
            fail(
                f"X has dtype {X.dtype} and shape {X.shape}",
                fix="give floats of shape (n_channels, n_times), with or without a "
                "first axis of trials",
            )
        lost = np.isnan(X) if lost is None else lost | np.isnan(X)
        positions = names = None
        left = np.zeros(X.shape[:-2] + X.shape[-1:], dtype=bool)
        if info is not None:
            names = info["ch_names"]
            if len(names) != X.shape[-2]:
                fail(
                    f"info has {len(names)} channels, X has {X.shape[-2]}",
                    fix="give the info of these channels",
                )
            positions = electrode_directions(info)
            left = long_gaps(lost, self.max_gap * info["sfreq"])
        if left.size and left.all():
            fail(
                "All channels are lost from beginning to end",
                fix="look at the bad channels, the annotations and max_gap",
            )
        rows, positions = usable(lost, positions, names)
        # Long gaps are cut out: nothing is learned from them, nor said of them.
        trials = np.flatnonzero(~left.all(axis=-1))[:, None, None]
        at: tuple[Any, ...] = (trials, rows[:, None], np.arange(X.shape[-1]))
        if X.ndim == 2:
            at = (rows[:, None], np.flatnonzero(~left))
        found = complete(
            X[at],
            ~lost[at],
            positions=positions,
            method=self.method,
            random_state=self.random_state,
        )
        lost = lost & ~left[..., None, :]
        out, spread = X.copy(), np.zeros_like(X)
        out[at] = np.where(lost[at], found.X, X[at])
        spread[at] = np.where(lost[at], found.std, 0.0)
        if self.denoise is not None:
            whole = np.where(np.isnan(out[at]), found.X, out[at])
            clean, level = _without_noise(whole, info, _DENOISE[self.denoise])
            kept = np.broadcast_to(left[..., None, :], X.shape)[at]
            out[at] = np.where(kept, out[at], clean)
            self.noise_ = np.zeros(X.shape[-2])
            self.noise_[rows] = level
        self.uncertainty_ = spread
        self.restored_, self.left_ = lost, left
        self.table_ = pd.DataFrame(
            [row._asdict() for row in found.table],
            columns=["kind", "cells", "method", "expected_error"],
        )
        return out

    def _raw(self, raw: mne.io.BaseRaw) -> mne.io.BaseRaw:
        picks = eeg_picks(raw.info)
        info = mne.pick_info(raw.info, picks, verbose="ERROR")
        X = raw.get_data(picks=picks)
        lost = np.zeros(X.shape, dtype=bool)
        rows = {name: i for i, name in enumerate(info["ch_names"])}
        lost[[rows[name] for name in info["bads"]]] = True
        spans = []
        for k, start, stop, names in bad_spans(raw):
            here = [rows[n] for n in names or rows if n in rows]
            lost[here, start:stop] = True
            # What it says of channels of other kinds stays true.
            if len(here) == len(names or rows):
                spans.append((k, here, slice(start, stop)))
        whole = self._array(X, lost, info)
        done = [k for k, here, at in spans if self.restored_[here, at].all()]
        out = raw.copy().load_data(verbose="ERROR")
        # Through `apply_function` MNE would copy once more.
        out._data[picks] = whole
        out.info["bads"] = [n for n in out.info["bads"] if n not in rows]
        # In place: `set_annotations` would move those of a recording without a date.
        out.annotations.delete(done)
        return out

    def _epochs(self, epochs: mne.BaseEpochs) -> mne.BaseEpochs:
        picks = eeg_picks(epochs.info)
        info = mne.pick_info(epochs.info, picks, verbose="ERROR")
        X = epochs.get_data(picks=picks, copy=True, verbose="ERROR")
        lost = np.zeros(X.shape, dtype=bool)
        rows = {name: i for i, name in enumerate(info["ch_names"])}
        lost[:, [rows[name] for name in info["bads"]]] = True
        spans = list(bad_spans_of_trials(epochs))
        for _, trial, start, stop, names in spans:
            here = [rows[n] for n in names or rows if n in rows]
            lost[trial, here, start:stop] = True
        whole = self._array(X, lost, info)
        left = {
            k
            for k, trial, start, stop, names in spans
            if self.left_[trial, start:stop].any() or not rows.keys() >= set(names)
        }
        out = epochs.copy().load_data()
        if spans:
            out.annotations.delete(sorted({k for k, *_ in spans} - left))
        out._data[:, picks] = whole
        out.info["bads"] = [n for n in out.info["bads"] if n not in rows]
        return out


def _without_noise(
    X: NDArray, info: mne.Info | None, domain: str
) -> tuple[NDArray, NDArray]:
    """Return signals without white noise, and the noise of each channel."""
    sizes: dict[str, int] = {}
    if info is not None:
        rate = info["sfreq"]
        # Shorter patches than 8 samples have no shape to compare.
        size = min(max(8, round(PATCH * rate)), X.shape[-1])
        sizes["window"] = round(WINDOW * rate)
        if domain == "time":
            sizes["patch"] = size
        elif X.shape[-1] >= 8:
            # Twice as long, for the frequencies; its quarter is its step.
            sizes["step"] = min(max(2, round(PATCH * rate / 2)), X.shape[-1] // 4)
            sizes["patch"] = 4 * sizes["step"]
    found = denoise_nonlocal(X, domain=domain, **sizes)
    # One number a channel: the noise is white.
    return found.X, found.sigma if found.sigma.ndim == 1 else found.sigma.mean(axis=-1)


def interval(
    X: ArrayLike, uncertainty: ArrayLike, level: float = 0.9
) -> tuple[NDArray, NDArray]:
    """Return the lower and upper ends of an interval about restored signals.

    Parameters
    ----------
    X, uncertainty : array-like of one shape
        Of `Completer`.
    level : float
    """
    from scipy.special import ndtri

    if check_number("level", level, above=0.0) >= 1.0:
        fail(f"level={level!r}", fix="give a share such as 0.9")
    half = float(ndtri(0.5 + level / 2)) * np.asarray(uncertainty)
    return np.asarray(X) - half, np.asarray(X) + half
