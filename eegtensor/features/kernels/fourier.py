"""Random Fourier features of kernels that are asymmetric or not positive definite."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from eegtensor._check import (
    as_generator,
    check_count,
    check_number,
    check_option,
    fail,
)
from eegtensor.features.kernels._heads import median_gamma
from eegtensor.features.kernels._spectra import (
    Part,
    gaussian_difference,
    shifted_gaussian,
)


class _FourierFeatures(TransformerMixin, BaseEstimator):
    random_state: int | None
    n_components: int
    parts_: list[Part]

    def _checked(self, X: Any) -> NDArray:
        X = validate_data(self, X, dtype=np.float64)
        check_count("n_components", self.n_components)
        return X

    def _waves(self, X: Any) -> list[tuple[NDArray, NDArray]]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        angles = [X @ part.frequencies.T for part in self.parts_]
        return [(np.cos(a), np.sin(a)) for a in angles]

    def _scale(self, part: Part) -> float:
        return float(np.sqrt(part.mass / len(part.frequencies)))

    def transform(self, X: NDArray) -> NDArray:
        """Return features, shape (n_trials, 2 n_components n_parts).

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        """
        found = [
            self._scale(part) * np.hstack(waves)
            for part, waves in zip(self.parts_, self._waves(X), strict=True)
        ]
        return np.hstack(found)

    def _width(self, X: NDArray, width: float | str) -> float:
        if width == "median":
            # exp(-gamma d^2) = exp(-d^2 / (2 width^2)).
            return float(np.sqrt(0.5 / median_gamma(X, "median")))
        return check_number("width", width, above=0.0)


class AsymmetricFourierFeatures(_FourierFeatures):
    """AsK-RFF: two sets of features whose products are an asymmetric kernel.

    K(x, z) = exp(-|x - z - shift|^2 / (2 width^2)), the similarity to what came a
    shift before, is the product of `transform(x)` and `transform_target(z)`. Its
    spectrum is complex: four positive measures, of cosines and of sines.

    Parameters
    ----------
    shift : float
        Length of the shift in widths.
    direction : tuple of float | None
        Of the shift, one number a feature; None is (1, ..., 1).
    width : float | "median"
        "median": sqrt(median squared distance / 2), which knows no unit.
    n_components : int
        Frequencies of each of at most four measures.
    masses : "exact" | "fitted"
        Total masses: known, and then K is unbiased; or fitted by nonnegative least
        squares to K of 200 training trials, as published for kernels whose masses
        are not known.
    random_state : int | None

    Attributes
    ----------
    parts_ : list of Part

    References
    ----------
    M. He et al., "Random Fourier features for asymmetric kernels", Machine
    Learning, 2024.
    """

    def __init__(
        self,
        shift: float = 1.0,
        direction: tuple[float, ...] | None = None,
        width: float | str = "median",
        n_components: int = 100,
        masses: str = "exact",
        random_state: int | None = 0,
    ) -> None:
        self.shift = shift
        self.direction = direction
        self.width = width
        self.n_components = n_components
        self.masses = masses
        self.random_state = random_state

    def fit(self, X: NDArray, y: ArrayLike | None = None) -> Self:
        """Draw frequencies.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : None
        """
        check_option("masses", self.masses, ("exact", "fitted"))
        shift = check_number("shift", self.shift, least=0.0)
        X = self._checked(X)
        d = X.shape[1]
        way = np.ones(d) if self.direction is None else np.asarray(self.direction)
        if way.shape != (d,) or not np.linalg.norm(way) > 0:
            fail(
                f"direction={self.direction!r}",
                fix=f"give {d} numbers, not all zero, or None",
            )
        self.width_ = self._width(X, self.width)
        self.shift_ = shift * self.width_ * way / np.linalg.norm(way)
        rng = as_generator(self.random_state)
        self.parts_ = shifted_gaussian(self.n_components, self.shift_, self.width_, rng)
        if self.masses == "fitted":
            self._fit_masses(X[:: max(1, -(-len(X) // 200))])
        return self

    def kernel(self, X: NDArray, Z: NDArray) -> NDArray:
        """Return the exact K(x, z), shape (n, m)."""
        check_is_fitted(self)
        d = np.asarray(X)[:, None] - np.asarray(Z) - self.shift_
        return np.exp(-(d**2).sum(axis=2) / (2 * self.width_**2))

    def transform_target(self, X: NDArray) -> NDArray:
        """Return the other side's features, shape as of `transform`.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        """
        found = []
        for part, (c, s) in zip(self.parts_, self._waves(X), strict=True):
            # sin(a - b) = sin a cos b - cos a sin b, in the order (cos a, sin a).
            own = np.hstack([-s, c]) if part.odd else np.hstack([c, s])
            found.append(part.sign * self._scale(part) * own)
        return np.hstack(found)

    def _fit_masses(self, X: NDArray) -> None:
        alone = [part._replace(mass=1.0) for part in self.parts_]
        self.parts_ = alone
        left = np.split(self.transform(X), len(alone), axis=1)
        right = np.split(self.transform_target(X), len(alone), axis=1)
        columns = [(a @ b.T).ravel() for a, b in zip(left, right, strict=True)]
        masses, _ = nnls(np.stack(columns, axis=1), self.kernel(X, X).ravel())
        self.parts_ = [
            part._replace(mass=float(mass))
            for part, mass in zip(alone, masses, strict=True)
        ]


class IndefiniteFourierFeatures(_FourierFeatures):
    """GORF: orthogonal random features of a kernel that is not positive definite.

    The difference of two Gaussians, K(x, z) = c1 exp(-|x - z|^2 / (2 s1^2)) -
    c2 exp(-|x - z|^2 / (2 s2^2)), is transform(x) diag(signs_) transform(z)' on
    average over draws. With c2 = 0 these are orthogonal random features.

    Parameters
    ----------
    coefficients : (float, float)
    widths : (float, float)
        In `width`.
    width : float | "median"
        "median": sqrt(median squared distance / 2), which knows no unit.
    n_components : int
        Frequencies of the positive measure, and of the negative one.
    orthogonal : bool
        Directions in orthogonal blocks, which lowers the variance; else independent.
    random_state : int | None

    Attributes
    ----------
    parts_ : list of Part
    signs_ : ndarray, shape (n_columns,)
        Of each column of `transform`: products of columns of sign -1 count
        negatively. A linear model of the columns needs no signs.

    References
    ----------
    Q. Luo, K. Fang, J. Yang and X. Huang, "Towards unbiased random features with
    lower variance for stationary indefinite kernels", IJCNN, 2021; F. X. Yu et al.,
    "Orthogonal random features", NeurIPS, 2016.
    """

    def __init__(
        self,
        coefficients: tuple[float, float] = (1.0, 0.5),
        widths: tuple[float, float] = (1.0, 3.0),
        width: float | str = "median",
        n_components: int = 100,
        orthogonal: bool = True,
        random_state: int | None = 0,
    ) -> None:
        self.coefficients = coefficients
        self.widths = widths
        self.width = width
        self.n_components = n_components
        self.orthogonal = orthogonal
        self.random_state = random_state

    def fit(self, X: NDArray, y: ArrayLike | None = None) -> Self:
        """Draw frequencies.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : None
        """
        c1, c2 = (check_number("coefficients", c, least=0.0) for c in self.coefficients)
        s1, s2 = (check_number("widths", s, above=0.0) for s in self.widths)
        if not c1 + c2 > 0:
            fail("Both coefficients are 0", fix="give one above 0")
        X = self._checked(X)
        self.width_ = self._width(X, self.width)
        self.parts_ = gaussian_difference(
            self.n_components,
            X.shape[1],
            (c1, c2),
            (s1 * self.width_, s2 * self.width_),
            as_generator(self.random_state),
            orthogonal=self.orthogonal,
        )
        signs = [np.full(2 * len(p.frequencies), p.sign) for p in self.parts_]
        self.signs_ = np.concatenate(signs)
        return self

    def kernel(self, X: NDArray, Z: NDArray) -> NDArray:
        """Return the exact K(x, z), shape (n, m)."""
        check_is_fitted(self)
        d = ((np.asarray(X)[:, None] - np.asarray(Z)) ** 2).sum(axis=2)
        widths = [s * self.width_ for s in self.widths]
        one, two = (np.exp(-d / (2 * s**2)) for s in widths)
        found: NDArray = self.coefficients[0] * one - self.coefficients[1] * two
        return found
