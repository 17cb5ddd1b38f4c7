"""Attacks along gradients: linear decoders, the equations again, and fixed networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.trust.attacks import (
    FGSM,
    PGD,
    fgsm,
    momentum_fgsm,
    pgd,
    variance_reduced,
)


def linear(seed=0, n_classes=2):
    """Return a linear decoder of trials (n, 3, 5), trials, labels, weights."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(n_classes, 15, generator=g, dtype=torch.float64)
    x = torch.randn(30, 3, 5, generator=g, dtype=torch.float64)
    x = x * torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64)[:, None]
    return lambda x: x.flatten(1) @ W.T, x, torch.arange(30) % n_classes, W


def deviations(x):
    """Standard deviations by their definition, (1, c, 1)."""
    flat = x.movedim(1, 0).flatten(1)
    return ((flat - flat.mean(1, keepdim=True)).square().mean(1) ** 0.5)[None, :, None]


def entropy(model, x, y):
    return nn.functional.cross_entropy(model(x), y, reduction="none")


def gradient(model, x, y):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(entropy(model, x, y).sum(), x)[0]


def test_one_step_is_the_worst_of_a_linear_decoder_in_both_norms():
    f, x, y, W = linear()
    s, eps = deviations(x), 0.3
    w = (W[1] - W[0]).view(1, 3, 5) * s
    sign = (1.0 - 2 * y)[:, None, None]
    lead = lambda x: (f(x)[:, 1] - f(x)[:, 0]) * sign[:, 0, 0]  # noqa: E731
    # Dual norms: the lead of the wrong class rises by eps ||w||_1 and eps ||w||_2.
    for norm, dual in (("linf", w.abs().sum()), ("l2", w.norm())):
        moved = fgsm(f, x, y, eps=eps, norm=norm)
        torch.testing.assert_close(lead(moved) - lead(x), (eps * dual).expand(30))
        # And PGD can do no more.
        far = pgd(f, x, y, eps=eps, norm=norm, n_steps=20, random=False)
        torch.testing.assert_close(lead(far), lead(moved))
    torch.testing.assert_close(fgsm(f, x, y, eps=eps), x + eps * s * sign * w.sign())
    torch.testing.assert_close(
        fgsm(f, x, y, eps=eps, norm="l2"), x + eps * s * sign * w / w.norm()
    )


def test_a_sign_attack_has_the_l2_norm_of_its_entry_and_pgd_less(wave_net, wave_trials):
    # A49: l2 = eps sqrt(C T).
    x, y = wave_trials
    found = FGSM(0.1).perturb(wave_net, x.numpy(), y.numpy()).budget
    assert found.l2 == pytest.approx(0.1 * (6 * 64) ** 0.5, rel=1e-4)
    assert found.linf == pytest.approx(0.1, rel=1e-4)
    again = PGD(0.1, n_steps=10).perturb(wave_net, x.numpy(), y.numpy()).budget
    assert (again.l2 <= found.l2 * (1 + 1e-6)).all()
    assert again.l2.mean() < 0.999 * found.l2.mean()
    assert again.linf.max() <= 0.1 + 1e-5


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_pgd_is_its_equations_step_by_step(wave_net, wave_trials, norm, targeted):
    x, y = wave_trials[0][:20].double(), wave_trials[1][:20]
    net = wave_net.double().eval()
    s, eps, step = deviations(x), 0.2, 0.06
    d = torch.zeros_like(x)
    for k in range(1, 8):
        g = gradient(net, x + s * d, y) * s * (-1 if targeted else 1)
        if norm == "linf":
            d = torch.maximum(
                torch.minimum(d + step * torch.sign(g), +0 * d + eps), 0 * d - eps
            )
        else:
            d = d + step * g / g.flatten(1).norm(dim=1)[:, None, None]
            length = d.flatten(1).norm(dim=1)[:, None, None]
            d = torch.where(length > eps, d * eps / length, d)
        found = pgd(
            net,
            x,
            y,
            eps=eps,
            norm=norm,
            n_steps=k,
            step_size=step,
            random=False,
            targeted=targeted,
        )
        torch.testing.assert_close(found / s, (x + s * d) / s, rtol=0, atol=1e-9)
    wave_net.float().train()


def test_momentum_is_its_equations(wave_net, wave_trials):
    x, y = wave_trials[0][:20].double(), wave_trials[1][:20]
    net, s = wave_net.double().eval(), deviations(x)
    d, total = torch.zeros_like(x), torch.zeros_like(x)
    for _ in range(6):
        g = gradient(net, x + s * d, y) * s
        total = 0.7 * total + g / g.abs().flatten(1).sum(1)[:, None, None]
        d = (d + 0.2 / 6 * total.sign()).clamp(-0.2, 0.2)
    found = momentum_fgsm(net, x, y, eps=0.2, n_steps=6, decay=0.7)
    torch.testing.assert_close(found / s, (x + s * d) / s, rtol=0, atol=1e-9)
    wave_net.float().train()


def test_one_copy_without_noise_is_the_iterative_fgsm_bit_for_bit(
    wave_net, wave_trials
):
    # 003-50.
    x, y = wave_trials
    plain = pgd(wave_net, x, y, eps=0.1, n_steps=10, step_size=0.01, random=False)
    reduced = variance_reduced(wave_net, x, y, eps=0.1, n_copies=1, sigma=0.0)
    assert torch.equal(plain, reduced)
    assert torch.equal(plain, momentum_fgsm(wave_net, x, y, eps=0.1, decay=0.0))


def test_the_mean_gradient_is_that_of_the_loss_smoothed_by_noise():
    # Of a cubic loss: E (x + e)^3 = x^3 + 3 x sigma^2, another direction than x^2.
    x = torch.tensor([[[0.1, -0.4]]], dtype=torch.float64)
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    w = torch.tensor([3.0, -1.0], dtype=torch.float64)

    def model(x):
        z = (w * x**3).flatten(1).sum(1) - 100
        return torch.stack([0 * z, z], 1)

    found = variance_reduced(
        model,
        x,
        torch.zeros(1, dtype=torch.int64),
        eps=1e-3,
        norm="l2",
        n_steps=1,
        n_copies=3000,
        sigma=0.5,
        scale=one,
        loss="margin",
        generator=torch.Generator().manual_seed(0),
    )
    g = 3 * w * (x.flatten() ** 2 + 0.25)
    torch.testing.assert_close(
        (found - x).flatten() / 1e-3, g / g.norm(), rtol=0, atol=0.05
    )


def test_the_unit_of_the_trials_changes_no_result(wave_trials):
    x, y = wave_trials

    def network(unit):
        g = torch.Generator().manual_seed(0)
        W = torch.randn(3, 384, generator=g, dtype=torch.float64)
        return lambda x: torch.tanh((x / unit).flatten(1)) @ W.T

    # A power of two is exact; 1e6 moves the last digits.
    for unit, tolerance in ((2.0**20, 0.0), (1e6, 1e-9)):
        for norm in ("linf", "l2"):
            volts = pgd(
                network(1e-5), x.double(), y, norm=norm, n_steps=5, random=False
            )
            other = pgd(
                network(1e-5 * unit),
                x.double() * unit,
                y,
                norm=norm,
                n_steps=5,
                random=False,
            )
            torch.testing.assert_close(
                other / unit * 1e5, volts * 1e5, rtol=0, atol=tolerance
            )


def test_attacks_run_with_fixed_statistics_and_put_all_back(wave_net, wave_trials):
    x, y = wave_trials
    before = {k: v.clone() for k, v in wave_net.state_dict().items()}
    assert wave_net.training
    found = PGD(n_steps=3, random=False).perturb(wave_net, x.numpy(), y.numpy())
    assert all(torch.equal(v, before[k]) for k, v in wave_net.state_dict().items())
    assert all(m.training for m in wave_net.modules())
    assert all(p.grad is None or p.requires_grad for p in wave_net.parameters())
    # Each trial on its own: others in the batch, or dropout, change nothing.
    scale = deviations(x)
    alone = pgd(wave_net, x[:1], y[:1], n_steps=3, random=False, scale=scale)
    assert all(torch.equal(v, before[k]) for k, v in wave_net.state_dict().items())
    torch.testing.assert_close(
        torch.from_numpy(found.X[:1]) * 1e5, alone * 1e5, rtol=0, atol=2e-6
    )
    with torch.no_grad():
        wave_net.eval()
        said = wave_net(torch.from_numpy(found.X)).argmax(1).numpy()
        wave_net.train()
    assert (found.predicted == said).all()


def test_batches_do_not_change_what_a_trial_may_lose(wave_net, wave_trials):
    x, y = (v.numpy() for v in wave_trials)
    whole = PGD(n_steps=2, random=False).perturb(wave_net, x, y)
    parts = PGD(n_steps=2, random=False, batch_size=7).perturb(wave_net, x, y)
    assert abs(whole.X - parts.X).max() < 1e-6 * x.std()


def test_more_restarts_fool_no_fewer_trials(wave_net, wave_trials):
    x, y = (v.numpy() for v in wave_trials)
    rates = [
        PGD(0.08, n_steps=2, n_restarts=n, random_state=0).perturb(wave_net, x, y)
        for n in (1, 2, 6)
    ]
    shares = [r.fooled.mean() for r in rates]
    assert shares == sorted(shares)
    # The first start is the same: a trial that it fools stays fooled.
    assert (rates[1].fooled >= rates[0].fooled).all()


def test_both_losses_go_up_and_targets_are_reached(wave_net, wave_trials):
    x, y = (v.numpy() for v in wave_trials)
    clean = PGD(0.0, n_steps=1).perturb(wave_net, x, y).accuracy
    for loss in ("cross-entropy", "margin"):
        assert PGD(0.3, n_steps=10, loss=loss).perturb(wave_net, x, y).accuracy < 0.1
    assert clean > 0.75
    aim = (y + 1) % 3
    found = PGD(0.5, n_steps=20, targeted=True).perturb(wave_net, x, aim)
    assert found.fooled.mean() > 0.95
    assert (found.fooled == (found.predicted == aim)).all()


def test_a_sure_decoder_still_shows_its_whole_gradient():
    # In float64 1 - p is 0 where logits are 40 apart: the softmax would show the
    # gradient of one class only.
    f, x, _, W = linear()
    for factor in (1.0, 3.0, 8.0):
        g = lambda x, k=factor: k * f(x)  # noqa: E731
        moved = fgsm(g, x, g(x).argmax(1), eps=0.1)
        sign = torch.where(f(x).argmax(1) == 0, 1.0, -1.0)[:, None, None]
        wanted = 0.1 * deviations(x) * sign * (W[1] - W[0]).view(1, 3, 5).sign()
        torch.testing.assert_close(moved - x, wanted)


def test_the_default_step_is_enough_from_every_side_of_the_ball():
    # 2.5 eps / n_steps, as published: a start may be 2 eps away.
    f, x, y, _ = linear()
    s = deviations(x)
    found = pgd(f, x, y, eps=0.4, n_steps=10, loss="margin")
    torch.testing.assert_close(((found - x) / s).abs(), torch.full_like(x, 0.4))
    short = pgd(f, x, y, eps=0.4, n_steps=1, random=False, step_size=0.2)
    torch.testing.assert_close(((short - x) / s).abs(), torch.full_like(x, 0.2))


def test_mistakes_are_explained(wave_net, wave_trials):
    x, y = (v.numpy() for v in wave_trials)
    with pytest.raises(EEGTensorError, match="n_steps=0"):
        PGD(n_steps=0).perturb(wave_net, x, y)
    with pytest.raises(EEGTensorError, match="norm='l1'"):
        FGSM(norm="l1").perturb(wave_net, x, y)
    with pytest.raises(EEGTensorError, match="targeted attack got no y"):
        FGSM(targeted=True).perturb(wave_net, x)
    with pytest.raises(EEGTensorError, match="200 trials"):
        FGSM().perturb(wave_net, x, y[:5])
    with pytest.raises(EEGTensorError, match="loss='hinge'"):
        FGSM(loss="hinge").perturb(wave_net, x, y)
