"""Two processes take the steps that one would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import CrossEntropy, WeightedSum, Workers
from eegtensor.training.objectives import ALDR, MEALV2
from eegtensor.training.plugs import check_parts

SCRIPT = """
import sys
import torch
import torch.distributed as dist
from eegtensor.training import *
from eegtensor.training.perturbations import SAM

torch.set_num_threads(1)
rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
workers = None
if size > 1:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size
    )
    workers = Workers()
torch.manual_seed(rank)
net = torch.nn.Sequential(
    torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
).double()
if rank == 0:
    torch.manual_seed(5)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_()
g = torch.Generator().manual_seed(1)
x = torch.randn(61, 6, generator=g, dtype=torch.float64)
data = Batch(x, (x[:, 0] > 0).long(), weight=torch.rand(61, generator=g).double())
history = train(
    net,
    data,
    objective=CrossEntropy(),
    optimizer=make_optimizer(net, "adam", lr=0.01),
    sampler=ShuffleSampler(61, batch_size=15),
    epochs=3,
    perturbation=SAM(0.1),
    accumulate=2,
    workers=workers,
)
torch.save([p.detach() for p in net.parameters()], f"{folder}/{size}-{rank}.pt")
print(history.column("train_loss"))
"""


def run(folder: Path, size: int) -> list[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    jobs = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(size), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    outs = [job.communicate(timeout=240)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * size
    return outs


@pytest.mark.skipif(not torch.distributed.is_available(), reason="no distributed torch")
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    (one,), (first, second) = run(tmp_path, 1), run(tmp_path, 2)

    def weights(name: str) -> list[torch.Tensor]:
        loaded: list[torch.Tensor] = torch.load(tmp_path / name, weights_only=True)
        return loaded

    for a, b, c in zip(
        weights("1-0.pt"), weights("2-0.pt"), weights("2-1.pt"), strict=True
    ):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-10)
        assert torch.equal(b, c)
    for out in (first, second):
        torch.testing.assert_close(
            torch.tensor(eval(out)), torch.tensor(eval(one)), rtol=1e-6, atol=0
        )


def test_there_must_be_processes() -> None:
    with pytest.raises(EEGTensorError, match="torchrun"):
        Workers()


def test_networks_with_statistics_are_refused() -> None:
    workers = object.__new__(Workers)
    with pytest.raises(EEGTensorError, match="running statistics"):
        workers.check(torch.nn.Sequential(torch.nn.BatchNorm1d(3)))
    workers.check(torch.nn.Linear(2, 2))


def test_objectives_that_learn_or_remember_are_refused() -> None:
    """Each process would learn from its own part of the batches alone."""
    there = object.__new__(Workers)
    for kind in (ALDR, MEALV2):
        objective = kind.__new__(kind)
        with pytest.raises(EEGTensorError, match=r"and workers.*another objective"):
            check_parts(WeightedSum(objective), 1, there)
    check_parts(WeightedSum(CrossEntropy()), 1, there)
