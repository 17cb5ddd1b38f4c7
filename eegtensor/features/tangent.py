"""Tangent vectors of covariance matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_lengths, check_option, fail
from eegtensor.domains import domain_names, encode_domains
from eegtensor.features._base import DomainTransformer, check_fitted, check_matrices
from eegtensor.features._means import grouped_mean
from eegtensor.geometry import congruence, inv_sqrtm, logm, upper_vector


class TangentSpace(DomainTransformer):
    """Tangent vectors vec(log(M^-1/2 X M^-1/2)) at a reference M.

    Parameters
    ----------
    metric : "affine-invariant" | "log-euclidean"
        log-Euclidean maps vec(log X - log M).
    reference : "mean" | "identity"
        Where the tangent space touches: the mean of the training matrices, or
        the identity, right after `Recenter` (whose mean it is).

    Attributes
    ----------
    reference_ : ndarray, shape ([n_bands,] n, n)

    References
    ----------
    A. Barachant et al., "Multiclass brain-computer interface classification by
    Riemannian geometry", IEEE Trans. Biomed. Eng., 2012, eq. 12-14.
    """

    def __init__(
        self, metric: str = "affine-invariant", reference: str = "mean"
    ) -> None:
        self.metric = metric
        self.reference = reference

    @property
    def trialwise(self) -> bool:  # type: ignore[override]
        """Whether a trial's output depends on that trial alone."""
        # So a benchmark computes these tangent vectors once for all folds.
        return self.reference == "identity"

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> TangentSpace:
        """Find the reference point of matrices (n_trials, [n_bands,] n, n)."""
        check_option("metric", self.metric, ("affine-invariant", "log-euclidean"))
        check_option("reference", self.reference, ("mean", "identity"))
        X = check_matrices(X, ndim=(3, 4))
        check_lengths(len(X), sample_weight=sample_weight)
        if self.reference == "identity":
            self.reference_ = np.broadcast_to(np.eye(X.shape[-1]), X.shape[1:]).copy()
            return self
        # Domains only start the mean; the tangent space is one for all of them.
        names = domain_names(len(X), subjects, sessions)
        self.reference_ = grouped_mean(
            X,
            np.zeros(len(X), dtype=np.int64),
            1,
            encode_domains(names).codes,
            metric=self.metric,
            weights=sample_weight,
        )[0]
        return self

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return tangent vectors, shape (n_trials, [n_bands *] n (n + 1) / 2)."""
        check_fitted(self, "reference_")
        X = check_matrices(X, ndim=(3, 4))
        if X.shape[1:] != self.reference_.shape:
            fail(
                f"Matrices have shape {X.shape[1:]}, the tangent space was fitted "
                f"to {self.reference_.shape}",
                fix="use the same channels and bands as in fit",
            )
        if self.metric == "log-euclidean":
            tangents = logm(X) - logm(self.reference_)
        elif self.reference == "identity":
            tangents = logm(X)
        else:
            tangents = logm(congruence(inv_sqrtm(self.reference_), X))
        return upper_vector(tangents).reshape(len(X), -1)
