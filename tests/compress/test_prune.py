"""Pruning by polarised gates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.compress import (
    Compressor,
    FineTune,
    Gate,
    PolarisedSize,
    Prune,
    compress,
    find_pairs,
)
from eegtensor.compress.gates import Gated
from eegtensor.compress.prune import open_shares
from eegtensor.models import TSMNet
from eegtensor.training import Batch, StepContext, forward_all

N_USEFUL, N_NOISE = 16, 48


class Log(nn.Module):
    """Log power, so that a closed channel stays zero: log(1 + power)."""

    def forward(self, x):
        return x.square().mean(2).log1p()


class Filters(nn.Module):
    """64 filters of which 16 see the brain and 48 nothing but noise."""

    def __init__(self):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            super().__init__()
            self.chain = nn.Sequential(
                nn.Conv1d(16, N_USEFUL + N_NOISE, 1, bias=False),
                nn.BatchNorm1d(N_USEFUL + N_NOISE, affine=False),
                nn.Identity(),
                nn.Conv1d(N_USEFUL + N_NOISE, 12, 1),
            )
            self.log = Log()
            self.head = nn.Linear(12, 3)
        with torch.no_grad():
            self.chain[0].weight[:N_USEFUL, 8:] = 0
            self.chain[0].weight[N_USEFUL:, :8] = 0

    def forward(self, x):
        return self.head(self.log(self.chain(x)))


@pytest.fixture(scope="module")
def noisy(toy):
    """Trials with eight channels more, of noise alone."""
    g = torch.Generator().manual_seed(0)

    def add(data):
        noise = torch.randn(data.x.shape, generator=g)
        return Batch(torch.cat([data.x, noise], dim=1), data.y)

    return [add(part) for part in toy]


@pytest.fixture(scope="module")
def pruned(noisy):
    """A gated network that was trained, and its compressor."""
    net, maker = Filters(), Prune(keep=0.25, size=10.0, refit=False)
    tune = FineTune(noisy[0], epochs=20, batch_size=40, lr=1e-2)
    tune(net, Compressor())
    made = maker.prepare(net, noisy[0])
    FineTune(noisy[0], epochs=30, batch_size=40, lr=1e-2)(made, maker)
    return net, made, maker


def test_the_pruned_network_does_what_the_gated_one_did(pruned, noisy, score):
    net, made, maker = pruned
    shares = torch.cat(list(open_shares(made, noisy[0]).values()))
    assert float((shares * (1 - shares)).mean()) < 0.01
    kept = shares >= 0.5
    # Of the size that was asked for; what sees the brain stays more often.
    assert abs(float(kept.float().mean()) - 0.25) <= 0.03
    assert kept[:N_USEFUL].float().mean() > 2 * kept[N_USEFUL:].float().mean()
    x = noisy[1]
    alike = bool(((shares == 0) | (shares == 1)).all())
    gated = made.chain[3]
    assert isinstance(gated, Gated)
    if not alike:
        # Trials that vote as all do: the rest of the check is of them.
        gated.gate.bias.data = torch.where(kept, 50.0, -50.0)
        gated.gate.second.data.zero_()
    before = forward_all(made, x)
    points = score(made, x)
    small = maker.finish(made, noisy[0])
    assert (
        forward_all(small, x) - before
    ).abs().max() <= 1e-6 * before.abs().max() + 1e-6
    assert small.chain[0].weight.shape[0] == small.chain[1].num_features == kept.sum()
    assert small.chain[3].weight.shape == (12, kept.sum(), 1)
    assert (
        type(small.chain[3]) is nn.Conv1d and small.chain[0].out_channels == kept.sum()
    )
    assert points > score(net, x) - 2.0


def test_gates_close_and_open_and_know_no_unit():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 6, 40, generator=g)
    gate = Gate(6, 1, like=x)
    assert torch.equal(gate(x), x)
    with torch.no_grad():
        gate.bias[:3] = -1.0
        gate.second.copy_(torch.randn(6, 1, generator=g))
    told = gate(x)
    share = torch.sigmoid(gate.pool(x) @ gate.first.mT @ gate.second.mT + gate.bias)
    assert torch.equal(told, x * (share > 0.5)[:, :, None])
    assert torch.equal(gate(1e-6 * x) != 0, told != 0)
    rows = Gate(6, -1, like=x)
    assert rows.pool(torch.randn(5, 3, 4, 6)).shape == (5, 6)
    # Straight through: the gradient of the sigmoid.
    gate.zero_grad()
    gate(x)
    gate.open.sum().backward()
    assert torch.allclose(
        gate.bias.grad, (share * (1 - share)).sum(0).detach(), rtol=1e-5
    )


def test_the_loss_is_zero_only_for_agreed_gates_of_the_wanted_size():
    net = nn.Sequential(Gated(Gate(4, 1, like=torch.zeros(1)), nn.Identity(), 2.0))
    loss = PolarisedSize(target=0.5)
    context = StepContext(None, None, None, epoch=9, n_epochs=10)
    net[0].gate.open = torch.tensor([[1.0, 1, 0, 0]] * 4)
    assert float(loss(net, None, None, context)) == 0.0
    net[0].gate.open = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1]])
    assert float(loss(net, None, None, context)) == pytest.approx(0.25)
    context.epoch = 1
    assert float(loss(net, None, None, context)) == 0.0
    net[0].gate.open = torch.ones(3, 4)
    assert float(loss(net, None, None, context)) == pytest.approx(4 * 0.25)


def test_pairs_are_layers_with_nothing_between_that_mixes(waves, net):
    assert find_pairs(waves()) == {"3": ("0", ["1"])}
    assert find_pairs(net) == {"body.4": ("body.1", ["body.2"])}
    found = find_pairs(net, [("body.4", "head")])
    assert found["head"] == ("body.4", [])
    with pytest.raises(EEGTensorError, match="does not take"):
        find_pairs(net, [("body.1", "body.1")])
    with pytest.raises(EEGTensorError, match="0 layers"):
        find_pairs(net, [("nothing", "head")])
    # A layer norm mixes channels.
    mixed = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    assert find_pairs(mixed) == {}


def test_chains_of_pruned_layers_and_int8(waves, toy):
    chain = nn.Sequential(
        nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)
    )
    maker = Prune(keep=0.5, refit=False)
    made = maker.prepare(chain)
    for k, gated in enumerate(m for m in made if isinstance(m, Gated)):
        gated.gate.bias.data[: 5 + k] = -9.0
    x = Batch(torch.randn(30, 8))
    before = forward_all(made, x)
    small = maker.finish(made, x)
    assert [m.weight.shape for m in small if isinstance(m, nn.Linear)] == [
        (15, 8),
        (14, 15),
        (3, 14),
    ]
    assert torch.allclose(forward_all(small, x), before, atol=1e-6)
    both = compress(chain, "prune(keep=0.5) | int8(min_size=1)", data=x)
    assert forward_all(both, x).shape == (30, 3)


def test_a_network_without_pairs(toy):
    net = TSMNet(8, 2, 64, domains=[("a", "0", "0")], random_state=0)
    with pytest.raises(EEGTensorError, match="no two layers"):
        compress(net, "prune", data=toy[0])
