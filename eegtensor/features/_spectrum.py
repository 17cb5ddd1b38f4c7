"""Spectra of trials, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def pieces(X: NDArray, n_numbers: int = 1 << 22) -> Iterator[NDArray]:
    """Yield trials in order, at most so many numbers at a time.

    Trials of a store arrive as a memory map.
    """
    step = max(1, n_numbers // X[0].size)
    for i in range(0, len(X), step):
        yield X[i : i + step]


def spectra(X: NDArray, taper: NDArray | None = None) -> NDArray:
    """Return Fourier transforms of centred trials, (n_trials, n_channels, n_freqs)."""
    X = X.astype(np.float64)
    X -= X.mean(axis=2, keepdims=True)
    return np.fft.rfft(X if taper is None else X * taper, axis=2)


def mean_power(X: NDArray, taper: NDArray | None = None) -> NDArray:
    """Return the power of each frequency, (n_freqs,), summed over trials.

    Each trial counts alike, whatever its power.
    """
    power = np.zeros(X.shape[2] // 2 + 1)
    for part in pieces(X):
        squares = np.abs(spectra(part, taper)) ** 2
        total = squares.sum(axis=(1, 2), keepdims=True)
        power += (squares / np.where(total > 0, total, 1.0)).sum(axis=(0, 1))
    return power
