"""PowerNorm: its formulas, its two gradients, spikes and padding."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.nn import PowerNorm
from eegtensor.training.statistics import StatisticsGuard


def tokens(seed=0, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    sizes = torch.linspace(0.5, 2.0, 6, dtype=torch.float64)
    return scale * sizes * torch.randn(4, 10, 6, generator=g, dtype=torch.float64)


def make(**options):
    return PowerNorm(6, dtype=torch.float64, **options)


def test_evaluation_is_the_formula(device):
    norm = make(groups=2).to(device).eval()
    with torch.no_grad():
        norm.phi.copy_(torch.linspace(0.5, 3, 6))
        norm.weight.copy_(torch.linspace(-1, 1, 6))
        norm.bias.copy_(torch.linspace(2, 3, 6))
    x = tokens().to(device)
    size = torch.stack([x[..., :3].square().mean(-1), x[..., 3:].square().mean(-1)], -1)
    grouped = x / size.sqrt().repeat_interleave(3, -1)
    want = norm.weight * grouped / (norm.phi + 1e-5).sqrt() + norm.bias
    torch.testing.assert_close(norm(x), want)
    torch.testing.assert_close(norm(1e-6 * x), norm(x))
    assert (norm(0 * x) == norm.bias).all()


def test_warm_up_then_running():
    norm = make(warmup=3)
    seen = []
    for i in range(5):
        x = tokens(i)
        unit = x / x.square().mean(-1, keepdim=True).sqrt()
        moment = unit.square().mean((0, 1))
        y = norm(x)
        divisor = moment if i < 3 else torch.stack(seen).mean(0) if i == 3 else None
        if divisor is not None:
            torch.testing.assert_close(y, unit / (divisor + 1e-5).sqrt())
        seen.append(moment)
    phi = torch.stack(seen[:3]).mean(0)
    for moment in seen[3:]:
        phi = 0.9 * phi + 0.1 * moment
    torch.testing.assert_close(norm.phi, phi)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_scale_one_goes_out(scale):
    norm = make(warmup=5)
    for i in range(50):
        y = norm(tokens(i, scale))
    assert y.square().mean((0, 1)).sub(1).abs().max() < 0.5
    norm.eval()
    out = torch.stack([norm(tokens(i, scale)) for i in range(50)])
    torch.testing.assert_close(
        out.square().mean((0, 1, 2)), torch.ones(6).double(), atol=0.1, rtol=0
    )


def test_published_gradient_by_hand():
    norm = make(warmup=0)
    with torch.no_grad():
        norm.nu.copy_(torch.linspace(-1, 1, 6))
        norm.phi.fill_(2.0)
        norm.weight.copy_(torch.linspace(0.5, 2, 6))
    nu = norm.nu.clone()
    g = torch.randn(4, 10, 6, dtype=torch.float64)
    # The tokens have unit size, so that group scaling alone projects the gradient.
    x = tokens()
    x = (x / x.square().mean(-1, keepdim=True).sqrt()).requires_grad_(True)
    (norm(x) * g).sum().backward()
    z = x.detach() / (2 + 1e-5) ** 0.5
    own = g * norm.weight.detach()
    own = own - 0.1 * nu * z
    torch.testing.assert_close(norm.nu, nu + (own * z).mean((0, 1)))
    batch = x.detach().square().mean((0, 1))
    own = own / (batch + 1e-5).sqrt()
    u = x.detach()
    torch.testing.assert_close(x.grad, own - u * (own * u).mean(-1, keepdim=True))


def test_exact_gradient_is_exact():
    for warmup in (0, 10):
        norm = make(warmup=warmup, backward="exact")
        norm.phi.fill_(1.7)

        def f(x, norm=norm):
            with StatisticsGuard(norm, "transient"):
                return norm(x)

        assert torch.autograd.gradcheck(f, (tokens()[:1, :3].requires_grad_(True),))


@pytest.mark.parametrize("backward", ["published", "exact"])
def test_spikes_give_no_large_gradients(backward):
    sizes = []
    for spike in (1.0, 100.0):
        norm = make(warmup=0, backward=backward)
        x = tokens()
        x[0, :, 2] *= spike
        x.requires_grad_(True)
        norm(x).sum().backward()
        sizes.append(float(x.grad.abs().max()))
    assert sizes[1] <= 2 * sizes[0], sizes


def test_padding_counts_in_nothing():
    g = torch.randn(4, 10, 6, dtype=torch.float64)
    present = torch.ones(4, 10, dtype=torch.bool)
    present[:, 7:] = False
    alone, padded, plain = make(warmup=1), make(warmup=1), make(warmup=1)
    x = tokens().requires_grad_(True)
    z = tokens().requires_grad_(True)
    for _ in range(3):
        (alone(x[:, :7]) * g[:, :7]).sum().backward()
        (padded(z, present) * g * present[..., None]).sum().backward()
    torch.testing.assert_close(alone.phi, padded.phi)
    torch.testing.assert_close(alone.nu, padded.nu)
    torch.testing.assert_close(x.grad, z.grad)
    everyone = make(warmup=1)
    torch.testing.assert_close(
        everyone(tokens(), torch.ones_like(present)), plain(tokens())
    )


def test_it_travels_and_states():
    norm = make(warmup=2)
    for i in range(4):
        norm(tokens(i)).sum().backward()
    for twin in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        torch.testing.assert_close(twin.eval()(tokens()), norm.eval()(tokens()))
    other = make()
    other.load_state_dict(norm.state_dict())
    torch.testing.assert_close(other.eval()(tokens()), norm.eval()(tokens()))
    exported = torch.export.export(norm.eval(), (tokens(),)).module()
    torch.testing.assert_close(exported(tokens()), norm(tokens()))
    before = norm.train().phi.clone()
    with StatisticsGuard(norm, "transient"):
        norm(tokens(9)).sum().backward()
    assert torch.equal(norm.phi, before)


def test_refusals():
    with pytest.raises(EEGTensorError, match="divisor"):
        PowerNorm(6, groups=4)
    with pytest.raises(EEGTensorError, match="6 features"):
        make()(torch.randn(2, 5))
