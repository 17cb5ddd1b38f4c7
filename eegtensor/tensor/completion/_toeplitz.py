"""Delay embedding on a circle without the embedded tensor: lags and filters.

A window of tau samples at every place of a circular signal gives a Hankel matrix
whose Gram matrix is Toeplitz: its entries are lag covariances. A projection of
the windows, overlapped and averaged again, is a filter of the signal. Both are
Fourier transforms; the matrix, tau times as large as the signal, is never made.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def reflect(X: Tensor, margins: Sequence[int]) -> Tensor:
    """Return X continued at both ends of every axis by its mirror image."""
    for axis, margin in enumerate(margins):
        if margin:
            last = X.shape[axis] - 1
            index = torch.arange(-margin, last + margin + 1, device=X.device).abs()
            X = X.index_select(axis, last - (last - index).abs())
    return X


def crop(X: Tensor, margins: Sequence[int]) -> Tensor:
    """Return X without its margins."""
    for axis, margin in enumerate(margins):
        X = X.narrow(axis, margin, X.shape[axis] - 2 * margin)
    return X


def toeplitz(lags: Tensor) -> Tensor:
    """Return the matrix of shape (w, w) whose (a, b) is lag b - a of 2 w - 1."""
    w = (len(lags) + 1) // 2
    here = torch.arange(w, device=lags.device)
    return lags[here - here[:, None] + w - 1]


def self_lags(vectors: Tensor) -> Tensor:
    """Return the sums of the diagonals of V V', from lag -(w - 1) to w - 1.

    Parameters
    ----------
    vectors : Tensor, shape (w, n)
    """
    w = len(vectors)
    found = torch.fft.rfft(vectors, n=2 * w, dim=0)
    power = (found * found.conj()).real.sum(dim=1)
    return _around(torch.fft.irfft(power, n=2 * w), w)


def _around(circle: Tensor, w: int, axis: int = 0) -> Tensor:
    """Return lags -(w - 1) ... w - 1 of a sequence that starts at lag 0."""
    index = torch.arange(1 - w, w, device=circle.device) % circle.shape[axis]
    return circle.index_select(axis, index)


def lag_tensor(
    spectrum: Tensor, sizes: Sequence[int], windows: Sequence[int]
) -> Tensor:
    """Return the circular autocorrelation, shape (2 w_1 - 1, ..., 2 w_k - 1).

    Parameters
    ----------
    spectrum : Tensor, shape (n_signals, ...)
        `rfftn` of signals of shape (n_signals, *sizes).
    """
    # Squares of both parts, signals first: a modulus, or both sums at once, take
    # longer than the transforms.
    parts = torch.view_as_real(spectrum)
    power = (parts * parts).sum(dim=0).sum(dim=-1)
    found = torch.fft.irfftn(power, s=tuple(sizes))
    for axis, w in enumerate(windows):
        found = _around(found, w, axis)
    return found


def gain(factors: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Return the filter that projecting all windows on factors is, as for `rfftn`.

    Parameters
    ----------
    factors : sequence of Tensor, shape (w_n, R_n)
        Orthonormal columns.
    """
    out = torch.ones((), dtype=factors[0].dtype, device=factors[0].device)
    last = len(sizes) - 1
    for axis, (U, size) in enumerate(zip(factors, sizes, strict=True)):
        w = len(U)
        taps = U.new_zeros(size)
        lags = torch.arange(1 - w, w, device=U.device) % size
        taps.index_add_(0, lags, self_lags(U) / w)
        # Taps are even in the lag: the response is real.
        transform = torch.fft.rfft if axis == last else torch.fft.fft
        out = out[..., None] * transform(taps).real
    return out


def block_toeplitz(lags: Tensor) -> Tensor:
    """Return the Gram matrix of windows of several channels, shape (C w, C w).

    Parameters
    ----------
    lags : Tensor, shape (w, C, C)
        Sum over time of x_c(t) x_d(t + l) for l = 0 ... w - 1.

    Returns
    -------
    gram : Tensor
        Rows are channels, then delays.
    """
    w, n = lags.shape[:2]
    both = torch.cat([lags[1:].flip(0).mT, lags])
    here = torch.arange(w, device=lags.device)
    blocks = both[here - here[:, None] + w - 1]
    return blocks.permute(2, 0, 3, 1).reshape(n * w, n * w)


def diagonal_means(P: Tensor, n_channels: int) -> Tensor:
    """Return the filter of C channels that a C w x C w projection of windows is.

    Returns
    -------
    response : Tensor, shape (2 w - 1, C, C)
        Taps from lag -(w - 1) to w - 1: means over all w windows of a sample.
    """
    w = len(P) // n_channels
    blocks = P.view(n_channels, w, n_channels, w).permute(1, 3, 0, 2)
    here = torch.arange(w, device=P.device)
    lag = (here - here[:, None] + w - 1).reshape(-1)
    out = P.new_zeros(2 * w - 1, n_channels, n_channels)
    return out.index_add_(0, lag, blocks.reshape(w * w, n_channels, n_channels)) / w


def _block(w: int) -> int:
    """Return a length of transform that wastes little on its w overlapping samples."""
    return max(64, 1 << (8 * w - 1).bit_length())


def cross_lags(X: Tensor, w: int) -> Tensor:
    """Return circular cross-correlations summed over trials, shape (w, C, C).

    Parameters
    ----------
    X : Tensor, shape (n_trials, n_channels, n_times)
    """
    size, n_times = _block(w), X.shape[-1]
    step = size - w + 1
    n_blocks = -(-n_times // step)
    room = n_blocks * step - n_times
    first = torch.nn.functional.pad(X, (0, room)).unfold(-1, step, step)
    # Behind the last sample comes the first again; what meets zeros may be any.
    later = torch.cat([X, X[..., : w - 1]], dim=-1)
    later = torch.nn.functional.pad(later, (0, room)).unfold(-1, size, step)
    a = torch.fft.rfft(first, n=size, dim=-1).permute(3, 1, 0, 2).flatten(2)
    b = torch.fft.rfft(later, dim=-1).permute(3, 1, 0, 2).flatten(2)
    return torch.fft.irfft(a.conj() @ b.mT, n=size, dim=0)[:w]


class Filter:
    """Circular filter of several channels by overlapping blocks.

    Parameters
    ----------
    response : Tensor, shape (2 w - 1, n_channels, n_channels)
        Taps from lag -(w - 1) to w - 1.
    """

    def __init__(self, response: Tensor) -> None:
        self.reach = len(response) // 2
        self.size = _block(self.reach + 1)
        self.transform = torch.fft.rfft(response, n=self.size, dim=0).conj()

    def __call__(self, X: Tensor) -> Tensor:
        """Return sum_l K(l) x(t + l) of signals (n_trials, n_channels, n_times)."""
        reach, n_times = self.reach, X.shape[-1]
        step = self.size - 2 * reach
        n_blocks = -(-n_times // step)
        around = torch.cat([X[..., n_times - reach :], X, X[..., :reach]], dim=-1)
        around = torch.nn.functional.pad(around, (0, n_blocks * step - n_times))
        blocks = torch.fft.rfft(around.unfold(-1, self.size, step), dim=-1)
        rows = blocks.permute(3, 1, 0, 2)
        found = self.transform @ rows.flatten(2)
        out = torch.fft.irfft(found.view(rows.shape), n=self.size, dim=0)[:step]
        return out.permute(2, 1, 3, 0).flatten(2)[..., :n_times]
