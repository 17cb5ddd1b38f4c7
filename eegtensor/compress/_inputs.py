"""What enters layers: for scales of activations and for rebuilding outputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor.training import Batch, Network, device_of, evaluating
from eegtensor.training.network import chunks


@torch.no_grad()
def inputs_of(
    model: nn.Module,
    names: Iterable[str],
    data: Batch,
    *,
    n_trials: int = 256,
    batch_size: int = 32,
    most: int = 1 << 21,
) -> dict[str, Tensor]:
    """Return what enters layers, in evaluation mode, nothing of the network moving.

    Parameters
    ----------
    model : Module
    names : iterable of str
        Of its layers, each with one tensor as input.
    data : Batch
    n_trials : int
        The first so many trials, evenly spaced.
    batch_size : int
    most : int
        Numbers kept of a layer; whole rows of the first axis are left out evenly.

    Returns
    -------
    inputs : dict of Tensor, shape (n, ...)
        Of linear layers one row a position, of convolutions one a trial. Layers
        that are not used when the network reads trials are not in it.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    hooks = []
    for name in found:
        layer = model.get_submodule(name)

        def keep(
            module: nn.Module, args: tuple[Any, ...], rows: list[Tensor] = found[name]
        ) -> None:
            x = args[0].detach()
            flat = isinstance(module, nn.Linear) or x.ndim < 3
            rows.append(x.reshape(-1, x.shape[-1]) if flat else x)

        hooks.append(layer.register_forward_pre_hook(keep))
    count = min(n_trials, len(data))
    rows = torch.linspace(0, len(data) - 1, count, device=data.device).round().long()
    network, place = Network(model), device_of(model)
    try:
        with evaluating(model):
            for part in chunks(data.pick(rows), batch_size):
                network(part.to(place))
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: _thinned(torch.cat(rows), most) for name, rows in found.items() if rows
    }


def _thinned(rows: Tensor, most: int) -> Tensor:
    step = -(-rows.numel() // most)
    return rows[::step]
