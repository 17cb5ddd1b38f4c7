"""Kernel PCA from landmarks, with what lies outside of their span."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.cluster import kmeans_plusplus
from sklearn.metrics.pairwise import rbf_kernel

from eegtensor._check import as_generator, check_count, check_number, check_option
from eegtensor.geometry.spectral import eigh
from eegtensor.trust.scorers._subspace import median_gamma, principal
from eegtensor.trust.scorers.evidence import Evidence
from eegtensor.trust.scorers.kernelpca import _KernelPCA
from eegtensor.trust.scorers.norm import unit

LANDMARKS = ("low-energy", "random", "kmeans++")
# Directions of the landmarks' kernel matrix below are rounding.
_RANK = 1e-10


class NystroemKPCA(_KernelPCA):
    """Kernel PCA of unit vectors from M landmarks, tailored by confidence.

    With landmarks L of kernel matrix V S V', psi(x) = S^-1/2 V' k(L, x), its mean mu
    and leading directions U over training, the squared error of x is

        ||(I - U U')(psi(x) - mu)||^2 + max(0, k(x, x) - ||psi(x)||^2).

    The second part is what no landmark reaches: without it, as in the release, trials
    far from all are rebuilt best. All trials as landmarks are exact kernel PCA.

    Parameters
    ----------
    n_landmarks : int
        At most the number of training trials is used.
    landmarks : "low-energy" | "random" | "kmeans++"
        Trials of the smallest logsumexp of logits, as published; without logits among
        the evidence those come at random.
    gamma : float | None
        Of the Gaussian kernel; None: 1 / median squared distance of unit vectors.
    explained, norm_weight, norm_side
        As for `CoP`.
    off_span : bool
        False is the released score.
    random_state : int | None

    References
    ----------
    K. Fang et al., "Kernel PCA for out-of-distribution detection: non-linear kernel
    selections and approximations", IEEE TPAMI 2026. The second part is ours: the
    first alone is not the error of trials that were not trained on.
    """

    def __init__(
        self,
        n_landmarks: int = 512,
        landmarks: str = "low-energy",
        gamma: float | None = None,
        explained: float = 0.9,
        norm_weight: float = 1.0,
        norm_side: str = "both",
        off_span: bool = True,
        random_state: int | None = 0,
    ) -> None:
        self.n_landmarks = n_landmarks
        self.landmarks = landmarks
        self.gamma = gamma
        self.explained = explained
        self.norm_weight = norm_weight
        self.norm_side = norm_side
        self.off_span = off_span
        self.random_state = random_state

    def _learn(self, found: Evidence, h: NDArray) -> None:
        rows = unit(h)
        gamma = median_gamma(rows) if self.gamma is None else self.gamma
        self.gamma_ = check_number("gamma", gamma, above=0.0)
        self.landmarks_ = rows[self._chosen(found, rows)]
        values, vectors = map(
            np.asarray, eigh(rbf_kernel(self.landmarks_, gamma=gamma))
        )
        kept = values > _RANK * values[-1]
        self.whitener_ = vectors[:, kept] / np.sqrt(values[kept])
        self.principal_ = principal(self._map(rows), self.explained)

    def _chosen(self, found: Evidence, rows: NDArray) -> NDArray:
        check_option("landmarks", self.landmarks, LANDMARKS)
        count = min(check_count("n_landmarks", self.n_landmarks), len(rows))
        if count == len(rows):
            return np.arange(count)
        rng = as_generator(self.random_state)
        if self.landmarks == "kmeans++":
            seed = int(rng.integers(2**31))
            chosen: NDArray = kmeans_plusplus(rows, count, random_state=seed)[1]
            return chosen
        if self.landmarks == "random" or found.logits is None:
            return rng.choice(len(rows), count, replace=False)
        energy = np.asarray(logsumexp(found.logits, axis=1))
        return np.argsort(energy, kind="stable")[:count]

    def _map(self, rows: NDArray) -> NDArray:
        K = rbf_kernel(rows, self.landmarks_, gamma=self.gamma_)
        return np.asarray(K @ self.whitener_)

    def _error(self, h: NDArray) -> NDArray:
        psi = self._map(unit(h))
        squared = self.principal_.residual(psi)
        if self.off_span:
            # Of a Gaussian kernel k(x, x) is one.
            squared = squared + np.maximum(0.0, 1.0 - np.einsum("nf,nf->n", psi, psi))
        return np.sqrt(squared)
