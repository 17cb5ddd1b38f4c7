"""DTNH: inner products that must hold, and a teacher of shuffled labels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    CrossEntropy,
    Network,
    ShuffleSampler,
    StepContext,
    forward_all,
    make_optimizer,
    train,
)
from eegtensor.training.transforms import DTNH


def moved(toy, seed=1, size=0.3):
    """A toy away from the weights it was pretrained to, and those."""
    net = toy(dropout=0.0, dtype=torch.float64)
    network = Network(net)
    space = network.space
    anchor = space.snapshot()
    g = torch.Generator().manual_seed(seed)
    space.assign(space.retract(space.scale(space.random_tangent(g), size)))
    return network, anchor, g


def gradients_of(network, g):
    return {
        n: torch.randn(p.shape, generator=g, dtype=p.dtype)
        for n, p in network.space.leaves.items()
    }


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0, 1e6])
def test_the_loss_never_falls_slower_than_without_the_pull(toy, trials, alpha):
    signs = set()
    for seed in range(20):
        network, anchor, g = moved(toy, seed)
        space = network.space
        own = gradients_of(network, g)
        method = DTNH(alpha).fit([anchor], space)
        d = method(own, StepContext(network, None, None))
        up, new = space.rgrad(own), space.rgrad(d)
        square, along = float(space.inner(up, up)), float(space.inner(new, up))
        pull = space.rgrad({n: p - anchor[n] for n, p in space.points().items()})
        conflict = float(space.inner(pull, up)) < 0
        signs.add(conflict)
        assert along >= square * (1 - 1e-9) - 1e-9 * alpha
        if conflict:
            assert along == pytest.approx(square, rel=1e-7, abs=1e-9 * alpha)
        plain = DTNH(alpha, projected=False).fit([anchor], space)
        sums = space.rgrad(plain(own, StepContext(network, None, None)))
        for n in sums:
            torch.testing.assert_close(sums[n], up[n] + alpha * pull[n])
            if not conflict:
                torch.testing.assert_close(sums[n], new[n])
    assert signs == {True, False}


def test_by_hand_on_a_line():
    net = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 1.0]]))
    network = Network(net)
    method = DTNH(0.5).fit([{"weight": torch.zeros(1, 2).double()}], network.space)
    context = StepContext(network, None, None)
    # r = (1, 1): with g = (-2, 0) the part (1, 0) is against it.
    d = method({"weight": torch.tensor([[-2.0, 0.0]]).double()}, context)
    torch.testing.assert_close(d["weight"], torch.tensor([[-2.0, 0.5]]).double())
    d = method({"weight": torch.tensor([[2.0, 0.0]]).double()}, context)
    torch.testing.assert_close(d["weight"], torch.tensor([[2.5, 0.5]]).double())


def run(x, y, transform=None, net=None, epochs=30, seed=0):
    torch.manual_seed(seed)
    net = (
        nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
        if net is None
        else net
    )
    train(
        net,
        Batch(x, y),
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "sgd", lr=0.1, weight_decay=0.0),
        sampler=ShuffleSampler(len(x), batch_size=20),
        epochs=epochs,
        grad_transform=transform,
        random_state=seed,
    )
    return net


@pytest.mark.parametrize("pull", ["weights", "predictions"])
def test_a_network_of_permuted_labels_does_little_harm(pull):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(700, 6, generator=g)
    y = (x[:, 0] + 0.5 * x[:, 1] > 0).long()
    few, test = slice(0, 100), slice(100, 700)
    permuted = y[few][torch.randperm(100, generator=g)]
    wrong = run(x[few], permuted, epochs=60).state_dict()

    def score(net):
        guess = forward_all(net, Batch(x[test])).argmax(1)
        return float((guess == y[test]).double().mean())

    def tuned(alpha, projected):
        net = run(x[:1], y[:1], epochs=1)
        net.load_state_dict(wrong)
        return score(run(x[few], y[few], DTNH(alpha, pull, projected), net, 60))

    scratch = score(run(x[few], y[few], epochs=60))
    assert tuned(DTNH().alpha, True) >= scratch - 0.02
    # A pull so strong that no projection makes up for it: far less harm, still.
    strong = {"weights": 0.5, "predictions": 3.0}[pull]
    assert tuned(strong, True) > tuned(strong, False) + 0.02


def test_pull_of_predictions_is_its_gradient(toy, trials):
    data = trials(40, dtype=torch.float64)
    network, anchor, g = moved(toy)
    method = DTNH(1.0, "predictions", projected=False)
    method.anchor = anchor

    class State:
        model, network_ = network.model, network

    state = State()
    state.network = network
    method.on_train_start(state)
    zero = {n: torch.zeros_like(p) for n, p in network.space.leaves.items()}
    found = method(zero, StepContext(network, None, data))
    # Finite differences of the divergence along one random direction of the head.
    here = network.space.snapshot()
    direction = torch.randn(here["head.weight"].shape, generator=g).double()

    def value(step):
        network.space.assign(anchor)
        network.model.eval()
        with torch.no_grad():
            p = network(data).softmax(1)
            moved_to = {**here, "head.weight": here["head.weight"] + step * direction}
            network.space.assign(moved_to)
            q = network(data).log_softmax(1)
        network.model.train()
        return float((p * (p.log() - q)).sum(1).mean())

    slope = (value(1e-5) - value(-1e-5)) / 2e-5
    assert float((found["head.weight"] * direction).sum()) == pytest.approx(
        slope, rel=1e-5
    )


def test_state_goes_with_the_run():
    method = DTNH()
    with pytest.raises(EEGTensorError, match="no network"):
        method({}, None)
    method.load_state_dict({"w": torch.ones(2)})
    torch.testing.assert_close(method.state_dict()["w"], torch.ones(2))
    with pytest.raises(EEGTensorError, match="alpha"):
        DTNH(-1)
