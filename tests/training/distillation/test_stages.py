"""Networks put together from stages that were trained alone."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Setup, make_plugs, train
from eegtensor.training.network import Network
from eegtensor.training.protocols import StepContext
from eegtensor.training.recipes import StageKD, Stages, assemble, hybrid


def layer(n_in, n_out, depth=1, width=None):
    layers, width = [], width or n_out
    for k in range(depth):
        a = n_in if k == 0 else width
        b = n_out if k == depth - 1 else width
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
    return nn.Sequential(*layers)


def meta_stages(width=8):
    return [layer(12, width), layer(width, width), nn.Linear(width, 3)]


def task(n=300, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 12, generator=g)
    # Products of pairs: nothing that a shallow network has for free.
    s = torch.stack([x[:, 2 * k] * x[:, 2 * k + 1] for k in range(3)], 1)
    return Batch(x, s.argmax(1))


def fit(model, data, epochs, objective=None, lr=0.01):
    setup = Setup(model, data, n_classes=3, epochs=epochs, lr=lr)
    plugs = make_plugs(setup, objective=objective or "cross-entropy")
    train(model, data, epochs=epochs, **plugs)
    return model


def test_hybrid_of_the_meta_stage_is_the_meta_network():
    torch.manual_seed(0)
    stages, x = meta_stages(), task(40).x
    whole = Stages(stages).eval()
    for place in range(3):
        chain = hybrid(stages, place, stages[place]).eval()
        assert torch.equal(chain(x), whole(x))


def test_stages_before_stay_and_others_learn():
    torch.manual_seed(0)
    stages, data = meta_stages(), task(60)
    chain = hybrid(stages, 1, layer(8, 8, depth=2))
    before = copy.deepcopy(chain.state_dict())
    meta = copy.deepcopy([s.state_dict() for s in stages])
    fit(chain, data, 2)
    for name, value in chain.state_dict().items():
        frozen = name.startswith("stages.0.")
        # Batch norms of a frozen stage keep their running statistics as well.
        assert torch.equal(value, before[name]) == frozen, name
    for stage, kept in zip(stages, meta, strict=True):
        assert all(torch.equal(v, kept[n]) for n, v in stage.state_dict().items())


def test_assembled_deep_network_beats_the_meta_network():
    torch.manual_seed(0)
    data, test = task(1500), task(2000, seed=5)
    meta = meta_stages(8)
    fit(Stages(meta), data, 8)
    targets = [layer(12, 8, 2, width=48), layer(8, 8, 2, width=48), nn.Linear(8, 3)]
    deep = assemble(meta, targets, data, lambda m, o: fit(m, data, 8, o))
    fit(deep, data, 3)

    def accuracy(net):
        net.eval()
        return float((net(test.x).argmax(1) == test.y).double().mean())

    found = accuracy(Stages(meta)), accuracy(deep)
    assert found[1] > found[0] + 0.05, found


def test_distilled_stages_and_widths_that_differ():
    torch.manual_seed(0)
    data = task(120)
    meta = meta_stages(6)
    fit(Stages(meta), data, 2)
    teachers = [layer(12, 20, 2), layer(20, 20, 2), nn.Linear(20, 3)]
    fit(Stages(teachers), data, 2)
    targets = [layer(12, 6), layer(10, 10), nn.Linear(6, 3)]
    seen = []

    def train_stage(model, objective):
        seen.append(objective)
        fit(model, data, 1, objective)

    deep = assemble(meta, targets, data, train_stage, teachers=teachers)
    assert deep(data.x).shape == (120, 3)
    # The middle target has another width: linear layers stand around it.
    assert deep.stages[1].enter.weight.shape == (10, 6)
    assert deep.stages[1].leave.weight.shape == (6, 10)
    assert sum(isinstance(o, StageKD) for o in seen) == 3


def test_loss_and_its_ends():
    g = torch.Generator().manual_seed(0)
    z, t = torch.randn(2, 30, 3, generator=g)
    data = Batch(z, torch.arange(30) % 3, index=torch.arange(30))
    net = nn.Identity()
    for alpha, T in ((0.0, 1.0), (0.5, 2.0), (1.0, 1.0)):
        kd = StageKD(t, alpha, T)
        got = kd(net, data, z, StepContext(Network(net), kd, data))
        soft = F.kl_div(
            (z / T).log_softmax(1), (t / T).softmax(1), reduction="batchmean"
        )
        wanted = (1 - alpha) * F.cross_entropy(z, data.y) + alpha * T**2 * soft
        torch.testing.assert_close(got.mean(), wanted)
    same = StageKD(z, 1.0)
    assert same(net, data, z, StepContext(Network(net), same, data)).abs().max() < 1e-6


def test_domains_reach_the_stages_that_take_them(toy, trials):
    data, net = trials(40), toy(dropout=0.0)

    class Front(nn.Module):
        def forward(self, x):
            return 1.0 * x

    chain = Stages([Front(), net])
    got = Network(chain)(data)
    net2 = toy(dropout=0.0)
    assert torch.equal(got, net2(data.x, data.domain))
    with pytest.raises(EEGTensorError, match="one a stage"):
        assemble([net], [], data, lambda m, o: None)


def test_linear_layers_are_drawn_from_the_seed_and_teachers_stay():
    torch.manual_seed(0)
    meta, data = meta_stages(), task(60)
    teachers = [layer(12, 10), layer(10, 10), nn.Linear(10, 3)]
    kept = copy.deepcopy([t.state_dict() for t in teachers])
    ends = []
    for seed in (0, 0, 1):
        targets = [layer(12, 6), layer(6, 6), nn.Linear(6, 3)]
        torch.manual_seed(9)
        for p in nn.ModuleList(targets).parameters():
            nn.init.constant_(p, 0.1)
        # What was drawn before must not matter.
        torch.rand(len(ends) + 1)
        before = torch.get_rng_state()
        whole = assemble(
            meta,
            targets,
            data,
            lambda m, o: None,
            teachers=teachers,
            random_state=seed,
        )
        assert torch.equal(torch.get_rng_state(), before)
        ends.append(whole.state_dict())
    for t, k in zip(teachers, kept, strict=True):
        assert all(torch.equal(v, k[n]) for n, v in t.state_dict().items())
        assert all(p.requires_grad for p in t.parameters())
    assert all(torch.equal(v, ends[1][n]) for n, v in ends[0].items())
    assert any(not torch.equal(v, ends[2][n]) for n, v in ends[0].items())
