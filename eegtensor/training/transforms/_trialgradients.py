"""Gradients of single trials, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eegtensor.training.adapters import Adapter


def trial_weights(K: Tensor, damping: float) -> Tensor:
    """Return w of trials for the Gram matrix of their gradients, in float64."""
    K = K.double()
    n, trace = len(K), K.diagonal().sum()
    eye = torch.eye(n, dtype=K.dtype, device=K.device)
    # Without any gradient the weights are 1.
    scale = n / (damping * trace.clamp_min(torch.finfo(K.dtype).tiny))
    ones = torch.ones(n, dtype=K.dtype, device=K.device)
    return torch.linalg.solve_ex(eye + scale * K, ones).result


def gram(
    module: nn.Module, leaf: str, adapter: Adapter, x: Tensor, d: Tensor
) -> Tensor:
    """Return inner products of the gradients of trials, in the leaf's metric.

    Parameters
    ----------
    module : torch.nn.Module
    leaf : str
        Its parameter.
    adapter : Adapter
        Of the parameter.
    x, d : Tensor
        What entered the module, and the gradient of what left it; a row a trial.
    """
    if isinstance(module, nn.Linear) and x.ndim == 2:
        return (x.double() @ x.double().mT) * (d.double() @ d.double().mT)
    g = trial_gradients(module, leaf, x, d).double()
    p = getattr(module, leaf).detach().as_subclass(Tensor).double()
    # <rgrad g, u> in the metric is <g, u> for tangents u.
    u = g if adapter.name == "euclidean" else adapter.rgrad(p, g)
    return g.flatten(1) @ u.flatten(1).mT


def trial_gradients(module: nn.Module, leaf: str, x: Tensor, d: Tensor) -> Tensor:
    """Return the gradient of each trial, shape (n_trials, ...)."""
    p = getattr(module, leaf).detach().as_subclass(Tensor)
    others = {
        n: v.detach().as_subclass(Tensor)
        for n, v in module.named_parameters()
        if n != leaf
    }

    def one(row: Tensor, gradient: Tensor) -> Tensor:
        def output(weight: Tensor) -> Tensor:
            whole = {**others, leaf: weight}
            out: Tensor = torch.func.functional_call(module, whole, (row[None],))
            return out

        pull = torch.func.vjp(output, p)[1]
        found: Tensor = pull(gradient[None])[0]
        return found

    hooks = module._forward_hooks.copy()
    module._forward_hooks.clear()
    try:
        with torch.enable_grad():
            return torch.func.vmap(one)(x, d).detach()
    finally:
        module._forward_hooks.update(hooks)
