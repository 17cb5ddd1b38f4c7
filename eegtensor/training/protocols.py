"""What plugs into the training loop: five protocols, callbacks, and what they see.

Nothing inherits from these: a plug is any object that has the parts. Any plug may
also have

- ``state_dict()`` and ``load_state_dict(state)``: it is saved in checkpoints,
- the hooks of a `Callback`: the loop calls them,
- ``needs``, a tuple of what it needs: ``"features"`` makes the loop keep what
  enters the head (`StepContext.features`), with ``"losses of trials"`` scalar
  objectives are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.training.batch import Batch
from eegtensor.training.history import History
from eegtensor.training.network import Network
from eegtensor.training.space import ParamSpace, Points

Gradients = dict[str, Tensor]
State = Mapping[str, Tensor]


class Delta(Protocol):
    """A perturbation that was drawn."""

    def apply(self) -> Batch | None:
        """Put it in place; for inputs return the trials to train on instead."""

    def revert(self) -> None:
        """Put everything back exactly: by copies, never by subtraction."""


class Perturbation(Protocol):
    """Changes of the input, of a latent layer or of the weights for one pass.

    Attributes
    ----------
    where : "input" | "latent" | "weight"
    extra_gradients : int
        Gradients a step costs beyond its own. Weights with 0 are perturbed
        before the only pass; with more there is a second pass at the perturbed
        weights, and when `sample` is called the gradients of the first lie in
        the parameters' `.grad`.
    mix : float
        Weights only: weight of the second pass's gradient, 1 - mix of the
        first's. 1 where a perturbation has no such attribute.
    clean_statistics : bool
        Inputs and latent layers only: whether running statistics move with the
        clean trials, by one forward pass more, and not with the perturbed ones.
        Adversarial copies are no data; False where there is no such attribute.
    """

    where: Literal["input", "latent", "weight"]
    extra_gradients: int

    def sample(self, context: StepContext) -> Delta:
        """Draw a perturbation for `context.batch` at the current weights."""


class Objective(Protocol):
    """A loss.

    Attributes
    ----------
    per_trial : bool
        Whether it returns one loss a trial, shape (n_trials,), or a scalar.
    training_only : bool
        Whether it is left out where trials are only evaluated: it may need
        gradients, or says nothing about them. False where there is none.
    """

    per_trial: bool

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Any, context: StepContext
    ) -> Tensor:
        """Return the loss of the network's outputs for a batch."""


class GradTransform(Protocol):
    """A map of gradients: subspace, mask, natural gradient."""

    def fit(self, trajectory: Sequence[State], space: ParamSpace) -> GradTransform:
        """Learn from the weights along a training run; return itself."""

    def __call__(self, gradients: Gradients, context: StepContext) -> Gradients:
        """Return new Euclidean gradients by name of parameter."""


class Averager(Protocol):
    """An average of weights over steps, folds or sites.

    At the end of a run the network gets ``merge(states, space, data)``, and its
    statistics are fitted anew.

    Attributes
    ----------
    states : sequence of mapping
        What was kept of the weights observed.
    """

    states: Sequence[State]

    def observe(self, model: nn.Module, step: int) -> None:
        """See the weights after a step of the optimizer."""

    def merge(
        self, states: Sequence[State], space: ParamSpace, data: Batch | None = None
    ) -> Points:
        """Return one set of weights for many, on their manifolds."""


class Sampler(Protocol):
    """Which trials form the batches of an epoch."""

    def indices(self, epoch: int) -> Sequence[Tensor]:
        """Return the trials of each batch, int64, the same for the same epoch."""

    def weights(self, epoch: int) -> Tensor | None:
        """Return a factor of every trial's loss, shape (n_trials,), or None."""


@dataclass(frozen=True)
class Step:
    """One step of a recipe.

    Attributes
    ----------
    batch : Batch
    objective : callable | None
        In place of the run's, such as a `WeightedSum`.
    plugs : Plugs | None
        In place of the run's.
    sign : float
        Factor of the gradients: -1 ascends.
    """

    batch: Batch
    objective: Any = None
    plugs: Any = None
    sign: float = 1.0


class Recipe(Protocol):
    """What the steps of an epoch are, where they are not a sampler's batches."""

    def steps(self, state: TrainState, data: Batch) -> Iterable[Step]:
        """Yield the steps of the epoch `state.epoch`."""


class Callback(Protocol):
    """Any of `on_train_start`, `on_epoch_start`, `on_step_end`, `on_epoch_end`,
    `on_train_end`, each with the `TrainState`; the loop calls those that exist.
    """


@dataclass
class StepContext:
    """What a plug may look at during a step.

    Attributes
    ----------
    network : Network
        The model, its call on a batch and its parameter space.
    objective : callable
        All objectives as one: ``objective(batch, outputs, context) -> scalar``.
    batch : Batch
        Perturbed, where inputs are.
    clean : Batch | None
        The same trials as they came.
    epoch, step : int
        From 1; steps are counted over the whole run.
    generator : torch.Generator
        On the network's device, seeded by the run's seed and the epoch.
    trial_losses : Tensor, shape (n_trials,) | None
        Detached losses of the last pass, where an objective gives them.
    n_epochs : int
        Of the whole run.
    """

    network: Network
    objective: Any
    batch: Batch
    epoch: int = 0
    step: int = 0
    generator: torch.Generator | None = None
    trial_losses: Tensor | None = None
    clean: Batch | None = None
    n_epochs: int = 1

    @property
    def progress(self) -> float:
        """Share of the run's epochs that are behind, in [0, 1)."""
        return max(self.epoch - 1, 0) / self.n_epochs

    @property
    def features(self) -> Tensor:
        """What entered the network's head in the last pass, with its graph."""
        if self.network.features is None:
            fail(
                "The network's features were not kept",
                why="No plug of this run has 'features' among its `needs`",
                fix="set needs = ('features',) on the class that asks for them",
            )
        return self.network.features

    @property
    def model(self) -> nn.Module:
        """The network's module."""
        return self.network.model

    @property
    def space(self) -> ParamSpace:
        """The parameters on their manifolds."""
        return self.network.space

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss at a batch, with a graph: forward and all objectives."""
        return self.objective(batch, self.network(batch), self)


@dataclass
class TrainState:
    """Where a run stands: what callbacks see, and what a checkpoint holds.

    Attributes
    ----------
    model : torch.nn.Module
    optimizer : torch.optim.Optimizer
    n_epochs : int
    n_trials : int
    seed : int
    device : torch.device
    epoch, step : int
        Epochs and steps begun so far.
    stop : bool
        A callback sets it to end the run after this epoch.
    history : History
    context : StepContext | None
        Of the last step.
    parts : dict
        By name, everything with a state: model, optimizer, plugs, callbacks.
    network : Network
    objective : WeightedSum
        Of the run; steps of a recipe may have others.
    generator : torch.Generator
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    n_epochs: int
    n_trials: int
    seed: int
    device: torch.device
    epoch: int = 0
    step: int = 0
    stop: bool = False
    history: History = field(default_factory=History)
    context: StepContext | None = None
    parts: dict[str, Any] = field(default_factory=dict)
    network: Network | None = None
    objective: Any = None
    generator: torch.Generator | None = None

    def begin(self, objective: Any, batch: Batch) -> StepContext:
        """Return what the plugs of a new step look at."""
        assert self.network is not None
        self.step += 1
        self.context = StepContext(
            self.network,
            objective,
            batch,
            self.epoch,
            self.step,
            self.generator,
            n_epochs=self.n_epochs,
        )
        return self.context
