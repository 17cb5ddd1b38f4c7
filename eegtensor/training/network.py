"""A module as the training loop calls it."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.training.batch import Batch
from eegtensor.training.device import device_of
from eegtensor.training.space import ParamSpace
from eegtensor.training.statistics import evaluating


class Network:
    """A module, its call on a batch and its parameter space.

    Parameters
    ----------
    model : torch.nn.Module
        Called as ``model(x, domain=domain)`` where the batch has domains and
        its `forward` takes a `domain`, else as ``model(x)``.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.takes_domain = (
            "domain" in inspect.signature(_inner(model).forward).parameters
        )

    @cached_property
    def space(self) -> ParamSpace:
        """The parameters on their manifolds; found when first asked for."""
        return ParamSpace(self.model)

    def __call__(self, batch: Batch) -> Any:
        """Return the outputs for a batch on the module's device."""
        if self.takes_domain and batch.domain is not None:
            return self.model(batch.x, domain=batch.domain)
        return self.model(batch.x)


def _inner(model: nn.Module) -> nn.Module:
    # torch.compile and DistributedDataParallel wrap modules in ones that take anything.
    for name in ("_orig_mod", "module"):
        inner = getattr(model, name, None)
        if isinstance(inner, nn.Module) and type(model).__module__.startswith("torch."):
            return _inner(inner)
    return model


def chunks(data: Batch, size: int) -> list[Batch]:
    """Return a batch cut in order into batches of at most `size` trials."""
    index = torch.arange(len(data), device=data.device)
    return [data.pick(part) for part in index.split(size)]


def forward_all(model: nn.Module, data: Batch, *, batch_size: int = 512) -> Tensor:
    """Return the outputs for all trials in evaluation mode, without gradients.

    Parameters
    ----------
    model : torch.nn.Module
        Its outputs must be a tensor with one row a trial.
    data : Batch
        On any device; batches of it go to the module's.
    batch_size : int
        Trials at a time.

    Returns
    -------
    outputs : Tensor, shape (n_trials, ...)
    """
    network, device = Network(model), device_of(model)
    with torch.no_grad(), evaluating(model):
        outputs = [network(part.to(device)) for part in chunks(data, batch_size)]
    if not all(isinstance(output, Tensor) for output in outputs):
        fail(
            f"{type(model).__name__} returns a {type(outputs[0]).__name__}, "
            "not one tensor",
            fix="call it batch by batch yourself",
        )
    return torch.cat(outputs)
