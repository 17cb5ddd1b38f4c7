"""The network that trials train on each other: small, without biases or positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from eegtensor.tensor.denoising._noise import Whitening


class Filter(nn.Module):
    """Convolutions over (channels, time): x -> f(x) with f(g x) = g f(x), g > 0.

    Without biases the network cannot paint a waveform that the trial does not
    hold, and without a sense of position it follows the trial's latency. The last
    layer starts at zero: untrained, it answers 0.

    Parameters
    ----------
    n_channels : int
    hidden : int
    kernel : int
        Samples, odd.
    dilations : tuple of int
        One for each layer in time.
    """

    def __init__(
        self, n_channels: int, hidden: int, kernel: int, dilations: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.enter = nn.Conv1d(n_channels, hidden, 1, bias=False)
        self.layers = nn.ModuleList(
            nn.Conv1d(hidden, hidden, kernel, padding="same", dilation=step, bias=False)
            for step in dilations
        )
        self.leave = nn.Conv1d(hidden, n_channels, 1, bias=False)

    def start(self, random: torch.Generator) -> None:
        """Draw the weights."""
        with torch.no_grad():
            for weight in self.parameters():
                bound = weight[0].numel() ** -0.5
                drawn = torch.rand(weight.shape, generator=random)
                weight.copy_(bound * (2.0 * drawn - 1.0))
            self.leave.weight.zero_()

    def forward(self, Z: Tensor) -> Tensor:
        """Return what whitened trials share, (n_trials, n_channels, n_times)."""
        Z = self.enter(Z)
        for layer in self.layers:
            Z = Z + torch.relu(layer(Z))
        shared: Tensor = self.leave(Z)
        return shared


class PairedNetwork(nn.Module):
    """What trials of a condition share, for new trials of the same shape.

    Made by `fit_paired`. Signals are whitened; the networks' answer, which follows
    the trial, and the averages of conditions, which know when things happen, are
    mixed, scaled by the trial's own amplitude and taken back to their unit.

    Attributes
    ----------
    space, space_back, time, time_back : Tensor
        The whitening (buffers, float64).
    trust : Tensor, shape (n_networks,)
        Weight of each network, of sum 1, or all 0 if nothing is shared.
    templates : Tensor, shape (n_conditions, n_channels, n_times)
        Whitened averages.
    log_share : Tensor, shape (n_conditions,)
        Logarithm of each condition's share of the trials.
    mix : Tensor, shape (2,)
        Weights of the networks and of the averages.
    amplitude : Tensor, shape (2,)
        Mean and variance of the trials' amplitudes relative to the mixture.
    probes : Tensor, shape (n_probes, n_channels, n_times)
        Random signs, by which the networks' sensitivity is told.
    gain : Tensor, shape ()
        By how much held-out trials were predicted better than by zero: mean squared
        error per sample, where noise has variance 1.
    """

    trust: Tensor
    templates: Tensor
    log_share: Tensor
    mix: Tensor
    amplitude: Tensor
    probes: Tensor
    gain: Tensor
    space: Tensor
    space_back: Tensor
    time: Tensor
    time_back: Tensor

    def __init__(
        self,
        networks: list[Filter],
        trust: Tensor,
        probes: Tensor,
        templates: Tensor,
        white: Whitening,
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        for name, value in white._asdict().items():
            self.register_buffer(name, value)
        self.register_buffer("trust", trust)
        self.register_buffer("probes", probes)
        self.register_buffer("templates", templates)
        self.register_buffer("log_share", trust.new_zeros(len(templates)))
        self.register_buffer("mix", trust.new_tensor([1.0, 0.0]))
        self.register_buffer("amplitude", trust.new_tensor([1.0, 0.0]))
        self.register_buffer("gain", trust.new_zeros(()))

    def filtered(self, Z: Tensor) -> Tensor:
        """Return the networks' joint answer to whitened trials."""
        answers = [w * f(Z) for w, f in zip(self.trust, self.networks, strict=True)]
        return torch.stack(answers).sum(dim=0)

    def recalled(self, Z: Tensor) -> Tensor:
        """Return the averages, weighted by how likely each trial is of each.

        For unit white noise, log p(z | k) = <z, m_k> - |m_k|^2 / 2 + constant.
        """
        flat = self.templates.flatten(1)
        fit = Z.flatten(1) @ flat.T - 0.5 * flat.square().sum(dim=1)
        likely = (fit + self.log_share).softmax(dim=1)
        return (likely @ flat).view(Z.shape)

    def mixed(self, Z: Tensor) -> Tensor:
        """Return what whitened trials share, before their own amplitude."""
        return self.mix[0] * self.filtered(Z) + self.mix[1] * self.recalled(Z)

    def divergence(self, Z: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
        """Return sum of d answer(z)_i / d z_i of each trial, shape (n_trials,).

        It is what an answer owes to the noise of its own trial, <n, answer(z)> in
        expectation (C. M. Stein, Ann. Statist. 9, 1135-1151, 1981), found by random
        signs (S. Ramani et al., IEEE Trans. Image Process. 17, 1540-1554, 2008).
        """
        step, at = 1e-2, answer(Z)
        each = [
            ((answer(Z + step * b) - at) * b).sum(dim=(1, 2)) / step
            for b in self.probes
        ]
        return torch.stack(each).mean(dim=0)

    def forward(self, X: Tensor) -> Tensor:
        """Return denoised trials, (n_trials, n_channels, n_times), float64."""
        Z = self.space @ X.to(self.space.dtype) @ self.time
        F = self.mixed(Z)
        found, error = scores(Z, F, self.divergence(Z, self.mixed))
        mean, variance = self.amplitude
        # Posterior mean of a normal amplitude; far from the prior only where it is
        # seen well. No response is turned upside down.
        scale = mean + variance / (variance + error) * (found - mean)
        F = F * scale.clamp_min(0.0)[:, None, None]
        return self.space_back @ F @ self.time_back


def scores(Z: Tensor, F: Tensor, divergence: Tensor) -> tuple[Tensor, Tensor]:
    """Return each trial's amplitude relative to F, and its error's variance.

    Least squares, <z, f> / <f, f>, less what f owes to the noise of z itself.
    """
    energy = F.square().sum(dim=(1, 2)).clamp_min(torch.finfo(F.dtype).tiny)
    return ((Z * F).sum(dim=(1, 2)) - divergence) / energy, 1.0 / energy
