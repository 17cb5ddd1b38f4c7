"""AdvStyle: what a style is, which way its strength goes, and that it is undone."""

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
    ShuffleSampler,
    StepContext,
    make_optimizer,
    train,
)
from eegtensor.training.perturbations import SAM, AdvStyle


def signals(n=10, c=3, t=50, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, c, t, generator=g, dtype=torch.float64)
    return 3 + x * torch.rand(n, c, 1, generator=g, dtype=torch.float64)


def drawn(method, x, want, spd=False):
    """The restyled trials of the first seed that draws what is wanted."""
    for seed in range(50):
        g = torch.Generator().manual_seed(seed)
        draw = float(torch.rand((), generator=g))
        if want[0] <= draw < want[1]:
            return method.restyle(x, torch.Generator().manual_seed(seed), spd), seed
    raise AssertionError


NOTHING, ADVERSARIAL, UNCERTAIN = (0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)


def by_hand(x, seed, spread):
    """Noise of a strength on means and standard deviations, as the paper has it."""
    g = torch.Generator().manual_seed(seed)
    torch.rand((), generator=g)
    mu, s = x.mean(2, keepdim=True), x.std(2, keepdim=True)
    e1 = torch.randn(mu.shape, generator=g, dtype=x.dtype)
    e2 = torch.randn(mu.shape, generator=g, dtype=x.dtype)
    return (x - mu) / s * (s + e2 * spread[1]) + mu + e1 * spread[0]


def spreads(x):
    return [
        part.std(0, keepdim=True)
        for part in (x.mean(2, keepdim=True), x.std(2, keepdim=True))
    ]


def test_the_three_draws_are_those_of_the_paper():
    x, method = signals(), AdvStyle()
    same, _ = drawn(method, x, NOTHING)
    torch.testing.assert_close(same, x, rtol=0, atol=0)
    start = spreads(x)
    other = signals(seed=4)
    # The strength stays what the first batch gave; DSU's is that of each batch.
    new, seed = drawn(method, other, ADVERSARIAL)
    torch.testing.assert_close(new, by_hand(other, seed, start))
    new, seed = drawn(method, other, UNCERTAIN)
    torch.testing.assert_close(new, by_hand(other, seed, spreads(other)))


def test_the_released_code_adds_a_millionth_under_every_root():
    """Its equations, rewritten; the option alone follows them."""
    x = signals().float()
    mu = x.mean(2, keepdim=True)
    s = (x.var(2, keepdim=True) + 1e-6).sqrt()
    start = [(part.var(0, keepdim=True) + 1e-6).sqrt() for part in (mu, s)]
    for want in (ADVERSARIAL, UNCERTAIN):
        new, seed = drawn(AdvStyle(compat="released"), x, want)
        g = torch.Generator().manual_seed(seed)
        torch.rand((), generator=g)
        e1, e2 = (torch.randn(mu.shape, generator=g) for _ in range(2))
        theirs = (x - mu) / s * (s + e2 * start[1]) + mu + e1 * start[0]
        torch.testing.assert_close(new, theirs, rtol=0, atol=1e-6)
        plain, _ = drawn(AdvStyle(), x, want)
        assert 1e-6 < (plain - theirs).abs().max() < 1e-3


def test_volts_and_microvolts_have_the_same_styles():
    x = signals()
    for want in (ADVERSARIAL, UNCERTAIN):
        new, _ = drawn(AdvStyle(), x, want)
        small, _ = drawn(AdvStyle(), 1e-6 * x, want)
        torch.testing.assert_close(1e6 * small, new)
        # Not so with the constant of the released code.
        theirs, _ = drawn(AdvStyle(compat="released"), 1e-6 * x, want)
        assert (1e6 * theirs - new).abs().max() > 1.0


def test_dsu_and_mixstyle():
    x = signals()
    new, seed = drawn(AdvStyle("dsu"), x, (0.5, 1))
    torch.testing.assert_close(new, by_hand(x, seed, spreads(x)))
    new, _ = drawn(AdvStyle("mixstyle"), x, (0.5, 1))
    mu, low, high = new.mean(2), x.mean(2).amin(0), x.mean(2).amax(0)
    assert (mu >= low - 1e-9).all() and (mu <= high + 1e-9).all()
    unit = (new - mu[..., None]) / new.std(2, keepdim=True)
    torch.testing.assert_close(
        unit, (x - x.mean(2, keepdim=True)) / x.std(2, keepdim=True)
    )
    assert not torch.allclose(new, x)


def test_a_style_of_matrices_is_a_gain_of_channels():
    x = signals()
    S = x @ x.mT / 50
    new, _ = drawn(AdvStyle(), S, ADVERSARIAL, spd=True)
    gain = (new.diagonal(dim1=1, dim2=2) / S.diagonal(dim1=1, dim2=2)).sqrt()
    torch.testing.assert_close(new, gain[:, :, None] * S * gain[:, None])
    assert not torch.allclose(gain, torch.ones_like(gain))
    # In another unit the gain is the same.
    far, _ = drawn(AdvStyle(), S * 1e-12, ADVERSARIAL, spd=True)
    torch.testing.assert_close(far * 1e12, new)


class Worse(nn.Module):
    """Its loss rises or falls with the size of noise on the means."""

    def __init__(self, sign):
        super().__init__()
        self.sign, self.w = sign, nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.sign * (x.mean(2) - 3).square().mean() + 0 * self.w


class Value:
    per_trial = False

    def __call__(self, model, batch, outputs, context):
        return outputs


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_step_raises_the_strength_where_that_raises_the_loss(sign, strength):
    x, net = signals(), Worse(sign)
    method = AdvStyle(strength=strength, lr=1.0, at="input")
    train(
        net,
        Batch(x),
        objective=Value(),
        optimizer=make_optimizer(net, "sgd", lr=0.1, weight_decay=0.0),
        sampler=ShuffleSampler(10, batch_size=10),
        epochs=12,
        perturbation=method,
        random_state=0,
    )
    change = method.ratio[0].detach() - 1
    if strength == 0:
        assert not change.any()
    else:
        assert (change * sign > 0).all()
    assert float(method.ratio[0].max()) <= 3


def test_hooks_are_gone_and_statistics_are_those_of_clean_trials():
    def net_of():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv1d(3, 4, 5), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(184, 2)
        )

    x = signals(20).float()
    y = torch.arange(20) % 2
    state = []
    for perturbation in ((), AdvStyle(at="0"), (AdvStyle(at="0"), SAM())):
        net = net_of()
        train(
            net,
            Batch(x, y),
            objective=CrossEntropy(),
            optimizer=make_optimizer(net, "sgd", lr=0.0, weight_decay=0.0),
            sampler=ShuffleSampler(20, batch_size=20),
            epochs=3,
            perturbation=perturbation,
        )
        assert not net[0]._forward_hooks and not net._forward_pre_hooks
        state.append(net[1].running_mean.clone())
    torch.testing.assert_close(state[1], state[0])
    torch.testing.assert_close(state[2], state[0])


def test_both_passes_of_a_step_see_the_same_styles():
    x, seen = signals(), []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, x):
            seen.append(x.detach().clone())
            return (x * self.w).mean()

    net = Spy()
    train(
        net,
        Batch(x),
        objective=Value(),
        optimizer=make_optimizer(net, "sgd", lr=0.1, weight_decay=0.0),
        sampler=ShuffleSampler(10, batch_size=10),
        epochs=4,
        perturbation=(AdvStyle(at="input"), SAM()),
    )
    assert len(seen) == 8
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert any(
        not torch.allclose(a, b) for a, b in zip(seen[:6:2], seen[2::2], strict=True)
    )


def test_a_network_of_matrices():
    x = signals(12, 4, 128).float()
    domain = torch.arange(12) % 2
    net = TSMNet(
        4, 2, 128, domains=("a", "b"), subspace=3, n_spatial_filters=5, random_state=0
    )
    method = AdvStyle()
    train(
        net,
        Batch(x, domain, domain),
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "riemannian-adam"),
        sampler=ShuffleSampler(12, batch_size=6),
        epochs=3,
        perturbation=method,
    )
    state = method.state_dict()
    again = AdvStyle()
    again.load_state_dict(state)
    torch.testing.assert_close(again.ratio[0], method.ratio[0])


def test_mistakes():
    with pytest.raises(EEGTensorError, match="most=0"):
        AdvStyle(most=0)
    with pytest.raises(EEGTensorError, match="compat"):
        AdvStyle(compat="paper")
    with pytest.raises(EEGTensorError, match="kind"):
        AdvStyle("style")
    g = torch.Generator()
    context = StepContext(
        Network(nn.Linear(2, 2)), None, Batch(torch.ones(2, 2)), generator=g
    )
    delta = AdvStyle(at="input").sample(context)
    delta.apply()
    with pytest.raises(EEGTensorError, match="channels over time"):
        context.network.model(torch.ones(2, 2))
    delta.revert()
    with pytest.raises(EEGTensorError, match="at="):
        AdvStyle(at="nowhere").sample(context)
