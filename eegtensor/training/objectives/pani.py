"""Smoothness towards the nearest patches of other trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eegtensor._check import check_count, check_number, fail
from eegtensor.training.batch import Batch
from eegtensor.training.objectives.vat import VAT, divergence
from eegtensor.training.perturbations.neighbours import PatchNeighbours
from eegtensor.training.perturbations.places import Trials, frozen
from eegtensor.training.perturbations.scales import units

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class Pani(VAT):
    """Patch-level neighbourhood interpolation, its VAT form, one loss a trial.

    Each patch p of a trial moves to ``p + sum_k eta_k (p_k - p)``, p_k its nearest
    patches of other trials of the domain, and the eta of a trial are those that
    change its prediction most, found as the direction in `VAT`. So perturbations
    stay among signals that exist.

    Parameters
    ----------
    eps : float
        Root mean square over patches of the length of eta.
    patch : int
        Samples of a patch; it has all channels. Inputs without times, and SPD
        matrices in their tangent space, are one patch.
    n_neighbours : int
    candidates : float
        Share of the trials, the nearest ones, that patches are looked for in.
    weight, entropy, ramp, xi, n_iter, at
        As in `VAT`.

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    References
    ----------
    K. Sun, B. Yu, Z. Lin and Z. Zhu, "Patch-level neighborhood interpolation: a
    general and effective graph-based regularization strategy", ACML 2023.
    """

    def __init__(
        self,
        eps: float = 0.3,
        patch: int = 32,
        n_neighbours: int = 10,
        candidates: float = 0.5,
        weight: float = 0.3,
        entropy: float = 0.3,
        ramp: int = 100,
        xi: float = 1e-2,
        n_iter: int = 1,
        at: str = "auto",
    ) -> None:
        super().__init__(eps, weight, entropy, ramp, xi, n_iter, at)
        if eps is None:
            fail("eps=None", why="Eta has no usual length", fix="give a number, as 0.3")
        self.patch = check_count("patch", patch)
        self.n_neighbours = check_count("n_neighbours", n_neighbours)
        self.candidates = check_number("candidates", candidates, above=0.0)
        if candidates > 1:
            fail(f"candidates={candidates}", fix="give a share up to 1")

    def smoothness(self, context: StepContext, batch: Batch) -> Tensor:
        """Return the divergence of each trial, shape (n_trials,)."""
        assert self.eps is not None
        with frozen(context.model):
            trials = Trials(context.network, batch, self.at)
            near = PatchNeighbours(
                trials.coordinates().view_as(trials.values).to(trials.values.dtype),
                batch.domain,
                patch=self.patch if trials.at == "input" else None,
                n_neighbours=self.n_neighbours,
                candidates=self.candidates,
            )
            with torch.no_grad():
                before = trials.logits().log_softmax(1)
            eta = torch.randn(
                near.shape,
                dtype=trials.values.dtype,
                device=trials.values.device,
                generator=context.generator,
            )
            for _ in range(self.n_iter):
                eta = (self.xi * units(eta)).requires_grad_()
                moved = trials.logits(near.displacement(eta), search=True)
                change = divergence(before, moved).sum()
                eta = torch.autograd.grad(change, eta)[0]
            eta = self.eps * near.shape[1] ** 0.5 * units(eta).detach()
            return divergence(before, trials.logits(near.displacement(eta)))
