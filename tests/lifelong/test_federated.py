"""Federated training: what is sent, what stays, and how weights are averaged."""

from __future__ import annotations

import copy

import geoopt
import numpy as np
import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.lifelong import FederatedClassifier, simulate_federation
from eegtensor.lifelong.federated import (
    Site,
    average_weights,
    make_site,
    shared_weights,
    take_weights,
    train_site,
)
from eegtensor.training import Batch, ParamSpace, forward_all
from eegtensor.transfer import TSMNetClassifier


class Curved(nn.Module):
    """A Stiefel, an SPD and a Euclidean leaf, and a running statistic."""

    def __init__(self, seed=0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        frame = torch.linalg.qr(torch.randn(6, 3, generator=g, dtype=torch.float64))[0]
        self.frame = geoopt.ManifoldParameter(
            frame.contiguous(), manifold=geoopt.EuclideanStiefel()
        )
        A = torch.randn(3, 3, generator=g, dtype=torch.float64)
        self.shape = geoopt.ManifoldParameter(
            A @ A.mT + torch.eye(3), manifold=geoopt.SymmetricPositiveDefinite()
        )
        self.norm = nn.BatchNorm1d(3, dtype=torch.float64)
        self.head = nn.Linear(3, 2, dtype=torch.float64)
        with torch.no_grad():
            self.head.weight.normal_(generator=g)

    def forward(self, x):
        return self.head(self.norm(x @ self.frame @ self.shape))


def data(seed, n=60):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=g)
    x = torch.randn(n, 6, generator=g, dtype=torch.float64) + seed
    x[:, 0] += 3.0 * y
    return Batch(x, y)


def test_statistics_are_never_sent() -> None:
    net = Curved()
    sent = shared_weights(net)
    assert set(sent) == {name for name, _ in net.named_parameters()}
    assert not set(sent) & {name for name, _ in net.named_buffers()}
    assert set(shared_weights(net, ["head"])) == {
        n for n in sent if not n.startswith("head")
    }
    # Copies: who changes them changes nothing here.
    sent["head.weight"].zero_()
    assert net.head.weight.abs().min() > 0


def test_the_mean_lies_on_the_manifolds() -> None:
    nets = [Curved(s) for s in range(3)]
    mean = average_weights(nets[0], [shared_weights(n) for n in nets], [1.0, 2.0, 3.0])
    frame, shape = mean["frame"], mean["shape"]
    torch.testing.assert_close(frame.mT @ frame, torch.eye(3).double())
    arithmetic = sum(w * n.frame for w, n in zip((1, 2, 3), nets, strict=True)) / 6
    assert (arithmetic.mT @ arithmetic - torch.eye(3)).abs().max() > 0.1
    # The affine-invariant mean of inverses is the inverse of the mean.
    inverse = [{**shared_weights(n), "shape": n.shape.inverse()} for n in nets]
    other = average_weights(nets[0], inverse, [1.0, 2.0, 3.0])["shape"]
    torch.testing.assert_close(other, shape.inverse(), rtol=1e-6, atol=1e-6)
    weight = sum(w * n.head.weight for w, n in zip((1, 2, 3), nets, strict=True)) / 6
    torch.testing.assert_close(mean["head.weight"], weight.detach())


def test_one_site_alone_is_training_there() -> None:
    net = Curved()
    alone = copy.deepcopy(net)
    site = make_site("a", net, data(0))
    simulate_federation(net, [site], rounds=1, epochs=2, random_state=3)
    mine = Site("b", alone, data(0))
    train_site(mine, shared_weights(alone), epochs=2, random_state=1)
    for p, q in zip(net.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


def test_sites_learn_and_keep_their_statistics() -> None:
    net = Curved()
    before = {n: b.clone() for n, b in net.named_buffers()}
    sites = [make_site(str(s), net, data(s)) for s in range(3)]
    history = simulate_federation(net, sites, rounds=15, lr=1e-2)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    for name, buffer in net.named_buffers():
        assert torch.equal(buffer, before[name])
    means = [site.network.norm.running_mean for site in sites]
    # Their trials lie apart, and so do their means.
    assert (means[0] - means[2]).norm() > 0.5
    for site in sites:
        torch.testing.assert_close(site.network.frame, net.frame)
        guess = forward_all(site.network, site.data).argmax(1)
        assert (guess == site.data.y).float().mean() > 0.75
    space = ParamSpace(net)
    assert set(space.leaves) == set(shared_weights(net))


def test_personal_parameters_and_few_sites_a_round() -> None:
    net = Curved()
    sites = [make_site(str(s), net, data(s)) for s in range(4)]
    history = simulate_federation(
        net, sites, rounds=4, share=0.5, personal=["head"], lr=1e-2, random_state=1
    )
    assert {row["n_sites"] for row in history} == {2}
    torch.testing.assert_close(net.head.weight, Curved().head.weight)
    heads = [site.network.head.weight for site in sites]
    assert (heads[0] - heads[1]).abs().max() > 1e-3
    torch.testing.assert_close(sites[0].network.frame, sites[1].network.frame)


def test_the_pull_towards_the_common_weights_holds() -> None:
    far = {}
    for mu in (0.0, 20.0):
        net = Curved()
        start = shared_weights(net)
        site = make_site("a", net, data(0))
        train_site(site, start, epochs=5, lr=1e-2, mu=mu)
        now = shared_weights(site.network)
        far[mu] = sum(float((now[n] - w).square().sum()) for n, w in start.items())
    assert far[20.0] < 0.3 * far[0.0]


def test_mistakes_are_named() -> None:
    net = Curved()
    with pytest.raises(EEGTensorError, match="no sites"):
        simulate_federation(net, [])
    with pytest.raises(EEGTensorError, match="share=0"):
        simulate_federation(net, [make_site("a", net, data(0))], share=0.0)
    with pytest.raises(EEGTensorError, match="no parameters other"):
        take_weights(net, {"other": torch.zeros(1)})


def test_a_classifier_of_people_who_keep_their_trials(people) -> None:
    seen, held = people
    base = TSMNetClassifier(n_spatial_filters=6, subspace=4, batch_size=16, lr=1e-2)
    net = FederatedClassifier(base, rounds=25)
    net.fit(seen.X, seen.y, **seen.domains)
    assert (net.predict(held.X, **held.domains) == held.y).mean() > 0.7
    common = net.estimator_.network_
    assert common.norm.names == ()
    assert not common.norm.seen.any()
    for name, site in net.sites_.items():
        assert {d.subject for d in site.network_.norm.names} == {name}
    # A person never met is adapted to by the batch.
    stranger = held.pick(held.subjects == held.subjects[0])
    p = net.predict_proba(stranger.X, subjects=["new"] * len(stranger.X))
    np.testing.assert_allclose(p.sum(1), 1.0)
    with pytest.raises(EEGTensorError, match="has no statistics"):
        net.predict(stranger.X)
    net.adapt(stranger.X)
    net.predict(stranger.X)
    with pytest.raises(EEGTensorError, match="norm='domain'"):
        FederatedClassifier(TSMNetClassifier(norm="batch")).fit(
            seen.X, seen.y, subjects=seen.subjects
        )
