"""Covariance estimators of many trials in one batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import check_option, fail, listing
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.geometry._moments import Moments, moments
from eegtensor.geometry.spectral import _eager_cpu, eigvalsh, rectify

ESTIMATORS = ("oas", "lwf", "scm", "regularised")


def covariances(
    X: Array,
    *,
    estimator: str = "oas",
    regularisation: float = 0.01,
    mask: Any = None,
) -> Array:
    """Return one covariance matrix per trial, channels centred over time.

    Parameters
    ----------
    X : array or tensor, shape (..., n_channels, n_times), volts
        NaN only where the mask is False.
    estimator : "oas" | "lwf" | "scm" | "regularised"
        Oracle approximating shrinkage (Chen et al. 2010), Ledoit-Wolf (2004),
        the sample covariance divided by n_times, or that plus `regularisation`
        times its mean variance on the diagonal.
    regularisation : float
        Used by "regularised" only.
    mask : array-like of bool, shape (..., [n_channels,] n_times) | None
        True for samples to use. Without the axis of channels a sample counts for
        all or none, as if the others had been cut out. With it each entry uses the
        samples that both channels have; negative eigenvalues, which such a matrix
        may have, are set to zero before shrinkage.

    Returns
    -------
    C : array or tensor, shape (..., n_channels, n_channels), volts squared
        float64 for arrays; a tensor's own dtype, summed in float64.

    Raises
    ------
    EEGTensorError
        If the estimator is not known, samples in use are not finite, or two
        channels have no sample in common.

    References
    ----------
    Y. Chen et al., "Shrinkage algorithms for MMSE covariance estimation", IEEE
    Trans. Signal Process., 2010, eq. 23. O. Ledoit, M. Wolf, "A well-conditioned
    estimator for large-dimensional covariance matrices", J. Multivar. Anal.,
    2004. Both as scikit-learn computes them.
    """
    check_option("estimator", estimator, ESTIMATORS)
    if not isinstance(X, Tensor):
        X = np.asarray(X)
    if mask is not None and not isinstance(mask, Tensor):
        mask = np.asarray(mask)
    C = _covariances(X, mask, estimator, regularisation)
    tensor = isinstance(X, Tensor) and X.is_floating_point()
    return C.to(X.dtype) if tensor else C


@bridged
def _covariances(
    X: Tensor, mask: Tensor | None, estimator: str, regularisation: float
) -> Tensor:
    found = moments(X, mask, fourth=estimator == "lwf")
    if _eager_cpu(X):
        _check_counts(found)
        hint = "drop these trials, or give a mask" if mask is None else "mask them"
        _check_finite(found.C, hint)
    if mask is not None and mask.ndim == X.ndim:
        found = found._replace(C=rectify(found.C, 0.0))
    if estimator == "scm":
        return found.C
    if estimator == "regularised":
        return _add_diagonal(found.C, regularisation * _mean_variance(found.C))
    return _oas(found) if estimator == "oas" else _lwf(found)


def _check_finite(C: Tensor, fix: str) -> None:
    if not bool(C.isfinite().all()):
        bad = (~C.isfinite()).flatten(-2).any(-1).flatten().nonzero()[:, 0]
        fail(
            f"Trials {listing(bad.tolist())} hold NaN or infinite samples",
            why="One such sample makes the covariance of the whole trial NaN",
            fix=fix,
        )


def _check_counts(found: Moments) -> None:
    count = found.samples.expand(found.C.shape).reshape(-1, *found.C.shape[-2:])
    if bool((count == 0).any()):
        trial, i, j = (count == 0).nonzero()[0].tolist()
        fail(
            f"Channels {i} and {j} of trial {trial} have no sample in common",
            why="Their covariance is then not known",
            fix="drop the trial or the channel, or restore the samples first",
        )


def _mean_variance(C: Tensor) -> Tensor:
    return C.diagonal(dim1=-2, dim2=-1).mean(dim=-1)


def _add_diagonal(C: Tensor, amount: Tensor) -> Tensor:
    eye = torch.eye(C.shape[-1], dtype=C.dtype, device=C.device)
    return C + amount[..., None, None] * eye


def _shrink(C: Tensor, shrinkage: Tensor) -> Tensor:
    kept = (1.0 - shrinkage)[..., None, None] * C
    return _add_diagonal(kept, shrinkage * _mean_variance(C))


@bridged
def shrink_oas(C: Tensor, n_samples: float) -> Tensor:
    """Return covariances shrunk towards mu I by the oracle approximating rule.

    Parameters
    ----------
    C : array or tensor, shape (..., n, n)
        Sample covariances.
    n_samples : float
        Independent samples behind each of them.

    Returns
    -------
    C : array or tensor, shape (..., n, n)
    """
    count = torch.full(C.shape[:-2], n_samples, dtype=C.dtype, device=C.device)
    return _oas_shrunk(C, count)


def _oas(found: Moments) -> Tensor:
    return _oas_shrunk(found.C, found.samples.mean(dim=(-1, -2)))


def _oas_shrunk(C: Tensor, n_times: Tensor) -> Tensor:
    n = C.shape[-1]
    mu = _mean_variance(C)
    alpha = (C**2).mean(dim=(-1, -2))
    # Eq. 23 without its terms in 2 / n, as scikit-learn has it.
    numerator = alpha + mu**2
    denominator = (n_times + 1.0) * (alpha - mu**2 / n)
    # C = mu I, also of one channel or of a constant trial: nothing left to shrink.
    usable = denominator > 0
    ratio = numerator / torch.where(usable, denominator, 1.0)
    return _shrink(C, torch.where(usable, ratio.clamp(max=1.0), 1.0))


def _lwf(found: Moments) -> Tensor:
    C = found.C
    n = C.shape[-1]
    mu = _mean_variance(C)
    delta = (C**2).sum(dim=(-1, -2)) / n - mu**2
    # Never beyond mu I, however noisy the trial.
    beta = torch.minimum(found.error / n, delta)
    ratio = beta / torch.where(delta > 0, delta, 1.0)
    return _shrink(C, torch.where(beta > 0, ratio, 0.0))


@bridged
def rank(C: Array) -> Array:
    """Return the numerical rank of symmetric matrices, shape (...).

    An eigenvalue counts when it exceeds n * 1e-12 of the largest: what average
    referencing, ICA or interpolation in floating point leave behind is below.
    """
    values = eigvalsh(C)
    floor = values.shape[-1] * 1e-12 * values.abs().amax(dim=-1, keepdim=True)
    return (values > floor).sum(dim=-1)
