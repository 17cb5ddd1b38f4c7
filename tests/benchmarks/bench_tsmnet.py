"""A training step of TSMNet against its peers, in one run and on one thread.

CPU seconds of forward, backward, optimizer and all state updates for a batch of
50 trials (22 channels x 750 samples) of 5 domains, and the difference of the
losses from the authors' code with equal weights. The authors' code is read from
the environment variable ``EEGTENSOR_TSMNET`` (a checkout of rkobler/TSMNet),
spd_learn from where Python finds it; without them only ours runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import geoopt
import numpy as np
import torch
from torch import Tensor, nn

from eegtensor.geometry._batched_eigh import kernel_available, use_kernel
from eegtensor.models import TSMNet
from eegtensor.nn import BiMap, LinearFront
from eegtensor.training.optimizers import make_optimizer

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _peers import Step, authors_step, spd_learn_step

BATCH, CHANNELS, TIMES, DOMAINS, CLASSES = 50, 22, 750, 5, 4


def trials(seed: int = 0, n_chans: int = CHANNELS) -> tuple[Tensor, Tensor, Tensor]:
    """Trials in volts whose channels are mixed, their classes and domains."""
    rng = np.random.default_rng(seed)
    mix = np.eye(n_chans) + 0.3 * rng.standard_normal((n_chans, n_chans))
    signals = rng.standard_normal((BATCH, n_chans, TIMES + 20)).cumsum(axis=-1)
    # A difference over some samples: coloured like EEG, without its drift.
    x = 1e-5 * mix @ (signals[..., 20:] - signals[..., :-20])
    y = rng.integers(0, CLASSES, BATCH)
    domain = np.arange(BATCH) % DOMAINS
    return torch.from_numpy(x.astype(np.float32)), *map(torch.from_numpy, (y, domain))


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
    ours = dict(net.named_parameters())
    with torch.no_grad():
        for layer, name in (("temporal", "cnn.0"), ("spatial", "cnn.1")):
            for part in ("weight", "bias"):
                ours[f"front.{layer}.{part}"].copy_(theirs[f"{name}.{part}"])
        ours["bimap.weight"].copy_(theirs["spdnet.0.W"][0])
        ours["head.weight"].copy_(theirs["classifier.0.weight"][:, order])
        ours["head.bias"].copy_(theirs["classifier.0.bias"])


def our_step(
    x: Tensor,
    y: Tensor,
    domain: Tensor,
    *,
    front: str = "lag",
    peer: nn.Module | None = None,
    device: str = "cpu",
) -> tuple[TSMNet, Step]:
    """Our network and its training step.

    With a `peer` it takes over the weights and two habits of the authors' code.
    """
    net = TSMNet(
        x.shape[1],
        CLASSES,
        x.shape[2],
        domains=[f"person {d}" for d in range(DOMAINS)],
        front=front,
        random_state=0,
        # Their gradient leaves out the whitening by the arithmetic mean.
        norm_options={"detach_statistics": "whitening" if peer else False},
    ).to(device)
    x, y, domain = x.to(device), y.to(device), domain.to(device)
    optimizer = make_optimizer(net)
    if peer is not None:
        copy_weights(net, peer)
        # Their Stiefel metric; its retraction in geoopt is not of first order.
        net.get_parameter("bimap.weight").manifold = geoopt.Stiefel()
    data = net.front.statistics(x) if front == "lag" else x

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(data, domain), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return net.train(), step


def seconds(step: Callable[[], object], repeats: int = 15, warm_up: int = 3) -> float:
    """Median CPU seconds of a step."""
    taken = []
    for i in range(warm_up + repeats):
        start = time.process_time()
        step()
        if i >= warm_up:
            taken.append(time.process_time() - start)
    return float(np.median(taken))


def print_fronts(x: Tensor) -> None:
    """The front alone: the convolutions as published, and our two paths."""
    n_chans, n_times = x.shape[1:]
    convolutions = nn.Sequential(
        nn.Conv2d(1, 4, (1, 25), padding="same", padding_mode="reflect"),
        nn.Conv2d(4, 40, (n_chans, 1)),
    )
    W = BiMap(40, 20).weight
    ours = LinearFront(n_chans, n_times)

    def published() -> Tensor:
        h = convolutions(x[:, None])[:, :, 0]
        h = h - h.mean(dim=-1, keepdim=True)
        return W.mT @ (h @ h.mT / n_times) @ W

    def forward(path: str, data: Tensor) -> Tensor:
        ours.path = path
        return ours(data, projection=W)

    statistics = ours.statistics(x)
    once = seconds(lambda: ours.statistics(x))
    print(f"  front alone; lag statistics take {1e3 * once:.1f} ms, once")
    base = None
    for name, function in (
        ("as published", published),
        ("conv", lambda: forward("conv", x)),
        ("lag", lambda: forward("lag", statistics)),
    ):
        with torch.no_grad():
            alone = seconds(function)
        both = seconds(lambda f=function: f().square().sum().backward())
        base = base or (alone, both)
        print(
            f"    {name:13} forward {1e3 * alone:6.1f} ms ({base[0] / alone:4.1f} x), "
            f"with backward {1e3 * both:6.1f} ms ({base[1] / both:4.1f} x)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="whose losses to compare")
    parser.add_argument("--channels", type=int, default=CHANNELS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    x, y, domain = trials(n_chans=args.channels)
    print(f"TSMNet training step, batch {BATCH}, {args.channels} x {TIMES}, one thread")
    print_fronts(x)
    bases = {}
    for front in ("conv", "lag"):
        peer = authors_step(x, y, domain, classes=CLASSES)
        if peer is None:
            print("  authors' code: skipped, EEGTENSOR_TSMNET is not set")
            break
        step = our_step(x, y, domain, front=front, peer=peer[0])[1]
        gaps = [float((step() - peer[1]()).abs()) for _ in range(args.steps)]
        print(
            f"  losses, ours ({front}) and the authors': {gaps[0]:.0e} apart at first, "
            f"at most {max(gaps):.0e} in {args.steps} steps"
        )
    for name, found in (
        ("authors' code", authors_step(x, y, domain, classes=CLASSES)),
        ("spd_learn, no domains", spd_learn_step(x, y, classes=CLASSES)),
    ):
        if found is not None:
            bases[name] = seconds(found[1])
            print(f"  {name:24} {1e3 * bases[name]:7.1f} ms")
    kernels = (False, True) if kernel_available() else (False,)
    for front in ("conv", "lag"):
        for kernel in kernels:
            with use_kernel(kernel):
                taken = seconds(our_step(x, y, domain, front=front)[1])
            ratios = ", ".join(f"{b / taken:4.1f} x {n}" for n, b in bases.items())
            name = f"ours, {front}{', kernel' if kernel else ''}"
            print(f"  {name:24} {1e3 * taken:7.1f} ms  {ratios}")


if __name__ == "__main__":
    main()
