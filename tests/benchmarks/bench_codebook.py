"""Nearest-code lookup against the rule that NeuroRVQ and LaBraM publish.

8192 codes of 128 entries, unit norm. S2: CPU seconds of one thread, as a ratio,
with identical indices. S3: extra memory, each in a process of its own. Asked:
4.5x and 200 MB; stretch 8x and 60 MB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from eegtensor.codebook import prepare_codes, search

N_CODES, DIM = 8192, 128


def published(X: Tensor, codes: Tensor) -> Tensor:
    """Three tables of distances, and one-hot counts in evaluation, too.

    Written from tokenizers.md, section 3.2.
    """
    squares = X.pow(2).sum(dim=1, keepdim=True)
    apart = squares + codes.pow(2).sum(dim=1) - 2 * (X @ codes.T)
    ids = apart.argmin(dim=1)
    one_hot(ids, len(codes)).to(X.dtype).sum(dim=0)
    return ids


def draw(n: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    X, codes = torch.randn(n, DIM, generator=g), torch.randn(N_CODES, DIM, generator=g)
    return normalize(X, dim=1), normalize(codes, dim=1)


def seconds(function: Callable[[], object], n_runs: int) -> float:
    taken = []
    for _ in range(n_runs):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return min(taken)


def speed(n: int) -> None:
    X, codes = draw(n)
    ready = prepare_codes(codes)
    plain = ready._replace(rough=None)
    n_runs = 5 if n < 10_000 else 2
    theirs = seconds(lambda: published(X, codes), n_runs)
    same = float((search(X, ready) == published(X, codes)).double().mean())
    for name, table in (("float32", plain), ("as chosen here", ready)):
        ours = seconds(lambda table=table: search(X, table), n_runs)
        print(
            f"S2 n={n:6d} {name:14} {1e6 * ours / n:6.1f} us a vector, published "
            f"{1e6 * theirs / n:6.1f}: {theirs / ours:5.2f}x; same {100 * same:.3f} %",
            flush=True,
        )
    kind = "bfloat16 shortlist" if ready.rough is not None else "float32"
    print(f"   chosen here: {kind}; prepare {1e3 * _prepare(codes):.1f} ms")


def _prepare(codes: Tensor) -> float:
    return seconds(lambda: prepare_codes(codes), 3)


def memory(what: str, n: int = 32_768) -> None:
    X, codes = draw(n)
    # Buffers that any product of matrices needs once.
    X[:64] @ codes[:64].T
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if what == "published":
        published(X, codes)
    else:
        ready = prepare_codes(codes)
        search(X, ready if what == "ours" else ready._replace(rough=None))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"S3 n={n} {what:10} {(after - before) / 1024:7.0f} MB extra", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        memory(sys.argv[1])
        return
    # First: a process starts with the peak memory of the one that started it.
    for what in ("ours", "float32", "published"):
        subprocess.run([sys.executable, __file__, what], check=True)
    speed(2048)
    speed(32_768)


if __name__ == "__main__":
    main()
