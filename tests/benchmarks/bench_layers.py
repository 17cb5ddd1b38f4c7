"""Factorised layers: forward times beside dense and tensorly-torch, accuracy, memory.

    python tests/benchmarks/bench_layers.py [--repeats 200]
    python tests/benchmarks/bench_layers.py --accuracy [--seeds 3]

Times are of one thread, the smallest of interleaved repeats. tensorly-torch is timed
where it can be imported (EEGTENSOR_PEERS may name a folder it was installed to).
--accuracy trains a convolutional classifier on simulated trials, factorises all its
large layers, trains both on for as many epochs, and compares them on other trials.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, linear

from eegtensor.nn import (
    FactorizedConv1d,
    FactorizedLinear,
    MultiwayAttention,
    factorize_,
)

KINDS = ("tt", "tr", "tucker", "cp", "stt", "str", "sttu")


def race(runs: list[Callable[[], Tensor]], repeats: int) -> list[float]:
    """Smallest milliseconds of each, turn by turn so that all meet the same load."""
    best = [float("inf")] * len(runs)
    for _ in range(repeats):
        for k, run in enumerate(runs):
            start = time.perf_counter()
            run()
            best[k] = min(best[k], time.perf_counter() - start)
    return [1e3 * seconds for seconds in best]


def linear_times(repeats: int, share: float) -> None:
    dense = nn.Linear(256, 256)
    for batch in (64, 1024):
        print(f"\nLinear 256 -> 256, at most {share:.0%} of the numbers, batch {batch}")
        print(
            "                   forward, of use      forward, to learn   and backward"
        )
        print("kind  numbers    ms  rebuild  dense    ms  rebuild  dense     ms  dense")
        for kind in KINDS:
            net = FactorizedLinear(256, 256, kind, share)
            x = torch.randn(batch, 256)

            def rebuilt(net: FactorizedLinear = net, x: Tensor = x) -> Tensor:
                return linear(x, net.weight, net.bias)

            def layer(net: FactorizedLinear = net, x: Tensor = x) -> Tensor:
                return net(x)

            def plain(x: Tensor = x) -> Tensor:
                return dense(x)

            with torch.no_grad():
                used = race([layer, rebuilt, plain], repeats)
            learned = race([layer, rebuilt, plain], repeats)
            steps = [partial(learn, layer, net), partial(learn, plain, dense)]
            both = race(steps, repeats)
            print(
                f"{kind:7} {net.layout.n_parameters:5d}"
                + "".join(f" {ms:7.3f}" for ms in (*used, *learned, *both))
                + "   times dense:"
                + "".join(f" {v[0] / v[-1]:.2f}" for v in (used, learned, both))
            )
        if batch == 64:
            theirs = tensorly_torch(x)
            print(f"tensorly-torch CP, factorised: {theirs}")


def learn(run: Callable[[], Tensor], net: nn.Module) -> Tensor:
    net.zero_grad()
    loss = run().square().mean()
    loss.backward()
    return loss


def tensorly_torch(x: Tensor) -> str:
    folder = os.environ.get("EEGTENSOR_PEERS")
    if folder:
        sys.path.insert(0, folder)
    try:
        import tensorly
        import tltorch
    except ImportError as error:
        return f"not installed ({error})"
    tensorly.set_backend("pytorch")
    net = tltorch.FactorizedLinear((16, 16), (16, 16), factorization="cp", rank=0.1)
    net(x)
    return f"{race([lambda: net(x)], 2)[0]:.0f} ms"


@torch.no_grad()
def conv_times(repeats: int, share: float) -> None:
    dense = nn.Conv1d(64, 64, 25, padding="same")
    x = torch.randn(16, 64, 256)
    print(f"\nConv1d 64 -> 64, 25 taps, at most {share:.0%}, 16 trials of 256 samples")
    print("kind     numbers   layer ms   rebuild ms   dense ms   layer / dense")
    for kind in KINDS:
        net = FactorizedConv1d(64, 64, 25, kind, share, padding="same")

        def rebuilt(net: FactorizedConv1d = net) -> Tensor:
            return conv1d(x, net.weight, net.bias, padding="same")

        runs = [lambda: net(x), rebuilt, lambda: dense(x)]  # noqa: B023
        ours, rebuild, plain = race(runs, max(repeats // 10, 3))
        print(
            f"{kind:7} {net.layout.n_parameters:8d} {ours:10.2f} {rebuild:12.2f}"
            f" {plain:10.2f} {ours / plain:15.2f}"
        )


def attention_memory() -> None:
    print("\nMultiwayAttention, 4 trials, 30 positions: MB kept for the backward pass")
    for n in range(2, 7):
        kept: dict[int, int] = {}

        def pack(x: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        net = MultiwayAttention((16,) * n, 4, n_heads=2)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            out = net(*(torch.randn(4, 30, 16) for _ in range(n)))
        del out
        whole = 4 * 2 * 30.0**n * 4 / 2**20
        print(f"M={n}: {sum(kept.values()) / 2**20:.2f} (all tuples: {whole:.3g})")


class Classifier(nn.Module):
    """Filters in time and over channels, log power in windows, two dense layers."""

    def __init__(self, n_channels: int, n_classes: int) -> None:
        super().__init__()
        self.filter = nn.Conv1d(n_channels, 64, 25, stride=2, bias=False)
        self.norm = nn.BatchNorm1d(64)
        self.head = nn.Sequential(
            nn.Dropout(0.3),
            nn.Linear(512, 512),
            nn.GELU(),
            nn.Dropout(0.3),
            nn.Linear(512, 256),
            nn.GELU(),
            nn.Linear(256, n_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        power = nn.functional.adaptive_avg_pool1d(self.norm(self.filter(x)).square(), 8)
        out: Tensor = self.head((power + 1e-3).log().flatten(1))
        return out


def train(
    net: nn.Module, X: Tensor, y: Tensor, epochs: int, rate: float, seed: int
) -> nn.Module:
    torch.manual_seed(seed)
    search = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-2)
    steps = epochs * -(-len(X) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(search, steps)
    net.train()
    for _ in range(epochs):
        for part in torch.randperm(len(X)).split(64):
            search.zero_grad()
            loss = nn.functional.cross_entropy(net(X[part]), y[part])
            loss.backward()
            search.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def accuracy(net: nn.Module, X: Tensor, y: Tensor) -> float:
    return 100.0 * float((net(X).argmax(dim=1) == y).double().mean())


def classifier(seeds: int) -> None:
    from eegtensor import simulate_trials

    found: dict[str, list[tuple[float, float, float, float]]] = {k: [] for k in KINDS}
    for seed in range(seeds):
        trials = simulate_trials(
            n_subjects=4,
            n_sessions=1,
            n_trials=200,
            snr=4.0,
            subject_shift=0.3,
            random_state=seed,
        )
        names, labels = np.unique(trials.y, return_inverse=True)
        X = torch.from_numpy(np.asarray(trials.X)).float()
        X = X / X.std(dim=(0, 2), keepdim=True)
        y = torch.from_numpy(labels)
        order = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))
        one, two = order[: len(X) // 2], order[len(X) // 2 :]
        torch.manual_seed(seed)
        first = train(
            Classifier(X.shape[1], len(names)), X[one], y[one], 15, 1e-3, seed
        )
        longer = train(copy.deepcopy(first), X[one], y[one], 10, 1e-3, seed)
        best = accuracy(longer, X[two], y[two])
        for kind in KINDS:
            net = copy.deepcopy(first)
            report = factorize_(net, 0.08, kind)
            at_once = accuracy(net, X[two], y[two])
            train(net, X[one], y[one], 10, 1e-3, seed)
            small = accuracy(net, X[two], y[two])
            found[kind].append((report.ratio, at_once, small, best))
            print(f"seed {seed} {kind}: {small:.1f} (dense {best:.1f})", flush=True)
    print(f"\nTest accuracy in %, means of {seeds} simulated sets of {len(two)} trials")
    print("kind    fewer   before training on   after   dense   difference")
    for kind, rows in found.items():
        ratio, at_once, small, best = np.mean(rows, axis=0)
        print(
            f"{kind:7} {ratio:4.1f}x {at_once:19.1f} {small:7.1f} {best:7.1f}"
            f" {small - best:12.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.accuracy:
        classifier(options.seeds)
        return
    linear_times(options.repeats, options.share)
    conv_times(options.repeats, options.share)
    attention_memory()


if __name__ == "__main__":
    main()
