"""Pseudo-labels that a classifier and clusters of features agree on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from eegtensor._check import fail
from eegtensor.training.batch import UNLABELLED


def accept(
    p: NDArray,
    features: NDArray,
    y: NDArray,
    per_class: int,
    n_clusters: int | None = None,
    seed: Any = 0,
) -> NDArray:
    """Return the classes of unlabelled trials that classifier and clusters agree on.

    Parameters
    ----------
    p : ndarray, shape (n_trials, n_classes)
    features : ndarray, shape (n_trials, n_features)
    y : ndarray of int, shape (n_trials,)
        -1 where unknown.
    per_class : int
    n_clusters : int | None
    seed : int

    Returns
    -------
    accepted : ndarray of int, shape (n_trials,)
        -1 elsewhere.
    """
    n_classes = p.shape[1]
    labelled = y != UNLABELLED
    if not labelled.any():
        fail("No trial has a label", fix="give labels of a few trials")
    accepted = np.full(len(y), UNLABELLED)
    guess, confidence = p.argmax(1), p.max(1)
    cluster_class = _class_of_cluster(features, y, n_classes, n_clusters, seed)
    for c in range(n_classes):
        free = np.flatnonzero(~labelled & (guess == c))
        top = free[np.argsort(-confidence[free], kind="stable")[:per_class]]
        accepted[top[cluster_class[top] == c]] = c
    return accepted


def _class_of_cluster(
    features: NDArray, y: NDArray, n_classes: int, n_clusters: int | None, seed: Any
) -> NDArray:
    """Return for each trial the class that its cluster is nearest to."""
    count = min(n_clusters or 5 * n_classes, len(features))
    rng = np.random.default_rng(seed)
    centres, label = kmeans2(features, count, minit="++", seed=rng)
    present = np.unique(y[y != UNLABELLED])
    means = np.stack([features[y == c].mean(0) for c in present])
    gap = ((centres[:, None] - means) ** 2).sum(2)
    # A cluster that lost its trials has no centre; nobody asks for it.
    return present[np.nan_to_num(gap, nan=np.inf).argmin(1)[label]]
