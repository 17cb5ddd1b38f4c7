"""Spherical splines: a channel from where the others sit, without any statistics.

F. Perrin, J. Pernier, O. Bertrand and J. F. Echallier, Spherical splines for
scalp potential and current density mapping, Electroencephalography and Clinical
Neurophysiology 72, 184-187 (1989). The number of terms and the ridge are MNE's,
so that the weights are MNE's to rounding.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import fail, listing
from eegtensor.geometry._bridge import Array, bridged

TERMS = 50
RIDGE = 1e-5


def _kernel(cosine: Tensor) -> Tensor:
    """Return g(cos) = sum_n (2n + 1) / (4 pi n^4 (n + 1)^4) P_n(cos)."""
    n = np.arange(1, TERMS + 1)
    weights = (2 * n + 1) / (4 * math.pi * (n * (n + 1.0)) ** 4)
    series = np.concatenate([[0.0], weights])
    values = np.polynomial.legendre.legval(cosine.numpy(force=True), series)
    return torch.from_numpy(np.asarray(values)).to(cosine)


def unit_positions(positions: Array) -> Tensor:
    """Return directions of electrodes from the sphere's centre, float64.

    Parameters
    ----------
    positions : array, shape (n_channels, 3)
        About the centre of the head's sphere; the unit does not matter.
    """
    try:
        places = torch.as_tensor(positions, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(positions).__name__
        fail(f"positions are no numbers ({kind})", fix="give x, y, z", cause=error)
    if places.ndim != 2 or places.shape[1] != 3:
        fail(
            f"positions has shape {tuple(places.shape)}",
            fix="give x, y, z of every channel: shape (n_channels, 3)",
        )
    lengths = places.norm(dim=1, keepdim=True)
    bad = ~(lengths[:, 0] > 0) | ~places.isfinite().all(dim=1)
    if bool(bad.any()):
        fail(
            f"channels {listing(bad.nonzero()[:, 0].tolist())} have no position "
            "(zero or not finite)",
            fix="set a montage that holds every channel, or drop these channels",
        )
    return places / lengths


@bridged
def spline_weights(seen: Array, lost: Array) -> Array:
    """Return the weights that estimate lost channels from those seen.

    Parameters
    ----------
    seen, lost : array, shape (n, 3) and (m, 3)
        Positions about the centre of the head's sphere.

    Returns
    -------
    weights : array, shape (m, n), float64
        Of the minimiser of the bending energy of order 4 with ridge 1e-5; every
        row sums to one.
    """
    here, there = unit_positions(seen), unit_positions(lost)
    weights, _ = _solve(here, there)
    return weights


def spline_error(seen: Tensor, lost: Tensor) -> Tensor:
    """Return how far a lost channel is from those seen, shape (m,), relative.

    The standard deviation of the estimate if the scalp potential were a random
    field with the spline's kernel (universal kriging), up to one factor.
    """
    here, there = unit_positions(seen), unit_positions(lost)
    _, variance = _solve(here, there)
    return variance.clamp_min(0).sqrt()


def _solve(here: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    n = len(here)
    system = here.new_zeros(n + 1, n + 1)
    system[:n, :n] = _kernel(here @ here.T) + RIDGE * torch.eye(n).to(here)
    system[:n, n] = system[n, :n] = 1.0
    right = torch.cat([_kernel(there @ here.T), there.new_ones(len(there), 1)], 1)
    # As MNE: the pseudo-inverse, which also serves electrodes at one place.
    solution = right @ torch.linalg.pinv(system)
    at_zero = _kernel(there.new_ones(1))
    return solution[:, :n], at_zero - (solution * right).sum(dim=1)


def spline_operators(seen: Tensor, positions: Tensor) -> Tensor:
    """Return for every pattern the matrix that fills a column, (n_patterns, n, n).

    Parameters
    ----------
    seen : Tensor of bool, shape (n_patterns, n_channels)
    positions : Tensor, shape (n_channels, 3)
        Directions from the sphere's centre.

    Notes
    -----
    Rows of seen channels are those of the identity. Fewer than three channels
    seen give their mean, none gives zero.
    """
    n = len(positions)
    kernel = _kernel(positions @ positions.T)
    have = seen.to(kernel)
    system = kernel.new_zeros(len(seen), n + 1, n + 1)
    system[:, :n, :n] = kernel * have[:, :, None] * have[:, None, :]
    # Lost channels become unit equations without a right-hand side.
    system[:, :n, :n] += torch.diag_embed(have * RIDGE + (1 - have))
    system[:, :n, n] = system[:, n, :n] = have
    few = seen.sum(dim=1) < 3
    system[few] = torch.eye(n + 1).to(system)
    right = torch.cat([kernel, kernel.new_ones(n, 1)], dim=1)
    right = torch.cat([have, have.new_ones(len(have), 1)], dim=1)[:, None] * right
    weights = torch.linalg.solve(system, right.mT).mT[:, :, :n]
    mean = have / have.sum(dim=1, keepdim=True).clamp_min(1)
    weights[few] = mean[few][:, None]
    return torch.where(seen[:, :, None], torch.eye(n).to(kernel), weights)
