"""Several processes that train one network, each on its part of every batch."""

from __future__ import annotations

from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.training.batch import Batch


class Workers:
    """The processes of a torch.distributed group, started by `torchrun` for one.

    Every process runs the same script with the same data and seed and gives
    `train` its own ``Workers()``. It works on its part of each batch; gradients
    are those of the whole batch, so that all take the same steps: with a
    network without running statistics the same as one process would.

    Raises
    ------
    EEGTensorError
        If no group of processes is there.

    Examples
    --------
    In a script that ``torchrun --nproc-per-node 2`` starts::

        torch.distributed.init_process_group("gloo")
        train(net, data, ..., workers=Workers())
    """

    def __init__(self) -> None:
        if not dist.is_available() or not dist.is_initialized():
            fail(
                "There is no group of processes",
                fix="call torch.distributed.init_process_group first, in a script "
                "started by torchrun",
            )
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    @classmethod
    def running(cls) -> Self | None:
        """Return the processes of this run where `torchrun` started some, else None."""
        there = dist.is_available() and dist.is_initialized()
        return cls() if there else None

    def check(self, model: nn.Module) -> None:
        """Raise if a network has running statistics, which are not exchanged.

        Raises
        ------
        EEGTensorError
        """
        moving = [
            name
            for name, module in model.named_modules()
            if getattr(module, "track_running_stats", False)
            or hasattr(module, "fit_statistics")
        ]
        if moving:
            fail(
                f"{type(model).__name__} has running statistics",
                why="Each process would have those of its own part of the batches",
                fix="train it in one process",
            )

    def start(self, model: nn.Module) -> None:
        """Give all processes the weights and buffers of the first.

        Raises
        ------
        EEGTensorError
            If the network has running statistics: see `check`.
        """
        self.check(model)
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor.detach(), src=0)

    def part(self, batch: Batch) -> Batch:
        """Return this process's trials of a batch.

        Raises
        ------
        EEGTensorError
            If the batch has fewer trials than there are processes.
        """
        if len(batch) < self.size:
            fail(
                f"A batch of {len(batch)} trials for {self.size} processes",
                fix="make batches larger, or start fewer processes",
            )
        return batch.parts(self.size)[self.rank]

    def add_up(self, model: nn.Module, loss: Tensor, n_trials: int) -> Tensor:
        """Make gradients those of the whole batch, and return its loss.

        Parameters
        ----------
        model : torch.nn.Module
            Its gradients are of the mean over this process's trials.
        loss : Tensor
        n_trials : int
            Of this process.
        """
        # A count in float32 would cost the gradients half of their digits.
        total = torch.tensor(n_trials, dtype=torch.int64, device=loss.device)
        dist.all_reduce(total)
        share = n_trials / total.double()
        for p in model.parameters():
            if p.requires_grad:
                # All processes must take part, also those without a gradient.
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
                p.grad *= share.to(p.grad.dtype)
                dist.all_reduce(p.grad)
        loss = loss * share.to(loss.dtype)
        dist.all_reduce(loss)
        return loss
