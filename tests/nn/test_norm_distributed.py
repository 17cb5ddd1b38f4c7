"""Two processes that train together equal one with the whole batch."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from nn._matrices import covariances, shifted
from torch import distributed as dist

from eegtensor.nn import DomainBatchNorm, SPDTail

NAMES = ["ann", "bob", "eve", "joe"]
# Domains of the first process, and of the second one.
DOMAIN = torch.tensor([0, 0, 1, 1, 0, 2, 1, 1, 2, 2])
HALVES = (slice(0, 4), slice(4, 10))

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="no torch.distributed")


def layers() -> dict[str, Any]:
    return {
        "affine": SPDTail(4, NAMES, dtype=torch.float64),
        "two-steps": SPDTail(4, NAMES, steps=2, dtype=torch.float64),
        "log-euclidean": SPDTail(4, NAMES, metric="log-euclidean", dtype=torch.float64),
        "log-cholesky": SPDTail(4, NAMES, metric="log-cholesky", dtype=torch.float64),
        "vector": DomainBatchNorm(4, NAMES, dtype=torch.float64),
    }


def run(part: slice) -> dict[str, list[torch.Tensor]]:
    """Two steps of training: outputs, gradients and statistics of each layer."""
    out = {}
    for name, layer in layers().items():
        for step, eta in enumerate((1.0, 0.4)):
            norm = getattr(layer, "norm", layer)
            norm.set_momentum(eta, 0.3)
            X = shifted(covariances(10, 4, seed=step), DOMAIN)
            X = X[:, 0] if name == "vector" else X
            X = X[part].clone().requires_grad_()
            layer.zero_grad()
            Y = layer(X, DOMAIN[part])
            Y[:, 0].pow(2).sum().backward()
        total = norm.scale.grad.clone()
        if dist.is_initialized():
            dist.all_reduce(total)
        buffers = [b.double() for b in norm.buffers()]
        out[name] = [Y.detach(), X.grad, total, *buffers]
    return out


def worker(rank: int, port: int, path: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    torch.save(run(HALVES[rank]), f"{path}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(tmp_path)), nprocs=2)
    whole = run(slice(0, 10))
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, expected in whole.items():
        for i in range(2):
            both = torch.cat([part[name][i] for part in parts])
            close(both, expected[i], name)
        for part in parts:
            for a, b in zip(part[name][2:], expected[2:], strict=True):
                close(a, b, name)


def close(a: torch.Tensor, b: torch.Tensor, name: str) -> None:
    difference = (a - b).nan_to_num().norm()
    assert difference < 1e-12 * max(1.0, b.nan_to_num().norm()), name
