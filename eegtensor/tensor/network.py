"""A tensor network on any graph: cores at the modes, ranks on the links."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._alternate import solve
from eegtensor.tensor._momentum import compete
from eegtensor.tensor._shapes import Random, as_random, as_tensor, check_rank, normal
from eegtensor.tensor.kernels import squared_norm
from eegtensor.tensor.ring import balance


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
    graph = _Graph(shape, links)
    flat = [G.movedim(n, 0).reshape(shape[n], -1) for n, G in enumerate(cores)]
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
        Starts that compete; the worse half leaves after a few sweeps, twice as
        many in each round. Those beside `start` are random.
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
    graph = _Graph(X.shape, table)
    random = as_random(random_state)
    starts = [] if start is None else [_check_start(start, X, table)]
    while len(starts) < check_rank(n_starts, "n_starts"):
        starts.append([normal(s, random).to(X) for s in graph.matrices])

    def step(before: list[Tensor]) -> tuple[list[Tensor], float]:
        after = list(before)
        # The ridge treats all cores alike.
        balance(after)
        error = graph.sweep(X, after, total, ridge)
        # Sweeps end at zero.
        return after, error if error > floor else 0.0

    cores, error, n_iter, _ = compete(step, starts, max_iter=max_iter, tol=tol)
    # Below the floor the error was rounded to zero.
    if error == 0.0:
        error = squared_norm(X.reshape(-1) - graph.contract(cores, None)[:, 0]) / total
    balance(cores)
    full = [_spread(A, n, X.shape, table) for n, A in enumerate(cores)]
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


def _check_start(
    start: Sequence[Array], X: Tensor, links: NDArray[np.int64]
) -> list[Tensor]:
    cores = [torch.as_tensor(G).to(X) for G in start]
    wanted = [tuple(_full(n, X.shape, links)) for n in range(X.ndim)]
    if [tuple(G.shape) for G in cores] != wanted:
        fail(
            f"start has shapes {[tuple(G.shape) for G in cores]}",
            fix=f"give cores of shapes {wanted}",
        )
    return [G.movedim(n, 0).reshape(X.shape[n], -1) for n, G in enumerate(cores)]


class _Join(NamedTuple):
    """One product of two tensors of a contraction."""

    first: int
    second: int
    before: tuple[tuple[int, ...], tuple[int, ...]]
    matrices: tuple[tuple[int, int], tuple[int, int]]
    shape: tuple[int, ...]


class _Graph:
    """Contractions of a network, planned once; cores are matrices (I_n, prod ranks)."""

    def __init__(self, shape: Sequence[int], links: NDArray[np.int64]) -> None:
        N = len(shape)
        self.size = {(n, n): int(shape[n]) for n in range(N)}
        self.labels = []
        for n in range(N):
            linked = [m for m in range(N) if m != n and links[n, m] > 1]
            pairs = [(min(n, m), max(n, m)) for m in linked]
            self.size.update({pair: int(links[pair]) for pair in pairs})
            self.labels.append([(n, n), *pairs])
        self.matrices = [
            (shape[n], math.prod(self.size[p] for p in self.labels[n][1:]))
            for n in range(N)
        ]
        self._plans: dict[int | None, tuple[list[_Join], tuple[int, ...]]] = {}

    def contract(self, cores: Sequence[Tensor], skip: int | None) -> Tensor:
        """Return the product of all cores but one, (other modes, its links)."""
        if skip not in self._plans:
            self._plans[skip] = self._plan(skip)
        # Matrix products on a fixed plan: an einsum would look for its order anew.
        joins, order = self._plans[skip]
        parts: list[Any] = [
            A.reshape([self.size[p] for p in labels])
            for A, labels in zip(cores, self.labels, strict=True)
        ]
        out = parts[0] if skip != 0 else parts[1]
        for join in joins:
            A = parts[join.first].permute(join.before[0]).reshape(join.matrices[0])
            B = parts[join.second].permute(join.before[1]).reshape(join.matrices[1])
            out = (A @ B).reshape(join.shape)
            parts.append(out)
        out = out.permute(order)
        modes = len(cores) - (skip is not None)
        return out.reshape(math.prod(out.shape[:modes]), -1)

    def _plan(self, skip: int | None) -> tuple[list[_Join], tuple[int, ...]]:
        """Return joins, each of the pair that leaves the least to carry."""
        labels = [list(own) for own in self.labels]
        alive = [n for n in range(len(labels)) if n != skip]
        joins = []

        def volume(own: Sequence[tuple[int, int]]) -> int:
            return math.prod(self.size[p] for p in own)

        def growth(i: int, j: int) -> int:
            both = set(labels[i]) ^ set(labels[j])
            return volume(list(both)) - volume(labels[i]) - volume(labels[j])

        while len(alive) > 1:
            _, i, j = min(
                (growth(i, j), i, j) for a, i in enumerate(alive) for j in alive[:a]
            )
            # Parts without a common link are joined too, by an outer product.
            shared = [p for p in labels[i] if p in labels[j]]
            left = [p for p in labels[i] if p not in shared]
            right = [p for p in labels[j] if p not in shared]
            joins.append(
                _Join(
                    i,
                    j,
                    (
                        tuple(labels[i].index(p) for p in left + shared),
                        tuple(labels[j].index(p) for p in shared + right),
                    ),
                    (
                        (volume(left), volume(shared)),
                        (volume(shared), volume(right)),
                    ),
                    tuple(self.size[p] for p in left + right),
                )
            )
            labels.append(left + right)
            alive = [n for n in alive if n not in (i, j)] + [len(labels) - 1]
        last = labels[alive[0]]
        wanted = sorted(p for p in last if p[0] == p[1])
        if skip is not None:
            wanted += self.labels[skip][1:]
        return joins, tuple(last.index(p) for p in wanted)

    def sweep(
        self, X: Tensor, cores: list[Tensor], total: float, ridge: float
    ) -> float:
        """Update every core by least squares; return the squared relative error."""
        error = math.inf
        for n in range(X.ndim):
            E = self.contract(cores, n)
            # E is tall: its Gram and one product are all that least squares need.
            V = E.mT @ E
            M = X.movedim(n, 0).reshape(X.shape[n], -1) @ E
            A = solve(V, M, ridge)
            cores[n] = A
            if n == X.ndim - 1:
                # From products at hand: no reconstruction.
                error = total - float((A * (2.0 * M - A @ V)).sum())
        return max(error / total, 0.0)
