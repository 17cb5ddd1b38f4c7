"""A training step of TSMNet against the authors' code, in one run and one thread.

CPU seconds of forward, backward, RiemannianAdam and all state updates for a
batch of 50 trials (22 channels x 750 samples) of 5 domains, with equal weights,
and the difference of the losses. The peer is read from the environment variable
``EEGTENSOR_TSMNET`` (a checkout of rkobler/TSMNet); without it only ours runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geoopt
import numpy as np
import torch
from torch import Tensor, nn

from eegtensor.models import TSMNet
from eegtensor.training.optim import make_optimizer

sys.path.insert(0, str(Path(__file__).resolve().parent))

BATCH, CHANNELS, TIMES, DOMAINS, CLASSES = 50, 22, 750, 5, 4
Step = Callable[[], float]


def trials(seed: int = 0, n_chans: int = CHANNELS) -> tuple[Tensor, Tensor, Tensor]:
    """Trials in volts whose channels are mixed, their classes and domains."""
    rng = np.random.default_rng(seed)
    mix = np.eye(n_chans) + 0.3 * rng.standard_normal((n_chans, n_chans))
    signals = rng.standard_normal((BATCH, n_chans, TIMES + 20)).cumsum(axis=-1)
    # A first difference over some samples: coloured like EEG, without its drift.
    x = 1e-5 * mix @ (signals[..., 20:] - signals[..., :-20])
    y = rng.integers(0, CLASSES, BATCH)
    domain = np.arange(BATCH) % DOMAINS
    return torch.from_numpy(x.astype(np.float32)), *map(torch.from_numpy, (y, domain))


def original(y: Tensor, domain: Tensor, x: Tensor) -> tuple[nn.Module, Step] | None:
    """The authors' network and its step, or None without their checkout."""
    if "EEGTENSOR_TSMNET" not in os.environ:
        return None
    from _original_tsmnet import load_spdnets

    torch.manual_seed(0)
    model = load_spdnets().tsmnet.TSMNet(
        temporal_filters=4,
        bnorm="spddsbn",
        domains=torch.arange(DOMAINS),
        nclasses=CLASSES,
        nchannels=x.shape[1],
        nsamples=x.shape[2],
        device=torch.device("cpu"),
    )
    W = [p for n, p in model.named_parameters() if n == "spdnet.0.W"]
    rest = [p for n, p in model.named_parameters() if n != "spdnet.0.W"]
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": W, "weight_decay": 0.0}]
    optimizer = geoopt.optim.RiemannianAdam(groups, lr=1e-3, weight_decay=1e-4)
    microvolts = x * 1e6

    def step() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(microvolts, domain)[0], y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return model.train(), step


def copy_weights(net: TSMNet, peer: nn.Module) -> None:
    """Give our network the weights of the authors'."""
    theirs = dict(peer.named_parameters())
    n = net.tail.norm.n
    # Theirs: the diagonal, then the lower triangle by rows. Ours: the upper one.
    lower = torch.tril_indices(n, n, -1)
    place = torch.empty(n, n, dtype=torch.int64)
    place[range(n), range(n)] = torch.arange(n)
    place[lower[1], lower[0]] = torch.arange(n, n * (n + 1) // 2)
    order = place[tuple(torch.triu_indices(n, n))]
    with torch.no_grad():
        for ours, name in (
            (net.front.temporal, "cnn.0"),
            (net.front.spatial, "cnn.1"),
        ):
            ours.weight.copy_(theirs[f"{name}.weight"])
            ours.bias.copy_(theirs[f"{name}.bias"])
        net.bimap.weight.copy_(theirs["spdnet.0.W"][0])
        net.head.weight.copy_(theirs["classifier.0.weight"][:, order])
        net.head.bias.copy_(theirs["classifier.0.bias"])


def ours(
    x: Tensor,
    y: Tensor,
    domain: Tensor,
    *,
    front: str = "lag",
    peer: nn.Module | None = None,
    parity: bool = False,
) -> Step:
    """Our network's step. `parity` takes over two habits of the authors' code."""
    net = TSMNet(
        x.shape[1],
        CLASSES,
        x.shape[2],
        domains=[f"person {d}" for d in range(DOMAINS)],
        front=front,
        random_state=0,
        # Their gradient leaves out the whitening by the arithmetic mean.
        norm_options={"detach_statistics": "whitening" if parity else False},
    )
    if peer is not None:
        copy_weights(net, peer)
    optimizer = make_optimizer(net)
    if parity:
        # Their Stiefel metric; its retraction in geoopt is not of first order.
        net.bimap.weight.manifold = geoopt.Stiefel()
        optimizer = geoopt.optim.RiemannianAdam(optimizer.param_groups, lr=1e-3)
    data = net.front.statistics(x) if front == "lag" else x
    net.train()

    def step() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(data, domain), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def seconds(step: Step, repeats: int = 15, warm_up: int = 3) -> float:
    """Median CPU seconds of a step."""
    taken = []
    for i in range(warm_up + repeats):
        start = time.process_time()
        step()
        if i >= warm_up:
            taken.append(time.process_time() - start)
    return float(np.median(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="whose losses to compare")
    parser.add_argument("--channels", type=int, default=CHANNELS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    x, y, domain = trials(n_chans=args.channels)
    print(f"TSMNet training step, batch {BATCH}, {args.channels} x {TIMES}, 1 thread")
    peer = original(y, domain, x)
    base = None
    if peer is None:
        print("the authors' code: skipped, EEGTENSOR_TSMNET is not set")
    else:
        for front in ("conv", "lag"):
            model, their_step = original(y, domain, x)  # type: ignore[misc]
            step = ours(x, y, domain, front=front, peer=model, parity=True)
            gap = [abs(step() - their_step()) for _ in range(args.steps)]
            print(
                f"  losses, {front:4}: {gap[0]:.1e} apart at step 1, "
                f"{max(gap):.1e} at most in {args.steps}"
            )
        base = seconds(peer[1])
        print(f"  the authors' code  {1e3 * base:7.1f} ms")
    for front in ("conv", "lag"):
        taken = seconds(ours(x, y, domain, front=front))
        ratio = f"  {base / taken:5.1f} x" if base else ""
        print(f"  ours, {front:12} {1e3 * taken:7.1f} ms{ratio}")


if __name__ == "__main__":
    main()
