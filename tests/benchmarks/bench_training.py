"""What the loop costs beside one written by hand, and what methods cost beside it.

::

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_training.py loop
    OMP_NUM_THREADS=1 python tests/benchmarks/bench_training.py methods

CPU seconds of this process, interleaved in pairs; medians of ratios.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.models import TSMNet
from eegtensor.training import (
    METHODS,
    Batch,
    CrossEntropy,
    DomainBalancedSampler,
    Setup,
    make_optimizer,
    make_plugs,
    train,
)

torch.set_num_threads(1)
DOMAINS = [("bench", f"{k:02d}", "0") for k in range(10)]


def trials(n: int = 500, n_chans: int = 16, n_times: int = 256) -> Batch:
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 2
    x = torch.randn(n, n_chans, n_times, generator=g)
    x[:, 0] *= 1.0 + y[:, None]
    return Batch(x, y, torch.arange(n) // 50)


def spd_network(data: Batch) -> tuple[nn.Module, Batch]:
    net = TSMNet(
        data.x.shape[1],
        2,
        data.x.shape[2],
        domains=DOMAINS,
        front="lag",
        random_state=0,
    )
    with torch.no_grad():
        lagged = net.front.statistics(data.x)
    return net, Batch(lagged, data.y, data.domain)


def plain_network(data: Batch) -> tuple[nn.Module, Batch]:
    net = nn.Sequential(
        nn.Conv1d(data.x.shape[1], 16, 25, stride=4),
        nn.BatchNorm1d(16),
        nn.ELU(),
        nn.AdaptiveAvgPool1d(8),
        nn.Flatten(),
        nn.Linear(128, 2),
    )
    return net, data


NETWORKS = {"TSMNet (lag front)": spd_network, "small CNN": plain_network}


def sampler(data: Batch) -> DomainBalancedSampler:
    return DomainBalancedSampler(data.domain, data.y, random_state=0)


def by_hand(net: nn.Module, data: Batch, epochs: int) -> None:
    optimizer = make_optimizer(net)
    batches = sampler(data)
    takes_domain = isinstance(net, TSMNet)
    net.train()
    for epoch in range(1, epochs + 1):
        for index in batches.indices(epoch):
            x, y = data.x[index], data.y[index]
            out = net(x, domain=data.domain[index]) if takes_domain else net(x)
            loss = F.cross_entropy(out, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    net.eval()


def ours(net: nn.Module, data: Batch, epochs: int) -> None:
    train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net),
        sampler=sampler(data),
        epochs=epochs,
    )


def seconds(run: Callable[..., None], *args: Any) -> float:
    start = time.process_time()
    run(*args)
    return time.process_time() - start


def compare_loop(pairs: int, epochs: int) -> None:
    for name, make in NETWORKS.items():
        net, data = make(trials())
        ratios, costs = [], []
        for k in range(pairs + 1):
            took = {
                loop: seconds(loop, copy.deepcopy(net), data, epochs)
                for loop in ((by_hand, ours) if k % 2 else (ours, by_hand))
            }
            # The first pair warms up.
            if k:
                ratios.append(took[ours] / took[by_hand])
                costs.append(took[by_hand])
        print(
            f"{name}: ours / by hand {median(ratios):.3f} (median of {pairs} pairs; "
            f"by hand {1e3 * median(costs) / epochs / 10:.2f} ms a step)",
            flush=True,
        )


_KINDS = {
    "perturbation": "perturbation",
    "objective": "objective",
    "averager": "averager",
    "gradient transform": "grad_transform",
    "optimizer": "optimizer",
    "sampler": "sampler",
}


def with_method(
    net: nn.Module, data: Batch, epochs: int, choice: dict[str, Any]
) -> None:
    own = copy.deepcopy(net)
    setup = Setup(own, data, epochs=epochs, batch_size=50, seed=0)
    plugs = make_plugs(setup, **({"sampler": "domain-balanced"} | choice))
    train(own, data, epochs=epochs, **plugs)


def compare_methods(pairs: int, epochs: int, only: list[str]) -> None:
    for network, make in NETWORKS.items():
        net, data = make(trials())
        print(f"\n{network}: one step, in plain steps")
        for name, method in METHODS.items():
            if method.kind not in _KINDS or (only and name not in only):
                continue
            choice: dict[str, Any] = {_KINDS[method.kind]: name}
            if method.kind == "objective" and name != "cross-entropy":
                choice = {"objective": ("cross-entropy", f"0.1 * {name}")}
            try:
                ratios = [
                    seconds(with_method, net, data, epochs, choice)
                    / seconds(with_method, net, data, epochs, {})
                    for _ in range(pairs)
                ]
            except EEGTensorError as error:
                print(f"  {name:28} not here: {str(error)[:80]}", flush=True)
                continue
            said = f"(said: {method.cost})"
            print(f"  {name:28} {median(ratios):.2f}  {said}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["loop", "methods"])
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    if options.what == "loop":
        compare_loop(options.pairs or 30, options.epochs)
    else:
        compare_methods(options.pairs or 5, options.epochs, options.only)
