"""What several objectives share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from eegtensor._check import fail
from eegtensor.training.batch import Batch, labels_of

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


def known_labels(batch: Batch, who: str) -> tuple[Tensor, Tensor]:
    """Return class codes, 0 where they are not known, and whether they are."""
    y = labels_of(batch, who)
    if y.is_floating_point() or y.ndim != 1:
        fail(
            f"{who} got targets of dtype {y.dtype} and shape {tuple(y.shape)}",
            fix="give class codes, int64, one a trial",
        )
    return y.clamp_min(0), y >= 0


def log_one_plus_sum(logits: Tensor, y: Tensor) -> Tensor:
    """Return log sum_k exp(z_k - z_y) = -log softmax(z)_y, shape (n_trials,)."""
    return F.cross_entropy(logits, y, reduction="none")


def unit(features: Tensor) -> Tensor:
    """Return features of length one, float32 at least; those of length zero stay."""
    # Cosines of bfloat16 are 0.004 apart: losses scale them by 10 to 40.
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    return F.normalize(wide, dim=-1)


@contextmanager
def features_kept(context: StepContext) -> Iterator[None]:
    """Put the features of the step's own pass back after further passes."""
    kept = context.network.features
    try:
        yield
    finally:
        context.network.features = kept


def same_domain(batch: Batch) -> Tensor | None:
    """Return which pairs of trials are of one domain, (n, n), or None."""
    if batch.domain is None:
        return None
    return batch.domain[:, None] == batch.domain[None, :]


class OncePerStep:
    """Which trials the passes of a step bring for the first time.

    Objectives that remember something of a trial learn it from these: a second pass
    at other weights, or on the trials of another step, is no new observation.
    """

    def __init__(self) -> None:
        self._step = 0
        self._seen: Tensor | None = None

    def begins(self, context: StepContext) -> bool:
        """Whether this is the first pass of a step; outside of a run (0) each is."""
        new = context.step == 0 or context.step != self._step
        if new:
            self._step, self._seen = context.step, None
        return new

    def take(self, batch: Batch, context: StepContext) -> Tensor:
        """Return whether each trial is new to the step, (n_trials,), and note them."""
        index = torch.arange(len(batch)) if batch.index is None else batch.index
        index = index.to(batch.device)
        new = torch.ones_like(index, dtype=torch.bool)
        if context.clean is not None and context.clean.index is not None:
            new = torch.isin(index, context.clean.index)
        if self._seen is None:
            self._seen = index
        else:
            new &= ~torch.isin(index, self._seen)
            self._seen = torch.cat([self._seen, index])
        return new


def margin_of(logits: Tensor, y: Tensor) -> Tensor:
    """Return z_y - max_{k != y} z_k, shape (n_trials,)."""
    own = logits.gather(1, y[:, None]).squeeze(1)
    one_hot = F.one_hot(y, logits.shape[1]).bool()
    return own - logits.masked_fill(one_hot, -torch.inf).amax(dim=1)
