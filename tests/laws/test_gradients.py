"""Every function of the geometry has the derivatives that differences say it has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from _spd import generator, matrices, symmetric
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from eegtensor import geometry
from eegtensor.geometry.metrics import METRICS

N = 3
SPECTRAL: dict[str, Callable[..., object]] = {
    "logm": geometry.logm,
    "expm": lambda X: geometry.expm(0.3 * X),
    "sqrtm": geometry.sqrtm,
    "inv_sqrtm": geometry.inv_sqrtm,
    "sqrtm_pair": geometry.sqrtm_pair,
    "powm": lambda X: geometry.powm(X, -0.7),
    "rectify": lambda X: geometry.rectify(X, 0.4),
    "rectify some": lambda X: geometry.rectify(X, 0.9),
}
# Curves through matrices, so that differences stay symmetric.
SPECTRA = {
    "far apart": [0.01, 1.0, 30.0],
    "equal": [2.0, 2.0, 2.0],
    "a pair": [0.5, 2.0, 2.0],
    "nearly a pair": [0.5, 2.0, 2.0 + 1e-9],
    "near identity": [1.0 - 1e-7, 1.0, 1.0 + 1e-6],
}


def with_spectrum(values: list[float]) -> Tensor:
    Q = torch.linalg.qr(symmetric(N, (), 5))[0]
    return geometry.symmetrize((Q * torch.tensor(values, dtype=Q.dtype)) @ Q.mT)


def checked(
    function: Callable[..., object], *inputs: Tensor, second: bool = True
) -> None:
    """First and second derivatives against differences of symmetric matrices."""
    leaves = [x.clone().requires_grad_() for x in inputs]

    def symmetric_only(*args: Tensor) -> object:
        return function(
            *(0.5 * (x + x.mT) if x.ndim > 1 and x.shape[-1] == N else x for x in args)
        )

    # Fast mode: along random directions, not entry by entry.
    steps = {"eps": 1e-5, "fast_mode": True}
    assert gradcheck(symmetric_only, leaves, atol=2e-6, rtol=2e-5, **steps)
    if second:
        assert gradgradcheck(symmetric_only, leaves, atol=2e-5, rtol=2e-4, **steps)


CASES = [
    (name, spectrum)
    for name in SPECTRAL
    for spectrum in SPECTRA
    # There the floor cuts between eigenvalues closer than a step of differences.
    if not (name.startswith("rectify") and spectrum == "near identity")
]


@pytest.mark.parametrize(("name", "spectrum"), CASES)
def test_spectral_functions(name: str, spectrum: str) -> None:
    checked(SPECTRAL[name], with_spectrum(SPECTRA[spectrum]))


def test_power_with_its_exponents() -> None:
    X = matrices("easy", N, (2,), 1)
    checked(geometry.powm, X, torch.tensor([0.3, -1.2], dtype=X.dtype))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["easy", "repeated"])
def test_metrics(metric: str, kind: str) -> None:
    A, B = matrices(kind, N, (), 1), matrices(kind, N, (), 2)
    U, V = 0.1 * symmetric(N, (), 3), 0.1 * symmetric(N, (), 4)
    # Maps of the log-Euclidean metric are themselves first derivatives.
    second = metric != "log-euclidean"
    short = {"metric": metric}
    checked(lambda a, b: geometry.distance(a, b, **short), A, B)
    checked(lambda a, u, v: geometry.inner(a, u, v, **short), A, U, V, second=second)
    checked(lambda a, v: geometry.norm(a, v, **short), A, V, second=second)
    checked(lambda a, v: geometry.exp_map(a, v, **short), A, V, second=second)
    checked(lambda a, b: geometry.log_map(a, b, **short), A, B, second=second)
    t = torch.tensor(0.3, dtype=torch.float64)
    checked(lambda a, b, s: geometry.geodesic(a, b, s, **short), A, B, t)


@pytest.mark.parametrize("metric", METRICS)
def test_transport(metric: str) -> None:
    A, B = matrices("easy", N, (), 1), matrices("easy", N, (), 2)
    V = 0.1 * symmetric(N, (), 3)
    checked(
        lambda a, b, v: geometry.transport(a, b, v, metric=metric),
        A,
        B,
        V,
        second=False,
    )


@pytest.mark.parametrize("center", [geometry.frechet_mean, geometry.geometric_median])
@pytest.mark.parametrize("metric", METRICS)
def test_centers_with_weights_and_segments(
    metric: str, center: Callable[..., Tensor]
) -> None:
    X = matrices("easy", 2, (9,), 1).requires_grad_()
    w = torch.linspace(0.8, 1.2, 9, dtype=X.dtype).requires_grad_()
    codes = [0, 1, 0, 1, 0, 1, 0, 1, 1]
    given = {"segments": codes, "metric": metric, "tol": 1e-13, "max_iter": 200}
    G = symmetric(2, (2,), 3)
    (center(X, weights=w, **given) * G).sum().backward()
    # Along random directions: a gradcheck of every entry would take a minute.
    for seed in range(4):
        direction = torch.randn(9, generator=generator(seed), dtype=X.dtype)
        dX, dw = 2e-6 * symmetric(2, (9,), seed), 2e-6 * direction
        with torch.no_grad():
            ends = [
                (center(X + s * dX, weights=w + s * dw, **given) * G).sum()
                for s in (-1, 1)
            ]
        expected = float((X.grad * dX).sum() + (w.grad * dw).sum())
        assert float(ends[1] - ends[0]) / 2 == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_dispersion(metric: str) -> None:
    X, M = matrices("easy", N, (3,), 1), matrices("easy", N, (), 2)
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=X.dtype)
    checked(
        lambda x, m, w: geometry.dispersion(x, m, weights=w, metric=metric),
        X,
        M,
        weights,
    )


@pytest.mark.parametrize("estimator", ["scm", "oas", "lwf", "regularised"])
@pytest.mark.parametrize("masked", [None, "samples", "channels"])
def test_covariances(estimator: str, masked: str | None) -> None:
    X = torch.randn(2, 4, 9, generator=generator(0), dtype=torch.float64)
    mask = torch.rand(2, 4, 9, generator=generator(1)) < 0.8
    masks = {None: None, "samples": mask[:, 0], "channels": mask}
    checked(
        lambda x: geometry.covariances(x, estimator=estimator, mask=masks[masked]), X
    )


def test_vectors() -> None:
    X = symmetric(N, (2,), 1)
    checked(geometry.upper_vector, X)
    checked(geometry.from_upper_vector, geometry.upper_vector(X))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_distance_of_a_point_to_itself_has_the_gradient_zero(
    metric: str, dtype: torch.dtype, device: str
) -> None:
    for kind in ("easy", "repeated", "near identity", "volts"):
        A = matrices(kind, 5, (3,), 1).to(device, dtype).requires_grad_()
        B = A.detach().clone().requires_grad_()
        d = geometry.distance(A, B, metric=metric)
        d.sum().backward()
        assert bool((d == 0).all())
        assert bool((A.grad == 0).all() and (B.grad == 0).all())
