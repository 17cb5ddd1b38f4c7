"""Bounds of smoothed scores under noise that is not Gaussian: l1, l2, l_inf."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtr, ndtri, stdtrit

from eegtensor._check import check_option, fail
from eegtensor.trust.certificates.bounds import gaussian_radius

NORMS = ("l1", "l2", "linf")
# The integrals were wrong by 3.3e-5 at most, over 295 settings with closed forms.
_SLACK = 5e-5
_LEAST = 10
_DRAWS = 50_000


def _nodes(count: int) -> tuple[NDArray, NDArray]:
    """Return shares in (0, 1) and weights, even on the normal scale: tails decide."""
    places, steps = np.polynomial.legendre.leggauss(count)
    weights = steps * np.exp(-0.5 * (7.5 * places) ** 2)
    return ndtr(7.5 * places), weights / weights.sum()


# A kink runs through the directions; sizes hardly vary where values are many.
_SIZES, _DIRECTIONS = _nodes(100), _nodes(1200)


class SmoothingNoise(NamedTuple):
    """Noise of d values, and what it certifies against displacements of a norm.

    Densities: l2, |z|_2^-k exp(-|z|_2^2 / 2 sigma^2); l1, |z|_1^-k exp(-|z|_1 / sigma);
    linf, |z|_inf^-k exp(-|z|_2^2 / 2 sigma^2). A larger k draws noise towards zero: it
    disturbs the decoder less and protects it less. l2 with k = 0 is Gaussian noise, l1
    with k = 0 Laplace noise.

    Attributes
    ----------
    norm : "l1" | "l2" | "linf"
    sigma : float
    d : int
        Values of a trial: channels times samples.
    k : float
        In [0, d).

    References
    ----------
    D. Zhang et al., "Black-box certification with randomized smoothing: a functional
    optimization based framework", NeurIPS 2020.
    """

    norm: str
    sigma: float
    d: int
    k: float = 0.0

    def checked(self) -> SmoothingNoise:
        """Return itself, or raise where there is no such noise."""
        check_option("norm", self.norm, NORMS)
        if not (self.sigma > 0 and 0 <= self.k < self.d):
            fail(
                f"sigma={self.sigma!r} and k={self.k!r} for {self.d} values",
                fix="choose sigma above 0 and k in [0, number of values)",
            )
        if self.d < _LEAST and (self.norm != "l2" or self.k):
            fail(
                f"{self.d} values",
                why="The integrals of the bounds are not exact enough for so few",
                fix="choose norm='l2' and k=0, whose bound is a formula",
            )
        return self

    def draw(self, n: int, rng: np.random.Generator) -> NDArray:
        """Return n draws, shape (n, d)."""
        d, k, s = self.d, self.k, self.sigma
        if self.norm == "l1":
            # The direction of a Laplace vector does not depend on its length.
            z = rng.laplace(size=(n, d))
            length = rng.gamma(d - k, s, (n, 1))
            return z * (length / np.abs(z).sum(axis=1, keepdims=True))
        if self.norm == "l2":
            z = rng.standard_normal((n, d))
            length = np.sqrt(rng.gamma(0.5 * (d - k), 2.0 * s * s, (n, 1)))
            return z * (length / np.linalg.norm(z, axis=1, keepdims=True))
        # The largest value first; the others are normal within its bounds.
        top = _largest(d, k, rng.random(n))
        z = rng.standard_normal((n, d))
        while len(out := np.flatnonzero(np.abs(z) > top[:, None])):
            z.flat[out] = rng.standard_normal(len(out))
        z[np.arange(n), rng.integers(d, size=n)] = rng.choice((-1.0, 1.0), n) * top
        return s * z

    def lower_bound(
        self,
        p: float,
        radius: float,
        *,
        alpha: float = 1e-3,
        random_state: int = 0,
    ) -> float:
        """Return the least smoothed score at displacements of a radius.

        max over l > 0 of l p - E[(l - pi(z - delta) / pi(z))_+], at the worst delta:
        along an axis for l1, any for l2, a corner for linf. An integral of two
        variables for l1 and l2, less what
        they may be wrong by. For linf two halves of draws: one
        chooses l, the other gives a bound that fails with probability alpha.

        Parameters
        ----------
        p : float
            Lower bound of the score at the trial itself.
        radius : float
        alpha, random_state
            Of linf.
        """
        self.checked()
        if radius <= 0 or p <= 0:
            return max(p, 0.0)
        if self.norm == "l2" and not self.k:
            return float(ndtr(ndtri(p) - radius / self.sigma))
        if self.norm == "linf":
            return self._sampled(p, radius, alpha, random_state)

        log_ratio, weight = self._ratios(radius)
        order = np.argsort(log_ratio)
        ratio, weight = np.exp(log_ratio[order]), weight[order]
        below = np.cumsum(weight)
        # The best l is the ratio up to which the share p lies.
        at = min(int(np.searchsorted(below, p)), len(ratio) - 1)
        level = ratio[at]
        value = level * p - weight[:at] @ (level - ratio[:at])
        return float(np.clip(value - _SLACK, 0.0, p))

    def _ratios(self, r: float) -> tuple[NDArray, NDArray]:
        """Return log pi(z - delta) / pi(z) and weights at nodes of size and place."""
        d, s = self.d, self.sigma
        if self.norm == "l2":
            scale, power = 2.0 * s * s, 0.5 * self.k
            size = scale * gammaincinv(0.5 * (d - self.k), _SIZES[0])[:, None]
            # Sizes are squares; the cotangent of the angle follows Student's law.
            turn = stdtrit(d - 1.0, _DIRECTIONS[0])
            cosine = turn / np.sqrt(d - 1.0 + turn**2)
            moved = size + r * r - 2.0 * r * np.sqrt(size) * cosine
            share = _DIRECTIONS[1]
        else:
            scale, power = s, self.k
            size = scale * gammaincinv(d - self.k, _SIZES[0])[:, None]
            # |z - r e| = |z| - |z_1| + |z_1 - r|; |z_1| / |z| follows Beta(1, d - 1).
            first = size * -np.expm1(np.log1p(-_DIRECTIONS[0]) / (d - 1))
            moved = size - first + np.abs(first - r)
            moved = np.concatenate([moved, size + r], axis=1)
            share = 0.5 * np.append(_DIRECTIONS[1], 1.0)
        # log pi(z) = -power log(size) - size / scale.
        gain = power * (np.log(size) - np.log(moved)) + (size - moved) / scale
        return gain.ravel(), np.outer(_SIZES[1], share).ravel()

    def _sampled(self, p: float, r: float, alpha: float, seed: int) -> float:
        first, second = (self._log_ratios(part, r) for part in _extremes(self, seed))
        log_l = float(np.quantile(first, min(p, 1.0)))
        # (1 - ratio / l)_+ lies in [0, 1]: Maurer and Pontil's empirical Bernstein.
        shortfall = np.maximum(0.0, -np.expm1(np.minimum(second - log_l, 0.0)))
        n, log_odds = len(shortfall), np.log(2.0 / alpha)
        slack = np.sqrt(2.0 * shortfall.var(ddof=1) * log_odds / n)
        slack += 7.0 * log_odds / (3.0 * (n - 1))
        value = np.exp(log_l) * (p - shortfall.mean() - slack)
        return float(np.clip(value, 0.0, p))

    def _log_ratios(self, extremes: NDArray, r: float) -> NDArray:
        low, high, total = extremes
        moved = np.maximum(r - low, high - r)
        gain = (2.0 * r * total - self.d * r * r) / (2.0 * self.sigma**2)
        return gain - self.k * (np.log(moved) - np.log(np.maximum(-low, high)))

    def radius(self, p: float, *, alpha: float = 1e-3, random_state: int = 0) -> float:
        """Return the largest radius at which the bound is above one half.

        Parameters
        ----------
        p : float
        alpha, random_state
            Of linf: the same draws for each of 20 radii that are tried, each of which
            may fail with probability alpha / 20.
        """
        if p <= 0.5:
            return 0.0
        if self.norm == "l2" and not self.k:
            return float(gaussian_radius(p, self.sigma))
        tries = 20

        def holds(r: float) -> bool:
            options: dict[str, Any] = {"random_state": random_state}
            return self.lower_bound(p, r, alpha=alpha / tries, **options) > 0.5

        low, high, used = 0.0, 0.5 * self.sigma, 1
        while holds(high) and used < tries // 2:
            low, high, used = high, 2.0 * high, used + 1
        while used < tries:
            middle = 0.5 * (low + high)
            low, high = (middle, high) if holds(middle) else (low, middle)
            used += 1
        return low


def _largest(d: int, k: float, u: NDArray) -> NDArray:
    """Return draws of the largest |z| by its distribution function, of unit normals."""
    m = np.linspace(1e-3, np.sqrt(2.0 * np.log(2.0 * d)) + 8.0, 40_001)
    middle = 0.5 * (m[1:] + m[:-1])
    with np.errstate(divide="ignore"):
        log_p = -k * np.log(middle) - 0.5 * middle**2
        log_p += (d - 1) * np.log(2.0 * ndtr(middle) - 1.0)
    p = np.exp(log_p - log_p.max())
    share = np.r_[0.0, np.cumsum(p)] / p.sum()
    return np.interp(u, share, m)


@lru_cache(maxsize=4)
def _extremes(noise: SmoothingNoise, seed: int) -> tuple[NDArray, NDArray]:
    """Return least, largest and summed values of draws, two of (3, n_draws)."""
    rng, size = np.random.default_rng(seed), max(1, 4_000_000 // noise.d)
    halves = []
    for _ in range(2):
        rows = []
        for start in range(0, _DRAWS, size):
            z = noise.draw(min(size, _DRAWS - start), rng)
            rows.append([z.min(axis=1), z.max(axis=1), z.sum(axis=1)])
        halves.append(np.concatenate(rows, axis=1))
    return halves[0], halves[1]
