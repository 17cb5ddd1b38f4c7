"""Spectral measures of kernels: frequencies drawn from them, and their masses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi, ortho_group

# A trapezoid on this many points is exact to 1e-6 of the mass.
_POINTS = 1 << 12


class Part(NamedTuple):
    """A positive piece of a signed measure: frequencies, mass, sign, and its wave.

    Attributes
    ----------
    frequencies : ndarray, shape (n_components, n_features)
        Drawn from the piece over its mass.
    mass : float
    sign : float
        Plus or minus one.
    odd : bool
        Whether the piece weighs sin(w'd) and not cos(w'd).
    """

    frequencies: NDArray
    mass: float
    sign: float
    odd: bool


def split(density: NDArray, grid: NDArray) -> list[tuple[float, float, NDArray]]:
    """Return (sign, mass, cumulative) of the positive and negative part on a grid."""
    parts = []
    for sign in (1.0, -1.0):
        own = np.maximum(sign * density, 0.0)
        cumulative = np.concatenate(
            [[0.0], np.cumsum(0.5 * (own[1:] + own[:-1]) * np.diff(grid))]
        )
        if cumulative[-1] > 1e-12:
            parts.append((sign, float(cumulative[-1]), cumulative))
    return parts


def directions(
    n: int, d: int, rng: np.random.Generator, *, orthogonal: bool
) -> NDArray:
    """Return unit vectors (n, d), uniform; in blocks of d orthogonal ones if asked.

    Blocks are Haar, so that waves that are not even (sines) are unbiased too: Q of
    a QR decomposition is not, unless R's diagonal is positive.
    """
    if not orthogonal or d == 1:
        drawn = rng.standard_normal((n, d))
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    n_blocks = -(-n // d)
    blocks = ortho_group.rvs(d, size=n_blocks, random_state=rng)
    found: NDArray = np.reshape(blocks, (n_blocks * d, d))[:n]
    return found


def shifted_gaussian(
    n: int, shift: NDArray, width: float, rng: np.random.Generator
) -> list[Part]:
    """Return the four pieces of k(d) = exp(-|d - shift|^2 / (2 width^2)).

    Its measures are cos(w'shift) N(w) for cosines and sin(w'shift) N(w) for sines,
    N the normal density of standard deviation 1 / width. Only the frequency along
    the shift is weighed, so that one dimension is drawn by its distribution.

    Parameters
    ----------
    n : int
        Frequencies a piece.
    shift : ndarray, shape (n_features,)
    width : float
    rng : numpy.random.Generator
    """
    d, length = len(shift), float(np.linalg.norm(shift))
    along = shift / length if length > 0 else np.eye(d)[0]
    grid = np.linspace(-9.0, 9.0, _POINTS)
    normal = np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi)
    phase = grid * length / width
    parts = []
    for odd, wave in ((False, np.cos(phase)), (True, np.sin(phase))):
        for sign, mass, cumulative in split(wave * normal, grid):
            w = rng.standard_normal((n, d))
            u = np.interp(mass * rng.random(n), cumulative, grid)
            w += (u - w @ along)[:, None] * along
            parts.append(Part(w / width, mass, sign, odd))
    return parts


def gaussian_difference(
    n: int,
    d: int,
    coefficients: tuple[float, float],
    widths: tuple[float, float],
    rng: np.random.Generator,
    *,
    orthogonal: bool,
) -> list[Part]:
    """Return the pieces of k = c1 exp(-|d|^2 / 2 s1^2) - c2 exp(-|d|^2 / 2 s2^2).

    Frequencies have uniform directions, and radii of the positive and the negative
    part of c1 chi_d(s1 r) s1 - c2 chi_d(s2 r) s2.
    """
    (c1, c2), (s1, s2) = coefficients, widths
    law = chi(d)
    top = float(law.isf(1e-14)) / min(s1, s2)
    # Two scales: both densities are resolved whatever the widths' ratio is.
    grid = np.unique(
        np.concatenate(
            [np.linspace(0.0, float(law.isf(1e-14)) / s, _POINTS) for s in (s1, s2)]
            + [[top]]
        )
    )
    density = c1 * s1 * law.pdf(s1 * grid) - c2 * s2 * law.pdf(s2 * grid)
    parts = []
    for sign, mass, cumulative in split(density, grid):
        radii = np.interp(mass * rng.random(n), cumulative, grid)
        w = radii[:, None] * directions(n, d, rng, orthogonal=orthogonal)
        parts.append(Part(w, mass, sign, False))
    return parts
