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
from eegtensor.tokens._bands import N_BINS, edges_to
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
# Bins of a second: up to 100 Hz. Those are coded that make up so much of the error.
_ALL, _MATTERS = 200, 0.02
# Codes up to this one are told apart when a first step is looked for.
_CLEAR = 255
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
    if not any(np.ptp(x, axis=-1).max() > 0 for x in X):
        fail("all channels are constant", fix="fit on recordings that hold EEG")
    coefs = [spectra(x, s.sfreq, _ALL) for s, x in zip(recordings, X, strict=True)]
    mixing = fit_mixing(recordings, coefs) if spatial else None
    lanes = [lanes_of(c, mixing) for c in coefs]
    total = torch.stack([x.square().sum(dim=(0, 1)) for x in lanes]).sum(dim=0)
    energy = total / sum(x.shape[0] * x.shape[1] for x in lanes)
    runs = _runs(lanes, np.random.default_rng(random_state))
    step = _first_step(runs, bits_per_second)
    n_bins = _bins_for(energy, step)
    runs, energy = runs[..., :n_bins], energy[:, :n_bins]
    if mixing is not None:
        mixing = np.ascontiguousarray(mixing[: len(edges_to(n_bins)) - 1])
    # An energy of zero would make a zero certain, and every other code impossible.
    energy = energy.clamp_min(float(energy.mean()) * 1e-6)
    network = ScaleNetwork(n_features(len(energy)))
    with torch.random.fork_rng([]):
        torch.manual_seed(random_state)
        for layer in (network.hidden, network.middle):
            layer.reset_parameters()
    peak = max(float(x[..., :n_bins].abs().max()) for x in lanes)
    for epochs in (_EPOCHS_FIRST, _EPOCHS):
        _train(network, energy, runs, step, epochs, random_state)
        codec = LearnedCodec(
            network,
            energy,
            mixing,
            step,
            bits_per_second,
            1.0,
            _largest_for(peak, step),
        )
        step = _step_for(codec, runs)
    per_activity = bits_per_second / activity(runs, step)
    return LearnedCodec(
        network,
        energy,
        mixing,
        step,
        bits_per_second,
        per_activity,
        _largest_for(peak, step),
    )


def _largest_for(peak: float, step: float) -> int:
    """Return the least alphabet that has room for twice the training data's peak.

    Every code costs the others a little, which is much where nearly all are zero.
    """
    return next((n for n in LARGEST if n >= 2 * peak / step), LARGEST[-1])


def _first_step(runs: Tensor, bits_per_second: float) -> float:
    """Return a step whose codes have about a number of bits, each bin by itself.

    A network that is not trained has a price for silence, above that of low rates.
    """
    low, high = np.log(1e-3), np.log(20 * float(runs.abs().max()))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        codes = quantise(runs / np.exp(middle), ROUNDING, _CLEAR)
        wanted = bits_per_second * len(runs[0, 0])
        above = _entropy(codes.flatten(0, 1).flatten(1)) > wanted
        low, high = (middle, high) if above else (low, middle)
    return float(np.exp((low + high) / 2))


def _entropy(codes: Tensor) -> float:
    """Return the bits of rows of codes (n, n_columns), by each column's histogram."""
    n, n_columns = codes.shape
    width = 2 * _CLEAR + 1
    at = codes + _CLEAR + width * torch.arange(n_columns)
    shares = torch.bincount(at.flatten(), minlength=width * n_columns) / n
    return float(-torch.special.xlogy(shares, shares).sum() / np.log(2))


def _bins_for(energy: Tensor, step: float) -> int:
    """Return how many bins to code: what lies above adds little to the error.

    Parameters
    ----------
    energy : Tensor, shape (n_units, n_bins)
    step : float
        What is coded is off by a twelfth of its square.
    """
    error = energy.clamp_max(step**2 / 12)
    beyond = (energy - error).sum(dim=0).flip(0).cumsum(dim=0).flip(0)
    for n_bins in edges_to(_ALL):
        if n_bins >= N_BINS and (
            n_bins == _ALL or float(beyond[n_bins]) < _MATTERS * float(error.sum())
        ):
            return n_bins
    return _ALL


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


def _step_for(codec: LearnedCodec, runs: Tensor) -> float:
    """Return the step at which the training data cost what the codec may spend.

    It is looked for within a factor of two: further from the steps that the network
    was trained at, what it says of silence is no guide.
    """
    few = runs[:: max(1, runs.shape[0] * runs.shape[1] * runs.shape[2] // _FEW)]
    low, high = np.log(codec.step / 2), np.log(codec.step * 2)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        step = float(np.exp(middle))
        codes = codec.codes(few, step)
        spent = float(codec.costs(codes, step).bits.mean())
        above = spent > codec.bits_per_second
        low, high = (middle, high) if above else (low, middle)
    return float(np.exp((low + high) / 2))
