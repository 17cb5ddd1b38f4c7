"""Running statistics of weights that no step made."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from eegtensor.training.batch import Batch
from eegtensor.training.device import device_of
from eegtensor.training.network import Network, chunks


def refit_statistics(model: nn.Module, data: Batch, *, batch_size: int = 256) -> None:
    """Fit all running statistics anew to trials, at the weights as they are.

    After weights were averaged or moved by hand, statistics are those of other
    weights. A network with `fit_statistics` fits its domains by it; torch's batch
    norms get the mean over one pass of the trials. The mode of the modules stays.

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
    try:
        model.eval()
        for norm in torch_norms:
            norm.reset_running_stats()
            # None is the mean over all batches.
            norm.momentum = None
            norm.training = True
        with torch.no_grad():
            if torch_norms:
                for part in chunks(data, batch_size):
                    # A batch norm has no variance of one trial.
                    if len(part) > 1:
                        network(part.to(place))
            if hasattr(model, "fit_statistics"):
                whole = data.to(place)
                model.fit_statistics(whole.x, whole.domain)  # type: ignore[operator]
    finally:
        for norm, momentum in zip(torch_norms, momenta, strict=True):
            norm.momentum = momentum
        for module, flag in training:
            module.training = flag
