"""Batched eigendecomposition against torch.linalg.eigh, in one run.

CPU seconds on one thread; the last column is wall seconds of one thread over
those of two.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from eegtensor.geometry._batched_eigh import eigh, kernel_available, use_kernel


def best(function: Callable[[], object], clock: Callable[[], float]) -> float:
    """Best of some calls, in milliseconds."""
    function()
    taken = []
    for _ in range(7):
        start = clock()
        function()
        taken.append(clock() - start)
    return 1e3 * min(taken)


def on_threads(n: int, function: Callable[[], object]) -> float:
    torch.set_num_threads(n)
    try:
        return best(function, time.perf_counter)
    finally:
        torch.set_num_threads(1)


def main() -> None:
    torch.set_num_threads(1)
    print(f"compiled kernel: {'yes' if kernel_available() else 'no'}")
    print(
        "dtype    b    n    torch ms    ours ms   ratio   two threads: ours  torch only"
    )
    for dtype in (torch.float32, torch.float64):
        for b in (50, 512):
            for n in (8, 16, 20, 32, 64, 128):
                if b == 512 and n == 128 and dtype == torch.float64:
                    b = 256
                X = torch.randn(b, n, 2 * n, dtype=dtype)
                X = X @ X.mT / (2 * n)
                peer = best(lambda X=X: torch.linalg.eigh(X), time.process_time)
                ours = best(lambda X=X: eigh(X), time.process_time)
                line = f"{str(dtype)[6:]:7} {b:3d} {n:4d} {peer:11.2f} {ours:10.2f}"
                line += f" {peer / ours:7.2f}"
                if b >= 256:
                    kernel = on_threads(1, lambda X=X: eigh(X))
                    kernel /= on_threads(2, lambda X=X: eigh(X))
                    with use_kernel(False):
                        lapack = on_threads(1, lambda X=X: eigh(X))
                        lapack /= on_threads(2, lambda X=X: eigh(X))
                    line += f" {kernel:19.2f} {lapack:11.2f}"
                print(line)


if __name__ == "__main__":
    main()
