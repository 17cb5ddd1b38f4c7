"""VAT against the Fisher matrix, and what it must leave alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.models import TSMNet
from eegtensor.training import (
    Batch,
    CrossEntropy,
    Network,
    Setup,
    ShuffleSampler,
    StepContext,
    build,
    make_optimizer,
    train,
)
from eegtensor.training.objectives import TNAR, VAT, Pani
from eegtensor.training.objectives.vat import divergence, entropy_of
from eegtensor.training.perturbations.places import Trials, frozen


def context_of(net, batch, step=10**6):
    g = torch.Generator().manual_seed(0)
    return StepContext(Network(net), None, batch, step=step, generator=g)


@pytest.fixture
def linear():
    """A softmax regression and trials whose features have different scales."""
    g = torch.Generator().manual_seed(1)
    net = nn.Linear(6, 4).double()
    with torch.no_grad():
        net.weight.copy_(torch.randn(4, 6, generator=g, dtype=torch.float64))
    x = torch.randn(9, 6, generator=g, dtype=torch.float64)
    return net, Batch(x * torch.tensor([1.0, 2, 3, 0.5, 1, 1]))


def test_the_direction_is_the_top_eigenvector_of_the_fisher_matrix(linear):
    net, batch = linear
    method = VAT(n_iter=60, xi=1e-5)
    with frozen(net):
        trials = Trials(Network(net), batch)
        before = trials.logits().log_softmax(1).detach()
        noise = trials.noise(torch.Generator().manual_seed(0))
        d = method.direction(trials, before, noise)
    # In standard deviations of each feature, as displacements are.
    W = net.weight.detach() * batch.x.std(0, correction=0)
    for i, p in enumerate(before.exp()):
        fisher = W.T @ (torch.diag(p) - torch.outer(p, p)) @ W
        top = torch.linalg.eigh(fisher)[1][:, -1]
        assert abs(float(d[i] @ top)) > 1 - 1e-6
    torch.testing.assert_close(d.norm(dim=1), torch.ones(9).double())


def test_divergence_of_a_small_step_is_the_fisher_form_and_never_negative(linear):
    net, batch = linear
    context = context_of(net, batch)
    loss = VAT(eps=1e-3, n_iter=60).smoothness(context, batch)
    W = net.weight.detach() * batch.x.std(0, correction=0)
    p = net(batch.x).softmax(1).detach()
    largest = torch.stack(
        [
            torch.linalg.eigvalsh(W.T @ (torch.diag(q) - torch.outer(q, q)) @ W)[-1]
            for q in p
        ]
    )
    torch.testing.assert_close(loss.detach(), largest * 0.5e-6, rtol=1e-2, atol=0)
    for eps in (0.1, 1.0, 10.0):
        assert (VAT(eps=eps).smoothness(context, batch) >= 0).all()


def test_entropy_is_that_of_the_prediction():
    logits = torch.tensor([[0.0, 0.0], [100.0, 0.0]])
    torch.testing.assert_close(entropy_of(logits), torch.tensor([2.0, 1.0]).log())
    assert float(divergence(logits.log_softmax(1), logits).abs().max()) == 0


def test_loss_adds_up_and_grows_with_the_ramp(linear):
    net, batch = linear
    out = net(batch.x)
    whole = VAT(eps=1.0, weight=0.3, entropy=0.2)(
        net, batch, out, context_of(net, batch)
    )
    parts = [
        VAT(eps=1.0, weight=w, entropy=e)(net, batch, out, context_of(net, batch))
        for w, e in ((0.3, 0.0), (0.0, 0.2))
    ]
    torch.testing.assert_close(whole, sum(parts))
    early = VAT(eps=1.0, entropy=0.2)(net, batch, out, context_of(net, batch, step=25))
    torch.testing.assert_close(early, whole / 4)


def trained(trials, toy, objective):
    net, data = toy(), trials()
    train(
        net,
        data,
        objective=objective,
        optimizer=make_optimizer(net, "riemannian-sgd", lr=0.1, weight_decay=0.0),
        sampler=ShuffleSampler(len(data), batch_size=40),
        epochs=2,
        random_state=3,
    )
    return net.state_dict()


def test_without_weights_it_changes_nothing(toy, trials, equal):
    plain = trained(trials, toy, CrossEntropy())
    off = trained(trials, toy, (CrossEntropy(), VAT(weight=0.0, entropy=0.0)))
    assert equal(plain, off)
    on = trained(trials, toy, (CrossEntropy(), VAT(ramp=0)))
    assert not equal(plain, on)


def test_extra_passes_move_no_statistics_and_leave_gradients(toy, trials, equal):
    net, data = toy().train(), trials()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.head.bias.grad = torch.ones(2)
    VAT().smoothness(context_of(net, data), data)
    assert equal(before, net.state_dict())
    assert net.training and net.dropout.training and net.batch_norm.training
    torch.testing.assert_close(net.head.bias.grad, torch.ones(2))


@pytest.mark.parametrize("front", ["conv", "lag"])
def test_spd_networks_are_perturbed_at_their_matrices_in_any_unit(front):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(12, 4, 128, generator=g)
    domain = torch.arange(12) % 2
    losses = []
    for unit in (1e-6, 1.0):
        net = TSMNet(
            4,
            2,
            128,
            domains=("a", "b"),
            subspace=3,
            n_spatial_filters=5,
            random_state=0,
        ).train()
        net.front.path = front
        trials = x * unit
        rows = net.front.statistics(trials) if front == "lag" else trials
        batch = Batch(rows, domain=domain)
        with torch.no_grad():
            net(batch.x, domain)
        loss = VAT(eps=0.5).smoothness(context_of(net, batch), batch)
        assert net.bimap.weight.requires_grad
        losses.append(loss)
    assert (losses[0] > 0).all()
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-9)
    losses[0].sum().backward()


def test_loss_of_signals_does_not_depend_on_their_unit():
    class Scaled(nn.Module):
        def __init__(self, unit):
            super().__init__()
            torch.manual_seed(0)
            self.unit, self.head = unit, nn.Linear(3 * 20, 2)

        def forward(self, x):
            return self.head((x / self.unit).flatten(1))

    x = torch.randn(8, 3, 20, generator=torch.Generator().manual_seed(0))
    found = []
    for unit in (1.0, 1e-6):
        batch = Batch(x * unit)
        found.append(VAT().smoothness(context_of(Scaled(unit), batch), batch))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-9)


def test_matrices_move_by_the_length_asked_for():
    from _toy_training import OfMatrices

    g = torch.Generator().manual_seed(0)
    A = torch.randn(5, 8, 20, generator=g, dtype=torch.float64)
    S = A @ A.mT
    net = OfMatrices(0)
    trials = Trials(Network(net), Batch(S))
    torch.testing.assert_close(
        trials.logits(torch.zeros_like(S)), net(S), rtol=1e-4, atol=1e-5
    )
    mean = S.mean(0)
    same = Trials(Network(net), Batch(mean.expand(5, 8, 8).contiguous()))
    assert float(same.values.abs().max()) < 1e-10
    d = same.noise(g)
    seen = []
    net.tail.register_forward_pre_hook(lambda m, a: seen.append(a[0].detach()))
    same.logits(d)
    # The affine-invariant distance by generalised eigenvalues.
    for i in range(5):
        ratio = torch.linalg.eigvals(torch.linalg.solve(mean, seen[-1][i])).real
        torch.testing.assert_close(ratio.log().norm(), d[i].norm())


def test_mistakes(linear):
    with pytest.raises(EEGTensorError, match="eps=0"):
        VAT(eps=0)
    with pytest.raises(EEGTensorError, match="weight=-1"):
        VAT(weight=-1)
    net, batch = linear
    with pytest.raises(EEGTensorError, match="no SPD matrices"):
        VAT(at="spd").smoothness(context_of(net, batch), batch)


def test_the_usual_length_is_half_the_distance_of_neighbours(linear):
    net, batch = linear
    z = batch.x / batch.x.std(0, correction=0)
    n = range(len(z))
    apart = [min((z[i] - z[j]).norm() for j in n if j != i) for i in n]
    eps = float(torch.stack(apart).median()) / 2
    found = [VAT(eps=e).smoothness(context_of(net, batch), batch) for e in (None, eps)]
    torch.testing.assert_close(*found)
    signals = Batch(torch.randn(5, 3, 12).double())
    flat = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).double()
    found = [
        VAT(eps=e).smoothness(context_of(flat, signals), signals)
        for e in (None, 0.05 * 36**0.5)
    ]
    torch.testing.assert_close(*found)


def test_weights_grow_over_steps_and_are_relative_to_the_labelled_loss(linear):
    net, batch = linear
    y = torch.tensor([0, 1, 2, -1, -1, -1, -1, -1, -1])
    setup = Setup(net, Batch(batch.x, y), n_classes=4)
    _, method = build("vat(ramp=40, weight=0.5, entropy=0.7)", "objective", setup)
    out = net(batch.x)
    context = context_of(net, batch, step=10)
    full = 0.5 * method.smoothness(context, batch) + 0.7 * entropy_of(out)
    for step, share in ((10, 0.25), (40, 1.0), (90, 1.0)):
        context = context_of(net, batch, step=step)
        context.epoch = 30
        torch.testing.assert_close(
            method(net, batch, out, context), full * share * 3 / 9
        )


@pytest.mark.parametrize("method", [VAT(), TNAR(n_directions=2), Pani()])
def test_features_of_the_steps_own_pass_are_kept(method, toy, trials):
    net, data = toy(), trials(24)
    network = Network(net, keeps_features=True)
    context = StepContext(network, None, data, step=500, generator=torch.Generator())
    outputs = network(data)
    own = context.features
    method(net, data, outputs, context)
    assert context.features is own
