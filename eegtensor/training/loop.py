"""The training loop: the only control flow from data to a trained network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn

from eegtensor._check import RandomState, fail
from eegtensor.training.batch import Batch
from eegtensor.training.checkpoint import Checkpoint
from eegtensor.training.device import as_device, device_of
from eegtensor.training.evaluation import evaluate
from eegtensor.training.history import History
from eegtensor.training.network import Network
from eegtensor.training.objectives import WeightedSum
from eegtensor.training.optim import check_optimizer
from eegtensor.training.plugs import (
    Plugs,
    apply_delta,
    epoch_batches,
    mix_gradients,
    transform_gradients,
)
from eegtensor.training.protocols import (
    Averager,
    Callback,
    GradTransform,
    Objective,
    Perturbation,
    Sampler,
    StepContext,
    TrainState,
)
from eegtensor.training.sampler import as_seed
from eegtensor.training.statistics import Mode, StatisticsGuard, copy_statistics

Validation = Batch | Callable[[nn.Module], Mapping[str, float]]


def train(
    model: nn.Module,
    data: Batch,
    *,
    objective: Objective | Sequence[Objective | tuple[float, Objective]],
    optimizer: torch.optim.Optimizer,
    sampler: Sampler,
    epochs: int,
    validation: Validation | None = None,
    callbacks: Sequence[Callback] = (),
    perturbation: Perturbation | Sequence[Perturbation] = (),
    grad_transform: GradTransform | None = None,
    averager: Averager | None = None,
    checkpoint: Checkpoint | None = None,
    random_state: RandomState | torch.Generator = 0,
    device: str | torch.device | None = None,
) -> History:
    """Train a network; it is in evaluation mode afterwards.

    Parameters
    ----------
    model : torch.nn.Module
        Called as ``model(x)``, or ``model(x, domain=...)`` if it takes domains
        and the data have them.
    data : Batch
        All training trials; where they are not on the device, batches are copied.
    objective : Objective | sequence of Objective or (weight, Objective)
    optimizer : torch.optim.Optimizer
        Of `make_optimizer`, for one.
    sampler : Sampler
    epochs : int
        Of the whole run, with those that a checkpoint has behind it.
    validation : Batch | callable | None
        Trials, of which the history gets ``valid_loss``, or a function of the
        model that returns numbers, which it gets as they are named.
    callbacks : sequence of Callback
    perturbation : Perturbation | sequence of Perturbation
        At most one of weights.
    grad_transform, averager : GradTransform, Averager | None
    checkpoint : Checkpoint | None
        Where to save the run after epochs, and to go on from.
    random_state : int | numpy.random.Generator | torch.Generator | None
        Of dropout and of all plugs. Torch's own generators are left as they are.
    device : "auto" | str | torch.device | None
        None: where the model is.

    Returns
    -------
    history : History

    Raises
    ------
    EEGTensorError
        If parts do not fit together, or the loss is not finite.
    """
    if epochs < 1:
        fail(f"epochs={epochs}", why="Nothing would be trained", fix="give at least 1")
    place = device_of(model) if device is None else as_device(device)
    loss = WeightedSum(objective)
    for module in (model, *loss.modules):
        module.to(place)
    check_optimizer(optimizer, model)
    plugs = Plugs.sort(perturbation, grad_transform, averager)
    state = TrainState(
        model, optimizer, epochs, len(data), as_seed(random_state), place
    )
    state.parts = plugs.parts(
        model=model,
        optimizer=optimizer,
        sampler=sampler,
        objective=[term for _, term in loss.terms],
        callback=list(callbacks),
    )
    network, generator = Network(model), torch.Generator(place)

    def call(hook: str) -> None:
        for callback in callbacks:
            if hasattr(callback, hook):
                getattr(callback, hook)(state)

    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        if checkpoint is not None:
            checkpoint.load(state, any_seed=random_state is None)
        call("on_train_start")
        while state.epoch < epochs and not state.stop:
            state.epoch += 1
            started = time.perf_counter()
            # Reseeded every epoch: a run that goes on has no generators to restore.
            drawn = np.random.SeedSequence([state.seed, state.epoch]).generate_state(2)
            torch.manual_seed(int(drawn[0]))
            generator.manual_seed(int(drawn[1]))
            call("on_epoch_start")
            model.train()
            trials, batches = epoch_batches(data, sampler, state.epoch, loss)
            total = torch.zeros((), dtype=torch.float64, device=place)
            for index in batches:
                state.step += 1
                batch = trials.pick(index).to(place)
                state.context = StepContext(
                    network, loss, batch, state.epoch, state.step, generator
                )
                total += _step(state.context, optimizer, plugs) * len(batch)
                call("on_step_end")
            train_loss = total.item() / sum(map(len, batches))
            if not math.isfinite(train_loss):
                fail(
                    f"The training loss of epoch {state.epoch} is {train_loss}",
                    why="The weights are useless from here on",
                    fix="lower the learning rate, and check that trials are finite",
                )
            row = {"epoch": state.epoch, "train_loss": train_loss}
            if isinstance(validation, Batch):
                row["valid_loss"] = evaluate(model, validation, loss)["loss"]
            elif validation is not None:
                row |= {name: float(v) for name, v in validation(model).items()}
            state.history.append(row | {"seconds": time.perf_counter() - started})
            call("on_epoch_end")
            if checkpoint is not None:
                checkpoint.save(state)
        call("on_train_end")
    model.eval()
    return state.history


def _step(
    context: StepContext, optimizer: torch.optim.Optimizer, plugs: Plugs
) -> Tensor:
    """Make one step and return its loss, detached."""
    model = context.model
    with ExitStack() as reverts:
        for perturbation in plugs.first:
            mode: Mode = "transient" if perturbation.extra_gradients else "commit"
            with StatisticsGuard(model, mode):
                delta = perturbation.sample(context)
            apply_delta(delta, context, reverts)
        # Before the first pass: the second starts from the statistics it started from.
        start = copy_statistics(model) if plugs.second is not None else None
        optimizer.zero_grad()
        loss = context.loss(context.batch)
        loss.backward()
        if plugs.second is not None:
            delta = plugs.second.sample(context)
            gradients = [(p, p.grad) for p in model.parameters()]
            apply_delta(delta, context, reverts)
            optimizer.zero_grad()
            with StatisticsGuard(model, "transient", start=start):
                context.loss(context.batch).backward()
            mix_gradients(gradients, getattr(plugs.second, "mix", 1.0))
    if plugs.grad_transform is not None:
        transform_gradients(plugs.grad_transform, context)
    optimizer.step()
    if plugs.averager is not None:
        plugs.averager.observe(model, context.step)
    return loss.detach()
