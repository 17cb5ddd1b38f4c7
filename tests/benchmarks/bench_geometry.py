"""CPU seconds of means and covariances against pyriemann, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from pyriemann.estimation import Covariances
from pyriemann.geometry.mean import mean_riemann

from eegtensor import geometry


def seconds(function: Callable[[], object], repeats: int = 5) -> float:
    """Best CPU seconds of some calls."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def line(name: str, ours: float, peer: float) -> None:
    print(f"{name:42} ours {ours:7.3f} s  peer {peer:7.3f} s  ratio {peer / ours:5.2f}")


def main() -> None:
    rng = np.random.default_rng(0)
    for n in (8, 22, 64):
        mix = np.eye(n) + 0.3 * rng.standard_normal((n, n))
        X = mix @ (
            rng.standard_normal((500, n, 4 * n)) * np.logspace(0, -1, n)[:, None]
        )
        C = geometry.covariances(X)
        difference = np.abs(geometry.frechet_mean(C) / mean_riemann(C) - 1).max()
        assert difference < 1e-5
        line(
            f"Riemannian mean of 500 x {n}",
            seconds(lambda C=C: geometry.frechet_mean(C)),
            seconds(lambda C=C: mean_riemann(C)),
        )
        people = np.repeat(np.arange(20), 25)

        def one_by_one(C: np.ndarray = C) -> None:
            for k in range(20):
                mean_riemann(C[k * 25 : k * 25 + 25])

        line(
            f"20 people's means of 25 x {n}",
            seconds(lambda C=C, p=people: geometry.frechet_mean(C, segments=p)),
            seconds(one_by_one),
        )
    X = rng.standard_normal((500, 22, 512))
    for name in ("oas", "lwf"):
        line(
            f"{name} covariances of 500 x 22 x 512",
            seconds(lambda name=name: geometry.covariances(X, estimator=name)),
            seconds(lambda name=name: Covariances(name).fit_transform(X)),
        )


if __name__ == "__main__":
    main()
