"""Covariance pooling, BiMap and the layers on eigenvalues."""

from __future__ import annotations

import copy
import pickle

import geoopt
import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from eegtensor import EEGTensorError
from eegtensor.nn import (
    BiMap,
    CovarianceFront,
    CovariancePool,
    ExpEig,
    LogEig,
    ReEig,
    TangentVector,
)
from eegtensor.nn.bimap import haar_stiefel


def spd(*shape: int, seed: int = 0, rank: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(
        *shape, rank or 2 * shape[-1], generator=generator, dtype=torch.float64
    )
    return rows @ rows.mT / rows.shape[-1]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_covariance_is_numpys_without_shrinkage(device: str) -> None:
    X = torch.randn(3, 2, 4, 50, generator=seeded(), dtype=torch.float64) + 5.0
    C = CovariancePool()(X.to(device)).cpu()
    for i in range(3):
        for j in range(2):
            expected = np.cov(X[i, j].numpy(), bias=True)
            np.testing.assert_allclose(C[i, j], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("estimator", ["scm", "oas", "lwf"])
def test_covariance_gradient(estimator: str) -> None:
    X = torch.randn(2, 3, 8, generator=seeded(), dtype=torch.float64)
    pool = CovariancePool(estimator)
    assert torch.autograd.gradcheck(pool, X.requires_grad_())


def test_covariance_of_volts_in_half_precision_is_not_zero() -> None:
    X = 1e-5 * torch.randn(2, 3, 80, generator=seeded())
    exact = CovariancePool()(X)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(CovariancePool()(X), exact)
    rough = CovariancePool()(X.half())
    assert rough.dtype == torch.float32 and float(rough.abs().min()) > 0


def test_bands_and_windows_are_cut_where_they_stand() -> None:
    # Two bands of three channels, two windows of five samples, one left over.
    X = torch.randn(4, 6, 11, generator=seeded(), dtype=torch.float64)
    front = CovarianceFront(6, 11, n_bands=2, n_windows=2)
    S = front(X)
    assert S.shape == (4, 2, 2, 3, 3)
    for band in range(2):
        for window in range(2):
            part = X[1, 3 * band : 3 * band + 3, 5 * window : 5 * window + 5]
            np.testing.assert_allclose(
                S[1, band, window], np.cov(part.numpy(), bias=True), rtol=1e-10
            )
    assert torch.equal(front(X.view(4, 2, 3, 11)), S)
    assert torch.equal(front(front.statistics(X)), S)
    for shape in ((4, 5, 11), (4, 6, 10), (4, 3, 2, 11), (4, 7)):
        with pytest.raises(EEGTensorError, match="6 channels and 11 samples"):
            front(torch.zeros(shape))
    with pytest.raises(EEGTensorError, match="6 channels do not hold 4 bands"):
        CovarianceFront(6, 11, n_bands=4)
    with pytest.raises(EEGTensorError, match="12 windows of 11 samples"):
        CovarianceFront(6, 11, n_windows=12)


def test_haar_matrices_have_no_preferred_direction() -> None:
    Q = haar_stiefel(4000, 5, 2, generator=seeded(), dtype=torch.float64)
    eye = torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(Q.mT @ Q, eye.expand(4000, 2, 2), rtol=0, atol=1e-13)
    # Entries are symmetric about zero (LAPACK's own Q is not) with variance 1 / n,
    # and the fourth moment of a coordinate on the sphere is 3 / (n (n + 2)).
    assert float(Q.mean(dim=0).abs().max()) < 5 * (1 / 5 / 4000) ** 0.5
    second, fourth = Q.square().mean(dim=0), Q.pow(4).mean(dim=0)
    torch.testing.assert_close(second, torch.full_like(second, 0.2), rtol=0.08, atol=0)
    torch.testing.assert_close(
        fourth, torch.full_like(fourth, 3 / 35), rtol=0.12, atol=0
    )


def test_bimap_is_a_congruence_that_keeps_positive_matrices(device: str) -> None:
    layer = BiMap(6, 3, generator=seeded(), dtype=torch.float64).to(device)
    S = spd(4, 6).to(device)
    Z = layer(S)
    W = layer.weight.detach()
    expected = torch.stack([W.mT @ s @ W for s in S])
    torch.testing.assert_close(Z.detach(), expected, rtol=1e-12, atol=1e-13)
    assert torch.equal(Z, Z.mT)
    assert float(torch.linalg.eigvalsh(Z.detach()).min()) > 0
    assert isinstance(layer.weight, geoopt.ManifoldParameter)
    assert isinstance(layer.weight.manifold, geoopt.EuclideanStiefel)


def test_maps_side_by_side_are_maps_one_by_one() -> None:
    layer = BiMap(4, 2, n_maps=3, generator=seeded(), dtype=torch.float64)
    S = spd(5, 3, 4)
    for k in range(3):
        one = BiMap(4, 2, dtype=torch.float64)
        one.weight.data = layer.weight.data[k]
        torch.testing.assert_close(layer(S)[:, k], one(S[:, k]), rtol=1e-13, atol=1e-14)


def test_bimap_gradient() -> None:
    layer = BiMap(4, 2, generator=seeded(), dtype=torch.float64)
    S = spd(3, 4).requires_grad_()
    W = layer.weight.detach().clone().requires_grad_()

    def f(S: Tensor, W: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": W}, (S,))

    assert torch.autograd.gradcheck(f, (S, W))


def test_rectified_eigenvalues_are_relative() -> None:
    S = spd(6, 5, rank=3)
    raised = ReEig(1e-2)(S)
    values = np.linalg.eigvalsh(raised.numpy())
    floor = 1e-2 * S.diagonal(dim1=1, dim2=2).mean(dim=1).numpy()
    np.testing.assert_allclose(values[:, 0], floor, rtol=1e-10)
    np.testing.assert_allclose(values[:, 3:], np.linalg.eigvalsh(S)[:, 3:], rtol=1e-8)
    # Volts squared, or any other unit.
    torch.testing.assert_close(
        ReEig(1e-2)(1e-12 * S), 1e-12 * raised, rtol=1e-9, atol=0
    )
    # Nothing to raise: nothing is changed, to the last bit.
    assert torch.equal(ReEig()(spd(6, 5)), spd(6, 5))


@pytest.mark.parametrize("rank", [4, 20])
def test_rectified_gradient(rank: int) -> None:
    S = spd(3, 5, rank=rank)
    noise = 1e-6 * torch.eye(5, dtype=torch.float64) * torch.arange(1.0, 6.0)
    S = (S + noise).requires_grad_()

    def f(S: Tensor) -> Tensor:
        return ReEig(1e-2)(0.5 * (S + S.mT))

    assert torch.autograd.gradcheck(f, S)


def test_logarithm_and_exponential_against_scipy(device: str) -> None:
    S = spd(4, 3, 5).to(device)
    L = LogEig()(S)
    for i, j in np.ndindex(4, 3):
        np.testing.assert_allclose(
            L[i, j].cpu(), scipy.linalg.logm(S[i, j].cpu().numpy()), atol=1e-11
        )
    torch.testing.assert_close(ExpEig()(L), S, rtol=1e-11, atol=1e-12)


def test_tangent_vectors_keep_the_norm() -> None:
    S = spd(4, 5)
    v = TangentVector()(S)
    assert v.shape == (4, 15)
    torch.testing.assert_close(v.square().sum(dim=1), S.square().sum(dim=(1, 2)))
    torch.testing.assert_close(LogEig(vector=True)(S), TangentVector()(LogEig()(S)))


LAYERS = {
    "CovariancePool": CovariancePool(),
    "CovarianceFront": CovarianceFront(4, 4),
    "BiMap": BiMap(4, 2, generator=seeded(), dtype=torch.float64),
    "ReEig": ReEig(),
    "LogEig": LogEig(vector=True),
    "ExpEig": ExpEig(),
    "TangentVector": TangentVector(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_pickle_copy_and_export(name: str) -> None:
    layer: nn.Module = LAYERS[name].eval()
    S = spd(3, 4)
    expected = layer(S)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(S), expected)
    assert torch.equal(copy.deepcopy(layer)(S), expected)
    exported = torch.export.export(layer, (S,)).module()
    torch.testing.assert_close(exported(S), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("layer", [ReEig(), LogEig(), ExpEig(), TangentVector()])
def test_no_matrices_and_narrow_ones(layer: nn.Module) -> None:
    none = layer(torch.zeros(0, 3, 3))
    assert none.numel() == 0 and len(none) == 0
    X = torch.diag(torch.tensor([1.0, 2.0, 4.0]))
    for dtype in (torch.float16, torch.bfloat16, torch.int64):
        # These values are exact in every type, and no type of them has eigenvalues.
        torch.testing.assert_close(
            layer(X.to(dtype)).double(), layer(X.double()), rtol=1e-5, atol=1e-5
        )


def test_mistakes() -> None:
    with pytest.raises(EEGTensorError, match="from 3 to 4"):
        BiMap(3, 4)
    with pytest.raises(EEGTensorError, match=r"\(\.\.\., 4, 4\)"):
        BiMap(4, 2)(spd(2, 5))
    with pytest.raises(EEGTensorError, match="part of the mean eigenvalue"):
        ReEig(1.5)
    for layer in (ReEig(), LogEig(), ExpEig(), TangentVector()):
        with pytest.raises(EEGTensorError, match=r"shape \(2, 3\)"):
            layer(torch.zeros(2, 3))
    with pytest.raises(EEGTensorError, match="estimator='ledoit' is not known"):
        CovariancePool("ledoit")
    with pytest.raises(EEGTensorError, match="n_channels, n_times"):
        CovariancePool()(torch.zeros(3))
