"""Unlearning in the weights and the statistics of a network classifier."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eegtensor._check import check_number, fail, listing
from eegtensor.domains import Domain, encode_domains
from eegtensor.lifelong.membership import class_places
from eegtensor.training import (
    Batch,
    CrossEntropy,
    DomainBalancedSampler,
    TrainState,
    device_of,
    forward_all,
    make_optimizer,
    refit_statistics,
    train,
)
from eegtensor.training.recipes.blends import natural_blends
from eegtensor.training.recipes.natmu import joined
from eegtensor.training.recipes.sfron import SFRon
from eegtensor.transfer._network import NetworkClassifier
from eegtensor.transfer._trialcache import forget_trials


def unlearn_network(
    estimator: NetworkClassifier,
    X: NDArray,
    y: NDArray,
    names: Sequence[Domain],
    gone: NDArray[np.bool_],
    *,
    method: str = "sfron",
    share: float = 0.035,
    lr: float | None = None,
    random_state: int = 0,
    **options: Any,
) -> NetworkClassifier:
    """Return a copy of a fitted network classifier that has unlearned some trials.

    The weights are trained by `SFRon` or on the blends of `NatMU`; then statistics are
    fitted anew to what is left, and those of the domains that are gone removed, from
    the pooled one, too. What a run of training left of them goes: directions of
    calibration, its history, lagged covariances in memory.

    Parameters
    ----------
    estimator : NetworkClassifier
    X : ndarray, shape (n_trials, n_channels, n_times)
        All trials that it was trained on.
    y : ndarray, shape (n_trials,)
    names : sequence of Domain
        One a trial.
    gone : ndarray of bool, shape (n_trials,)
        Whole domains.
    method : "sfron" | "natmu"
    share : float
        Steps, as a share of those of the training.
    lr : float | None
        None: 0.01 of SGD for "sfron", 1e-3 of Adam for "natmu"; it falls to 0 along
        half a cosine.
    random_state : int
    **options
        Of `SFRon`, or ``delta`` of `NatMU`.
    """
    check_number("share", share, above=0.0)
    after: Any = copy.deepcopy(estimator)
    network = after.network_
    codes = _codes(after, names)
    labels = torch.from_numpy(class_places(after, y))
    n_steps = max(1, round(share * after.epochs * len(X) / after.batch_size))
    device = device_of(network)
    data: Any = Batch(after._inputs(X), labels, codes).to(device)
    place = {
        flag: torch.from_numpy(np.flatnonzero(gone == flag)).to(device)
        for flag in (True, False)
    }
    batches = {
        "batch_size": after.batch_size,
        "domains_per_batch": after.domains_per_batch,
        "random_state": random_state,
    }
    kept = data.pick(place[False])
    forgotten = tuple(int(code) for code in data.domain[place[True]].unique())
    plan: dict[str, Any]
    if method == "sfron":
        # A pass of all trials would cost more than a short run of steps.
        given = {"n_information": max(n_steps // 4, 4)} | batches | options
        recipe = SFRon(forgotten, n_steps=n_steps, **given)
        ascents = -(-n_steps // recipe.every) if recipe.alpha else 0
        plan = {"recipe": recipe, "epochs": 1}
        optimizer = make_optimizer(
            network,
            "riemannian-sgd",
            lr=0.01 if lr is None else lr,
            weight_decay=5e-4,
            momentum=0.9,
        )
        n_steps += ascents
    else:
        blends = _blends(after, X, data, place, random_state, **options)
        data = joined(kept, blends)
        sampler = DomainBalancedSampler(data.domain.cpu(), data.y.cpu(), **batches)
        per_epoch = max(len(sampler.indices(1)), 1)
        epochs = max(1, round(n_steps / per_epoch))
        plan = {"sampler": sampler, "epochs": epochs}
        n_steps = epochs * per_epoch
        optimizer = make_optimizer(
            network, "riemannian-adam", lr=1e-3 if lr is None else lr
        )
    train(
        network,
        replace(data, index=None),
        objective=CrossEntropy(),
        optimizer=optimizer,
        callbacks=[_Cosine(n_steps)],
        random_state=random_state,
        **plan,
    )
    rest = Batch(kept.x, kept.y, kept.domain)
    refit_statistics(network, rest)
    _clean(after, names, gone, rest)
    return after


def _codes(estimator: Any, names: Sequence[Domain]) -> torch.Tensor:
    """Return a code for the domain of each trial: the network's own where it has one.

    Raises
    ------
    EEGTensorError
        If the network does not know a domain.
    """
    network = estimator.network_
    if network.norm is None or network.ignores_domains:
        return torch.from_numpy(encode_domains(names).codes)
    unknown = {name for name in names if name not in network.norm.names}
    if unknown:
        fail(
            f"The network has no statistics of {listing(sorted(map(str, unknown)))}",
            fix="give the trials that it was trained on, with their subjects and "
            "sessions",
        )
    codes: torch.Tensor = network.norm.encode(names)
    return codes.cpu()


def _blends(
    estimator: Any,
    X: NDArray,
    data: Batch,
    place: Mapping[bool, torch.Tensor],
    seed: int,
    delta: float = -0.05,
) -> Batch:
    """Return blends of signals as the network takes them."""
    assert data.y is not None and data.domain is not None
    gone, kept = (place[flag].cpu() for flag in (True, False))
    signals = torch.from_numpy(np.ascontiguousarray(X))
    y = data.y.cpu()
    made = natural_blends(
        signals[gone],
        y[gone],
        forward_all(estimator.network_, data.pick(place[True])),
        signals[kept],
        y[kept],
        delta=delta,
        generator=torch.Generator().manual_seed(seed),
    )
    x = estimator._inputs(made.x.numpy()).to(data.device)
    domain = data.domain[place[True]][made.forgotten.to(data.device)]
    return Batch(x, made.y.to(data.device), domain)


def _clean(
    estimator: Any, names: Sequence[Domain], gone: NDArray[np.bool_], rest: Batch
) -> None:
    """Remove what else is left of domains that are gone."""
    lost = {name for name, is_gone in zip(names, gone, strict=True) if is_gone}
    if estimator.can_adapt:
        estimator.network_.forget(sorted(lost))
    assert rest.y is not None
    counts = torch.bincount(rest.y.cpu(), minlength=len(estimator.classes_)).numpy()
    estimator.prior_ = counts / counts.sum()
    estimator.adaptation_ = {
        name: done for name, done in estimator.adaptation_.items() if name not in lost
    }
    if estimator.last_target_ in lost:
        estimator.last_target_ = None
    # The way of the weights in training, and its losses, were of all people.
    estimator.directions_ = estimator.coefficients_ = None
    estimator.history_ = type(estimator.history_)()
    forget_trials()


class _Cosine:
    """Lets the learning rate of a run fall to 0 along half a cosine."""

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps
        self._start: list[float] = []

    def on_train_start(self, state: TrainState) -> None:
        """Note the rates."""
        self._start = [group["lr"] for group in state.optimizer.param_groups]

    def on_step_end(self, state: TrainState) -> None:
        """Set the rates of the next step."""
        done = min(state.step / self.n_steps, 1.0)
        for group, lr in zip(state.optimizer.param_groups, self._start, strict=True):
            group["lr"] = lr * (1.0 + math.cos(math.pi * done)) / 2.0
