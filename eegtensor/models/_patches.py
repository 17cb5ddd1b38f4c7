"""Transformers on patches of one second: what both published tokenizers are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from eegtensor._check import fail
from eegtensor.models._base import as_generator


class Size(NamedTuple):
    """Sizes of a network.

    Attributes
    ----------
    width, n_heads : int
        Of the transformers.
    depth, decoder_depth : int
        Blocks.
    dim, n_codes, n_levels : int
        Of the quantisers.
    """

    width: int
    n_heads: int
    depth: int
    decoder_depth: int
    dim: int
    n_codes: int
    n_levels: int


class TemporalFront(nn.Module):
    """Convolutions in time inside a patch, each with a group norm and GELU.

    Parameters
    ----------
    kernels : sequence of int
        Odd, one a stage.
    strides, pools : sequence of int
        Of each stage's convolution, and of the mean that follows it.
    n_filters, n_groups : int
    local : bool
        Whether a group norm has the statistics of its patch alone; as published it
        has those of all patches of the sample.
    """

    def __init__(
        self,
        kernels: Sequence[int],
        *,
        strides: Sequence[int] | None = None,
        pools: Sequence[int] | None = None,
        n_filters: int = 8,
        n_groups: int = 4,
        local: bool = True,
    ) -> None:
        super().__init__()
        strides = strides or [1] * len(kernels)
        self.pools = tuple(pools or [1] * len(kernels))
        self.local = local
        self.convs = nn.ModuleList(
            nn.Conv2d(
                1 if i == 0 else n_filters,
                n_filters,
                (1, kernel),
                stride=(1, stride),
                padding=(0, kernel // 2),
            )
            for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(n_groups, n_filters) for _ in kernels)

    def forward(self, patches: Tensor) -> Tensor:
        """Return features of patches, (batch, n_patches, n_features), time-major.

        Parameters
        ----------
        patches : Tensor, shape (batch, n_patches, n_patch_times)
        """
        batch, n_patches, n_times = patches.shape
        shape = (-1, 1, 1, n_times) if self.local else (batch, 1, n_patches, n_times)
        x = patches.reshape(shape)
        for conv, norm, pool in zip(self.convs, self.norms, self.pools, strict=True):
            x = gelu(norm(conv(x)))
            if pool > 1:
                x = x.unflatten(-1, (-1, pool)).mean(dim=-1)
        return x.permute(0, 2, 3, 1).reshape(batch, n_patches, -1)


class Block(nn.Module):
    """Attention and two linear layers, each after a layer norm.

    Parameters
    ----------
    width, n_heads : int
    qk_norm : bool
        Whether queries and keys get a layer norm a head.
    eps : float
        Of the layer norms before attention and linear layers.
    """

    def __init__(self, width: int, n_heads: int, *, qk_norm: bool, eps: float) -> None:
        super().__init__()
        if width % n_heads:
            fail(f"width={width} for {n_heads} heads", fix="give a multiple of heads")
        self.n_heads, size = n_heads, width // n_heads
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.q_norm = nn.LayerNorm(size, eps=1e-6) if qk_norm else None
        self.k_norm = nn.LayerNorm(size, eps=1e-6) if qk_norm else None
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp1 = nn.Linear(width, 4 * width)
        self.mlp2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (batch, n_tokens, width) after one block."""
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        q, k, v = (
            part.unflatten(-1, (self.n_heads, -1)).transpose(-3, -2)
            for part in (q + self.q_bias, k, v + self.v_bias)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        mixed = scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(-3, -2).flatten(-2))
        hidden: Tensor = self.mlp2(gelu(self.mlp1(self.norm2(x))))
        return x + hidden


class PatchTransformer(nn.Module):
    """Blocks on patches that know their channel and their second.

    Parameters
    ----------
    width, depth, n_heads : int
    n_places, n_seconds : int
        Rows of the tables of channels and of seconds.
    qk_norm : bool
    eps : float
    first_place : int
        Row of the first channel.
    class_place : int | None
        Row that is added to the class token, whose output nobody reads.
    right : bool
        Whether the last patch has the last row of the seconds, or the first the
        first.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        n_heads: int,
        *,
        n_places: int,
        n_seconds: int,
        qk_norm: bool,
        eps: float,
        first_place: int,
        class_place: int | None,
        right: bool,
    ) -> None:
        super().__init__()
        self.first_place, self.class_place, self.right = first_place, class_place, right
        self.class_token = nn.Parameter(torch.zeros(width))
        self.places = nn.Parameter(torch.zeros(n_places, width))
        self.seconds = nn.Parameter(torch.zeros(n_seconds, width))
        self.blocks = nn.ModuleList(
            Block(width, n_heads, qk_norm=qk_norm, eps=eps) for _ in range(depth)
        )

    def forward(self, x: Tensor, places: Tensor, *, alone: bool = False) -> Tensor:
        """Return the tokens after all blocks, as they were given.

        Parameters
        ----------
        x : Tensor, shape (n_branches, batch, n_channels, n_patches, width)
        places : Tensor of int64, shape (batch, n_channels)
        alone : bool
            Whether a patch attends to its own branches only, and is the last
            second, instead of each branch to all patches of the sample.
        """
        n = x.shape[3]
        rows = self.places[places + self.first_place]
        n_rows = 1 if alone else n
        start = len(self.seconds) - n_rows if self.right else 0
        seconds = self.seconds[start : start + n_rows]
        x = x + rows[None, :, :, None] + seconds
        first: Tensor = self.class_token
        if self.class_place is not None:
            first = first + self.places[self.class_place]
        # Sequences: a patch's branches, or a branch's patches.
        tokens = (
            x.flatten(1, 3).transpose(0, 1) if alone else x.flatten(2, 3).flatten(0, 1)
        )
        tokens = torch.cat([first.expand(len(tokens), 1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        tokens = tokens[:, 1:]
        if alone:
            return tokens.transpose(0, 1).reshape(x.shape)
        return tokens.reshape(x.shape)


@torch.no_grad()
def draw_weights(module: nn.Module, generator: torch.Generator | None) -> None:
    """Draw all weights: normal cut at two deviations of 0.02, biases zero.

    What a block adds to its tokens is divided by sqrt(2 l), l its place from 1.
    """
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            nn.init.trunc_normal_(part.weight, std=0.02, generator=generator)
            if part.bias is not None:
                part.bias.zero_()
        elif isinstance(part, PatchTransformer):
            for table in (part.class_token, part.places, part.seconds):
                nn.init.trunc_normal_(table, std=0.02, generator=generator)
    for part in module.modules():
        if isinstance(part, PatchTransformer):
            for place, block in enumerate(part.blocks, start=1):
                assert isinstance(block, Block)
                block.out.weight /= math.sqrt(2 * place)
                block.mlp2.weight /= math.sqrt(2 * place)


def check_patch(n_patch_times: int) -> None:
    """Raise unless patches can be cut into eighths."""
    if n_patch_times < 8 or n_patch_times % 8:
        fail(
            f"n_patch_times={n_patch_times!r}",
            why="The temporal front gives one step for eight samples",
            fix="give a multiple of 8, such as 200",
        )


def own_generator(random_state: int | torch.Generator | None) -> torch.Generator:
    """Return a generator that draws weights without touching torch's own.

    None takes a fresh seed from torch's.
    """
    if random_state is None:
        random_state = int(torch.randint(2**62, ()))
    found = as_generator(random_state)
    assert found is not None
    return found
