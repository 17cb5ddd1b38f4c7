"""TSMNet on a GPU: agreement with the CPU, no waiting, speed, manifolds kept.

Needs torch, geoopt and numpy. The peers are used where they are found: the
authors' code through ``EEGTENSOR_TSMNET``, spd_learn through ``PYTHONPATH``::

    python tests/benchmarks/gpu.py                  # on a GPU
    python tests/benchmarks/gpu.py --device cpu     # a dry run
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT.parent.parent)]

from _peers import Step, authors_step, spd_learn_step  # noqa: E402
from bench_tsmnet import CLASSES, DOMAINS, our_step, trials  # noqa: E402

from eegtensor.geometry import spectral  # noqa: E402
from eegtensor.models import TSMNet  # noqa: E402
from eegtensor.training.optimizers import make_optimizer  # noqa: E402


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def milliseconds(
    step: Step, device: str, repeats: int = 30, warm_up: int = 10
) -> float:
    """Median wall milliseconds of a step, its work on the device included."""
    taken = []
    for i in range(warm_up + repeats):
        wait(device)
        start = time.perf_counter()
        step()
        wait(device)
        if i >= warm_up:
            taken.append(time.perf_counter() - start)
    return 1e3 * sorted(taken)[len(taken) // 2]


def trained(device: str, dtype: torch.dtype, front: str, steps: int = 5) -> Tensor:
    """Logits, on the CPU, of a network trained on the device."""
    x, y, domain = (t.to(device) for t in trials())
    net = TSMNet(
        x.shape[1],
        CLASSES,
        x.shape[2],
        domains=[str(d) for d in range(DOMAINS)],
        front=front,
        front_dtype=dtype,
        spd_dtype=dtype,
        random_state=0,
    ).to(device)
    optimizer = make_optimizer(net)
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x, domain), y).backward()
        optimizer.step()
    net.fit_statistics(x, domain)
    with torch.no_grad():
        return net.eval()(x, domain).cpu()


def check_agreement(device: str) -> bool:
    good = True
    for dtype, limit in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        for front in ("conv", "lag"):
            a, b = (trained(d, dtype, front) for d in ("cpu", device))
            gap = float((a - b).abs().max())
            good &= gap <= limit
            verdict = "ok" if gap <= limit else f"ABOVE {limit:.0e}"
            print(f"  {dtype}, {front}: logits {gap:.1e} from the CPU's, {verdict}")
    return good


def check_no_waiting(device: str) -> bool:
    if device == "cpu":
        print("  not on a CPU")
        return True
    good = True
    for front in ("conv", "lag"):
        _, step = our_step(*trials(), front=front, device=device)
        # First steps allocate and choose algorithms.
        for _ in range(3):
            step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
            print(f"  {front}: no host synchronisation in a training step")
        except RuntimeError as error:
            good = False
            print(f"  {front}: WAITS: {str(error).splitlines()[0]}")
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return good


def eigen_share(step: Step, device: str, repeats: int = 10) -> float:
    """Part of a step's time, on the device, that eigendecompositions take."""
    original: Any = spectral._eigh

    def marked(X: Tensor) -> Any:
        with record_function("eigendecomposition"):
            return original(X)

    spectral._eigh = marked  # type: ignore[assignment]
    kinds = [ProfilerActivity.CPU]
    if device != "cpu":
        kinds.append(ProfilerActivity.CUDA)
    try:
        with profile(activities=kinds) as record:
            for _ in range(repeats):
                with record_function("step"):
                    step()
                    wait(device)
    finally:
        spectral._eigh = original
    total = {e.key: e for e in record.key_averages()}
    kind = "cpu_time_total" if device == "cpu" else "device_time_total"
    part, whole = (getattr(total[k], kind) for k in ("eigendecomposition", "step"))
    return float(part) / max(float(whole), 1e-9)


def print_speed(device: str) -> None:
    data = trials()
    peers = {
        "the authors' code": authors_step(*data, classes=CLASSES, device=device),
        "spd_learn (no domains)": spd_learn_step(
            *data[:2], classes=CLASSES, device=device
        ),
    }
    times = {}
    for name, found in peers.items():
        if found is None:
            print(f"  {name}: not found")
        else:
            times[name] = milliseconds(found[1], device)
            print(f"  {name}: {times[name]:.2f} ms")
    for front in ("conv", "lag"):
        _, step = our_step(*data, front=front, device=device)
        taken = milliseconds(step, device)
        ratios = "".join(f", {t / taken:.1f} x {n}" for n, t in times.items())
        share = 100.0 * eigen_share(step, device)
        print(f"  ours, {front}: {taken:.2f} ms, {share:.0f} % eigh{ratios}")


def check_manifolds(device: str, steps: int) -> bool:
    good = True
    for dtype in (torch.float32, torch.float64):
        x, y, domain = (t.to(device) for t in trials())
        net = TSMNet(
            x.shape[1],
            CLASSES,
            x.shape[2],
            domains=[str(d) for d in range(DOMAINS)],
            front="lag",
            spd_dtype=dtype,
            random_state=0,
        ).to(device)
        statistics = net.front.statistics(x)
        optimizer = make_optimizer(net)
        net.train()
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(statistics, domain), y).backward()
            optimizer.step()
        W = net.get_parameter("bimap.weight").detach()
        gap = float((W.mT @ W - torch.eye(W.shape[1]).to(W)).abs().max())
        good &= gap < 1e-6
        print(f"  {dtype}: W'W is {gap:.1e} from I after {steps} steps")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=1000, help="of RiemannianAdam")
    args = parser.parse_args()
    if args.device != "cpu" and not torch.cuda.is_available():
        print("no GPU is at hand; --device cpu makes a dry run")
        return 1
    name = "CPU" if args.device == "cpu" else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}")
    print("CPU and device agree")
    good = check_agreement(args.device)
    print("no waiting")
    good &= check_no_waiting(args.device)
    print("a training step: batch 50, 22 x 750, 5 domains")
    print_speed(args.device)
    print("manifolds")
    good &= check_manifolds(args.device, args.steps)
    print("all good" if good else "SOMETHING IS WRONG, see above")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
