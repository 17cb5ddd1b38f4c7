"""Adversarial regularisation along the data's manifold, and across it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from eegtensor._check import check_count, check_number, fail
from eegtensor.geometry.spectral import eigh, symmetrize
from eegtensor.training.batch import Batch
from eegtensor.training.objectives.vat import VAT, divergence
from eegtensor.training.perturbations.places import Trials, frozen
from eegtensor.training.perturbations.scales import lengths, units

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class TNAR(VAT):
    """Tangent-normal adversarial regularisation, one loss a trial.

    As `VAT`, with two perturbations: the worst one among the directions in which
    trials vary, and the worst one across them. These directions are principal
    components of the trials, or of each trial's nearest ones; of SPD matrices in
    their tangent space, where orthonormal directions are their own metric and the
    paper's autoencoder and conjugate gradients (eq. 10 to 15) are not needed.

    Parameters
    ----------
    eps : float | None
        Length of the tangent perturbation, as in `VAT`.
    eps_normal : float | None
        Length of the normal one; None: a fifth of the tangent one's, the paper's
        ratio.
    weight, weight_normal, entropy : float
    n_directions : int
        Principal components that count as tangent.
    neighbours : int | None
        Nearest trials of the batch that a trial's directions are of; None: all.
    ramp, xi, n_iter, at
        As in `VAT`.

    Raises
    ------
    EEGTensorError
        If an option is out of range.

    References
    ----------
    B. Yu, J. Wu, J. Ma and Z. Zhu, "Tangent-normal adversarial regularization for
    semi-supervised learning", CVPR 2019.
    """

    def __init__(
        self,
        eps: float | None = None,
        eps_normal: float | None = None,
        weight: float = 0.3,
        weight_normal: float = 0.3,
        entropy: float = 0.3,
        n_directions: int = 10,
        neighbours: int | None = None,
        ramp: int = 100,
        xi: float = 1e-2,
        n_iter: int = 1,
        at: str = "auto",
    ) -> None:
        super().__init__(eps, weight, entropy, ramp, xi, n_iter, at)
        if eps_normal is not None:
            check_number("eps_normal", eps_normal, above=0.0)
        self.weight_normal = check_number("weight_normal", weight_normal, least=0.0)
        self.n_directions = check_count("n_directions", n_directions)
        if neighbours is not None and check_count("neighbours", neighbours) < (
            n_directions
        ):
            fail(
                f"n_directions={n_directions}, neighbours={neighbours}",
                fix="give at least as many neighbours as directions",
            )
        self.eps_normal, self.neighbours = eps_normal, neighbours

    def _looks(self) -> bool:
        return self.weight > 0 or self.weight_normal > 0

    def _weighted(self, context: StepContext, batch: Batch) -> Tensor:
        along, across = self.divergences(context, batch)
        return self.weight * along + self.weight_normal * across

    def smoothness(self, context: StepContext, batch: Batch) -> Tensor:
        """Return the sum of both divergences of each trial, shape (n_trials,)."""
        along, across = self.divergences(context, batch)
        return along + across

    def divergences(self, context: StepContext, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return those of the tangent and of the normal perturbation, (n_trials,)."""
        with frozen(context.model):
            trials = Trials(context.network, batch, self.at)
            with torch.no_grad():
                before = trials.logits().log_softmax(1)
            eps = trials.usual_distance() / 2 if self.eps is None else self.eps
            eps_normal = eps / 5 if self.eps_normal is None else self.eps_normal
            tangent, normal = self.directions(trials, before, context.generator)
            along = divergence(before, trials.logits(eps * tangent))
            across = divergence(before, trials.logits(eps_normal * normal))
            return along, across

    def directions(
        self, trials: Trials, before: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return the worst unit displacements along and across the manifold."""
        basis = tangent_basis(trials.coordinates(), self.n_directions, self.neighbours)
        basis = basis.to(trials.values.dtype)

        def project(d: Tensor) -> Tensor:
            flat = d.flatten(1)[:, None]
            return ((flat @ basis.mT) @ basis).view_as(d)

        found = []
        for part in (project, lambda d: d - project(d)):
            d = part(trials.noise(generator))
            for _ in range(self.n_iter):
                d = (self.xi * units(d)).requires_grad_()
                change = divergence(before, trials.logits(d, search=True)).sum()
                d = part(units(torch.autograd.grad(change, d)[0]))
            # What rounding leaves of nothing is no direction.
            there = lengths(d) > torch.finfo(d.dtype).eps ** 0.5
            found.append(torch.where(there, units(d), 0.0).detach())
        return found[0], found[1]


@torch.no_grad()
def tangent_basis(V: Tensor, n_directions: int, neighbours: int | None) -> Tensor:
    """Return orthonormal directions of largest variance, as rows.

    Parameters
    ----------
    V : Tensor, shape (n_trials, n_features)
    n_directions : int
        Fewer where trials span fewer; rows that are left over are zero.
    neighbours : int | None
        None: one basis of all trials; else one of each trial's nearest.

    Returns
    -------
    basis : Tensor, shape (1 or n_trials, n_directions, n_features)
    """
    if neighbours is None:
        around = V[None]
    else:
        count = min(neighbours + 1, len(V))
        # The trial itself is its own nearest.
        around = V[torch.cdist(V, V).topk(count, largest=False).indices]
    around = around - around.mean(1, keepdim=True)
    # Of the trials' products, not of the features': there are fewer of them.
    values, vectors = eigh(symmetrize(around @ around.mT))
    values, vectors = values.flip(-1), vectors.flip(-1)
    values, vectors = values[..., :n_directions], vectors[..., :n_directions]
    kept = values > 1e-10 * values[..., :1]
    factor = torch.where(kept, values.clamp_min(1e-300).rsqrt(), 0.0)
    basis: Tensor = (vectors * factor[..., None, :]).mT @ around
    return basis
