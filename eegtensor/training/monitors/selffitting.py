"""Self-fitting: a network that learns to read its own attack, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from eegtensor._check import check_count, check_number, check_option
from eegtensor.training.batch import Batch, labels_of
from eegtensor.training.device import device_of
from eegtensor.training.network import Network
from eegtensor.training.perturbations._adversary import (
    Budget,
    moved,
    signals_of,
    worst,
)
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.statistics import StatisticsGuard, evaluating

if TYPE_CHECKING:
    from eegtensor.training.protocols import TrainState


class SelfFitting:
    """Stop single-step adversarial training when it has overfitted catastrophically.

    After each epoch some trials are attacked by one step and by many, in evaluation
    statistics. The history gets

    - ``fgsm_accuracy``, ``pgd_accuracy``: of the attacked trials,
    - ``self_information``: accuracy on the one-step displacements alone, without
      their trials: by chance as a rule, high where the network writes the class into
      the attack and reads it there,
    - ``channel_share``: share of the strongest tenth of features in the length of all.

    Training has collapsed where the accuracy under one step is more than `gap` above
    that under many, or the latter fell below `drop` times its best. Then the weights
    of the best epoch, by accuracy under many steps, come back and the run stops.

    Parameters
    ----------
    probe : Batch
        Trials with labels; some tens to hundreds.
    eps : float
        Of the training, in standard deviations of each channel over the probe.
    n_steps : int
        Of the long attack.
    norm : "linf" | "l2"
    gap, drop : float
    stop : bool
        Otherwise it only watches.

    Attributes
    ----------
    collapsed_ : int
        The epoch in which training was seen to have collapsed, or 0.

    Raises
    ------
    EEGTensorError
        If an option is out of range, or the probe has no labels.

    References
    ----------
    "Investigating catastrophic overfitting in fast adversarial training: a
    self-fitting perspective" (source list 001, entry 14): a reconstruction of its
    diagnostics; the thresholds are ours.
    """

    def __init__(
        self,
        probe: Batch,
        eps: float = 0.1,
        n_steps: int = 10,
        norm: str = "linf",
        gap: float = 0.3,
        drop: float = 0.5,
        stop: bool = True,
    ) -> None:
        labels_of(probe, type(self).__name__)
        check_count("n_steps", n_steps)
        self.probe = probe
        # Both begin at the trial: what is told apart is the number of steps.
        self.one = Budget.checked(eps, 1, eps, norm, False)
        self.many = Budget.checked(eps, n_steps, None, norm, False)
        self.gap = check_number("gap", gap, above=0.0)
        self.drop = check_number("drop", drop, least=0.0)
        self.stop = check_option("stop", stop, (True, False))
        self._reset()

    def _reset(self) -> None:
        self.collapsed_ = 0
        self._best = -math.inf
        self._weights: dict[str, Any] = {}

    def on_train_start(self, state: TrainState) -> None:
        """Forget an earlier run."""
        if state.epoch == 0:
            self._reset()

    def on_epoch_end(self, state: TrainState) -> None:
        """Measure, note it in the history, and stop the run if it has collapsed."""
        found = self_fitting(state.model, self.probe, self.one, self.many)
        if len(state.history):
            state.history.rows[-1] |= found
        robust = found["pgd_accuracy"]
        if self.collapsed_:
            return
        apart = found["fgsm_accuracy"] - robust > self.gap
        if apart or robust < self.drop * self._best:
            self.collapsed_ = state.epoch
            if self.stop and self._weights:
                # At once: those who keep the best epoch of a run look after this.
                state.model.load_state_dict(self._weights)
            state.stop = state.stop or self.stop
        elif robust > self._best:
            self._best = robust
            if self.stop:
                self._weights = {
                    name: v.detach().clone() if isinstance(v, Tensor) else v
                    for name, v in state.model.state_dict().items()
                }

    def state_dict(self) -> dict[str, Any]:
        """Return the best accuracy under many steps, and its weights."""
        best = self._best if math.isfinite(self._best) else -1.0
        return {
            "collapsed": self.collapsed_,
            "best": best,
            "weights": dict(self._weights),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.collapsed_ = state["collapsed"]
        self._best = state["best"] if state["best"] >= 0 else -math.inf
        self._weights = dict(state["weights"])


def self_fitting(
    model: torch.nn.Module, probe: Batch, one: Budget, many: Budget
) -> dict[str, float]:
    """Return the diagnostics of `SelfFitting` for some trials.

    Parameters
    ----------
    model : torch.nn.Module
    probe : Batch
    one, many : Budget
        The short and the long attack.
    """
    probe = replace(probe.to(device_of(model)), weight=None)
    network = Network(model, keeps_features=True)
    y, x = labels_of(probe, "Self-fitting"), signals_of(probe, "Self-fitting")
    known, scale = y >= 0, channel_scale(x)

    def accuracy(batch: Batch) -> float:
        with torch.no_grad():
            right = network(batch).argmax(1) == y
        return float(right[known].double().mean())

    # Whoever calls may be in the middle of training.
    with StatisticsGuard(model, "transient"), evaluating(model):
        short, long = (worst(network, probe, budget) for budget in (one, many))
        found = {
            "fgsm_accuracy": accuracy(moved(probe, short, scale)),
            "pgd_accuracy": accuracy(moved(probe, long, scale)),
        }
        assert network.features is not None
        strength = network.features.detach().double().square().mean(0).sqrt()
        alone = replace(probe, x=short * scale)
        found["self_information"] = accuracy(alone)
    top = strength.topk(max(len(strength) // 10, 1)).values
    found["channel_share"] = float(top.sum() / strength.sum().clamp_min(1e-30))
    network.features = None
    return found
