"""The published quantiser of NeuroRVQ: codes of unit length for residuals of any."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from eegtensor.codebook import Quantised, ResidualQuantizer, Usage
from eegtensor.codebook._book import as_rows, batch_usage, full_precision
from eegtensor.codebook.gradients import pass_gradient


class DirectionQuantizer(ResidualQuantizer):
    """The published rule: unit codes, taken off residuals of any length.

    v = r / ||r||, c the nearest unit code, r <- r - c; the output is the sum of the
    codes, each with the gradient of the identity to its v (tokenizers.md, 1.4). The
    second half of the published loss, MSE(c, sg(r - c)), has no gradient where codes
    are running means, and is left out.
    """

    def forward(self, z: Tensor, n_levels: int | None = None) -> Quantised:
        """Return sums of unit codes for vectors (..., dim); learn in training."""
        used = self.n_levels if n_levels is None else n_levels
        with full_precision(z):
            rest = as_rows(z, self.dim)
            total, found, losses, counts = torch.zeros_like(rest), [], [], []
            for level in self._books()[:used]:
                chosen, ids, loss, count = level.code(rest)
                chosen = chosen.to(rest)
                way = normalize(rest, dim=1)
                total = total + pass_gradient(way, chosen, self.gradient)
                rest = rest - chosen
                found.append(ids)
                losses.append(loss)
                counts.append(count)
            usage = batch_usage(torch.stack(counts))
        ids = torch.stack(found, dim=-1).view(*z.shape[:-1], used)
        values = total.view(z.shape).to(z.dtype)
        return Quantised(values, ids, torch.stack(losses).mean(), usage)


def joined_usage(usages: Sequence[Usage | None]) -> Usage | None:
    """Return the usage of all branches' levels, one after the other."""
    found = [u for u in usages if u is not None]
    if len(found) < len(usages):
        return None
    return Usage(*(torch.cat(field) for field in zip(*found, strict=True)))
