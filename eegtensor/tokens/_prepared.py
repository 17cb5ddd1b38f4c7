"""Recordings as the yardstick compares them: 0.5 to 44.5 Hz, at 200 Hz."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.tokens._files import is_path, open_files
from eegtensor.tokens._signals import Signals, read_signals, squarable

RATE = 200
_EDGES = (0.5, 44.5)
# Seconds at each end where filters ring, and that are compared at least.
_TRIM = 1
_SHORTEST = 2


def each_signals(recordings: Any, sfreq: float) -> Iterator[tuple[Signals, bool]]:
    """Yield continuous recordings, and whether they came with their own rate.

    Parameters
    ----------
    recordings : recording or list of recordings
        Arrays (n_channels, n_times), MNE's Raw, or paths.
    sfreq : float
        Hertz, of arrays.

    Raises
    ------
    EEGTensorError
        If there are none, one holds trials, or arrays stand beside others.
    """
    one = is_path(recordings) or hasattr(recordings, "info")
    one = one or getattr(recordings, "ndim", 3) == 2
    many = [recordings] if one else list(recordings)
    if not many:
        fail("there are no recordings", fix="give at least one")
    own = [is_path(x) or hasattr(x, "info") for x in many]
    if any(own) and not all(own):
        fail(
            "arrays stand beside recordings that know their rate",
            why="Both are compared in their own way",
            fix="evaluate them one after the other",
        )
    for x in many:
        for item in open_files([x]) if is_path(x) else [x]:
            signals = read_signals(item, sfreq)
            if not signals.single:
                fail(
                    "the recording holds trials",
                    fix="give continuous recordings, (n_channels, n_times) as arrays",
                )
            yield signals, own[0]


def prepared_pair(
    truth: NDArray, rebuilt: NDArray, sfreq: float
) -> tuple[NDArray, NDArray]:
    """Return a recording and what tokens made of it, ready to be compared.

    Both are filtered, resampled, cut by a second at each end, and divided by the
    true standard deviation of every channel, so that a loud one does not count for
    more.

    Parameters
    ----------
    truth, rebuilt : ndarray, shape (n_channels, n_times)
    sfreq : float
        Hertz.

    Raises
    ------
    EEGTensorError
        If less than four seconds are given.
    """
    least = _SHORTEST + 2 * _TRIM
    if truth.shape[-1] < least * sfreq:
        fail(
            f"the recording lasts {truth.shape[-1] / sfreq:.1f} s",
            why="Its ends, where filters ring, are not compared",
            fix=f"give {least} s or more",
        )
    truth, power = squarable(truth)
    rebuilt = np.ldexp(rebuilt, -power[:, None])
    sos = scipy.signal.butter(3, _EDGES, btype="bandpass", fs=sfreq, output="sos")
    ratio = Fraction(RATE / sfreq).limit_denominator(1000)

    def plain(x: NDArray) -> NDArray:
        x = scipy.signal.sosfiltfilt(sos, x, axis=-1)
        x = scipy.signal.resample_poly(x, ratio.numerator, ratio.denominator, axis=-1)
        x = x[:, _TRIM * RATE : x.shape[-1] - _TRIM * RATE]
        return np.asarray(x[:, : x.shape[-1] // RATE * RATE])

    x, y = plain(truth), plain(rebuilt)
    mean, spread = x.mean(axis=-1, keepdims=True), x.std(axis=-1, keepdims=True)
    safe = np.where(spread > 0, spread, 1.0)
    return (x - mean) / safe, (y - mean) / safe
