"""TOY-SPD: people who differ by a mixing, classes by the power of two sources."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm


def toy_people(
    seed: int, *, n_people: int = 8, n_trials: int = 80, n_last: int = 640
) -> list[tuple[NDArray, NDArray]]:
    """Covariances (n_trials, 8, 8) and labels 0, 1 of each person.

    Amplitude 1.45 and 1 / 1.2 of two sources for each class; lognormal
    amplitudes a trial; the last person has more trials to draw a target from.
    """
    rng = np.random.default_rng(seed)
    n, n_times = 8, 256
    common = rng.standard_normal((n, n)) / np.sqrt(n)
    people = []
    for person in range(n_people):
        turn = expm(0.6 * rng.standard_normal((n, n)) / np.sqrt(n))
        mixing = common @ turn * np.exp(0.3 * rng.standard_normal())
        y = np.arange(n_last if person == n_people - 1 else n_trials) % 2
        amplitude = np.ones((len(y), n))
        amplitude[np.arange(len(y)), y] *= 1.45
        amplitude[np.arange(len(y)), 3 + y] /= 1.2
        amplitude *= np.exp(0.25 * rng.standard_normal((len(y), n)))
        sources = rng.standard_normal((len(y), n, n_times)) * amplitude[:, :, None]
        X = mixing @ sources + 0.3 * rng.standard_normal((len(y), n, n_times))
        people.append((X @ X.transpose(0, 2, 1) / n_times, y))
    return people


def with_ratio(
    person: tuple[NDArray, NDArray], n_trials: int, ratio: float
) -> tuple[NDArray, NDArray]:
    """So many trials of a person, `ratio` of class 1 for one of class 0."""
    X, y = person
    n_ones = round(n_trials * ratio / (1.0 + ratio))
    zeros = np.flatnonzero(y == 0)[: n_trials - n_ones]
    kept = np.concatenate([zeros, np.flatnonzero(y == 1)[:n_ones]])
    return X[kept], y[kept]


def toy_three(
    seed: int, *, n_people: int = 8, n_trials: int = 80
) -> tuple[NDArray, NDArray, NDArray]:
    """Covariances (n, 8, 8), labels 0, 1, 2 and people's codes of TOY-SPD itself.

    Power 2.6 and 1 / 1.8 of two sources for each class; lognormal amplitudes.
    """
    rng = np.random.default_rng(seed)
    n, n_times = 8, 256
    common = rng.standard_normal((n, n)) / np.sqrt(n)
    matrices, labels, people = [], [], []
    for person in range(n_people):
        turn = expm(0.6 * rng.standard_normal((n, n)) / np.sqrt(n))
        mixing = common @ turn * np.exp(0.3 * rng.standard_normal())
        y = np.arange(n_trials) % 3
        power = np.ones((n_trials, n))
        power[np.arange(n_trials), y] *= 2.6
        power[np.arange(n_trials), 3 + y] /= 1.8
        amplitude = np.sqrt(power) * np.exp(0.25 * rng.standard_normal((n_trials, n)))
        sources = rng.standard_normal((n_trials, n, n_times)) * amplitude[:, :, None]
        X = mixing @ sources + 0.3 * rng.standard_normal((n_trials, n, n_times))
        matrices.append(X @ X.transpose(0, 2, 1) / n_times)
        labels.append(y)
        people.append(np.full(n_trials, person))
    return np.concatenate(matrices), np.concatenate(labels), np.concatenate(people)


def log_matrices(C: NDArray) -> NDArray:
    """Matrix logarithms, by NumPy alone."""
    values, vectors = np.linalg.eigh(C)
    return (vectors * np.log(values)[:, None]) @ vectors.transpose(0, 2, 1)


def tangent_vectors(C: NDArray) -> NDArray:
    """Upper triangles of matrix logarithms, off the diagonal times sqrt(2)."""
    i, j = np.triu_indices(C.shape[1])
    return log_matrices(C)[:, i, j] * np.where(i == j, 1.0, np.sqrt(2.0))


def recentred(C: NDArray, people: NDArray) -> NDArray:
    """Each person's matrices with their log-Euclidean mean at the identity."""
    out = np.empty_like(C)
    for person in np.unique(people):
        own = people == person
        values, vectors = np.linalg.eigh(log_matrices(C[own]).mean(0))
        whiten = (vectors * np.exp(-values / 2)) @ vectors.T
        out[own] = whiten @ C[own] @ whiten
    return out
