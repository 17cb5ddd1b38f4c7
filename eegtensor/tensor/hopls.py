"""Higher-order partial least squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._shapes import as_tensor, check_rank, check_ranks
from eegtensor.tensor.kernels import mode_product
from eegtensor.tensor.tucker import tucker


class HOPLS(NamedTuple):
    """Blocks of a tensor that follow a target.

    Attributes
    ----------
    scores : array, shape (n_trials, R)
        Latent vectors of norm one.
    weights : array, shape (R, I_2, ..., I_N)
        A trial's inner products with them are its latent vectors.
    patterns : array, shape (R, I_2, ..., I_N)
        What one unit of each latent vector adds to a trial.
    loadings : array, shape (R, n_targets)
        What it adds to the targets.
    """

    scores: Array
    weights: Array
    patterns: Array
    loadings: Array


@bridged
def hopls(X: Array, Y: Array, rank: int, ranks: int | Sequence[int] = 4) -> HOPLS:
    """Return latent vectors of a tensor by their covariance with targets.

    One latent vector after the other: the tensor of covariances of all cells with
    all targets gets a Tucker model of rank (L_2, ..., L_N; 1), whose reconstruction
    weighs the trials' cells; the block that the latent vector explains in the
    model's subspaces is taken off, and so is its part of the targets.

    Parameters
    ----------
    X : array or tensor, shape (n_trials, I_2, ..., I_N)
        Centred over trials.
    Y : array or tensor, shape (n_trials, n_targets)
        Centred over trials.
    rank : int
        Latent vectors R; fewer where the targets are explained before.
    ranks : int | sequence of int
        Directions L_n of each mode but the first in one block.

    Returns
    -------
    HOPLS

    References
    ----------
    Q. Zhao et al., "Higher order partial least squares (HOPLS): a generalized
    multilinear regression method", IEEE Trans. Pattern Anal. Mach. Intell., 2013,
    algorithm 2.
    """
    R = check_rank(rank)
    X, observed, _ = as_tensor(X, ndim=2)
    if observed is not None:
        fail("X has missing cells", fix="restore them first, or leave trials out")
    if Y.ndim != 2 or len(Y) != len(X) or not bool(Y.isfinite().all()):
        fail(
            f"Y has shape {tuple(Y.shape)} or is not finite",
            fix="give one row of finite targets per trial",
        )
    sizes = check_ranks(ranks, X.shape[1:])
    F = Y.detach().to(X)
    E = X.clone()
    start = float(F.double().norm())
    scores, directions, patterns, loadings = [], [], [], []
    for _ in range(R):
        C = (F.mT @ E.flatten(1)).reshape(-1, *E.shape[1:])
        if float(C.double().norm()) <= 1e-12 * start * float(X.double().norm()):
            break
        found = tucker(C, (1, *sizes))
        factors = [U for U in found.factors[1:] if U is not None]
        weights = found.core[0]
        for n, U in enumerate(factors):
            weights = mode_product(weights, U, n)
        t = E.flatten(1) @ weights.reshape(-1)
        size = t.norm()
        t = t / size
        pattern = (t @ E.flatten(1)).reshape(1, *E.shape[1:])
        for n, U in enumerate(factors, start=1):
            pattern = mode_product(pattern, U @ U.mT, n)
        q = t @ F
        E.flatten(1).addr_(t, pattern.reshape(-1), alpha=-1.0)
        F = F - torch.outer(t, q)
        scores.append(t)
        directions.append(weights.reshape(-1) / size)
        patterns.append(pattern[0])
        loadings.append(q)
    if not scores:
        fail(
            "No cell of X varies with the targets",
            why="There is no latent vector to find",
            fix="check that the targets belong to these trials",
        )
    W, P = torch.stack(directions), torch.stack(patterns)
    # The same from X itself as from what the blocks before have left of it.
    taken = torch.tril(W @ P.flatten(1).mT, -1)
    weights = torch.linalg.solve_triangular(taken, W, upper=False, unitriangular=True)
    # In rows again: products of a copy then round alike.
    weights = weights.contiguous().view(P.shape)
    return HOPLS(torch.stack(scores, 1), weights, P, torch.stack(loadings))
