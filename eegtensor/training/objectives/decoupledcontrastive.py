"""Decoupled contrastive learning: views of a trial together, in small batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, check_option
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import same_domain, unit
from eegtensor.training.objectives.views import Views

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class DecoupledContrastive:
    """DCL and DCLW of two views of every trial, one loss a trial; needs no labels.

    With unit features z, z' of the views: -w_i z_i.z'_i / t + log sum over j != i of
    exp(z_i.z_j / t) + exp(z_i.z'_j / t), averaged over which view is first. The
    positive pair is not in the denominator, so its gradient does not shrink with the
    batch. A trial with nothing to be told from has loss 0.

    Parameters
    ----------
    temperature : float
    weighted : bool
        DCLW: w_i = 2 - n softmax_i(z_i.z'_i / sigma), less for pairs that are alike.
    sigma : float
    within_domain : bool
        Whether trials are told from others of their domain only: to tell people
        apart is no use where the network must work on all of them.
    guard : int
        Trials of the same domain so near in the training set are not told apart:
        windows that overlap.
    noise, drop, amplitude : float
        Of the views, see `Views`.

    References
    ----------
    C.-H. Yeh et al., "Decoupled contrastive learning", ECCV 2022, eqs. 5 and 6.
    """

    per_trial = True
    training_only = True
    needs = ("features", "raw trials")

    def __init__(
        self,
        temperature: float = 0.1,
        weighted: bool = False,
        sigma: float = 0.5,
        within_domain: bool = True,
        guard: int = 0,
        noise: float = 0.3,
        drop: float = 0.1,
        amplitude: float = 0.1,
    ) -> None:
        self.temperature = check_number("temperature", temperature, above=0.0)
        self.sigma = check_number("sigma", sigma, above=0.0)
        self.weighted = check_option("weighted", weighted, (True, False))
        self.within_domain = check_option("within_domain", within_domain, (True, False))
        self.guard = check_count("guard", guard, least=0)
        self.views = Views(noise, drop, amplitude)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        first, second = self.views(batch, context)
        return decoupled_contrastive(
            first,
            second,
            temperature=self.temperature,
            sigma=self.sigma if self.weighted else None,
            negatives=self._negatives(batch),
        )

    def _negatives(self, batch: Batch) -> Tensor | None:
        """Return which pairs of trials are told apart, (n, n), or None for all."""
        alike = same_domain(batch)
        allowed = alike if self.within_domain else None
        if self.guard and batch.index is not None:
            near = (batch.index[:, None] - batch.index[None, :]).abs() <= self.guard
            near = near if alike is None else near & alike
            allowed = ~near if allowed is None else allowed & ~near
        return allowed


def decoupled_contrastive(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float = 0.1,
    sigma: float | None = None,
    negatives: Tensor | None = None,
) -> Tensor:
    """Return the loss of each trial, shape (n_trials,).

    Parameters
    ----------
    first, second : Tensor, shape (n_trials, n_features)
        Features of two views, of any length.
    temperature : float
    sigma : float | None
        Of the weights of DCLW; None: no weights.
    negatives : Tensor of bool, shape (n_trials, n_trials) | None
        Pairs that are told apart; all by default. A trial and itself never are.
    """
    z, other = unit(first), unit(second)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    allowed = ~itself if negatives is None else negatives & ~itself
    positive = (z * other).sum(dim=1)
    weight: Tensor | float = 1.0
    if sigma is not None:
        weight = 2.0 - len(z) * (positive.detach() / sigma).softmax(dim=0)
    none = ~allowed.any(dim=1)
    losses = []
    for a, b in ((z, other), (other, z)):
        pairs = torch.cat([a @ a.mT, a @ b.mT], dim=1) / temperature
        masked = pairs.masked_fill(~torch.cat([allowed, allowed], dim=1), -torch.inf)
        # A row of -inf alone would have a gradient that is no number.
        spread = masked.masked_fill(none[:, None], 0.0).logsumexp(dim=1)
        losses.append((spread - weight * positive / temperature).where(~none, 0.0))
    return (losses[0] + losses[1]) / 2
