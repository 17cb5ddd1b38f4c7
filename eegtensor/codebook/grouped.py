"""Products of codebooks: every part of a vector has its own."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.codebook._book import Quantised, as_rows
from eegtensor.codebook.modules import ResidualQuantizer, VectorQuantizer


class GroupedQuantizer(nn.Module):
    """A quantiser of its own for every part of a vector (a product of codebooks).

    Parameters
    ----------
    dim, n_codes : int
        dim must be a multiple of n_groups.
    n_groups : int
    n_levels : int
        1: ids have shape (..., n_groups), else (..., n_groups, n_levels).
    random_state : int
    **options
        Of every group, see `VectorQuantizer` and `ResidualQuantizer`.

    Notes
    -----
    Jegou et al. 2011, "Product quantization for nearest neighbor search".
    """

    def __init__(
        self,
        dim: int,
        n_codes: int,
        n_groups: int,
        *,
        n_levels: int = 1,
        random_state: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        if n_groups < 1 or dim % n_groups:
            fail(
                f"dim={dim!r} does not split into n_groups={n_groups!r}",
                fix="give a number of groups that divides dim",
            )
        self.dim, self.n_groups, self.n_levels = dim, n_groups, n_levels
        kinds: list[nn.Module] = []
        for group in range(n_groups):
            options["random_state"] = random_state + group * n_levels
            width = dim // n_groups
            kinds.append(
                VectorQuantizer(width, n_codes, **options)
                if n_levels == 1
                else ResidualQuantizer(width, n_codes, n_levels, **options)
            )
        self.groups = nn.ModuleList(kinds)

    def forward(self, z: Tensor) -> Quantised:
        """Return codes of vectors (..., dim); usage has one entry a group and level."""
        as_rows(z, self.dim)
        parts = z.chunk(self.n_groups, dim=-1)
        found = [group(part) for group, part in zip(self.groups, parts, strict=True)]
        usages = [f.usage for f in found]
        return Quantised(
            torch.cat([f.values for f in found], dim=-1),
            torch.stack(
                [f.ids for f in found], dim=found[0].ids.ndim - (self.n_levels > 1)
            ),
            torch.stack([f.loss for f in found]).mean(),
            type(usages[0])(*(torch.cat(part) for part in zip(*usages, strict=True))),
        )

    def decode(self, ids: Tensor) -> Tensor:
        """Return the codes of ids as `forward` gave them."""
        axis = -1 if self.n_levels == 1 else -2
        if ids.ndim < -axis or ids.shape[axis] != self.n_groups:
            fail(
                f"ids have shape {tuple(ids.shape)} for {self.n_groups} groups",
                fix="decode with the module that coded",
            )
        parts = ids.unbind(dim=axis)
        return torch.cat(
            [
                cast(VectorQuantizer, group).decode(part)
                for group, part in zip(self.groups, parts, strict=True)
            ],
            dim=-1,
        )
