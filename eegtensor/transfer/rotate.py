"""Rotation: every domain's class means are turned towards the sources'."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_lengths, fail
from eegtensor.domains import check_unseen_policy
from eegtensor.features._base import check_matrices
from eegtensor.features._means import segment_means
from eegtensor.geometry import congruence, distance, frechet_mean, geodesic, logm
from eegtensor.transfer._perdomain import PerDomain


class Rotate(PerDomain):
    """Map each matrix X to U_d X U_d', U_d orthogonal, one for each domain.

    U_d brings the domain's class means, as tangent vectors at the identity,
    nearest to the reference class means (orthogonal Procrustes). Source
    domains use their labels. An unlabelled target gives each trial the class
    of the nearest reference mean and turns, again and again, until no trial
    changes its class; with few or overlapping trials it may turn wrongly, so
    label a few trials and pass them to `fit` where you can.

    Parameters
    ----------
    n_iterations : int
        Largest number of rounds of pseudo-labels.
    unseen : "pooled" | "adapt" | "raise"
        As in `Recenter`; "pooled" does not rotate.
    prior_trials : float
        Trials that the reference class means count for in `partial_adapt`.

    Notes
    -----
    Matrices must have been recentred to the identity. The Procrustes problem
    has no closed form for two-sided rotations; it is solved by a monotone
    fixed point (each step an SVD) from the identity.

    References
    ----------
    P. L. C. Rodrigues et al., "Riemannian Procrustes analysis: transfer
    learning for brain-computer interfaces", IEEE Trans. Biomed. Eng., 2019.
    """

    def __init__(
        self,
        n_iterations: int = 10,
        unseen: str = "pooled",
        prior_trials: float = 5.0,
    ) -> None:
        self.n_iterations = n_iterations
        self.unseen = unseen
        self.prior_trials = prior_trials

    def fit(
        self,
        X: NDArray,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Find the reference class means and turn every source domain to them.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n, n)
        y : array-like, shape (n_trials,)
        subjects, sessions : array-like of str, shape (n_trials,) | None
        sample_weight : array-like, shape (n_trials,) | None
            Weights of the reference class means.

        Raises
        ------
        EEGTensorError
            If labels are absent or continuous.
        """
        check_unseen_policy(self.unseen)
        X = self._check(X)
        if y is None:
            fail("Rotate needs labels in fit", fix="pass y")
        check_lengths(len(X), y=y, sample_weight=sample_weight)
        labels = np.asarray(y)
        if labels.dtype.kind == "f":
            fail("y holds continuous targets", why="Rotate turns class means")
        self.classes_, group = np.unique(labels, return_inverse=True)
        self.reference_ = frechet_mean(X, segments=group, weights=sample_weight)
        # Only the sources have labels; `_statistics` serves targets too.
        self._labels = group
        try:
            super().fit(X, subjects=subjects, sessions=sessions)
        finally:
            del self._labels
        return self

    def _check(self, X: Any) -> NDArray:
        return check_matrices(X)

    def _statistics(
        self, X: NDArray, codes: NDArray, n_domains: int, weights: NDArray | None
    ) -> NDArray:
        """Return rotation and class means, shape (n_domains, 1 + n_classes, n, n).

        The class means are kept because `partial_adapt` moves them on.
        """
        reference = logm(self.reference_)
        labels = getattr(self, "_labels", None)
        rounds = 1 if labels is not None else self.n_iterations
        if labels is None:
            labels = self._nearest(X)
        for _ in range(rounds):
            means, present = self._class_means(X, labels, codes, n_domains)
            rotation = _procrustes(reference, logm(means), present)
            updated = self._nearest(congruence(rotation[codes], X))
            if (updated == labels).all():
                break
            labels = updated
        return np.concatenate([rotation[:, np.newaxis], means], axis=1)

    def _class_means(
        self, X: NDArray, labels: NDArray, codes: NDArray, n_domains: int
    ) -> tuple[NDArray, NDArray]:
        """Return class means of each domain and which classes turn it.

        A class without trials stands at the reference, where `partial_adapt`
        takes it up, and does not turn the domain.

        Returns
        -------
        means : ndarray, shape (n_domains, n_classes, n, n)
        present : ndarray of bool, shape (n_domains, n_classes)
        """
        n_classes = len(self.classes_)
        cells, cell = np.unique(codes * n_classes + labels, return_inverse=True)
        found = segment_means(X, cell.ravel(), len(cells))
        means = np.broadcast_to(
            self.reference_, (n_domains, *self.reference_.shape)
        ).copy()
        means[cells // n_classes, cells % n_classes] = found
        present = np.zeros((n_domains, n_classes), dtype=bool)
        present[cells // n_classes, cells % n_classes] = True
        # The mean of a single class is the recentred mean itself: the identity
        # and noise, after which nothing should turn. The others hold it back.
        present[present.sum(axis=1) < 2] = True
        return means, present

    def _nearest(self, X: NDArray) -> NDArray:
        d = np.stack([distance(mean, X) for mean in self.reference_], axis=1)
        return d.argmin(axis=1)

    def _pool(self, statistics: NDArray, counts: NDArray) -> NDArray:
        # "pooled" must not turn: sources disagree on a rotation, so none is common.
        n = self.reference_.shape[-1]
        return np.concatenate([np.eye(n)[np.newaxis], self.reference_])

    def _update(self, statistic: NDArray, x: NDArray, weight: float) -> NDArray:
        # The pseudo-label comes from the turn so far; the mean moves unturned.
        turned = congruence(statistic[0], x[np.newaxis])
        k = 1 + int(self._nearest(turned)[0])
        moved = statistic.copy()
        moved[k] = geodesic(statistic[k], x, weight)
        moved[0] = _procrustes(logm(self.reference_), logm(moved[np.newaxis, 1:]))[0]
        return moved

    def _apply(self, X: NDArray, statistics: NDArray, codes: NDArray) -> NDArray:
        return congruence(statistics[codes, 0], X)


def _procrustes(
    target: NDArray,
    moving: NDArray,
    present: NDArray | None = None,
    n_steps: int = 200,
) -> NDArray:
    """Return U maximising sum_k <target_k, U moving_k U'> over orthogonal U.

    Parameters
    ----------
    target : ndarray, shape (n_classes, n, n), symmetric
    moving : ndarray, shape (n_domains, n_classes, n, n), symmetric
    present : ndarray of bool, shape (n_domains, n_classes) | None
        Classes that are summed over; by default all.
    n_steps : int

    Returns
    -------
    U : ndarray, shape (n_domains, n, n)

    Notes
    -----
    Both sides are shifted by multiples of the identity to be positive
    semidefinite: the objective changes by a constant and becomes convex, so
    that U <- polar(sum_k target_k U moving_k) never decreases it.
    """
    n = target.shape[-1]
    eye = np.eye(n)
    A = target + np.linalg.norm(target, 2, axis=(-2, -1))[:, None, None] * eye
    B = moving + np.linalg.norm(moving, 2, axis=(-2, -1))[..., None, None] * eye
    if present is not None:
        B = B * present[..., None, None]
    U = np.broadcast_to(eye, (len(moving), n, n))
    for _ in range(n_steps):
        gradient = (A @ U[:, np.newaxis] @ B).sum(axis=1)
        left, _, right = np.linalg.svd(gradient)
        turned = left @ right
        change = np.abs(turned - U).max()
        U = turned
        if change < 1e-9:
            break
    return U
