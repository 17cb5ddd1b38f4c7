"""SPD mathematics: pure, batched functions on arrays of shape (..., n, n).

Tensors in, tensors out, with gradients; NumPy arrays in, NumPy arrays out.
"""

from typing import TYPE_CHECKING, Any

from eegtensor.geometry.covariance import covariances, rank
from eegtensor.geometry.mean import dispersion, frechet_mean
from eegtensor.geometry.median import geometric_median
from eegtensor.geometry.metrics import (
    distance,
    exp_map,
    geodesic,
    inner,
    log_map,
    norm,
    transport,
)
from eegtensor.geometry.random import random_spd, random_tangent
from eegtensor.geometry.spectral import (
    congruence,
    expm,
    inv_sqrtm,
    logm,
    powm,
    rectify,
    sqrtm,
    sqrtm_pair,
    symmetrize,
)
from eegtensor.geometry.vectors import from_upper_vector, upper_vector

if TYPE_CHECKING:
    from eegtensor.geometry.manifolds import SPD

__all__ = [
    "SPD",
    "congruence",
    "covariances",
    "dispersion",
    "distance",
    "exp_map",
    "expm",
    "frechet_mean",
    "from_upper_vector",
    "geodesic",
    "geometric_median",
    "inner",
    "inv_sqrtm",
    "log_map",
    "logm",
    "norm",
    "powm",
    "random_spd",
    "random_tangent",
    "rank",
    "rectify",
    "sqrtm",
    "sqrtm_pair",
    "symmetrize",
    "transport",
    "upper_vector",
]


def __getattr__(name: str) -> Any:
    # geoopt takes a second to import, and only parameters on manifolds need it.
    if name == "SPD":
        from eegtensor.geometry.manifolds import SPD

        return SPD
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
