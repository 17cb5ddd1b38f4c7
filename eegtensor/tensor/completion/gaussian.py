"""Lost channels from those seen at the same instant: the exact Gaussian answer.

Cells of a column are jointly Gaussian with covariance S. Given those seen (o),
those lost (m) have mean S_mo (S_oo + r I)^-1 x_o and covariance
S_mm - S_mo (S_oo + r I)^-1 S_om; the covariance is learned by expectation and
maximisation, with that conditional covariance added (A. P. Dempster, N. M. Laird
and D. B. Rubin, Journal of the Royal Statistical Society B 39, 1-38, 1977).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged, floating
from eegtensor.geometry.spectral import eigh
from eegtensor.tensor._shapes import check_sweeps
from eegtensor.tensor.completion._columns import (
    Patterns,
    complete_columns,
    patterns,
)

RIDGE = 1e-3


class GaussianFit(NamedTuple):
    """A covariance learned from incomplete columns.

    Attributes
    ----------
    covariance : array, shape (n_channels, n_channels), float64
    n_iter : int
        Steps of expectation and maximisation.
    """

    covariance: Array
    n_iter: int


class GaussianMean(NamedTuple):
    """Columns completed by their conditional mean.

    Attributes
    ----------
    X : array, shape (n_channels, n_columns)
        Cells seen are unchanged.
    variance : array, shape (n_channels, n_columns)
        Conditional variance; zero where seen.
    """

    X: Array
    variance: Array


def _check(X: Tensor, seen: Tensor) -> Tensor:
    """Return `seen` as bool, or raise."""
    shape = tuple(getattr(seen, "shape", ()))
    if X.ndim != 2 or 0 in X.shape or shape != tuple(X.shape):
        fail(
            f"X has shape {tuple(X.shape)} and seen {shape}",
            fix="give both as (n_channels, n_columns), none of them empty",
        )
    seen = seen.bool()
    if not bool(torch.where(seen, X, 0.0).isfinite().all()):
        fail("X holds NaN or infinity where seen", fix="mark these cells as not seen")
    return seen


def pairwise_covariance(X: Tensor, seen: Tensor) -> Tensor:
    """Return a positive definite covariance from the pairs seen together."""
    weight = seen.to(torch.float64)
    zeroed = torch.where(seen, X, 0.0).to(torch.float64)
    pairs = weight @ weight.T
    covariance = zeroed @ zeroed.T / pairs.clamp_min(1.0)
    values, vectors = eigh(covariance)
    values = torch.maximum(values, RIDGE * values[-1:])
    return (vectors * values) @ vectors.T


def conditional(covariance: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return operators that complete a column, and their conditional covariances.

    Parameters
    ----------
    covariance : Tensor, shape (n, n)
    seen : Tensor of bool, shape (n_patterns, n)

    Returns
    -------
    operators, spread : Tensor, shape (n_patterns, n, n)
    """
    have = seen.to(covariance)
    ridge = RIDGE * covariance.diagonal().mean()
    inside = covariance * have[:, :, None] * have[:, None, :]
    # Lost channels become unit equations: patterns of all sizes in one batch.
    inside = inside + torch.diag_embed(have * ridge + (1 - have))
    across = covariance * (1 - have)[:, :, None] * have[:, None, :]
    gain = torch.cholesky_solve(across.mT, torch.linalg.cholesky(inside)).mT
    prior = covariance * (1 - have)[:, :, None] * (1 - have)[:, None, :]
    spread = prior - gain @ across.mT
    return gain + torch.diag_embed(have), 0.5 * (spread + spread.mT)


def _moment(covariance: Tensor, values: Tensor, found: Patterns) -> Tensor:
    """Return the expected sum of outer products of columns, shape (n, n)."""
    total = torch.zeros_like(covariance)
    counts = found.counts.to(covariance)
    at = 0

    def operators(seen: Tensor) -> Tensor:
        nonlocal at
        gain, spread = conditional(covariance, seen)
        total.add_(torch.einsum("p,pij->ij", counts[at : at + len(seen)], spread))
        at += len(seen)
        return gain

    filled = complete_columns(operators, values, found)
    return total + filled @ filled.T


@bridged
def gaussian_fit(
    X: Array, seen: Array, *, max_iter: int = 12, tol: float = 1e-3
) -> GaussianFit:
    """Learn the covariance of channels from columns with lost cells.

    Parameters
    ----------
    X : array, shape (n_channels, n_columns)
        Zero mean, in any unit.
    seen : array of bool, shape (n_channels, n_columns)
    max_iter : int
        Most steps.
    tol : float
        Stop when the covariance changes by less, relative to itself.

    Returns
    -------
    GaussianFit

    Raises
    ------
    EEGTensorError
        If shapes differ, or a cell that is seen is not finite.
    """
    check_sweeps(max_iter, tol)
    X = floating(X)
    seen = _check(X, seen)
    keep = seen.any(dim=0)
    values = torch.where(seen, X, 0.0).to(torch.float64)[:, keep]
    covariance = pairwise_covariance(X, seen)
    found = patterns(seen[:, keep])
    n_iter = 0
    while n_iter < max_iter:
        n_iter += 1
        before = covariance
        covariance = _moment(before, values, found) / max(values.shape[1], 1)
        if float((covariance - before).norm()) <= tol * float(before.norm()):
            break
    return GaussianFit(covariance, n_iter)


@bridged
def gaussian_mean(X: Array, seen: Array, covariance: Array) -> GaussianMean:
    """Return the conditional mean and variance of lost cells, column by column.

    Parameters
    ----------
    X : array, shape (n_channels, n_columns)
    seen : array of bool, shape (n_channels, n_columns)
    covariance : array, shape (n_channels, n_channels)

    Returns
    -------
    GaussianMean

    Raises
    ------
    EEGTensorError
        If shapes differ, or a cell that is seen or the covariance is not finite.
    """
    X = floating(X)
    seen = _check(X, seen)
    n = len(X)
    if tuple(getattr(covariance, "shape", ())) != (n, n):
        fail(f"covariance is not an array of shape ({n}, {n})", fix="see gaussian_fit")
    if not bool(covariance.isfinite().all()):
        fail("covariance holds NaN or infinity", fix="see gaussian_fit")
    found = patterns(seen)
    values = torch.where(seen, X, 0.0)
    variances = []

    def operators(seen: Tensor) -> Tensor:
        gain, spread = conditional(covariance.double(), seen)
        variances.append(spread.diagonal(dim1=1, dim2=2).clamp_min(0.0))
        return gain

    filled = complete_columns(operators, values, found)
    own = torch.cat(variances)[found.owner].to(values)
    variance = values.new_zeros(len(values), values.shape[1] + 1)
    variance[:, found.columns] = own.T[:, :, None].expand(
        -1, -1, found.columns.shape[1]
    )
    return GaussianMean(torch.where(seen, X, filled), variance[:, : values.shape[1]])
