"""Where a network looks, at any layer: norms of activations times their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_number, check_option, fail
from eegtensor.training.batch import Batch
from eegtensor.training.network import Network
from eegtensor.training.statistics import evaluating
from eegtensor.trust.explain._layers import activations_and_gradients, find_layer

VARIANTS = ("norm", "selective", "weights")


def norm_grad(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    layer: str,
    *,
    variant: str = "norm",
    channel_axis: int = 1,
    domain: Tensor | None = None,
    meta_lr: float = 0.0,
) -> Tensor:
    """Return NormGrad saliency of each location of a layer.

    s_u = |a_u| |g_u|, norms over channels of the activation a and of the gradient g
    of the target's logit: the Frobenius norm of the location's share g_u a_u' in the
    gradient of the weights of a 1 x 1 layer put there. Grad-CAM, which averages
    gradients over locations, fails off the last layer; this does not. Right before an
    average over all locations g is the same everywhere: there the plain map is that of
    the activations, whatever the class; choose "selective" or an earlier layer.

    Parameters
    ----------
    model : torch.nn.Module
    x : Tensor, shape (n_trials, n_channels, n_times)
    target : Tensor of int64, shape (n_trials,)
    layer : str
        Name of a module whose output is (n_trials, n_maps, ...).
    variant : "norm" | "selective" | "weights"
        "selective": |relu(a * g)|. "weights": of the convolution itself, whose
        patches of the input stand for a.
    channel_axis : int
        Axis of the maps; -1 for tokens (n_trials, n_tokens, width).
    domain : Tensor of int64, shape (n_trials,) | None
    meta_lr : float
        Above 0: meta-saliency. Each trial first takes one step of this length down
        its own cross-entropy, on the manifolds of the parameters; 1e-4 is the
        published one. Maps of different classes then differ more.

    Returns
    -------
    saliency : Tensor, shape (n_trials, ...)
        One number a location.

    Raises
    ------
    EEGTensorError
        If there is no such layer, or it is no convolution for "weights".

    References
    ----------
    S.-A. Rebuffi, R. Fong, X. Ji and A. Vedaldi, "There and back again: revisiting
    backpropagation saliency methods", CVPR 2020.
    """
    check_option("variant", variant, VARIANTS)
    check_number("meta_lr", meta_lr, least=0.0)
    if len(target) != len(x):
        fail(f"{len(target)} targets for {len(x)} trials", fix="give one a trial")
    if meta_lr > 0:
        from eegtensor.trust.explain._metastep import each_after_a_step

        return each_after_a_step(
            model,
            x,
            target,
            meta_lr,
            domain,
            lambda x, t, d: norm_grad(
                model,
                x,
                t,
                layer,
                variant=variant,
                channel_axis=channel_axis,
                domain=d,
            ),
        )
    a, g, entered = activations_and_gradients(model, x, target, layer, domain=domain)
    if variant == "weights":
        return _of_weights(find_layer(model, layer), entered, g)
    if variant == "selective":
        return torch.relu(a * g).norm(dim=channel_axis)
    return a.norm(dim=channel_axis) * g.norm(dim=channel_axis)


def _of_weights(module: nn.Module, entered: Tensor | None, g: Tensor) -> Tensor:
    """Return |patch| |g| of a convolution: each location's share in its gradient."""
    if not isinstance(module, (nn.Conv1d, nn.Conv2d)) or entered is None:
        fail(
            f"The layer is a {type(module).__name__}",
            fix="variant='weights' is for Conv1d and Conv2d; use 'norm'",
        )
    if module.groups != 1:
        fail("The convolution has groups", fix="use variant='norm'")
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        fail("The padding is not given in numbers", fix="use variant='norm'")
    flat = isinstance(module, nn.Conv1d)
    x = entered[:, :, None] if flat else entered

    def two(value: Any, first: int) -> tuple[int, int]:
        return (first, int(value[0])) if flat else (int(value[0]), int(value[1]))

    patches = F.unfold(
        x,
        two(module.kernel_size, 1),
        dilation=two(module.dilation, 1),
        padding=two(module.padding, 0),
        stride=two(module.stride, 1),
    )
    found: Tensor = patches.norm(dim=1).view(len(g), *g.shape[2:]) * g.norm(dim=1)
    return found


def resized(saliency: Tensor, n_times: int) -> Tensor:
    """Return maps over time alone, (n_trials, n_times), their largest value one.

    Axes before the last (electrodes) are summed.
    """
    s = saliency.flatten(1, -2).sum(dim=1) if saliency.ndim > 2 else saliency
    if s.ndim == 1:
        s = s[:, None]
    s = F.interpolate(s[:, None], n_times, mode="linear", align_corners=False)[:, 0]
    top = s.amax(dim=1, keepdim=True)
    return s / torch.where(top > 0, top, 1.0)


def combined_norm_grad(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    layers: Sequence[str],
    *,
    combine: str = "geometric-mean",
    **options: Any,
) -> Tensor:
    """Return one map over time from several layers, shape (n_trials, n_times).

    Each is brought to the trials' length, its largest value one.

    Parameters
    ----------
    model, x, target
        As of `norm_grad`.
    layers : sequence of str
    combine : "geometric-mean" | "product" | "weighted"
        "weighted": geometric, by each map's share of variance over time.
    **options
        Of `norm_grad`.
    """
    check_option("combine", combine, ("geometric-mean", "product", "weighted"))
    if not layers:
        fail("layers is empty", fix="name at least one layer")
    maps = [
        resized(norm_grad(model, x, target, n, **options), x.shape[-1]) for n in layers
    ]
    logs = torch.stack([m.clamp_min(1e-12).log() for m in maps])
    if combine == "product":
        return logs.sum(dim=0).exp()
    spread = torch.stack([m.std(dim=1) for m in maps])[:, :, None]
    w = spread if combine == "weighted" else torch.ones_like(spread)
    return ((logs * w).sum(dim=0) / w.sum(dim=0).clamp_min(1e-12)).exp()


def class_sensitivity(
    model: nn.Module, x: Tensor, layer: str, **options: Any
) -> Tensor:
    """Return each trial's correlation of the maps of its most and least likely class.

    Lower is better: a map that is the same for every class explains no class.

    Parameters
    ----------
    model : torch.nn.Module
    x : Tensor, shape (n_trials, n_channels, n_times)
    layer : str
    **options
        Of `norm_grad`.

    Returns
    -------
    correlation : Tensor, shape (n_trials,)
    """
    with evaluating(model), torch.no_grad():
        logits = Network(model)(Batch(x, domain=options.get("domain")))
    most, least = logits.argmax(dim=1), logits.argmin(dim=1)
    maps = [
        norm_grad(model, x, t, layer, **options).flatten(1).double()
        for t in (most, least)
    ]
    centred = [m - m.mean(dim=1, keepdim=True) for m in maps]
    lengths = centred[0].norm(dim=1) * centred[1].norm(dim=1)
    return (centred[0] * centred[1]).sum(dim=1) / lengths.clamp_min(1e-300)


def spd_norm_grad(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    layer: str,
    *,
    domain: Tensor | None = None,
) -> Tensor:
    """Return the saliency of a `BiMap`'s input channels, (n_trials, n_channels).

    Row i of the output matrix S and of its gradient G give s_i = |S_i| |G_i| of the
    layer's component i; channels get it through the absolute weights.

    Parameters
    ----------
    model, x, target, domain
        As of `norm_grad`.
    layer : str
        Name of a `BiMap`, weight (n_channels, n_components).
    """
    module = find_layer(model, layer)
    W = getattr(module, "weight", None)
    S, G, _ = activations_and_gradients(model, x, target, layer, domain=domain)
    if not isinstance(W, Tensor) or S.ndim != 3 or S.shape[-1] != W.shape[-1]:
        fail(f"The layer {layer!r} is no BiMap", fix="choose one, or use norm_grad")
    s = S.norm(dim=2) * G.norm(dim=2)
    return s @ W.detach().as_subclass(Tensor).abs().mT
