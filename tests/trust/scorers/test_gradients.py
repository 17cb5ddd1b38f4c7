"""Gradients of the energy: closed form, forward mode, coordinates on manifolds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from eegtensor._check import EEGTensorError
from eegtensor.geometry import random_spd
from eegtensor.simulate import simulate_trials
from eegtensor.training import Batch, ParamSpace
from eegtensor.transfer import TSMNetClassifier
from eegtensor.trust.scorers import Evidence, LowDimGradients, evidence
from eegtensor.trust.scorers._gradients import (
    _Frame,
    head_gradients,
    network_gradients,
)


def small(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)
    ).double()


def batch(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(torch.from_numpy(rng.standard_normal((n, 6))))


def seen(net, data):
    net.eval()
    with torch.no_grad():
        h = net[:-1](data.x)
        z = net[-1](h)
    return Evidence(z.numpy(), h.numpy(), network=net, batch=data)


def test_the_heads_block_is_softmax_times_features():
    """Check of A15: exact."""
    net, data = small(), batch()
    e = seen(net, data)
    closed = head_gradients(e.logits, e.features).reshape(40, 3, 9)
    U = network_gradients(net, data)
    assert np.abs(U[:, -27:-3].reshape(40, 3, 8) - closed[..., :8]).max() < 1e-12
    assert np.abs(U[:, -3:] - closed[..., 8]).max() < 1e-12


def test_projections_are_forward_derivatives():
    """Check of A15: V'u by explicit gradients and by forward mode, to 1e-5."""
    net, data = small(), batch()
    U, names = network_gradients(net, data), dict(net.named_parameters())
    V = np.random.default_rng(1).standard_normal((U.shape[1], 4))

    net.eval()

    def energy(values):
        return torch.func.functional_call(net, values, (data.x,)).logsumexp(dim=1)

    for k in range(4):
        direction, at = {}, 0
        for name, p in names.items():
            part = V[at : at + p.numel(), k].reshape(p.shape)
            direction[name], at = torch.from_numpy(part), at + p.numel()
        values = {name: p.detach() for name, p in names.items()}
        _, along = torch.func.jvp(energy, (values,), (direction,))
        assert np.abs(along.numpy() - U @ V[:, k]).max() < 1e-5


def test_statistics_and_mode_stay():
    net = small().train()
    mean = net[1].running_mean.clone()
    first = network_gradients(net, batch())
    assert net.training
    assert torch.equal(mean, net[1].running_mean)
    assert np.array_equal(first, network_gradients(net.eval(), batch()))


def coordinates_keep_products(leaf):
    space = ParamSpace(leaf)
    ((name, adapter),) = space.adapters.items()
    p = space.points()[name]
    frame = _Frame(adapter, p)
    g = [torch.randn(p.shape, dtype=p.dtype) for _ in range(3)]
    rows = torch.stack([frame(one) for one in g])
    tangents = [adapter.rgrad(p, one) for one in g]
    products = [[float(adapter.inner(p, u, v)) for v in tangents] for u in tangents]
    assert torch.allclose(rows @ rows.T, torch.tensor(products).double(), rtol=1e-6)
    return rows.shape[1]


class Leaf(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p


def test_coordinates_on_manifolds_are_orthonormal():
    import geoopt

    torch.manual_seed(0)
    W = torch.linalg.qr(torch.randn(7, 3, dtype=torch.float64))[0]
    stiefel = geoopt.ManifoldParameter(W, manifold=geoopt.EuclideanStiefel())
    assert coordinates_keep_products(Leaf(stiefel)) == 7 * 3 - 6
    S = torch.from_numpy(np.asarray(random_spd(4, random_state=0))).reshape(4, 4)
    spd = geoopt.ManifoldParameter(
        S, manifold=geoopt.SymmetricPositiveDefinite(default_metric="AIM")
    )
    assert coordinates_keep_products(Leaf(spd)) == 10


@pytest.mark.parametrize("options", [{}, {"subspace": "class-mean"}, {"score": "knn"}])
@pytest.mark.parametrize("layers", ["head", "all"])
def test_score_of_gradients(options, layers):
    net, rng = small(), np.random.default_rng(0)
    train, novel = seen(net, batch(60)), seen(net, Batch(6.0 * batch(30, 3).x))
    y = rng.integers(3, size=60)
    scorer = LowDimGradients(layers=layers, **options).fit(train, y)
    assert scorer.directions_.shape[1] == (3 if "subspace" in options else 15)
    own = scorer.score_samples(train)
    assert np.array_equal(
        own,
        LowDimGradients(layers=layers, **options).fit(train, y).score_samples(train),
    )
    assert np.isfinite(scorer.score_samples(novel)).all()
    if options.get("score") == "knn":
        wide = LowDimGradients(layers, score="knn").fit(train, y).project(novel)
        assert np.abs(wide).max() > np.abs(scorer.project(train)).max()


def test_all_layers_of_tsmnet():
    trials = simulate_trials(n_subjects=2, n_sessions=1, n_trials=8, n_channels=4)
    X, y, who = trials.X, trials.y, trials.subjects
    model = TSMNetClassifier(epochs=1, n_spatial_filters=6, subspace=4)
    model.fit(X, y, subjects=who)
    e = evidence(model, X, subjects=who, gradients=True)
    U = network_gradients(e.network, e.batch)
    # The tangent space of the BiMap has 6 * 4 - 10 dimensions; the head is last.
    counts = [p.numel() for p in model.network_.parameters() if p.requires_grad]
    assert U.shape == (16, sum(counts) - 10)
    closed = head_gradients(e.logits, e.features).reshape(16, 2, 11)
    assert np.abs(U[:, -22:-2].reshape(16, 2, 10) - closed[..., :10]).max() < 1e-6
    scores = LowDimGradients(layers="all").fit(e, y).score_samples(e)
    assert np.isfinite(scores).all()


def test_what_is_missing_is_said():
    e = seen(small(), batch())
    with pytest.raises(EEGTensorError, match="classes"):
        LowDimGradients().fit(e)
    bare = Evidence(e.logits, e.features)
    with pytest.raises(EEGTensorError, match="gradients=True"):
        LowDimGradients(layers="all").fit(bare, np.arange(40) % 3)
