"""Forward-mode derivatives: refused where they would silently be zero."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from _spd import matrices, symmetric
from torch import Tensor
from torch.autograd import forward_ad

from eegtensor import EEGTensorError, geometry
from eegtensor.geometry import _batched_eigh, spectral
from eegtensor.geometry._scalar import LOG

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "logm": geometry.logm,
    "sqrtm": geometry.sqrtm,
    "inv_sqrtm": geometry.inv_sqrtm,
    "powm": lambda X: geometry.powm(X, 0.3),
    "expm": geometry.expm,
    "sqrtm_pair": lambda X: geometry.sqrtm_pair(X)[0],
    "rectify": lambda X: geometry.rectify(X, 0.5),
    "with_derivatives": lambda X: spectral.with_derivatives(LOG, X, X)[1],
    "distance": lambda X: geometry.distance(X, X[:1]),
    "frechet_mean": geometry.frechet_mean,
    "eigvalsh": spectral.eigvalsh,
    "eigh": lambda X: spectral.eigh(X)[0],
    "eigh without a kernel": lambda X: _batched_eigh.eigh(X)[0],
}
NO_GRADIENT = {"eigvalsh", "eigh", "eigh without a kernel"}
# So few that LAPACK decomposes them, and so many that the compiled kernel does.
COUNTS = (2, 40)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_raises_or_is_right(name: str, count: int) -> None:
    f = FUNCTIONS[name]
    X, V = matrices("easy", 4, (count,), 1), symmetric(4, (count,), 2)
    for forward in (by_func, by_dual, by_jacfwd):
        try:
            found = forward(f, X, V)
        except (EEGTensorError, RuntimeError) as error:
            # torch's own words where a custom derivative is reached first.
            assert "forward mode" in str(error) or "autograd.Function" in str(error)
        else:
            torch.testing.assert_close(found, differences(f, X, V))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_raises_with_a_graph_too(name: str) -> None:
    X, V = matrices("easy", 4, (2,), 1), symmetric(4, (2,), 2)
    with pytest.raises((EEGTensorError, NotImplementedError)):
        by_dual(FUNCTIONS[name], X.clone().requires_grad_(), V)


def test_the_power_has_none_either() -> None:
    X, p = matrices("easy", 4, (2,), 1), torch.tensor(0.3, dtype=torch.float64)
    with pytest.raises(EEGTensorError, match="forward mode"):
        torch.func.jvp(lambda q: geometry.powm(X, q), (p,), (torch.ones_like(p),))


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - NO_GRADIENT))
def test_what_the_message_names_is_right(name: str) -> None:
    f = FUNCTIONS[name]
    X, V = matrices("easy", 4, (2,), 1), symmetric(4, (2,), 2)
    if name in ("with_derivatives", "frechet_mean"):
        # Differentiable once: not silently zero either.
        with pytest.raises(RuntimeError):
            torch.autograd.functional.jvp(f, X, V, strict=True)
        return
    found = torch.autograd.functional.jvp(f, X, V, strict=True)[1]
    torch.testing.assert_close(found, differences(f, X, V), rtol=1e-5, atol=1e-7)


def test_constants_are_decomposed_as_ever() -> None:
    X = matrices("easy", 4, (2,), 1)
    one = torch.ones((), dtype=torch.float64)
    value, slope = torch.func.jvp(lambda a: a * geometry.logm(X), (one,), (one,))
    torch.testing.assert_close(value, slope)


def by_func(f: Callable[[Tensor], Tensor], X: Tensor, V: Tensor) -> Tensor:
    found: Tensor = torch.func.jvp(f, (X,), (V,))[1]
    return found


def by_dual(f: Callable[[Tensor], Tensor], X: Tensor, V: Tensor) -> Tensor:
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(f(forward_ad.make_dual(X, V)))
        return torch.zeros_like(out.primal) if out.tangent is None else out.tangent


def by_jacfwd(f: Callable[[Tensor], Tensor], X: Tensor, V: Tensor) -> Tensor:
    along = torch.func.jacfwd(lambda a: f(X + a * V))
    found: Tensor = along(torch.zeros((), dtype=X.dtype))
    return found


def differences(f: Callable[[Tensor], Tensor], X: Tensor, V: Tensor) -> Tensor:
    h = 1e-5
    with torch.no_grad():
        return (f(X + h * V) - f(X - h * V)) / (2.0 * h)
