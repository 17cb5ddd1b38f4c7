"""Learning from the responses of bags of trials: means, or proportions of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_number, fail
from eegtensor.training.batch import Batch, labels_of

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext
    from eegtensor.training.registry import Setup


class AggregateResponses:
    """A loss of bags: blocks or sessions of which only the mean response is known.

    With response r_b of a bag and outputs f_i: sum over trials of (r_b - mean of f in
    b)^2 + rho (f_i - mean of f in b)^2. rho = 0 is the loss of bags; at rho = 1 it is
    exactly that of giving every trial its bag's response. For classes: cross
    entropy of the bag's proportions with its mean probabilities, and the variance
    of logits. A scalar, divided by the number of trials.

    Bags are the domains of the batch, or what `bags` says. Of a bag that is only
    partly in a batch the outputs of its part stand for it: the sampler
    "domain-balanced" can keep them whole.

    Targets ``batch.y`` are floats of shape (n_trials,), each trial with its bag's
    mean response, or (n_trials, n_classes), with its bag's proportions. Of class
    codes only their proportions are looked at, of which -1 is left out: in the whole
    bag by the name ``"aggregate"``, else in the batch.

    Parameters
    ----------
    rho : float
        0 to 0.3 as a rule: in between both variance and bias are small.
    bags : Tensor of int64, shape (n_train,) | None
        Bag of each trial of the training set.
    shares : Tensor, shape (n_train, n_classes) | None
        Proportions of the bag of each trial of the training set.

    References
    ----------
    "Learning from aggregate responses: instance level versus bag level loss
    functions", ICLR 2024.
    """

    per_trial = False

    def __init__(
        self,
        rho: float = 0.1,
        bags: Tensor | None = None,
        shares: Tensor | None = None,
    ) -> None:
        self.rho = check_number("rho", rho, least=0.0)
        self.bags = bags
        self.shares = shares

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> AggregateResponses:
        """Return the objective of a run's trials, whose domains are bags."""
        data = setup.data
        if data.y is None or data.y.is_floating_point() or data.domain is None:
            return cls(**options)
        counts = torch.zeros(int(data.domain.max()) + 2, setup.n_classes)
        counts = counts.to(data.device).index_put_(
            (data.domain, data.y.clamp_min(0)), (data.y >= 0).float(), accumulate=True
        )
        shares = counts / counts.sum(dim=1, keepdim=True).clamp_min(1.0)
        return cls(**{"shares": shares[data.domain]} | options)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of the batch, a scalar."""
        y = labels_of(batch, "AggregateResponses")
        mixing = bag_means(self._bag(batch))
        if y.is_floating_point() and y.ndim == 1:
            f = outputs.reshape(len(y), -1)
            if f.shape[1] != 1:
                fail(
                    f"{f.shape[1]} outputs a trial for one response",
                    fix="give proportions of the classes, or a network of one output",
                )
            mean = mixing.to(f) @ f
            bag = (y.to(f) - mean[:, 0]).square().sum()
            return (bag + self.rho * (f - mean).square().sum()) / len(y)
        # Trials that are only evaluated are not those of the training set.
        if (
            self.shares is not None
            and batch.index is not None
            and outputs.requires_grad
        ):
            self.shares = self.shares.to(batch.device)
            y = self.shares[batch.index]
        if not y.is_floating_point():
            known = (y >= 0).to(outputs)
            counts = F.one_hot(y.clamp_min(0), outputs.shape[1]) * known[:, None]
            share = mixing.to(outputs) @ counts.to(outputs)
            # A bag without labels keeps shares of zero: it has no loss of bags.
            y = share / share.sum(dim=1, keepdim=True).clamp_min(1e-12)
        mean_p = mixing.to(outputs) @ outputs.softmax(dim=1)
        tiny = torch.finfo(outputs.dtype).tiny
        bag = -(y.to(outputs) * mean_p.clamp_min(tiny).log()).sum()
        spread = (outputs - mixing.to(outputs) @ outputs).square().sum()
        return (bag + self.rho * spread) / len(y)

    def _bag(self, batch: Batch) -> Tensor:
        if self.bags is not None:
            if batch.index is None:
                fail("The trials of a batch have no index to find their bags by")
            self.bags = self.bags.to(batch.device)
            return self.bags[batch.index]
        if batch.domain is None:
            fail(
                "AggregateResponses does not know the bags of trials",
                fix="give bags, or trials with domains",
            )
        return batch.domain


def bag_means(bag: Tensor) -> Tensor:
    """Return the matrix that gives each trial the mean of its bag, (n, n) float64.

    Parameters
    ----------
    bag : Tensor of int64, shape (n,)
    """
    alike = (bag[:, None] == bag[None, :]).double()
    return alike / alike.sum(dim=1, keepdim=True)
