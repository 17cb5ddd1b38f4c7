"""Quantisers as modules: tables that learn while a network trains."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.codebook._book import (
    CodeBook,
    Quantised,
    as_input,
    as_rows,
    batch_usage,
    full_precision,
)
from eegtensor.codebook.gradients import GRADIENTS, pass_gradient
from eegtensor.codebook.lookup import directions, look_up


class VectorQuantizer(CodeBook):
    """A codebook that learns from the vectors it codes.

    Parameters
    ----------
    dim, n_codes : int
    update : {"ema", "gradient"}
        Codes as running means of their vectors, or as parameters of the optimiser.
    cosine : bool
        Whether a code is chosen by angle. Its size stays the mean of its vectors', so
        that what is decoded is in the unit of the input.
    unit : bool
        The published rule of LaBraM and NeuroRVQ: vectors and codes have unit norm,
        and what is coded is a direction only. For comparisons.
    decay : float
        Of the running counts and means; lower at first, so that the first
        1 / (1 - decay) batches weigh alike.
    commitment : float
        Weight of ||z - sg(c)||^2 in the loss.
    revive : float
        Vectors a batch, in the running mean, below which a code gives its place to a
        vector of the batch; at most an eighth of an even use. 0: never.
    gradient : {"straight-through", "rotation"}
        See `straight_through` and `rotate_through`.
    start : {"kmeans", "sample", "random"}
        The codes on the first training batch: k-means of it (vectors of it above
        1024 codes), vectors of it, or Gaussian whatever the batch.
    simvq : bool
        A frozen table behind one learned linear map (Zhu et al. 2024, "Addressing
        representation collapse in vector quantized models with one linear layer");
        for update="gradient", without revival.
    synchronise : bool
        Whether the processes of data-parallel training share their statistics.
    random_state : int
    device, dtype :
        Of the table.

    Attributes
    ----------
    table : Tensor, shape (n_codes, dim)
    counts : Tensor, shape (n_codes,)
        Vectors a batch of each code, running mean.

    Notes
    -----
    Nothing changes in evaluation. The running mean is that of van den Oord et al.
    2017, appendix A.1; the revival that of Zeghidour et al. 2021, "SoundStream",
    section III-C.

    Examples
    --------
    >>> import torch
    >>> quantizer = VectorQuantizer(8, 32)
    >>> out = quantizer(torch.randn(4, 100, 8))
    >>> out.ids.shape, out.usage.perplexity.shape
    (torch.Size([4, 100]), torch.Size([1]))
    """

    def __init__(
        self,
        dim: int,
        n_codes: int,
        *,
        update: str = "ema",
        cosine: bool = False,
        unit: bool = False,
        decay: float = 0.99,
        commitment: float = 0.25,
        revive: float = 2.0,
        gradient: str = "straight-through",
        start: str = "kmeans",
        simvq: bool = False,
        synchronise: bool = True,
        random_state: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            dim,
            n_codes,
            update=update,
            cosine=cosine,
            unit=unit,
            decay=decay,
            commitment=commitment,
            revive=revive,
            start=start,
            simvq=simvq,
            synchronise=synchronise,
            random_state=random_state,
            device=device,
            dtype=dtype,
        )
        self.gradient = check_option("gradient", gradient, GRADIENTS)

    def forward(self, z: Tensor) -> Quantised:
        """Return the nearest codes of vectors (..., dim); learn in training."""
        rows = as_rows(z, self.dim)
        with full_precision(z):
            chosen, ids, loss, counts = self.code(rows)
            if self.unit:
                rows = directions(rows)
            values = pass_gradient(rows, chosen.to(rows), self.gradient)
            usage = batch_usage(counts[None])
        return Quantised(as_input(values, z), ids.view(z.shape[:-1]), loss, usage)

    def decode(self, ids: Tensor) -> Tensor:
        """Return the codes of ids (...); -1 is zero."""
        return look_up(self.table, ids)


class ResidualQuantizer(nn.Module):
    """Several codebooks, each coding what those before left over.

    Parameters
    ----------
    dim, n_codes, n_levels : int
    dropout : float
        Share of training batches coded with a random number of levels, 1 to
        n_levels, so that a prefix of levels decodes well (Zeghidour et al. 2021,
        section III-C). The first batch has all.
    gradient : {"straight-through", "rotation"}
        From the sum of the codes to the input, once.
    random_state : int
    **options
        Of every level, see `VectorQuantizer`.

    Notes
    -----
    What is subtracted from a level is what was coded, in size and direction, with
    one exception: unit=True is the published rule that subtracts a unit vector
    (tokenizers.md, section 3.3).

    Examples
    --------
    >>> import torch
    >>> quantizer = ResidualQuantizer(8, 32, 3)
    >>> quantizer(torch.randn(4, 100, 8)).ids.shape
    torch.Size([4, 100, 3])
    """

    def __init__(
        self,
        dim: int,
        n_codes: int,
        n_levels: int,
        *,
        dropout: float = 0.0,
        gradient: str = "straight-through",
        random_state: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        if n_levels < 1 or not 0 <= dropout <= 1:
            fail(
                f"n_levels={n_levels!r}, dropout={dropout!r}",
                fix="give at least one level, and a dropout from 0 to 1",
            )
        self.dim, self.n_codes, self.n_levels = dim, n_codes, n_levels
        self.dropout, self.random_state = dropout, random_state
        self.gradient = check_option("gradient", gradient, GRADIENTS)
        self.levels = nn.ModuleList(
            VectorQuantizer(dim, n_codes, random_state=random_state + level, **options)
            for level in range(n_levels)
        )

    @property
    def tables(self) -> Tensor:
        """The codes, shape (n_levels, n_codes, dim); see `encode_residual`."""
        return torch.stack([level.table for level in self._books()])

    def _books(self) -> list[VectorQuantizer]:
        return [cast(VectorQuantizer, level) for level in self.levels]

    def forward(self, z: Tensor, n_levels: int | None = None) -> Quantised:
        """Return sums of codes for vectors (..., dim); learn in training.

        Parameters
        ----------
        z : Tensor, shape (..., dim)
        n_levels : int | None
            Levels to code; None: all, less what quantiser dropout leaves out.
        """
        rows = as_rows(z, self.dim)
        used = self._used() if n_levels is None else n_levels
        if not 1 <= used <= self.n_levels:
            fail(f"n_levels={n_levels!r}", fix=f"give 1 to {self.n_levels}")
        with full_precision(z):
            rest, total = rows, torch.zeros_like(rows, requires_grad=False)
            found, losses, counts = [], [], []
            for level in self._books()[:used]:
                chosen, ids, loss, count = level.code(rest)
                # Constants: the gradient comes through the sum, once.
                rest = rest - chosen
                total = total + chosen
                found.append(ids)
                losses.append(loss)
                counts.append(count)
            values = pass_gradient(rows, total.detach().to(rows), self.gradient)
            usage = batch_usage(torch.stack(counts))
        ids = torch.stack(found, dim=-1)
        ids = torch.nn.functional.pad(ids, (0, self.n_levels - used), value=-1)
        return Quantised(
            as_input(values, z),
            ids.view(*z.shape[:-1], self.n_levels),
            torch.stack(losses).mean(),
            usage,
        )

    def decode(self, ids: Tensor) -> Tensor:
        """Return sums of codes of ids (..., n_levels or fewer); -1 adds nothing."""
        if not 1 <= ids.shape[-1] <= self.n_levels:
            fail(
                f"ids have {ids.shape[-1]} levels, the module {self.n_levels}",
                fix="decode with the module that coded",
            )
        total = look_up(self._books()[0].table, ids[..., 0])
        for k, level in enumerate(self._books()[1 : ids.shape[-1]], start=1):
            total = total + look_up(level.table, ids[..., k])
        return total

    @torch.no_grad()
    def use_all_codes(self, z: Tensor) -> None:
        """Move codes that vectors (..., dim) do not use, level by level.

        See `VectorQuantizer.use_all_codes`; a level gets what those before it leave.
        """
        rest = as_rows(z, self.dim)
        with full_precision(z):
            for level in self._books():
                rest = rest - level.use_all_codes(rest).to(rest)

    def _used(self) -> int:
        """Return the levels of this batch, the same in all processes."""
        if not self.training or self.dropout == 0:
            return self.n_levels
        seen = self._books()[0].batches_seen()
        draw = torch.Generator().manual_seed(self.random_state + 7_368_787 * seen)
        drop = seen > 0 and torch.rand((), generator=draw).item() < self.dropout
        if not drop:
            return self.n_levels
        return int(torch.randint(1, self.n_levels + 1, (), generator=draw))
