"""What kernel PCA of features cannot rebuild: CoP and CoRP."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.kernel_approximation import RBFSampler

from eegtensor._check import check_number, check_option
from eegtensor.trust.scorers._subspace import median_gamma, principal
from eegtensor.trust.scorers.base import Scorer, standardiser, strided
from eegtensor.trust.scorers.evidence import Evidence
from eegtensor.trust.scorers.norm import SIDES, NormTerm, unit


class _KernelPCA(Scorer):
    """Base: an error of reconstruction, and beside it the length of the features."""

    norm_weight: float
    norm_side: str

    def _fit(self, found: Evidence, y: NDArray | None) -> None:
        check_number("norm_weight", self.norm_weight, least=0.0)
        check_option("norm_side", self.norm_side, SIDES)
        h = found.need("features").astype(np.float64)
        self._learn(found, h)
        self.norm_ = NormTerm(h, self.norm_side)
        if self.norm_weight:
            # Errors of the trials of a subspace are smaller than those of new ones.
            errors = np.empty(len(h))
            for train, test in strided(found.norm):
                other = clone(self)
                other._learn(found.pick(train), h[train])
                errors[test] = other._error(h[test])
            self.error_ = standardiser(errors)

    def _learn(self, found: Evidence, h: NDArray) -> None:
        raise NotImplementedError

    def _error(self, h: NDArray) -> NDArray:
        raise NotImplementedError

    def _score(self, found: Evidence) -> NDArray:
        h = found.need("features").astype(np.float64)
        error = self._error(h)
        if not self.norm_weight:
            return -error
        centre, scale = self.error_
        return -(error - centre) / scale - self.norm_weight * self.norm_(h)


class CoP(_KernelPCA):
    """PCA of features divided by their length: the cosine kernel.

    Score -||(I - U U')(phi - mu)||, phi = h / ||h||. With a weight of the length,
    error and log ||h|| are counted in standard deviations of training, since
    artefacts of EEG lie in the length, which the cosine leaves out.

    Parameters
    ----------
    explained : float
        Share of the variance that the subspace holds.
    norm_weight : float
        Of the length; 0 is the published score.
    norm_side : "both" | "large"
        Whether features shorter than those of training are strange, too. Of tangent
        vectors, whose length is the distance to the centre, longer ones alone.

    References
    ----------
    K. Fang et al., "Kernel PCA for out-of-distribution detection", NeurIPS 2024.
    """

    def __init__(
        self,
        explained: float = 0.9,
        norm_weight: float = 1.0,
        norm_side: str = "both",
    ) -> None:
        self.explained = explained
        self.norm_weight = norm_weight
        self.norm_side = norm_side

    def _learn(self, found: Evidence, h: NDArray) -> None:
        self.principal_ = principal(unit(h), self.explained)

    def _error(self, h: NDArray) -> NDArray:
        return np.sqrt(self.principal_.residual(unit(h)))


class CoRP(_KernelPCA):
    """PCA of random Fourier features of unit vectors: cosine and Gaussian kernel.

    phi = sqrt(2 / M) cos(W h / ||h|| + u), W normal with variance 2 gamma.

    Parameters
    ----------
    explained, norm_weight, norm_side
        As for `CoP`.
    gamma : float | None
        Of the Gaussian kernel; None: 1 / median squared distance of training.
    n_components : int
        Random features M.
    random_state : int | None

    References
    ----------
    K. Fang et al., "Kernel PCA for out-of-distribution detection", NeurIPS 2024.
    """

    def __init__(
        self,
        explained: float = 0.9,
        norm_weight: float = 1.0,
        norm_side: str = "both",
        gamma: float | None = None,
        n_components: int = 2048,
        random_state: int | None = 0,
    ) -> None:
        self.explained = explained
        self.norm_weight = norm_weight
        self.norm_side = norm_side
        self.gamma = gamma
        self.n_components = n_components
        self.random_state = random_state

    def _learn(self, found: Evidence, h: NDArray) -> None:
        rows = unit(h)
        gamma = median_gamma(rows) if self.gamma is None else self.gamma
        self.gamma_ = check_number("gamma", gamma, above=0.0)
        sampler = RBFSampler(
            gamma=self.gamma_,
            n_components=self.n_components,
            random_state=self.random_state,
        )
        self.map_ = sampler.fit(rows)
        self.principal_ = principal(self.map_.transform(rows), self.explained)

    def _error(self, h: NDArray) -> NDArray:
        return np.sqrt(self.principal_.residual(self.map_.transform(unit(h))))
