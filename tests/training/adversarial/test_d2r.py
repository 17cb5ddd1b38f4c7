"""D2R: its terms by hand, its limits, and its guide."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Setup, build
from eegtensor.training.objectives import D2R
from eegtensor.training.objectives.d2r import distance


def by_hand(net, guide, batch, method, seed=7):
    """The loss of the docstring, with an ascent of its own."""
    b, budget, x, y = method.beta, method.budget, batch.x, batch.y
    s = x.std(dim=(0, 2), correction=0)[:, None]
    g = torch.Generator().manual_seed(seed)
    d = budget.eps * (2 * torch.rand(x.shape, generator=g, dtype=x.dtype) - 1)
    for _ in range(budget.n_steps):
        d.requires_grad_()
        up = (
            b
            * torch.autograd.grad(
                F.cross_entropy(net(x + s * d), y, reduction="sum"), d
            )[0]
        )
        if guide is not None:
            other = F.cross_entropy(guide(x + s * d), y, reduction="sum")
            up = up + (1 - b) * torch.autograd.grad(other, d)[0]
        d = (d.detach() + budget.step_size * up.sign()).clamp(-budget.eps, budget.eps)
    clean, there = net(x), net(x + s * d)

    def kl(p, q):
        return F.kl_div(q.log_softmax(1), p.softmax(1), reduction="none").sum(1)

    loss = F.cross_entropy(clean, y, reduction="none")
    loss = loss + method.clean_weight * kl(clean, there)
    if guide is not None:
        shown = guide(x + s * d).detach()
        loss = loss + kl(shown, there)
        loss = loss + method.logit_weight * ((there - shown) ** 2).mean(1)
    return loss


@pytest.mark.parametrize(
    "options",
    [{}, {"beta": 0.2}, {"beta": 0.0}, {"logit_weight": 0.0, "clean_weight": 1.0}],
    ids=str,
)
def test_values_and_gradients_are_those_of_the_equations(
    small, drawn, context, options
):
    net, guide, batch = small(), small(seed=5), drawn()
    method = D2R(guide, eps=0.3, n_steps=4, **options)
    found = method(net, batch, net(batch.x), context(net, batch))
    wanted = by_hand(net, guide, batch, method)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    a, b = (
        torch.autograd.grad(loss.sum(), list(net.parameters()))
        for loss in (found, wanted)
    )
    for one, two in zip(a, b, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
    assert all(p.grad is None for p in guide.parameters())


def test_without_a_guide_it_is_trades_with_an_attack_on_the_cross_entropy(
    small, drawn, context
):
    net, batch = small(), drawn()
    method = D2R(None, eps=0.3, n_steps=4, clean_weight=6.0)
    assert method.beta == 1.0
    found = method(net, batch, net(batch.x), context(net, batch))
    torch.testing.assert_close(
        found, by_hand(net, None, batch, method), rtol=0, atol=1e-12
    )


def test_distances_between_logits():
    g = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 9, 4, generator=g, dtype=torch.float64)
    a, b = p.softmax(1), q.softmax(1)
    kl = (a * (a / b).log()).sum(1)
    torch.testing.assert_close(distance(p, q, "kl"), kl)
    torch.testing.assert_close(distance(p, q, "ce"), kl - (a * a.log()).sum(1))
    torch.testing.assert_close(distance(p, q, "mse"), ((a - b) ** 2).sum(1))
    m = (a + b) / 2
    js = ((a * (a / m).log()).sum(1) + (b * (b / m).log()).sum(1)) / 2
    torch.testing.assert_close(distance(p, q, "js"), js)
    torch.testing.assert_close(distance(q, p, "js"), js)


def test_trials_without_label(small, drawn, context):
    net, batch = small(), drawn()
    none = Batch(batch.x, torch.full_like(batch.y, -1))
    method = D2R(None, eps=1e-9, n_steps=1)
    found = method(net, none, net(batch.x), context(net, none))
    assert float(found.abs().max()) < 1e-12


def test_only_clean_trials_move_statistics(toy, trials, context, equal):
    net, other, batch = toy(dropout=0.0), toy(dropout=0.0), trials(40)
    guide = toy(seed=3)
    guide_before = {k: v.clone() for k, v in guide.state_dict().items()}
    method = D2R(guide, n_steps=2)
    c = context(net, batch, method)
    c.loss(batch)
    context(other, batch).network(batch)
    assert equal(dict(net.named_buffers()), dict(other.named_buffers()))
    assert equal(guide_before, dict(guide.state_dict()))


def test_the_guide_by_name_is_trained_on_attacked_trials(toy_person, robust):
    from _toy_training import Perceptron

    data, test = toy_person(0)
    net = Perceptron(0)
    setup = Setup(net, data, n_classes=3, epochs=10, batch_size=50)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    _, made = build("d2r(eps=0.3, n_steps=3)", "objective", setup)
    guide = made.guide.model
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    clean, attacked = robust(guide, test, 0.3)
    assert clean > 0.6 and attacked > 0.3
    _, alone = build("d2r(guide='none')", "objective", setup)
    assert alone.guide is None


@pytest.mark.slow
def test_as_robust_as_pgd(toy_trained, robust):
    # Specification: robust accuracy not below that of PGD-AT.
    eps, means = 0.3, {}
    for name, options in {
        "pgd": {"perturbation": "pgd(eps=0.3)"},
        "d2r": {"objective": "d2r(eps=0.3)"},
        "alone": {"objective": "d2r(eps=0.3, guide='none')"},
    }.items():
        found = [toy_trained(seed, **options) for seed in range(3)]
        means[name] = sum(robust(n, t, eps)[1] for n, _, t in found) / 3
    assert means["d2r"] >= means["pgd"]


def test_mistakes(small):
    for options in (
        {"beta": 2.0},
        {"logit_weight": -1.0},
        {"clean_weight": -1.0},
        {"distance": "l1"},
        {"eps": 0.0},
    ):
        with pytest.raises(EEGTensorError, match=next(iter(options))):
            D2R(small(), **options)
    with pytest.raises(EEGTensorError, match="guide"):
        D2R("robust")
