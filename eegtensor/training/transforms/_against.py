"""Tangents without what is against others."""

from __future__ import annotations

import torch
from torch import Tensor

from eegtensor.training.space import ParamSpace, Tangent


def shares_against(
    space: ParamSpace, g: Tangent, m: Tangent, r: Tangent
) -> tuple[Tensor, Tensor]:
    """Return a and b such that r - a g - b m is nearest to r and against neither.

    Against: with a negative inner product to g or m. a and b are at most 0.

    Parameters
    ----------
    space : ParamSpace
    g, m, r : dict of Tensor
        Tangents at the current point.
    """
    gg, mm, gm = space.inner(g, g), space.inner(m, m), space.inner(g, m)
    rg, rm, rr = space.inner(r, g), space.inner(r, m), space.inner(r, r)
    tiny, none = torch.finfo(gg.dtype).tiny, torch.zeros_like(gg)
    # Off one of the two, where the other is then not against it; else off both.
    of_g, of_m = (
        part.clamp_max(0.0) / square.clamp_min(tiny)
        for part, square in ((rg, gg), (rm, mm))
    )
    g_alone = rm - of_g * gm >= -1e-9 * (rr * mm).sqrt()
    m_alone = rg - of_m * gm >= -1e-9 * (rr * gg).sqrt()
    left = (gg * mm - gm.square()).clamp_min(tiny)
    both = ((rg * mm - rm * gm) / left, (rm * gg - rg * gm) / left)
    return (
        torch.where(g_alone, of_g, torch.where(m_alone, none, both[0])),
        torch.where(g_alone, none, torch.where(m_alone, of_m, both[1])),
    )
