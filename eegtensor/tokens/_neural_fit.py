"""Samples of patches from recordings, and the training of a network on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor.models._electrodes import OTHER
from eegtensor.models._patch_tokenizer import FIXES, PatchTokenizer
from eegtensor.tokens._signals import frame_length
from eegtensor.tokens._spectral_loss import SpectralLoss
from eegtensor.training import (
    Batch,
    Callback,
    History,
    ShuffleSampler,
    TrainState,
    make_optimizer,
    train,
)

ALL_FIXES = (*FIXES, "warmup")
# Where frames begin in training, in parts of a frame.
_SHIFTS = 4
# Samples drawn with one place for all unlisted names, so that its row is trained.
_UNNAMED = 0.1
# Share of the steps without quantisers, and of those with a rising learning rate.
_WARMUP, _RISE = 1 / 6, 0.05
_MOST_PATCHES = 400_000


def shifted(X: NDArray, sfreq: float) -> list[NDArray]:
    """Return whole frames of signals, once for each place where frames may begin."""
    length = frame_length(sfreq)
    if X.shape[-1] < length:
        return [X]
    starts = [round(i * length / _SHIFTS) for i in range(_SHIFTS)]
    parts = [X[..., s : s + (X.shape[-1] - s) // length * length] for s in starts]
    return [part for part in parts if part.shape[-1]]


def cut_samples(
    patches: Sequence[Sequence[Tensor]],
    places: Sequence[Tensor],
    *,
    n_seconds: int,
    most: int,
    others: bool,
    random_state: int,
) -> tuple[Tensor, Tensor]:
    """Return samples of as many channels and seconds, and their channels' places.

    Parameters
    ----------
    patches : sequence of sequence of Tensor
        For each recording, (n_trials, n_channels, n_frames, n_times).
    places : sequence of Tensor of int64, shape (n_channels,)
    n_seconds, most : int
        Of a sample, and patches of a sample over all channels, at most.
    others : bool
        Whether some channels count as unnamed.
    random_state : int

    Returns
    -------
    x : Tensor, shape (n_samples, n_channels, n_times)
    places : Tensor of int64, shape (n_samples, n_channels)
    """
    rng = np.random.default_rng(random_state)
    n_channels = min(min(len(p) for p in places), most)
    shortest = min(part.shape[2] for parts in patches for part in parts)
    n_seconds = max(1, min(n_seconds, most // n_channels, shortest))
    found, where = [], []
    for parts, place in zip(patches, places, strict=True):
        order = np.arange(len(place))
        # Recordings with more channels than the least one give several samples.
        if len(place) > n_channels:
            order = rng.permutation(
                np.resize(order, -(-len(order) // n_channels) * n_channels)
            )
        for part in parts:
            n = part.shape[2] // n_seconds
            cut = part[:, order, : n * n_seconds]
            cut = cut.view(len(part), -1, n_channels, n, n_seconds, part.shape[3])
            cut = cut.permute(0, 3, 1, 2, 4, 5).reshape(
                -1, n_channels, n_seconds * part.shape[3]
            )
            groups = place[torch.from_numpy(order)].view(-1, n_channels)
            found.append(cut)
            where.append(groups.repeat(len(part) * n, 1))
    x, at = torch.cat(found), torch.cat(where)
    keep = _MOST_PATCHES // (n_channels * n_seconds) + 1
    if len(x) > keep:
        chosen = torch.from_numpy(rng.permutation(len(x))[:keep])
        x, at = x[chosen], at[chosen]
    if others:
        hidden = torch.from_numpy(rng.random(at.shape) < _UNNAMED)
        at = torch.where(hidden, OTHER, at)
    return x, at


def train_network(
    model: PatchTokenizer,
    samples: tuple[Tensor, Tensor],
    *,
    n_steps: int = 1500,
    batch_patches: int = 256,
    lr: float = 1e-3,
    weight_decay: float = 1e-4,
    warmup: bool = True,
    callbacks: Sequence[Callback] = (),
    random_state: int = 0,
    device: str | torch.device | None = None,
) -> History:
    """Train a tokenizer network by `eegtensor.training.train`.

    Parameters
    ----------
    model : PatchTokenizer
    samples : tuple of Tensor
        See `cut_samples`.
    n_steps : int
        Rounded up to whole epochs.
    batch_patches : int
        Patches of a batch, about.
    lr : float
        Highest learning rate of AdamW: it rises over a twentieth of the steps and
        falls to zero like a cosine.
    weight_decay : float
    warmup : bool
        Whether the quantisers stay off for the first sixth of the steps.
    callbacks : sequence of Callback
        Beside those, such as `Progress`.
    random_state : int
    device : str | torch.device | None
        Where to train; the network is on the CPU afterwards.
    """
    x, _ = samples
    model.spectrum.fit(model.cut(x))
    per_sample = x.shape[1] * (x.shape[2] // model.n_patch_times)
    sampler = ShuffleSampler(
        len(x),
        batch_size=max(1, batch_patches // per_sample),
        random_state=random_state,
    )
    a_epoch = len(sampler.indices(1))
    epochs = math.ceil(n_steps / a_epoch)
    model.train()
    history = train(
        model,
        Batch(samples),
        objective=SpectralLoss(),
        optimizer=make_optimizer(model, "adamw", lr=lr, weight_decay=weight_decay),
        sampler=sampler,
        epochs=epochs,
        callbacks=[
            Schedule(model, lr, epochs * a_epoch, warmup=warmup),
            *callbacks,
        ],
        random_state=random_state,
        device=device,
    )
    model.cpu()
    return history


class Schedule:
    """Set the learning rate and switch the quantisers on, step by step.

    Parameters
    ----------
    model : PatchTokenizer
    lr : float
    n_steps : int
    warmup : bool
    """

    def __init__(
        self, model: PatchTokenizer, lr: float, n_steps: int, *, warmup: bool
    ) -> None:
        self.model, self.lr, self.n_steps = model, lr, n_steps
        self.n_warmup = round(_WARMUP * n_steps) if warmup else 0

    def on_train_start(self, state: TrainState) -> None:
        """Set what the first step, or the first after a checkpoint, needs."""
        self.on_step_end(state)

    def on_step_end(self, state: TrainState) -> None:
        """Set what the next step needs."""
        rise = max(1, round(_RISE * self.n_steps))
        done = state.step / self.n_steps
        factor = min((state.step + 1) / rise, 0.5 * (1 + math.cos(math.pi * done)))
        group: dict[str, Any]
        for group in state.optimizer.param_groups:
            group["lr"] = self.lr * factor
        self.model.quantises = state.step >= self.n_warmup

    def on_train_end(self, state: TrainState) -> None:
        """Leave the quantisers on."""
        self.model.quantises = True
