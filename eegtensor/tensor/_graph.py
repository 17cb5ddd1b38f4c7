"""Contractions and least-squares sweeps of a network on a graph, starts in a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor.tensor._alternate import solve


class _Join(NamedTuple):
    """One product of two tensors of a contraction."""

    first: int
    second: int
    before: tuple[tuple[int, ...], tuple[int, ...]]
    matrices: tuple[tuple[int, int], tuple[int, int]]
    shape: tuple[int, ...]


class Graph:
    """Contractions of a network, planned once.

    Cores are matrices (starts, I_n, prod ranks): the starts of a small tensor cost
    little more together than one by itself.
    """

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
        """Return the product of all cores but one, (starts, other modes, its links)."""
        if skip not in self._plans:
            self._plans[skip] = self._plan(skip)
        # Matrix products on a fixed plan: an einsum would look for its order anew.
        joins, order = self._plans[skip]
        n_starts = cores[0].shape[0]
        parts: list[Any] = [
            A.reshape([n_starts, *(self.size[p] for p in labels)])
            for A, labels in zip(cores, self.labels, strict=True)
        ]
        out = parts[0] if skip != 0 else parts[1]
        for join in joins:
            A = parts[join.first].permute(join.before[0])
            B = parts[join.second].permute(join.before[1])
            A = A.reshape(n_starts, *join.matrices[0])
            B = B.reshape(n_starts, *join.matrices[1])
            out = (A @ B).reshape(n_starts, *join.shape)
            parts.append(out)
        out = out.permute(order)
        modes = len(cores) - (skip is not None)
        return out.reshape(n_starts, math.prod(out.shape[1 : modes + 1]), -1)

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
                        (0, *(labels[i].index(p) + 1 for p in left + shared)),
                        (0, *(labels[j].index(p) + 1 for p in shared + right)),
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
        return joins, (0, *(last.index(p) + 1 for p in wanted))

    def sweep(
        self,
        unfoldings: Sequence[Tensor],
        cores: list[Tensor],
        total: float,
        ridge: float,
        damping: Tensor | None = None,
    ) -> Tensor:
        """Update every core by least squares; return squared relative errors.

        Parameters
        ----------
        unfoldings : sequence of Tensor, shape (I_n, other modes)
        cores : list of Tensor, shape (starts, I_n, prod ranks)
            Replaced by balanced and updated ones.
        total : float
            Squared norm of the tensor.
        ridge : float
            On the normal equations, relative to their mean diagonal.
        damping : Tensor, shape (starts,) | None
            More ridge, each start its own.
        """
        balance(cores)
        for n, Xn in enumerate(unfoldings):
            E = self.contract(cores, n)
            # E is tall: its Gram and one product are all that least squares need.
            V, M = E.mT @ E, Xn @ E
            raised = V
            if damping is not None:
                level = damping * V.diagonal(dim1=1, dim2=2).mean(1)
                raised = V + torch.diag_embed(level[:, None].expand(V.shape[:2]))
            cores[n] = solve(raised, M, ridge)
        # From products at hand: no reconstruction.
        A = cores[-1]
        left = total - (A * (2.0 * M - A @ V)).sum((1, 2))
        return (left / total).clamp_min(0.0)


def balance(cores: list[Tensor]) -> None:
    """Give the cores of each start the same norm, in place of the list's entries.

    What the product leaves open stays in range, however many sweeps there are.
    """
    norms = torch.stack([A.flatten(1).norm(dim=1) for A in cores])
    level = norms.clamp_min(1e-300).log().mean(dim=0).exp()
    # A core that is zero stays so.
    scale = torch.where((norms > 0).all(dim=0), level / norms.clamp_min(1e-300), 1.0)
    cores[:] = [A * s[:, None, None] for A, s in zip(cores, scale, strict=True)]
