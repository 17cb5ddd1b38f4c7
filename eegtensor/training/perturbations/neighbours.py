"""Patches of trials and their nearest ones in other trials of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


class PatchNeighbours:
    """For every patch the nearest patches of other trials of its domain.

    Other domains are left out: a trial between two of them is of neither, and
    statistics are by domain.

    Parameters
    ----------
    values : Tensor, shape (n_trials, n_channels, n_times) or (n_trials, ...)
        Signals are cut along time; what has no times is one patch. Samples beyond
        whole patches stay as they are.
    domain : Tensor of int64, shape (n_trials,) | None
    patch : int | None
        Samples of a patch; None: each trial is one.
    n_neighbours : int
    candidates : float
        Share of the other trials, the nearest as a whole, that are looked into.
    allowed : Tensor of bool, shape (n_trials,) | None
        Trials whose patches may be taken.

    Attributes
    ----------
    shape : tuple
        Of coefficients: (n_trials, n_patches, n_neighbours).
    trial : Tensor of int64, that shape
        Which trial a neighbour is of.
    found : Tensor of bool, that shape
        False where there are fewer neighbours.
    """

    def __init__(
        self,
        values: Tensor,
        domain: Tensor | None,
        *,
        patch: int | None = 32,
        n_neighbours: int = 10,
        candidates: float = 0.5,
        allowed: Tensor | None = None,
    ) -> None:
        self._like = values
        cut = patch is not None and values.ndim == 3
        self._size = min(patch or 0, values.shape[-1]) if cut else 0
        self._patches = self._cut(values)
        n, n_patches, _ = self._patches.shape
        allow = ~torch.eye(n, dtype=torch.bool, device=values.device)
        if domain is not None:
            allow &= domain[:, None] == domain
        if allowed is not None:
            allow &= allowed
        flat = values.flatten(1)
        distance = torch.cdist(flat, flat).masked_fill(~allow, torch.inf)
        count = min(max(int(candidates * (n - 1)), 1), n)
        nearest = distance.topk(count, dim=1, largest=False)
        near = torch.zeros_like(allow).scatter(
            1, nearest.indices, nearest.values.isfinite()
        )
        rows = self._patches.flatten(0, 1)
        between = torch.cdist(rows, rows).view(n, n_patches, n, n_patches)
        between = between.masked_fill(~near[:, None, :, None], torch.inf).flatten(2)
        found = between.topk(min(n_neighbours, n * n_patches), dim=2, largest=False)
        self._index = found.indices
        self.found = found.values.isfinite()
        self.trial = found.indices // n_patches
        self.shape = tuple(found.indices.shape)

    def _cut(self, values: Tensor) -> Tensor:
        """Return patches, shape (n_trials, n_patches, n_entries)."""
        if not self._size:
            return values.flatten(1)[:, None]
        whole = values.shape[-1] // self._size * self._size
        pieces = values[..., :whole].unflatten(-1, (-1, self._size))
        return pieces.movedim(-2, 1).flatten(2)

    def displacement(self, eta: Tensor) -> Tensor:
        """Return what ``sum_k eta_k (p_k - p)`` moves trials by, of their shape."""
        eta = torch.where(self.found, eta, 0.0).to(self._patches.dtype)
        rows = self._patches.flatten(0, 1)
        n, n_patches, _ = self.shape
        # A matrix of coefficients, not a copy of every neighbour.
        weights = torch.zeros(n * n_patches, len(rows), dtype=rows.dtype).to(rows)
        weights = weights.scatter_add(1, self._index.flatten(0, 1), eta.flatten(0, 1))
        moved = weights @ rows - eta.sum(2).flatten()[:, None] * rows
        moved = moved.view(n, n_patches, -1)
        if not self._size:
            return moved.view_as(self._like).to(self._like.dtype)
        pieces = moved.unflatten(2, (self._like.shape[1], self._size))
        whole = pieces.movedim(1, -2).flatten(-2)
        rest = self._like.shape[-1] - whole.shape[-1]
        return torch.nn.functional.pad(whole, (0, rest)).to(self._like.dtype)
