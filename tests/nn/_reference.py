"""Domain batch norm of SPD matrices as specified: one domain, one matrix at a time.

NumPy, float64, no shortcut: decompositions are repeated, distances are taken
one by one. Metrics as in Kobler et al. (2022) and Chen et al. (2024).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def of_eigenvalues(M: NDArray, f: Callable[[NDArray], NDArray]) -> NDArray:
    s, U = np.linalg.eigh((M + M.T) / 2)
    return (U * f(s)) @ U.T


def log(M: NDArray) -> NDArray:
    return of_eigenvalues(M, np.log)


def exp(M: NDArray) -> NDArray:
    return of_eigenvalues(M, np.exp)


def power(M: NDArray, p: float) -> NDArray:
    return of_eigenvalues(M, lambda s: s**p)


def geodesic(A: NDArray, B: NDArray, t: float) -> NDArray:
    root, inverse = power(A, 0.5), power(A, -0.5)
    return root @ power(inverse @ B @ inverse, t) @ root


class Affine:
    """Power-deformed affine-invariant metric."""

    def __init__(
        self,
        theta: float = 1.0,
        alpha: float = 1.0,
        beta: float = 0.0,
        congruence: str = "symmetric",
        steps: int = 1,
    ) -> None:
        self.theta, self.alpha, self.beta = theta, alpha, beta
        self.cholesky, self.steps = congruence == "cholesky", steps

    def origin(self, n: int) -> NDArray:
        return np.eye(n)

    def enter(self, X: NDArray) -> NDArray:
        return power(X, self.theta)

    def squared(self, T: NDArray) -> float:
        both = self.alpha * np.sum(T**2) + self.beta * np.trace(T) ** 2
        return float(both / self.theta**2)

    def batch(self, V: list[NDArray]) -> NDArray:
        """The batch's mean; keeps the tangent space in which distances are taken."""
        B = np.mean(V, axis=0)
        for _ in range(self.steps):
            self.root, self.inverse = power(B, 0.5), power(B, -0.5)
            self.tangent = [log(self.inverse @ X @ self.inverse) for X in V]
            B = self.root @ exp(np.mean(self.tangent, axis=0)) @ self.root
        return B

    def dispersion(self, V: list[NDArray], M: NDArray) -> float:
        D = log(self.inverse @ M @ self.inverse)
        return float(np.mean([self.squared(T - D) for T in self.tangent]))

    move = staticmethod(geodesic)

    def full_mean(self, V: list[NDArray]) -> NDArray:
        M = np.mean(V, axis=0)
        for _ in range(200):
            root, inverse = power(M, 0.5), power(M, -0.5)
            step = np.mean([log(inverse @ X @ inverse) for X in V], axis=0)
            M = root @ exp(step) @ root
            if np.linalg.norm(step) < 1e-13:
                break
        return M

    def distance2(self, X: NDArray, M: NDArray) -> float:
        inverse = power(M, -0.5)
        return self.squared(log(inverse @ X @ inverse))

    def _factor(self, M: NDArray) -> NDArray:
        return np.linalg.cholesky(M) if self.cholesky else power(M, 0.5)

    def normalise(
        self, V: NDArray, M: NDArray, q: float, bias: NDArray | None
    ) -> NDArray:
        W = np.linalg.inv(self._factor(M))
        Y = power(W @ V @ W.T, q)
        if bias is not None:
            K = self._factor(power(bias, self.theta))
            Y = K @ Y @ K.T
        return power(Y, 1 / self.theta)


class Flat:
    """What log-Euclidean and log-Cholesky share: everything but the coordinates."""

    def origin(self, n: int) -> NDArray:
        return np.zeros((n, n))

    def batch(self, V: list[NDArray]) -> NDArray:
        return np.mean(V, axis=0)

    full_mean = batch

    def move(self, A: NDArray, B: NDArray, t: float) -> NDArray:
        return (1 - t) * A + t * B

    def distance2(self, V: NDArray, M: NDArray) -> float:
        return self.squared(V - M)

    def dispersion(self, V: list[NDArray], M: NDArray) -> float:
        return float(np.mean([self.squared(X - M) for X in V]))

    def normalise(
        self, V: NDArray, M: NDArray, q: float, bias: NDArray | None
    ) -> NDArray:
        return self.leave(q * (V - M) + (0 if bias is None else self.enter(bias)))


class LogEuclidean(Flat):
    def __init__(self, alpha: float = 1.0, beta: float = 0.0) -> None:
        self.alpha, self.beta = alpha, beta

    def enter(self, X: NDArray) -> NDArray:
        return log(X)

    def leave(self, V: NDArray) -> NDArray:
        return exp(V)

    def squared(self, T: NDArray) -> float:
        return float(self.alpha * np.sum(T**2) + self.beta * np.trace(T) ** 2)


class LogCholesky(Flat):
    """`unit` divides X^theta: coordinates below the diagonal have its root as unit."""

    def __init__(self, theta: float = 1.0, unit: float = 1.0) -> None:
        self.theta, self.unit = theta, unit

    def enter(self, X: NDArray) -> NDArray:
        L = np.linalg.cholesky(power(X, self.theta))
        return np.tril(L, -1) + np.diag(np.log(np.diag(L)))

    def leave(self, V: NDArray) -> NDArray:
        L = np.tril(V, -1) + np.diag(np.exp(np.diag(V)))
        return power(L @ L.T, 1 / self.theta)

    def squared(self, T: NDArray) -> float:
        return float(np.sum(T**2) / self.theta**2)


class Reference:
    """The layer: a state for every domain, a batch split by domain."""

    def __init__(
        self, n: int, metric: Affine | Flat, *, dispersion: bool = True
    ) -> None:
        self.n, self.metric, self.dispersion = n, metric, dispersion
        self.scale, self.eps = 1.0, 1e-5
        self.bias: NDArray | None = None
        self.state: dict[int, list] = {}

    def _power(self, v: float) -> float:
        return self.scale / np.sqrt(v + self.eps) if self.dispersion else 1.0

    def train(
        self, X: NDArray, domain: NDArray, eta: float, eta_test: float
    ) -> NDArray:
        Y = np.empty_like(X)
        for d in np.unique(domain):
            index = np.flatnonzero(domain == d)
            V = [self.metric.enter(X[i]) for i in index]
            B = self.metric.batch(V)
            if d in self.state:
                R, v, R_test, v_test = self.state[d]
                t, t_test = eta, eta_test
            else:
                R, v, R_test, v_test = B, 0.0, B, 0.0
                t = t_test = 1.0
            R = self.metric.move(R, B, t)
            v = (1 - t) * v + t * self.metric.dispersion(V, R)
            R_test = self.metric.move(R_test, B, t_test)
            spread = self.metric.dispersion(V, R_test)
            v_test = (1 - t_test) * v_test + t_test * spread
            self.state[d] = [R, v, R_test, v_test]
            for i, W in zip(index, V, strict=True):
                Y[i] = self.metric.normalise(W, R, self._power(v), self.bias)
        return Y

    def evaluate(self, X: NDArray, domain: NDArray) -> NDArray:
        Y = np.empty_like(X)
        for i, d in enumerate(domain):
            _, _, R, v = self.state[d]
            V = self.metric.enter(X[i])
            Y[i] = self.metric.normalise(V, R, self._power(v), self.bias)
        return Y

    def refit(self, X: NDArray, domain: NDArray) -> None:
        for d in np.unique(domain):
            V = [self.metric.enter(x) for x in X[domain == d]]
            R = self.metric.full_mean(V)
            v = max(float(np.mean([self.metric.distance2(W, R) for W in V])), 1e-7)
            self.state[d] = [R, v, R, v]
