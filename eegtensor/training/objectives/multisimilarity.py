"""Multi-similarity loss: features of a class together, the hard pairs first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eegtensor._check import check_number
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import known_labels, unit

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext

# Cosine above which a pair is a trial and its copy.
_SAME = 1.0 - 1e-5


class MultiSimilarity:
    """Multi-similarity loss of what enters the head, one loss a trial.

    Cosines S between the features of a batch. An anchor keeps the negatives with
    S > min positive - epsilon and the positives with S < max negative + epsilon,
    and has the loss log(1 + sum_P exp(-alpha (S - base))) / alpha
    + log(1 + sum_N exp(beta (S - base))) / beta. An anchor without a positive or a
    negative, or that keeps none, has loss 0. Batches need several trials of a class.

    Trials without a label (y = -1) are in no pair.

    Parameters
    ----------
    alpha, beta, base : float
    epsilon : float
        Width of the mining.

    References
    ----------
    X. Wang et al., "Multi-similarity loss with general pair weighting for deep metric
    learning", CVPR 2019, eqs. 11-16.
    """

    per_trial = True
    needs = ("features",)

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 40.0,
        base: float = 0.5,
        epsilon: float = 0.1,
    ) -> None:
        self.alpha = check_number("alpha", alpha, above=0.0)
        self.beta = check_number("beta", beta, above=0.0)
        self.base = check_number("base", base)
        self.epsilon = check_number("epsilon", epsilon)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial as an anchor, shape (n_trials,)."""
        y, known = known_labels(batch, "MultiSimilarity")
        return multi_similarity(
            context.features, y, known, self.alpha, self.beta, self.base, self.epsilon
        )


def multi_similarity(
    features: Tensor,
    y: Tensor,
    known: Tensor,
    alpha: float,
    beta: float,
    base: float,
    epsilon: float,
) -> Tensor:
    """Return the loss of each anchor, shape (n_trials,).

    Parameters
    ----------
    features : Tensor, shape (n_trials, n_features)
        Of any length.
    y : Tensor of int64, shape (n_trials,)
    known : Tensor of bool, shape (n_trials,)
    alpha, beta, base, epsilon : float
    """
    f = unit(features)
    S = f @ f.mT
    pairs = known[:, None] & known[None, :]
    alike = (y[:, None] == y[None, :]) & pairs
    fixed = S.detach()
    itself = torch.eye(len(y), dtype=torch.bool, device=y.device)
    positive = alike & ~itself & (fixed < _SAME)
    negative = pairs & ~alike
    hardest = fixed.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)
    nearest = fixed.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)
    kept_negative = negative & (fixed > hardest - epsilon)
    kept_positive = positive & (fixed < nearest + epsilon)
    pull = _soft_sum(-alpha * (S - base), kept_positive) / alpha
    push = _soft_sum(beta * (S - base), kept_negative) / beta
    # Without one of the two kinds no pair of the other is mined.
    mined = kept_positive.any(dim=1) & kept_negative.any(dim=1)
    return (pull + push).where(mined, 0.0)


def _soft_sum(exponents: Tensor, kept: Tensor) -> Tensor:
    """Return log(1 + sum of exp over the kept), by row."""
    masked = exponents.masked_fill(~kept, -torch.inf)
    return torch.cat([torch.zeros_like(masked[:, :1]), masked], dim=1).logsumexp(dim=1)
