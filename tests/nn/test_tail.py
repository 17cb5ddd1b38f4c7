"""The fused tail against its three layers."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from nn._matrices import covariances, shifted
from torch import Tensor
from torch.autograd import gradcheck

from eegtensor import EEGTensorError
from eegtensor.geometry import logm, upper_vector
from eegtensor.geometry.normalization import rectify_where_needed
from eegtensor.geometry.spectral import rectify
from eegtensor.nn import DomainSPDBatchNorm, SPDTail

NAMES = ["ann", "bob", "eve"]
METRICS = ["affine-invariant", "log-euclidean", "log-cholesky"]
# How many of the twelve matrices have eigenvalues below the floor.
CLAMPED = [0, 5, 12]


def batch(n: int = 5, clamped: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    domain = torch.arange(12) % 3
    X = shifted(covariances(12, n, spread=spread), domain)
    s, U = torch.linalg.eigh(X)
    s[:clamped, :2] *= 1e-7
    return (U * s[:, None, :]) @ U.mT, domain


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("clamped", CLAMPED)
@pytest.mark.parametrize("training", [True, False])
def test_fused_equals_composed(metric: str, clamped: int, training: bool) -> None:
    # A floor of 1e-2, so that condition numbers leave the digits that are compared.
    S, domain = batch(clamped=clamped, spread=0.3)
    tail = SPDTail(5, NAMES, metric=metric, threshold=1e-2, dtype=torch.float64)
    norm = DomainSPDBatchNorm(5, NAMES, metric=metric, dtype=torch.float64)
    for step in range(3):
        for layer in (tail, norm):
            layer.train(training or step < 2)
        for layer in (tail.norm, norm):
            layer.set_momentum(0.5, 0.3)
        inputs = [S.clone().requires_grad_() for _ in range(2)]
        fused = tail(inputs[0], domain)
        composed = upper_vector(logm(norm(rectify(inputs[1], 1e-2), domain)))
        weight = torch.randn(fused.shape, generator=torch.manual_seed(step)).double()
        gradients = []
        for v, X, scale in (
            (fused, inputs[0], tail.norm.scale),
            (composed, inputs[1], norm.scale),
        ):
            gradients.append(torch.autograd.grad((v * weight).sum(), (X, scale)))
    for a, b in ((fused, composed), *zip(*gradients, strict=True)):
        # The gradient of the scale is a sum over the vectors, in which they cancel.
        assert (a - b).norm() < 1e-12 * torch.maximum(b.norm(), composed.norm())
    for name, buffer in norm.named_buffers():
        a, b = tail.norm.get_buffer(name).double(), buffer.double()
        assert (a - b).nan_to_num().norm() <= 1e-12 * b.nan_to_num().norm()


@pytest.mark.parametrize("clamped", CLAMPED)
def test_rectifying_where_needed_is_rectifying(clamped: int) -> None:
    S, _ = batch(clamped=clamped)
    for unit in (1.0, 1e-12):
        X, Y = ((unit * S).requires_grad_() for _ in range(2))
        a, b = rectify_where_needed(X, 1e-4), rectify(Y, 1e-4)
        assert (a - b).abs().max() < 1e-13 * unit * 10
        for out in (a, b):
            (out.square().sum() / unit).backward()
        assert (X.grad - Y.grad).abs().max() < 1e-12
    assert gradcheck(lambda X: rectify_where_needed(X, 1e-4), S.requires_grad_())


def test_the_floor_is_where_rectifying_has_it() -> None:
    S, _ = batch()
    s, U = torch.linalg.eigh(S)
    # The smallest eigenvalue a little below the floor, or a little above it.
    for part in (0.999, 1.001):
        s[:, 0] = 0.0
        s[:, 0] = part * 1e-4 * s.sum(dim=1) / (5 - part * 1e-4)
        X = (U * s[:, None, :]) @ U.mT
        X = 0.5 * (X + X.mT)
        raised = rectify_where_needed(X, 1e-4)
        assert torch.equal(raised, X) == (part > 1)
        assert (raised - rectify(X, 1e-4)).abs().max() < 1e-14


def test_nothing_is_decomposed_that_needs_no_decomposition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from eegtensor.geometry import spectral

    sizes: list[int] = []
    original = spectral._eigh

    def counted(X: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(X))
        return original(X)

    compiled = spectral._logarithm

    def counted_logarithm(X: Tensor, *others: Any) -> Any:
        found = compiled(X, *others)
        sizes.extend([] if found is None else [len(X)])
        return found

    monkeypatch.setattr(spectral, "_eigh", counted)
    monkeypatch.setattr(spectral, "_logarithm", counted_logarithm)
    tail = SPDTail(5, NAMES, dtype=torch.float64)
    S, domain = batch()
    tail(S, domain)
    tail.norm.set_momentum(0.5, 0.3)
    sizes.clear()
    tail(S.requires_grad_(), domain).sum().backward()
    # Two of the batch; the others are of the three domains.
    assert sizes.count(12) == 2 and set(sizes) == {3, 6, 9, 12}
    tail.eval()
    sizes.clear()
    tail(S, domain)
    assert sizes == [3, 12]
    sizes.clear()
    tail(batch(clamped=5)[0], domain)
    assert sizes == [5, 3, 12]


def test_gradients_are_exact_with_clamped_matrices() -> None:
    tail = SPDTail(3, NAMES, dtype=torch.float64)
    S, domain = batch(n=3, clamped=4)
    assert gradcheck(lambda S: tail(S, domain), S.requires_grad_(), fast_mode=True)


def test_fitting_rectifies_as_well() -> None:
    tail = SPDTail(5, NAMES, dtype=torch.float64).eval()
    S, domain = batch(clamped=5)
    tail.fit_statistics(S, domain)
    other = DomainSPDBatchNorm(5, NAMES, dtype=torch.float64).eval()
    other.fit_statistics(rectify(S, 1e-4), domain)
    assert (tail.norm.test_mean - other.test_mean).abs().max() < 1e-10
    tail.update_statistics(S[:3], domain[:3])
    other.update_statistics(rectify(S[:3], 1e-4), domain[:3])
    assert (tail.norm.test_mean - other.test_mean).abs().max() < 1e-10
    assert tail(S, domain).shape == (12, 15)


@pytest.mark.parametrize("clamped", CLAMPED)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)]
)
def test_units_do_not_matter(
    clamped: int, dtype: torch.dtype, tolerance: float
) -> None:
    outputs = []
    for unit in (1e-13, 1.0, 1e3):
        domain = torch.arange(12) % 3
        X = covariances(12, 5, spread=0.3)
        s, U = torch.linalg.eigh(X)
        s[:clamped, :2] *= 1e-7
        S = ((U * (unit * s)[:, None, :]) @ U.mT).to(dtype)
        tail = SPDTail(5, NAMES, threshold=1e-2, dtype=dtype)
        outputs.append((tail(S, domain), tail.eval()(S, domain)))
    for volts, microvolts in zip(outputs[0], outputs[1], strict=True):
        assert (volts - microvolts).abs().max() < tolerance


def test_export_pickle_and_copy() -> None:
    tail = SPDTail(5, NAMES, dtype=torch.float64)
    S, domain = batch(clamped=3)
    tail.fit_statistics(S, domain)
    tail.eval()
    size = torch.export.Dim("batch", min=2, max=1000)
    shapes: Any = ({0: size}, {0: size})
    program = torch.export.export(tail, (S, domain), dynamic_shapes=shapes)
    codes = torch.tensor([-1, 0, 2, 1, 0])
    expected = tail(S[:5], codes)
    # Another solver: eps times a condition number of 5e4, which ReEig leaves.
    assert (program.module()(S[:5], codes) - expected).abs().max() < 1e-10
    for other in (pickle.loads(pickle.dumps(tail)), copy.deepcopy(tail)):
        assert torch.equal(other(S[:5], codes), expected)


def test_mistakes_are_named() -> None:
    tail = SPDTail(5, NAMES)
    S, domain = batch()
    with pytest.raises(EEGTensorError, match=r"\(12, 4, 4\)"):
        tail(S[:, :4, :4], domain)
    S[7, 0, 0] = float("inf")
    with pytest.raises(EEGTensorError, match=r"Matrices 7 "):
        tail(S, domain)
    with pytest.raises(EEGTensorError, match="threshold"):
        SPDTail(5, threshold=-1.0)
