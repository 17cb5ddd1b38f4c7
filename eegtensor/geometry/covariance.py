"""Covariance estimators of many trials in one batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import check_option
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.geometry.spectral import eigvalsh

ESTIMATORS = ("oas", "lwf", "scm")


def covariances(X: Array, *, estimator: str = "oas") -> Array:
    """Return one covariance matrix per trial, channels centred over time.

    Parameters
    ----------
    X : array or tensor, shape (..., n_channels, n_times), volts
    estimator : "oas" | "lwf" | "scm"
        Oracle approximating shrinkage (Chen et al. 2010), Ledoit-Wolf (2004),
        or the sample covariance divided by n_times.

    Returns
    -------
    C : array or tensor, shape (..., n_channels, n_channels), volts squared
        float64 for arrays; a tensor's own dtype, summed in float64.

    Raises
    ------
    EEGTensorError
        If the estimator is not known.

    References
    ----------
    Y. Chen et al., "Shrinkage algorithms for MMSE covariance estimation", IEEE
    Trans. Signal Process., 2010, eq. 23. O. Ledoit, M. Wolf, "A well-conditioned
    estimator for large-dimensional covariance matrices", J. Multivar. Anal.,
    2004. Both as scikit-learn computes them.
    """
    check_option("estimator", estimator, ESTIMATORS)
    if isinstance(X, Tensor):
        return _ESTIMATORS[estimator](X.double()).to(X.dtype)
    tensor = torch.from_numpy(np.array(X, dtype=np.float64))
    return _ESTIMATORS[estimator](tensor).numpy()


def _centred(X: Tensor) -> Tensor:
    return X - X.mean(dim=-1, keepdim=True)


def _trace(C: Tensor) -> Tensor:
    return C.diagonal(dim1=-2, dim2=-1).sum(dim=-1)


def _scm(X: Tensor) -> Tensor:
    Z = _centred(X)
    return Z @ Z.mT / X.shape[-1]


def _shrink(C: Tensor, shrinkage: Tensor) -> Tensor:
    mu = _trace(C) / C.shape[-1]
    eye = torch.eye(C.shape[-1], dtype=C.dtype, device=C.device)
    kept = (1.0 - shrinkage)[..., None, None] * C
    return kept + (shrinkage * mu)[..., None, None] * eye


def _oas(X: Tensor) -> Tensor:
    C = _scm(X)
    n, n_times = C.shape[-1], X.shape[-1]
    mu = _trace(C) / n
    alpha = (C**2).mean(dim=(-1, -2))
    # Eq. 23 without its terms in 2 / n, as scikit-learn has it.
    numerator = alpha + mu**2
    denominator = (n_times + 1.0) * (alpha - mu**2 / n)
    # C = mu I, also of one channel or of a constant trial: nothing left to shrink.
    usable = denominator > 0
    ratio = numerator / torch.where(usable, denominator, 1.0)
    return _shrink(C, torch.where(usable, ratio.clamp(max=1.0), 1.0))


def _lwf(X: Tensor) -> Tensor:
    Z = _centred(X)
    n, n_times = Z.shape[-2], Z.shape[-1]
    C = Z @ Z.mT / n_times
    mu = _trace(C) / n
    # The mean over time of ||z z'||^2, without forming a matrix for each sample.
    squares = (Z**2).sum(dim=-2)
    fourth = (squares**2).sum(dim=-1) / n_times
    norm = (C**2).sum(dim=(-1, -2))
    beta = (fourth - norm) / (n * n_times)
    delta = (norm - n * mu**2) / n
    beta = torch.minimum(beta, delta)
    ratio = beta / torch.where(delta > 0, delta, 1.0)
    return _shrink(C, torch.where(beta > 0, ratio, 0.0))


_ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "oas": _oas,
    "lwf": _lwf,
    "scm": _scm,
}


@bridged
def rank(C: Array) -> Array:
    """Return the numerical rank of symmetric matrices, shape (...).

    An eigenvalue counts when it exceeds n * 1e-12 of the largest: what average
    referencing, ICA or interpolation in floating point leave behind is below.
    """
    values = eigvalsh(C)
    floor = values.shape[-1] * 1e-12 * values.abs().amax(dim=-1, keepdim=True)
    return (values > floor).sum(dim=-1)
