"""Two processes that train together equal one with the whole batch."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor
from torch import distributed as dist

from eegtensor.codebook import ResidualQuantizer, VectorQuantizer

HALVES = (slice(0, 120), slice(120, 300))

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="no torch.distributed")


def run(part: slice) -> dict[str, Tensor]:
    modules = {
        "running": VectorQuantizer(4, 8, start="random", revive=0.0),
        "revived": VectorQuantizer(4, 64, start="sample"),
        "residual": ResidualQuantizer(4, 8, 3, dropout=0.5),
    }
    out = {}
    for name, module in modules.items():
        module.double()
        for seed in range(6):
            g = torch.Generator().manual_seed(seed)
            module(torch.randn(300, 4, generator=g, dtype=torch.float64)[part])
        out |= {f"{name}.{k}": v for k, v in module.state_dict().items()}
    return out


def worker(rank: int, port: int, path: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    torch.save(run(HALVES[rank]), f"{path}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_keep_one_codebook(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(tmp_path)), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    whole = run(slice(0, 300))
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
        # Draws (starts, revivals) are of the first process's vectors; sums of all.
        if name.startswith("running"):
            torch.testing.assert_close(value, whole[name])
