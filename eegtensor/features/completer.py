"""Restoring lost signals of arrays, recordings and epochs."""

from __future__ import annotations

from typing import Any, Self

import mne
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from sklearn.base import BaseEstimator, TransformerMixin

from eegtensor._check import check_option, fail, listing
from eegtensor.tensor.completion import METHODS, complete
from eegtensor.tensor.denoising import denoise_nonlocal

# Seconds of a patch that is compared with others, and how far away it may lie.
PATCH = 0.125
WINDOW = 0.0625


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
    denoise : "nonlocal" | None
        None returns what was observed as it is, bit for bit. "nonlocal" takes the
        sensors' white noise from observed and restored samples
        (`eegtensor.tensor.denoising.denoise_nonlocal`).

    Attributes
    ----------
    uncertainty_ : ndarray, as the signals
        Standard deviation of what was restored, in their unit; 0 elsewhere.
        ``X +- 1.645 uncertainty_`` is a 90 % interval, of the signal with its noise.
    restored_ : ndarray of bool, as the signals
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
        check_option("denoise", self.denoise, (None, "nonlocal"))
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
            for it. Raw and Epochs have no bad channels left among the restored, and
            Raw no annotations of stretches that were restored.

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
        return self._array(np.asarray(X), None, info)

    def _array(
        self, X: NDArray, lost: NDArray | None, info: mne.Info | None
    ) -> NDArray:
        if X.dtype.kind != "f" or X.ndim not in (2, 3):
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
            left = _long_gaps(lost, self.max_gap * info["sfreq"])
        rows, positions = _usable(lost, positions, names)
        # Long gaps are cut out: nothing is learned from them, nor said of them.
        columns = ~left if X.ndim == 2 else np.ones(X.shape[-1], dtype=bool)
        at = (..., rows[:, None], np.flatnonzero(columns))
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
            clean, level = _without_noise(whole, info)
            out[at] = np.where(left[..., None, columns], out[at], clean)
            self.noise_ = np.zeros(X.shape[-2])
            self.noise_[rows] = level
        self.uncertainty_ = spread
        self.restored_ = lost
        self.table_ = pd.DataFrame(
            [row._asdict() for row in found.table],
            columns=["kind", "cells", "method", "expected_error"],
        )
        return out

    def _raw(self, raw: mne.io.BaseRaw) -> mne.io.BaseRaw:
        picks = _eeg_picks(raw.info)
        info = mne.pick_info(raw.info, picks, verbose="ERROR")
        X = raw.get_data(picks=picks)
        lost = np.zeros(X.shape, dtype=bool)
        rows = {name: i for i, name in enumerate(info["ch_names"])}
        for name in info["bads"]:
            lost[rows[name]] = True
        spans = list(_bad_spans(raw))
        for _, start, stop, names in spans:
            for row in (
                [rows[n] for n in names if n in rows] if names else [slice(None)]
            ):
                lost[row, start:stop] = True
        whole = self._array(X, lost, info)
        done = [
            k
            for k, start, stop, names in spans
            if self.restored_[
                [rows[n] for n in names if n in rows] if names else slice(None),
                start:stop,
            ].all()
        ]
        out = raw.copy().load_data(verbose="ERROR")
        # Through `apply_function` MNE would copy once more.
        out._data[picks] = whole
        out.info["bads"] = [n for n in out.info["bads"] if n not in rows]
        kept = np.setdiff1d(np.arange(len(raw.annotations)), done)
        out.set_annotations(raw.annotations[kept], verbose="ERROR")
        return out

    def _epochs(self, epochs: mne.BaseEpochs) -> mne.BaseEpochs:
        picks = _eeg_picks(epochs.info)
        info = mne.pick_info(epochs.info, picks, verbose="ERROR")
        X = epochs.get_data(picks=picks, copy=True, verbose="ERROR")
        lost = np.zeros(X.shape, dtype=bool)
        for i, name in enumerate(info["ch_names"]):
            lost[:, i] = name in info["bads"]
        whole = self._array(X, lost, info)
        out = epochs.copy().load_data()
        out._data[:, picks] = whole
        out.info["bads"] = [n for n in out.info["bads"] if n not in info["ch_names"]]
        return out


def _without_noise(X: NDArray, info: mne.Info | None) -> tuple[NDArray, NDArray]:
    """Return signals without white noise, and the noise of each channel."""
    sizes = {}
    if info is not None:
        rate = info["sfreq"]
        # Shorter patches than 8 samples have no shape to compare.
        sizes["patch"] = min(max(8, round(PATCH * rate)), X.shape[-1])
        sizes["window"] = round(WINDOW * rate)
    found = denoise_nonlocal(X, **sizes)
    return found.X, found.sigma


def _eeg_picks(info: mne.Info) -> NDArray:
    picks = mne.pick_types(info, eeg=True, exclude=())
    if len(picks) < 2:
        fail(
            f"There are {len(picks)} EEG channels",
            why="What one channel lost is restored from the others",
            fix="check the channel types (set_channel_types)",
        )
    return np.asarray(picks)


def annotation_origin(raw: mne.io.BaseRaw) -> float:
    """Return the onset, seconds, that an annotation of the first sample has."""
    # MNE counts from the measurement's date where there is one.
    dated = raw.annotations.orig_time is not None
    return float(raw.first_samp / raw.info["sfreq"]) if dated else 0.0


def _bad_spans(raw: mne.io.BaseRaw) -> Any:
    """Yield index, first and last sample and channels of each bad annotation."""
    sfreq = raw.info["sfreq"]
    first = annotation_origin(raw)
    for k, annotation in enumerate(raw.annotations):
        if not annotation["description"].upper().startswith("BAD"):
            continue
        onset = annotation["onset"] - first
        start = max(0, round(onset * sfreq))
        stop = min(raw.n_times, round((onset + annotation["duration"]) * sfreq))
        if stop > start:
            yield k, start, stop, tuple(annotation.get("ch_names") or ())


def _long_gaps(lost: NDArray, limit: float) -> NDArray:
    """Return samples in gaps of all channels longer than a limit, (..., n_times)."""
    gap = lost.all(axis=-2)
    long = np.zeros_like(gap)
    for row, mark in zip(np.atleast_2d(gap), np.atleast_2d(long), strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]])))
        for start, stop in edges.reshape(-1, 2):
            mark[start:stop] = stop - start > limit
    return long


def electrode_directions(info: mne.Info) -> NDArray:
    """Return positions about the centre of the sphere that fits them best.

    Returns
    -------
    positions : ndarray, shape (n_channels, 3), metres
        NaN for channels without a position; for all of them where fewer than four
        have one.
    """
    places = np.array([ch["loc"][:3] for ch in info["chs"]])
    known = np.isfinite(places).all(axis=1) & places.any(axis=1)
    found = np.full_like(places, np.nan)
    if known.sum() < 4:
        return found
    placed = places[known]
    centre = placed.mean(axis=0)
    radius = np.linalg.norm(placed - centre, axis=1).mean()

    def distance(sphere: NDArray) -> NDArray:
        away: NDArray = np.linalg.norm(placed - sphere[:3], axis=1) - sphere[3]
        return away

    found[known] = placed - least_squares(distance, [*centre, radius]).x[:3]
    return found


def _usable(
    lost: NDArray, positions: NDArray | None, names: Any
) -> tuple[NDArray, NDArray | None]:
    """Return the channels that are completed together, and their positions.

    Positions are needed where a channel has no data at all; channels without one
    are then left out, if they lost nothing themselves.
    """
    n = lost.shape[-2]
    dead = lost.all(axis=-1)
    dead = dead if dead.ndim == 1 else dead.all(axis=0)
    placed = np.zeros(n, bool)
    if positions is not None:
        placed = np.isfinite(positions).all(axis=1)
    if placed.all():
        return np.arange(n), positions
    if not dead.any():
        return np.arange(n), None
    holes = lost.any(axis=-1)
    holes = holes if holes.ndim == 1 else holes.any(axis=0)
    nowhere = np.flatnonzero(~placed & (dead if not placed.any() else holes))
    if len(nowhere):
        which = [names[i] if names else str(i) for i in nowhere]
        fail(
            f"Positions of channels {listing(which)} are not known",
            why="A channel without any data is restored from where it sits among "
            "the others",
            fix="set a montage (raw.set_montage('standard_1005')), or drop them",
        )
    assert positions is not None
    return np.flatnonzero(placed), positions[placed]


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

    if not 0.0 < level < 1.0:
        fail(f"level={level!r}", fix="give a share such as 0.9")
    half = float(ndtri(0.5 + level / 2)) * np.asarray(uncertainty)
    return np.asarray(X) - half, np.asarray(X) + half
