"""NeuroRVQ and LaBraM's tokenizer as published and fixed: speed, and what fixes buy.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_neurorvq.py speed
    OMP_NUM_THREADS=1 python tests/benchmarks/bench_neurorvq.py fixes [--minutes 3]

speed: published sizes, random weights, 32 channels for 8 s, CPU seconds of one thread.
The design with its own lookup (`bench_codebook.published`, written from tokenizers.md,
3.2) against ours; ids must be the same.

fixes: small size, set A of `rate_distortion.py` (EEGTENSOR_YARDSTICK), trained for the
same CPU minutes a row, one seed. EOG1 and EOG2 go by LOC and ROC, since the published
table has no place for them. Dead: codes of 3 levels of 4 branches that no training
patch uses; use: share of codes that occur on test, by level.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from bench_codebook import published
from bench_tokens import yardstick
from numpy.typing import NDArray
from torch import Tensor

from eegtensor.codebook import _book, code_counts, code_usage
from eegtensor.models._electrodes import NAMES
from eegtensor.models.labram import VQNSP
from eegtensor.models.neurorvq import NeuroRVQ
from eegtensor.tokens._neural_fit import ALL_FIXES
from eegtensor.tokens._signals import Signals
from eegtensor.tokens.neural import NeuralBackend, NeuralCodec
from eegtensor.training import TrainState

# Those of EEGLAB's sample recording, in its order.
CHANNELS = (
    "FPz LOC F3 Fz F4 ROC FC5 FC1 FC2 FC6 T7 C3 C4 Cz T8 CP5 CP1 CP2 CP6 P7 P3 Pz P4 "
    "P8 PO7 PO3 POz PO4 PO8 O1 Oz O2"
).split()
ROWS: dict[str, tuple[str, ...]] = {
    "published": (),
    "+residual": ("residual",),
    "+revival": ("revival",),
    "+spectrum": ("spectrum",),
    "+norms": ("norms",),
    "all": ALL_FIXES,
    "all but alone": tuple(f for f in ALL_FIXES if f != "alone"),
    "+warmup": ("warmup",),
    "+channels": ("channels",),
}


def cpu(function: Callable[[], Any], n_runs: int = 3) -> tuple[float, Any]:
    taken, found = [], None
    for _ in range(n_runs):
        start = time.process_time()
        found = function()
        taken.append(time.process_time() - start)
    return float(np.median(taken)), found


@contextmanager
def published_lookup(model: Any) -> Iterator[None]:
    """Let a network's codebooks search as the published code does."""
    ours = _book.search, _book.prepare_codes
    module: Any = _book
    module.search, module.prepare_codes = published, lambda table, cosine: table
    # Forget the tables that were prepared for ours.
    model.train().eval()
    try:
        yield
    finally:
        module.search, module.prepare_codes = ours
        model.train().eval()


@torch.no_grad()
def speed() -> None:
    torch.set_num_threads(1)
    x = torch.randn(1, 32, 1600, generator=torch.Generator().manual_seed(0))
    for name, network in (
        ("NeuroRVQ", NeuroRVQ(fixes=(), random_state=0)),
        ("LaBraM", VQNSP(fixes=(), random_state=0)),
    ):
        model: Any = network.eval()
        channels = list(NAMES[:32])

        def encode(model: Any = model, channels: list[str] = channels) -> Tensor:
            return model.encode(x, channels)

        encode()
        ours, ids = cpu(encode)
        with published_lookup(model):
            theirs, same = cpu(encode)
        rebuilt, _ = cpu(lambda m=model, c=channels, i=ids: m.decode(i, c))
        print(
            f"{name}: published lookup {8 / theirs:.1f}x real time, ours "
            f"{8 / ours:.1f}x ({theirs:.3f} and {ours:.3f} s); decode {rebuilt:.3f} s; "
            f"same ids {float((ids == same).double().mean()):.4f}",
            flush=True,
        )
    for name, network in (
        ("NeuroRVQ", NeuroRVQ(size="small", n_levels=3, random_state=0)),
        ("LaBraM", VQNSP(size="small", random_state=0)),
    ):
        codec = NeuralCodec(name, {}, network.eval(), torch.zeros(92))
        X = x.numpy().astype(float)
        codec.encode(X, 200.0, CHANNELS)
        taken, ids = cpu(lambda c=codec, v=X: c.encode(v, 200.0, CHANNELS).ids)
        back, _ = cpu(lambda c=codec, i=ids: c.decode(i, 200.0, CHANNELS, 1600))
        print(
            f"{name}, small, all fixes: encode {8 / taken:.0f}x real time, decode "
            f"{8 / back:.0f}x",
            flush=True,
        )


class Clock:
    """CPU seconds at the end of every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, state: TrainState) -> None:
        self.times.append(time.process_time())


def fitted(train: list[NDArray], fixes: tuple[str, ...], **options: Any) -> Any:
    X = [x[None].astype(float) for x in train]
    signals = [Signals(x, 200.0, tuple(CHANNELS), True) for x in X]
    return NeuralBackend("neurorvq").fit(
        signals, X, bits_per_second=104, fixes=fixes, **options
    )


def usage(codec: Any, recordings: list[NDArray]) -> Any:
    ids = [codec.encode(x[None].astype(float), 200.0, CHANNELS).ids for x in recordings]
    flat = np.concatenate([i.reshape(-1, i.shape[-1]) for i in ids]).astype(np.int64)
    return code_usage(code_counts(torch.from_numpy(flat), int(codec.alphabet[0])))


def fixes(minutes: float, rows: list[str]) -> None:
    torch.set_num_threads(1)
    measure = yardstick()
    train, test = measure.load("A")
    print(f"{minutes:g} CPU minutes a row, 96 bit/s/channel, test of set A", flush=True)
    for row in rows:
        clock = Clock()
        fitted(train, ROWS[row], n_steps=1, callbacks=[clock])
        a_step = float(np.diff(clock.times)[3:].mean())
        n_steps = math.ceil(minutes * 60 / a_step)
        start = time.process_time()
        codec = fitted(train, ROWS[row], n_steps=n_steps)
        taken = time.process_time() - start
        rebuilt = [
            codec.decode(
                codec.encode(x[None].astype(float), 200.0, CHANNELS).ids,
                200.0,
                CHANNELS,
                x.shape[1],
            )[0]
            for x in test
        ]
        m = measure.metrics(test, rebuilt)
        on_train, on_test = usage(codec, train), usage(codec, test)
        by_level = on_test.share.view(4, -1).mean(dim=0)
        print(
            f"{row:14s} NRMSE {m['nrmse']:.3f}  power {m['power_db']:.2f} dB  phase "
            f"{m['phase_deg']:.0f} deg  dead {int(on_train.dead.sum())} of "
            f"{len(on_train.dead) * int(codec.alphabet[0])}  use "
            f"{' '.join(f'{v:.2f}' for v in by_level.tolist())}  "
            f"({n_steps} steps, {taken:.0f} CPU s)",
            flush=True,
        )


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("speed", "fixes"))
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS)[:6])
    given = parser.parse_args()
    if given.what == "speed":
        speed()
    else:
        fixes(given.minutes, given.rows)


if __name__ == "__main__":
    main()
