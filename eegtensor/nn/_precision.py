"""What layers ask of trials: their size, numbers, and enough digits of them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from eegtensor._check import fail, listing
from eegtensor.geometry.spectral import _eager_cpu


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autocast leaves matrix products alone.

    EEG in volts squared is below what float16 can hold, and a covariance in
    bfloat16 has two digits.
    """
    kind = x.device.type
    # Devices without autocast refuse even the question.
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def check_trial_shape(x: Tensor, n_chans: int, n_times: int) -> None:
    """Raise unless x holds trials of the size that a network was made for."""
    if x.ndim != 3 or x.shape[1:] != (n_chans, n_times):
        fail(
            f"x has shape {tuple(x.shape)}; this network was made for trials of "
            f"{n_chans} channels and {n_times} samples",
            fix=f"give an array of shape (batch, {n_chans}, {n_times})",
        )


def check_finite_trials(S: Tensor) -> None:
    """Raise if what trials have become holds NaN or infinity, naming the trials.

    Parameters
    ----------
    S : Tensor, shape (batch, ...)
        On a GPU nothing is looked at: that would stop it. Nor can it be under
        torch.func's transforms, where gradients of single trials are found.
    """
    if not _eager_cpu(S) or _transformed() or bool(torch.isfinite(S).all()):
        return
    bad = (~torch.isfinite(S).flatten(1).all(dim=1)).nonzero()[:, 0]
    fail(
        f"Trials {listing(bad.tolist())} of the batch hold NaN or infinity",
        why="Their covariances would be NaN, and so would the means of the batch",
        fix="drop these trials or channels, or read with on_bad='drop'",
    )


def _transformed() -> bool:
    """Whether torch.func's vmap or grad is at work; no public function tells."""
    return torch._C._functorch.maybe_current_level() is not None
