"""Where a layer takes its statistics: coordinates, mean, dispersion, way back.

The Lie-group scheme of Chen et al. (ICLR 2024): a deformation phi, then centre,
scale and bias in the deformed space, then back. Statistics live in phi(X).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from eegtensor.geometry._groups import Groups
from eegtensor.geometry._scalar import EXP, LOG, power
from eegtensor.geometry.log_cholesky import coordinates, point
from eegtensor.geometry.mean import frechet_mean
from eegtensor.geometry.normalization import (
    Momenta,
    Norm,
    Statistics,
    _wide,
    affine_geodesic,
    affine_update,
    fit_affine,
    flat_update,
    whiten,
    whitened_log,
    whitening,
)
from eegtensor.geometry.spectral import congruence, spectral, symmetrize

Pair = tuple[Tensor, Tensor]


class Space(Protocol):
    """What a layer with running statistics needs of a space; V is phi(X)."""

    def update(
        self, V: Tensor, groups: Groups, old: Statistics, momenta: Momenta
    ) -> Statistics:
        """Return the statistics after a batch."""

    def fit(self, V: Tensor, groups: Groups) -> Pair:
        """Return mean and dispersion of each group, without momentum."""

    def pool(self, mean: Tensor, variance: Tensor) -> Pair:
        """Return one common statistic, shapes (1, ...), of several domains'."""

    def move(self, old: Pair, new: Pair, t: Tensor) -> Pair:
        """Return statistics moved by t, (K,), to those of more trials."""


class MatrixSpace(Space, Protocol):
    """A space of SPD matrices."""

    def enter(self, X: Tensor, unit: Tensor) -> Tensor:
        """Return phi(X), shape (b, n, n)."""

    def origin(self, n: int) -> Tensor:
        """Return phi(I), shape (n, n)."""

    def leave(
        self,
        V: Tensor,
        mean: Tensor,
        scale: Tensor | None,
        groups: Groups,
        bias: Tensor | None,
        *,
        log: bool,
    ) -> Tensor:
        """Return the normalised matrices, or their logarithms, (b, n, n)."""


@dataclass(frozen=True)
class AffineSpace:
    """phi(X) = X^theta with the affine-invariant metric."""

    norm: Norm
    theta: float
    congruence: str
    steps: int
    detach_whitening: bool

    def enter(self, X: Tensor, unit: Tensor) -> Tensor:
        """Return X^theta."""
        return _power(X, self.theta)

    def origin(self, n: int) -> Tensor:
        """Return I."""
        return torch.eye(n)

    def update(
        self, V: Tensor, groups: Groups, old: Statistics, momenta: Momenta
    ) -> Statistics:
        """Move along the geodesic to one Karcher step from the arithmetic mean."""
        return affine_update(
            V,
            groups,
            old,
            momenta,
            self.norm,
            steps=self.steps,
            detach=self.detach_whitening,
        )

    def fit(self, V: Tensor, groups: Groups) -> Pair:
        """Return Frechet means and mean squared distances."""
        return fit_affine(V, groups, self.norm)

    def pool(self, mean: Tensor, variance: Tensor) -> Pair:
        """Return the Frechet mean of means."""
        # Domains count alike, whatever the number of their trials.
        return frechet_mean(mean, tol=1e-10)[None], variance.mean(dim=0, keepdim=True)

    def move(self, old: Pair, new: Pair, t: Tensor) -> Pair:
        """Move along the geodesic; dispersions add as in a flat space."""
        apart = spectral(whiten(whitening(old[0]), new[0]), LOG)
        variance = _merged(old[1], new[1], self.norm.squared(apart), t)
        return affine_geodesic(old[0], new[0], t), variance

    def leave(
        self,
        V: Tensor,
        mean: Tensor,
        scale: Tensor | None,
        groups: Groups,
        bias: Tensor | None,
        *,
        log: bool,
    ) -> Tensor:
        """Centre by congruence and scale by a power, log(Z^p) = p log Z."""
        # Inverted in float64 and rounded once.
        W = whitening(mean, self.congruence).to(V.dtype)
        if log and bias is None:
            T = _scaled(whitened_log(W, V, groups), scale)
            return T if self.theta == 1.0 else T / self.theta
        Z = whiten(W, V, groups)
        if bias is not None:
            # log(K Z^p K') is no multiple of log Z: one decomposition more.
            Y = congruence(self._root(bias).to(V.dtype), _power(Z, scale))
            return _log(Y, 1.0 / self.theta) if log else _power(Y, 1.0 / self.theta)
        if scale is not None:
            return _power(Z, scale / self.theta)
        return symmetrize(Z) if self.theta == 1.0 else _power(Z, 1.0 / self.theta)

    def _root(self, bias: Tensor) -> Tensor:
        """Return K with K K' = bias^theta."""
        bias = symmetrize(bias.double())
        if self.congruence == "symmetric":
            return _power(bias, self.theta / 2.0)
        return torch.linalg.cholesky(_power(bias, self.theta))


class _Flat:
    """Statistics where means are arithmetic."""

    # What the dispersion of a batch is about: see `flat_update`.
    about = "running"

    def squared(self, V: Tensor) -> Tensor:
        """Return squared norms, in the shape of the variance."""
        raise NotImplementedError

    def update(
        self, V: Tensor, groups: Groups, old: Statistics, momenta: Momenta
    ) -> Statistics:
        """Move by the weight of the batch."""
        return flat_update(V, groups, old, momenta, self.squared, about=self.about)

    def fit(self, V: Tensor, groups: Groups) -> Pair:
        """Return each group's mean and mean squared norm about it."""
        (mean,) = groups.average(V)
        (variance,) = groups.average(self.squared(V - groups.spread(mean)))
        return mean, variance

    def pool(self, mean: Tensor, variance: Tensor) -> Pair:
        """Return the mean of means and of variances."""
        return mean.mean(dim=0, keepdim=True), variance.mean(dim=0, keepdim=True)

    def move(self, old: Pair, new: Pair, t: Tensor) -> Pair:
        """Return mean and variance of two sets of which the new one has share t."""
        apart = new[0] - old[0]
        between = self.squared(apart)
        mean = old[0] + _wide(t, apart) * apart
        return mean, _merged(old[1], new[1], between, _wide(t, between))


class _FlatMatrices(_Flat):
    """A vector space of symmetric or triangular matrices."""

    norm: Norm

    def squared(self, V: Tensor) -> Tensor:
        """Return the squared norm of the metric."""
        return self.norm.squared(V)

    def enter(self, X: Tensor, unit: Tensor) -> Tensor:
        """Return phi(X)."""
        raise NotImplementedError

    def origin(self, n: int) -> Tensor:
        """Return 0."""
        return torch.zeros(n, n)

    def leave(
        self,
        V: Tensor,
        mean: Tensor,
        scale: Tensor | None,
        groups: Groups,
        bias: Tensor | None,
        *,
        log: bool,
    ) -> Tensor:
        """Subtract the mean, multiply, add the bias, and go back."""
        V = _scaled(V - groups.spread(mean).to(V.dtype), scale)
        if bias is not None:
            # Centring has taken the unit out: the bias has none.
            W = symmetrize(bias.double())
            V = V + self.enter(W, W.new_ones(())).to(V.dtype)
        return self._back(V, log)

    def _back(self, V: Tensor, log: bool) -> Tensor:
        """Return phi^{-1}(V) or its logarithm."""
        raise NotImplementedError


@dataclass(frozen=True)
class LogEuclideanSpace(_FlatMatrices):
    """phi(X) = log X, flat."""

    norm: Norm

    def enter(self, X: Tensor, unit: Tensor) -> Tensor:
        """Return log X."""
        return _log(X)

    def _back(self, V: Tensor, log: bool) -> Tensor:
        # No decomposition where the logarithm is asked for.
        return V if log else spectral(symmetrize(V), EXP)


@dataclass(frozen=True)
class LogCholeskySpace(_FlatMatrices):
    """phi(X): Cholesky factor of X^theta with the logarithm of its diagonal, flat."""

    norm: Norm
    theta: float

    def enter(self, X: Tensor, unit: Tensor) -> Tensor:
        """Return the coordinates of X^theta / unit."""
        # What is below the diagonal of a factor has a unit, which would weigh it.
        return coordinates(_power(X, self.theta) / unit.to(X.dtype))

    def log_unit(self, X: Tensor) -> Tensor:
        """Return log det(X^theta) / n, shape (b,), float64."""
        factor, _ = torch.linalg.cholesky_ex(X.detach().double())
        logs = factor.diagonal(dim1=-2, dim2=-1).log()
        return 2.0 * self.theta * logs.mean(dim=-1)

    def _back(self, V: Tensor, log: bool) -> Tensor:
        Y = point(V)
        return _log(Y, 1.0 / self.theta) if log else _power(Y, 1.0 / self.theta)


@dataclass(frozen=True)
class VectorSpace(_Flat):
    """Feature vectors, with one variance for each feature or for all of them."""

    dispersion: str
    # As torch's batch norm has it.
    about = "batch"

    def squared(self, V: Tensor) -> Tensor:
        """Return squared entries, or their mean over the features."""
        squares = V.square()
        return squares if self.dispersion == "vector" else squares.mean(dim=-1)


def _merged(old: Tensor, new: Tensor, between: Tensor, t: Tensor) -> Tensor:
    # Within the two sets, and between their means.
    return (1.0 - t) * old + t * new + t * (1.0 - t) * between


def _scaled(V: Tensor, scale: Tensor | None) -> Tensor:
    return V if scale is None else V * scale[:, None, None]


def _log(X: Tensor, factor: float = 1.0) -> Tensor:
    """Return the logarithm times a number."""
    out: Tensor = spectral(X, LOG)
    return out if factor == 1.0 else out * factor


def _power(X: Tensor, p: float | Tensor | None) -> Tensor:
    """Return X^p for one power or one a trial; None is 1."""
    if p is None or (not isinstance(p, Tensor) and p == 1.0):
        return X
    if isinstance(p, Tensor):
        # The gradient of p goes by its own way.
        out: Tensor = spectral(X, power(p.detach()[:, None]), parameter=p)
    else:
        out = spectral(X, power(p))
    return out
