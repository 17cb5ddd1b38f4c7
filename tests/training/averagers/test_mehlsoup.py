"""MEHL-Soup: hyperplane, line search, negative coefficients, layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, CrossEntropy, Network, ParamSpace
from eegtensor.training.averagers import MEHLSoup
from eegtensor.training.averagers.mehlsoup import warm_cosine
from eegtensor.training.subspace import Frame


class Squares:
    per_trial = True

    def __call__(self, model, batch, outputs, context):
        return (outputs[:, 0] - batch.y).square()


def regression(seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(60, 4, generator=g).double()
    y = x @ torch.tensor([1.0, -1.0, 0.5, 0.0]).double()
    net = nn.Linear(4, 1, bias=False).double()
    return net, Batch(x, y), g


def learn(states, net, data, objective=None, **options):
    options = {"data": "train", "epochs": 400, "lr": 0.05, "batch_size": 60} | options
    averager = MEHLSoup(**options).use(Network(net), objective or Squares())
    return averager, averager.merge(states, ParamSpace(net), data)


def test_without_a_rate_it_is_the_uniform_soup():
    net, data, g = regression()
    states = [{"weight": torch.randn(1, 4, generator=g).double()} for _ in range(5)]
    _, found = learn(states, net, data, lr=0.0, epochs=1)
    mean = torch.stack([s["weight"] for s in states]).mean(dim=0)
    torch.testing.assert_close(found["weight"], mean)


@pytest.mark.parametrize("outside", [False, True])
def test_two_models_are_a_line_search(outside):
    net, data, g = regression()
    one = torch.randn(1, 4, generator=g).double()
    two = torch.randn(1, 4, generator=g).double()
    if outside:
        # The optimum lies beyond `one`: its partner counts negatively.
        truth = torch.tensor([[1.0, -1.0, 0.5, 0.0]]).double()
        one, two = truth + 0.2 * two, truth + two
    _, found = learn([{"weight": one}, {"weight": two}], net, data)
    d = two - one
    # min_t |x (one + t d) - y|^2
    a, r = data.x @ d[0], data.y - data.x @ one[0]
    t = float(a @ r / (a @ a))
    assert (t < 0) == outside
    torch.testing.assert_close(found["weight"], one + t * d, rtol=0, atol=1e-4)


def test_layers_have_coefficients_of_their_own():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).double()
        x, y = torch.randn(60, 4).double(), torch.randint(2, (60,))
    space, g = ParamSpace(net), torch.Generator().manual_seed(0)
    states = [space.random_tangent(g) for _ in range(3)]
    plus = MEHLSoup(by_layer=True, block_size=5)
    # 12 > 5 closes a block; 3 bias entries do not, 3 + 6 do.
    assert plus.blocks(space) == [
        ["0.weight"],
        ["0.bias", "1.weight"],
        ["1.bias"],
    ]
    centre = space.mean(states)
    frame = plus.frame(states, centre, space)
    assert isinstance(frame, Frame) and len(frame) == 9
    for i in range(9):
        u = {n: d[i] for n, d in frame.directions.items()}
        assert float(space.norm(u)) == pytest.approx(1.0)
    losses = []
    for options in ({}, {"by_layer": True}):
        made, points = learn(
            states, net, Batch(x, y), CrossEntropy(), epochs=60, lr=0.1, **options
        )
        space.assign(points)
        losses.append(float(nn.functional.cross_entropy(net(x), y).detach()))
    assert len(made.coefficients[0]) == 12
    assert losses[1] < losses[0]


@pytest.mark.parametrize("by_layer", [False, True])
def test_steps_are_adamw_on_projected_gradients(by_layer):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
        x, y = torch.randn(30, 4).double(), torch.randint(2, (30,))
    space, g = ParamSpace(net), torch.Generator().manual_seed(0)
    states = [space.random_tangent(g) for _ in range(3)]
    _, found = learn(
        states,
        net,
        Batch(x, y),
        CrossEntropy(),
        by_layer=by_layer,
        epochs=10,
        batch_size=30,
        keep_best=False,
    )
    # By hand, leaf by leaf, with the gradient through the weights themselves.
    centre = {n: torch.stack([s[n] for s in states]).mean(dim=0) for n in space.leaves}
    rays = [{n: s[n] - centre[n] for n in centre} for s in states]
    blocks = [[n] for n in centre] if by_layer else [list(centre)]
    unit = []
    for names in blocks:
        for ray in rays:
            size = sum(ray[n].square().sum() for n in names).sqrt()
            unit.append(
                {n: ray[n] / size if n in names else 0 * ray[n] for n in centre}
            )
    a = torch.zeros(len(unit), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([a], lr=0.05, weight_decay=0.0)
    for t in range(10):
        rise, fall = (t + 1) / 2, 0.5 * (1 + math.cos(math.pi * (t - 2) / 8))
        optimizer.param_groups[0]["lr"] = 0.05 * (rise if t < 2 else fall)
        w = {
            n: c + sum(k * u[n] for k, u in zip(a, unit, strict=True))
            for n, c in centre.items()
        }
        loss = nn.functional.cross_entropy(torch.func.functional_call(net, w, (x,)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for n, c in centre.items():
        wanted = c + sum(k * u[n] for k, u in zip(a.detach(), unit, strict=True))
        torch.testing.assert_close(found[n], wanted, rtol=0, atol=1e-10)


def test_batches_of_models_go_on_from_the_soup():
    net, data, g = regression()
    states = [{"weight": torch.randn(1, 4, generator=g).double()} for _ in range(6)]
    few, found = learn(states, net, data, models=3, rounds=2, epochs=150)
    assert len(few.coefficients) == 4
    best = min(
        float(((data.x @ s["weight"][0]) - data.y).square().mean()) for s in states
    )
    end = float(((data.x @ found["weight"][0]) - data.y).square().mean())
    assert end < 0.2 * best


def test_manifolds(toy, trials):
    nets = [toy(seed=s, dropout=0.0) for s in range(3)]
    for i, net in enumerate(nets):
        with torch.no_grad():
            net.frame.copy_(nets[0].frame)
            space = ParamSpace(net)
            u = space.random_tangent(torch.Generator().manual_seed(i))
            space.assign(space.retract(space.scale(u, 0.2)))
    averager = MEHLSoup(data="train", epochs=3).use(Network(nets[0]), CrossEntropy())
    points = averager.merge(
        [n.state_dict() for n in nets], ParamSpace(nets[0]), trials()
    )
    frame = points["frame"]
    assert (frame.mT @ frame - torch.eye(3)).abs().max() < 1e-6
    assert torch.linalg.eigvalsh(points["shape"])[0] > 0


def test_warm_up_and_fall():
    assert warm_cosine(0, 50) == pytest.approx(0.1)
    assert warm_cosine(9, 50) == pytest.approx(1.0)
    assert warm_cosine(30, 50) == pytest.approx(0.5)


def test_mistakes():
    for options in ({"models": 1}, {"data": "test"}, {"epochs": 0}):
        with pytest.raises(EEGTensorError):
            MEHLSoup(**options)


@pytest.mark.parametrize(
    "options",
    [{"models": 2.5}, {"rounds": 0}, {"block_size": -1}, {"lr": -1}, {"by_layer": 2}],
    ids=str,
)
def test_mistakes_are_told_before_the_run(options):
    with pytest.raises(EEGTensorError, match="What to do"):
        MEHLSoup(**options)


def test_later_batches_of_models_start_at_the_soup_of_the_earlier():
    net, data, g = regression()
    states = [{"weight": torch.randn(1, 4, generator=g).double()} for _ in range(6)]
    _, found = learn(states, net, data, models=3, lr=0.0, epochs=1)
    # Without a rate nothing moves: it is the mean of the batch drawn first.
    first = torch.randperm(6, generator=torch.Generator().manual_seed(0))[:3]
    mean = torch.stack([states[i]["weight"] for i in first]).mean(dim=0)
    torch.testing.assert_close(found["weight"], mean)


def test_a_block_as_large_as_the_size_takes_in_the_next_leaf():
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    blocks = MEHLSoup(by_layer=True, block_size=3).blocks(ParamSpace(net))
    assert blocks == [["0.weight"], ["0.bias", "1.weight"], ["1.bias"]]
