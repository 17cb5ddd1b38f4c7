"""CPU seconds of means, distances and covariances against their peers, in one run.

One thread; peers and we take turns, and the best of some calls counts. Where
numba is installed, once with the compiled eigh and once without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import geoopt
import numpy as np
import torch
from numpy.typing import NDArray
from pyriemann.estimation import Covariances
from pyriemann.geometry.distance import distance_riemann
from pyriemann.geometry.mean import mean_riemann, mean_wasserstein
from pyriemann.geometry.median import median_riemann

from eegtensor import geometry
from eegtensor.geometry._batched_eigh import use_kernel

Call = Callable[[], object]


def compare(name: str, ours: Call, peer: Call, repeats: int = 5) -> None:
    """Print the CPU milliseconds of both, taking turns."""
    best = {"kernel": np.inf, "torch": np.inf, "peer": np.inf}
    for _ in range(repeats):
        for way in best:
            with use_kernel(way == "kernel"):
                call = peer if way == "peer" else ours
                if best[way] == np.inf:
                    call()
                start = time.process_time()
                call()
                best[way] = min(best[way], time.process_time() - start)
    k, t, p = (1e3 * best[way] for way in ("kernel", "torch", "peer"))
    print(
        f"{name:46} torch {t:8.1f} ms ({p / t:5.2f}x)  kernel {k:8.1f} ms "
        f"({p / k:5.2f}x)  peer {p:8.1f} ms",
        flush=True,
    )


def eeg_like(rng: np.random.Generator, size: int, n: int, *, far: bool) -> NDArray:
    """Covariances of mixed sources; far apart, each source's power varies by e."""
    mix = np.eye(n) + 0.3 * rng.standard_normal((n, n))
    sources = rng.standard_normal((size, n, 2 * n)) * np.logspace(0, -1, n)[:, None]
    if far:
        sources *= np.exp(rng.normal(0, 1, (size, n, 1)))
    X = mix @ sources
    return X @ np.swapaxes(X, 1, 2) / (2 * n)


def means(rng: np.random.Generator) -> None:
    sizes = ((8, 1000), (16, 1000), (22, 1000), (32, 500), (64, 200), (128, 60))
    for n, size in sizes:
        for far in (False, True):
            C = eeg_like(rng, size, n, far=far)
            ours, peer = geometry.frechet_mean(C), mean_riemann(C, maxiter=100)
            assert geometry.distance(ours, peer) < 1e-5
            compare(
                f"affine mean of {size} x {n}{', far apart' if far else ''}",
                lambda C=C: geometry.frechet_mean(C),
                lambda C=C: mean_riemann(C),
                repeats=3 if n > 32 else 5,
            )
    people = np.repeat(np.arange(20), 25)
    for n in (8, 22, 64):
        C = eeg_like(rng, 500, n, far=False)
        compare(
            f"affine means of 20 people, 25 x {n} each",
            lambda C=C: geometry.frechet_mean(C, segments=people),
            lambda C=C: [mean_riemann(C[people == k]) for k in range(20)],
        )
        compare(
            f"Bures-Wasserstein mean of 500 x {n}",
            lambda C=C: geometry.frechet_mean(C, metric="bures-wasserstein"),
            lambda C=C: mean_wasserstein(C, tol=1e-8),
            repeats=3,
        )
        compare(
            f"affine median of 500 x {n}",
            lambda C=C: geometry.geometric_median(C),
            lambda C=C: median_riemann(C, tol=1e-8, maxiter=200),
            repeats=3,
        )


def distances(rng: np.random.Generator) -> None:
    manifold = geoopt.SymmetricPositiveDefinite()
    for n, size in ((8, 1000), (22, 1000), (64, 200), (128, 60)):
        A, B = (eeg_like(rng, size, n, far=False) for _ in range(2))
        a, b = torch.from_numpy(A), torch.from_numpy(B)
        compare(
            f"distances of {size} pairs {n}, to geoopt",
            lambda a=a, b=b: geometry.distance(a, b),
            lambda a=a, b=b: manifold.dist(a, b),
        )
        leaf = a.clone().requires_grad_()
        compare(
            f"... with gradient, {n}",
            lambda a=leaf, b=b: geometry.distance(a, b).sum().backward(),
            lambda a=leaf, b=b: manifold.dist(a, b).sum().backward(),
        )
        compare(
            f"distances of {size} to one {n}, to pyriemann",
            lambda A=A, B=B: geometry.distance(A[0], B),
            lambda A=A, B=B: distance_riemann(B, A[0]),
        )


def covariances(rng: np.random.Generator) -> None:
    for n in (8, 22, 32, 64):
        X = rng.standard_normal((500, n, 512))
        for name in ("scm", "oas", "lwf"):
            peer = Covariances("cov" if name == "scm" else name)
            compare(
                f"{name} covariances of 500 x {n} x 512",
                lambda X=X, name=name: geometry.covariances(X, estimator=name),
                lambda X=X, peer=peer: peer.fit_transform(X),
                repeats=3,
            )


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    means(rng)
    distances(rng)
    covariances(rng)


if __name__ == "__main__":
    main()
