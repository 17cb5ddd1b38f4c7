"""ModHiFi: which channels of a layer its output can do without."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, fail
from eegtensor.training.batch import Batch
from eegtensor.training.network import Network, chunks
from eegtensor.training.statistics import evaluating


class Contributions(NamedTuple):
    """Inner products of what input channels add to a layer's output.

    Attributes
    ----------
    gram : Tensor, shape (n_channels, n_channels)
        E <W_c a_c, W_d a_d>, float64; biases are left out.
    """

    gram: Tensor

    @property
    def total(self) -> Tensor:
        """E |Y|^2."""
        return self.gram.sum()


class Subset(NamedTuple):
    """What a layer's output becomes with some of its input channels.

    Attributes
    ----------
    fidelity : float
        1 - E |Y - sum_c beta_c W_c a_c|^2 / E |Y|^2, in [0, 1].
    beta : Tensor, shape (n_kept,)
        Factors of the channels kept, by least squares.
    """

    fidelity: float
    beta: Tensor


def contributions(layer: nn.Module, a: Tensor) -> Contributions:
    """Return how input channels of a linear layer or convolution add up.

    Parameters
    ----------
    layer : torch.nn.Linear | Conv1d | Conv2d
        Without groups.
    a : Tensor, shape (n, n_channels, ...)
        What enters it; for a linear layer channels are the last axis.
    """
    with torch.no_grad():
        W = layer.weight.detach().double()  # type: ignore[union-attr,operator]
        a = a.detach().double()
        if isinstance(layer, nn.Linear):
            a = a.reshape(-1, a.shape[-1])
            return Contributions((W.mT @ W) * (a.mT @ a) / len(a))
        if not isinstance(layer, (nn.Conv1d, nn.Conv2d)) or layer.groups != 1:
            fail(
                f"{type(layer).__name__} is no linear layer or convolution with one "
                "group",
                fix="choose another layer",
            )
        n_out, n_in = W.shape[:2]
        # Each channel by itself, all at once: as many groups as channels.
        convolve = torch.conv1d if isinstance(layer, nn.Conv1d) else torch.conv2d
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            fail("Padding must be a number of zeros", fix="choose another layer")
        parts = convolve(
            a,
            W.transpose(0, 1).flatten(0, 1).unsqueeze(1),
            None,
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            n_in,
        )
        parts = parts.unflatten(1, (n_in, n_out)).flatten(2)
        return Contributions(torch.einsum("ncx,ndx->cd", parts, parts) / len(a))


def subset_fidelity(found: Contributions, channels: Iterable[int]) -> Subset:
    """Return how much of the output some channels can make, and by which factors.

    Of uncorrelated contributions the fidelities of channels add up to 1, and every
    factor is 1.
    """
    S = torch.as_tensor(list(channels), dtype=torch.int64)
    b = found.gram.sum(dim=1)[S]
    # Channels that are never active, or repeat others, have no factor of their own.
    beta = torch.linalg.lstsq(found.gram[S][:, S], b, driver="gelsd").solution
    fidelity = (b @ beta) / found.total if len(S) else found.total * 0.0
    return Subset(float(fidelity.clamp(0.0, 1.0)), beta)


def channel_fidelity(found: Contributions) -> Tensor:
    """Return the fidelity of each channel alone, <Y, W_c a_c>^2 / |Y|^2 |W_c a_c|^2."""
    own = found.gram.diagonal()
    b = found.gram.sum(dim=1)
    return torch.where(own > 0, b**2 / own.clamp_min(1e-300), 0.0) / found.total


def choose_channels(found: Contributions, n_kept: int) -> Subset:
    """Return the factors of the best channels, zero for all others.

    Channels are ranked by `channel_fidelity`, the best subset where contributions are
    uncorrelated.

    Returns
    -------
    subset : Subset
        Its `beta` has one factor a channel.
    """
    n = len(found.gram)
    if check_count("n_kept", n_kept) > n:
        fail(f"n_kept={n_kept} of {n} channels", fix="keep no more than there are")
    kept = channel_fidelity(found).argsort(descending=True)[:n_kept].sort().values
    subset = subset_fidelity(found, kept.tolist())
    beta = torch.zeros(n, dtype=torch.float64)
    beta[kept] = subset.beta
    return Subset(subset.fidelity, beta)


def channels_of_class(
    forget: Contributions, keep: Contributions, n_dropped: int
) -> Tensor:
    """Return the channels that matter most to some trials and least to others.

    Channels are ranked by their share of the fidelity for trials to forget less that
    for trials to keep.

    Returns
    -------
    channels : Tensor of int64, shape (n_dropped,)
    """
    a, b = channel_fidelity(forget), channel_fidelity(keep)
    order = (a / a.sum() - b / b.sum()).argsort(descending=True)
    return order[: check_count("n_dropped", n_dropped)].sort().values


@torch.no_grad()
def scale_inputs_(layer: nn.Module, factors: Tensor) -> None:
    """Multiply the weights of each input channel; 0 prunes it."""
    W: Tensor = layer.weight  # type: ignore[assignment]
    view = [1, -1] + [1] * (W.ndim - 2)
    W.mul_(factors.to(W).view(view))


def layer_inputs(
    model: nn.Module, layer: nn.Module, data: Batch, *, batch_size: int = 256
) -> Tensor:
    """Return what enters a layer for all trials, in evaluation mode.

    Trials may be recordings without labels, or noise: no label is asked for.
    """
    rows: list[Tensor] = []
    hook = layer.register_forward_pre_hook(
        lambda _, args: rows.append(args[0].detach())
    )
    network = Network(model)
    try:
        with torch.no_grad(), evaluating(model):
            for part in chunks(data, batch_size):
                network(part.to(next(model.parameters()).device))
    finally:
        hook.remove()
    return torch.cat(rows)
