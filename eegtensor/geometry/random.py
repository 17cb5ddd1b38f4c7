"""Random SPD matrices and tangent vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import RandomState, as_generator, fail
from eegtensor.geometry._bridge import Array, floating
from eegtensor.geometry.metrics import get_metric
from eegtensor.geometry.spectral import from_eig, symmetrize


def _normal(shape: tuple[int, ...], random_state: Any, like: Tensor) -> Tensor:
    if isinstance(random_state, torch.Generator):
        drawn = torch.randn(
            shape,
            generator=random_state,
            device=random_state.device,
            dtype=torch.float64,
        )
        return drawn.to(like)
    return torch.from_numpy(as_generator(random_state).standard_normal(shape)).to(like)


def random_spd(
    n: int,
    size: int | tuple[int, ...] = (),
    *,
    condition: float = 100.0,
    scale: float = 1.0,
    random_state: RandomState | torch.Generator = None,
) -> Array:
    """Return random SPD matrices with directions uniform over rotations.

    Parameters
    ----------
    n : int
    size : int | tuple of int
        Leading axes.
    condition : float
        Ratio of the largest to the smallest eigenvalue, exactly; those between
        are uniform in the logarithm.
    scale : float
        Geometric mean of the largest and the smallest eigenvalue.
    random_state : int | numpy.random.Generator | torch.Generator | None

    Returns
    -------
    X : ndarray, or tensor where a torch.Generator is given, shape (*size, n, n)
        float64.

    Raises
    ------
    EEGTensorError
        If n, condition or scale is out of range.
    """
    if n < 1 or not (1.0 <= condition < math.inf) or not (0.0 < scale < math.inf):
        fail(
            f"n={n!r}, condition={condition!r}, scale={scale!r} make no SPD matrix",
            fix="give n >= 1, condition >= 1 and scale > 0",
        )
    shape = (size,) if isinstance(size, int) else tuple(size)
    if not isinstance(random_state, torch.Generator):
        random_state = as_generator(random_state)
        like = torch.empty(0, dtype=torch.float64)
    else:
        like = torch.empty(0, dtype=torch.float64, device=random_state.device)
    # The signs of its columns, which are not uniform, cancel in Q diag(values) Q'.
    Q = torch.linalg.qr(_normal((*shape, n, n), random_state, like))[0]
    # Normal deviates become uniform ones by their distribution function.
    place = torch.special.ndtr(_normal((*shape, n), random_state, like))
    if n > 1:
        low, high = place.amin(-1, keepdim=True), place.amax(-1, keepdim=True)
        # Stretched over all of [0, 1]: the ends have the ratio asked for.
        place = (place - low) / (high - low)
    else:
        place = torch.full_like(place, 0.5)
    values = scale * torch.exp((place - 0.5) * math.log(condition))
    X = symmetrize(from_eig(values, Q))
    return X if isinstance(random_state, torch.Generator) else X.numpy()


def random_tangent(
    A: Array,
    *,
    metric: str = "affine-invariant",
    random_state: RandomState | torch.Generator = None,
) -> Array:
    """Return a normal tangent vector at each A, isotropic in the metric.

    Its squared norm in the metric is chi-squared with n (n + 1) / 2 degrees of
    freedom.

    Parameters
    ----------
    A : array or tensor, shape (..., n, n), SPD
    metric : str
        As in `distance`.
    random_state : int | numpy.random.Generator | torch.Generator | None

    Returns
    -------
    V : array or tensor, shape (..., n, n), symmetric
    """
    functions = get_metric(metric)
    point = A if isinstance(A, Tensor) else torch.from_numpy(np.array(A))
    point = floating(point)
    N = _normal(tuple(point.shape), random_state, point).triu()
    # Each of the two entries off the diagonal has half the weight.
    diagonal = torch.diag_embed(N.diagonal(dim1=-2, dim2=-1))
    N = (N + N.mT - 2.0 * diagonal) * math.sqrt(0.5) + diagonal
    with torch.no_grad():
        V = functions.from_frame(point, N)
    return V if isinstance(A, Tensor) else V.numpy()
