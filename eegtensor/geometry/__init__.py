"""SPD mathematics: pure, batched functions on arrays of shape (..., n, n)."""

from eegtensor.geometry.covariance import covariances, rank
from eegtensor.geometry.mean import frechet_mean
from eegtensor.geometry.metrics import distance, geodesic
from eegtensor.geometry.spectral import (
    congruence,
    expm,
    inv_sqrtm,
    logm,
    powm,
    sqrtm,
    sqrtm_pair,
)
from eegtensor.geometry.vectors import from_upper_vector, upper_vector

__all__ = [
    "congruence",
    "covariances",
    "distance",
    "expm",
    "frechet_mean",
    "from_upper_vector",
    "geodesic",
    "inv_sqrtm",
    "logm",
    "powm",
    "rank",
    "sqrtm",
    "sqrtm_pair",
    "upper_vector",
]
