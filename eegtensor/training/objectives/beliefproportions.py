"""Learning from label proportions: pseudo-labels of trials by belief propagation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail
from eegtensor.training.batch import Batch, labels_of
from eegtensor.training.network import features_of
from eegtensor.training.objectives._beliefs import bag_beliefs, nearest_pairs
from eegtensor.training.objectives._shared import unit
from eegtensor.training.refit import refit_statistics
from eegtensor.training.statistics import StatisticsGuard

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState
    from eegtensor.training.registry import Setup


class BeliefProportions:
    """Cross entropy with pseudo-labels that agree with the counts of their bags.

    Of each bag, a domain, only the number of trials of class 1 is known. At the
    start of each round labels get the probability exp(-bag_strength (sum of y in a
    bag - its count)^2 - smoothness w_ij (y_i - y_j)^2) over bags and neighbours among
    the features that the network has by then, and their marginals by belief
    propagation, above 1/2 or not, are the labels to train with. Add
    ``"0.5 * aggregate"`` for the loss of the bags themselves.

    Neighbours are what it has beyond the loss of bags. Of two classes of several
    clusters each the network gets better by them; of two normal clouds, where the
    loss of bags is at the optimum, only the labels of the training trials do.

    Parameters
    ----------
    data : Batch | None
        Training trials: labels 0 and 1, of which only the counts in a domain are
        looked at, and domains. ``"belief-proportions"`` by name finds them.
    rounds : int
        Spread evenly over the epochs.
    smoothness : float
        Ours: of simulated trials 0.2 to 1 were tried. With 1 the dozen neighbours
        of a trial outvote its bag.
    bag_strength : float | None
        None: one over the number of the bag's trials, by which a count is off by
        half of the square root of that number as a rule.
    n_neighbours : int

    Attributes
    ----------
    labels : Tensor of int64, shape (n_trials,)
        Pseudo-labels of the current round by `Batch.index`; at first the rounded
        share of the bag.

    References
    ----------
    S. Havaldar et al., "Learning from label proportions: bootstrapping supervised
    learners via belief propagation", ICLR 2024.
    """

    per_trial = True
    training_only = True
    needs = ("features",)

    def __init__(
        self,
        data: Batch | None = None,
        rounds: int = 3,
        smoothness: float = 0.3,
        bag_strength: float | None = 1.0,
        n_neighbours: int = 10,
    ) -> None:
        if data is None or data.domain is None:
            fail(
                "BeliefProportions needs the training trials and their domains",
                why="Domains are the bags whose counts are known",
                fix="give data=Batch(x, y, domain)",
            )
        self.rounds = check_count("rounds", rounds)
        self.smoothness = check_number("smoothness", smoothness, least=0.0)
        if bag_strength is not None:
            check_number("bag_strength", bag_strength, least=0.0)
        self.bag_strength = bag_strength
        self.n_neighbours = check_count("n_neighbours", n_neighbours)
        self._data = data
        self._bag = data.domain.unique(return_inverse=True)[1]
        y = labels_of(data, "BeliefProportions")
        if bool((y > 1).any()):
            fail("BeliefProportions is for two classes", fix="give labels 0 and 1")
        known = (y >= 0).double()
        n_bags = int(self._bag.max()) + 1
        self._size = known.new_zeros(n_bags).index_add_(0, self._bag, known)
        self._ones = known.new_zeros(n_bags).index_add_(0, self._bag, y * known)
        share = self._ones / self._size.clamp_min(1.0)
        self.labels = (share > 0.5).long()[self._bag]

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> BeliefProportions:
        """Return the objective of a run's trials."""
        return cls(**{"data": setup.data} | options)

    def on_epoch_start(self, state: TrainState) -> None:
        """Label the trials anew where a round begins."""
        every = max(state.n_epochs // self.rounds, 1)
        done = (state.epoch - 1) // every
        if (state.epoch - 1) % every == 0 and done < self.rounds:
            self.relabel(state.model)

    def relabel(self, model: nn.Module) -> None:
        """Set the pseudo-labels by the features of a network as it is."""
        # Statistics fit the weights of now, and are put back afterwards.
        with StatisticsGuard(model, "transient"):
            refit_statistics(model, self._data)
            h = features_of(model, self._data).double()
        p = self.beliefs(h)
        self.labels = (p > 0.5).long()

    def beliefs(self, features: Tensor) -> Tensor:
        """Return the probability of class 1 of each trial, shape (n_trials,).

        Parameters
        ----------
        features : Tensor, shape (n_trials, n_features)
        """
        f = unit(features - features.mean(dim=0))
        k = min(self.n_neighbours, len(f) - 1)
        pairs, weights = nearest_pairs(f, k)
        size = self._size.clamp_min(1.0)
        strength = 1.0 / size if self.bag_strength is None else self.bag_strength
        strength = torch.as_tensor(strength, dtype=torch.float64).expand_as(size)
        # A bag has as many unknown trials as known ones of its share.
        members = torch.bincount(self._bag, minlength=len(size)).double()
        count = self._ones / size * members
        return bag_beliefs(self._bag, count, strength, pairs, self.smoothness * weights)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        if batch.index is None:
            fail("The trials of a batch have no index to find their labels by")
        self.labels = self.labels.to(batch.device)
        return F.cross_entropy(outputs, self.labels[batch.index], reduction="none")

    def state_dict(self) -> dict[str, Tensor]:
        """Return the pseudo-labels, for checkpoints."""
        return {"labels": self.labels}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the pseudo-labels of `state_dict`."""
        self.labels = state["labels"].clone()
