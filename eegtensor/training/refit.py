"""Running statistics of weights that no step made."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from eegtensor.training.batch import Batch
from eegtensor.training.device import device_of
from eegtensor.training.network import Network


def refit_statistics(model: nn.Module, data: Batch, *, batch_size: int = 256) -> None:
    """Fit all running statistics anew to trials, at the weights as they are.

    After weights were averaged or moved by hand, statistics are those of other
    weights. A network with `fit_statistics` fits its domains by it; torch's batch
    norms get the mean over one pass of the trials, in batches of nearly one size
    that are drawn without regard to the order of the trials. The mode of the modules
    stays.

    Parameters
    ----------
    model : torch.nn.Module
    data : Batch
    batch_size : int
    """
    torch_norms = [
        m
        for m in model.modules()
        if isinstance(m, _BatchNorm) and m.track_running_stats
    ]
    momenta = [norm.momentum for norm in torch_norms]
    training = [(m, m.training) for m in model.modules()]
    place, network = device_of(model), Network(model)

    def pass_all() -> None:
        # Of one trial there may be no variance: they stay as they are.
        if len(data) < 2:
            return
        for norm in torch_norms:
            norm.reset_running_stats()
        for part in _mixed(data, max(batch_size, 2)):
            network(part.to(place))

    try:
        model.eval()
        for norm in torch_norms:
            # None is the mean over all batches.
            norm.momentum = None
            norm.training = True
        with torch.no_grad():
            if torch_norms:
                pass_all()
            if hasattr(model, "fit_statistics"):
                whole = data.to(place)
                model.fit_statistics(whole.x, whole.domain)  # type: ignore[operator]
                if torch_norms:
                    # Those behind the norms of domains saw what these made before.
                    pass_all()
    finally:
        for norm, momentum in zip(torch_norms, momenta, strict=True):
            norm.momentum = momentum
        for module, flag in training:
            module.training = flag


def _mixed(data: Batch, size: int) -> list[Batch]:
    """Return all trials in drawn order, in batches whose sizes differ by at most one.

    Trials come sorted by person as a rule: the variance within batches cut in order
    would be that within persons. A last batch that is smaller would count too much.
    """
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    # At least two trials each.
    count = min(-(-len(data) // size), len(data) // 2)
    return [data.pick(part) for part in order.to(data.device).tensor_split(count)]
