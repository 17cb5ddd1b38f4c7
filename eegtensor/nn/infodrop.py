"""Dropout of what repeats: stretches like their surroundings tell little."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail


def self_similarity(
    x: Tensor, conv: nn.Conv1d, offsets: Tensor, *, bandwidth: float = 1.0
) -> Tensor:
    """Return how alike each window of a convolution is to shifted ones, (n, n_out).

    s(t) = mean_j exp(-D_j(t) / (2 h^2 mean D)), D_j the squared distance, over
    input channels and the window, from the signal shifted by offset j: 1 in flat
    stretches, near 0 where things happen. It knows no unit.

    Parameters
    ----------
    x : Tensor, shape (n_trials, n_in, n_times)
    conv : torch.nn.Conv1d
        Whose windows, strides and padding are taken.
    offsets : Tensor of int64, shape (n_offsets,)
        Samples, none of them 0.
    bandwidth : float
    """
    radius = int(offsets.abs().amax())
    wide = F.pad(x, (radius, radius), mode="replicate")
    n = x.shape[-1]
    places = torch.arange(n, device=x.device) + radius + offsets[:, None]
    moved = wide[..., places]
    d = (x[:, :, None] - moved).square().sum(dim=1)
    ones = torch.ones(1, 1, conv.kernel_size[0], dtype=x.dtype, device=x.device)
    padding = conv.padding if isinstance(conv.padding, str) else conv.padding[0]
    D = F.conv1d(
        d.flatten(0, 1)[:, None], ones, None, conv.stride[0], padding, conv.dilation[0]
    ).unflatten(0, d.shape[:2])[:, :, 0]
    mean = D.mean(dim=(1, 2), keepdim=True)
    # A trial of constants: every distance is 0, and all of it alike.
    scaled = D / torch.where(mean > 0, mean, 1.0)
    return torch.exp(-scaled / (2 * bandwidth**2)).mean(dim=1)


class InfoDrop(nn.Module):
    """A convolution over time whose outputs drop out where the signal repeats itself.

    Rhythms, line noise and flat stretches are like their surroundings; events are
    not. In training, positions are drawn with probability in proportion to
    s(t)^(1 / temperature), s their `self_similarity`, and set to zero, for each
    trial and output channel anew. Networks then read events and not textures, which
    differ from session to session. Outputs are not rescaled: train the last epochs
    without it, see `set_info_drop`. In evaluation it is the convolution alone.

    Parameters
    ----------
    conv : torch.nn.Conv1d
    rate : float
        Draws, with replacement, in the number of positions: 1.5 drops 78 % of them
        if all are alike.
    temperature : float
        0.03: hardly any but the most self-similar; infinity: dropout.
    bandwidth : float
    radius : int
        Samples within which a stretch is compared.
    n_offsets : int
        Shifts drawn in every pass, from -radius to radius without 0.

    Notes
    -----
    The released code draws offset 0 too, whose distance is 0 everywhere.

    References
    ----------
    B. Shi et al., "Informative dropout for robust representation learning: a
    shape-bias perspective", ICML 2020.
    """

    def __init__(
        self,
        conv: nn.Conv1d,
        *,
        rate: float = 1.5,
        temperature: float = 0.03,
        bandwidth: float = 1.0,
        radius: int = 3,
        n_offsets: int = 9,
    ) -> None:
        super().__init__()
        if not isinstance(conv, nn.Conv1d) or conv.padding_mode != "zeros":
            fail(f"{conv!r}", fix="give a Conv1d with padding of zeros")
        if not temperature > 0:
            fail(f"temperature={temperature!r}", fix="give a number above 0")
        self.conv = conv
        self.rate = check_number("rate", rate, least=0.0)
        self.temperature = float(temperature)
        self.bandwidth = check_number("bandwidth", bandwidth, above=0.0)
        self.radius = check_count("radius", radius)
        self.n_offsets = check_count("n_offsets", n_offsets)
        self.enabled = True

    def extra_repr(self) -> str:
        """Return what the layer was built with."""
        return (
            f"rate={self.rate}, temperature={self.temperature}, enabled={self.enabled}"
        )

    def probabilities(self, x: Tensor) -> Tensor:
        """Return the chance of each output position in a draw, (n_trials, n_out)."""
        draws = torch.randint(2 * self.radius, (self.n_offsets,), device=x.device)
        # 0 .. 2 r - 1 to -r .. -1, 1 .. r.
        offsets = draws - self.radius + (draws >= self.radius).long()
        s = self_similarity(x.detach(), self.conv, offsets, bandwidth=self.bandwidth)
        tiny = torch.finfo(s.dtype).tiny
        return torch.softmax(s.clamp_min(tiny).log() / self.temperature, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution, in training with positions set to zero.

        Parameters
        ----------
        x : Tensor, shape (n_trials, n_in, n_times)

        Returns
        -------
        y : Tensor, shape (n_trials, n_out, n_times_out)
        """
        y: Tensor = self.conv(x)
        n, n_out, n_times = y.shape
        draws = int(self.rate * n_times)
        if not (self.training and self.enabled and draws):
            return y
        p = self.probabilities(x)
        dropped = torch.multinomial(p, n_out * draws, replacement=True)
        kept = torch.ones_like(y).scatter(2, dropped.view(n, n_out, draws), 0.0)
        return y * kept


def set_info_drop(model: nn.Module, enabled: bool) -> int:
    """Switch every `InfoDrop` of a network on or off; return how many there are.

    Switch them off for the last epochs: outputs were not rescaled.
    """
    layers = [m for m in model.modules() if isinstance(m, InfoDrop)]
    for layer in layers:
        layer.enabled = enabled
    return len(layers)
