"""The smooth adversarial loss: its bound, its maximum, and what it must not touch."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, ShuffleSampler, make_optimizer, train
from eegtensor.training.objectives import CompSum, SmoothAdversarial, comp_sum


def phi(S, tau):
    return S.log1p() if tau == 1 else ((1 + S) ** (1 - tau) - 1) / (1 - tau)


@pytest.mark.parametrize("K", [2, 4, 8])
@pytest.mark.parametrize("rho", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 1.7, 2.0])
def test_chain_of_inequalities_on_random_margins(K, rho, tau):
    g = torch.Generator().manual_seed(K)
    clean = 3 * torch.randn(2000, K - 1, generator=g, dtype=torch.float64)
    scale = torch.rand(2000, 1, generator=g, dtype=torch.float64) * 4
    moved = clean + scale * torch.randn(2000, K - 1, generator=g, dtype=torch.float64)
    wrong = (moved <= 0).any(dim=1).double()
    ramp = (1 - moved / rho).clamp(0, 1).sum(dim=1)
    z = torch.cat([torch.zeros(2000, 1, dtype=torch.float64), -clean], dim=1)
    y = torch.zeros(2000, dtype=torch.int64)
    change = (moved - clean).norm(dim=1)
    upper = comp_sum(z / rho, y, tau) + math.sqrt(K - 1) / rho * change
    one = phi(torch.tensor(1.0, dtype=torch.float64), tau)
    assert (one * wrong <= phi(ramp, tau) + 1e-12).all()
    assert (phi(ramp, tau) <= upper + 1e-12).all()
    # The second term is needed: without it the bound fails.
    assert (phi(ramp, tau) > comp_sum(z / rho, y, tau)).any()


class Linear(nn.Module):
    def __init__(self, C=5, T=4, K=3, seed=0, dtype=torch.float64):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        draw = torch.randn(K, C * T, generator=g, dtype=dtype)
        self.head = nn.Linear(C * T, K, dtype=dtype)
        self.head.weight.data = draw
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(x.flatten(1))


def drawn(n=40, C=5, T=4, dtype=torch.float64, seed=3):
    g = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-1, 1, C, dtype=dtype)[:, None]
    x = scale * torch.randn(n, C, T, generator=g, dtype=dtype)
    return x, torch.arange(n) % 3


def loss_of(call, objective, net, x, y, **more):
    return call(objective, net(x), y, model=net, x=x, **more)


def test_without_an_attack_it_is_the_comp_sum_loss(call):
    net, (x, y) = Linear(), drawn()
    wanted = call(CompSum(tau=1.3, rho=2.0), net(x), y)
    for none in ({"eps": 0.0}, {"nu": 0.0}):
        objective = SmoothAdversarial(tau=1.3, rho=2.0, **none)
        assert torch.equal(loss_of(call, objective, net, x, y), wanted)
    with torch.no_grad():
        got = loss_of(call, SmoothAdversarial(tau=1.3), net, x, y)
        assert torch.equal(got, call(CompSum(tau=1.3), net(x), y))
    cross = F.cross_entropy(net(x) / 2.0, y, reduction="none")
    got = loss_of(call, SmoothAdversarial(rho=2.0, nu=0.0), net, x, y)
    torch.testing.assert_close(got, cross, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_maximum_of_a_linear_network_is_the_largest_singular_value(call, seed):
    net, (x, y) = Linear(seed=seed), drawn()
    std = x.std(dim=(0, 2), correction=0).repeat_interleave(4)
    W = net.head.weight.detach() * std
    wanted = torch.stack([torch.linalg.svdvals(W[c] - W)[0] for c in y]) * 0.7
    clean = call(CompSum(), net(x), y)
    nu = math.sqrt(2)
    # Ten steps leave a trial in ten further away, where two singular values are near.
    for n_steps, share_of_trials, worst in ((10, 0.1, 0.8), (100, 0.0, 1 - 1e-6)):
        objective = SmoothAdversarial(eps=0.7, n_steps=n_steps)
        share = (loss_of(call, objective, net, x, y) - clean).detach() / nu / wanted
        assert worst < share.quantile(share_of_trials) and share.max() < 1 + 1e-9


def test_largest_sample_norm_reaches_the_corner(call):
    net, (x, y) = Linear(), drawn()
    std = x.std(dim=(0, 2), correction=0).repeat_interleave(4)
    W = net.head.weight.detach() * std
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 20)
    wanted = torch.stack(
        [((corners @ (W[c] - W).mT) ** 2).sum(dim=1).amax().sqrt() for c in range(3)]
    )
    objective = SmoothAdversarial(eps=0.3, norm="linf", n_steps=20)
    got = loss_of(call, objective, net, x, y) - call(CompSum(), net(x), y)
    share = got.detach() / math.sqrt(2) / (0.3 * wanted[y])
    assert share.max() < 1 + 1e-9 and share.median() > 0.95


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_volts_and_microvolts_give_the_same_loss(call, norm):
    net, (x, y) = Linear(), drawn()
    objective = SmoothAdversarial(norm=norm)
    first = loss_of(call, objective, net, x, y)
    other = Linear()
    other.head.weight.data *= 1e6
    second = loss_of(call, objective, other, x / 1e6, y)
    torch.testing.assert_close(first, second)


def test_a_constant_on_all_logits_changes_nothing(call):
    net, (x, y) = Linear(), drawn()
    first = loss_of(call, SmoothAdversarial(), net, x, y)
    net.head.bias.data += 11.0
    torch.testing.assert_close(loss_of(call, SmoothAdversarial(), net, x, y), first)


def test_gradient_of_the_weights_is_that_at_the_worst_trials(call):
    net, (x, y) = Linear(), drawn(6)

    def value(weight):
        net.head.weight.data = weight.detach()
        return loss_of(call, SmoothAdversarial(n_steps=400), net, x, y).sum()

    w0 = net.head.weight.detach().clone()
    loss = value(w0)
    (g,) = torch.autograd.grad(loss, net.head.weight)
    # Envelope theorem: the maximum's own derivative drops out.
    up = torch.randn(w0.shape, generator=torch.Generator().manual_seed(1)).double()
    h = 1e-5
    numeric = (value(w0 + h * up) - value(w0 - h * up)) / (2 * h)
    torch.testing.assert_close((g * up).sum(), numeric.detach(), rtol=1e-4, atol=0)


def test_statistics_and_features_stay_as_they_were(call, toy, trials, equal):
    net, data = toy(), trials(32)
    net.train()
    outputs = net(data.x, data.domain)
    kept = {k: v.clone() for k, v in net.state_dict().items()}
    features = torch.zeros(32, 3)
    objective = SmoothAdversarial(n_steps=3)
    loss = call(
        objective,
        outputs,
        data.y,
        model=net,
        x=data.x,
        domain=data.domain,
        features=features,
    )
    assert equal(kept, dict(net.state_dict()))
    assert net.training and net.dropout.training and net.batch_norm.training
    loss.mean().backward()
    assert all(p.grad is not None for p in net.parameters())


class Counting(Linear):
    """Counts its passes, in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes = self.passes + 1
        return super().forward(x)


def test_what_modules_note_in_evaluation_mode_is_put_back(call):
    net, (x, y) = Counting(), drawn()
    outputs = net(x)
    call(SmoothAdversarial(), outputs, y, model=net, x=x)
    assert net.passes == 1


def test_dropout_is_no_attack(call):
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(20, 3)).double()
    x, y = drawn()
    tiny = SmoothAdversarial(eps=1e-9)
    outputs = net(x)
    got = call(tiny, outputs, y, model=net, x=x)
    clean = call(CompSum(), outputs, y)
    # The root in the loss starts at 1e-6.
    assert (got - clean).abs().max() < 1e-5


@pytest.mark.slow
def test_it_is_as_robust_as_training_on_attacked_trials():
    """TOY-SPD tangent vectors, four populations, PGD-50 of radius 1.

    nu = 0.3 is what a held-out source person of these found best among .1 to 1 (clean
    .859 and attacked .550, where training on attacked trials has .853 and .550). The
    certified nu = 1 is no choice for accuracy: clean .584.
    """
    import numpy as np
    from _toy_spd import toy_people

    def population(seed):
        X, Y = [], []
        for C, y in toy_people(seed, n_people=6, n_last=80):
            w, V = np.linalg.eigh(C)
            L = np.einsum("nij,nj,nkj->nik", V, np.log(w), V)
            X.append((L - L.mean(axis=0))[:, *np.triu_indices(8)])
            Y.append(y)
        return [
            (
                torch.as_tensor(np.concatenate(X[some]), dtype=torch.float32),
                torch.as_tensor(np.concatenate(Y[some])),
            )
            for some in (slice(0, 4), slice(4, 6))
        ]

    def pgd(net, x, y, scale, steps, eps=1.0):
        d = torch.zeros_like(x)
        for _ in range(steps):
            d.requires_grad_()
            loss = F.cross_entropy(net(x + scale * d), y, reduction="sum")
            (g,) = torch.autograd.grad(loss, d)
            d = d.detach() + 2.5 * eps / steps * F.normalize(g, dim=1)
            d = d * (eps / d.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
        return (x + scale * d).detach()

    class Attacked:
        per_trial = True

        def __init__(self, scale):
            self.scale = scale

        def __call__(self, model, batch, outputs, context):
            worst = pgd(model, batch.x, batch.y, self.scale, 10)
            return F.cross_entropy(model(worst), batch.y, reduction="none")

    def scores(seed, make):
        (x, y), (x_test, y_test) = population(seed)
        scale = x.std(dim=0, correction=0)
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(36, 32), nn.ReLU(), nn.Linear(32, 2))
        train(
            net,
            Batch(x, y),
            objective=make(scale),
            optimizer=make_optimizer(net, "adamw", lr=3e-3),
            sampler=ShuffleSampler(len(x), batch_size=80),
            epochs=40,
        )
        clean = (net(x_test).argmax(dim=1) == y_test).float().mean()
        worst = pgd(net, x_test, y_test, scale, 50)
        return float(clean), float((net(worst).argmax(dim=1) == y_test).float().mean())

    ours, theirs = (
        np.mean([scores(seed, make) for seed in range(4)], axis=0)
        for make in (lambda scale: SmoothAdversarial(nu=0.3), Attacked)
    )
    # Asked: no more than two points less robust, and no less accurate.
    assert ours[1] > theirs[1] - 0.02, (ours, theirs)
    assert ours[0] >= theirs[0], (ours, theirs)


def test_mistakes(call):
    with pytest.raises(EEGTensorError, match="norm='l1'"):
        SmoothAdversarial(norm="l1")
    with pytest.raises(EEGTensorError, match="eps=-1"):
        SmoothAdversarial(eps=-1)
    with pytest.raises(EEGTensorError, match="one array of trials, not a tuple"):
        x, y = drawn()
        net = Linear()
        call(SmoothAdversarial(), net(x), y, model=net, x=(x, x))
