"""SPD batch norms against the slow reference, and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nn._matrices import covariances, shifted
from nn._reference import Affine, Flat, LogCholesky, LogEuclidean, Reference
from torch import Tensor
from torch.autograd import gradcheck

from eegtensor import EEGTensorError
from eegtensor.geometry import logm
from eegtensor.nn import DomainSPDBatchNorm, SPDBatchNorm
from eegtensor.nn.batchnorm import METRICS

NAMES = ["ann", "bob", "eve", "joe"]
VARIANTS: dict[str, tuple[dict[str, Any], Affine | Flat]] = {
    "affine": ({}, Affine()),
    "affine-two-steps": ({"steps": 2}, Affine(steps=2)),
    "affine-cholesky": ({"congruence": "cholesky"}, Affine(congruence="cholesky")),
    "affine-powers": (
        {"theta": 0.5, "alpha": 2.0, "beta": 0.1},
        Affine(theta=0.5, alpha=2.0, beta=0.1),
    ),
    "log-euclidean": ({"metric": "log-euclidean"}, LogEuclidean()),
    "log-euclidean-trace": (
        {"metric": "log-euclidean", "alpha": 0.5, "beta": 0.3},
        LogEuclidean(0.5, 0.3),
    ),
    "log-cholesky": ({"metric": "log-cholesky"}, LogCholesky()),
    "log-cholesky-powers": (
        {"metric": "log-cholesky", "theta": 0.5},
        LogCholesky(theta=0.5),
    ),
}
variants = pytest.mark.parametrize("variant", VARIANTS)


def layer(variant: str, n: int, names: Any = NAMES, **options: Any) -> Any:
    options = {"dtype": torch.float64} | VARIANTS[variant][0] | options
    norm = DomainSPDBatchNorm(n, names, **options)
    # The reference has no unit for log-Cholesky coordinates.
    norm.unit.fill_(1.0)
    return norm


def positive(n: int, seed: int = 9) -> Tensor:
    return covariances(1, n, seed=seed)[0] * 3 + torch.eye(n, dtype=torch.float64)


@variants
@pytest.mark.parametrize("bias", [False, True])
def test_equals_the_reference_over_twenty_steps(
    variant: str, bias: bool, device: str
) -> None:
    n = 5
    norm = layer(variant, n, bias="learned" if bias else "identity", device=device)
    reference = Reference(n, VARIANTS[variant][1])
    if bias:
        with torch.no_grad():
            norm.bias.copy_(positive(n))
        reference.bias = positive(n).numpy()
    rng = np.random.default_rng(0)
    for step in range(20):
        # One domain appears late, others stay away at times.
        present = [0, 1, 2, 3] if step >= 8 else [0, 1, 2]
        domain = rng.choice(rng.choice(present, 2, replace=False), 11)
        eta, eta_test = float(rng.choice([1.0, rng.random()])), float(rng.random())
        X = shifted(covariances(11, n, seed=step), torch.tensor(domain))
        with torch.no_grad():
            norm.scale.fill_(reference.scale)
        norm.set_momentum(eta, eta_test)
        expected = reference.train(X.numpy(), domain, eta, eta_test)
        codes = torch.tensor(domain, device=device)
        compare(norm(X.to(device), codes), expected)
        reference.scale = float(rng.uniform(0.5, 2))
    for d, (R, v, R_test, v_test) in reference.state.items():
        compare(norm.mean[d], R)
        compare(norm.variance[d], v)
        compare(norm.test_mean[d], R_test)
        compare(norm.test_variance[d], v_test)
    with torch.no_grad():
        norm.scale.fill_(reference.scale)
    domain = np.arange(12) % 4
    X = shifted(covariances(12, n, seed=99), torch.tensor(domain))
    Y = norm.eval()(X.to(device), torch.tensor(domain, device=device))
    compare(Y, reference.evaluate(X.numpy(), domain))


def compare(ours: Tensor, theirs: Any, tolerance: float = 1e-12) -> None:
    expected = torch.as_tensor(theirs, dtype=torch.float64)
    error = (ours.detach().cpu() - expected).norm() / expected.norm().clamp_min(1.0)
    assert error < tolerance, float(error)


@variants
def test_refit_equals_the_reference_and_centres(variant: str) -> None:
    n, domain = 6, torch.arange(40) % 4
    X = shifted(covariances(40, n), domain)
    norm, reference = layer(variant, n).eval(), Reference(n, VARIANTS[variant][1])
    reference.refit(X.numpy(), domain.numpy())
    norm.fit_statistics(X, domain)
    compare(norm(X, domain), reference.evaluate(X.numpy(), domain.numpy()), 1e-9)
    assert torch.equal(norm.mean, norm.test_mean)
    assert torch.equal(norm.variance, norm.test_variance)
    # The metric's mean is I, its dispersion what eps leaves of 1.
    Y, metric = norm(X, domain).detach().numpy(), VARIANTS[variant][1]
    for d in range(4):
        V = [metric.enter(y) for y in Y[domain.numpy() == d]]
        centre = metric.full_mean(V)
        assert np.linalg.norm(centre - metric.origin(n)) < 1e-8
        spread = np.mean([metric.distance2(W, centre) for W in V])
        v = float(norm.variance[d])
        assert spread == pytest.approx(v / (v + norm.eps), abs=1e-8)


@variants
def test_the_logarithm_is_that_of_the_output(variant: str) -> None:
    domain = torch.arange(12) % 3
    X = covariances(12, 4)
    for training in (True, False):
        one, two = layer(variant, 4), layer(variant, 4)
        one.fit_statistics(X, domain), two.fit_statistics(X, domain)
        one.train(training), two.train(training)
        difference = logm(one(X, domain)) - two.log(X, domain)
        assert difference.abs().max() < 1e-12


@variants
@pytest.mark.parametrize("eta", [1.0, 0.4])
@pytest.mark.parametrize("output", ["forward", "log"])
def test_gradients_are_exact_in_training(variant: str, eta: float, output: str) -> None:
    n, domain = 3, torch.tensor([0, 1, 0, 1, 0, 0])
    norm = layer(variant, n, NAMES[:2], bias="learned")
    norm.fit_statistics(covariances(6, n, seed=3), domain)
    frozen = {k: b.clone() for k, b in norm.named_buffers()}
    X = covariances(6, n, seed=4)

    def function(X: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        norm.load_state_dict(frozen, strict=False)
        norm.set_momentum(eta, 0.1)
        norm.scale = torch.nn.Parameter(scale)
        call = getattr(norm, output)
        return torch.func.functional_call(
            Wrapped(norm, call), {"norm.scale": scale, "norm.bias": bias}, (X, domain)
        )

    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    bias = positive(n).requires_grad_()
    # Every entry for the default, a random projection for its relatives.
    fast = (variant, eta, output) != ("affine", 0.4, "log")
    assert gradcheck(
        function, (X.requires_grad_(), scale, bias), atol=1e-6, fast_mode=fast
    )


class Wrapped(torch.nn.Module):
    def __init__(self, norm: torch.nn.Module, call: Any) -> None:
        super().__init__()
        self.norm, self.call = norm, call

    def forward(self, *args: Tensor) -> Tensor:
        return self.call(*args)


@variants
def test_two_passes_before_one_backward(variant: str) -> None:
    domain = torch.arange(6) % 2
    X, Z = (covariances(6, 3, seed=seed).requires_grad_() for seed in (1, 2))
    norm = layer(variant, 3)
    first = norm(X, domain)
    norm.set_momentum(0.5, 0.2)
    (first.square().sum() + norm(Z, domain).square().sum()).backward()
    other = layer(variant, 3)
    alone = torch.autograd.grad(other(X, domain).square().sum(), X)[0]
    assert torch.equal(X.grad, alone)


@variants
def test_gradients_are_exact_in_evaluation(variant: str) -> None:
    domain = torch.tensor([0, 1, 0, 1, 0, 0])
    norm = layer(variant, 3).eval()
    norm.fit_statistics(covariances(6, 3, seed=3), domain)
    X = covariances(6, 3, seed=4).requires_grad_()
    assert gradcheck(lambda X: norm(X, domain), X, atol=1e-6, fast_mode=True)


def test_detached_statistics_change_the_gradient_and_nothing_else() -> None:
    domain = torch.arange(12) % 2
    outputs, gradients = [], []
    for detach in (False, "whitening", True):
        norm = layer("affine", 4, detach_statistics=detach)
        X = shifted(covariances(12, 4), domain).requires_grad_()
        Y = norm.log(X, domain)
        Y[:, 0, 1].pow(3).sum().backward()
        outputs.append(Y)
        gradients.append(X.grad)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    exact = gradients[0]
    for other, least in ((gradients[1], 1e-3), (gradients[2], 1e-2)):
        assert (other - exact).norm() / exact.norm() > least


@variants
def test_a_permuted_batch_and_renamed_domains_change_nothing(variant: str) -> None:
    domain = torch.arange(12) % 3
    X = shifted(covariances(12, 4), domain)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    other = torch.tensor([2, 0, 1])
    one, two = layer(variant, 4), layer(variant, 4)
    for norm in (one, two):
        norm.set_momentum(0.5, 0.3)
    for _ in range(2):
        Y = one(X, domain)
        Z = two(X[order], other[domain[order]])
    compare(Z, Y[order].detach())
    compare(two.test_mean[other], one.test_mean[:3])
    compare(two.eval()(X[order], other[domain[order]]), one.eval()(X, domain)[order])


@variants
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)]
)
def test_volts_and_microvolts_agree(
    variant: str, dtype: torch.dtype, tolerance: float
) -> None:
    outputs = []
    for unit in (1e-12, 1.0):
        domain = torch.arange(30) % 3
        options = {"dtype": dtype} | VARIANTS[variant][0]
        norm = DomainSPDBatchNorm(6, NAMES, **options)
        for step in range(3):
            norm.set_momentum(1.0 if step == 0 else 0.4, 0.2)
            # Well conditioned: float32 rounds the input itself, by its condition.
            X = covariances(30, 6, seed=step, unit=unit, spread=0.3).to(dtype)
            trained = norm.log(X, domain)
        norm.eval()
        outputs.append((trained, norm.log(X, domain), norm.log(X)))
    for volts, microvolts in zip(*outputs, strict=True):
        assert (volts - microvolts).abs().max() < tolerance


def hard_matrices(n: int) -> dict[str, Tensor]:
    noise = covariances(4, n)
    eye = torch.eye(n, dtype=torch.float64)
    return {
        "identical": noise[:1].expand(4, n, n).clone(),
        "identity": eye.expand(4, n, n).clone(),
        "near-identity": eye + 1e-6 * noise,
        "repeated": torch.diag(torch.tensor([1.0, 1, 1, 2, 2, 3])).double()
        * noise.new_tensor([1, 2, 3, 3])[:, None, None],
        "one-trial": noise[:1],
        "rank-3-of-6": noise[:, :, :3] @ noise[:, :, :3].mT,
    }


@variants
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", list(hard_matrices(6)))
def test_hard_matrices_are_finite_and_right(
    variant: str, dtype: torch.dtype, case: str
) -> None:
    X = hard_matrices(6)[case].to(dtype).requires_grad_()
    norm = layer(variant, 6, dtype=dtype)
    domain = torch.zeros(len(X), dtype=torch.int64)
    Y = norm.log(X, domain)
    (gradient,) = torch.autograd.grad(Y.square().sum(), X)
    assert Y.isfinite().all() and gradient.isfinite().all()
    assert norm.mean.isfinite().all() and (norm.variance > -1e-12).all()
    if dtype == torch.float64 and not case.startswith("rank"):
        reference = Reference(6, VARIANTS[variant][1])
        expected = reference.train(X.detach().numpy(), domain.numpy(), 1.0, 1.0)
        # Without dispersion rounding is multiplied by 1 / sqrt(eps).
        compare(norm(X, domain), expected, 1e-11)


@variants
def test_one_domain_is_the_norm_without_domains(variant: str) -> None:
    options = {"dtype": torch.float64} | VARIANTS[variant][0]
    domain = torch.zeros(9, dtype=torch.int64)
    one, many = SPDBatchNorm(4, **options), DomainSPDBatchNorm(4, ["x"], **options)
    none = DomainSPDBatchNorm(4, **options)
    for step in range(3):
        X = covariances(9, 4, seed=step)
        for norm in (one, many, none):
            norm.set_momentum(0.5, 0.2)
        Y = one(X)
        assert torch.equal(Y, many(X, domain)) and torch.equal(Y, none(X))
    assert torch.equal(one.eval()(X), many.eval()(X, domain))
    one.fit_statistics(X), many.fit_statistics(X, domain)
    assert torch.equal(one.log(X), many.log(X, domain))
    one.update_statistics(X[:2]), many.update_statistics(X[:2], domain[:2])
    assert torch.equal(one.log(X), many.log(X, domain))


def test_log_euclidean_is_batch_norm_of_logarithms() -> None:
    X = shifted(covariances(40, 5), torch.zeros(40, dtype=torch.int64))
    vectors = logm(X).flatten(1)
    # One variance for all entries, a 25th of the matrices' squared norm.
    centred = (vectors - vectors.mean(dim=0)).reshape(-1, 1)
    flat = torch.nn.BatchNorm1d(1, eps=1e-5 / 25, affine=False, dtype=torch.float64)
    norm = SPDBatchNorm(5, metric="log-euclidean", dtype=torch.float64)
    compare(norm.log(X), flat(centred).view(40, 5, 5) / 5.0, 1e-10)


def test_small_powers_tend_to_log_euclidean() -> None:
    X = covariances(20, 4)
    flat = SPDBatchNorm(4, metric="log-euclidean", dispersion="none")
    expected = flat.log(X)
    errors = []
    for theta in (1e-2, 1e-3):
        norm = SPDBatchNorm(4, theta=theta, dispersion="none")
        errors.append(float((norm.log(X) - expected).norm() / expected.norm()))
    assert errors[0] < 1e-2 and errors[1] < 1e-3
    assert errors[1] < 0.2 * errors[0]


def test_cholesky_centring_differs_by_a_rotation() -> None:
    X = covariances(10, 5)
    symmetric, cholesky = SPDBatchNorm(5), SPDBatchNorm(5, congruence="cholesky")
    A, B = symmetric(X), cholesky(X)
    assert (A - B).norm() / A.norm() > 0.01
    difference = torch.linalg.eigvalsh(A) - torch.linalg.eigvalsh(B)
    assert difference.abs().max() < 1e-12


def test_without_dispersion_there_is_no_scale() -> None:
    norm = SPDBatchNorm(4, dispersion="none", dtype=torch.float64)
    assert not list(norm.parameters())
    X = covariances(10, 4)
    norm.fit_statistics(X)
    expected = Reference(4, Affine(), dispersion=False)
    expected.refit(X.numpy(), np.zeros(10))
    compare(norm.eval()(X), expected.evaluate(X.numpy(), np.zeros(10)), 1e-9)


def test_a_single_trial_has_the_published_floor() -> None:
    norm = SPDBatchNorm(4)
    norm.fit_statistics(covariances(1, 4))
    assert norm.variance.tolist() == [1e-7]


def test_weights_move_the_fitted_mean() -> None:
    X = covariances(6, 4)
    weighted, repeated = SPDBatchNorm(4).eval(), SPDBatchNorm(4).eval()
    weighted.fit_statistics(X, weights=torch.tensor([2.0, 1, 1, 1, 1, 0]))
    repeated.fit_statistics(X[[0, 0, 1, 2, 3, 4]])
    compare(weighted.test_mean, repeated.test_mean, 1e-9)
    compare(weighted.test_variance, repeated.test_variance, 1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "euclidean"}, "metric='euclidean'"),
        ({"theta": 0.0}, "no metric"),
        ({"beta": -0.5}, "no metric"),
        ({"eta": 1.5}, "eta=1.5"),
        ({"steps": 0}, "steps=0"),
        ({"detach_statistics": "mean"}, "detach_statistics"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EEGTensorError, match=message):
        SPDBatchNorm(4, **options)


def test_shapes_are_checked() -> None:
    with pytest.raises(EEGTensorError, match="3, 3"):
        SPDBatchNorm(4)(covariances(2, 3))
    bad = covariances(3, 4)
    bad[1, 0, 0] = float("nan")
    with pytest.raises(EEGTensorError, match="NaN"):
        SPDBatchNorm(4)(bad)


@pytest.mark.parametrize("metric", METRICS)
def test_no_trials(metric: str) -> None:
    norm, none = SPDBatchNorm(4, metric=metric), torch.zeros(0, 4, 4)
    for call in (norm, norm.log, norm.fit_statistics, norm.update_statistics):
        with pytest.raises(EEGTensorError, match="no trials"):
            call(none)
    assert norm.eval()(none).shape == none.shape
