"""The training loop: the only control flow from data to a trained network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from eegtensor._check import RandomState, fail
from eegtensor.training.batch import Batch
from eegtensor.training.checkpoint import Checkpoint
from eegtensor.training.device import as_device, device_of
from eegtensor.training.evaluation import evaluate
from eegtensor.training.history import History
from eegtensor.training.network import Network
from eegtensor.training.objectives.weightedsum import WeightedSum
from eegtensor.training.optimizers.make import check_optimizer
from eegtensor.training.plugs import EpochOf, Plugs, check_needs, check_parts
from eegtensor.training.protocols import (
    Averager,
    Callback,
    GradTransform,
    Objective,
    Perturbation,
    Recipe,
    Sampler,
    TrainState,
)
from eegtensor.training.refit import refit_statistics
from eegtensor.training.seeds import as_seed, reseed
from eegtensor.training.step import take_step
from eegtensor.training.workers import Workers

Validation = Batch | Callable[[nn.Module], Mapping[str, float]]


def train(
    model: nn.Module,
    data: Batch,
    *,
    objective: Objective | Sequence[Objective | tuple[float, Objective]],
    optimizer: torch.optim.Optimizer,
    sampler: Sampler | None = None,
    epochs: int,
    validation: Validation | None = None,
    callbacks: Sequence[Callback] = (),
    perturbation: Perturbation | Sequence[Perturbation] = (),
    grad_transform: GradTransform | None = None,
    averager: Averager | None = None,
    recipe: Recipe | None = None,
    accumulate: int = 1,
    precision: str = "float32",
    workers: Workers | None = None,
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
        Their `index` in the run is the position among them.
    objective : Objective | sequence of Objective or (weight, Objective)
    optimizer : torch.optim.Optimizer
        Of `make_optimizer`, for one.
    sampler : Sampler | None
        What batches are, unless a recipe says it.
    epochs : int
        Of the whole run, with those that a checkpoint has behind it.
    validation : Batch | callable | None
        Trials, of which the history gets ``valid_loss``, or a function of the
        model that returns numbers, which it gets as they are named.
    callbacks : sequence of Callback
    perturbation : Perturbation | sequence of Perturbation
        At most one of weights.
    grad_transform, averager : GradTransform, Averager | None
        With an averager the network ends with its average of weights, and
        statistics fitted to these.
    recipe : Recipe | None
        What the steps of an epoch are; one for each batch of the sampler by default.
    accumulate : int
        Parts of each batch that pass one after the other; their gradients add up.
    precision : "float32" | "bfloat16"
        Of the network's matrix products and convolutions. (float16 would need
        losses scaled, with a different scale for every kind of second pass.)
    workers : Workers | None
        Processes that train together, each on its part of every batch.
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
    keeps_features = check_needs(loss, [*plugs.all(), sampler])
    if recipe is None:
        if sampler is None:
            fail("There is no sampler", fix="give one, or a recipe")
        recipe = EpochOf(sampler, loss)
    check_parts(loss, accumulate, workers)
    seed = as_seed(random_state)
    state = TrainState(model, optimizer, epochs, len(data), seed, place)
    terms = [term for _, term in loss.terms]
    state.parts = plugs.parts(
        model=model,
        optimizer=optimizer,
        sampler=sampler,
        recipe=recipe,
        objective=terms,
        callback=list(callbacks),
    )
    data = replace(data, index=None)
    network = Network(model, precision=precision, keeps_features=keeps_features)
    state.network, state.objective = network, loss
    state.generator = generator = torch.Generator(place)

    def call(hook: str) -> None:
        for plug in (*plugs.all(), sampler, recipe, *terms, *callbacks):
            if hasattr(plug, hook):
                getattr(plug, hook)(state)

    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        if checkpoint is not None:
            checkpoint.load(state, any_seed=random_state is None)
        if workers is not None:
            workers.start(model)
        call("on_train_start")
        while state.epoch < epochs and not state.stop:
            state.epoch += 1
            started = time.perf_counter()
            # Reseeded every epoch: a run that goes on has no generators to restore.
            drawn = np.random.SeedSequence([state.seed, state.epoch]).generate_state(2)
            reseed(int(drawn[0]), place)
            generator.manual_seed(int(drawn[1]))
            call("on_epoch_start")
            model.train()
            total, n_seen = torch.zeros((), dtype=torch.float64, device=place), 0
            for step in recipe.steps(state, data):
                batch = step.batch if workers is None else workers.part(step.batch)
                batch = batch.to(place)
                total += len(step.batch) * take_step(
                    state.begin(step.objective or loss, batch),
                    optimizer,
                    step.plugs or plugs,
                    accumulate=accumulate,
                    sign=step.sign,
                    workers=workers,
                )
                n_seen += len(step.batch)
                call("on_step_end")
            train_loss = total.item() / max(n_seen, 1)
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
            if checkpoint is not None and (workers is None or workers.rank == 0):
                checkpoint.save(state)
        if averager is not None:
            network.space.assign(averager.merge(averager.states, network.space, data))
            refit_statistics(model, data)
        call("on_train_end")
    model.eval()
    return state.history
