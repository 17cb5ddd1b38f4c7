"""Sums over segments: domains are an axis, not a loop.

For many matrices at rest, as means have them: a sum costs the same for two
segments as for a thousand, and looks at values are free. The few trials of a
training step are in `_groups`, as products with a one-hot matrix.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import check_lengths, fail, listing


class Segments(NamedTuple):
    """Which segment each matrix belongs to, and its weight there.

    Attributes
    ----------
    codes : Tensor of int64, shape (n_matrices,)
    share : Tensor, shape (n_matrices,)
        Weights that sum to one in each segment.
    n : int
        Number of segments.
    """

    codes: Tensor
    share: Tensor
    n: int

    def spread(self, M: Tensor) -> Tensor:
        """Return the segment's entry of M for each matrix; broadcasts for one."""
        return M if self.n == 1 else M[self.codes]

    def total(self, T: Tensor) -> Tensor:
        """Return the weighted sum over each segment, shape (n_segments, ...)."""
        if self.n == 1:
            return (self.share @ T.flatten(1)).view(1, *T.shape[1:])
        weighted = T * self.share.view(-1, *(1 for _ in T.shape[1:]))
        out = torch.zeros(self.n, *T.shape[1:], dtype=T.dtype, device=T.device)
        return out.index_add(0, self.codes, weighted)

    def keep(self, going: Tensor) -> tuple[Tensor, Segments]:
        """Return which matrices belong to the segments kept, and those segments."""
        chosen = going[self.codes]
        renumbered = (going.cumsum(0) - 1)[self.codes[chosen]]
        return chosen, Segments(renumbered, self.share[chosen], int(going.sum()))

    def repeat(self, k: int) -> Segments:
        """Return k segments in place of each, for k matrices in place of each."""
        inner = torch.arange(k, device=self.codes.device)
        codes = (self.codes[:, None] * k + inner).flatten()
        return Segments(codes, self.share.repeat_interleave(k), self.n * k)


def make_segments(
    n: int, weights: Any, segments: Any, *, device: torch.device
) -> Segments:
    """Check weights and segments, and normalise the weights in each segment.

    Parameters
    ----------
    n : int
        Number of matrices.
    weights : array-like, shape (n,) | None
        Non-negative; gradients flow through a tensor.
    segments : array-like of int, shape (n,) | None

    Raises
    ------
    EEGTensorError
        If lengths do not fit, weights are negative or a segment is empty.
    """
    check_lengths(n, weights=weights, segments=segments)
    codes = _segment_codes(n, segments).to(device)
    w = _tensor(np.ones(n) if weights is None else weights).to(device, torch.float64)
    if w.shape != (n,) or codes.shape != (n,):
        fail("weights and segments have one axis", fix="give one entry per matrix")
    bad = (~((w >= 0) & w.isfinite())).nonzero()[:, 0]
    if len(bad):
        fail(f"weights of matrices {listing(bad.tolist())} are negative or not finite")
    count = int(codes.max()) + 1
    totals = torch.zeros(count, dtype=w.dtype, device=device).index_add(0, codes, w)
    empty = (totals <= 0).nonzero()[:, 0]
    if len(empty):
        fail(
            f"Segments {listing(empty.tolist())} are empty or weigh nothing",
            fix="number segments from 0 without gaps and give positive weights",
        )
    return Segments(codes, w / totals[codes], count)


class Sets(NamedTuple):
    """Sets of matrices whose centers are sought together.

    Attributes
    ----------
    X : Tensor, shape (n_matrices * n_middle, n, n), float64
    parts : Segments
        One for each combination of segment and middle axes.
    shape : tuple of int
        Of a result, without the last two axes.
    """

    X: Tensor
    parts: Segments
    shape: tuple[int, ...]

    def centers(self, given: Tensor) -> Tensor:
        """Return given centers (n, n) or (..., n, n) as (n_segments, n, n)."""
        n = self.X.shape[-1]
        try:
            wide = given.to(self.X).expand(*self.shape, n, n)
        except RuntimeError as error:
            fail(
                f"Centers have shape {tuple(given.shape)}, not {(*self.shape, n, n)}",
                fix="give one center, or one for each segment",
                cause=error,
            )
        return wide.reshape(self.parts.n, n, n)


def fold(X: Tensor, weights: Any, segments: Any) -> Sets:
    """Check matrices (n_matrices, ..., n, n) and fold middle axes into segments."""
    if X.ndim < 3 or X.shape[-1] != X.shape[-2] or 0 in X.shape:
        fail(
            f"X has shape {tuple(X.shape)}",
            fix="give at least one matrix: shape (n_matrices, ..., n, n)",
        )
    parts = make_segments(len(X), weights, segments, device=X.device)
    middle = tuple(X.shape[1:-2])
    shape = middle if segments is None else (parts.n, *middle)
    if middle:
        parts = parts.repeat(math.prod(middle))
    # float32 would stop short of a tolerance and clamp eigenvalues from 1e-7 down.
    return Sets(X.to(torch.float64).flatten(0, -3), parts, shape)


def _tensor(values: Any) -> Tensor:
    return values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def _segment_codes(n: int, segments: Any) -> Tensor:
    if segments is None:
        return torch.zeros(n, dtype=torch.int64)
    codes = _tensor(segments)
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        fail(
            f"segments has dtype {str(codes.dtype).removeprefix('torch.')}",
            fix="number segments from 0",
        )
    codes = codes.to(torch.int64)
    if bool((codes < 0).any()):
        fail("segments holds negative codes", fix="leave unseen domains out first")
    return codes
