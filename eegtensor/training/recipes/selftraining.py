"""Self-training in stages, with a second opinion on every pseudo-label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import check_count
from eegtensor.training.batch import UNLABELLED, Batch, labels_of
from eegtensor.training.network import features_of, forward_all
from eegtensor.training.protocols import Sampler, Step, TrainState
from eegtensor.training.recipes.clusters import accept

if TYPE_CHECKING:
    from eegtensor.training.registry import Setup


class SelfTraining:
    """Multi-stage self-training with cluster check (M3S), a recipe.

    The epochs are cut into stages. Before each but the first, the most confident
    unlabelled trials of each class are proposed, features of all trials are
    clustered, each cluster gets the class of the nearest centroid of labelled
    trials, and a proposal is accepted where its cluster says the same. Accepted
    trials keep their label and are trained on from then on.

    Parameters
    ----------
    sampler : Sampler
        Of all trials, labelled or not. By name: the sampler of the run.
    stages : int
    per_class : int | None
        Proposals a class and stage; None: as many as unlabelled trials divided by
        classes and stages.
    n_clusters : int | None
        None: five a class.
    random_state : int
        Of the clusters' start.

    Attributes
    ----------
    pseudo_labels : Tensor of int64, shape (n_trials,)
        -1 where none was accepted.

    Raises
    ------
    EEGTensorError
        If an option is out of range, or no trial has a label.

    References
    ----------
    K. Sun, Z. Lin and Z. Zhu, "Multi-stage self-supervised learning for graph
    convolutional networks on graphs with few labeled nodes", AAAI 2020, alg. 1.
    """

    def __init__(
        self,
        sampler: Sampler,
        stages: int = 4,
        per_class: int | None = None,
        n_clusters: int | None = None,
        random_state: int = 0,
    ) -> None:
        check_count("stages", stages)
        for name, value in (("per_class", per_class), ("n_clusters", n_clusters)):
            if value is not None:
                check_count(name, value)
        self.sampler, self.stages, self.per_class = sampler, stages, per_class
        self.n_clusters, self.random_state = n_clusters, random_state
        self.pseudo_labels: Tensor | None = None

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> SelfTraining:
        """Return one whose batches are shuffled; `make_plugs` gives it the run's."""
        from eegtensor.training.samplers.shuffle import ShuffleSampler

        sampler = ShuffleSampler(
            len(setup.data), batch_size=setup.batch_size, random_state=setup.seed
        )
        return cls(sampler, random_state=setup.seed, **options)

    def on_train_start(self, state: TrainState) -> None:
        """Forget an earlier run's labels."""
        if state.epoch == 0:
            self.pseudo_labels = None

    def steps(self, state: TrainState, data: Batch) -> Iterator[Step]:
        """Yield the steps of the epoch `state.epoch`."""
        y = labels_of(data, "Self-training")
        if self.pseudo_labels is None:
            self.pseudo_labels = torch.full_like(y, UNLABELLED)
        if self._begins(state.epoch, state.n_epochs):
            self._propose(state, data, y)
        now = torch.where(y != UNLABELLED, y, self.pseudo_labels.to(y.device))
        trials = replace(data, y=now)
        weights = self.sampler.weights(state.epoch)
        if weights is not None:
            weights = weights.to(y.device)
            own = weights if data.weight is None else weights * data.weight
            trials = replace(trials, weight=own)
        for index in self.sampler.indices(state.epoch):
            yield Step(trials.pick(index.to(y.device)))

    def _begins(self, epoch: int, n_epochs: int) -> bool:
        """Whether a stage other than the first begins with this epoch."""

        def stage(e: int) -> int:
            return (e - 1) * self.stages // n_epochs

        return epoch > 1 and stage(epoch) > stage(epoch - 1)

    def _propose(self, state: TrainState, data: Batch, y: Tensor) -> None:
        assert self.pseudo_labels is not None
        p = forward_all(state.model, data).softmax(1).cpu().numpy()
        h = features_of(state.model, data).double().cpu().numpy()
        true = y.cpu().numpy()
        known = np.where(true != UNLABELLED, true, self.pseudo_labels.cpu().numpy())
        seed = np.random.SeedSequence([self.random_state, state.epoch])
        accepted = accept(
            p, h, known, self._count(true, p), self.n_clusters, seed.generate_state(1)
        )
        new = np.where(true == UNLABELLED, np.maximum(known, accepted), UNLABELLED)
        self.pseudo_labels = torch.from_numpy(new).to(y)

    def _count(self, y: NDArray, p: NDArray) -> int:
        if self.per_class is not None:
            return self.per_class
        return max(int((y == UNLABELLED).sum()) // (p.shape[1] * self.stages), 1)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the accepted labels."""
        found = self.pseudo_labels
        return {} if found is None else {"pseudo_labels": found}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Set the accepted labels."""
        self.pseudo_labels = state.get("pseudo_labels")
