"""How much harder a task gets to fit with every trial."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import check_count, fail


def data_inefficiency(
    gram: NDArray,
    targets: NDArray,
    *,
    n_sizes: int = 6,
    n_draws: int = 5,
    random_state: int = 0,
) -> float:
    """Return the slope of log |w_n| against log n of the linearised network.

    |w_n|^2 = y' K_n^-1 y is the least square norm of weights that fit n trials.
    Targets that a teacher gives (logits) grow it more slowly than hard labels do
    where the teacher is worth distilling; 0.5 is what noise gives.

    Parameters
    ----------
    gram : ndarray, shape (n_trials, n_trials)
        Inner products of gradients, or of what enters the head.
    targets : ndarray, shape (n_trials,) or (n_trials, n_outputs)
    n_sizes, n_draws : int
        Sizes from an eighth of the trials to all, and subsets of each.
    random_state : int

    References
    ----------
    G. Ji and Z. Zhu, "Knowledge distillation in wide neural networks: risk bound,
    data efficiency and imperfect teacher", NeurIPS 2020, section 5.
    """
    K, Y = np.asarray(gram, np.float64), np.asarray(targets, np.float64)
    Y = Y.reshape(len(Y), -1)
    if K.ndim != 2 or K.shape != (len(Y), len(Y)) or len(Y) < 16:
        fail(
            f"gram has shape {K.shape} for {len(Y)} targets",
            fix="give a square matrix of at least 16 trials",
        )
    check_count("n_sizes", n_sizes, least=2)
    rng = np.random.default_rng(random_state)
    sizes = np.unique(np.geomspace(len(Y) / 8, len(Y), n_sizes).astype(int))
    ridge = 1e-10 * np.trace(K) / len(K)
    norms = []
    for n in sizes:
        squares = []
        for _ in range(check_count("n_draws", n_draws)):
            i = rng.permutation(len(Y))[:n]
            solved = np.linalg.solve(K[np.ix_(i, i)] + ridge * np.eye(n), Y[i])
            squares.append((Y[i] * solved).sum())
        norms.append(0.5 * np.log(np.mean(squares)))
    return float(np.polyfit(np.log(sizes), norms, 1)[0])
