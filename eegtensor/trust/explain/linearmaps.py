"""What a piecewise linear network is for one trial: a linear map, and how far."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from eegtensor._check import fail, listing
from eegtensor.training.batch import Batch
from eegtensor.training.network import Network
from eegtensor.training.statistics import evaluating

# Modules without parts that are linear, or linear in pieces, in evaluation mode.
_LINEAR = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.ConstantPad1d,
    nn.ConstantPad2d,
    nn.ZeroPad1d,
    nn.ZeroPad2d,
)
_KINKED = (nn.ReLU, nn.LeakyReLU, nn.PReLU)
_KINKED_OTHERWISE = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.Hardtanh,
    nn.ReLU6,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
)


class LinearMaps(NamedTuple):
    """f(x) = weights . x + offset of each trial, exactly, around that trial.

    Attributes
    ----------
    weights : Tensor, shape (n_trials, n_outputs, ...)
        Logits per unit of each sample.
    offset : Tensor, shape (n_trials, n_outputs)
    outputs : Tensor, shape (n_trials, n_outputs)
    lipschitz : Tensor, shape (n_trials,)
        Largest change of the logits per length of a change of the trial.
    """

    weights: Tensor
    offset: Tensor
    outputs: Tensor
    lipschitz: Tensor


def _check_pieces(model: nn.Module, allowed: tuple[type, ...], what: str) -> None:
    wrong = {
        type(m).__name__
        for m in model.modules()
        if not any(True for _ in m.children()) and not isinstance(m, allowed)
    }
    if wrong:
        fail(
            f"{listing(sorted(wrong))} in {type(model).__name__}",
            why=f"{what} needs a network that is linear in pieces",
            fix="give a network of linear layers, ReLU and pooling",
        )


def linear_maps(
    model: nn.Module, x: Tensor, *, domain: Tensor | None = None
) -> LinearMaps:
    """Return the linear map that a ReLU network is on each trial's piece.

    A network of linear layers and ReLUs is linear between its kinks; its Jacobian at
    a trial is not an approximation there but the network itself. Modules are looked
    at to tell; what a `forward` applies between them is not.

    Parameters
    ----------
    model : torch.nn.Module
        Of linear layers, ReLU and pooling, in any order; read in evaluation mode.
    x : Tensor, shape (n_trials, n_channels, n_times)
    domain : Tensor of int64, shape (n_trials,) | None

    Returns
    -------
    LinearMaps

    Raises
    ------
    EEGTensorError
        If a layer is not linear in pieces.

    References
    ----------
    Q. Tao et al., "Piecewise linear neural networks and deep learning", Nature
    Reviews Methods Primers, 2022.
    """
    _check_pieces(model, _LINEAR + _KINKED + _KINKED_OTHERWISE, "An exact linear map")
    with evaluating(model), torch.enable_grad():
        x = x.detach().requires_grad_(True)
        outputs = Network(model)(Batch(x, domain=domain))
        if outputs.ndim != 2:
            fail(f"Outputs have shape {tuple(outputs.shape)}", fix="give logits")
        rows = [
            torch.autograd.grad(outputs[:, k].sum(), x, retain_graph=True)[0]
            for k in range(outputs.shape[1])
        ]
    W, outputs = torch.stack(rows, dim=1), outputs.detach()
    offset = outputs - (W * x.detach()[:, None]).flatten(2).sum(dim=2)
    lipschitz = torch.linalg.matrix_norm(W.flatten(2), ord=2)
    return LinearMaps(W, offset, outputs, lipschitz)


def exact_radius(
    model: nn.Module, x: Tensor, *, domain: Tensor | None = None, block: int = 512
) -> Tensor:
    """Return how far each trial's linear map holds: distance to the nearest kink.

    Within a piece what enters every ReLU is linear in the trial, so that the
    distance to its kink is |z| / |dz/dx|; the least over all units is exact.

    Parameters
    ----------
    model : torch.nn.Module
        Of linear layers, ReLU, LeakyReLU and average pooling, as modules.
    x : Tensor, shape (n_trials, ...)
    domain : Tensor of int64, shape (n_trials,) | None
    block : int
        Units whose gradients are taken at a time.

    Returns
    -------
    radius : Tensor, shape (n_trials,)
        l2, in the unit of x; infinite without a ReLU.

    Raises
    ------
    EEGTensorError
        If a layer has kinks of another kind, or is not linear in pieces.
    """
    _check_pieces(model, _LINEAR + _KINKED, "The distance to the nearest kink")
    entered: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        # A copy: some units work in place.
        entered.append(args[0].flatten(1).clone())

    hooks = [
        m.register_forward_pre_hook(note)
        for m in model.modules()
        if isinstance(m, _KINKED)
    ]
    try:
        with evaluating(model), torch.enable_grad():
            x = x.detach().requires_grad_(True)
            Network(model)(Batch(x, domain=domain))
            radius = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
            for z in entered:
                for columns in z.split(block, dim=1):
                    n = columns.shape[1]
                    eye = torch.eye(n, dtype=z.dtype, device=z.device)
                    slopes = torch.autograd.grad(
                        columns,
                        x,
                        eye[:, None].expand(n, len(x), n),
                        is_grads_batched=True,
                        retain_graph=True,
                    )[0]
                    length = slopes.flatten(2).norm(dim=2).mT
                    # A unit that no change of the trial moves has no kink in reach.
                    away = torch.where(
                        length > 0, columns.abs() / length, torch.inf
                    ).amin(dim=1)
                    radius = torch.minimum(radius, away.detach())
    finally:
        for hook in hooks:
            hook.remove()
    return radius
