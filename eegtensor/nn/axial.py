"""Attention along one axis after the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Attention(nn.Module):
    """Attention among the positions of a line, after a norm."""

    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Return what positions learn of others, (n_lines, n_positions, width)."""
        parts = self.qkv(self.norm(h)).unflatten(-1, (3, self.n_heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        # Each reads itself: in a line of nothing else a softmax were 0 / 0.
        own = torch.eye(h.shape[1], dtype=torch.bool, device=h.device)
        found = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=(present[:, None] | own)[:, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return out


class AxialBlock(nn.Module):
    """Attention among the units of a frame, the frames of a unit, and a perceptron.

    Each after a norm, and added to what enters.

    Parameters
    ----------
    width, n_heads : int
    dropout : float

    References
    ----------
    Ho et al., "Axial attention in multidimensional transformers", arXiv, 2019;
    Vaswani et al., "Attention is all you need", NeurIPS, 2017.
    """

    def __init__(self, width: int, n_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.across_units = _Attention(width, n_heads, dropout)
        self.across_frames = _Attention(width, n_heads, dropout)
        self.last = nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU()
        )
        self.drop = nn.Dropout(dropout)

    @torch.no_grad()
    def start_near_mean(self, factor: float) -> None:
        """Start by adding the mean of the other units, times a factor, to each.

        What perceptron and frames add starts small. From random weights a network
        needs many hundred steps to find that neighbours tell of each other.
        """
        width = self.last.out_features
        units = self.across_units
        units.qkv.weight[2 * width :] = torch.eye(width)
        units.out.weight.copy_(factor * torch.eye(width))
        for part in (self.across_frames.out, self.last):
            part.weight.mul_(factor / 3**0.5)

    def forward(self, h: Tensor, present: Tensor) -> Tensor:
        """Return new states of positions.

        Parameters
        ----------
        h : Tensor, shape (batch, n_units, n_frames, width)
        present : Tensor of bool, shape (batch, n_units, n_frames)
            Nobody reads those that are not there.
        """
        batch, n_units, n_frames, _ = h.shape
        lines = h.transpose(1, 2).flatten(0, 1)
        told = self.across_units(lines, present.transpose(1, 2).flatten(0, 1))
        h = h + self.drop(told.unflatten(0, (batch, n_frames)).transpose(1, 2))
        told = self.across_frames(h.flatten(0, 1), present.flatten(0, 1))
        h = h + self.drop(told.unflatten(0, (batch, n_units)))
        return h + self.drop(self.last(self.mlp(h)))
