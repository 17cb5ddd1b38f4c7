"""A module as the training loop calls it."""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from eegtensor._check import check_option, fail
from eegtensor.training.batch import Batch
from eegtensor.training.device import device_of
from eegtensor.training.space import ParamSpace
from eegtensor.training.statistics import evaluating

PRECISIONS = ("float32", "bfloat16")
# What networks call the module that makes logits of features.
_HEADS = ("head", "final_layer", "classifier", "fc")


class Network:
    """A module, its call on a batch, its features and its parameter space.

    Parameters
    ----------
    model : torch.nn.Module
        Called as ``model(x, domain=domain)`` where the batch has domains and
        its `forward` takes a `domain`, else as ``model(x)``.
    precision : "float32" | "bfloat16"
        Of the network's matrix products and convolutions; covariances, norms
        and losses keep theirs.
    keeps_features : bool
        Whether each call leaves what entered the head in `features`.

    Attributes
    ----------
    features : Tensor, shape (n_trials, n_features) | None
        Of the last call, with its graph.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        precision: str = "float32",
        keeps_features: bool = False,
    ) -> None:
        self.model = model
        self.precision = check_option("precision", precision, PRECISIONS)
        self.keeps_features = keeps_features
        self.features: Tensor | None = None
        self.takes_domain = (
            "domain" in inspect.signature(inner_module(model).forward).parameters
        )

    @cached_property
    def space(self) -> ParamSpace:
        """The parameters on their manifolds; found when first asked for."""
        return ParamSpace(self.model)

    @cached_property
    def head(self) -> nn.Module:
        """The module that makes logits of features; found when first asked for."""
        return find_head(self.model)

    def __call__(self, batch: Batch) -> Any:
        """Return the outputs for a batch on the module's device."""
        if not self.keeps_features:
            return self._forward(batch)
        self.features = None
        hook = self.head.register_forward_pre_hook(self._keep)
        try:
            return self._forward(batch)
        finally:
            hook.remove()

    def _forward(self, batch: Batch) -> Any:
        with self._casting(batch):
            if self.takes_domain and batch.domain is not None:
                outputs = self.model(batch.x, domain=batch.domain)
            else:
                outputs = self.model(batch.x)
        if self.precision == "float32":
            return outputs
        # Losses of logits with three digits would have no more of them.
        return tree_map(_widened, outputs)

    def _casting(self, batch: Batch) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(batch.device.type, torch.bfloat16)

    def _keep(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        # The head itself gets them: they stay on the way of its gradient.
        h = _widened(args[0])
        self.features = h.flatten(1)
        return (h, *args[1:])


def _widened(value: Any) -> Any:
    """Return a bfloat16 tensor in float32, all else as it is."""
    half = isinstance(value, Tensor) and value.dtype == torch.bfloat16
    return value.float() if half else value


def find_head(model: nn.Module) -> nn.Module:
    """Return the module of a network that makes logits of features.

    The attribute `head`, `final_layer` (braindecode), `classifier` or `fc`, else
    the last linear layer.

    Raises
    ------
    EEGTensorError
        If there is none.
    """
    inner = inner_module(model)
    for name in _HEADS:
        found = getattr(inner, name, None)
        if isinstance(found, nn.Module):
            return found
    linear = [m for m in inner.modules() if isinstance(m, nn.Linear)]
    if not linear:
        fail(
            f"{type(inner).__name__} has no part that is known to be its head",
            why="The features are what enters it",
            fix="give it an attribute `head`, a module of features to logits",
        )
    return linear[-1]


def inner_module(model: nn.Module) -> nn.Module:
    """Return the module inside torch.compile and DistributedDataParallel."""
    # These wrap modules in ones that take anything.
    for name in ("_orig_mod", "module"):
        inner = getattr(model, name, None)
        if isinstance(inner, nn.Module) and type(model).__module__.startswith("torch."):
            return inner_module(inner)
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


def features_of(model: nn.Module, data: Batch, *, batch_size: int = 512) -> Tensor:
    """Return what enters the head for all trials, as `forward_all` does outputs.

    Returns
    -------
    features : Tensor, shape (n_trials, n_features)
    """
    network, device = Network(model, keeps_features=True), device_of(model)
    rows = []
    with torch.no_grad(), evaluating(model):
        for part in chunks(data, batch_size):
            network(part.to(device))
            assert network.features is not None
            rows.append(network.features)
    return torch.cat(rows)
