"""Gradients of single trials, module by module."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from eegtensor.training.adapters import Adapter
from eegtensor.training.transforms._watched import LINEAR, Pass, plain, unwatched


def trial_weights(K: Tensor, damping: float) -> Tensor:
    """Return w of trials for the Gram matrix of their gradients, in float64."""
    K = K.double()
    n, trace = len(K), K.diagonal().sum()
    eye = torch.eye(n, dtype=K.dtype, device=K.device)
    # Without any gradient the weights are 1.
    scale = n / (damping * trace.clamp_min(torch.finfo(K.dtype).tiny))
    ones = torch.ones(n, dtype=K.dtype, device=K.device)
    return torch.linalg.solve_ex(eye + scale * K, ones).result


def gram(adapter: Adapter, p: Tensor, gradients: Tensor) -> Tensor:
    """Return inner products of the gradients of trials, in the metric of a weight.

    Parameters
    ----------
    adapter : Adapter
        Of the weight.
    p : Tensor
        The weight.
    gradients : Tensor, shape (n_trials, ...)
        Euclidean.
    """
    g = gradients.double()
    # <rgrad g, u> in the metric is <g, u> for tangents u.
    u = g if adapter.name == "euclidean" else adapter.rgrad(plain(p).double(), g)
    return g.flatten(1) @ u.flatten(1).mT


def product_gram(found: Pass) -> Tensor:
    """Return the same for a linear layer with one row a trial: <a, a> <d, d>."""
    a, d = found.x.double(), found.d.double()
    return (a @ a.mT) * (d @ d.mT)


def trial_gradients(module: nn.Module, found: Pass) -> dict[str, Tensor]:
    """Return the gradients of each trial by full name, shape (n_trials, ...)."""
    own = {n: plain(p) for n, p in module.named_parameters()}

    def one(row: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        def output(values: dict[str, Tensor]) -> Tensor:
            given = {k: v for k, v in values.items() if k in own}
            lent = {k: v for k, v in values.items() if k not in own}
            out: Tensor = torch.func.functional_call(
                module, {**own, **given}, (row[None],), {**found.options, **lent}
            )
            return out

        back = torch.func.vjp(output, found.values)
        pulled: dict[str, Tensor] = back[1](gradient[None].to(back[0].dtype))[0]
        return pulled

    with unwatched(module), torch.enable_grad(), warnings.catch_warnings():
        # Of an operation on weights alone, which takes microseconds a trial.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        rows = torch.func.vmap(one)(found.x, found.d)
    return {full: rows[key].detach() for full, key in found.weights.items()}


def weighted_gradient(module: nn.Module, found: Pass, w: Tensor) -> Tensor:
    """Return the sum of the gradients of trials of the only weight, w of each."""
    scaled = found.d * w.to(found.d).reshape(-1, *[1] * (found.d.ndim - 1))
    if isinstance(module, nn.Linear):
        return scaled.flatten(0, -2).mT @ found.x.flatten(0, -2)
    ((key, value),) = found.values.items()
    value = value.detach().requires_grad_(True)
    with unwatched(module), torch.enable_grad():
        out = torch.func.functional_call(
            module, {key: value}, (found.x,), found.options
        )
        (change,) = torch.autograd.grad(out, value, scaled.to(out.dtype))
    return change


def is_linear(module: nn.Module, found: Pass) -> bool:
    """Return whether a module's gradients of trials are outer products."""
    return isinstance(module, LINEAR[0]) and found.x.ndim == 2
