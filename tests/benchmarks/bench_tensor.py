"""Tensor decompositions beside tensorly: CPU seconds of one thread, fits, ratios.

    python tests/benchmarks/bench_tensor.py [--repeats 3]

The tensors of the specification: two of planted rank 8 with as much noise as
signal, and log power of a real recording (EEGTENSOR_DATA), trials x channels x
frequencies x times. tensorly runs with its defaults on NumPy and on torch.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import eegtensor.tensor as T

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _planted import cp_tensor, noisy


def planted(shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((size, 8)) for size in shape]
    return noisy(cp_tensor(factors), 0.0, rng).astype(np.float32)


def real() -> np.ndarray | None:
    """Log power, 30 channels x 40 frequencies x 50 times x 80 trials, centred."""
    data = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    path = Path(os.environ.get("EEGTENSOR_DATA", data)) / "eeglab_sample"
    if not path.is_dir():
        return None
    import mne

    from eegtensor.features import TimeFrequencyTensor

    mne.set_log_level("ERROR")
    raw = mne.io.read_raw_eeglab(path / "eeglab_data.set", preload=True)
    raw.drop_channels([name for name in raw.ch_names if "EOG" in name.upper()])
    events, names = mne.events_from_annotations(raw)
    epochs = mne.Epochs(
        raw, events, names["square"], -0.5, 1.5, baseline=None, preload=True
    )
    X = epochs.get_data(copy=False)[:80]
    front = TimeFrequencyTensor(raw.info["sfreq"], 3.0, 42.0, 40, 50)
    power = front.fit_transform(X)
    power -= power.mean(axis=(0, 3), keepdims=True)
    return np.ascontiguousarray(power.transpose(1, 2, 3, 0)).astype(np.float32)


def seconds(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the fewest CPU seconds of some runs, and the last result."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        out = function()
        best = min(best, time.process_time() - start)
    return best, out


def relative_fit(X: np.ndarray, estimate: Any) -> float:
    rest = np.linalg.norm(np.asarray(estimate, np.float64) - X)
    return 1.0 - float(rest / np.linalg.norm(X.astype(np.float64)))


def compare(name: str, X: np.ndarray, rank: int, repeats: int) -> None:
    import tensorly as tl
    from tensorly.decomposition import non_negative_parafac_hals, parafac, tucker

    ours_tucker, model = seconds(lambda: T.tucker(X, rank), repeats)
    ours_cp, cp_model = seconds(lambda: T.cp(X, rank), repeats)
    print(f"\n{name} {X.shape}, rank {rank}: CPU s, fit, ratio to ours")
    print(f"  {'tucker':36} {ours_tucker:8.3f}  {model.fit:.5f}")
    ranks = [rank] * X.ndim
    for backend, options in (("numpy", {}), ("pytorch", {}), ("pytorch", RANDOM)):
        tl.set_backend(backend)
        Y = tl.tensor(X)
        cost, found = seconds(lambda Y=Y, o=options: tucker(Y, ranks, **o), 1)
        fit = relative_fit(X, tl.tucker_to_tensor(found))
        label = f"tensorly/{backend}" + (", randomized" if options else "")
        print(f"  {label:36} {cost:8.3f}  {fit:.5f}  {cost / ours_tucker:6.1f}x")
    tl.set_backend("numpy")
    print(f"  {'cp':36} {ours_cp:8.3f}  {cp_model.fit:.5f}")
    cost, found = seconds(lambda: parafac(X, rank), 1)
    fit = relative_fit(X, tl.cp_to_tensor(found))
    ratio = cost / ours_cp
    print(f"  {'tensorly/numpy parafac':36} {cost:8.3f}  {fit:.5f}  {ratio:6.1f}x")
    sweep_ours, sweep_theirs = sweeps(X, rank)
    print(
        f"  a sweep: ours {1e3 * sweep_ours:.1f} ms, theirs "
        f"{1e3 * sweep_theirs:.1f} ms, {sweep_theirs / sweep_ours:.1f}x"
    )
    X = np.exp(X) if name.startswith("log") else np.abs(X)
    cost_nn, nn = seconds(lambda: T.nonnegative_cp(X, rank, n_init=1), 1)
    cost, found = seconds(lambda: non_negative_parafac_hals(X, rank, n_iter_max=20), 1)
    fit = relative_fit(X, tl.cp_to_tensor(found))
    print(f"  {'non-negative cp ':36} {cost_nn:8.3f}  {nn.fit:.5f}")
    print(f"  {'tensorly HALS, 20 sweeps':36} {cost:8.3f}  {fit:.5f}")


RANDOM = {"svd": "randomized_svd"}


def sweeps(X: np.ndarray, rank: int) -> tuple[float, float]:
    """Return CPU seconds of one ALS sweep, ours and tensorly's."""
    from tensorly.decomposition import parafac

    few, many = 5, 25

    def ours(n: int) -> float:
        from eegtensor.tensor._alternate import alternate

        generator = torch.Generator().manual_seed(0)
        factors = [torch.randn(s, rank, generator=generator) for s in X.shape]
        Y = torch.from_numpy(X)
        total = float((X.astype(np.float64) ** 2).sum())
        return seconds(lambda: alternate(Y, list(factors), total, 1e-9, n, -1.0), 3)[0]

    def theirs(n: int) -> float:
        return seconds(
            lambda: parafac(
                X, rank, n_iter_max=n, init="random", tol=0, random_state=0
            ),
            3,
        )[0]

    return (ours(many) - ours(few)) / 20, (theirs(many) - theirs(few)) / 20


MEMORY = """
import sys, threading, time, numpy as np, torch
torch.set_num_threads(1)
import eegtensor.tensor as T
X = np.abs(np.random.default_rng(0).standard_normal((22, 40, 50, 288), np.float32))
call = {
    "tucker": lambda X: T.tucker(X, 3),
    "cp": lambda X: T.cp(X, 3),
    "tensor_train": lambda X: T.tensor_train(X, 3),
    "nonnegative_cp": lambda X: T.nonnegative_cp(X, 3, n_init=1, max_iter=3),
    "tensor_ring": lambda X: T.tensor_ring(X, 2, max_iter=3),
}[sys.argv[1]]
call(X[:4, :4, :4, :8].copy())
def resident():
    with open("/proc/self/statm") as file:
        return 4096 * int(file.read().split()[1])
before = most = resident()
running = True
def watch():
    global most
    while running:
        most = max(most, resident())
        time.sleep(0.0005)
thread = threading.Thread(target=watch)
thread.start()
call(X)
running = False
thread.join()
print((most - before) / X.nbytes)
"""


def memory() -> None:
    """Print the most memory of a call in multiples of the tensor, by sampling."""
    print("\nMost extra memory during a call, in multiples of the tensor (50 MB):")
    for name in ("tucker", "cp", "tensor_train", "nonnegative_cp", "tensor_ring"):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, name],
            capture_output=True,
            text=True,
            check=True,
        )
        print(f"  {name:16} {float(done.stdout):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    compare("planted", planted((64, 512, 200)), 8, args.repeats)
    compare("planted", planted((22, 40, 50, 288)), 8, args.repeats)
    X = real()
    if X is not None:
        compare("log power of a recording", X, 10, args.repeats)
    memory()


if __name__ == "__main__":
    main()
