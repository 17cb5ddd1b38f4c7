"""Learning rhythms without labels, from how a signal resembles itself."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_number, fail
from eegtensor.training.batch import Batch
from eegtensor.training.network import Network
from eegtensor.training.objectives.rhythms import (
    band_loss,
    diagonal_spread,
    pearson,
    similarity_matrix,
    wave_of,
)
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.statistics import StatisticsGuard

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState


class SelfSimilarity:
    """Self-similarity distillation for networks of sequences, one loss a trial.

    A network that returns sequences, (n_trials, n_times, n_features), learns to
    agree with a slow copy of itself that sees the trial with noise added: on the
    matrix of cosines between times, and on its wave, the mean along diagonals. Two
    more terms want matrices of rhythms, alike along diagonals, and waves whose
    power lies in a band:

        similarity / 2 (MSE + 1 - Pearson, of matrices and of waves)
        + toeplitz / 2 * spread along diagonals
        + power / 5 * (total / power in the band - 1)

    Parameters
    ----------
    sfreq : float
        Sampling rate of the sequences, not of the trials.
    low, high : float
        The band in Hz; of a stimulus its frequency and 0.5 to both sides.
    noise : float
        Of the slow copy's trials, in standard deviations of the channel.
    momentum : float
        Of the copy: weight of its past.
    similarity, toeplitz, power : float
        Factors of the published weights 0.5, 0.5 and 0.2.

    Raises
    ------
    EEGTensorError
        If an option is out of range, or outputs are no sequences.

    Notes
    -----
    The released code takes the power of waves whose bins are spread over the full
    sampling rate and drops the shortest diagonal; here bins are those of the
    frequencies, the wave's mean is taken out, and diagonals of two entries or more
    count. Distillation of a decoded signal has no counterpart in a network without
    a decoder.

    References
    ----------
    W. Sun et al., "Contrast-free, non-end-to-end remote physiological measurement
    by self-similarity prior distillation" (SSPD), arXiv 2311.05100.
    """

    per_trial = True
    training_only = True

    def __init__(
        self,
        sfreq: float,
        low: float = 8.0,
        high: float = 13.0,
        noise: float = 0.1,
        momentum: float = 0.9,
        similarity: float = 1.0,
        toeplitz: float = 1.0,
        power: float = 1.0,
    ) -> None:
        for name, value in (
            ("sfreq", sfreq),
            ("noise", noise),
            ("momentum", momentum),
            ("similarity", similarity),
            ("toeplitz", toeplitz),
            ("power", power),
        ):
            check_number(name, value, least=0.0)
        if not 0 <= low < high <= sfreq / 2:
            fail(
                f"low={low}, high={high} with sfreq={sfreq}",
                fix="give a band below half the sampling rate of the sequences",
            )
        if momentum > 1:
            fail(f"momentum={momentum}", fix="give a share from 0 to 1")
        self.sfreq, self.low, self.high = sfreq, low, high
        self.noise, self.momentum = noise, momentum
        self.similarity, self.toeplitz, self.power = similarity, toeplitz, power
        self.teacher: nn.Module | None = None
        self._restored: dict[str, Tensor] = {}

    def on_train_start(self, state: TrainState) -> None:
        """Make the slow copy."""
        self.teacher = copy.deepcopy(state.model)
        if state.epoch and self._restored:
            self.teacher.load_state_dict(self._restored)
        # As its pupil learns, whatever mode the network was given in.
        self.teacher.requires_grad_(False).train()

    @torch.no_grad()
    def on_step_end(self, state: TrainState) -> None:
        """Move the slow copy, on the manifolds of its parameters."""
        assert self.teacher is not None and state.network is not None
        space = state.network.space
        slow = dict(self.teacher.named_parameters())
        for name, leaf in space.leaves.items():
            pair = torch.stack([slow[name].detach(), leaf.detach()])
            weights = torch.tensor([self.momentum, 1 - self.momentum]).double()
            slow[name].copy_(space.adapters[name].mean(pair, weights))
        # Its passes move none of its own: the statistics of the network are its.
        for mine, new in zip(
            self.teacher.buffers(), state.model.buffers(), strict=True
        ):
            mine.copy_(new)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        if outputs.ndim != 3:
            fail(
                f"Self-similarity is of sequences, outputs are {tuple(outputs.shape)}",
                fix="give a network that returns (n_trials, n_times, n_features)",
            )
        S = similarity_matrix(outputs)
        wave = wave_of(S)
        loss = 0.5 * self.toeplitz * diagonal_spread(S)
        loss = loss + 0.2 * self.power * band_loss(
            wave, self.sfreq, self.low, self.high
        )
        if self.similarity and self.teacher is not None:
            with torch.no_grad():
                T = similarity_matrix(self._view(batch, context.generator))
            flat, target = S.flatten(1), T.flatten(1)
            for a, b in ((flat, target), (wave, wave_of(T))):
                agree = (a - b).square().mean(1) + 1 - pearson(a, b)
                loss = loss + 0.5 * self.similarity * agree
        return loss

    def _view(self, batch: Batch, generator: torch.Generator | None) -> Tensor:
        """Return the slow copy's sequences of the trials with noise."""
        assert self.teacher is not None
        x: Any = batch.x
        if self.noise:
            drawn = torch.randn(
                x.shape, generator=generator, dtype=x.dtype, device=x.device
            )
            x = x + self.noise * channel_scale(x) * drawn
        with StatisticsGuard(self.teacher, "transient"):
            outputs: Tensor = Network(self.teacher)(replace(batch, x=x))
        return outputs

    def state_dict(self) -> dict[str, Tensor]:
        """Return the slow copy's weights and statistics."""
        return {} if self.teacher is None else dict(self.teacher.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Set them, once the run has made the copy."""
        self._restored = state
