"""A change of basis that old embeddings can be searched with."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, CrossEntropy, Setup, make_plugs, train
from eegtensor.training.network import features_of
from eegtensor.training.objectives import BackwardCompatible


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_maps_are_orthogonal_and_keep_lengths():
    plug = BackwardCompatible(random(9, 6), random(3, 6), 5, extra=4).double()
    for map_ in (plug.from_new, plug.from_old, plug.turn):
        W = map_.weight
        eye = torch.eye(len(W), dtype=W.dtype)
        assert (W @ W.mT - eye).abs().max() < 1e-6
    new, old = random(30, 5).double(), random(30, 6, seed=1).double()
    z = plug.embed(new, old)
    assert z.shape == (30, 9)
    torch.testing.assert_close(
        z.square().sum(1), new.square().sum(1) + 1, atol=1e-6, rtol=1e-6
    )
    # Nothing extra: a rotation of the new features alone.
    none = BackwardCompatible(random(9, 5), random(3, 5), 6, extra=0).double()
    alone = none.embed(random(30, 6).double(), old[:, :5])
    assert torch.equal(alone, none.embed(random(30, 6).double(), 0 * old[:, :5]))
    assert alone.shape == (30, 6)
    assert plug.archived(old).shape == z.shape


def test_loss_is_its_three_terms():
    n = 20
    old, y = random(n, 4), torch.arange(n) % 3
    W = random(3, 4, seed=2)
    plug = BackwardCompatible(old, W, 5, extra=2, influence=0.7, cosine=0.3)
    h = random(n, 5, seed=3)

    class Context:
        features = h

    y = y.clone()
    y[:4] = -1
    batch = Batch(h, y, index=torch.arange(n))
    got = plug(nn.Identity(), batch, h, Context())
    z = plug.embed(h, old)
    known = y >= 0
    hard = F.cross_entropy(plug.classifier(z), y.clamp_min(0), reduction="none")
    read = F.cross_entropy(z[:, :4] @ W.mT, y.clamp_min(0), reduction="none")
    away = 1 - F.cosine_similarity(z[:, :4], old)
    torch.testing.assert_close(got, (hard + 0.7 * read) * known + 0.3 * away)


def retrieval(query, gallery, y_query, y_gallery):
    near = F.normalize(query, dim=1) @ F.normalize(gallery, dim=1).mT
    return float((y_gallery[near.argmax(1)] == y_query).double().mean())


def found(seed, old_classes):
    """Shares of queries whose nearest entry is of their class.

    Old queries among old entries, new ones among old, new among new, and those of a
    network that knows nothing of the old one.
    """
    g = torch.Generator().manual_seed(seed)
    centre = 1.1 * torch.randn(12, 20, generator=g)

    def draw(n):
        y = torch.randint(12, (n,), generator=g)
        return centre[y] + 1.5 * torch.randn(n, 20, generator=g), y

    (x, y), (x_test, y_test), (x_gallery, y_gallery) = draw(900), draw(500), draw(500)

    def network(width, seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 12))

    def fit(net, data, extra=(), epochs=25):
        setup = Setup(net, data, n_classes=12, epochs=epochs, lr=5e-3)
        plugs = make_plugs(setup, objective=("cross-entropy", *extra))
        train(net, data, epochs=epochs, **plugs)
        return net

    # The old network saw a part of the trials, of some of the classes.
    seen = y < old_classes
    first = Batch(x[seen][:150], y[seen][:150])
    old = fit(network(16, seed), first)
    data = Batch(x, y)
    independent = fit(network(32, seed + 1), data)

    def features(net, x):
        return features_of(net, Batch(x))

    h_old = features(old, x)
    prototypes = torch.stack([h_old[y == c].mean(0) for c in range(12)])
    plug = BackwardCompatible(old, prototypes, 32, extra=8)
    new = fit(network(32, seed + 1), data, (plug,))
    with torch.no_grad():
        query = plug.embed(features(new, x_test), features(old, x_test))
        gallery = plug.embed(features(new, x_gallery), features(old, x_gallery))
    archive = features(old, x_gallery)
    old_old = retrieval(features(old, x_test), archive, y_test, y_gallery)
    new_old = retrieval(query, plug.archived(archive), y_test, y_gallery)
    new_new = retrieval(query, gallery, y_test, y_gallery)
    alone = retrieval(
        features(independent, x_test),
        features(independent, x_gallery),
        y_test,
        y_gallery,
    )
    return old_old, new_old, new_new, alone


@pytest.mark.slow
@pytest.mark.parametrize("old_classes", [6, 12])
def test_new_queries_find_old_entries_and_each_other(old_classes):
    """Means of three draws; the old network saw half of the classes, or all of them."""
    scores = torch.tensor([found(seed, old_classes) for seed in range(3)]).mean(0)
    old_old, new_old, new_new, alone = scores.tolist()
    assert new_old >= old_old, scores
    assert new_new >= alone - 0.005, scores


def test_in_a_run_with_manifolds(toy, trials):
    data, net = trials(80), toy()
    plug = BackwardCompatible(random(80, 4), random(2, 4), 3, extra=2)
    plugs = make_plugs(
        Setup(net, data, batch_size=20), objective=("cross-entropy", plug)
    )
    train(net, data, epochs=2, validation=trials(20), **plugs)
    frame = net.frame.detach()
    assert (frame.mT @ frame - torch.eye(3)).abs().max() < 1e-5
    # Decay of weights, which their parameters get, leaves the maps orthogonal.
    for map_ in (plug.from_new, plug.from_old, plug.turn):
        W = map_.weight.detach()
        assert (W @ W.mT - torch.eye(len(W))).abs().max() < 1e-5
    assert CrossEntropy in {type(t) for _, t in plugs["objective"]}


def test_sizes_that_no_orthogonal_map_has():
    with pytest.raises(EEGTensorError, match="set extra to 3"):
        BackwardCompatible(random(9, 6), random(3, 6), 3, extra=1)
    with pytest.raises(EEGTensorError, match="or less"):
        BackwardCompatible(random(9, 6), random(3, 6), 3, extra=7)
