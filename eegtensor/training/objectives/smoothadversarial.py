"""Smooth adversarial comp-sum loss: a margin loss with a bound on attacked trials."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import features_kept, known_labels
from eegtensor.training.objectives.compsum import comp_sum
from eegtensor.training.statistics import StatisticsGuard, evaluating

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class SmoothAdversarial:
    """Comp-sum loss plus the largest change of margins that an attack can make.

    With margins D_k(x) = z_y - z_k, k != y:
    L = Phi_tau(sum exp(-D_k / rho)) + nu max_{|d| <= eps} ||D(x + d) - D(x)||_2.
    For nu >= sqrt(K - 1) / rho the loss bounds Phi_tau(1) times the indicator
    that some attack is classified wrongly, and so does its mean the error under
    attack. The maximum is sought by projected gradient ascent of the squared
    norm, in evaluation mode.

    Where losses are only evaluated, without gradients, it is the comp-sum loss.
    Trials without a label (y = -1) have loss 0.

    Parameters
    ----------
    tau, rho : float
        As in `CompSum`.
    nu : float | None
        None: sqrt(n_classes - 1) / rho, which certifies; smaller ones do not, but
        are more accurate: of simulated trials 0.3 of it was as robust as training on
        attacked trials and no less accurate, the whole of it far less.
    eps : float
        Size of attacks, in standard deviations of each channel over the batch.
    norm : "l2" | "linf"
        Of the whole trial, or of its largest sample.
    n_steps : int
        Of the ascent, each 2.5 eps / n_steps long and at least eps / 4; 1 for
        fast training.

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    References
    ----------
    A. Mao, M. Mohri and Y. Zhong, "Cross-entropy loss functions: theoretical
    analysis and applications", ICML 2023, section 5. The constant of nu follows
    from the ramp's Lipschitz constant.
    """

    per_trial = True
    needs = ("raw trials",)

    def __init__(
        self,
        tau: float = 1.0,
        rho: float = 1.0,
        nu: float | None = None,
        eps: float = 1.0,
        norm: str = "l2",
        n_steps: int = 10,
    ) -> None:
        self.tau = check_number("tau", tau, least=0.0)
        self.rho = check_number("rho", rho, above=0.0)
        self.nu = nu if nu is None else check_number("nu", nu, least=0.0)
        self.eps = check_number("eps", eps, least=0.0)
        self.norm = check_option("norm", norm, ("l2", "linf"))
        self.n_steps = check_count("n_steps", n_steps)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, "SmoothAdversarial")
        loss = comp_sum(outputs / self.rho, y, self.tau)
        nu = self.nu
        if nu is None:
            nu = math.sqrt(outputs.shape[1] - 1) / self.rho
        if nu > 0 and self.eps > 0 and torch.is_grad_enabled():
            # Dropout off as well: masks that differ would be a change of margins.
            with (
                features_kept(context),
                StatisticsGuard(model, "eval"),
                evaluating(model),
            ):
                loss = loss + nu * self._change(batch, y, context)
        return loss.where(known, 0.0)

    def _change(self, batch: Batch, y: Tensor, context: StepContext) -> Tensor:
        """Return the norm of the largest change found, (n_trials,), with a graph."""
        if not isinstance(batch.x, Tensor):
            fail(
                f"Attacks are on one array of trials, not a {type(batch.x).__name__}",
                fix="use a network that takes the trials alone",
            )
        scale = channel_scale(batch.x)
        network = context.network
        with torch.no_grad():
            clean = margins(network(batch), y)
        d = self._project(
            torch.randn(
                batch.x.shape,
                generator=context.generator,
                dtype=batch.x.dtype,
                device=batch.x.device,
            ),
            self.eps / 10,
            fill=True,
        )
        step = self.eps * max(2.5 / self.n_steps, 0.25)
        for _ in range(self.n_steps):
            d.requires_grad_()
            moved = margins(network(replace(batch, x=batch.x + scale * d)), y)
            (up,) = torch.autograd.grad((moved - clean).square().sum(), d)
            with torch.no_grad():
                d = self._project(d + self._project(up, step, fill=True), self.eps)
        both = (network(replace(batch, x=batch.x + scale * d.detach())), network(batch))
        change = margins(both[0], y) - margins(both[1], y)
        # The root of zero has no gradient.
        return (change.square().sum(dim=1) + 1e-12).sqrt()

    @torch.no_grad()
    def _project(self, d: Tensor, radius: float, *, fill: bool = False) -> Tensor:
        """Return d inside the ball, or with `fill` its steepest step of that size."""
        if self.norm == "linf":
            return radius * d.sign() if fill else d.clamp(-radius, radius)
        rows = d.flatten(1)
        length = rows.norm(dim=1).clamp_min(torch.finfo(d.dtype).tiny)
        factor = radius / length
        factor = factor if fill else factor.clamp_max(1.0)
        return (rows * factor[:, None]).view_as(d)


def margins(logits: Tensor, y: Tensor) -> Tensor:
    """Return z_y - z_k of all classes, shape (n_trials, n_classes); 0 at k = y."""
    return logits.gather(1, y[:, None]) - logits


def channel_scale(x: Tensor) -> Tensor:
    """Return the standard deviation of each channel over trials and times.

    Parameters
    ----------
    x : Tensor, shape (n_trials, n_channels, ...)

    Returns
    -------
    scale : Tensor, shape (1, n_channels, 1, ...)
    """
    axes = [axis for axis in range(x.ndim) if axis != 1]
    return x.detach().std(dim=axes, correction=0, keepdim=True)
