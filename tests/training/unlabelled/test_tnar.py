"""TNAR on a ring, where tangents are known, and its projections."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Network, StepContext
from eegtensor.training.objectives import TNAR, VAT
from eegtensor.training.objectives.tnar import tangent_basis
from eegtensor.training.perturbations.places import Trials, frozen


def ring(n=200, noise=0.0):
    g = torch.Generator().manual_seed(0)
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    x = torch.stack([angle.cos(), angle.sin()], 1)
    return x * (1 + noise * torch.randn(n, 1, generator=g, dtype=torch.float64))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3)).double()


def found(method, net, batch):
    context = Network(net)
    g = torch.Generator().manual_seed(0)
    with frozen(net):
        trials = Trials(context, batch)
        before = trials.logits().log_softmax(1).detach()
        return method.directions(trials, before, g)


def test_tangent_steps_stay_on_the_ring_and_normal_ones_leave_it():
    x = ring(noise=0.002)
    method = TNAR(n_directions=1, neighbours=6)
    tangent, normal = found(method, network(), Batch(x))
    scale = x.std(0, correction=0)
    radius = x.norm(dim=1)
    along = (x + 0.1 * tangent * scale).norm(dim=1)
    across = (x + 0.1 * normal * scale).norm(dim=1)
    assert float(((along - radius) / radius).abs().max()) < 0.01
    assert float(((across - radius) / radius).abs().min()) > 0.05


def test_directions_are_unit_and_orthogonal_and_within_their_spaces():
    g = torch.Generator().manual_seed(0)
    net = nn.Linear(12, 3).double()
    x = torch.randn(30, 12, generator=g, dtype=torch.float64)
    tangent, normal = found(TNAR(n_directions=4), net, Batch(x))
    assert float((tangent * normal).sum(1).abs().max()) < 1e-12
    torch.testing.assert_close(tangent.norm(dim=1), torch.ones(30).double())
    torch.testing.assert_close(normal.norm(dim=1), torch.ones(30).double())
    # An independent principal component analysis.
    z = x / x.std(0, correction=0)
    principal = torch.linalg.svd(z - z.mean(0))[2][:4]
    torch.testing.assert_close((tangent @ principal.T) @ principal, tangent)


def test_basis_is_orthonormal_and_short_where_trials_span_less():
    g = torch.Generator().manual_seed(0)
    V = (
        torch.randn(20, 2, generator=g).double()
        @ torch.randn(2, 9, generator=g).double()
    )
    for neighbours, rows in ((None, 1), (8, 20)):
        basis = tangent_basis(V, 5, neighbours)
        assert basis.shape == (rows, 5, 9)
        gram = basis @ basis.mT
        wanted = torch.diag(torch.tensor([1.0, 1, 0, 0, 0])).double().expand_as(gram)
        torch.testing.assert_close(gram, wanted, atol=1e-8, rtol=0)


def test_with_all_directions_tangent_it_is_vat():
    net, batch = network(), Batch(ring(40))
    losses = []
    for method in (VAT(eps=0.3, n_iter=20), TNAR(eps=0.3, n_directions=2, n_iter=20)):
        g = torch.Generator().manual_seed(0)
        context = StepContext(Network(net), None, batch, generator=g)
        losses.append(method.smoothness(context, batch))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=1e-12)


def test_a_toy_of_every_manifold_trains(toy, trials):
    data = trials(40)
    context = StepContext(Network(toy()), None, data, step=500)
    loss = TNAR(n_directions=3)(toy(), data, torch.zeros(40, 2), context)
    assert loss.shape == (40,) and bool(torch.isfinite(loss).all())


def test_mistakes():
    with pytest.raises(EEGTensorError, match="n_directions=5, neighbours=3"):
        TNAR(n_directions=5, neighbours=3)
    with pytest.raises(EEGTensorError, match="eps_normal"):
        TNAR(eps_normal=0)


def test_the_normal_part_alone_counts():
    net, batch = network(), Batch(ring(20))

    def loss(**weights):
        g = torch.Generator().manual_seed(0)
        context = StepContext(Network(net), None, batch, step=500, generator=g)
        method = TNAR(eps=0.3, n_directions=1, entropy=0.0, **weights)
        return method(net, batch, net(batch.x), context).detach()

    both, along = loss(weight_normal=0.5), loss(weight_normal=0.0)
    across = loss(weight=0.0, weight_normal=0.5)
    assert across.max() > 0 and along.max() > 0
    torch.testing.assert_close(both, along + across)


def test_usual_lengths_are_half_the_distance_of_neighbours_and_a_fifth():
    net, batch = network(), Batch(ring(20))
    usual = float(Trials(Network(net), batch).usual_distance()) / 2

    def found(**options):
        g = torch.Generator().manual_seed(0)
        context = StepContext(Network(net), None, batch, generator=g)
        return TNAR(n_directions=1, **options).divergences(context, batch)

    given = found(eps=usual, eps_normal=usual / 5)
    for one, two in zip(found(), given, strict=True):
        torch.testing.assert_close(one, two)
