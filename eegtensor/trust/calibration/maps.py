"""Maps of logits that make probabilities honest."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator
from sklearn.isotonic import IsotonicRegression

from eegtensor._check import check_lengths, check_number, fail
from eegtensor.features._base import check_fitted


class OutputMap(BaseEstimator):
    """Base of maps of logits, fitted to trials that the decoder was not fitted to.

    A subclass defines `_fit` and `_map`. Domains matter to `DomainTemperature` alone.

    Attributes
    ----------
    n_classes_ : int
    """

    def fit(
        self, logits: NDArray, y: ArrayLike, domains: ArrayLike | None = None
    ) -> Self:
        """Learn from held-out trials.

        Parameters
        ----------
        logits : ndarray, shape (n_trials, n_classes)
        y : array-like of int, shape (n_trials,)
            Codes: columns of the logits.
        domains : array-like, shape (n_trials,) | None
            Names.

        Raises
        ------
        EEGTensorError
            If shapes, codes or numbers do not fit.
        """
        z, codes = _checked(logits), np.asarray(y)
        check_lengths(len(z), y=codes, domains=domains)
        if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= z.shape[1]:
            fail(
                f"y holds {codes.dtype} beside {z.shape[1]} columns of logits",
                fix="give the column of each trial's class",
            )
        self.n_classes_ = z.shape[1]
        self._fit(z, codes, None if domains is None else np.asarray(domains))
        return self

    def transform(self, logits: NDArray, domains: ArrayLike | None = None) -> NDArray:
        """Return new logits: their softmax is the probabilities.

        Parameters
        ----------
        logits : ndarray, shape (n_trials, n_classes)
        domains : array-like, shape (n_trials,) | None
        """
        check_fitted(self, "n_classes_")
        z = _checked(logits)
        if z.shape[1] != self.n_classes_:
            fail(f"{z.shape[1]} columns of logits, fit saw {self.n_classes_}")
        check_lengths(len(z), domains=domains)
        return self._map(z, None if domains is None else np.asarray(domains))

    @abstractmethod
    def _fit(self, z: NDArray, codes: NDArray, domains: NDArray | None) -> None:
        """Learn from logits that were checked."""

    @abstractmethod
    def _map(self, z: NDArray, domains: NDArray | None) -> NDArray:
        """Return the logits mapped."""


class Temperature(OutputMap):
    """Logits divided by one number, that of the least log loss.

    Attributes
    ----------
    temperature_ : float

    References
    ----------
    C. Guo et al., "On calibration of modern neural networks", ICML 2017.
    """

    def _fit(self, z: NDArray, codes: NDArray, domains: NDArray | None) -> None:
        self.temperature_ = float(np.exp(best_log_temperature(z, codes)))

    def _map(self, z: NDArray, domains: NDArray | None) -> NDArray:
        return z / self.temperature_


class DomainTemperature(OutputMap):
    """A temperature for each domain, drawn towards the common one.

    Domains that `fit` did not see, and trials without one, get the common one.

    Parameters
    ----------
    strength : float
        For how many trials the common temperature counts: the loss of a domain is the
        sum over its trials plus strength times half the squared difference of the
        logarithms.

    Attributes
    ----------
    temperature_ : float
    temperatures_ : dict of str to float
    """

    def __init__(self, strength: float = 20.0) -> None:
        self.strength = strength

    def _fit(self, z: NDArray, codes: NDArray, domains: NDArray | None) -> None:
        check_number("strength", self.strength, least=0.0)
        common = best_log_temperature(z, codes)
        self.temperature_ = float(np.exp(common))
        self.temperatures_: dict[str, float] = {}
        for name in () if domains is None else np.unique(domains):
            here = domains == name
            own = best_log_temperature(
                z[here], codes[here], common, self.strength / int(here.sum())
            )
            self.temperatures_[str(name)] = float(np.exp(own))

    def _map(self, z: NDArray, domains: NDArray | None) -> NDArray:
        if domains is None:
            return z / self.temperature_
        known = self.temperatures_
        T = [known.get(str(name), self.temperature_) for name in domains]
        return z / np.asarray(T)[:, None]


class VectorScaling(OutputMap):
    """A factor and an offset for each class's logit, of the least log loss.

    Parameters
    ----------
    ridge : float
        For how many trials the common temperature counts: factors and offsets are
        drawn towards it.

    Attributes
    ----------
    factors_, offsets_ : ndarray, shape (n_classes,)

    References
    ----------
    C. Guo et al., "On calibration of modern neural networks", ICML 2017.
    """

    def __init__(self, ridge: float = 1.0) -> None:
        self.ridge = ridge

    def _fit(self, z: NDArray, codes: NDArray, domains: NDArray | None) -> None:
        check_number("ridge", self.ridge, least=0.0)
        K, n = z.shape[1], len(z)
        # Around the best temperature factors are numbers around one.
        self._unit = float(np.exp(-best_log_temperature(z, codes)))
        u, rows = z * self._unit, np.arange(n)

        def loss(v: NDArray) -> tuple[float, NDArray]:
            away = v - start
            out = u * v[:K] + v[K:]
            value = -log_softmax(out, axis=1)[rows, codes].mean()
            d = softmax(out, axis=1)
            d[rows, codes] -= 1.0
            slope = np.concatenate([(d * u).mean(axis=0), d.mean(axis=0)])
            pull = self.ridge / n
            return float(value + 0.5 * pull * away @ away), slope + pull * away

        start = np.concatenate([np.ones(K), np.zeros(K)])
        found = minimize(loss, start, jac=True, method="L-BFGS-B").x
        self.factors_, self.offsets_ = found[:K] * self._unit, found[K:]

    def _map(self, z: NDArray, domains: NDArray | None) -> NDArray:
        return z * self.factors_ + self.offsets_


class Isotonic(OutputMap):
    """Each class's probability by a rising step function, then divided by their sum.

    The result is the logarithm of probabilities, none below `floor`: steps end at 0,
    which one surprise would make infinitely wrong.

    Parameters
    ----------
    floor : float

    References
    ----------
    B. Zadrozny and C. Elkan, "Transforming classifier scores into accurate multiclass
    probability estimates", KDD 2002.
    """

    def __init__(self, floor: float = 1e-3) -> None:
        self.floor = floor

    def _fit(self, z: NDArray, codes: NDArray, domains: NDArray | None) -> None:
        check_number("floor", self.floor, above=0.0)
        p = softmax(z, axis=1)
        self.steps_ = [
            IsotonicRegression(out_of_bounds="clip").fit(p[:, k], codes == k)
            for k in range(z.shape[1])
        ]

    def _map(self, z: NDArray, domains: NDArray | None) -> NDArray:
        p = softmax(z, axis=1)
        q = np.stack([s.predict(p[:, k]) for k, s in enumerate(self.steps_)], axis=1)
        q = np.maximum(q, self.floor)
        return np.log(q / q.sum(axis=1, keepdims=True))


def best_log_temperature(
    z: NDArray, codes: NDArray, towards: float = 0.0, pull: float = 0.0
) -> float:
    """Return log T of the least mean log loss, plus pull / 2 (log T - towards)^2."""
    # The unit of logits is the decoder's own affair.
    spread = float(np.abs(z - z.mean(axis=1, keepdims=True)).mean()) or 1.0
    rows = np.arange(len(z))

    def loss(log_t: float) -> float:
        log_p = log_softmax(z / np.exp(log_t), axis=1)[rows, codes]
        return float(0.5 * pull * (log_t - towards) ** 2 - log_p.mean())

    near = np.log(spread)
    options = {"xatol": 1e-8}
    found = minimize_scalar(
        loss, bounds=(near - 7.0, near + 7.0), method="bounded", options=options
    )
    return float(found.x)


def _checked(logits: NDArray) -> NDArray:
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] < 2 or not len(z) or not np.isfinite(z).all():
        fail(
            f"logits have shape {z.shape}, or are not finite",
            fix="give (n_trials, n_classes) numbers",
        )
    return z
