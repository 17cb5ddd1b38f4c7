"""Flower as the transport between sites: a client, and a strategy on manifolds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from eegtensor._optional import need
from eegtensor.lifelong.federated import (
    Site,
    Weights,
    average_weights,
    shared_weights,
    take_weights,
    train_site,
)
from eegtensor.training import CrossEntropy, evaluate

_PURPOSE = "federated training between machines"


def to_arrays(weights: Weights) -> list[np.ndarray]:
    """Return shared weights as Flower sends them: arrays in order of names."""
    return [weights[name].cpu().numpy() for name in sorted(weights)]


def from_arrays(names: Sequence[str], arrays: Sequence[Any]) -> Weights:
    """Return shared weights by name from what Flower received."""
    pairs = zip(sorted(names), arrays, strict=True)
    return {name: torch.from_numpy(np.array(array)) for name, array in pairs}


def flower_client(site: Site, *, personal: Sequence[str] = (), **options: Any) -> Any:
    """Return a ``flwr.client.NumPyClient`` for a site.

    It sends parameters and counts of trials, never trials nor running statistics.

    Parameters
    ----------
    site : Site
    personal : sequence of str
        Beginnings of names of parameters that it keeps.
    **options
        Of `train_site`.

    Raises
    ------
    MissingPackageError
        If flwr is not installed.
    """
    need("flwr", _PURPOSE)
    flwr = need("flwr.client", _PURPOSE)
    names = list(shared_weights(site.network, personal))

    class Client(flwr.NumPyClient):  # type: ignore[misc,name-defined]
        """One site."""

        def get_parameters(self, config: Any) -> list[np.ndarray]:
            return to_arrays(shared_weights(site.network, personal))

        def fit(self, parameters: Any, config: Any) -> tuple[Any, int, dict[str, Any]]:
            weights = from_arrays(names, parameters)
            seed = int(config.get("round", 0))
            loss = train_site(site, weights, **{"random_state": seed} | options)
            return self.get_parameters({}), len(site.data), {"loss": loss}

        def evaluate(self, parameters: Any, config: Any) -> tuple[float, int, dict]:
            take_weights(site.network, from_arrays(names, parameters))
            found = evaluate(site.network, site.data, CrossEntropy())
            return found["loss"], len(site.data), {}

    return Client()


def flower_strategy(
    network: nn.Module, *, personal: Sequence[str] = (), **options: Any
) -> Any:
    """Return a Flower strategy that averages weights on their manifolds.

    Flower's own FedAvg takes the arithmetic mean, which leaves the manifolds.

    Parameters
    ----------
    network : torch.nn.Module
        Says which parameter lies on which manifold, and where the weights start.
    personal : sequence of str
        As for the clients.
    **options
        Of ``flwr.server.strategy.FedAvg``.
    """
    need("flwr", _PURPOSE)
    strategies = need("flwr.server.strategy", _PURPOSE)
    common = need("flwr.common", _PURPOSE)
    names = list(shared_weights(network, personal))

    class ManifoldFedAvg(strategies.FedAvg):  # type: ignore[misc,name-defined]
        """FedAvg whose mean lies on the manifolds of the parameters."""

        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
            if not results:
                return None, {}
            sent = [
                from_arrays(names, common.parameters_to_ndarrays(r.parameters))
                for _, r in results
            ]
            counts = [float(r.num_examples) for _, r in results]
            mean = average_weights(network, sent, counts)
            return common.ndarrays_to_parameters(to_arrays(mean)), {}

    start = common.ndarrays_to_parameters(to_arrays(shared_weights(network, personal)))
    # Rounds are told apart by number: clients draw their batches from it.
    told = {"on_fit_config_fn": lambda number: {"round": number}}
    return ManifoldFedAvg(**{"initial_parameters": start} | told | options)
