"""The groups (domains) of a batch as an axis, the same on every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor.geometry.spectral import _eager_cpu

Reduce = Callable[[Tensor], Tensor]


class Groups(NamedTuple):
    """Which group each trial of a batch belongs to.

    Sums over groups are products with a one-hot matrix, and so are the
    gradients of `spread`: the same bits every time, on a GPU, too.

    Attributes
    ----------
    slot : Tensor of int64, shape (b,)
        Position of each trial's group on the axis of groups.
    member : Tensor of float64, shape (K, b)
        One where a trial belongs to a group, else zero.
    share : Tensor of float64, shape (K, b)
        Weights; over all processes they sum to one for each group with trials.
    present : Tensor of bool, shape (K,), or None
        Groups with trials; None where every group has some.
    reduce : callable or None
        Sums a tensor over processes, differentiably.
    """

    slot: Tensor
    member: Tensor
    share: Tensor
    present: Tensor | None = None
    reduce: Reduce | None = None

    def average(self, *values: Tensor) -> list[Tensor]:
        """Return the weighted mean of each value over each group, float64.

        Parameters
        ----------
        *values : Tensor, shape (b, ...)

        Returns
        -------
        means : list of Tensor, shape (K, ...)
        """
        dtype = self.share.dtype
        flat = [self.share @ v.reshape(len(v), -1).to(dtype) for v in values]
        if self.reduce is not None:
            # One message for all: each costs more than the numbers in it.
            sizes = [f.shape[1] for f in flat]
            flat = list(self.reduce(torch.cat(flat, dim=1)).split(sizes, dim=1))
        return [
            f.view(len(self.share), *v.shape[1:])
            for f, v in zip(flat, values, strict=True)
        ]

    def spread(self, M: Tensor) -> Tensor:
        """Return the group's entry of M (K, ...) for each trial, (b, ...)."""
        # A view: its gradient is a sum, without the product.
        if M.shape[0] == 1:
            return M.expand(self.slot.shape[0], *M.shape[1:])
        if torch.compiler.is_compiling():
            return M[self.slot]
        spread: Tensor = _Spread.apply(M, self.slot, self.member)  # type: ignore[no-untyped-call]
        return spread

    def choose(self, new: Tensor, old: Tensor) -> Tensor:
        """Return `new` for groups with trials and `old` for the others, (K, ...)."""
        if self.present is None:
            return new
        wide = self.present.view(-1, *(1 for _ in new.shape[1:]))
        return torch.where(wide, new, old)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, M: Tensor, slot: Tensor, member: Tensor) -> Tensor:
        ctx.save_for_backward(member)
        return M.index_select(0, slot)

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> Any:
        (member,) = ctx.saved_tensors
        flat = member.to(G.dtype) @ G.reshape(len(G), -1)
        return flat.view(len(member), *G.shape[1:]), None, None


def group_trials(
    codes: Tensor, n_rows: int, reduce: Reduce | None = None
) -> tuple[Any, Groups]:
    """Return the rows of a table that a batch's groups are, and the groups.

    Parameters
    ----------
    codes : Tensor of int64, shape (b,)
        Row of each trial, 0 to n_rows - 1.
    n_rows : int
    reduce : callable or None
        Sums over processes; all of them get the same groups.

    Returns
    -------
    rows : Tensor of int64, shape (K,), or slice
        On the CPU the rows with trials; elsewhere, without a look, all.
    groups : Groups
    """
    every = torch.arange(n_rows, device=codes.device)
    member = (codes == every[:, None]).double()
    count = member.sum(dim=1)
    if reduce is not None:
        count = reduce(count)
    if not _eager_cpu(codes):
        share = member / count.clamp_min(1.0)[:, None]
        return slice(None), Groups(codes, member, share, count > 0, reduce)
    # Rows without trials would cost decompositions.
    rows = count.nonzero()[:, 0]
    if len(rows) < n_rows:
        every[rows] = torch.arange(len(rows))
        codes, member, count = every[codes], member[rows], count[rows]
    return rows, Groups(codes, member, member / count[:, None], None, reduce)


def look_up(codes: Tensor, n_rows: int) -> tuple[Any, Groups]:
    """Return rows of a table that hold all of `codes`, and where, without sums.

    On the CPU only the rows needed; elsewhere, without a look, all.
    """
    nothing = torch.empty(0, dtype=torch.float64, device=codes.device)
    rows: Any = slice(None)
    if n_rows > 1 and _eager_cpu(codes):
        rows, codes = torch.unique(codes, return_inverse=True)
    return rows, Groups(codes, nothing, nothing)
