"""Patches, their neighbours, and both uses of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, CrossEntropy, Network, StepContext
from eegtensor.training.objectives import Pani
from eegtensor.training.perturbations import PaniMixUp
from eegtensor.training.perturbations.neighbours import PatchNeighbours


def signals(n=6, c=2, t=20, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, c, t, generator=g, dtype=torch.float64)


def patches_of(x, size):
    n, _, t = x.shape
    return [
        [x[i, :, s : s + size].flatten() for s in range(0, t - size + 1, size)]
        for i in range(n)
    ]


def test_neighbours_are_the_nearest_patches_of_allowed_trials():
    x, domain = signals(), torch.tensor([0, 0, 0, 1, 1, 1])
    near = PatchNeighbours(x, domain, patch=6, n_neighbours=4, candidates=0.4)
    p = patches_of(x, 6)
    eta = torch.zeros(near.shape, dtype=torch.float64)
    for i in range(6):
        others = [j for j in range(6) if j != i and domain[j] == domain[i]]
        # Two fifths of five other trials, the nearest as a whole.
        others.sort(key=lambda j: float((x[i] - x[j]).norm()))
        others = others[:2]
        for a in range(3):
            ranked = sorted(
                (float((p[i][a] - p[j][b]).norm()), j, b)
                for j in others
                for b in range(3)
            )
            for k in range(4):
                assert int(near.trial[i, a, k]) == ranked[k][1]
                one = eta.clone()
                one[i, a, k] = 0.5
                moved = (x + near.displacement(one))[i, :, 6 * a : 6 * a + 6].flatten()
                _, j, b = ranked[k]
                torch.testing.assert_close(moved, 0.5 * p[i][a] + 0.5 * p[j][b])


def test_no_coefficients_and_samples_beyond_patches_change_nothing():
    x = signals()
    near = PatchNeighbours(x, None, patch=6)
    assert not near.displacement(torch.zeros(near.shape)).any()
    moved = near.displacement(torch.ones(near.shape, dtype=torch.float64))
    assert not moved[..., 18:].any() and moved[..., :18].any()


def test_a_trial_alone_in_its_domain_has_no_neighbours():
    near = PatchNeighbours(signals(3), torch.tensor([0, 0, 1]), patch=10)
    assert not near.found[2].any()
    assert not near.displacement(torch.ones(near.shape)).to(float)[2].any()


def test_the_gradient_by_the_coefficients_is_that_of_finite_differences():
    near = PatchNeighbours(signals(4, 2, 8), None, patch=4, n_neighbours=3)
    eta = torch.randn(near.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: near.displacement(e).sin().sum(), eta)


def test_pani_finds_a_worse_direction_than_chance():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 3)).double()
    batch = Batch(signals(20))
    losses = []
    for n_iter in (1, 20):
        g = torch.Generator().manual_seed(0)
        context = StepContext(Network(net), None, batch, generator=g)
        losses.append(Pani(eps=0.01, patch=5, n_iter=n_iter).smoothness(context, batch))
    assert (losses[0] >= 0).all() and (losses[1] >= losses[0] * 0.999).all()
    near = PatchNeighbours(
        batch.x / batch.x.std((0, 2), keepdim=True, correction=0), None, patch=5
    )
    scale = batch.x.std((0, 2), keepdim=True, correction=0)
    p = net(batch.x).softmax(1)
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        eta = torch.randn(near.shape, generator=g, dtype=torch.float64)
        # Length .01 sqrt(n_patches), as the method's own.
        eta = 0.02 * eta / eta.flatten(1).norm(dim=1)[:, None, None]
        q = net(batch.x + near.displacement(eta) * scale).log_softmax(1)
        assert ((p * (p.log() - q)).sum(1) < losses[1]).all()


def test_single_precision_and_every_manifold(toy, trials):
    data = trials(40)
    net = toy()
    context = StepContext(Network(net), None, data, step=500)
    loss = Pani()(net, data, torch.zeros(40, 2), context)
    assert loss.shape == (40,) and bool(torch.isfinite(loss).all())
    loss.sum().backward()
    assert net.frame.grad is not None


def mixed(y, **options):
    n = len(y)
    batch = Batch(signals(n), y, torch.arange(n) % 2)
    g = torch.Generator().manual_seed(0)
    context = StepContext(Network(nn.Linear(2, 3)), None, batch, generator=g)
    return batch, PaniMixUp(3, patch=5, **options).sample(context).apply()


def test_mixed_labels_are_shares_and_unknown_trials_stay():
    y = torch.tensor([0, 1, 2, 0, 1, 2, -1, 0, 1, 2])
    before, after = mixed(y, alpha=1.0, mask=0.0)
    known = y >= 0
    torch.testing.assert_close(after.y.sum(1), known.float())
    assert (after.y >= 0).all()
    torch.testing.assert_close(after.x[6], before.x[6])
    assert (after.y[known].max(1).values < 1).any()
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    loss = CrossEntropy()(None, after, logits, None)
    torch.testing.assert_close(loss, -(after.y * logits.log_softmax(1)).sum(1))


def test_label_coefficients_are_those_of_the_signals():
    # One sample a patch and one channel with the value of the class: the mean of
    # a mixed trial is the mean class of its label.
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    x = (y[:, None, None] * torch.ones(6, 1, 8)).double()
    batch = Batch(x, y)
    g = torch.Generator().manual_seed(0)
    context = StepContext(Network(nn.Linear(2, 3)), None, batch, generator=g)
    after = PaniMixUp(3, patch=1, candidates=1.0, n_neighbours=40).sample(context)
    after = after.apply()
    torch.testing.assert_close(
        after.x.mean((1, 2)),
        (after.y.double() * torch.arange(3)).sum(1),
        atol=1e-6,
        rtol=0,
    )
    assert float((after.x - x).abs().max()) > 0.1


def test_all_masked_changes_nothing_and_sizes_do_not_depend_on_the_unit():
    y = torch.tensor([0, 1, 2, 0])
    before, after = mixed(y, mask=0.999999)
    torch.testing.assert_close(after.x, before.x)


def test_mistakes():
    with pytest.raises(EEGTensorError, match="patch=0"):
        Pani(patch=0)
    with pytest.raises(EEGTensorError, match="alpha=0"):
        PaniMixUp(alpha=0)


def test_the_length_of_eta_is_eps_a_patch(monkeypatch):
    lengths = []

    class Watched(PatchNeighbours):
        def displacement(self, eta):
            lengths.append(eta.detach().flatten(1).norm(dim=1))
            return super().displacement(eta)

    monkeypatch.setattr("eegtensor.training.objectives.pani.PatchNeighbours", Watched)
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 3)).double()
    batch = Batch(signals(8))
    g = torch.Generator().manual_seed(0)
    context = StepContext(Network(net), None, batch, generator=g)
    Pani(eps=0.3, patch=5).smoothness(context, batch)
    torch.testing.assert_close(lengths[0], torch.full((8,), 1e-2).double())
    torch.testing.assert_close(lengths[-1], torch.full((8,), 0.3 * 4**0.5).double())


def test_patches_are_of_the_nearest_trials_alone():
    x = signals(9)
    near = PatchNeighbours(x, None, patch=5, n_neighbours=4, candidates=0.25)
    for i in range(9):
        others = sorted(range(9), key=lambda j: float((x[i] - x[j]).norm()))[1:3]
        assert set(near.trial[i].unique().tolist()) <= set(others)
