"""EL2N: the length of a trial's error early in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_count, fail
from eegtensor.training.batch import Batch, labels_of
from eegtensor.training.network import forward_all
from eegtensor.training.refit import refit_statistics


def el2n(logits: Tensor, y: Tensor) -> Tensor:
    """Return |softmax(logits) - onehot(y)|_2 of each trial, the mean over runs.

    Large scores are of trials that a network early in training gets wrong: hard
    ones, and those with a wrong label or an artefact. Compare scores within a
    person or session (`quantiles_within`): hard people are deleted otherwise.

    Parameters
    ----------
    logits : Tensor, shape (n_trials, n_classes) or (n_runs, n_trials, n_classes)
    y : Tensor of int64, shape (n_trials,)
        -1 where unknown.

    Returns
    -------
    scores : Tensor, shape (n_trials,)
        From 0 to sqrt(2); NaN where the class is not known.

    References
    ----------
    M. Paul, S. Ganguli and G. K. Dziugaite, "Deep learning on a data diet: finding
    important examples early in training", NeurIPS 2021, definition 3.
    """
    if logits.ndim not in (2, 3) or logits.shape[-2] != len(y):
        fail(
            f"Logits of shape {tuple(logits.shape)} for {len(y)} labels",
            fix="give (n_trials, n_classes), or (n_runs, n_trials, n_classes)",
        )
    target = F.one_hot(y.clamp_min(0), logits.shape[-1]).to(logits.dtype)
    scores = (logits.softmax(-1) - target).norm(dim=-1)
    if logits.ndim == 3:
        scores = scores.mean(0)
    return scores.masked_fill(y < 0, torch.nan)


def el2n_of_runs(
    make_model: Callable[[int], nn.Module],
    data: Batch,
    *,
    n_runs: int = 10,
    epochs: int = 5,
    batch_size: int = 50,
    lr: float = 1e-2,
    random_state: int = 0,
    **plugs: Any,
) -> Tensor:
    """Return EL2N after a few epochs, averaged over runs from other starts.

    Parameters
    ----------
    make_model : callable
        Returns an untrained network for a seed.
    data : Batch
    n_runs : int
        The paper takes 10; 5 were enough on simulated trials.
    epochs : int
        5 to 10 % of a whole training.
    batch_size : int
    lr : float
    random_state : int
    **plugs
        Of `make_plugs`, such as ``sampler="domain-balanced"``.

    Returns
    -------
    scores : Tensor, shape (n_trials,)
    """
    # The loop imports samplers, and these import scores.
    from eegtensor.training.loop import train
    from eegtensor.training.named import make_plugs
    from eegtensor.training.registry import Setup

    y, logits = labels_of(data, "EL2N"), []
    n_classes = int(y.max()) + 1
    for run in range(check_count("n_runs", n_runs)):
        seed = random_state + run
        model = make_model(seed)
        setup = Setup(
            model,
            data,
            n_classes=n_classes,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            lr=lr,
        )
        train(
            model, data, epochs=epochs, random_state=seed, **make_plugs(setup, **plugs)
        )
        refit_statistics(model, data)
        logits.append(forward_all(model, data).to(y.device))
    return el2n(torch.stack(logits), y)
