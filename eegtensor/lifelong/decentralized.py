"""Kernel regression of nodes that agree on one function with their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from eegtensor._check import RandomState, as_generator, check_count, check_number, fail


class Features(NamedTuple):
    """Random Fourier features of one node: ``sqrt(2 / D) cos(X omega + phase)``.

    Attributes
    ----------
    omega : ndarray, shape (n_inputs, n_features)
    phase : ndarray, shape (n_features,)
    """

    omega: NDArray
    phase: NDArray

    def __call__(self, X: NDArray) -> NDArray:
        """Return the features of trials, shape (n_trials, n_features)."""
        D = len(self.phase)
        return np.sqrt(2.0 / D) * np.cos(X @ self.omega + self.phase)


def draw_features(
    X: NDArray,
    Y: NDArray,
    n_features: int,
    *,
    bandwidth: float = 1.0,
    n_candidates: int | None = None,
    random_state: RandomState = 0,
) -> Features:
    """Draw features of the Gaussian kernel ``exp(-|x - y|^2 / (2 bandwidth^2))``.

    Of the candidates those are kept whose correlation with the targets,
    ``|mean(z y)|`` (of several targets the largest), is largest: features that depend
    on the node's own data. Phases are kept with them. (The authors' code draws the
    phases of those kept anew, which undoes half of the choice.)

    Parameters
    ----------
    X : ndarray, shape (n_trials, n_inputs)
    Y : ndarray, shape (n_trials, n_outputs)
    n_features : int
    bandwidth : float
    n_candidates : int | None
        None: five times as many; as many as features choose nothing.
    random_state : int | numpy.random.Generator | None
    """
    D = check_count("n_features", n_features)
    check_number("bandwidth", bandwidth, above=0.0)
    many = 5 * D if n_candidates is None else check_count("n_candidates", n_candidates)
    if many < D:
        fail(f"n_candidates={many} for n_features={D}", fix="give as many, or more")
    rng = as_generator(random_state)
    omega = rng.standard_normal((X.shape[1], many)) / bandwidth
    phase = rng.uniform(0.0, 2.0 * np.pi, many)
    scores = np.abs(np.cos(X @ omega + phase).T @ Y / len(X)).max(axis=1)
    best = np.sort(np.argsort(-scores, kind="stable")[:D])
    return Features(omega[:, best], phase[best])


def solve_alone(
    nodes: Sequence[tuple[NDArray, NDArray]],
    features: Sequence[Features],
    ridge: float = 1e-3,
) -> list[NDArray]:
    """Return what each node finds by itself: ``(Z'Z + N_j lam_j I)^-1 Z'Y``."""
    return agree(nodes, features, [[] for _ in nodes], c=0.0, ridge=ridge, n_steps=1)


def agree(
    nodes: Sequence[tuple[NDArray, NDArray]],
    features: Sequence[Features],
    neighbours: Sequence[Sequence[int]],
    *,
    c: float | Sequence[float] = 1.0,
    ridge: float = 1e-3,
    damping: float = 5.0,
    n_steps: int = 200,
) -> list[NDArray]:
    """Let nodes agree on functions: decentralised kernel ridge regression.

    Each node j has features of its own and minimises, with its neighbours i,

        |Z_j(X_j) theta_j - Y_j|^2 + lam_j N_j |theta_j|^2
        + sum_i c_j |f_j(X_j) - f_i(X_j)|^2 + c_i |f_j(X_i) - f_i(X_i)|^2

    in turn with all others, ``lam_j = ridge N / (N_j J)``; a term
    ``damping c_j |f_j - f_j before|^2`` slows it down and does not move the result.

    Not private: nodes evaluate their features at their neighbours' trials, so that
    trials themselves travel between neighbours (labels do not).

    Parameters
    ----------
    nodes : sequence of (X, Y)
        Shapes (n_trials, n_inputs) and (n_trials, n_outputs).
    features : sequence of Features
        One a node.
    neighbours : sequence of sequence of int
        Of each node.
    c : float | sequence of float
        Weight of agreement; 0 leaves each node alone.
    ridge : float
        Per trial, of all nodes together.
    damping : float
    n_steps : int

    Returns
    -------
    theta : list of ndarray, shape (n_features, n_outputs)

    References
    ----------
    "Decentralized kernel ridge regression based on data-dependent random features",
    IEEE TNNLS 2024.
    """
    J = len(nodes)
    if len(features) != J or len(neighbours) != J:
        fail(f"{J} nodes, {len(features)} features, {len(neighbours)} lists")
    weights = np.broadcast_to(np.asarray(c, dtype=np.float64), (J,))
    if not (weights >= 0).all():
        fail(f"c={c}", fix="give weights from 0 up")
    check_number("ridge", ridge, above=0.0)
    n_all = sum(len(X) for X, _ in nodes)
    Z = {
        (j, i): features[j](nodes[i][0]) for j in range(J) for i in {j, *neighbours[j]}
    }
    Z |= {(i, j): features[i](nodes[j][0]) for j in range(J) for i in neighbours[j]}
    factors, fixed = [], []
    for j, (_, Y) in enumerate(nodes):
        own = Z[j, j].T @ Z[j, j]
        A = (1.0 + weights[j] * (len(neighbours[j]) + damping)) * own
        for i in neighbours[j]:
            A += weights[i] * Z[j, i].T @ Z[j, i]
        # N_j lam_j = ridge N / J.
        A += ridge * n_all / J * np.eye(len(A))
        factors.append(cho_factor(A))
        fixed.append((Z[j, j].T @ Y, damping * weights[j] * own))
    theta = [np.zeros((len(own), nodes[0][1].shape[1])) for _, own in fixed]
    for _ in range(check_count("n_steps", n_steps)):
        new = []
        for j in range(J):
            b = fixed[j][0] + fixed[j][1] @ theta[j]
            for i in neighbours[j]:
                # f_i at j's trials and at its own.
                b += weights[j] * Z[j, j].T @ (Z[i, j] @ theta[i])
                b += weights[i] * Z[j, i].T @ (Z[i, i] @ theta[i])
            new.append(cho_solve(factors[j], b))
        theta = new
    return theta


def ring(n_nodes: int) -> list[list[int]]:
    """Return the neighbours of nodes in a ring."""
    near = [{(j - 1) % n_nodes, (j + 1) % n_nodes} - {j} for j in range(n_nodes)]
    return [sorted(n) for n in near]


def complete(n_nodes: int) -> list[list[int]]:
    """Return the neighbours of nodes all of which know each other."""
    return [[i for i in range(n_nodes) if i != j] for j in range(n_nodes)]
