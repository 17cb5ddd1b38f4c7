"""Batch normalisation of SPD matrices: statistics of groups and their momentum.

Pure functions of a batch (b, n, n) whose trials belong to K groups (domains).
Statistics are float64; gradients are exact, through the mean and the variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor.geometry._cholesky import definite
from eegtensor.geometry._eager import needs_gradient, times
from eegtensor.geometry._groups import Groups
from eegtensor.geometry._scalar import EXP, INV_SQRT, LOG, SQRT, power
from eegtensor.geometry.mean import frechet_mean
from eegtensor.geometry.spectral import (
    _eager_cpu,
    compiled_logarithm,
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


def affine_update(
    X: Tensor,
    groups: Groups,
    old: Statistics,
    momenta: Momenta,
    norm: Norm,
    *,
    steps: int = 1,
    detach: bool = False,
) -> Statistics:
    """Return the statistics after a batch; gradients flow to mean and variance.

    From the arithmetic mean A of a group, `steps` times, T_i = log(A^-1/2 X_i
    A^-1/2) and B = A^1/2 exp(mean T) A^1/2. Then R+ = R #_eta B and v+ = (1 - eta)
    v + eta mean_i ||T_i - log(A^-1/2 R+ A^-1/2)||^2, and the same for evaluation
    with its own momentum and without gradient.

    Parameters
    ----------
    X : Tensor, shape (b, n, n)
    groups : Groups
    old : Statistics
    momenta : Momenta
    norm : Norm
    steps : int
    detach : bool
        Whether the gradient leaves out the whitening by A, as in the TSMNet
        authors' code. The exact gradient has it.

    References
    ----------
    Kobler, Hirayama, Zhao and Kawanabe, SPD domain-specific batch normalization
    to crack interpretable unsupervised domain adaptation in EEG, NeurIPS 2022.
    """
    (A,) = groups.average(X)
    if groups.present is not None:
        eye = torch.eye(X.shape[-1], dtype=A.dtype, device=A.device)
        A = groups.choose(A, eye)
    size = len(A)
    fresh = _eager_cpu(A) and not bool(old.seen.any())
    # A weight of one forgets what was before: then there is nothing to move.
    moving = [i for i, eta in enumerate(momenta) if not fresh and eta != 1.0]
    starts = [(old.mean, old.test_mean)[i] for i in moving]
    for step in range(steps):
        point = symmetrize(A.detach() if detach else A)
        # One call for all matrices of a kind: calls cost more than small matrices.
        stack = point if step else torch.cat([point, *starts])
        roots, inverses = spectral(stack, SQRT, INV_SQRT)
        if step == 0:
            start_root, start_inverse = roots[size:].detach(), inverses[size:].detach()
        root, inverse = roots[:size], inverses[:size]
        T = whitened_log(inverse.to(X.dtype), X, groups)
        centre, squares = groups.average(T, norm.squared(T.to(A.dtype)))
        A = whiten(root, spectral(symmetrize(centre), EXP))
    # This does not cancel: the mean of T is of second order in T.
    dispersion = squares - norm.squared(centre)
    means = [A, A.detach()]
    variances = [dispersion, dispersion.detach()]
    if moving:
        weights = [batch_weight(old.seen, momenta[i]) for i in moving]
        ends = torch.cat([means[i] for i in moving])
        t = torch.cat(weights)[:, None]
        moved = whiten(start_root, spectral(whiten(start_inverse, ends), power(t)))
        again = inverse.repeat(len(moving), 1, 1)
        tangent = spectral(whiten(again, moved), LOG)
        for i, t, M, D in zip(
            moving, weights, moved.split(size), tangent.split(size), strict=True
        ):
            v = (old.variance, old.test_variance)[i]
            about = dispersion + norm.squared(D - centre)
            means[i], variances[i] = M, (1.0 - t) * v + t * about
    return Statistics(
        symmetrize(means[0]),
        variances[0],
        symmetrize(means[1].detach()),
        variances[1].detach(),
        old.seen,
    )


class _Whiten(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, W: Tensor, X: Tensor, slot: Tensor | None, member: Tensor | None
    ) -> Tensor:
        each = _each(W, slot)
        half = times(each, X)
        ctx.save_for_backward(W, X, slot, member, each, half)
        return times(half, each.mT)

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> Any:
        W, X, slot, member, each, half = ctx.saved_tensors
        if torch.is_grad_enabled():
            # A second derivative needs to know what these were made of.
            each = _each(W, slot)
            half = times(each, X)
        by_W = by_X = None
        if ctx.needs_input_grad[0]:
            by_W = times(G + G.mT, half)
            if slot is not None:
                by_W = (member.to(G.dtype) @ by_W.flatten(1)).view(W.shape)
        if ctx.needs_input_grad[1]:
            by_X = times(each.mT, times(G, each))
        return by_W, by_X, None, None


def _each(W: Tensor, slot: Tensor | None) -> Tensor:
    if slot is None:
        return W
    return W[0] if W.shape[0] == 1 else W.index_select(0, slot)


def whiten(W: Tensor, X: Tensor, groups: Groups | None = None) -> Tensor:
    """Return W_k X_i W_k' for the group k of each symmetric X_i, (b, n, n).

    Without groups W has one matrix for each X. Symmetric up to rounding: enough
    for a decomposition, which reads a triangle.
    """
    slot, member = (None, None) if groups is None else (groups.slot, groups.member)
    if torch.compiler.is_compiling() or not needs_gradient(W, X):
        each = _each(W, slot)
        return times(times(each, X), each.mT)
    out: Tensor = _Whiten.apply(W, X, slot, member)  # type: ignore[no-untyped-call]
    return out


def whitened_log(W: Tensor, X: Tensor, groups: Groups) -> Tensor:
    """Return log(W_k X_i W_k') for the group k of each X_i, shape (b, n, n)."""
    if not needs_gradient(W, X):
        found = compiled_logarithm(X, W, groups.slot)
        if found is not None:
            return found
    logarithm: Tensor = spectral(whiten(W, X, groups), LOG)
    return logarithm


def batch_weight(seen: Tensor, eta: float) -> Tensor:
    """Return the weight of a batch, shape (K,): 1 where it is the first one."""
    # Filled, not copied, on the device: a copy would stop a GPU.
    weight = torch.full(seen.shape, eta, dtype=torch.float64, device=seen.device)
    return torch.where(seen, weight, 1.0)


def affine_geodesic(A: Tensor, B: Tensor, t: Tensor) -> Tensor:
    """Return A #_t B, shape (K, n, n), for t of shape (K,) without gradient."""
    root, inverse = spectral(symmetrize(A), SQRT, INV_SQRT)
    moved = whiten(root, spectral(whiten(inverse, B), power(t[:, None])))
    return symmetrize(moved)


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
    T = whitened_log(whitening(mean), X, groups)
    (variance,) = groups.average(norm.squared(T))
    return mean, variance


def whitening(M: Tensor, congruence: str = "symmetric") -> Tensor:
    """Return W with W M W' = I, shape (..., n, n).

    Parameters
    ----------
    M : Tensor, shape (..., n, n), symmetric
    congruence : "symmetric" | "cholesky"
        M^-1/2, or the inverse of the Cholesky factor; they differ by a rotation.
    """
    if congruence == "symmetric":
        inverse_root: Tensor = spectral(M, INV_SQRT)
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

    Returns
    -------
    raised : Tensor, shape (b, n, n), symmetric to the last bit
    """
    if not _eager_cpu(X):
        return symmetrize(rectify(X, threshold))
    X = symmetrize(X)
    low = ~definite(X, threshold / X.shape[-1])
    if not bool(low.any()):
        return X
    # All of them also where one is not finite: the message counts in the batch.
    if bool(low.all()) or not bool(X.detach().isfinite().all()):
        return symmetrize(rectify(X, threshold))
    index = low.nonzero()[:, 0]
    raised = rectify(X.index_select(0, index), threshold)
    return X.index_copy(0, index, symmetrize(raised))
