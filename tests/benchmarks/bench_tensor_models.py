"""Planted components and ranks: what is found, and PARAFAC2's and CMTF's peers.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_tensor_models.py [--full]

Rank: R = 5 in 50 x 50 x 50 at 20 dB, how often each criterion of `choose_rank`
finds it. Match: factor match score against planted factors at 20 dB, the least over
draws. Peers: tensorly at equal data, CPU seconds of one thread and fits. The full
table takes minutes: ten draws, more ranks and shares of missing cells.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eegtensor.tensor.ard import ard_cp
from eegtensor.tensor.blockterm import block_term
from eegtensor.tensor.cmtf import cmtf
from eegtensor.tensor.coupled import coupled_cp
from eegtensor.tensor.cp import cp
from eegtensor.tensor.match import factor_match_score
from eegtensor.tensor.parafac2 import parafac2
from eegtensor.tensor.rank import METHODS, choose_rank

Rng = np.random.Generator


def noisy(X: NDArray, rng: Rng, snr: float = 20.0) -> NDArray:
    sigma = 10 ** (-snr / 20) * np.sqrt(np.mean(X**2))
    return X + sigma * rng.standard_normal(X.shape)


def timed(
    function: Callable[..., Any], *args: Any, **options: Any
) -> tuple[Any, float]:
    start = time.process_time()
    found = function(*args, **options)
    return found, time.process_time() - start


def cube(rng: Rng, rank: int) -> tuple[NDArray, list[NDArray]]:
    factors = [rng.standard_normal((50, rank)) for _ in range(3)]
    return noisy(np.einsum("ir,jr,kr->ijk", *factors), rng), factors


def ranks(full: bool) -> None:
    draws = 10 if full else 2
    for missing in (0.0, 0.3, 0.5, 0.7) if full else (0.0, 0.5):
        found, seconds = 0, 0.0
        for seed in range(draws):
            X, _ = cube(rng := np.random.default_rng(seed), 5)
            X[rng.random(X.shape) < missing] = np.nan
            model, cpu = timed(ard_cp, X, 15)
            found, seconds = found + (model.rank == 5), seconds + cpu / draws
        print(f"ard, {missing:.0%} missing: {found} of {draws}, {seconds:.2f} s")
    hits, seconds = dict.fromkeys(METHODS, 0), 0.0
    wanted, folds = (range(2, 9), 5) if full else (range(4, 7), 2)
    draws = 10 if full else 1
    for seed in range(draws):
        X, _ = cube(np.random.default_rng(seed), 5)
        table, cpu = timed(choose_rank, X, wanted, n_splits=2, n_folds=folds)
        seconds += cpu / draws
        for method in METHODS:
            hits[method] += table.choices[method] == 5
    span = f"ranks {wanted[0]} to {wanted[-1]}"
    print(f"choose_rank, {span}: {hits} of {draws}, {seconds:.2f} s")


def slices(
    rng: Rng, rank: int, people: int, rows: int, channels: int, snr: float
) -> Any:
    A = rng.uniform(0.5, 1.5, (people, rank))
    B = np.linalg.cholesky(0.7 * np.eye(rank) + 0.3).T
    C = rng.standard_normal((channels, rank))
    courses = [
        np.linalg.qr(rng.standard_normal((rows, rank)))[0] @ B for _ in range(people)
    ]
    X = np.stack([(F * a) @ C.T for F, a in zip(courses, A, strict=True)])
    return noisy(X, rng, snr), (A, np.concatenate(courses), C)


def matches(full: bool) -> None:
    draws = 10 if full else 2
    for rank in (2, 4, 8) if full else (4,):
        least = dict.fromkeys(("cp", "parafac2", "block_term", "coupled_cp"), 1.0)
        for seed in range(draws):
            rng = np.random.default_rng(seed)
            X, factors = cube(rng, rank)
            score = {"cp": factor_match_score(cp(X, rank), factors).score}
            parts, truth = slices(rng, rank, 20, 60, 20, 20.0)
            score["parafac2"] = factor_match_score(parafac2(parts, rank), truth).score
            c = rng.standard_normal((40, rank))
            A, B = (rng.standard_normal((30, rank, 2)) for _ in range(2))
            maps = np.einsum("irl,jrl->rij", A, B)
            X = noisy(np.einsum("kr,rij->kij", c, maps), rng)
            truth = (c, maps.reshape(rank, -1).T)
            terms = block_term(X, rank, 2)
            score["block_term"] = factor_match_score(terms, truth).score
            _, *shared = factors
            people = [
                noisy(
                    np.einsum("ir,jr,kr->ijk", rng.standard_normal((n, rank)), *shared),
                    rng,
                )
                for n in (20, 30, 25)
            ]
            group = coupled_cp(people, rank)
            score["coupled_cp"] = factor_match_score(group.factors, shared).score
            least = {name: min(least[name], score[name]) for name in least}
        shown = ", ".join(f"{name} {value:.4f}" for name, value in least.items())
        print(f"least match, R = {rank}: {shown}")


def peers() -> None:
    try:
        from tensorly.decomposition import parafac2 as peer
        from tensorly.decomposition._cmtf_als import (
            coupled_matrix_tensor_3d_factorization as peer_cmtf,
        )
        from tensorly.parafac2_tensor import parafac2_to_slices
    except ImportError:
        print("tensorly is not installed: no peers")
        return
    for shape, snr in (((80, 2000, 30), 0.0), ((20, 200, 20), 20.0)):
        X, _ = slices(np.random.default_rng(0), 6, *shape, snr)
        energy = np.sum(X**2)
        # The first calls load compiled code.
        parafac2(X[:2], 6, n_init=1, max_iter=1)
        peer(list(X[:2]), 6, n_iter_max=1, random_state=0)
        ours, cpu = timed(parafac2, X, 6)
        one, cpu_one = timed(parafac2, X, 6, n_init=1)
        theirs, cpu_peer = timed(
            peer, list(X), 6, init="svd", tol=1e-8, n_iter_max=400, random_state=0
        )
        lost = sum(
            np.sum((a - b) ** 2)
            for a, b in zip(X, parafac2_to_slices(theirs), strict=True)
        )
        print(
            f"parafac2 {shape}: fit {ours.fit:.6f} in {cpu:.2f} s (8 starts), "
            f"{one.fit:.6f} in {cpu_one:.2f} s (1 start); tensorly (1 start) "
            f"{1 - np.sqrt(lost / energy):.6f} in {cpu_peer:.2f} s"
        )
    rng = np.random.default_rng(0)
    A, B, C, V = (rng.standard_normal((n, 5)) for n in (100, 30, 80, 40))
    X, Y = noisy(np.einsum("ir,jr,kr->ijk", A, B, C), rng), noisy(A @ V.T, rng)
    X, Y = X / np.linalg.norm(X), Y / np.linalg.norm(Y)
    ours, cpu = timed(cmtf, X, Y, 5)
    (tensor, matrix, _), cpu_peer = timed(
        peer_cmtf, X.copy(), Y.copy(), 5, init="svd", n_iter_max=100
    )
    lost = np.sum((X - tensor.to_tensor()) ** 2) + np.sum((Y - matrix.to_tensor()) ** 2)
    error = (1 - ours.fit) ** 2 + (1 - ours.fit_matrix) ** 2
    print(
        f"cmtf 100 x 30 x 80 and 100 x 40: squared errors {error:.7f} in {cpu:.2f} s "
        f"(8 starts); tensorly {lost:.7f} in {cpu_peer:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the table of minutes")
    full = parser.parse_args().full
    torch.set_num_threads(1)
    ranks(full)
    matches(full)
    peers()


if __name__ == "__main__":
    main()
