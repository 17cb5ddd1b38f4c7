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
    """Return features of length one; those of length zero stay zero."""
    return F.normalize(features, dim=-1)


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


def margin_of(logits: Tensor, y: Tensor) -> Tensor:
    """Return z_y - max_{k != y} z_k, shape (n_trials,)."""
    own = logits.gather(1, y[:, None]).squeeze(1)
    one_hot = F.one_hot(y, logits.shape[1]).bool()
    return own - logits.masked_fill(one_hot, -torch.inf).amax(dim=1)
