"""RiFT: one weight moves, no further than robustness allows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch
from eegtensor.training.recipes import rift
from eegtensor.training.recipes._oneweight import Climb
from eegtensor.training.recipes.rift import between
from eegtensor.training.space import ParamSpace


def copied(net):
    return {name: v.clone() for name, v in net.state_dict().items()}


def test_only_one_weight_changes(small, drawn):
    net = small()
    before = copied(net)
    found = rift(net, drawn(30), ascent_epochs=2, epochs=3, lr=0.1, n_alphas=3)
    moved = {n for n, v in net.state_dict().items() if not torch.equal(v, before[n])}
    assert moved <= {found.name}
    assert found.name == min(found.criticality, key=found.criticality.get)
    assert set(found.criticality) == {"front.weight", "hidden.weight", "head.weight"}
    assert [step[0] for step in found.steps] == [0.0, 0.5, 1.0]


def test_alpha_zero_is_the_robust_network_bit_for_bit(small, drawn):
    net = small()
    before = copied(net)
    space = ParamSpace(net)
    start = space.snapshot()
    tuned = start["head.weight"] + 1.0
    points = between(space, start, "head.weight", tuned, 0.0)
    assert all(torch.equal(points[n], before[n]) for n in points)
    half = between(space, start, "head.weight", tuned, 0.5)["head.weight"]
    torch.testing.assert_close(half, before["head.weight"] + 0.5)
    # A rate of nothing leaves all steps alike: the first one is taken.
    found = rift(net, drawn(30), ascent_epochs=1, epochs=1, lr=1e-300, n_alphas=3)
    assert found.alpha == 0.0
    assert all(torch.equal(v, before[n]) for n, v in net.state_dict().items())


class Deaf(nn.Module):
    """What its first weight says is multiplied by nothing."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.heard, self.unheard = nn.Linear(18, 8), nn.Linear(18, 8)
            self.head = nn.Linear(8, 3)
        self.double()

    def forward(self, x):
        x = x.flatten(1)
        return self.head((self.heard(x) + 0.0 * self.unheard(x)).tanh())


def test_a_weight_that_is_not_heard_is_not_critical(drawn):
    found = rift(Deaf(), drawn(30), ascent_epochs=2, epochs=1, n_alphas=2)
    assert found.criticality["unheard.weight"] == 0.0
    assert found.criticality["heard.weight"] > 0 and found.name == "unheard.weight"


def test_criticality_of_a_linear_network_is_that_of_the_gradient(drawn):
    """For a small radius the loss rises by radius ||W|| ||dL/dW||."""
    batch = drawn(30)
    net = nn.Sequential(nn.Flatten(), nn.Linear(18, 3)).double()
    radius = 1e-4
    found = rift(
        net, batch, radius=radius, eps=1e-9, ascent_epochs=30, ascent_lr=1.0,
        epochs=1, lr=1e-300, n_alphas=2,
    )  # fmt: skip
    nn.functional.cross_entropy(net(batch.x), batch.y).backward()
    wanted = radius * net[1].weight.norm() * net[1].weight.grad.norm()
    assert found.criticality["1.weight"] == pytest.approx(float(wanted), rel=1e-3)


def test_climbs_stay_on_manifolds_and_within_the_radius(toy):
    net = toy(dtype=torch.float64)
    with torch.no_grad():
        net.shape.copy_(torch.diag(torch.tensor([0.1, 1.0, 10.0]).double()))
    space, g = ParamSpace(net), torch.Generator().manual_seed(0)
    for name in ("frame", "shape", "head.weight"):
        climb = Climb(space, name, 0.1, 1.0)
        for _ in range(3):
            p = climb(torch.randn(climb.base.shape, generator=g, dtype=torch.float64))
        adapter = space.adapters[name]
        length = adapter.inner(climb.base, climb.u, climb.u).sqrt()
        size = {"frame": 3**0.5, "shape": 3**0.5}.get(name, climb.base.norm())
        assert float(length) == pytest.approx(0.1 * float(size), rel=1e-9)
        if name == "frame":
            assert (p.mT @ p - torch.eye(3)).abs().max() < 1e-12
        if name == "shape":
            assert torch.linalg.eigvalsh(p).min() > 0


def test_manifolds_statistics_and_modes(toy, trials, equal):
    net, data = toy(), trials(60)
    net.train()
    buffers = {n: b.clone() for n, b in net.named_buffers()}
    found = rift(
        net, data, ascent_epochs=1, epochs=2, lr=0.05, n_alphas=3, batch_size=30
    )
    assert {"frame", "shape", "head.weight"} <= set(found.criticality)
    frame, shape = net.frame.detach(), net.shape.detach()
    assert (frame.mT @ frame - torch.eye(3)).abs().max() < 1e-5
    assert torch.linalg.eigvalsh(shape).min() > 0
    assert equal(buffers, dict(net.named_buffers()))
    assert net.training and net.dropout.training


@pytest.mark.slow
def test_clean_accuracy_rises_and_robust_accuracy_stays(toy_trained, robust):
    # Specification: robust accuracy within half a point, clean accuracy not below.
    eps = 0.3
    for seed in range(3):
        net, data, _ = toy_trained(seed, perturbation=f"pgd(eps={eps})", epochs=15)
        before = robust(net, data, eps, n_steps=10)
        found = rift(net, data, eps=eps, lr=0.01)
        after = robust(net, data, eps, n_steps=10)
        assert found.steps[0][1] == pytest.approx(before[0])
        assert after[0] >= before[0]
        assert after[1] > before[1] - 0.005


def test_mistakes(small, drawn):
    for options in ({"radius": 0.0}, {"n_alphas": 1}, {"epochs": 0}, {"eps": -1.0}):
        with pytest.raises(EEGTensorError, match=next(iter(options))):
            rift(small(), drawn(), **options)
    frozen = small().requires_grad_(False)
    with pytest.raises(EEGTensorError, match="no weight"):
        rift(frozen, drawn())
    with pytest.raises(EEGTensorError, match="without labels"):
        rift(small(), Batch(drawn().x))
