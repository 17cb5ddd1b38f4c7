"""Graphs over electrodes and time steps at once, from space and from likeness."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail


def dtw_distances(X: NDArray, band: int = 12) -> NDArray:
    """Return dynamic time warping distances of standardised series.

    The least sum of absolute differences along a path that matches the samples of
    two series in order, at most `band` samples apart.

    Parameters
    ----------
    X : ndarray, shape (n_series, n_times)
        Standardised inside: no unit matters.
    band : int

    Returns
    -------
    D : ndarray, shape (n_series, n_series)
    """
    check_count("band", band, least=0)
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or not np.isfinite(X).all():
        fail(f"X has shape {X.shape}, or is not finite", fix="give (n_series, n_times)")
    spread = X.std(axis=1, keepdims=True)
    Z = (X - X.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    n, n_times = Z.shape
    rows, columns = np.triu_indices(n, k=1)
    A, B = Z[rows], Z[columns]
    # All pairs at once; row i of the table, with an edge of infinity on its left.
    before = np.full((len(A), n_times + 1), np.inf)
    before[:, 0] = 0.0
    for i in range(n_times):
        now = np.full_like(before, np.inf)
        for j in range(max(0, i - band), min(n_times, i + band + 1)):
            best = np.minimum(np.minimum(before[:, j], before[:, j + 1]), now[:, j])
            now[:, j + 1] = np.abs(A[:, i] - B[:, j]) + best
        before = now
    D = np.zeros((n, n))
    D[rows, columns] = D[columns, rows] = before[:, n_times]
    return D


def sparse_graph(D: NDArray, share: float = 0.15) -> NDArray:
    """Return 0 and 1: each node's nearest by distance, either way, and itself.

    Parameters
    ----------
    D : ndarray, shape (n_nodes, n_nodes)
        Distances, such as `dtw_distances` or 1 - coherence.
    share : float
        Neighbours of each node among the others; one at least.
    """
    if not 0 < check_number("share", share) <= 1:
        fail(f"share={share!r}", fix="give a number above 0, up to 1")
    n = len(D)
    D = np.asarray(D, dtype=np.float64).copy()
    np.fill_diagonal(D, np.inf)
    count = max(1, round(share * (n - 1)))
    near = np.argsort(D, axis=1, kind="stable")[:, :count]
    A = np.zeros((n, n))
    np.put_along_axis(A, near, 1.0, axis=1)
    found: NDArray = np.maximum(np.maximum(A, A.T), np.eye(n))
    return found


def fusion_graph(space: NDArray, likeness: NDArray, n_steps: int = 4) -> NDArray:
    """Return the graph of nodes at several time steps, (n_steps N, n_steps N).

    Blocks: a step with itself is the graph of electrodes in space, a step with the
    next the identity, and steps farther apart the graph of alike series.

    Parameters
    ----------
    space, likeness : ndarray, shape (n_nodes, n_nodes)
    n_steps : int

    References
    ----------
    M. Li and Z. Zhu, "Spatial-temporal fusion graph neural networks for traffic
    flow forecasting", AAAI 2021.
    """
    if np.shape(space) != np.shape(likeness) or np.ndim(space) != 2:
        fail(
            f"The graphs have shapes {np.shape(space)} and {np.shape(likeness)}",
            fix="give two of shape (n_nodes, n_nodes)",
        )
    check_count("n_steps", n_steps, least=2)
    parts = {0: np.asarray(space), 1: np.eye(len(space))}
    blocks = [
        [parts.get(abs(i - j), np.asarray(likeness)) for j in range(n_steps)]
        for i in range(n_steps)
    ]
    return np.block(blocks).astype(np.float64)


class FusionGraphLayer(nn.Module):
    """Graph products over a few time steps at once, beside a gated convolution.

    Every window of n_steps is one graph: products (A x W1) * sigmoid(A x W2), one
    after the other, the largest of their outputs, of which one inner step is kept.
    A gated convolution over time, of dilation n_steps - 1, is added.

    Parameters
    ----------
    n_in, n_out : int
        Features of a node.
    graph : Tensor or ndarray, shape (n_steps N, n_steps N)
        Of `fusion_graph`; rows are normalised to sum one.
    n_steps : int
    n_products : int

    References
    ----------
    M. Li and Z. Zhu, "Spatial-temporal fusion graph neural networks for traffic
    flow forecasting", AAAI 2021.
    """

    operator: Tensor

    def __init__(
        self,
        n_in: int,
        n_out: int,
        graph: Tensor | NDArray,
        *,
        n_steps: int = 4,
        n_products: int = 3,
    ) -> None:
        super().__init__()
        self.n_steps = check_count("n_steps", n_steps, least=2)
        check_count("n_products", n_products)
        A = torch.as_tensor(graph).to(torch.get_default_dtype())
        if A.ndim != 2 or A.shape[0] != A.shape[1] or len(A) % n_steps:
            fail(
                f"The graph has shape {tuple(A.shape)} for {n_steps} steps",
                fix="give fusion_graph's",
            )
        self.n_nodes = len(A) // n_steps
        total = A.sum(dim=1, keepdim=True)
        self.register_buffer("operator", A / torch.where(total > 0, total, 1.0))
        widths = [n_in] + [n_out] * n_products
        # Both halves of a gate at once.
        self.products = nn.ModuleList(nn.Linear(a, 2 * b) for a, b in pairwise(widths))
        self.gated = nn.Conv2d(n_in, 2 * n_out, (1, 2), dilation=(1, n_steps - 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of nodes at each window.

        Parameters
        ----------
        x : Tensor, shape (batch, n_in, n_nodes, n_times)

        Returns
        -------
        y : Tensor, shape (batch, n_out, n_nodes, n_times - n_steps + 1)
        """
        if x.shape[2] != self.n_nodes or x.shape[-1] < self.n_steps:
            fail(
                f"x has shape {tuple(x.shape)}",
                fix=f"give {self.n_nodes} nodes and {self.n_steps} steps at least",
            )
        # (batch, windows, steps * nodes, features), the steps outermost.
        h = x.unfold(3, self.n_steps, 1).permute(0, 3, 4, 2, 1).flatten(2, 3)
        outputs = []
        for product in self.products:
            value, gate = product(self.operator @ h).chunk(2, dim=-1)
            h = value * torch.sigmoid(gate)
            outputs.append(h)
        best = torch.stack(outputs).amax(dim=0)
        middle = (self.n_steps - 1) // 2
        inner = best.unflatten(2, (self.n_steps, self.n_nodes))[:, :, middle]
        value, gate = self.gated(x).chunk(2, dim=1)
        along: Tensor = torch.tanh(value) * torch.sigmoid(gate)
        return inner.permute(0, 3, 2, 1) + along
