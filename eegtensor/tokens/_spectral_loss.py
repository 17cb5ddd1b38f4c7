"""The loss of NeuroRVQ and of LaBraM's tokenizer: amplitude, phase, waveform."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, mse_loss

from eegtensor.training import Batch, StepContext

# Weight of the unit circle, as published.
_CIRCLE = 0.1


def phase_loss(rebuilt: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return how far phases are apart, and their vectors from the unit circle.

    1 - <cos angle(rebuilt, target)> + 0.1 <(||rebuilt||^2 - 1)^2>, means over
    all bins (tokenizers.md, 1.6).

    Parameters
    ----------
    rebuilt, target : Tensor, shape (2, ...)
        Cosine and sine of the phase.
    weight : Tensor, shape (...) | None
        Of the bins in both means.
    """
    apart = 1 - cosine_similarity(rebuilt, target, dim=0)
    off = (rebuilt.square().sum(dim=0) - 1).square()
    return weighted_mean(apart + _CIRCLE * off, weight)


def waveform_loss(rebuilt: Tensor, target: Tensor, *, free_gain: bool) -> Tensor:
    """Return the squared error of signals.

    Parameters
    ----------
    rebuilt, target : Tensor, shape (batch, n_channels, n_times)
    free_gain : bool
        As published: both get mean zero and variance one a sample, so that a wrong
        gain costs nothing. Else the error is divided by the target's energy.
    """
    if not free_gain:
        return mse_loss(rebuilt, target) / target.square().mean().clamp_min(1e-12)
    flat = [x.flatten(1) for x in (rebuilt, target)]
    centred = [x - x.mean(dim=1, keepdim=True) for x in flat]
    a, b = (
        x / x.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-6) for x in centred
    )
    return mse_loss(a, b)


class SpectralLoss:
    """Loss of the codebooks, of the spectrum and of the signal, all of weight one.

    NeuroRVQ as published: mean squared error of the standardised log-amplitude,
    `phase_loss` and `waveform_loss` (tokenizers.md, 1.6). LaBraM as published:
    mean squared errors of standardised amplitude and phase. With the fix "spectrum",
    both the former, where bins weigh by their amplitude and a wrong gain costs.
    """

    per_trial = False

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Any, context: StepContext
    ) -> Tensor:
        """Return the loss of a `PatchTokenizer`'s reconstruction."""
        x = batch.x[0] if isinstance(batch.x, tuple) else batch.x
        spectrum: Any = model.spectrum
        patches = x.unflatten(-1, (-1, spectrum.n_times))
        target, made = spectrum(patches), outputs.heads
        if spectrum.kind == "angle":
            return (
                outputs.code_loss
                + mse_loss(made[0], target[0])
                + mse_loss(made[1], target[1])
            )
        weight = None
        if spectrum.one_sided:
            weight = spectrum.complex_spectrum(patches).abs()
        amplitude = weighted_mean((made[0] - target[0]).square(), weight)
        phase = phase_loss(made[1:], target[1:], weight)
        free_gain = not spectrum.one_sided
        wave = waveform_loss(outputs.signal, x, free_gain=free_gain)
        return outputs.code_loss + amplitude + phase + wave


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean of values, all of one weight or each of its own."""
    if weight is None:
        return values.mean()
    return (values * weight).sum() / weight.sum().clamp_min(1e-12)
