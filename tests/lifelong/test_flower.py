"""Flower as the transport; skipped where it is not installed."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from eegtensor._optional import MissingPackageError
from eegtensor.lifelong import flower_client, flower_strategy
from eegtensor.lifelong.federated import average_weights, make_site, shared_weights
from eegtensor.lifelong.flower import from_arrays, to_arrays

from lifelong.test_federated import Curved, data  # isort: skip


def test_weights_travel_as_arrays() -> None:
    weights = shared_weights(Curved())
    back = from_arrays(list(weights), to_arrays(weights))
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[n], w) for n, w in weights.items())


def test_without_flower_the_error_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr", None)
    monkeypatch.setitem(sys.modules, "flwr.client", None)
    with pytest.raises(MissingPackageError, match="pip install 'flwr'"):
        flower_client(make_site("a", Curved(), data(0)))


def test_a_round_of_flower_is_a_round_of_the_simulator() -> None:
    common = pytest.importorskip("flwr.common", reason="flwr is not installed")
    net = Curved()
    sites = [make_site(str(s), net, data(s)) for s in range(2)]
    twins = [make_site(str(s), net, data(s)) for s in range(2)]
    strategy = flower_strategy(net, min_fit_clients=2, min_available_clients=2)
    start = common.parameters_to_ndarrays(strategy.initialize_parameters(None))
    results = []
    for site in sites:
        arrays, n, metrics = flower_client(site).fit(start, {"round": 1})
        assert metrics["loss"] > 0
        sent = common.ndarrays_to_parameters(arrays)
        results.append((None, SimpleNamespace(parameters=sent, num_examples=n)))
    mean, _ = strategy.aggregate_fit(1, results, [])
    found = from_arrays(list(shared_weights(net)), common.parameters_to_ndarrays(mean))
    from eegtensor.lifelong.federated import train_site

    for twin in twins:
        train_site(twin, shared_weights(net), random_state=1)
    sent = [shared_weights(twin.network) for twin in twins]
    exact = average_weights(net, sent, [60.0, 60.0])
    for name, value in exact.items():
        torch.testing.assert_close(found[name], value)
    loss, n, _ = flower_client(sites[0]).evaluate(to_arrays(found), {})
    assert loss > 0
    assert n == 60
