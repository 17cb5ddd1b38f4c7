"""Trials of the task grid: checked, coded, and what all of them are measured by."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail, listing


class Cells(NamedTuple):
    """Trials by band, as rows of their own, and where they lie in the task grid."""

    X: NDArray
    levels: NDArray
    n_bands: int


def codes(levels: NDArray) -> NDArray:
    """Return each cell's task, in sorted order of the levels."""
    if levels.shape[1] == 0:
        return np.zeros(len(levels), dtype=np.int64)
    codes: NDArray = np.unique(levels, axis=0, return_inverse=True)[1]
    return codes.ravel()


def constant(target: NDArray, task: NDArray) -> NDArray:
    """Return which tasks have one target alone."""
    top = np.full(task.max() + 1, -np.inf)
    low = -top
    np.maximum.at(top, task, target)
    np.minimum.at(low, task, target)
    alone: NDArray = top <= low
    return alone


def middle_and_spread(X: NDArray, task: NDArray) -> tuple[NDArray, float]:
    """Return the mean task mean, and trials' root mean square distance from theirs."""
    counts = np.bincount(task).astype(np.float64)
    means = np.zeros((len(counts), X.shape[1]))
    np.add.at(means, task, X)
    means /= counts[:, None]
    rest = ((X - means[task]) ** 2).sum()
    size = float(np.sqrt(rest / len(X)))
    if size <= 1e-12 * float(np.sqrt((X**2).sum() / len(X))):
        fail("Features do not vary within any session", fix="check the features")
    return means.mean(axis=0), size


def checked_vectors(X: Any) -> NDArray:
    array = np.asarray(X)
    if array.ndim not in (2, 3) or 0 in array.shape or array.dtype.kind not in "fiub":
        fail(
            f"X has shape {array.shape} and dtype {array.dtype}",
            why="This step works on feature vectors, (n_trials, [n_bands,] n_features)",
            fix="put features such as TangentSpace before it",
        )
    array = array.astype(np.float64)
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        fail(
            f"X holds NaN or infinity in trials {listing(np.flatnonzero(~finite))}",
            fix="drop these trials",
        )
    return array
