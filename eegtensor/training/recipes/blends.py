"""Blends of trials to forget with trials to keep, labelled as the latter."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor._check import check_number, check_option, fail
from eegtensor.geometry import geodesic

N_MASKS = 4


class Blends(NamedTuple):
    """Trials made of two.

    Attributes
    ----------
    x : Tensor, shape (n_blends, ...)
    y : Tensor of int64, shape (n_blends,)
        The class of the trial kept.
    forgotten, kept : Tensor of int64, shape (n_blends,)
        Which trials of either side were blended.
    """

    x: Tensor
    y: Tensor
    forgotten: Tensor
    kept: Tensor


def soft_masks(shape: torch.Size | tuple[int, ...], delta: float = -0.05) -> Tensor:
    """Return four masks of a trial, in [0, 1], shape (4, *shape).

    Along time a tent that is 0 at both ends and (h - 1) / h in the middle, h being
    half the samples; along channels the same; and both turned over. Then `delta` is
    added. Channels are taken in the order given.

    Parameters
    ----------
    shape : tuple of int
        Of a trial: (n_channels, n_times) or (n_features,).
    delta : float
        Lowers the share of the trial to forget; -1 leaves nothing of it.
    """
    check_number("delta", delta, least=-1.0)
    tents = []
    for axis in (-1, -min(2, len(shape))):
        tent = _tent(shape[axis])
        for line in (tent, tent.max() - tent):
            view = [1] * len(shape)
            view[axis] = shape[axis]
            tents.append(line.view(view).expand(*shape))
    return (torch.stack(tents) + delta).clamp(0.0, 1.0)


def _tent(n: int) -> Tensor:
    half = max(n // 2, 1)
    up = torch.arange(n, dtype=torch.float64)
    return torch.minimum(up, n - 1 - up).clamp_max(half - 1) / half


def natural_blends(
    x: Tensor,
    y: Tensor,
    logits: Tensor,
    kept_x: Tensor,
    kept_y: Tensor,
    *,
    delta: float = -0.05,
    space: str = "signals",
    generator: torch.Generator | None = None,
) -> Blends:
    """Return blends of trials to forget with trials of their likeliest other classes.

    For each of the four most probable classes that are not its own (all of them where
    there are fewer), a trial to forget is blended with a drawn trial of that class:
    ``m x + (1 - m) x_kept``, each with one of four masks, drawn without repeating.
    SPD matrices are blended on their geodesic, at the mean of the mask.

    Parameters
    ----------
    x : Tensor, shape (n, ...)
        To forget.
    y : Tensor of int64, shape (n,)
    logits : Tensor, shape (n, n_classes)
        Of the network, for x.
    kept_x, kept_y : Tensor
    delta : float
        See `soft_masks`.
    space : "signals" | "spd"
        What trials are.
    generator : torch.Generator | None
        On the CPU.

    Raises
    ------
    EEGTensorError
        If no trial is kept of a class that is wanted.
    """
    check_option("space", space, ("signals", "spd"))
    n_classes = logits.shape[1]
    own = torch.nn.functional.one_hot(y, n_classes).bool()
    wrong = logits.masked_fill(own, -torch.inf).argsort(dim=1, descending=True)
    wrong = wrong[:, : min(N_MASKS, n_classes - 1)].cpu()
    pools = [(kept_y == k).nonzero()[:, 0].cpu() for k in range(n_classes)]
    missing = [k for k in wrong.unique().tolist() if not len(pools[k])]
    if missing:
        fail(
            f"No trial is kept of the classes {missing}",
            why="Trials to forget are blended with some of every other class",
            fix="keep trials of at least two classes",
        )
    n, k = wrong.shape
    order = [torch.randperm(N_MASKS, generator=generator)[:k] for _ in range(n)]
    which = torch.stack(order).flatten() if n else torch.zeros(0, dtype=torch.int64)
    drawn = torch.rand(n, k, generator=generator, dtype=torch.float64)
    sizes = torch.tensor([len(pool) for pool in pools])[wrong]
    place = (drawn * sizes).long()
    rows = [pools[c][i] for c, i in zip(wrong.flatten(), place.flatten(), strict=True)]
    kept = torch.stack(rows) if rows else torch.zeros(0, dtype=torch.int64)
    forgotten = torch.arange(n).repeat_interleave(k)
    target = wrong.flatten()
    a = x[forgotten.to(x.device)]
    b = kept_x[kept.to(kept_x.device)].to(a)
    if space == "spd":
        shares = soft_masks(x.shape[1:], delta).flatten(1).mean(1)[which]
        t = (1.0 - shares).to(a)
        mixed = geodesic(a, b, t, metric="affine-invariant")
    else:
        m = soft_masks(x.shape[1:], delta).to(a)[which.to(a.device)]
        # Exactly the trial kept where the mask is 0.
        mixed = torch.where(m == 0, b, m * a + (1.0 - m) * b)
    return Blends(mixed, target.to(y.device), forgotten, kept)
