"""Federated averaging: sites share weights, never trials or running statistics."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail, listing
from eegtensor.training import (
    Batch,
    CrossEntropy,
    DomainBalancedSampler,
    Network,
    ParamSpace,
    ShuffleSampler,
    StepContext,
    make_optimizer,
    train,
)

Weights = dict[str, Tensor]


@dataclass
class Site:
    """A hospital or a person: trials and a network that stay where they are.

    Attributes
    ----------
    name : str
    network : torch.nn.Module
        Its own copy; its buffers, running statistics among them, are never shared.
    data : Batch
    """

    name: str
    network: nn.Module
    data: Batch


def shared_weights(network: nn.Module, personal: Sequence[str] = ()) -> Weights:
    """Return copies of the parameters that a site shares, by name.

    Running statistics are buffers, and data of the people they are of: they are not
    among them.

    Parameters
    ----------
    network : torch.nn.Module
    personal : sequence of str
        Beginnings of the names of parameters that stay at the site, such as "head".
    """
    points = ParamSpace(network).snapshot()
    return {n: p for n, p in points.items() if not n.startswith(tuple(personal))}


def take_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy shared weights into a network; all other parameters stay."""
    space = ParamSpace(network)
    unknown = set(weights) - set(space.leaves)
    if unknown:
        fail(
            f"The network has no parameters {listing(sorted(unknown))}",
            fix="build the networks of all sites alike",
        )
    space.assign({**space.points(), **weights})


def average_weights(
    network: nn.Module,
    weights: Sequence[Mapping[str, Tensor]],
    shares: Sequence[float] | None = None,
) -> Weights:
    """Return the mean of the sites' weights, on the manifolds of the parameters.

    Parameters
    ----------
    network : torch.nn.Module
        Says which parameter lies on which manifold; it stays as it is.
    weights : sequence of dict
        Of `shared_weights`.
    shares : sequence of float | None
        One a site, such as its number of trials.
    """
    space = ParamSpace(network)
    here = space.points()
    # What is personal is the same everywhere here, and is left out again.
    mean = space.mean([{**here, **site} for site in weights], shares)
    return {name: mean[name] for name in weights[0]}


class Proximal:
    """``mu / 2 |w - w_global|^2`` of the shared weights (FedProx), a scalar.

    On manifolds the length of the logarithm; weights go along the gradient of the
    plain difference there, which is the same to first order.

    Parameters
    ----------
    weights : dict of Tensor
    mu : float

    References
    ----------
    T. Li et al., "Federated optimization in heterogeneous networks", MLSys 2020.
    """

    per_trial = False
    training_only = True

    def __init__(self, weights: Mapping[str, Tensor], mu: float) -> None:
        self.weights, self.mu = weights, check_number("mu", mu, least=0.0)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Any, context: StepContext
    ) -> Tensor:
        """Return the penalty."""
        named = dict(model.named_parameters())
        terms = [(named[n] - w).square().sum() for n, w in self.weights.items()]
        total: Tensor = self.mu / 2.0 * torch.stack(terms).sum()
        return total


def train_site(
    site: Site,
    weights: Mapping[str, Tensor],
    *,
    epochs: int = 1,
    batch_size: int = 50,
    lr: float = 1e-3,
    optimizer: str = "riemannian-adam",
    mu: float = 0.0,
    random_state: int = 0,
) -> float:
    """Train a site's network from the shared weights; return its last loss.

    Parameters
    ----------
    site : Site
    weights : dict of Tensor
    epochs, batch_size : int
    lr : float
    optimizer : str
    mu : float
        Of `Proximal`.
    random_state : int
    """
    take_weights(site.network, weights)
    data = replace(site.data, index=None)
    options: dict[str, Any] = {"batch_size": batch_size, "random_state": random_state}
    sampler: Any = (
        ShuffleSampler(len(data), **options)
        if data.domain is None or not Network(site.network).takes_domain
        else DomainBalancedSampler(data.domain.cpu(), data.y, **options)
    )
    objective: list[Any] = [CrossEntropy()]
    if mu:
        objective.append(Proximal(weights, mu))
    history = train(
        site.network,
        data,
        objective=objective,
        optimizer=make_optimizer(site.network, optimizer, lr=lr),
        sampler=sampler,
        epochs=epochs,
        random_state=random_state,
    )
    return float(history[-1]["train_loss"])


def simulate_federation(
    network: nn.Module,
    sites: Sequence[Site],
    *,
    rounds: int = 20,
    epochs: int = 1,
    share: float = 1.0,
    personal: Sequence[str] = (),
    random_state: int = 0,
    **options: Any,
) -> list[dict[str, float]]:
    """Let sites train together in this process: FedAvg on manifolds.

    In each round the sites drawn train from the common weights, and the weights
    become their mean, each site counting as its number of trials. Nothing but
    parameters goes from a site to another.

    Parameters
    ----------
    network : torch.nn.Module
        Gets the common weights; its buffers stay as they are.
    sites : sequence of Site
        Their networks get the common weights at the end, and keep own statistics.
    rounds, epochs : int
        Epochs of each site a round.
    share : float
        Of the sites, drawn anew each round; at least one.
    personal : sequence of str
        Beginnings of names of parameters that each site keeps to itself.
    random_state : int
    **options
        Of `train_site`.

    Returns
    -------
    history : list of dict
        Of each round: round, loss (mean over trials), n_sites.

    References
    ----------
    B. McMahan et al., "Communication-efficient learning of deep networks from
    decentralized data", AISTATS 2017, alg. 1.
    """
    check_count("rounds", rounds)
    if not sites:
        fail("There are no sites", fix="give at least one")
    if not 0 < share <= 1:
        fail(f"share={share}", fix="give a share of the sites in (0, 1]")
    weights, history = shared_weights(network, personal), []
    n_drawn = max(1, round(share * len(sites)))
    for number in range(1, rounds + 1):
        generator = torch.Generator().manual_seed(random_state * 100_003 + number)
        order = torch.randperm(len(sites), generator=generator)[:n_drawn].sort().values
        drawn = [sites[i] for i in order.tolist()]
        losses = [
            train_site(site, weights, epochs=epochs, random_state=number, **options)
            for site in drawn
        ]
        counts = [float(len(site.data)) for site in drawn]
        sent = [shared_weights(site.network, personal) for site in drawn]
        weights = average_weights(network, sent, counts)
        mean = sum(c * v for c, v in zip(counts, losses, strict=True)) / sum(counts)
        history.append({"round": number, "loss": mean, "n_sites": len(drawn)})
    take_weights(network, weights)
    for site in sites:
        take_weights(site.network, weights)
    return history


def make_site(name: str, network: nn.Module, data: Batch) -> Site:
    """Return a site with a copy of a network."""
    return Site(name, copy.deepcopy(network), data)
