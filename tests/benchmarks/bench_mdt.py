"""Fast MDT-Tucker against its explicit forms, and every method in every scenario.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_mdt.py
        [--scenarios] [--only "segment"] [--draws 1] [--no-mmes]

Alone: 30 channels x 7680 samples, 70 % lost, windows of 32 samples, 16 iterations
at rank 8: by Fourier transforms, by the Gram matrix of the circular Hankel
tensor, by its singular value decomposition; CPU seconds and the largest difference.
`--scenarios`: NRMSE in every scenario of the yardstick (`measure/completion.py`
in the folder of shared files) for its two references, complete(auto), MDT over
time alone, MDT over channels and time, MMES, tensorly's masked PARAFAC (rank 20,
on 30 x 384 x 20) and imputation by tensorly's Tucker of ranks 12, 128, 20.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from bench_completion import SHARED, yardstick
from numpy.typing import NDArray

from eegtensor.tensor.completion import complete, mdt_tucker

WINDOW, RANK, TURNS = 32, 8, 16


def hankel(Z: NDArray) -> NDArray:
    """Circular windows of every channel, shape (window, channels * times)."""
    at = (np.arange(Z.shape[1]) + np.arange(WINDOW)[:, None]) % Z.shape[1]
    return Z[:, at].transpose(1, 0, 2).reshape(WINDOW, -1)


def unhankel(H: NDArray, shape: tuple[int, int]) -> NDArray:
    parts = H.reshape(WINDOW, *shape)
    return np.mean([np.roll(parts[d], d, axis=1) for d in range(WINDOW)], axis=0)


def explicit(X: NDArray, seen: NDArray, turns: int, form: str) -> NDArray:
    Z = np.where(seen, X, X[seen].mean())
    for _ in range(turns):
        H = hankel(Z)
        if form == "svd":
            U = np.linalg.svd(H, full_matrices=False)[0][:, :RANK]
        else:
            U = np.linalg.eigh(H @ H.T)[1][:, -RANK:]
        Z = np.where(seen, X, unhankel(U @ (U.T @ H), X.shape))
    return Z


def timed(call: Callable[[], NDArray], times: int) -> tuple[float, NDArray]:
    """Fewest CPU seconds of some calls, and what they return."""
    seconds = []
    for _ in range(times):
        begin = time.process_time()
        found = call()
        seconds.append(time.process_time() - begin)
    return min(seconds), found


def speed() -> None:
    rng = np.random.default_rng(0)
    X = np.cumsum(rng.standard_normal((30, 7680)), axis=1)
    X -= X.mean(axis=1, keepdims=True)
    seen = rng.random(X.shape) >= 0.7

    def fast(turns: int) -> NDArray:
        options = {"ranks": RANK, "max_iter": turns, "tol": 0.0, "reflect": False}
        found: NDArray = mdt_tucker(X, seen, WINDOW, **options).values
        return found

    fast(1)
    ours, values = timed(lambda: fast(TURNS), 9)
    gram, by_gram = timed(lambda: explicit(X, seen, TURNS, "gram"), 3)
    svd, by_svd = timed(lambda: explicit(X, seen, 2, "svd"), 1)
    size = np.abs(by_gram).max()
    apart = np.abs(values - by_gram).max() / size
    apart_svd = np.abs(fast(2) - by_svd).max() / size
    svd *= TURNS / 2
    print(f"30 x 7680, window {WINDOW}, {TURNS} iterations, CPU seconds:")
    print(f"  Fourier transforms  {ours:8.4f}")
    print(f"  explicit Gram       {gram:8.4f}  {gram / ours:6.1f} x  apart {apart:.1e}")
    print(
        f"  explicit SVD        {svd:8.4f}  {svd / ours:6.1f} x  "
        f"apart {apart_svd:.1e} (2 iterations, scaled)",
        flush=True,
    )


def parafac(x: NDArray, mask: NDArray, folded: tuple[int, ...]) -> NDArray:
    """Tensorly's PARAFAC of rank 20 over the observed cells, 40 sweeps."""
    import tensorly
    from tensorly.decomposition import parafac as decompose

    scale = x[mask].std()
    data = np.where(mask, x, 0.0) / scale
    found = decompose(
        fold(data, folded),
        20,
        n_iter_max=40,
        init="random",
        mask=fold(mask.astype(float), folded),
        random_state=0,
    )
    return np.where(mask, x, unfold(tensorly.cp_to_tensor(found), x.shape) * scale)


def tucker_imputed(x: NDArray, mask: NDArray, folded: tuple[int, ...]) -> NDArray:
    """Lost cells by tensorly's Tucker (12, 128, 20), 30 times in turn."""
    from tensorly import tucker_to_tensor
    from tensorly.decomposition import partial_tucker

    Z = np.where(mask, x, 0.0)
    modes, ranks = [0, 1], [12, 128]
    for _ in range(30):
        (core, factors), _ = partial_tucker(
            fold(Z, folded), ranks, modes=modes, n_iter_max=1, svd="truncated_svd"
        )
        whole = [*factors, np.eye(folded[2])]
        Z = np.where(mask, x, unfold(tucker_to_tensor((core, whole)), x.shape))
    return Z


def fold(x: NDArray, folded: tuple[int, ...]) -> NDArray:
    """Channels x samples x segments."""
    return x.reshape(folded[0], folded[2], folded[1]).transpose(0, 2, 1)


def unfold(tensor: NDArray, shape: tuple[int, ...]) -> NDArray:
    return tensor.transpose(0, 2, 1).reshape(shape)


def scenarios(options: argparse.Namespace) -> bool:
    ruler = yardstick()
    if ruler is None or not ruler.DATA.is_dir():
        print(f"bench_mdt: no yardstick or data below {SHARED}; nothing run")
        return True
    x, positions, _ = ruler.load()
    folded = (len(x), ruler.SEGMENT, ruler.N_SEGMENTS)
    calls: dict[str, Callable[[NDArray], NDArray]] = {
        "spline": lambda m: ruler.spline(x, m, positions),
        "gauss": lambda m: ruler.gaussian(x, m),
        "auto": lambda m: complete(x, m, positions=positions).X,
        "mdt time": lambda m: mdt_tucker(x, m, WINDOW).values,
        "mdt": lambda m: complete(x, m, positions=positions, method="mdt").X,
        "mmes": lambda m: complete(x, m, positions=positions, method="mmes").X,
        "parafac": lambda m: parafac(x, m, folded),
        "tucker": lambda m: tucker_imputed(x, m, folded),
    }
    if options.no_mmes:
        del calls["mmes"]
    print(f"{'scenario':22}" + "".join(f"{name:>10}" for name in calls), flush=True)
    seconds, beaten = dict.fromkeys(calls, 0.0), True
    for name, (make, argument, draws) in ruler.SCENARIOS.items():
        if options.only not in name:
            continue
        found = {}
        for call, restore in calls.items():
            # Thousands of patterns: minutes by the yardstick's own loop.
            if call == "gauss" and name.startswith("random"):
                found[call] = np.nan
                continue
            errors = []
            for seed in range(min(draws, options.draws)):
                mask = make(argument, seed)
                begin = time.process_time()
                errors.append(ruler.nrmse(x, restore(mask), mask))
                seconds[call] += time.process_time() - begin
            found[call] = float(np.mean(errors))
        won = found["auto"] < min(found["parafac"], found["tucker"])
        beaten &= won or found["spline"] > 1.0
        print(
            f"{name:22}" + "".join(f"{found[call]:10.3f}" for call in calls),
            "" if won else "  auto is worse than tensorly",
            flush=True,
        )
    print(f"{'CPU seconds, all':22}" + "".join(f"{s:10.1f}" for s in seconds.values()))
    print("auto beats both of tensorly's wherever the spline is <= 1:", beaten)
    return beaten


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenarios", action="store_true")
    parser.add_argument("--only", default="", help="part of a scenario's name")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--no-mmes", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.scenarios:
        speed()
        return 0
    return 0 if scenarios(options) else 1


if __name__ == "__main__":
    sys.exit(main())
