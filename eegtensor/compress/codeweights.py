"""JLCM: weights as codes of small tables that are learned with the codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, fail
from eegtensor.codebook import kmeans
from eegtensor.compress._layers import Shape, bias_of, tiny
from eegtensor.compress.packed import PackedLayer

if TYPE_CHECKING:
    from eegtensor.training.protocols import TrainState


class _Lookup(torch.autograd.Function):
    """Entries of sorted tables at positions between their numbers."""

    @staticmethod
    def forward(ctx: Any, position: Tensor, table: Tensor, group: Tensor) -> Tensor:
        index = position.round().long() + group[:, None] * table.shape[1]
        ctx.save_for_backward(table, index)
        return table.flatten()[index]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        table, index = ctx.saved_tensors
        g = gradients[0]
        slope = table_slopes(table).flatten()[index]
        own = torch.zeros_like(table).flatten()
        own = own.index_add(0, index.flatten(), g.flatten())
        return g * slope, own.view_as(table), None


def table_slopes(table: Tensor) -> Tensor:
    """Return (C_{k+1} - C_{k-1}) / 2 of each code, one-sided at the ends."""
    steps = table.diff(dim=1)
    ends = steps[:, :1], steps[:, -1:]
    return torch.cat([ends[0], 0.5 * (steps[:, 1:] + steps[:, :-1]), ends[1]], dim=1)


def group_rows(rows: Tensor, n_groups: int) -> Tensor:
    """Return each row's group, int64: equal numbers of rows, by their deviation."""
    order = rows.std(dim=1, correction=0).argsort(stable=True)
    group = torch.empty_like(order)
    group[order] = torch.arange(len(rows), device=rows.device) * n_groups // len(rows)
    return group


class CodebookLayer(nn.Module):
    """A layer whose weights are entries of a table: ``w = C_g[round(m)]``.

    Rows (outputs) are grouped by their deviation; a group has one sorted table C_g,
    which starts by k-means of its weights. Positions m and tables are learned: the
    gradient of m is that of w times the slope of its table, that of an entry the sum
    over the weights that are it.

    Parameters
    ----------
    layer : Linear | Conv1d | Conv2d
    bits : int
        1 to 8.
    n_groups : int
        At most 256.
    random_state : int
        Of k-means.

    Attributes
    ----------
    position : Parameter, shape (n_out, n)
    table : Parameter, shape (n_groups, 2^bits)
    group : Tensor of int64, shape (n_out,)
    """

    group: Tensor
    last: Tensor

    def __init__(
        self, layer: nn.Module, bits: int, n_groups: int = 4, random_state: int = 0
    ) -> None:
        super().__init__()
        if check_count("bits", bits) > 8:
            fail(f"bits={bits}", fix="give 1 to 8")
        self.shape, self.bits = Shape.of(layer), bits
        weight, bias = layer.weight, bias_of(layer)
        assert isinstance(weight, Tensor)
        rows = weight.detach().flatten(1)
        n_groups = min(check_count("n_groups", n_groups), len(rows), 256)
        group = group_rows(rows, n_groups)
        tables, position = [], torch.zeros_like(rows)
        for g in range(n_groups):
            mine = group == g
            table = scalar_table(rows[mine], 2**bits, random_state)
            tables.append(table)
            position[mine] = nearest_code(rows[mine], table).to(rows)
        self.bias = None if bias is None else nn.Parameter(bias)
        self.table = nn.Parameter(torch.stack(tables))
        self.position = nn.Parameter(position)
        self.register_buffer("group", group)
        self.register_buffer("last", position.clone())

    def quantised_weight(self) -> Tensor:
        """Return the weight that the codes stand for, with gradients."""
        found: Tensor = _Lookup.apply(self.position, self.table, self.group)
        return found.view(self.shape.size)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer makes of x."""
        return self.shape.apply(x, self.quantised_weight(), self.bias)

    @torch.no_grad()
    def bound(self) -> None:
        """Let no position be further than one code from where it was, and sort tables.

        To be called after each step of an optimizer.
        """
        step = (self.position - self.last).clamp(-1.0, 1.0)
        self.position.copy_((self.last + step).clamp(0.0, 2.0**self.bits - 1))
        order = self.table.argsort(dim=1, stable=True)
        if not bool((order.diff(dim=1) == 1).all()):
            rank = order.argsort(dim=1)
            self.table.copy_(self.table.gather(1, order))
            code = self.position.round()
            moved = rank[self.group].gather(1, code.long()).to(code)
            self.position.add_(moved - code)
        self.last.copy_(self.position)

    @torch.no_grad()
    def packed(self) -> PackedLayer:
        """Return the layer with so many bits a weight, and its tables."""
        n_groups = len(self.table)
        new = PackedLayer(
            self.shape,
            "codebook",
            self.bits,
            bias=self.bias is not None,
            n_groups=n_groups,
        )
        return new.fill(
            self.position.round().long(),
            self.bias,
            table=self.table,
            group=self.group.to(torch.uint8),
        )


def scalar_table(values: Tensor, n_codes: int, random_state: int = 0) -> Tensor:
    """Return the sorted table of k-means of numbers, shape (n_codes,).

    Few different numbers are all in it, so that nothing is lost.
    """
    distinct = values.unique()
    if len(distinct) <= n_codes:
        rest = distinct[-1:].expand(n_codes - len(distinct))
        return torch.cat([distinct, rest])
    # Volts are small: k-means sees numbers of size one.
    unit = values.abs().max().clamp_min(tiny(values))
    found = kmeans(
        (values / unit).reshape(-1, 1), n_codes, max_iter=60, random_state=random_state
    )
    codes = found.codes
    assert isinstance(codes, Tensor)
    return codes[:, 0].to(values).sort().values * unit


def nearest_code(values: Tensor, table: Tensor) -> Tensor:
    """Return the number of the entry of a sorted table nearest to each value."""
    middles = (table[1:] + table[:-1]) / 2
    return torch.bucketize(values, middles)


class OneCodeAStep:
    """A callback of `train`: after each step, `CodebookLayer.bound` of every layer."""

    def on_step_end(self, state: TrainState) -> None:
        """Bound the step of every layer."""
        for module in state.model.modules():
            if isinstance(module, CodebookLayer):
                module.bound()
