"""Steps without a gradient: it is found by differences of their scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor.geometry import sqrtm_pair, symmetrize

# Values of some trials, and which trials they are of, to scores.
Scorer = Callable[[NDArray, NDArray], NDArray]
# Of float64 with central differences: errors of rounding and of curvature alike.
_STEP = 1e-5
# Rows that are scored at once.
_CHUNK = 1 << 14


class Differences(torch.autograd.Function):
    """Scores of an estimator, with a gradient by central differences.

    Of vectors along each feature, in steps relative to its spread; of SPD matrices
    along ``P^1/2 (I + h E_ij) P^1/2``, which stays SPD and knows no unit. A matrix
    of n channels is scored n (n + 1) times, a vector of p features 2 p times.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: NDArray, score: Scorer) -> Tensor:
        """Return the scores, shape (n_trials, n_classes)."""
        ctx.save_for_backward(values)
        ctx.rows, ctx.score = rows, score
        found = score(values.detach().cpu().numpy(), rows)
        return torch.from_numpy(found).to(values.device)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        """Return the gradient of the values."""
        (values,) = ctx.saved_tensors
        weight = grads[0].detach().cpu().double()
        at = values.detach().cpu().double()
        of = _of_matrices if _is_matrices(at) else _of_vectors
        found = of(at, ctx.rows, ctx.score, weight)
        return found.to(values), None, None


def _is_matrices(values: Tensor) -> bool:
    return values.ndim > 2 and values.shape[-1] == values.shape[-2]


def _of_vectors(v: Tensor, rows: NDArray, score: Scorer, weight: Tensor) -> Tensor:
    spread = v.std(0, correction=0)
    h = _STEP * torch.where(spread > 0, spread, v.abs().mean(0).clamp_min(1e-30))
    moves = torch.diag(h)
    return _slopes(v, lambda m: m, moves, rows, score, weight) / h


def _of_matrices(P: Tensor, rows: NDArray, score: Scorer, weight: Tensor) -> Tensor:
    root, inverse = sqrtm_pair(P)
    n = P.shape[-1]
    i, j = torch.triu_indices(n, n)
    bands = P.shape[1:-2]
    n_bands = int(np.prod(bands))
    E = torch.zeros(len(i), n, n, dtype=P.dtype)
    E[torch.arange(len(i)), i, j] = 1.0
    E = symmetrize(E)
    # Of a filter bank one band after the other.
    one = torch.eye(n_bands, dtype=P.dtype)
    moves = torch.einsum("ab,eij->aebij", one, E).reshape(-1, *bands, n, n)

    def at(m: Tensor) -> Tensor:
        return symmetrize(root[:, None] @ (_STEP * m) @ root[:, None])

    slopes = _slopes(P, at, moves, rows, score, weight) / _STEP
    tangent = torch.zeros(len(P), n_bands, n, n, dtype=P.dtype)
    slopes = slopes.view(len(P), n_bands, -1)
    tangent[:, :, i, j] = slopes
    tangent[:, :, j, i] = slopes
    return symmetrize(inverse @ tangent.view_as(P) @ inverse)


def _slopes(
    values: Tensor,
    displaced: Callable[[Tensor], Tensor],
    moves: Tensor,
    rows: NDArray,
    score: Scorer,
    weight: Tensor,
) -> Tensor:
    """Return half the weighted difference along each move, (n_trials, n_moves)."""
    found = []
    for part in moves.split(max(1, _CHUNK // len(values))):
        d = displaced(part).expand(len(values), *part.shape)
        who = np.repeat(rows, len(part))
        start = values[:, None]
        ends = [
            torch.from_numpy(score((start + s * d).flatten(0, 1).numpy(), who))
            for s in (1, -1)
        ]
        rise = (ends[0] - ends[1]).view(len(values), len(part), -1) / 2
        # The scores of some classes may be -inf where a probability is 0.
        found.append(torch.einsum("nek,nk->ne", rise.nan_to_num(0.0, 0.0, 0.0), weight))
    return torch.cat(found, dim=1)
