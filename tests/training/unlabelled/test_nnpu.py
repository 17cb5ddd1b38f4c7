"""The non-negative risk by hand, and against labels of every trial."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    CrossEntropy,
    ShuffleSampler,
    forward_all,
    make_optimizer,
    train,
)
from eegtensor.training.objectives import NNPU


def risk(f, y, **options):
    net = nn.Identity().train()
    out = torch.stack([torch.zeros_like(f), f], 1)
    return NNPU(**options)(net, Batch(f[:, None], y), out, None)


def numbers(n=12):
    g = torch.Generator().manual_seed(0)
    f = torch.randn(n, generator=g, dtype=torch.float64).requires_grad_()
    y = torch.tensor([1, -1, 0, 1, -1, -1, 1, -1, -1, -1, -1, -1])
    return f, y


@pytest.mark.parametrize("loss", ["sigmoid", "logistic"])
def test_risk_is_that_of_the_equation(loss):
    f, y = numbers()
    of = {
        "sigmoid": lambda t: 1 / (1 + t.exp()),
        "logistic": lambda t: (1 + (-t).exp()).log(),
    }[loss]
    p, u = y == 1, y != 1
    prior = 0.3
    rest = of(-f[u]).mean() - prior * of(-f[p]).mean()
    assert rest > 0
    wanted = prior * of(f[p]).mean() + rest
    found = risk(f, y, prior=prior, loss=loss)
    torch.testing.assert_close(found, wanted)
    a, b = (torch.autograd.grad(v, f, retain_graph=True)[0] for v in (found, wanted))
    torch.testing.assert_close(a, b)


def test_where_the_others_would_have_negative_risk_a_step_takes_it_back():
    _, y = numbers()
    f = torch.where(y == 1, 4.0, -4.0).double().requires_grad_()
    prior = 0.6
    p, u = y == 1, y != 1
    rest = torch.sigmoid(f[u]).mean() - prior * torch.sigmoid(f[p]).mean()
    assert rest < 0
    found = risk(f, y, prior=prior, gamma=0.5)
    # The value is the risk with 0 in its place, algorithm 1 goes up its slope.
    torch.testing.assert_close(found, prior * torch.sigmoid(-f[p]).mean())
    slope = torch.autograd.grad(-0.5 * rest, f)[0]
    torch.testing.assert_close(torch.autograd.grad(found, f)[0], slope)
    still = NNPU(prior)(
        nn.Identity().eval(), Batch(f[:, None], y), torch.stack([0 * f, f], 1), None
    )
    torch.testing.assert_close(still, found)


@pytest.mark.parametrize("prior", [0.3, 0.5])
def test_accuracy_is_within_three_points_of_all_labels(prior):
    g = torch.Generator().manual_seed(0)
    n = 3000
    truth = (torch.rand(n, generator=g) < prior).long()
    x = torch.randn(n, 5, generator=g)
    x[:, :2] += 1.1 * (2.0 * truth[:, None] - 1)
    # Unlabelled trials are drawn from all, as the prior says.
    extra = torch.randn(200, 5, generator=g)
    extra[:, :2] += 1.1
    marked = Batch(
        torch.cat([x[:1500], extra]),
        torch.cat([torch.full((1500,), -1), torch.ones(200).long()]),
    )
    scores = []
    for objective, data in (
        (CrossEntropy(), Batch(x[:1500], truth[:1500])),
        (NNPU(prior), marked),
    ):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2))
        train(
            net,
            data,
            objective=objective,
            optimizer=make_optimizer(net, "adam", lr=0.01, weight_decay=0.0),
            sampler=ShuffleSampler(len(data), batch_size=200),
            epochs=15,
            random_state=0,
        )
        guess = forward_all(net, Batch(x[1500:])).argmax(1)
        scores.append(float((guess == truth[1500:]).double().mean()))
    assert scores[1] > scores[0] - 0.03


def test_mistakes():
    with pytest.raises(EEGTensorError, match="prior=1"):
        NNPU(prior=1)
    with pytest.raises(EEGTensorError, match="n_outputs=2"):
        y = torch.tensor([1, 0])
        NNPU(0.5)(nn.Identity(), Batch(torch.ones(2, 1), y), torch.ones(2, 3), None)
