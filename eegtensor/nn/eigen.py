"""Layers that act on eigenvalues, and the vectors that follow them."""

from __future__ import annotations

from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.geometry._bridge import floating
from eegtensor.geometry.normalization import rectify_where_needed
from eegtensor.geometry.spectral import expm, logm
from eegtensor.geometry.vectors import upper_vector
from eegtensor.nn._precision import full_precision


def _square(X: Tensor) -> Tensor:
    if X.ndim < 2 or X.shape[-1] != X.shape[-2]:
        fail(
            f"X has shape {tuple(X.shape)}",
            fix="give symmetric matrices of shape (..., n, n)",
        )
    return X


def check_threshold(threshold: float) -> float:
    """Raise unless a threshold is a part of the mean eigenvalue; return it."""
    if not 0.0 <= threshold < 1.0:
        fail(
            f"threshold={threshold!r}",
            why="It is a part of the mean eigenvalue",
            fix="choose a number from 0 to 1, such as 1e-4",
        )
    return threshold


class ReEig(nn.Module):
    """Raise small eigenvalues (Huang and Van Gool, 2017), (..., n, n) to the same.

    Parameters
    ----------
    threshold : float
        Lowest eigenvalue, as a part of the matrix's mean eigenvalue: the unit
        of the signals makes no difference.
    """

    def __init__(self, threshold: float = 1e-4) -> None:
        super().__init__()
        self.threshold = check_threshold(threshold)

    def forward(self, X: Tensor) -> Tensor:
        """Return X with eigenvalues of at least the threshold."""
        X = _square(X)
        with full_precision(X):
            flat = floating(X).reshape(-1, *X.shape[-2:])
            return rectify_where_needed(flat, self.threshold).view(X.shape)

    def extra_repr(self) -> str:
        """Return the threshold, for printing."""
        return f"threshold={self.threshold}"


class LogEig(nn.Module):
    """Matrix logarithm, (..., n, n) to the same or to tangent vectors.

    Parameters
    ----------
    vector : bool
        Whether `TangentVector` is applied to the logarithm.
    """

    def __init__(self, vector: bool = False) -> None:
        super().__init__()
        self.vector = vector

    def forward(self, X: Tensor) -> Tensor:
        """Return log X, shape (..., n, n), or (..., n (n + 1) / 2) as vectors."""
        with full_precision(X):
            # Autocast would put the logarithm together again in two digits.
            L: Tensor = logm(_square(X))
            return upper_vector(L) if self.vector else L


class ExpEig(nn.Module):
    """Matrix exponential of symmetric matrices, (..., n, n) to SPD ones."""

    def forward(self, X: Tensor) -> Tensor:
        """Return exp X."""
        with full_precision(X):
            E: Tensor = expm(_square(X))
        return E


class TangentVector(nn.Module):
    """Upper triangle, off-diagonal entries times sqrt(2): the norm is kept."""

    def forward(self, X: Tensor) -> Tensor:
        """Return vectors of shape (..., n (n + 1) / 2)."""
        v: Tensor = upper_vector(_square(X))
        return v
