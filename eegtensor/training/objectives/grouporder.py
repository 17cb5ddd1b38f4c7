"""Group ordering: views of a trial are nearer than its nearest other trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, check_option
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import same_domain, unit
from eegtensor.training.objectives.views import Views

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class GroupOrder:
    """GroCo: cosines of the negatives must sort before those of the positives.

    The largest `n_negatives` cosines of a trial to others, and that to its other
    view, pass a differentiable sorting network; its soft permutation says how likely
    each of them is among the last ranks, and the loss is the binary cross entropy
    of that to negatives first. It vanishes once the order is right by a
    margin, whatever the distance. One loss a trial, averaged over both views as
    anchors; needs no labels.

    Parameters
    ----------
    n_negatives : int
    steepness : float
        Of the comparisons, 1/2 + arctan(steepness (b - a)) / pi.
    within_domain : bool
        Whether negatives are trials of the same domain only.
    noise, drop, amplitude : float
        Of the views, see `Views`.

    References
    ----------
    N. Shvetsova et al., "Learning by sorting: self-supervised learning with group
    ordering constraints", ICCV 2023. F. Petersen et al., "Monotonic differentiable
    sorting networks", ICLR 2022 (comparisons).
    """

    per_trial = True
    training_only = True
    needs = ("features", "raw trials")

    def __init__(
        self,
        n_negatives: int = 10,
        steepness: float = 1.0,
        within_domain: bool = True,
        noise: float = 0.3,
        drop: float = 0.1,
        amplitude: float = 0.1,
    ) -> None:
        self.n_negatives = check_count("n_negatives", n_negatives)
        self.steepness = check_number("steepness", steepness, above=0.0)
        self.within_domain = check_option("within_domain", within_domain, (True, False))
        self.views = Views(noise, drop, amplitude)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        views = [unit(z) for z in self.views(batch, context)]
        allowed = same_domain(batch) if self.within_domain else None
        losses = []
        for z, other in (views, views[::-1]):
            # What a trial is compared with is held fixed, as the authors do.
            positive = (z * other.detach()).sum(dim=1, keepdim=True)
            cosine = z @ z.detach().mT
            itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
            excluded = itself if allowed is None else itself | ~allowed
            # As far away as can be, where a batch has too few others.
            cosine = cosine.masked_fill(excluded, -1.0)
            k = min(self.n_negatives, len(z) - 1)
            negative = cosine.topk(k, dim=1).values
            losses.append(group_order(positive, negative, self.steepness))
        return (losses[0] + losses[1]) / 2


def group_order(positive: Tensor, negative: Tensor, steepness: float = 1.0) -> Tensor:
    """Return the loss of each anchor, shape (n_trials,).

    Parameters
    ----------
    positive : Tensor, shape (n_trials, n_positives)
        Similarities that should be the largest.
    negative : Tensor, shape (n_trials, n_negatives)
    steepness : float
    """
    n_negative = negative.shape[1]
    values = torch.cat([negative.sort(dim=1).values, positive.sort(dim=1).values], 1)
    P = soft_sort(values, steepness)
    # How sure it is that each element is among the last ranks.
    last = P[:, n_negative:].sum(dim=1).clamp(0.0, 1.0)
    target = torch.zeros_like(last)
    target[:, n_negative:] = 1.0
    return F.binary_cross_entropy(last, target, reduction="none").mean(dim=1)


def soft_sort(values: Tensor, steepness: float) -> Tensor:
    """Return soft permutations that sort rows upwards, by an odd-even network.

    Parameters
    ----------
    values : Tensor, shape (batch, n)
    steepness : float

    Returns
    -------
    P : Tensor, shape (batch, n, n)
        Rank by element; rows and columns sum to 1. ``P @ values`` is sorted.
    """
    n = values.shape[1]
    x = values
    P = torch.eye(n, dtype=x.dtype, device=x.device).expand(len(x), n, n)
    for layer in range(n):
        low = torch.arange(layer % 2, n - 1, 2, device=x.device)
        if not len(low):
            continue
        a, b = x[:, low], x[:, low + 1]
        # How sure it is that a comes first.
        keep = 0.5 + torch.atan(steepness * (b - a)) / torch.pi
        x = _exchange(x, low, keep)
        P = _exchange(P, low, keep[:, :, None])
    return P


def _exchange(x: Tensor, low: Tensor, keep: Tensor) -> Tensor:
    """Mix the neighbours `low` and `low + 1` along axis 1."""
    a, b = x[:, low], x[:, low + 1]
    mixed = x.index_copy(1, low, keep * a + (1.0 - keep) * b)
    return mixed.index_copy(1, low + 1, (1.0 - keep) * a + keep * b)
