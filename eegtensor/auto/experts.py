"""Decoders of one person that learn from what others' decoders say of the trials.

An expert of a person is a kernel ridge regression of the class probabilities of
that person's own trials. What it says of a trial it learned from leaves that
trial out, in closed form, so that it cannot merely repeat what it was told.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Ridge, in units of the kernel's mean eigenvalue.
_LAMBDA = 1.0
# Kernels of more trials than these are of trials spread evenly over them.
_MOST = 2000


class Memory(NamedTuple):
    """Trials of one person that an expert learns from.

    Attributes
    ----------
    rows : ndarray of int, shape (n,)
        Which of the trials given.
    features : ndarray, shape (n, n_features)
        Centred and scaled.
    center : ndarray, shape (n_features,)
    scale : float
    hat : ndarray, shape (n, n)
        From probabilities to fitted values.
    solve : ndarray, shape (n, n)
        From probabilities to the dual weights of the kernel's rows.
    """

    rows: NDArray
    features: NDArray
    center: NDArray
    scale: float
    hat: NDArray
    solve: NDArray


class Lesson(NamedTuple):
    """What an expert learned from probabilities of its trials.

    Attributes
    ----------
    told : ndarray, shape (n, n_classes)
        Probabilities less their mean.
    dual : ndarray, shape (n, n_classes)
    size : float
        Mean size of what it says of its own trials, each left out.
    """

    told: NDArray
    dual: NDArray
    size: float


def remember(features: NDArray) -> Memory:
    """Return the memory of an expert.

    Parameters
    ----------
    features : ndarray, shape (n_trials, n_features)
        Tangent vectors of one person, recentred by session.
    """
    n = len(features)
    rows = np.arange(n)
    if n > _MOST:
        rows = np.linspace(0, n - 1, _MOST).round().astype(np.int64)
    kept = features[rows]
    center = kept.mean(axis=0)
    kept = kept - center
    # In units of its own spread: features of any scale give the same expert.
    scale = float(np.sqrt((kept**2).sum(axis=1).mean())) or 1.0
    kept = kept / scale
    kernel = kept @ kept.T
    m = len(kernel)
    ridge = _LAMBDA * max(float(np.trace(kernel)) / m, np.finfo(float).tiny)
    solve = np.linalg.inv(kernel + ridge * np.eye(m))
    # Of centred features the intercept is the mean of what is told.
    hat = kernel @ solve + 1.0 / m
    return Memory(rows, kept, center, scale, hat, solve)


def learn(memory: Memory, p: NDArray) -> Lesson:
    """Return what the expert learns from probabilities (n, n_classes) of its rows."""
    told = p - p.mean(axis=0)
    size = np.abs(_centred(_left_out(memory, told))).mean()
    return Lesson(told, memory.solve @ told, float(size) or 1.0)


def _left_out(memory: Memory, told: NDArray) -> NDArray:
    """Return the values of trials by ridge regressions without each of them."""
    own = np.diag(memory.hat)[:, np.newaxis]
    values: NDArray = (memory.hat @ told - own * told) / (1.0 - own)
    return values


def _centred(values: NDArray) -> NDArray:
    centred: NDArray = values - values.mean(axis=1, keepdims=True)
    return centred


def own_trials(memory: Memory, lesson: Lesson) -> NDArray:
    """Return logits of the trials remembered, each left out, (n, n_classes)."""
    logits: NDArray = _left_out(memory, lesson.told) / lesson.size
    return logits


def new_trials(memory: Memory, lesson: Lesson, features: NDArray) -> NDArray:
    """Return logits of any trials; one that is remembered is left out of its own.

    Parameters
    ----------
    features : ndarray, shape (n_trials, n_features)
    """
    x = (features - memory.center) / memory.scale
    kernel = x @ memory.features.T
    values = kernel @ lesson.dual
    norms = (memory.features**2).sum(axis=1)
    apart = (x**2).sum(axis=1)[:, np.newaxis] + norms - 2 * kernel
    nearest = apart.argmin(axis=1)
    # The same trial again, but for rounding.
    same = np.flatnonzero(apart.min(axis=1) <= 1e-9 * (norms[nearest] + 1e-12))
    row = nearest[same]
    values[same] = _left_out(memory, lesson.told)[row]
    return values / lesson.size
