"""UDIM: heads that treat perturbed trials as they treat those they were made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from eegtensor._check import check_number, check_option, fail
from eegtensor.training.batch import UNLABELLED, Batch, labels_of
from eegtensor.training.objectives.headmoments import check_linear
from eegtensor.training.perturbations.moves import Move, ascent
from eegtensor.training.perturbations.places import PLACES, Trials, frozen
from eegtensor.training.perturbations.scales import units

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext
    from eegtensor.training.space import ParamSpace


class UDIM:
    """Unknown domain inconsistency minimisation: `SAM` with a term of its own.

    To be used with ``perturbation="sam"``: the step's gradient is SAM's plus
    `weight` times that of the inconsistency, alg. 1 of the paper. Trials x' of a
    domain that nobody recorded climb ``loss + rho ||gradient||``, up to O(rho^2)
    the loss at SAM's weights, so that its gradient takes two plain passes. The
    inconsistency is how the gradients of the head by single trials differ between
    x and x': half the sum of squared distances of their variances from the mean
    of the two, and the squared length of those of x', both by number of weights.
    Variances are about the mean of x; gradients of a linear head have closed forms.

    Parameters
    ----------
    weight : float
        0 is SAM.
    eps : float | None
        Length of the way to x', in units as in `VAT`; None: as there.
    rho : float
        As of SAM.
    start : float
        Share of the epochs before it begins.
    at : "auto" | "input" | "spd"
        What is perturbed.

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    Notes
    -----
    The released code normalises the gradient by x over the trials of the batch;
    here, as in the paper, it is normalised by trial. Extra passes are in evaluation
    statistics.

    References
    ----------
    S. Shin, H. Bae, B. Na, Y. Kim and I. Moon, "Unknown domain inconsistency
    minimization for domain generalization", ICLR 2024.
    """

    def __init__(
        self,
        weight: float = 0.5,
        eps: float | None = None,
        rho: float = 0.05,
        start: float = 0.2,
        at: str = "auto",
    ) -> None:
        check_number("weight", weight, least=0.0)
        check_number("rho", rho, above=0.0)
        if eps is not None:
            check_number("eps", eps, least=0.0)
        if not check_number("start", start, least=0.0) < 1:
            fail(f"start={start}", fix="give a share of the epochs below 1")
        self.weight, self.eps, self.rho, self.start = weight, eps, rho, start
        self.at = check_option("at", at, PLACES)
        self.needs = ("raw trials",) if at == "input" else ()

    def fit(self, trajectory: Sequence[Any], space: ParamSpace) -> UDIM:
        """Return itself: there is nothing to learn."""
        return self

    def __call__(
        self, gradients: dict[str, Tensor], context: StepContext
    ) -> dict[str, Tensor]:
        """Return the gradients plus those of the inconsistency."""
        if not self.weight or context.progress < self.start:
            return gradients
        check_linear(context.network.head, "UDIM")
        leaves = context.space.leaves
        batch = context.batch if context.clean is None else context.clean
        with frozen(context.model):
            d = self.unknown(context, batch)
            # Not those of the search, whose weights were moved since.
            trials = Trials(context.network, batch, self.at)
            loss = self.weight * inconsistency(trials, d, context.network.head)
            found = torch.autograd.grad(loss, [*leaves.values()], allow_unused=True)
        total = dict(gradients)
        for name, extra in zip(leaves, found, strict=True):
            if extra is not None:
                own = total.get(name)
                total[name] = extra if own is None else own + extra
        return total

    def unknown(self, context: StepContext, batch: Batch) -> Tensor:
        """Return the displacements that lead to x'."""
        space, y = context.space, labels_of(batch, "UDIM")
        trials = Trials(context.network, batch, self.at)

        def loss(trials: Trials, d: Tensor | None = None) -> Tensor:
            logits = trials.logits(d, search=True)
            # The sum: a trial's direction does not depend on how many there are.
            return cross_entropy(logits, y, reduction="sum", ignore_index=UNLABELLED)

        leaves = space.leaves
        up = torch.autograd.grad(loss(trials), [*leaves.values()], allow_unused=True)
        flat = {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(leaves.items(), up, strict=True)
        }
        move = Move(space, ascent(space, space.rgrad(flat), self.rho))
        try:
            move.apply()
            there = Trials(context.network, batch, self.at)
            d = torch.zeros_like(there.values).requires_grad_()
            direction = torch.autograd.grad(loss(there, d), d)[0]
        finally:
            move.revert()
        eps = trials.usual_distance() / 2 if self.eps is None else self.eps
        return (eps * units(direction)).to(trials.values.dtype)


def inconsistency(trials: Trials, displacement: Tensor, head: Any) -> Tensor:
    """Return how gradients of the head differ between trials and moved ones."""
    y = labels_of(trials.batch, "UDIM")
    known = (y != UNLABELLED).double()
    share = known / known.sum().clamp_min(1.0)
    parts = []
    for d in (None, displacement):
        h, logits = trials.features_and_logits(d)
        residual = logits.double().softmax(1)
        residual = residual - one_hot(y.clamp_min(0), logits.shape[1]).double()
        parts.append((h.double(), residual))
    (h, e), (h_new, e_new) = parts
    # Of every weight over trials: mean and mean square of e_k h_d, never the
    # gradients of single trials themselves.
    gap, length = [], []
    columns = [(h, h_new)]
    if getattr(head, "bias", None) is not None:
        columns.append((torch.ones_like(h[:, :1]), torch.ones_like(h[:, :1])))
    for own, new in columns:
        mean = _moment(e, own, share)
        variance = _moment(e**2, own**2, share) - mean**2
        other = _moment(e_new**2, new**2, share)
        other = other - 2 * mean * _moment(e_new, new, share) + mean**2
        # Each is half of their difference away from the mean of the two.
        gap.append(((variance - other) / 2).flatten())
        squares = (e_new**2).sum(1) * (new**2).sum(1)
        length.append((share * squares).sum() / mean.numel())
    return torch.cat(gap).square().mean() + torch.stack(length).sum()


def _moment(e: Tensor, h: Tensor, share: Tensor) -> Tensor:
    """Return the mean over trials of e_k h_d."""
    return torch.einsum("n,nk,nd->kd", share, e, h)
