"""The table of domains: unseen ones, new ones, forgotten ones, saved ones."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from nn._matrices import covariances, shifted
from torch import Tensor

from eegtensor import EEGTensorError
from eegtensor.domains import Domain
from eegtensor.geometry import expm, frechet_mean, logm
from eegtensor.nn import DomainBatchNorm, DomainSPDBatchNorm

METRICS = ["affine-invariant", "log-euclidean", "log-cholesky"]
NAMES = [("set", "ann", "1"), ("set", "ann", "2"), ("set", "bob", "1")]
BUFFERS = ("mean", "variance", "test_mean", "test_variance", "seen", "n_trials")
metrics = pytest.mark.parametrize("metric", METRICS)


def batch(b: int = 30, n: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    domain = torch.arange(b) % 3
    return shifted(covariances(b, n, seed=seed), domain), domain


def fitted(metric: str = "affine-invariant", **options: Any) -> DomainSPDBatchNorm:
    options = {"dtype": torch.float64, "metric": metric} | options
    norm = DomainSPDBatchNorm(5, NAMES, **options)
    norm.fit_statistics(*batch())
    return norm.eval()


def rows(norm: Any, names: Any) -> dict[str, Tensor]:
    codes = norm.encode(names)
    return {name: getattr(norm, name)[codes].clone() for name in BUFFERS}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in BUFFERS)


def test_names_are_domains_or_strings() -> None:
    norm = DomainSPDBatchNorm(3, ["ann", ("set", "bob", "2"), "ann"])
    assert norm.names == (Domain("", "ann", ""), Domain("set", "bob", "2"))
    assert norm.encode(["eve", "ann", Domain("set", "bob", "2")]).tolist() == [-1, 0, 1]
    with pytest.raises(EEGTensorError, match="no domain"):
        DomainSPDBatchNorm(3, [("set", "bob")])


@metrics
def test_unseen_domains_get_the_pooled_statistic(metric: str) -> None:
    norm = fitted(metric)
    X, domain = batch(seed=1)
    means = norm.test_mean[:3]
    if metric == "affine-invariant":
        expected = frechet_mean(means, tol=1e-10)
    else:
        expected = means.mean(dim=0)
    assert (norm.test_mean[-1] - expected).abs().max() < 1e-10
    assert norm.test_variance[-1] == norm.test_variance[:3].mean()
    # A named domain without trials is unseen as well, and so is no domain at all.
    norm.add_domains([("set", "eve", "1")])
    late = torch.full_like(domain, 3)
    Y = norm(X)
    assert torch.equal(Y, norm(X, late)) and torch.equal(Y, norm(X, late - 4))
    assert not torch.allclose(Y, norm(X, domain))


def test_the_pooled_statistic_follows_training() -> None:
    norm = DomainSPDBatchNorm(5, NAMES, dtype=torch.float64)
    X, domain = batch()
    for expected in (1.0, 0.5):
        norm.train()
        norm.set_momentum(expected, expected)
        norm(X, domain)
        norm.eval()
        pooled = frechet_mean(norm.test_mean[:3], tol=1e-10)
        assert (norm.test_mean[-1] - pooled).abs().max() < 1e-10
    # Saved in the middle of training, the pooled statistic is that of evaluation.
    norm.train()(*batch(seed=2))
    other = DomainSPDBatchNorm(5, dtype=torch.float64)
    other.load_state_dict(norm.state_dict())
    assert torch.equal(other.eval()(X), norm.eval()(X))


def test_targets_do_not_enter_the_pooled_statistic() -> None:
    norm = fitted()
    pooled = norm.test_mean[-1].clone()
    norm.add_domains(["target"], source=False)
    norm.fit_statistics(covariances(9, 5, seed=7), norm.encode(["target"] * 9))
    assert torch.equal(norm.test_mean[-1], pooled)
    norm.add_domains(["source"])
    norm.fit_statistics(covariances(9, 5, seed=7), norm.encode(["source"] * 9))
    assert not torch.equal(norm.test_mean[-1], pooled)


@metrics
def test_unseen_domains_can_adapt_to_their_own_trials(metric: str) -> None:
    norm, other = fitted(metric, unseen="adapt"), fitted(metric)
    X, _ = batch(seed=1)
    before = {name: getattr(norm, name).clone() for name in BUFFERS}
    domain = torch.tensor([0, -1] * 15)
    Y = norm(X, domain)
    other.add_domains(["new"])
    known = torch.where(domain < 0, 3, domain)
    other.fit_statistics(X[1::2], known[1::2])
    assert (Y - other(X, known)).abs().max() < 1e-12
    assert all(torch.equal(before[name], getattr(norm, name)) for name in BUFFERS)
    with pytest.raises(EEGTensorError, match="at least 2"):
        norm(X[:2], domain[:2])


def test_unseen_domains_can_be_refused() -> None:
    norm = fitted(unseen="raise")
    X, domain = batch()
    norm(X, domain)
    with pytest.raises(EEGTensorError, match=r"Trials 3, 5 .*set/ann/1"):
        norm(X[:6], torch.tensor([0, 1, 2, -1, 0, -1]))
    with pytest.raises(EEGTensorError, match="unseen"):
        DomainSPDBatchNorm(3, unseen="guess")


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (torch.zeros(4, dtype=torch.int64), r"\(4,\) for 5 trials"),
        (torch.tensor([0, 1, 2, 3, 0]), "code 3"),
        (torch.tensor([0, 1, 2, -2, 0]), "code -2"),
        (torch.zeros(5), "float32"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_codes_are_checked(domain: Tensor, message: str, training: bool) -> None:
    norm = fitted().train(training)
    with pytest.raises(EEGTensorError, match=message):
        norm(batch()[0][:5], domain)


def test_training_and_fitting_need_known_domains() -> None:
    norm = fitted().train()
    X, domain = batch()
    domain[4] = -1
    for call in (norm, norm.log, norm.fit_statistics, norm.update_statistics):
        with pytest.raises(EEGTensorError, match=r"\(code -1\): 4"):
            call(X, domain)


@metrics
def test_domains_absent_from_a_batch_keep_their_bits(metric: str) -> None:
    norm = fitted(metric).train()
    norm.set_momentum(0.3, 0.3)
    kept = rows(norm, NAMES[1:])
    X, _ = batch(seed=1)
    norm(X, torch.zeros(30, dtype=torch.int64))
    norm.fit_statistics(X, torch.zeros(30, dtype=torch.int64))
    norm.update_statistics(X, torch.zeros(30, dtype=torch.int64))
    assert same(kept, rows(norm, NAMES[1:]))


@metrics
def test_growing_and_forgetting_keep_the_others_bits(metric: str) -> None:
    norm = fitted(metric)
    kept, all_rows = rows(norm, NAMES[:2]), rows(norm, NAMES)
    norm.add_domains(["eve", NAMES[0]])
    assert norm.names == (*map(lambda n: Domain(*n), NAMES), Domain("", "eve", ""))
    assert same(all_rows, rows(norm, NAMES))
    old = norm.test_mean
    norm.forget([NAMES[2]])
    assert same(kept, rows(norm, NAMES[:2]))
    assert norm.encode([NAMES[2], "eve"]).tolist() == [-1, 2]
    # Statistics are data: nothing of them is left, in the old storage neither.
    blank = DomainSPDBatchNorm(5, metric=metric).test_mean
    assert torch.equal(old, blank.expand_as(old))
    only = DomainSPDBatchNorm(5, NAMES[:2], dtype=torch.float64, metric=metric)
    only.unit.copy_(norm.unit)
    X, domain = batch()
    only.fit_statistics(X[domain < 2], domain[domain < 2])
    assert (only.test_mean[-1] - norm.test_mean[-1]).abs().max() < 1e-12
    with pytest.raises(EEGTensorError, match="not in the table"):
        norm.forget(["nobody"])
    norm.forget([*NAMES[:2], "eve"])
    assert norm.names == () and not norm.seen.any()


@metrics
def test_a_state_dict_brings_its_domains(metric: str, tmp_path: Any) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    norm = fitted(metric, bias="learned")
    X, domain = batch(seed=1)
    expected = norm(X, domain)
    path = tmp_path / "norm.safetensors"
    safetensors.save_file(norm.state_dict(), path)
    other = DomainSPDBatchNorm(
        5, ["x"] * 2, dtype=torch.float64, metric=metric, bias="learned"
    ).eval()
    other.load_state_dict(safetensors.load_file(path))
    assert other.names == norm.names
    assert torch.equal(other(X, domain), expected) and torch.equal(other(X), norm(X))
    wrong = DomainSPDBatchNorm(
        5,
        metric=METRICS[METRICS.index(metric) - 1],
        dtype=torch.float64,
        bias="learned",
    )
    with pytest.raises(EEGTensorError, match=f"saved statistics are {metric}"):
        wrong.load_state_dict(norm.state_dict())
    nameless = dict(norm.state_dict())
    del nameless["_extra_state"]
    nameless |= {k: b[1:] for k, b in nameless.items() if k in BUFFERS}
    with pytest.raises(EEGTensorError, match="2 domains without names"):
        other.load_state_dict(nameless, strict=False)


@metrics
@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_copies_are_equal_and_independent(metric: str, way: str) -> None:
    norm = fitted(metric)
    X, domain = batch(seed=1)
    other = pickle.loads(pickle.dumps(norm)) if way == "pickle" else copy.deepcopy(norm)
    expected = norm(X, domain)
    assert torch.equal(other(X, domain), expected)
    other.train()(X, domain)
    other.forget(NAMES[:1])
    assert torch.equal(norm(X, domain), expected)


@pytest.mark.parametrize(
    ("metric", "strict"), [(METRICS[0], True), *((metric, False) for metric in METRICS)]
)
def test_evaluation_exports(metric: str, strict: bool) -> None:
    norm = fitted(metric)
    norm.add_domains(["late"])
    X, domain = batch()
    size = torch.export.Dim("batch", min=2, max=1000)
    shapes: Any = ({0: size}, {0: size})
    program = torch.export.export(
        norm, (X, domain), dynamic_shapes=shapes, strict=strict
    )
    codes = torch.tensor([0, -1, 2, 3, 1, -1, 0])
    difference = program.module()(X[:7], codes) - norm(X[:7], codes)
    assert difference.abs().max() < 1e-12


def test_statistics_stay_in_float64() -> None:
    norm = fitted(dtype=torch.float32)
    X, domain = batch(seed=1)
    mean = norm.mean.clone()
    norm.half().float()
    assert torch.equal(norm.mean, mean) and norm.scale.dtype == torch.float32
    assert norm.to(torch.float64).scale.dtype == torch.float64
    assert norm(X.float(), domain).dtype == torch.float32
    for dtype in (torch.float16, torch.bfloat16):
        assert norm(X.to(dtype), domain).dtype == torch.float32
    expected = norm(X.float(), domain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(norm(X.float(), domain), expected)


def test_streaming_is_a_running_mean() -> None:
    # Diagonal matrices commute: the affine-invariant mean is that of logarithms.
    logs = torch.randn(9, 5, dtype=torch.float64, generator=torch.manual_seed(0))
    X = torch.diag_embed(logs.exp())
    norm = DomainSPDBatchNorm(5, ["a"], dtype=torch.float64).eval()
    domain = norm.encode(["a"])
    for x in X:
        norm.update_statistics(x[None], domain)
    assert (norm.test_mean[0].diagonal().log() - logs.mean(dim=0)).abs().max() < 1e-12
    variance = (logs - logs.mean(dim=0)).square().sum(dim=1).mean()
    assert norm.test_variance[0].item() == pytest.approx(variance.item(), abs=1e-12)
    assert norm.n_trials[0] == 9


@metrics
def test_a_stream_equals_a_refit(metric: str) -> None:
    X, domain = batch()
    stream, refit = (
        DomainSPDBatchNorm(5, NAMES, metric=metric, dtype=torch.float64)
        for _ in range(2)
    )
    refit.fit_statistics(X, domain)
    stream.unit.copy_(refit.unit)
    for part in (slice(0, 3), slice(3, 4), slice(4, 30)):
        stream.update_statistics(X[part], domain[part], prior_trials=0)
    exact = metric != "affine-invariant"
    assert torch.equal(stream.n_trials, refit.n_trials)
    for name in ("test_mean", "test_variance"):
        a, b = getattr(stream, name)[:3], getattr(refit, name)[:3]
        # On a curved space the recursion is near the mean, not at it.
        assert (a - b).norm() / b.norm() < (1e-12 if exact else 0.05)


def test_a_stream_moves_the_pooled_statistic_of_sources_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    norm = fitted()
    norm.add_domains(["target"], source=False)
    pooled, x = norm.test_mean[-1].clone(), covariances(1, 5, seed=8)
    refresh, calls = norm._refresh, []
    monkeypatch.setattr(norm, "_refresh", lambda: (calls.append(1), refresh()))
    for _ in range(3):
        norm.update_statistics(x, norm.encode(["target"]))
    assert not calls and torch.equal(norm.eval().test_mean[-1], pooled)
    norm.update_statistics(x, norm.encode(NAMES[:1]))
    norm.eval()
    expected = frechet_mean(norm.test_mean[:3], tol=1e-10)
    assert calls and (norm.test_mean[-1] - expected).abs().max() < 1e-10


def test_a_stream_starts_at_the_pooled_statistic() -> None:
    norm = fitted()
    norm.add_domains(["new"], source=False)
    x = covariances(1, 5, seed=8)
    code = norm.encode(["new"])
    expected = frechet_mean(
        torch.cat([norm.test_mean[-1:], x]), weights=torch.tensor([4.0, 1.0])
    )
    norm.update_statistics(x, code, prior_trials=4)
    assert (norm.test_mean[3] - expected).abs().max() < 1e-8
    assert norm.n_trials[3] == 5
    with pytest.raises(EEGTensorError, match="prior_trials"):
        norm.update_statistics(x, code, prior_trials=-1)


def test_weights_count_in_each_domain() -> None:
    X, domain = batch()
    weights = torch.rand(30, generator=torch.manual_seed(0)).double()
    norm = DomainSPDBatchNorm(5, NAMES, dtype=torch.float64)
    norm.fit_statistics(X, domain, weights=weights)
    for d in range(3):
        here = domain == d
        expected = frechet_mean(X[here], weights=weights[here])
        assert (norm.test_mean[d] - expected).abs().max() < 1e-8
    with pytest.raises(EEGTensorError, match="weights"):
        norm.fit_statistics(X, domain, weights=-weights)


@metrics
def test_before_any_trial_statistics_are_those_of_the_identity(metric: str) -> None:
    X, domain = batch()
    norm = DomainSPDBatchNorm(5, NAMES, metric=metric, dtype=torch.float64).eval()
    # The start's variance is 1, and eps is added to it.
    expected = 1e-4 * X.abs().amax()
    assert (norm(X, domain) - X).abs().max() < expected
    assert (norm.log(X) - logm(X)).abs().max() < 1e-4 * logm(X).abs().amax()


def test_log_cholesky_learns_its_unit_once() -> None:
    X, domain = batch()
    norm = DomainSPDBatchNorm(5, NAMES, metric="log-cholesky", dtype=torch.float64)
    assert norm.unit.isnan()
    norm(X * 1e-12, domain)
    expected = 1e-12 * torch.logdet(X).div(5).mean().exp()
    assert norm.unit.item() == pytest.approx(expected.item())
    norm(X, domain)
    assert norm.unit.item() == pytest.approx(expected.item())


@metrics
@pytest.mark.parametrize("eta", [1.0, 0.4])
def test_the_path_of_a_gpu_is_the_same(
    metric: str, eta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, domain = batch(seed=1)
    domain = domain.clamp_max(1)

    def run() -> list[Tensor]:
        norm = DomainSPDBatchNorm(5, NAMES, metric=metric, dtype=torch.float64)
        norm(*batch())
        norm.set_momentum(eta, 0.2)
        norm.add_domains(["late"])
        inputs = X.clone().requires_grad_()
        Y = norm(inputs, torch.where(domain == 1, 3, domain))
        Y.square().sum().backward()
        seen = norm.eval()(X, torch.where(domain == 1, -1, domain))
        return [Y, inputs.grad, seen, *(getattr(norm, name) for name in BUFFERS)]

    expected = run()
    # What looks at values on the CPU does not on a GPU.
    for module in ("_groups", "normalization", "spectral"):
        monkeypatch.setattr(f"eegtensor.geometry.{module}._eager_cpu", lambda X: False)
    for a, b in zip(run(), expected, strict=True):
        assert (a.double() - b.double()).norm() < 1e-12 * max(1.0, b.double().norm())


def test_a_vector_norm_has_the_same_table() -> None:
    norm = DomainBatchNorm(4, NAMES)
    x = torch.randn(12, 4, generator=torch.manual_seed(0)).double()
    norm.fit_statistics(x, torch.arange(12) % 3)
    other = DomainBatchNorm(4)
    other.load_state_dict(norm.state_dict())
    assert other.names == norm.names
    assert torch.equal(other.eval()(x), norm.eval()(x))


def test_half_way_matrices() -> None:
    # The geodesic's middle: adaptation of weight one half from mean to trial.
    A, B = covariances(2, 5)
    norm = DomainSPDBatchNorm(5, ["a"], dtype=torch.float64)
    norm.fit_statistics(A[None], norm.encode(["a"]))
    norm.update_statistics(B[None], norm.encode(["a"]))
    root = expm(0.5 * logm(A))
    inner = torch.linalg.solve(root, torch.linalg.solve(root, B).mT)
    expected = root @ expm(0.5 * logm(0.5 * (inner + inner.mT))) @ root
    assert (norm.test_mean[0] - expected).abs().max() < 1e-10
