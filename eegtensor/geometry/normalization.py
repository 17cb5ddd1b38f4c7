"""Batch normalisation of SPD matrices: statistics of groups and their momentum.

Pure functions of a batch (b, n, n) whose trials belong to K groups (domains).
Statistics are float64; gradients are exact, through the mean and the variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor.geometry._groups import Groups
from eegtensor.geometry._scalar import EXP, INV_SQRT, LOG, SQRT, power
from eegtensor.geometry.mean import frechet_mean
from eegtensor.geometry.spectral import (
    _eager_cpu,
    congruence,
    rectify,
    spectral,
    symmetrize,
)


class Statistics(NamedTuple):
    """Running statistics of K groups, float64.

    Attributes
    ----------
    mean, test_mean : Tensor, shape (K, ...)
        What training and evaluation normalise with.
    variance, test_variance : Tensor, shape (K, ...)
    seen : Tensor of bool, shape (K,)
        Groups that had a batch before; a first batch sets the statistics.
    """

    mean: Tensor
    variance: Tensor
    test_mean: Tensor
    test_variance: Tensor
    seen: Tensor


class Momenta(NamedTuple):
    """Weight of a new batch in the statistics of training and evaluation."""

    eta: float
    eta_test: float


class Norm(NamedTuple):
    """The squared norm alpha <V, V> + beta tr(V)^2 of tangent vectors."""

    alpha: float = 1.0
    beta: float = 0.0

    def squared(self, V: Tensor) -> Tensor:
        """Return the squared norm, shape (...)."""
        out = V.square().sum(dim=(-1, -2))
        if self.alpha != 1.0:
            out = self.alpha * out
        if self.beta != 0.0:
            out = out + self.beta * V.diagonal(dim1=-1, dim2=-2).sum(dim=-1).square()
        return out


class AffineBatch(NamedTuple):
    """A batch in the tangent space near each group's mean.

    Attributes
    ----------
    mean : Tensor, shape (K, n, n)
        One or more Karcher steps from the arithmetic mean.
    whitening : Tensor, shape (K, n, n)
        Inverse root of the point where the tangent space touches.
    centre : Tensor, shape (K, n, n)
        Mean tangent vector.
    dispersion : Tensor, shape (K,)
        Mean squared distance of the tangent vectors to `centre`.
    """

    mean: Tensor
    whitening: Tensor
    centre: Tensor
    dispersion: Tensor

    def about(self, tangent: Tensor, norm: Norm) -> Tensor:
        """Return the mean squared distance to a tangent vector, shape (K,)."""
        return self.dispersion + norm.squared(tangent - self.centre)


def affine_batch(
    X: Tensor, groups: Groups, norm: Norm, *, steps: int = 1, detach: bool = False
) -> AffineBatch:
    """Return each group's affine-invariant mean and dispersion.

    From the arithmetic mean A, `steps` times: T_i = log(A^-1/2 X_i A^-1/2),
    A <- A^1/2 exp(mean T) A^1/2.

    Parameters
    ----------
    X : Tensor, shape (b, n, n)
    groups : Groups
    norm : Norm
    steps : int
    detach : bool
        Whether the gradient leaves out the whitening by A, as in the TSMNet
        authors' code. The exact gradient has it.
    """
    (mean,) = groups.average(X)
    if groups.present is not None:
        eye = torch.eye(X.shape[-1], dtype=mean.dtype, device=mean.device)
        mean = groups.choose(mean, eye)
    for _ in range(steps):
        point = symmetrize(mean.detach() if detach else mean)
        root, whitening = spectral(point, SQRT, INV_SQRT)
        T = spectral(congruence(groups.spread(whitening.to(X.dtype)), X), LOG)
        centre, squares = groups.average(T, norm.squared(T.to(mean.dtype)))
        mean = congruence(root, spectral(symmetrize(centre), EXP))
    # This does not cancel: the mean of T is of second order in T.
    return AffineBatch(mean, whitening, centre, squares - norm.squared(centre))


def affine_update(
    batch: AffineBatch, old: Statistics, momenta: Momenta, norm: Norm
) -> Statistics:
    """Return the statistics after a batch; gradients flow to mean and variance.

    R+ = R #_eta B and v+ = (1 - eta) v + eta mean_i ||T_i - log_A(R+)||^2, and
    the same for evaluation with its own momentum and without gradient.

    References
    ----------
    Kobler, Hirayama, Zhao and Kawanabe, SPD domain-specific batch normalization
    to crack interpretable unsupervised domain adaptation in EEG, NeurIPS 2022.
    """
    mean, variance = _affine_momentum(
        batch, old.mean, old.variance, old.seen, momenta.eta, norm
    )
    still = AffineBatch(*(part.detach() for part in batch))
    test_mean, test_variance = _affine_momentum(
        still, old.test_mean, old.test_variance, old.seen, momenta.eta_test, norm
    )
    return Statistics(mean, variance, test_mean, test_variance, old.seen)


def _affine_momentum(
    batch: AffineBatch, R: Tensor, v: Tensor, seen: Tensor, eta: float, norm: Norm
) -> tuple[Tensor, Tensor]:
    fresh = _eager_cpu(R) and not bool(seen.any())
    if fresh or eta == 1.0:
        return batch.mean, batch.dispersion
    weight = batch_weight(seen, eta)
    # What a new group starts with is no matrix of its unit.
    R = torch.where(seen[:, None, None], R, batch.mean.detach())
    moved = affine_geodesic(R, batch.mean, weight)
    tangent = spectral(congruence(batch.whitening, moved), LOG)
    return moved, (1.0 - weight) * v + weight * batch.about(tangent, norm)


def batch_weight(seen: Tensor, eta: float) -> Tensor:
    """Return the weight of a batch, shape (K,): 1 where it is the first one."""
    # Filled, not copied, on the device: a copy would stop a GPU.
    weight = torch.full(seen.shape, eta, dtype=torch.float64, device=seen.device)
    return torch.where(seen, weight, 1.0)


def affine_geodesic(A: Tensor, B: Tensor, t: Tensor) -> Tensor:
    """Return A #_t B, shape (K, n, n), for t of shape (K,) without gradient."""
    root, inverse_root = spectral(symmetrize(A), SQRT, INV_SQRT)
    return congruence(root, spectral(congruence(inverse_root, B), power(t[:, None])))


def flat_update(
    V: Tensor,
    groups: Groups,
    old: Statistics,
    momenta: Momenta,
    squared: Callable[[Tensor], Tensor],
    *,
    about: str = "running",
) -> Statistics:
    """Return the statistics after a batch in a vector space.

    M+ = (1 - eta) M + eta mean V and v+ = (1 - eta) v + eta mean_i |V_i - C|^2.

    Parameters
    ----------
    V : Tensor, shape (b, ...)
    groups : Groups
    old : Statistics
    momenta : Momenta
    squared : callable
        The squared norm of vectors (..., ); its result has the variance's shape.
    about : "running" | "batch"
        Whether C is M+, as on the manifold, or the mean of the batch.
    """
    (mean,) = groups.average(V)
    # About the batch's own mean, and then moved: large means do not cancel.
    centred = V - groups.spread(mean).to(V.dtype)
    (dispersion,) = groups.average(squared(centred.to(mean.dtype)))
    out: list[Tensor] = []
    for M, v, eta in (
        (old.mean, old.variance, momenta.eta),
        (old.test_mean, old.test_variance, momenta.eta_test),
    ):
        weight = batch_weight(old.seen, eta)
        moved = torch.lerp(M, mean, _wide(weight, mean))
        spread = dispersion if about == "batch" else dispersion + squared(moved - mean)
        out += [moved, torch.lerp(v, spread, _wide(weight, spread))]
    return Statistics(out[0], out[1], out[2].detach(), out[3].detach(), old.seen)


def _wide(weight: Tensor, like: Tensor) -> Tensor:
    return weight.view(-1, *(1 for _ in like.shape[1:]))


def fit_affine(X: Tensor, groups: Groups, norm: Norm) -> tuple[Tensor, Tensor]:
    """Return each group's Frechet mean and mean squared distance to it.

    Parameters
    ----------
    X : Tensor, shape (b, n, n), float64
    groups : Groups
        All of them present.
    norm : Norm
    """
    share = groups.share.sum(dim=0)
    mean: Tensor = frechet_mean(X, segments=groups.slot, weights=share, tol=1e-10)
    T = spectral(congruence(whitening(mean)[groups.slot], X), LOG)
    (variance,) = groups.average(norm.squared(T))
    return mean, variance


def whitening(M: Tensor, congruence: str = "symmetric") -> Tensor:
    """Return W with W M W' = I, shape (..., n, n).

    Parameters
    ----------
    M : Tensor, shape (..., n, n)
    congruence : "symmetric" | "cholesky"
        M^-1/2, or the inverse of the Cholesky factor; they differ by a rotation.
    """
    if congruence == "symmetric":
        inverse_root: Tensor = spectral(symmetrize(M), INV_SQRT)
        return inverse_root
    factor, _ = torch.linalg.cholesky_ex(M)
    eye = torch.eye(M.shape[-1], dtype=M.dtype, device=M.device)
    return torch.linalg.solve_triangular(factor, eye.expand_as(M), upper=False)


def rectify_where_needed(X: Tensor, threshold: float) -> Tensor:
    """Raise eigenvalues to `threshold` times their mean, as `rectify` does.

    A Cholesky factorisation of X - floor I tells for a twentieth of the cost
    which matrices have eigenvalues below the floor; only these are decomposed.
    Where a look at the values is not free (GPU, export) all are.

    Parameters
    ----------
    X : Tensor, shape (b, n, n)
    threshold : float
    """
    if not _eager_cpu(X):
        raised: Tensor = rectify(X, threshold)
        return raised
    X = symmetrize(X)
    with torch.no_grad():
        shifted = X.detach().clone()
        diagonal = shifted.diagonal(dim1=-2, dim2=-1)
        diagonal -= threshold * diagonal.mean(dim=-1, keepdim=True)
        low = torch.linalg.cholesky_ex(shifted).info != 0
    if not bool(low.any()):
        return X
    # All of them also where one is not finite: the message counts in the batch.
    if bool(low.all()) or not bool(X.detach().isfinite().all()):
        raised = rectify(X, threshold)
        return raised
    index = low.nonzero()[:, 0]
    return X.index_copy(0, index, rectify(X.index_select(0, index), threshold))
