"""A codebook that learns from batches: the state behind the quantiser modules."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.codebook._learning import (
    batch_sums,
    fill_unused,
    first_codes,
    is_distributed,
    moved_codes,
    revived,
    turned_codes,
)
from eegtensor.codebook.lookup import (
    Codes,
    directions,
    is_traced,
    prepare_codes,
    search,
)
from eegtensor.codebook.usage import Usage, code_usage
from eegtensor.geometry._bridge import floating


class Quantised(NamedTuple):
    """What a quantiser returns.

    Attributes
    ----------
    values : Tensor, shape (..., dim)
        The codes, with a gradient that passes to the input.
    ids : Tensor of int64, shape (...), (..., n_levels) or (..., n_groups)
        -1 where quantiser dropout left a level out.
    loss : Tensor, shape ()
        To be added to the loss of the network, in squared units of the input.
    usage : Usage | None
        Of this batch, one entry a level (or a group). None if there are too many
        codes to count.
    """

    values: Tensor
    ids: Tensor
    loss: Tensor
    usage: Usage | None


class CodeBook(nn.Module):
    """Base of `VectorQuantizer`: a table, its counts, and how both learn."""

    codes: Tensor
    counts: Tensor
    n_batches: Tensor

    def __init__(
        self,
        dim: int,
        n_codes: int,
        *,
        update: str,
        cosine: bool,
        unit: bool,
        decay: float,
        commitment: float,
        revive: float,
        start: str,
        simvq: bool,
        synchronise: bool,
        random_state: int,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        if dim < 1 or n_codes < 1:
            fail(f"dim={dim!r}, n_codes={n_codes!r}", fix="give at least one of each")
        if not 0 <= decay < 1 or commitment < 0 or revive < 0:
            fail(
                f"decay={decay!r}, commitment={commitment!r}, revive={revive!r}",
                fix="give a decay from 0 to below 1, and the others 0 or more",
            )
        check_option("update", update, ("ema", "gradient"))
        check_option("start", start, ("kmeans", "sample", "random"))
        if simvq and update != "gradient":
            fail(
                "simvq=True with update='ema'",
                why="SimVQ learns a linear map of a frozen table, by its gradient",
                fix="give update='gradient'",
            )
        if unit and (simvq or update != "ema"):
            fail("unit=True is a rule for update='ema'", fix="give update='ema'")
        self.dim, self.n_codes, self.update = dim, n_codes, update
        self.cosine, self.unit, self.decay = cosine or unit, unit, decay
        self.commitment, self.revive, self.start = commitment, revive, start
        self.synchronise, self.random_state = synchronise, random_state
        draw = torch.Generator().manual_seed(random_state)
        kind: Any = {"device": device, "dtype": dtype or torch.get_default_dtype()}
        codes = torch.randn(n_codes, dim, generator=draw) / dim**0.5
        codes = (directions(codes) if unit else codes).to(**kind)
        if update == "gradient" and not simvq:
            self.codes = nn.Parameter(codes)
        else:
            self.register_buffer("codes", codes)
        self.mixing = nn.Linear(dim, dim, bias=False, **kind) if simvq else None
        if self.mixing is not None:
            nn.init.eye_(self.mixing.weight)
        self.register_buffer("counts", torch.zeros(n_codes, **kind))
        self.register_buffer(
            "n_batches", torch.zeros((), dtype=torch.int64, device=device)
        )
        # What n_batches says, without asking the device; None: ask once.
        self._seen: int | None = 0
        self._prepared: tuple[list[tuple[int, int]], list[Tensor], Codes] | None = None

    @property
    def table(self) -> Tensor:
        """The codes as they are used, shape (n_codes, dim)."""
        return self.codes if self.mixing is None else self.mixing(self.codes)

    def batches_seen(self) -> int:
        """Return how many batches the codes learned from."""
        if self._seen is None:
            self._seen = int(self.n_batches)
        return self._seen

    def code(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return codes (without gradient), ids, loss and the batch's counts.

        Parameters
        ----------
        rows : Tensor, shape (n, dim)

        Notes
        -----
        In training the codes learn from the rows.
        """
        if self.unit:
            rows = directions(rows)
        learns = self.training and rows.shape[0] > 0
        if self.training and not learns and self.synchronise and is_distributed():
            fail(
                "a batch without vectors in data-parallel training",
                why="The other processes wait for what it adds to the codes",
                fix="give every process vectors at every step",
            )
        if learns:
            self._before(rows.detach())
        table = self.table
        ids = search(rows.detach(), self._codes(table))
        chosen = table[ids]
        loss = self.commitment * gap(rows, chosen.detach())
        if self.update == "gradient":
            loss = loss + gap(chosen, rows.detach())
        if learns:
            counts = self._after(rows.detach(), ids)
        else:
            counts = rows.new_zeros(self.n_codes).index_add_(
                0, ids, rows.new_ones(rows.shape[0])
            )
        return chosen.detach(), ids, loss, counts

    @torch.no_grad()
    def use_all_codes(self, rows: Tensor) -> Tensor:
        """Move codes that vectors (n, dim) do not use; return each vector's code.

        For the end of training, with a large part of its vectors: an unused code gets
        the worst coded one, so that the error falls. Not with simvq=True.
        """
        if self.mixing is not None:
            fail("simvq=True has no codes of its own", fix="give simvq=False")
        rows = (directions(rows) if self.unit else rows).to(self.codes.dtype)
        codes, ids, moved = fill_unused(self.codes, rows, cosine=self.cosine)
        self.codes.copy_(codes)
        self.counts.copy_(torch.where(moved, self.counts.mean(), self.counts))
        return codes[ids]

    def _codes(self, table: Tensor) -> Codes:
        """Return the table prepared; in evaluation kept from call to call."""
        table = table.detach()
        if self.training or is_traced() or self.codes.is_inference():
            return prepare_codes(table, cosine=self.cosine)
        held = [self.codes, *([] if self.mixing is None else [self.mixing.weight])]
        # The tensors themselves, too: functional_call puts others in their place.
        version = [(id(tensor), tensor._version) for tensor in held]
        if self._prepared is None or self._prepared[0] != version:
            ready = prepare_codes(table, cosine=self.cosine)
            self._prepared = (version, held, ready)
        return self._prepared[2]

    @torch.no_grad()
    def _before(self, rows: Tensor) -> None:
        """Fit the codes on the first batch; later put new ones for dead ones."""
        seen = self.batches_seen()
        draw = torch.Generator(rows.device)
        draw.manual_seed(self.random_state + 1_000_003 * (seen + 1))
        rows = rows.to(self.codes.dtype)
        if seen == 0 and self.start != "random":
            found = first_codes(
                rows,
                self.n_codes,
                self.start,
                cosine=self.cosine,
                generator=draw,
                together=self.synchronise,
            )
        elif seen > 0 and self.revive > 0 and self.mixing is None:
            found = revived(
                self.codes,
                self.counts,
                rows,
                self.revive,
                draw,
                together=self.synchronise,
            )
        else:
            return
        self.codes.copy_(directions(found[0]) if self.unit else found[0])
        self.counts.copy_(found[1])

    @torch.no_grad()
    def _after(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Move codes and counts by a batch; return its counts."""
        batch = batch_sums(
            rows.to(self.codes.dtype), ids, self.n_codes, together=self.synchronise
        )
        seen = self.batches_seen()
        # Until the running mean is as long as it gets, all batches weigh alike.
        decay = self.decay if self.unit else min(self.decay, (seen + 1) / (seen + 2))
        moved, counts = moved_codes(self.codes, self.counts, batch, decay)
        if self.unit:
            moved = turned_codes(self.codes, batch, self.decay)
        if self.update == "ema":
            self.codes.copy_(moved)
        self.counts.copy_(counts)
        self.n_batches += 1
        self._seen = seen + 1
        return batch[0]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._seen = self._prepared = None

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._prepared = None
        return super()._apply(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation."""
        self._prepared = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prepared": None}

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"dim={self.dim}, n_codes={self.n_codes}, update={self.update!r}"


def batch_usage(counts: Tensor) -> Usage:
    """Return how the codes of a batch are used, from (n_levels, n_codes) counts."""
    found: Usage = code_usage(counts.detach())
    return found


def as_rows(z: Tensor, dim: int) -> Tensor:
    """Return vectors (..., dim) as (n, dim), float32 or float64."""
    if z.ndim < 1 or z.shape[-1] != dim:
        fail(
            f"vectors have shape {tuple(z.shape)}, the quantiser has dim={dim}",
            fix=f"give vectors of shape (..., {dim})",
        )
    return floating(z).reshape(-1, dim)


def as_input(values: Tensor, z: Tensor) -> Tensor:
    """Return values (n, dim) in the shape of z, and its dtype if that has digits."""
    shaped = values.view(z.shape)
    return shaped.to(z.dtype) if z.dtype.is_floating_point else shaped


def gap(one: Tensor, two: Tensor) -> Tensor:
    """Return the mean squared difference, 0 where there is nothing."""
    return (one - two).square().sum() / torch.sym_max(one.numel(), 1)


def full_precision(z: Tensor) -> torch.autocast:
    """Return a context without autocast: distances need all their digits."""
    return torch.autocast(z.device.type, enabled=False)
