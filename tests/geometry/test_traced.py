"""Functions without a look at the values: exported programs give the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from _spd import KINDS, generator, matrices, symmetric
from torch import Tensor

from eegtensor import geometry
from eegtensor.geometry import _transport

FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logm": lambda A, B: geometry.logm(A),
    "rectify": lambda A, B: geometry.rectify(A, 0.5),
    **{
        f"{name} {metric}": function
        for metric in geometry.metrics.METRICS
        for name, function in {
            "distance": lambda A, B, m=metric: geometry.distance(A, B, metric=m),
            "geodesic": lambda A, B, m=metric: geometry.geodesic(A, B, 0.3, metric=m),
            "exp": lambda A, B, m=metric: geometry.exp_map(A, B - A, metric=m),
            "log": lambda A, B, m=metric: geometry.log_map(A, B, metric=m),
            "inner": lambda A, B, m=metric: geometry.inner(A, B, B - A, metric=m),
        }.items()
    },
}


class Wrapped(torch.nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Tensor) -> Tensor:
        return self.function(*args)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_export(name: str) -> None:
    given = [(matrices(kind, 4, (3,), 1), matrices(kind, 4, (3,), 2)) for kind in KINDS]
    program = torch.export.export(Wrapped(FUNCTIONS[name]), given[0], strict=False)
    for A, B in given:
        out, expected = program.module()(A, B), FUNCTIONS[name](A, B)
        scale = float(expected.abs().max())
        torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-9 * scale)


def test_export_of_transport_and_covariances() -> None:
    A, B, V = (*(matrices("easy", 4, (3,), s) for s in (1, 2)), symmetric(4, (3,), 3))
    program = torch.export.export(Wrapped(geometry.transport), (A, B, V), strict=False)
    torch.testing.assert_close(
        program.module()(A, B, V), geometry.transport(A, B, V), rtol=1e-9, atol=1e-9
    )
    X = torch.randn(3, 4, 50, generator=generator(0))
    program = torch.export.export(Wrapped(geometry.covariances), (X,), strict=False)
    torch.testing.assert_close(program.module()(X), geometry.covariances(X))


def test_the_mesh_without_a_look_at_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    A, B, V = (*(matrices("easy", 4, (3,), s) for s in (1, 2)), symmetric(4, (3,), 3))
    given = {"metric": "bures-wasserstein"}
    expected = geometry.transport(A, B, V, **given)
    monkeypatch.setattr(_transport, "_eager_cpu", lambda X: False)
    torch.testing.assert_close(
        geometry.transport(A, B, V, **given), expected, rtol=1e-7, atol=1e-8
    )
