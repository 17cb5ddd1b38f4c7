"""Layers on hypergraphs of electrodes: groups of any size that speak to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail


def neighbour_hyperedges(distances: Tensor, k: int) -> Tensor:
    """Return the incidence of one hyperedge a node: itself and its k nearest.

    Parameters
    ----------
    distances : Tensor, shape (n_nodes, n_nodes)
        Of electrodes on the head, or 1 - correlation of their signals.
    k : int

    Returns
    -------
    H : Tensor, shape (n_nodes, n_nodes)
        Column e holds 1 for the members of node e's hyperedge.
    """
    n = len(distances)
    if not 0 < check_count("k", k) < n:
        fail(f"k={k} of {n} nodes", fix=f"choose 1 to {n - 1}")
    own = torch.eye(n, dtype=torch.bool, device=distances.device)
    near = distances.masked_fill(own, -torch.inf).argsort(dim=1, stable=True)
    H = torch.zeros(n, n, dtype=distances.dtype, device=distances.device)
    return H.scatter(1, near[:, : k + 1], 1.0).mT


def hypergraph_operator(H: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return A = Dv^-1/2 H W De^-1 H' Dv^-1/2, which averages over hyperedges.

    Parameters
    ----------
    H : Tensor, shape (n_nodes, n_edges)
        Incidence, from 0 up.
    weights : Tensor, shape (n_edges,) | None
        Of hyperedges; None is 1.

    Returns
    -------
    A : Tensor, shape (n_nodes, n_nodes)
        Symmetric, eigenvalues from 0 to 1. A node of no hyperedge keeps itself.

    References
    ----------
    Y. Feng et al., "Hypergraph neural networks", AAAI 2019.
    """
    if H.ndim != 2 or not (H >= 0).all():
        fail(f"H has shape {tuple(H.shape)}, or entries below 0", fix="give incidence")
    w = torch.ones(H.shape[1], dtype=H.dtype, device=H.device)
    w = w if weights is None else weights.to(H)
    size, degree = H.sum(dim=0), H @ w
    inner = torch.where(size > 0, w / torch.where(size > 0, size, 1.0), 0.0)
    alone = degree <= 0
    outer = torch.where(alone, 0.0, torch.where(alone, 1.0, degree).rsqrt())
    A = outer[:, None] * (H * inner) @ H.mT * outer
    return A + torch.diag(alone.to(A.dtype))


class HypergraphBlock(nn.Module):
    """Residual layers on a hypergraph that stay distinct however deep they are.

    Layer l: X_i = (1 - a) A X + a X_0, X <- relu((1 - b_l) X_i + b_l X_i W_l), b_l =
    log(lamda / l + 1): the first features come back in every layer, and deep layers
    are close to the identity.

    Parameters
    ----------
    width : int
        Features of a node.
    n_layers : int
    operator : Tensor, shape (n_nodes, n_nodes)
        Of `hypergraph_operator`.
    alpha, lamda : float
    dropout : float
    b : float | None
        One b for all layers; None is the schedule.

    Notes
    -----
    With W = I what is left of a component of A of eigenvalue m tends to a / (1 -
    (1 - a) m): of maps as smooth as A's hyperedges much, of white ones a^2 = 1 % of
    the variance at a = 0.1, whatever the depth.

    The released code multiplies A with X_0 and not with X, so that depth spreads
    nothing; here it is A X, as in the paper.

    References
    ----------
    J. Huang, X. Huang and J. Yang, "Residual enhanced multi-hypergraph neural
    network", ICIP 2021.
    """

    operator: Tensor

    def __init__(
        self,
        width: int,
        n_layers: int,
        operator: Tensor,
        *,
        alpha: float = 0.1,
        lamda: float = 0.5,
        dropout: float = 0.0,
        b: float | None = None,
    ) -> None:
        super().__init__()
        check_count("n_layers", n_layers)
        self.alpha = check_number("alpha", alpha, least=0.0)
        lamda = check_number("lamda", lamda, least=0.0)
        self.register_buffer("operator", operator.detach().clone())
        self.layers = nn.ModuleList(
            nn.Linear(width, width, bias=False, dtype=operator.dtype)
            for _ in range(n_layers)
        )
        self.b = [
            math.log(lamda / (i + 1) + 1) if b is None else float(b)
            for i in range(n_layers)
        ]
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of nodes, shape (..., n_nodes, width)."""
        start = x
        for layer, b in zip(self.layers, self.b, strict=True):
            mixed = (1 - self.alpha) * self.operator @ self.drop(x)
            mixed = mixed + self.alpha * start
            x = torch.relu((1 - b) * mixed + b * layer(mixed))
        return x


class MultiHypergraph(nn.Module):
    """Class log-probabilities from several hypergraphs: the mean of each one's.

    Hypergraphs of regions, bands or modalities (EEG and EOG) over the same nodes.

    Parameters
    ----------
    n_features, n_outputs : int
        Features of a node that come in, and classes.
    operators : sequence of Tensor, shape (n_nodes, n_nodes)
    width, n_layers : int
    alpha, lamda, dropout : float
        As of `HypergraphBlock`.

    References
    ----------
    J. Huang, X. Huang and J. Yang, "Residual enhanced multi-hypergraph neural
    network", ICIP 2021.
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        operators: Sequence[Tensor],
        *,
        width: int = 32,
        n_layers: int = 4,
        alpha: float = 0.1,
        lamda: float = 0.5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not operators:
            fail("operators is empty", fix="give at least one hypergraph_operator")
        dtype = operators[0].dtype
        self.enter = nn.ModuleList(
            nn.Linear(n_features, width, dtype=dtype) for _ in operators
        )
        self.blocks = nn.ModuleList(
            HypergraphBlock(
                width, n_layers, A, alpha=alpha, lamda=lamda, dropout=dropout
            )
            for A in operators
        )
        self.leave = nn.ModuleList(
            nn.Linear(width, n_outputs, dtype=dtype) for _ in operators
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return mean log-probabilities, (n_trials, n_outputs), of (n, nodes, feat.).

        They are no normalised distribution; as logits they rank the same.
        """
        parts = [
            torch.log_softmax(leave(block(torch.relu(enter(x))).mean(dim=-2)), dim=-1)
            for enter, block, leave in zip(
                self.enter, self.blocks, self.leave, strict=True
            )
        ]
        return torch.stack(parts).mean(dim=0)
