"""What distillation learns from: frozen networks, or numbers of each trial."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, fail
from eegtensor.training.batch import Batch
from eegtensor.training.device import device_of
from eegtensor.training.network import Network, inner_module
from eegtensor.training.statistics import StatisticsGuard, evaluating

if TYPE_CHECKING:
    from eegtensor.training.registry import Setup

Teacher = nn.Module | Sequence[nn.Module] | Tensor


class Teachers:
    """Frozen networks in evaluation mode, or a table of their outputs.

    Parameters
    ----------
    source : Module | sequence of Module | Tensor, shape (n_trials, n)
        Of a table, the row at a trial's `Batch.index` is the trial's.
    features : bool
        Whether networks give what enters their head, instead of logits.

    Raises
    ------
    EEGTensorError
        If there is no network, or a table is no matrix of numbers.
    """

    def __init__(self, source: Teacher, *, features: bool = False) -> None:
        self.features = features
        self.table: Tensor | None = None
        self.networks: list[Network] = []
        if isinstance(source, Tensor):
            if source.ndim != 2 or not source.is_floating_point():
                fail(
                    f"A teacher's table has shape {tuple(source.shape)}",
                    fix="give one row of logits a training trial",
                )
            self.table = source.detach()
            return
        models = [source] if isinstance(source, nn.Module) else list(source)
        if not models or not all(isinstance(m, nn.Module) for m in models):
            fail("There is no teacher", fix="give a trained network, or its logits")
        self.networks = [Network(m, keeps_features=features) for m in models]

    def to(self, device: torch.device) -> None:
        """Move everything to the device of a run."""
        if self.table is not None:
            self.table = self.table.to(device)
        for network in self.networks:
            network.model.to(device)

    def each(self, batch: Batch) -> Tensor:
        """Return what each teacher gives, shape (n_teachers, n_trials, n)."""
        if self.table is not None:
            if batch.index is None:
                fail(
                    "Trials of a batch do not say which they are",
                    why="The teacher is a table with a row a training trial",
                    fix="train with a sampler, or give the teacher's network",
                )
            return self.table[batch.index][None]
        with torch.no_grad():
            return torch.stack([self._one(network, batch) for network in self.networks])

    def _one(self, network: Network, batch: Batch) -> Tensor:
        with StatisticsGuard(network.model, "eval"), evaluating(network.model):
            outputs = network(batch)
        if not self.features:
            return outputs.detach()
        found, network.features = network.features, None
        assert found is not None
        return found.detach()

    def logits(self, batch: Batch) -> Tensor:
        """Return the mean of the teachers' logits, shape (n_trials, n_classes)."""
        return self.each(batch).mean(0)

    def probabilities(self, batch: Batch) -> Tensor:
        """Return the mean of the teachers' probabilities, (n_trials, n_classes)."""
        return self.each(batch).softmax(-1).mean(0)


def trained_teachers(setup: Setup, count: int) -> list[nn.Module]:
    """Return copies of a run's network, trained plainly by batches of other seeds.

    They are what methods named in a string learn from, where no trained network
    can be given.
    """
    # The loop imports objectives.
    from eegtensor.training.loop import train
    from eegtensor.training.named import make_plugs
    from eegtensor.training.refit import refit_statistics

    found = []
    for k in range(check_count("teachers", count)):
        model = copy.deepcopy(inner_module(setup.model))
        seed = setup.seed + 1000 * (k + 1)
        own: Any = type(setup)(**{**vars(setup), "model": model, "seed": seed})
        # Groups of a domain are of two trials at least.
        alone = setup.data.domain is None or setup.batch_size < 2
        sampler = "shuffle" if alone else "domain-balanced"
        plugs = make_plugs(own, sampler=sampler)
        train(model, setup.data, epochs=setup.epochs, random_state=seed, **plugs)
        refit_statistics(model, setup.data)
        found.append(model.requires_grad_(False))
    return found


def feature_width(setup: Setup) -> int:
    """Return the number of features that enter the head of a run's network."""
    network = Network(setup.model, keeps_features=True)
    some = torch.arange(min(8, len(setup.data)), device=setup.data.device)
    with (
        torch.no_grad(),
        StatisticsGuard(setup.model, "transient"),
        evaluating(setup.model),
        torch.random.fork_rng([]),
    ):
        # In training mode: statistics for evaluation may not be there yet.
        setup.model.train()
        network(setup.data.pick(some).to(device_of(setup.model)))
    assert network.features is not None
    return network.features.shape[1]
