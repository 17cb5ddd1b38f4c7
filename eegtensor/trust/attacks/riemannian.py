"""Attacks on covariances: steps in the tangent space, within a geodesic ball."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eegtensor._check import check_count
from eegtensor.geometry import covariances, expm, sqrtm, sqrtm_pair, symmetrize
from eegtensor.training.perturbations._ascent import ascend, random_start
from eegtensor.trust.attacks.attack import Attack
from eegtensor.trust.attacks.goal import Goal, Model, still
from eegtensor.trust.attacks.views import View


def riemannian(
    model: Model,
    P: Tensor,
    y: Tensor,
    *,
    eps: float = 0.5,
    n_steps: int = 50,
    step_size: float | None = None,
    random: bool = False,
    loss: str = "cross-entropy",
    targeted: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return SPD matrices moved up the gradient, eps away at most.

    The matrices are ``P^1/2 exp(V) P^1/2``, V symmetric, at the affine-invariant
    distance ||V||_F of P: projected gradient ascent in V stays SPD, keeps the
    distance exactly, and does not depend on a unit or on a mixing of channels.

    Parameters
    ----------
    model : callable or torch.nn.Module
        SPD matrices to logits, each on its own, such as the tail and head of a
        network (`SPDNetwork`).
    P : Tensor, shape (n_trials, [n_bands,] n, n)
    y : Tensor of int64, shape (n_trials,)
        Classes to leave or, with `targeted`, to reach.
    eps : float
        Affine-invariant distance, over all bands together.
    n_steps : int
    step_size : float | None
        2.5 eps / n_steps by default.
    random : bool
        Whether the starts are drawn from the ball, or are P.
    loss : "cross-entropy" | "margin"
    targeted : bool
    generator : torch.Generator | None
        On the device of P.

    Returns
    -------
    Q : Tensor, shape of P
    """
    root = sqrtm(P)

    def moved(V: Tensor) -> Tensor:
        return symmetrize(root @ expm(symmetrize(V)) @ root)

    with still(model):
        V = _climb(
            lambda V: model(moved(V)),
            torch.zeros_like(P),
            y,
            eps=eps,
            n_steps=n_steps,
            step_size=step_size,
            random=random,
            loss=loss,
            targeted=targeted,
            generator=generator,
        )
    return moved(V)


def _climb(
    model: Model,
    V: Tensor,
    y: Tensor,
    *,
    eps: float,
    n_steps: int,
    step_size: float | None,
    random: bool,
    loss: str,
    targeted: bool,
    generator: torch.Generator | None,
) -> Tensor:
    """Return symmetric V up the gradient in the ball of the Frobenius norm."""
    check_count("n_steps", n_steps)
    # Tangents have their own unit already.
    goal = Goal(model, V, y, loss=loss, targeted=targeted, scale=torch.ones_like(V))
    start = V
    if random:
        # Half of a matrix that is not symmetric would be lost: it stays in the ball.
        start = symmetrize(random_start(V, eps, "l2", generator))
    return ascend(
        lambda d: symmetrize(goal.gradient(d)),
        start,
        eps=eps,
        step_size=2.5 * eps / n_steps if step_size is None else step_size,
        n_steps=n_steps,
        norm="l2",
    )


@dataclass(frozen=True)
class Riemannian(Attack):
    """Mixes the channels of a trial so that its covariance moves, eps away at most.

    A trial x of the spatial covariance P becomes ``P^1/2 exp(V / 2) P^-1/2 x``, of
    the covariance ``P^1/2 exp(V) P^1/2`` at the affine-invariant distance ||V||_F:
    the attack of `riemannian` as signals, for every decoder with a gradient. Nothing
    is added to the trial that is not in it: this is what another head, gain or
    montage could do.

    Parameters
    ----------
    eps : float
        Affine-invariant distance.
    n_steps, step_size, random, loss, targeted
        As of `riemannian`.
    batch_size : int
        Trials at a time.
    random_state : int | None
    """

    eps: float = 0.5
    n_steps: int = 50
    step_size: float | None = None
    random: bool = False
    loss: str = "cross-entropy"

    @property
    def budget_norm(self) -> str:
        """What `eps` is measured by."""
        return "affine-invariant"

    def _run(
        self,
        view: View,
        x: Tensor,
        y: Tensor,
        scale: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        # A channel that others explain has no inverse root: nothing of it is mixed.
        P = covariances(x.double(), estimator="regularised", regularisation=1e-9)
        root, inverse = sqrtm_pair(P)

        def mixed(V: Tensor) -> Tensor:
            A = root @ expm(symmetrize(V) / 2) @ inverse
            return A.to(x) @ x

        V = _climb(
            lambda V: view(mixed(V)),
            torch.zeros_like(P),
            y,
            eps=self.eps,
            n_steps=self.n_steps,
            step_size=self.step_size,
            random=self.random,
            loss=self.loss,
            targeted=self.targeted,
            generator=generator,
        )
        return {"x": mixed(V), "distance": V.flatten(1).norm(dim=1)}
