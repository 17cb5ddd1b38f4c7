"""Gradients and Hessians of the head that agree across domains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.training.batch import Batch, labels_of
from eegtensor.training.objectives.headmoments import (
    HeadMoments,
    check_linear,
    head_moments,
)

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext

ESTIMATORS = ("hgp", "diagonal", "hutchinson")


class HessianAlignment:
    """Distances of each domain's head gradient and Hessian from the mean's.

    A penalty to be added to cross entropy: the mean over the domains e of the batch

        alpha ||u_e - u||^2 + beta ||g_e - g||^2

    with g_e the gradient of the domain's cross entropy with respect to the linear
    head, u_e what stands for its Hessian H_e, and u and g those of the mean of the
    domains' losses, held fixed. For a softmax head all of these have closed forms:
    nothing is differentiated twice.

    Parameters
    ----------
    alpha, beta : float
        The published ones; usual ranges are 1e-5 to 1e-3 and 1e-3 to 1e-1.
    estimator : "hgp" | "diagonal" | "hutchinson"
        "hgp": H_e g_e (the Hessian-gradient product, ``||g|| grad ||g||``).
        "diagonal": the diagonal of H_e, exactly. "hutchinson": the published
        estimate of that diagonal from random signs.
    n_probes : int
        Random vectors of "hutchinson" (published: 300).
    start : float
        Share of the epochs before the penalty begins.

    Raises
    ------
    EEGTensorError
        If an option is unknown or out of range, or the batch has no domains.

    References
    ----------
    S. Hemati, G. Zhang, A. Estiri and X. Chen, "Understanding Hessian alignment
    for domain generalization", ICCV 2023.
    """

    per_trial = False
    training_only = True
    needs = ("features",)

    def __init__(
        self,
        alpha: float = 1e-4,
        beta: float = 5e-3,
        estimator: str = "hgp",
        n_probes: int = 50,
        start: float = 0.2,
    ) -> None:
        self.alpha = check_number("alpha", alpha, least=0.0)
        self.beta = check_number("beta", beta, least=0.0)
        self.start = check_number("start", start, least=0.0)
        if start >= 1:
            fail(f"start={start}", fix="give a share below 1")
        self.estimator = check_option("estimator", estimator, ESTIMATORS)
        self.n_probes = check_count("n_probes", n_probes)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the penalty, a scalar."""
        if context.progress < self.start:
            return outputs.new_zeros(())
        check_linear(context.network.head, "Hessian alignment")
        if batch.domain is None:
            fail(
                "Hessian alignment got trials without domains",
                fix="pass subjects and sessions to fit",
            )
        moments = head_moments(
            context.features,
            outputs,
            labels_of(batch, "Hessian alignment"),
            batch.domain,
            bias=getattr(context.network.head, "bias", None) is not None,
        )
        return self.penalty(moments, context.generator)

    def penalty(
        self, moments: HeadMoments, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the penalty of a batch of domains."""
        g, there = moments.gradient, moments.there
        mean_g = _mean(g, there).detach()
        if self.estimator == "hgp":
            u = moments.product(g)
            mean_u = _mean(moments.product(mean_g.expand_as(g)), there).detach()
        else:
            if self.estimator == "diagonal":
                u = moments.diagonal()
            else:
                u = moments.hutchinson(self.n_probes, generator)
            mean_u = _mean(u, there).detach()
        gap = (u - mean_u).square().sum((1, 2)) * self.alpha
        gap = gap + (g - mean_g).square().sum((1, 2)) * self.beta
        return _mean(gap, there)


def _mean(rows: Tensor, there: Tensor) -> Tensor:
    """Return the mean over the domains that are there."""
    weight = there / there.sum().clamp_min(1.0)
    return torch.tensordot(weight, rows, dims=1)
