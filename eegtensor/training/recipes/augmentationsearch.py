"""Which augmentations help, learned from validation trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail
from eegtensor.training.batch import UNLABELLED, Batch, labels_of
from eegtensor.training.device import device_of
from eegtensor.training.network import Network
from eegtensor.training.recipes.augment import Policy, augmented, uniform_policy
from eegtensor.training.recipes.augmentations import check_signal
from eegtensor.training.recipes.naturalgradient import AdaptiveNaturalGradient
from eegtensor.training.seeds import reseed
from eegtensor.training.statistics import StatisticsGuard


class Searched(NamedTuple):
    """What a search found.

    Attributes
    ----------
    policy : Policy
    probabilities : Tensor, shape (n_steps, n_operations)
        Of each operation, along the search.
    """

    policy: Policy
    probabilities: Tensor


def search_augmentation(
    model: nn.Module,
    data: Batch,
    validation: Batch,
    operations: Sequence[str],
    *,
    n_steps: int = 200,
    n_candidates: int = 2,
    look_ahead: int = 3,
    lr: float = 0.05,
    batch_size: int = 50,
    n_levels: int = 4,
    random_state: int = 0,
) -> Searched:
    """Return a policy of augmentations that lowers the validation loss.

    In every step a few candidates, each a choice of operations and magnitudes, are
    drawn from the policy; the network makes `look_ahead` gradient steps on
    trials changed by each, from the same weights; their order by validation loss
    moves the policy along its natural gradient, with an adaptive length
    (`AdaptiveNaturalGradient`). Then the network makes a step with a fresh choice.
    The network is trained by it; train another one with ``Augment(policy=...)``.

    Parameters
    ----------
    model : torch.nn.Module
        Steps are along Riemannian gradients.
    data, validation : Batch
        Trials of shape (n_channels, n_times); those without a label are left out. Of
        different people, if the network is to be used with other people.
    operations : sequence of str
        Names in `OPERATIONS`.
    n_steps, n_candidates, look_ahead : int
    lr : float
        Of the network's steps.
    batch_size, n_levels : int
    random_state : int

    References
    ----------
    J. Xu, M. Li and Z. Zhu, "Automatic data augmentation for 3D medical image
    segmentation", MICCAI 2020; Y. Akimoto et al., "Adaptive stochastic natural
    gradient method for one-shot neural architecture search", ICML 2019.
    """
    check_count("n_candidates", n_candidates, least=2)
    check_number("lr", lr, above=0.0)
    place = device_of(model)
    check_count("look_ahead", look_ahead)
    data, validation = (_labelled(part).to(place) for part in (data, validation))
    check_signal(data.x)
    generator = torch.Generator(place).manual_seed(random_state)
    policy = uniform_policy(operations, n_levels=n_levels)
    state = AdaptiveNaturalGradient(len(operations), n_levels)
    network, history = Network(model), []
    training = model.training
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        reseed(random_state, place)
        for _ in range(check_count("n_steps", n_steps)):
            parts = [_some(data, batch_size, generator) for _ in range(look_ahead)]
            judges = _some(validation, 4 * batch_size, generator)
            drawn = [state.draw(generator) for _ in range(n_candidates)]
            start = network.space.snapshot()
            losses = []
            for used, level in drawn:
                with StatisticsGuard(model, "transient"):
                    for part in parts:
                        x = augmented(part.x, policy, generator, used=used, level=level)
                        _descend(network, replace(part, x=x), lr)
                    losses.append(_judged(network, judges))
                network.space.restore(start)
            state.tell(drawn, torch.stack(losses))
            used, level = state.draw(generator)
            x = augmented(parts[0].x, policy, generator, used=used, level=level)
            _descend(network, replace(parts[0], x=x), lr)
            history.append(state.probability.clone())
    model.train(training)
    found = policy._replace(probability=state.probability, share=state.share)
    return Searched(found, torch.stack(history))


def _labelled(data: Batch) -> Batch:
    """Return the trials whose class is known: a step may draw none of them else."""
    known = torch.nonzero(labels_of(data, "The search") != UNLABELLED).flatten()
    if not len(known):
        fail(
            "No trial has a label", fix="give labels of training and validation trials"
        )
    return data if len(known) == len(data) else data.pick(known)


def _some(data: Batch, n: int, generator: torch.Generator) -> Batch:
    order = torch.randperm(len(data), generator=generator, device=data.device)
    return data.pick(order[:n])


def _descend(network: Network, batch: Batch, lr: float) -> None:
    """Make one step against the gradient of the cross-entropy."""
    network.model.train()
    space = network.space
    loss = F.cross_entropy(network(batch), labels_of(batch, "The search"))
    leaves = space.leaves
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    g = {
        n: torch.zeros_like(p) if d is None else d
        for (n, p), d in zip(leaves.items(), found, strict=True)
    }
    space.assign(space.retract(space.scale(space.rgrad(g), -lr)))


@torch.no_grad()
def _judged(network: Network, batch: Batch) -> Tensor:
    """Return the loss of validation trials, with statistics of their own."""
    # In training mode: statistics for evaluation lag behind the weights, and those
    # of new people are not there at all.
    with StatisticsGuard(network.model, "transient"):
        return F.cross_entropy(network(batch), labels_of(batch, "The search"))
