"""CPU milliseconds of the SPD tail against the authors' TSMNet and spd_learn.

ReEig, batch norm and LogEig: forward, forward and backward, evaluation, in one
run and in turns. `EEGTENSOR_TSMNET` names a checkout of rkobler/TSMNet; spd_learn
is used where it can be imported (it has no domains: one norm for all trials).
First the largest differences from the authors' code over five steps.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from _original_tsmnet import load_spdnets
from torch import Tensor

from eegtensor.nn import SPDTail

DTYPES = {"f32": torch.float32, "f64": torch.float64}
Calls = dict[str, Callable[[], object]]


def covariances(b: int, n: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """EEG-like: 2 n samples of sources whose power falls a hundredfold."""
    generator = torch.Generator().manual_seed(seed)
    gain = torch.logspace(0, -1, n, dtype=torch.float64)[:, None]
    x = gain * torch.randn(b, n, 2 * n, dtype=torch.float64, generator=generator)
    mix = torch.randn(n, n, dtype=torch.float64, generator=generator) / n**0.5
    x = (torch.eye(n, dtype=torch.float64) + 0.3 * mix) @ x
    # No eigenvalue below the authors' absolute threshold of 1e-4.
    return (30.0 * x @ x.mT / (2 * n)).to(dtype)


def ours(n: int, domain: Tensor, dtype: torch.dtype) -> torch.nn.Module:
    n_domains = int(domain.max()) + 1
    tail = SPDTail(n, [str(d) for d in range(n_domains)], dtype=dtype)
    return Call(tail, lambda S: tail(S, domain))


class Call(torch.nn.Module):
    """A network called with the matrices alone."""

    def __init__(self, net: torch.nn.Module, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.call = net, call

    def forward(self, S: Tensor) -> Tensor:
        return self.call(S)


def authors(n: int, domain: Tensor, dtype: torch.dtype) -> torch.nn.Module:
    spdnets = load_spdnets()
    modules = __import__("spdnets.modules", fromlist=["modules"])
    batchnorm = spdnets.batchnorm
    norm = batchnorm.AdaMomDomainSPDBatchNorm(
        (1, n, n),
        batchdim=0,
        domains=torch.arange(int(domain.max()) + 1),
        learn_mean=False,
        learn_std=True,
        dispersion=batchnorm.BatchNormDispersion.SCALAR,
        dtype=dtype,
    )
    reeig, logeig = modules.ReEig(threshold=1e-4), modules.LogEig(n)
    return Call(
        torch.nn.ModuleList([reeig, norm, logeig]),
        lambda S: logeig(norm(reeig(S), domain)),
    )


def spd_learn(n: int, domain: Tensor, dtype: torch.dtype) -> torch.nn.Module:
    from spd_learn import modules

    net = torch.nn.Sequential(
        modules.ReEig(), modules.SPDBatchNormMeanVar(n, dtype=dtype), modules.LogEig()
    )
    return Call(net, net)


def calls(net: torch.nn.Module, S: Tensor) -> Calls:
    """The three things that are timed."""
    inputs = S.clone().requires_grad_()

    def forward() -> None:
        net.train()
        net(inputs)

    def both() -> None:
        net.train()
        net(inputs).square().sum().backward()

    def evaluation() -> None:
        net.eval()
        with torch.no_grad():
            net(S)

    return {"forward": forward, "with backward": both, "evaluation": evaluation}


def milliseconds(functions: dict[str, Callable[[], object]], seconds: float) -> dict:
    """Best CPU time of each function; they take turns."""
    best = dict.fromkeys(functions, float("inf"))
    for function in functions.values():
        function()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, function in functions.items():
            start = time.process_time()
            function()
            best[name] = min(best[name], 1e3 * (time.process_time() - start))
    return best


def kernel(use: bool) -> Any:
    """Our compiled eigendecomposition, on or off."""
    try:
        from eegtensor.geometry._batched_eigh import use_kernel
    except ImportError:
        return nullcontext()
    return use_kernel(use)


def compare(n: int, b: int, dtype: str, seconds: float) -> None:
    domain = torch.arange(b) % (5 if b < 100 else 8)
    S = covariances(b, n, DTYPES[dtype])
    makers = {"ours": ours}
    if os.environ.get("EEGTENSOR_TSMNET"):
        makers["TSMNet"] = authors
    try:
        spd_learn(n, domain, DTYPES[dtype])
        makers["spd_learn"] = spd_learn
    except ImportError:
        pass
    nets = {
        name: calls(make(n, domain, DTYPES[dtype]), S) for name, make in makers.items()
    }
    for what in ("forward", "with backward", "evaluation"):
        turns: Calls = {name: net[what] for name, net in nets.items()}

        def without() -> None:
            with kernel(False):
                nets["ours"][what]()  # noqa: B023

        turns["no kernel"] = without
        best = milliseconds(turns, seconds)
        text = f"{dtype} n={n:<3} b={b:<4} {what:14} ours {best['ours']:8.2f} ms"
        text += f"  (no kernel {best['no kernel']:8.2f})"
        for name in [m for m in makers if m != "ours"]:
            peer = best[name]
            text += f"  {name} {peer:8.2f} ms, ratio {peer / best['ours']:5.2f}"
            text += f" ({peer / best['no kernel']:5.2f})"
        print(text, flush=True)


def differences() -> None:
    """How far the authors' code is from ours, with their gradient and with ours."""
    n, b = 20, 50
    domain = torch.arange(b) % 5
    for label, detach, etas in (
        (
            "their gradient, eta 1, .5, .25, .25, .5",
            "whitening",
            (1, 0.5, 0.25, 0.25, 0.5),
        ),
        ("exact gradient, eta 1", False, (1, 1, 1)),
        ("their gradient, eta 1, .3 (they round it to float32)", "whitening", (1, 0.3)),
    ):
        names = [str(d) for d in range(5)]
        tail = SPDTail(n, names, dtype=torch.float64, detach_statistics=detach)
        theirs = authors(n, domain, torch.float64)
        norm = theirs.net[1]
        worst = {"output": 0.0, "gradient": 0.0, "statistics": 0.0}
        for step, eta in enumerate(etas):
            eta_test = 1.0 if step == 0 else 0.25
            tail.norm.set_momentum(eta, eta_test)
            norm.set_eta(eta, eta_test)
            S = covariances(b, n, torch.float64, seed=step)
            X, Y = (S.clone().requires_grad_() for _ in range(2))
            a, t = tail(X, domain), theirs(Y).flatten(1)
            # Squared norms of vectors do not depend on the order of entries.
            a.pow(2).sum(dim=1).exp().sum().backward()
            t.pow(2).sum(dim=1).exp().sum().backward()
            pairs = {
                "output": [(a.pow(2).sum(dim=1), t.pow(2).sum(dim=1))],
                "gradient": [(X.grad, Y.grad)],
                "statistics": [
                    (getattr(tail.norm, mine)[d].flatten(), getattr(bn, his).flatten())
                    for d, bn in enumerate(norm.batchnorm.values())
                    for mine, his in (
                        ("mean", "running_mean"),
                        ("variance", "running_var"),
                        ("test_mean", "running_mean_test"),
                        ("test_variance", "running_var_test"),
                    )
                ],
            }
            for name, both in pairs.items():
                error = max(float((x - y).norm() / y.norm()) for x, y in both)
                worst[name] = max(worst[name], error)
        print(label + ":", ", ".join(f"{k} {v:.1e}" for k, v in worst.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 20, 32, 64])
    parser.add_argument("--batches", type=int, nargs="+", default=[50, 512])
    parser.add_argument("--dtypes", nargs="+", default=["f32", "f64"])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each line")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if os.environ.get("EEGTENSOR_TSMNET"):
        differences()
    else:
        print("EEGTENSOR_TSMNET is not set: no comparison with the authors' code")
    for dtype in arguments.dtypes:
        for n in arguments.sizes:
            for b in arguments.batches:
                compare(n, b, dtype, arguments.seconds)


if __name__ == "__main__":
    main()
