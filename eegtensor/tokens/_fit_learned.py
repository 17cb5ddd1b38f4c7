"""Fit the learned kind: components, the network of scales, and the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.codebook.entropy import code_log_probability, quantise
from eegtensor.models.scalenetwork import ScaleNetwork
from eegtensor.tokens._bands import N_BINS
from eegtensor.tokens._context import contexts, n_features
from eegtensor.tokens._lanes import lanes_of
from eegtensor.tokens._mixing import fit_mixing
from eegtensor.tokens._signals import Signals, spectra
from eegtensor.tokens._steps import activity
from eegtensor.tokens.learned import LARGEST, ROUNDING, LearnedCodec
from eegtensor.training import Batch, ShuffleSampler, StepContext, make_optimizer, train

# Seconds of a unit that the network is trained on, at every step, and a batch's.
_SECONDS, _BATCH = 5_000, 96
_STEPS = (2**-0.5, 1.0, 2**0.5)
# Frames in a row: contexts reach back.
_RUN = 24
_EPOCHS_FIRST, _EPOCHS = 2, 8
_HALVINGS = 10
# Seconds of a unit that choose the step.
_FEW = 2_000


class CodeLength:
    """Bits a code, one loss a row of codes."""

    per_trial = True

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the mean code length of each row, shape (n_rows,)."""
        assert isinstance(model, ScaleNetwork)
        assert batch.y is not None
        found = code_log_probability(
            batch.y.to(outputs),
            outputs,
            model.log_weights.log_softmax(dim=0),
            model.log_ratios,
            ROUNDING,
        )
        return -found.mean(dim=-1) / np.log(2)


def fit_learned(
    recordings: Sequence[Signals],
    X: Sequence[NDArray],
    *,
    bits_per_second: float,
    spatial: bool,
    random_state: int,
) -> LearnedCodec:
    """Return a codec that spends a number of bits on the training data.

    Parameters
    ----------
    recordings : sequence of Signals
    X : sequence of ndarray, shape (n_trials, n_channels, n_times)
        Scaled.
    bits_per_second : float
        Of a channel.
    spatial : bool
    random_state : int
    """
    coefs = [spectra(x, s.sfreq, N_BINS) for s, x in zip(recordings, X, strict=True)]
    mixing = fit_mixing(recordings, coefs) if spatial else None
    lanes = [lanes_of(c, mixing) for c in coefs]
    total = torch.stack([x.square().sum(dim=(0, 1)) for x in lanes]).sum(dim=0)
    energy = total / sum(x.shape[0] * x.shape[1] for x in lanes)
    if not any(np.ptp(x, axis=-1).max() > 0 for x in X):
        fail("all channels are constant", fix="fit on recordings that hold EEG")
    # An energy of zero would make a zero certain, and every other code impossible.
    energy = energy.clamp_min(float(energy.mean()) * 1e-6)
    runs = _runs(lanes, np.random.default_rng(random_state))
    network = ScaleNetwork(n_features(len(energy)))
    with torch.random.fork_rng([]):
        torch.manual_seed(random_state)
        for layer in (network.hidden, network.middle):
            layer.reset_parameters()
    step = _step_for(network, energy, mixing, runs, bits_per_second)
    for epochs in (_EPOCHS_FIRST, _EPOCHS):
        _train(network, energy, runs, step, epochs, random_state)
        step = _step_for(network, energy, mixing, runs, bits_per_second)
    per_activity = bits_per_second / activity(runs, step)
    size = 2 * max(float(x.abs().max()) for x in lanes) / step
    largest = next((n for n in LARGEST if n >= size), LARGEST[-1])
    return LearnedCodec(
        network, energy, mixing, step, bits_per_second, per_activity, largest
    )


def _runs(lanes: Sequence[Tensor], rng: np.random.Generator) -> Tensor:
    """Return runs of frames drawn from all lanes, (n_runs, run, n_units, n_bins)."""
    length = min(_RUN, max(x.shape[1] for x in lanes))
    cut: list[Tensor] = []
    for x in lanes:
        n = x.shape[1] // length
        if n:
            parts = x[:, : n * length].unflatten(1, (n, length))
            cut.append(parts.flatten(0, 1))
    runs = torch.cat(cut)
    n_runs = max(1, _SECONDS // (length * runs.shape[2]))
    pick = rng.permutation(len(runs))[:n_runs]
    return runs[torch.from_numpy(np.sort(pick))]


def _train(
    network: ScaleNetwork,
    energy: Tensor,
    runs: Tensor,
    step: float,
    epochs: int,
    random_state: int,
) -> None:
    rows: list[tuple[Tensor, Tensor]] = []
    for factor in _STEPS:
        codes = quantise(runs / (factor * step), ROUNDING, LARGEST[-1])
        found = contexts(codes, energy / (factor * step) ** 2).float()
        rows.append((found.flatten(0, 2), codes.flatten(0, 2).float()))
    data = Batch(*(torch.cat(part) for part in zip(*rows, strict=True)))
    network.float().requires_grad_(True)
    train(
        network,
        data,
        objective=CodeLength(),
        optimizer=make_optimizer(network, "adam", lr=4e-3, weight_decay=0.0),
        sampler=ShuffleSampler(len(data), batch_size=_BATCH, random_state=random_state),
        epochs=epochs,
        callbacks=[_Decay()],
        random_state=random_state,
    )


class _Decay:
    """A learning rate that falls to a tenth over the epochs."""

    def on_epoch_start(self, state: Any) -> None:
        for group in state.optimizer.param_groups:
            first = group.setdefault("first_lr", group["lr"])
            done = (state.epoch - 1) / max(state.n_epochs - 1, 1)
            group["lr"] = first * 0.1**done


def _step_for(
    network: ScaleNetwork,
    energy: Tensor,
    mixing: NDArray | None,
    runs: Tensor,
    bits_per_second: float,
) -> float:
    """Return the step at which the training data cost a number of bits."""
    few = runs[:: max(1, runs.shape[0] * runs.shape[1] * runs.shape[2] // _FEW)]
    codec = LearnedCodec(
        network, energy, mixing, 1.0, bits_per_second, 1.0, LARGEST[-1]
    )
    low, high = np.log(1e-3), np.log(20 * float(energy.max()) ** 0.5)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        step = float(np.exp(middle))
        codes = codec.codes(few, step)
        spent = float(codec.costs(codes, step).bits.mean())
        low, high = (middle, high) if spent > bits_per_second else (low, middle)
    return float(np.exp((low + high) / 2))
