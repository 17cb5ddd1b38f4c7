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
