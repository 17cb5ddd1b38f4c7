"""A tensor network on any graph: cores at the modes, ranks on the links."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import check_number, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._damped import Damped, descend
from eegtensor.tensor._graph import Graph, balance
from eegtensor.tensor._momentum import settle
from eegtensor.tensor._shapes import (
    Random,
    as_random,
    as_tensor,
    check_rank,
    check_start,
    check_sweeps,
    normal,
)
from eegtensor.tensor.kernels import squared_norm

# Numbers in the largest contraction of the starts worked on side by side.
_AT_ONCE = 2**24


class TensorNetwork(NamedTuple):
    """One core for each mode; linked cores share an index that is summed.

    Attributes
    ----------
    cores : tuple of array, N axes each
        Axis n of core n has length I_n; its axis m has the rank of the link n-m,
        1 where there is none. Of equal Frobenius norm.
    rse : float
        ||X - reconstruction||^2 / ||X||^2.
    n_iter : int
        Sweeps of the start that won.
    """

    cores: tuple[Array, ...]
    rse: float
    n_iter: int

    def reconstruct(self) -> Array:
        """Return the tensor that the model stands for, shape (I_1, ..., I_N)."""
        return _rebuild(*self.cores)


@bridged
def _rebuild(*cores: Tensor) -> Tensor:
    N = len(cores)
    links = np.array([G.shape for G in cores])
    shape = [int(links[n, n]) for n in range(N)]
    graph = Graph(shape, links)
    flat = [G.movedim(n, 0).reshape(1, shape[n], -1) for n, G in enumerate(cores)]
    return graph.contract(flat, None).reshape(shape)


@bridged
def tensor_network(
    X: Array,
    links: Any,
    *,
    start: Sequence[Array] | None = None,
    n_starts: int = 1,
    ridge: float = 1e-9,
    max_iter: int = 100,
    tol: float = 1e-6,
    floor: float = 1e-13,
    random_state: Random = 0,
) -> TensorNetwork:
    """Return the tensor network of a tensor, by alternating least squares.

    Parameters
    ----------
    X : array or tensor, shape (I_1, ..., I_N), N >= 2
        Without missing cells. Worked on in float64.
    links : array-like of int, shape (N, N)
        Symmetric; entry (n, m) is the rank of the link between modes n and m, 1
        where there is none. The diagonal is not read.
    start : sequence of array | None
        Cores to start from, shaped as `TensorNetwork.cores`; random if None.
    n_starts : int
        Starts that compete; the best quarter goes on for twice as many sweeps.
        Those beside `start` are random, and damped as long as their error is large.
    ridge : float
        On the normal equations, relative to their mean diagonal.
    max_iter : int
        Sweeps of the winner.
    tol : float
        Change of the relative error that ends the sweeps.
    floor : float
        Squared relative error that ends the sweeps.
    random_state : int | Generator
        Of the random starts.

    Returns
    -------
    TensorNetwork

    Raises
    ------
    EEGTensorError
        If X holds NaN or infinity, or links or start do not fit it.

    Notes
    -----
    The contraction of all cores but one is formed, cells / I_n numbers for each
    entry of that core's links: meant for tensors that fit well into memory.
    """
    check_sweeps(max_iter, tol, ridge)
    check_number("floor", floor, least=0.0)
    X, observed, total = as_tensor(X)
    if observed is not None:
        fail(
            "X has missing cells",
            fix="complete it first: eegtensor.features.Completer",
        )
    X = X.double()
    table = check_links(links, X.ndim)
    if total == 0.0:
        zero = [torch.zeros(_full(n, X.shape, table)) for n in range(X.ndim)]
        return TensorNetwork(tuple(G.to(X) for G in zero), 0.0, 0)
    graph = Graph(X.shape, table)
    unfoldings = [X.movedim(n, 0).reshape(X.shape[n], -1) for n in range(X.ndim)]

    def step(before: list[Tensor]) -> tuple[list[Tensor], float]:
        after = list(before)
        error = float(graph.sweep(unfoldings, after, total, ridge))
        # Sweeps end at zero.
        return after, error if error > floor else 0.0

    n_random = check_rank(n_starts, "n_starts") - (start is not None)
    runs = []
    if n_random:
        random = as_random(random_state)
        drawn = [
            [normal(s, random).to(X) for s in graph.matrices] for _ in range(n_random)
        ]
        largest = max(X.numel() // rows * R for rows, R in graph.matrices)
        runs.append(
            descend(
                lambda cores, damping: graph.sweep(
                    unfoldings, cores, total, ridge, damping
                ),
                [torch.stack(A) for A in zip(*drawn, strict=True)],
                at_once=max(1, _AT_ONCE // largest),
                max_iter=3 * max_iter // 4,
                tol=tol,
                floor=floor,
            )
        )
    if start is not None:
        # Not held back: it is near its end already.
        wanted = [_full(n, X.shape, table) for n in range(X.ndim)]
        cores = [
            G.movedim(n, 0).reshape(X.shape[n], -1)
            for n, G in enumerate(check_start(start, wanted, X))
        ]
        runs.append(Damped(cores, math.inf, 0))
    found = []
    for run in runs:
        cores, error, n_iter = [A[None] for A in run.cores], run.error, run.n_iter
        if error > floor:
            # The ridge has left a share of the error: the last sweeps are without.
            cores, error, n_more = settle(
                step, cores, max_iter=max_iter - n_iter, tol=tol, error=error
            )
            n_iter += n_more
        found.append((error, n_iter, cores))
    error, n_iter, cores = min(found, key=lambda run: run[0])
    # Below the floor the error was rounded to zero.
    if error == 0.0:
        rest = X.reshape(-1) - graph.contract(cores, None).reshape(-1)
        error = squared_norm(rest) / total
    balance(cores)
    full = [_spread(A[0], n, X.shape, table) for n, A in enumerate(cores)]
    return TensorNetwork(tuple(full), error, n_iter)


def check_links(links: Any, n: int) -> NDArray[np.int64]:
    """Return links as an (n, n) table of ranks with ones on its diagonal, or raise."""
    table = links.cpu().numpy() if isinstance(links, Tensor) else np.asarray(links)
    if table.shape != (n, n) or table.dtype.kind not in "iu":
        fail(
            f"links has shape {table.shape} and dtype {table.dtype}",
            fix=f"give whole numbers of shape ({n}, {n}), one row for each mode",
        )
    table = table.astype(np.int64)
    np.fill_diagonal(table, 1)
    if (table < 1).any() or (table != table.T).any():
        fail(
            "links is not a symmetric table of ranks from 1 up",
            fix="give the same rank at (n, m) and (m, n), 1 where there is no link",
        )
    return table


def _full(n: int, shape: Sequence[int], links: NDArray[np.int64]) -> list[int]:
    return [int(links[n, m]) if m != n else shape[n] for m in range(len(shape))]


def _spread(
    A: Tensor, n: int, shape: Sequence[int], links: NDArray[np.int64]
) -> Tensor:
    """Return a core (I_n, prod ranks) with one axis for each mode."""
    ranks = _full(n, shape, links)
    ranks.pop(n)
    return A.reshape(shape[n], *ranks).movedim(0, n).contiguous()
