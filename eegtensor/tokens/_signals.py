"""Recordings in any unit and rate, and the spectra of their seconds."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from eegtensor._check import fail, listing

# Bins are those of one second at this rate, whatever the rate of the recording.
RATE = 200.0
SLOWEST, FASTEST = 100.0, 1000.0
# Means beyond this many standard deviations are offsets of an amplifier, not EEG.
_OFFSET = 20.0
# Units are anybody's: beyond these squares, and their sums, leave double precision.
_SQUARABLE = (1e-120, 1e120)


class Signals(NamedTuple):
    """Trials and what is known of them.

    Attributes
    ----------
    X : ndarray, shape (n_trials, n_channels, n_times)
    sfreq : float
        Hertz.
    ch_names : tuple of str
        Empty where unknown.
    single : bool
        Whether one recording without a trial axis was given.
    """

    X: NDArray
    sfreq: float
    ch_names: tuple[str, ...]
    single: bool


def read_signals(
    x: Any, sfreq: float | None, ch_names: tuple[str, ...] | None = None
) -> Signals:
    """Return an array, `Trials`, or the EEG of MNE's Raw or Epochs.

    Raises
    ------
    EEGTensorError
        If the rate is unknown or out of range, a shape is not of signals, values
        are not finite, or a channel is an offset more than a signal.
    """
    info = getattr(x, "info", None)
    if info is not None:
        sfreq = float(info["sfreq"])
        ch_names = tuple(info["ch_names"])
        if hasattr(x, "get_channel_types"):
            # Eyes, triggers and the like are no EEG, whatever their unit.
            kinds = x.get_channel_types()
            ch_names = tuple(
                n for n, kind in zip(ch_names, kinds, strict=True) if kind == "eeg"
            )
            if not ch_names:
                fail("the recording has no EEG channel", fix="set its channel types")
            x = x.get_data(picks=list(ch_names))
        else:
            x = x.X
    X = np.asarray(x)
    if X.dtype.kind not in "biuf":
        fail(f"a recording holds {X.dtype}", fix="give an array of real numbers")
    X = X.astype(np.float64, copy=False)
    rate = check_sfreq(sfreq)
    if X.ndim not in (2, 3) or 0 in X.shape:
        fail(
            f"a recording has shape {X.shape}",
            fix="give (n_channels, n_times) or (n_trials, n_channels, n_times)",
        )
    single = X.ndim == 2
    X = X[None] if single else X
    names = tuple(ch_names or ())
    if names and len(names) != X.shape[1]:
        fail(
            f"{len(names)} channel names for {X.shape[1]} channels",
            fix="give one name a channel",
        )
    shown = names or tuple(f"channel {i}" for i in range(X.shape[1]))
    lost = ~np.isfinite(X).all(axis=(0, 2))
    if lost.any():
        fail(
            f"values are not finite in {listing(np.array(shown)[lost])}",
            fix="restore them first (see eegtensor.features.Completer)",
        )
    return Signals(X, rate, names, single)


def check_sfreq(sfreq: Any) -> float:
    """Return a rate that tokens are made at.

    Raises
    ------
    EEGTensorError
        If it is not given, no number, or out of range.
    """
    if sfreq is None:
        fail("sfreq is not given", fix="give the sampling rate in hertz")
    if not isinstance(sfreq, Real):
        fail(f"sfreq={sfreq!r}", fix="give a number, of hertz")
    rate = float(sfreq)
    if not SLOWEST <= rate <= FASTEST:
        fail(
            f"sfreq={rate:g} Hz",
            why=f"Tokens are made from {SLOWEST:g} to {FASTEST:g} Hz",
            fix="resample the recording first",
        )
    return rate


def scale_of(signals: Signals) -> NDArray:
    """Return one standard deviation a channel over all trials, (n_channels,)."""
    X, power = squarable(signals.X)
    # A constant is silence, whatever its mean is rounded to.
    spread = np.where(np.ptp(X, axis=(0, 2)) > 0, X.std(axis=(0, 2)), 0.0)
    mean = np.abs(X.mean(axis=(0, 2)))
    bad = (mean > _OFFSET * spread) & (spread > 0)
    if bad.any():
        names = signals.ch_names or tuple(str(i) for i in range(len(bad)))
        fail(
            f"the mean is over {_OFFSET:g} standard deviations in channel "
            f"{listing(np.array(names)[bad])}",
            why="An amplifier's offset would take the tokens of the EEG",
            fix="filter with a high pass, of 0.5 Hz for example",
        )
    return np.asarray(np.ldexp(spread, power))


def squarable(X: NDArray) -> tuple[NDArray, NDArray]:
    """Return signals whose squares are numbers, and the powers of two taken off.

    Parameters
    ----------
    X : ndarray, shape (..., n_channels, n_times)

    Returns
    -------
    X : ndarray, of the same shape
        No digit of it changes; the same array where nothing has to be done.
    power : ndarray of int, shape (n_channels,)
        ``np.ldexp(found, power)`` takes back what is found of each channel.
    """
    axes = (*range(X.ndim - 2), X.ndim - 1)
    peak = np.maximum(X.max(axis=axes), -X.min(axis=axes))
    far = (peak > 0) & ((peak < _SQUARABLE[0]) | (peak > _SQUARABLE[1]))
    power = np.where(far, np.frexp(peak)[1], 0)
    return (np.ldexp(X, -power[:, None]) if far.any() else X), power


def frame_length(sfreq: float) -> int:
    """Return the samples of a frame: one second, or the first sample beyond."""
    return math.ceil(sfreq - 1e-9)


def spectra(X: NDArray, sfreq: float, n_bins: int) -> NDArray:
    """Return the cosine spectrum of every second, whatever the rate.

    The first bins of a second's orthonormal DCT-II, divided by the root of its
    length, do not depend on the rate but for what lies above them: no filter
    reaches over the edge of a frame, so frames can be coded one by one.

    Parameters
    ----------
    X : ndarray, shape (..., n_times)
        The last frame is filled up with its last value.
    sfreq : float
    n_bins : int

    Returns
    -------
    coefs : ndarray, shape (..., n_frames, n_bins)
        Zero beyond half the rate.
    """
    length = frame_length(sfreq)
    short = -X.shape[-1] % length
    if short:
        X = np.concatenate([X, np.repeat(X[..., -1:], short, axis=-1)], axis=-1)
    frames = X.reshape(*X.shape[:-1], -1, length)
    coefs = scipy.fft.dct(frames, norm="ortho")[..., :n_bins] * math.sqrt(RATE / length)
    if n_bins > length:
        beyond = [(0, 0)] * (coefs.ndim - 1) + [(0, n_bins - length)]
        coefs = np.pad(coefs, beyond)
    return np.asarray(coefs)


def signals_from(coefs: NDArray, sfreq: float, n_times: int) -> NDArray:
    """Return the inverse of `spectra`, (..., n_times)."""
    length = frame_length(sfreq)
    full = np.zeros((*coefs.shape[:-1], length))
    known = coefs[..., :length]
    full[..., : known.shape[-1]] = known * math.sqrt(length / RATE)
    frames = scipy.fft.idct(full, norm="ortho")
    return np.asarray(frames.reshape(*coefs.shape[:-2], -1)[..., :n_times])
