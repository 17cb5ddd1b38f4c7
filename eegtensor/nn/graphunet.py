"""A U-net on electrodes and time: coarser groups of nodes, slower recurrences."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, fail


def pair_nodes(A: Tensor) -> Tensor:
    """Return a group for each node: pairs of the strongest edges, greedily.

    Nodes whose neighbours are all taken stay alone. It is deterministic, and does
    not depend on the nodes' order where no two edges are equally strong.

    Parameters
    ----------
    A : Tensor, shape (n_nodes, n_nodes)
        Symmetric weights from 0 up.

    Returns
    -------
    groups : Tensor of int64, shape (n_nodes,)
        0 .. n_groups - 1, by the first node of each.
    """
    n = len(A)
    i, j = torch.triu_indices(n, n, 1)
    mate = list(range(n))
    taken = [False] * n
    order = torch.argsort(A[i, j], descending=True, stable=True)
    for e in order.tolist():
        a, b = int(i[e]), int(j[e])
        if A[a, b] > 0 and not (taken[a] or taken[b]):
            taken[a] = taken[b] = True
            mate[b] = a
    firsts = {first: k for k, first in enumerate(sorted(set(mate)))}
    return torch.tensor([firsts[m] for m in mate])


def _averaging(groups: Tensor) -> Tensor:
    """Return P (n_groups, n_nodes) that averages the nodes of each group."""
    P = torch.nn.functional.one_hot(groups).to(torch.get_default_dtype()).mT
    return P / P.sum(dim=1, keepdim=True)


def _scaled_laplacian(A: Tensor) -> Tensor:
    """Return -D^-1/2 A D^-1/2, the Laplacian less one: Chebyshev's variable."""
    A = A - torch.diag(A.diagonal())
    degree = A.sum(dim=1)
    alone = degree <= 0
    root = torch.where(alone, 0.0, torch.where(alone, 1.0, degree).rsqrt())
    return -root[:, None] * A * root


class SpacePool(nn.Module):
    """Mean over groups of nodes, and its way back: each node gets its group's.

    Parameters
    ----------
    groups : Tensor of int64, shape (n_nodes,)
        0 .. n_groups - 1, each at least once.
    """

    groups: Tensor
    average: Tensor

    def __init__(self, groups: Tensor) -> None:
        super().__init__()
        if not torch.equal(groups.unique(), torch.arange(int(groups.max()) + 1)):
            fail(
                f"groups={groups.tolist()}",
                fix="number the groups 0, 1, 2 without gaps",
            )
        self.register_buffer("groups", groups.clone())
        self.register_buffer("average", _averaging(groups))

    def forward(self, x: Tensor) -> Tensor:
        """Return means of groups, (..., n_groups, n_features)."""
        return self.average.to(x.dtype) @ x

    def back(self, x: Tensor) -> Tensor:
        """Return (..., n_nodes, n_features) from (..., n_groups, n_features)."""
        return x.index_select(-2, self.groups)


class GraphGRU(nn.Module):
    """A gated recurrence over time whose products are Chebyshev filters on a graph.

    Parameters
    ----------
    n_in, width : int
    laplacian : Tensor, shape (n_nodes, n_nodes)
        Scaled to [-1, 1].
    order : int
        Terms of the filters.
    dilation : int
        Steps that the state skips: state t reads state t - dilation.
    """

    laplacian: Tensor

    def __init__(
        self,
        n_in: int,
        width: int,
        laplacian: Tensor,
        *,
        order: int = 3,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.register_buffer("laplacian", laplacian.clone())
        self.width = check_count("width", width)
        self.order, self.dilation = check_count("order", order), dilation
        self.gates = nn.Linear(order * (n_in + width), 2 * width)
        self.candidate = nn.Linear(order * (n_in + width), width)

    def _filtered(self, x: Tensor) -> Tensor:
        terms = [x]
        if self.order > 1:
            terms.append(self.laplacian @ x)
        for _ in range(2, self.order):
            terms.append(2 * self.laplacian @ terms[-1] - terms[-2])
        return torch.cat(terms, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return states (batch, n_times, n_nodes, width) of (..., n_nodes, n_in)."""
        zero = x.new_zeros(*x[:, 0].shape[:-1], self.width)
        states: list[Tensor] = []
        for t in range(x.shape[1]):
            h = states[t - self.dilation] if t >= self.dilation else zero
            gates = self.gates(self._filtered(torch.cat([x[:, t], h], dim=-1)))
            reset, update = torch.sigmoid(gates).chunk(2, dim=-1)
            mixed = torch.cat([x[:, t], reset * h], dim=-1)
            new = torch.tanh(self.candidate(self._filtered(mixed)))
            states.append(update * h + (1 - update) * new)
        return torch.stack(states, dim=1)


class GraphUNet(nn.Module):
    """Features for every node and time step, from coarser and slower ones below.

    Level l holds groups of groups of nodes and a recurrence that skips 2^l steps;
    going back up, each node gets its group's state beside its own.

    Parameters
    ----------
    n_in, n_out : int
        Features of a node that come in and go out.
    adjacency : Tensor, shape (n_nodes, n_nodes)
        Weights from 0 up.
    depth : int
        Poolings; each halves the nodes.
    width : int
    order : int
        Of the Chebyshev filters.
    groups : sequence of Tensor | None
        Of each pooling; None pairs the nodes of the strongest edges.

    References
    ----------
    B. Yu, H. Yin and Z. Zhu, "ST-UNet: a spatio-temporal U-network for
    graph-structured time series modeling", 2019.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        adjacency: Tensor,
        *,
        depth: int = 2,
        width: int = 16,
        order: int = 3,
        groups: Sequence[Tensor] | None = None,
    ) -> None:
        super().__init__()
        check_count("depth", depth, least=0)
        A = adjacency.to(torch.get_default_dtype())
        self.pools, self.down, self.up = (
            nn.ModuleList(),
            nn.ModuleList(),
            nn.ModuleList(),
        )
        n_features = n_in
        for level in range(depth + 1):
            L = _scaled_laplacian(A)
            options = {"order": order, "dilation": 2**level}
            self.down.append(GraphGRU(n_features, width, L, **options))
            n_features = width
            if level == depth:
                break
            pool = SpacePool(pair_nodes(A) if groups is None else groups[level])
            self.pools.append(pool)
            self.up.append(nn.Linear(2 * width, width))
            A = pool.average @ A @ pool.average.mT
        self.leave = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs for every node and time.

        Parameters
        ----------
        x : Tensor, shape (batch, n_times, n_nodes, n_in)

        Returns
        -------
        y : Tensor, shape (batch, n_times, n_nodes, n_out)
        """
        skipped = []
        for level, recurrence in enumerate(self.down):
            x = recurrence(x)
            if level < len(self.pools):
                skipped.append(x)
                x = self.pools[level](x)
        for level in reversed(range(len(self.pools))):
            pool: SpacePool = self.pools[level]  # type: ignore[assignment]
            both = torch.cat([pool.back(x), skipped[level]], dim=-1)
            x = torch.relu(self.up[level](both))
        y: Tensor = self.leave(x)
        return y
