"""Lag covariances from whatever pairs were observed.

R_ij(l) = sum_t x_i(t + l) x_j(t) / number of pairs seen at that lag, over all
trials, by the fast Fourier transform: exact sums, not a circular approximation.
They need no completed data, so they are where learning starts when most cells
are lost, and they hold what is known about a gap in all channels at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eegtensor._check import check_count, fail
from eegtensor.geometry._bridge import Array, bridged, floating
from eegtensor.tensor.completion.spectrum import fast_length


@bridged
def lag_covariances(X: Array, seen: Array, n_lags: int) -> Array:
    """Return covariances at lags 0 ... n_lags - 1 from observed pairs.

    Parameters
    ----------
    X : array, shape (n_trials, n_channels, n_times)
        Zero mean, in any unit.
    seen : array of bool, same shape
    n_lags : int
        At most n_times.

    Returns
    -------
    covariances : array, shape (n_lags, n_channels, n_channels), float64
        Entry (l, i, j) is E[x_i(t + l) x_j(t)]; zero where no pair was seen.

    Raises
    ------
    EEGTensorError
        If shapes differ or there are more lags than samples.
    """
    X = floating(X)
    shape = tuple(getattr(seen, "shape", ()))
    if X.ndim != 3 or shape != tuple(X.shape):
        fail(
            f"X has shape {tuple(X.shape)} and seen {shape}",
            fix="give both as (n_trials, n_channels, n_times)",
        )
    n_times = X.shape[-1]
    if check_count("n_lags", n_lags) > n_times:
        fail(f"n_lags={n_lags} with {n_times} samples", fix="use 1 to n_times lags")
    length = fast_length(n_times + n_lags)
    weight = seen.to(torch.float64)
    zeroed = torch.where(seen.bool(), X, 0.0).to(torch.float64)
    sums = _correlate(zeroed, length, n_lags)
    pairs = _correlate(weight, length, n_lags)
    return sums / pairs.round().clamp_min(1.0)


def _correlate(signals: Tensor, length: int, n_lags: int) -> Tensor:
    """Return sum_t s_i(t + l) s_j(t) over trials, shape (n_lags, n, n)."""
    transformed = torch.fft.rfft(signals, n=length, dim=-1)
    out = signals.new_empty(n_lags, signals.shape[1], signals.shape[1])
    # One row at a time bounds the memory: n_channels transforms, not n_channels^2.
    for i in range(signals.shape[1]):
        row = (transformed[:, i : i + 1] * transformed.conj()).sum(dim=0)
        out[:, i] = torch.fft.irfft(row, n=length, dim=-1)[:, :n_lags].T
    return out
