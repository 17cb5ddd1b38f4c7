"""Windows of signals, their overlapped average, and an autoencoder of them."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

SLOPE = 0.01


def windows_of(X: Tensor, window: int) -> Tensor:
    """Return all windows, shape (..., n_times - window + 1, n_channels * window)."""
    return X.unfold(-1, window, 1).movedim(-2, -3).flatten(-2)


def overlap_average(windows: Tensor, n_channels: int) -> Tensor:
    """Return signals of which each cell is the mean over the windows that hold it.

    Parameters
    ----------
    windows : Tensor, shape (..., n_windows, n_channels * window)

    Returns
    -------
    X : Tensor, shape (..., n_channels, n_windows + window - 1)
    """
    n = windows.shape[-2]
    parts = windows.unflatten(-1, (n_channels, -1)).movedim(-3, -1)
    window = parts.shape[-2]
    out = parts.new_zeros(*parts.shape[:-2], n + window - 1)
    for delay in range(window):
        shifted = nn.functional.pad(parts[..., delay, :], (delay, window - 1 - delay))
        out = out + shifted
    place = torch.arange(n + window - 1, device=windows.device)
    count = torch.minimum(place + 1, place.flip(0) + 1).clamp_max(min(n, window))
    return out / count


class Autoencoder(nn.Module):
    """Five hidden layers with leaky rectifiers, the third one narrow.

    Parameters
    ----------
    size, latent, hidden : int
        Of a window, of the middle, of the other layers.
    generator : torch.Generator
    """

    def __init__(
        self, size: int, latent: int, hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        sizes = [size, hidden, hidden, latent, hidden, hidden, size]
        self.layers = nn.ModuleList()
        for fan_in, fan_out in itertools.pairwise(sizes):
            layer = nn.Linear(fan_in, fan_out)
            with torch.no_grad():
                drawn = torch.randn(fan_out, fan_in, generator=generator)
                layer.weight.copy_(drawn * (2 / (fan_in + fan_out)) ** 0.5)
                layer.bias.zero_()
            self.layers.append(layer)

    def forward(self, X: Tensor) -> Tensor:
        """Return windows drawn towards the surface, shape (..., size)."""
        *hidden, last = self.layers
        for layer in hidden:
            X = nn.functional.leaky_relu(layer(X), SLOPE)
        return torch.as_tensor(last(X))


def errors(
    network: nn.Module, X: Tensor, seen: Tensor, noise: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """Return the errors of observed cells and of windows, both mean squares.

    Parameters
    ----------
    network : Module
    X, seen : Tensor, shape (n_stretches, n_channels, n_times)
        Lost cells of X are unknowns too.
    noise : Tensor, shape of the windows of X
    window : int
    """
    windows = windows_of(X, window)
    found = network(windows + noise)
    model = overlap_average(found, X.shape[-2])
    weight = seen.to(X)
    missed = ((model - X).square() * weight).sum() / weight.sum().clamp_min(1.0)
    return missed, (found - windows).square().mean()
