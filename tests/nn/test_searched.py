"""A layer whose ranks the search chose, on weights whose ranks are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from eegtensor._check import EEGTensorError
from eegtensor.nn import FactorizedLinear, search_linear


def planted(kind: str, ranks: tuple[int, ...]) -> nn.Linear:
    """A dense layer that is exactly a network of these ranks."""
    g = torch.Generator().manual_seed(0)
    hidden = FactorizedLinear(
        12, 20, kind, ranks, in_shape=(3, 4), out_shape=(4, 5), generator=g
    ).double()
    layer = nn.Linear(12, 20).double()
    with torch.no_grad():
        layer.weight.copy_(hidden.weight)
    return layer


@pytest.mark.parametrize(("kind", "ranks"), [("tr", (2, 3, 1, 2)), ("tt", (2, 4, 3))])
def test_known_ranks_are_found_and_the_layer_does_the_same(
    kind: str, ranks: tuple[int, ...]
) -> None:
    layer = planted(kind, ranks)
    found = search_linear(
        layer, kind, in_shape=(3, 4), out_shape=(4, 5), max_rank=4, max_fits=60
    )
    hidden = FactorizedLinear(
        12, 20, kind, ranks, in_shape=(3, 4), out_shape=(4, 5)
    ).layout.n_parameters
    assert found.layer.layout.n_parameters <= hidden
    assert found.structure.n_entries == found.layer.layout.n_parameters
    x: Tensor = torch.randn(7, 12, dtype=torch.float64)
    with torch.no_grad():
        error = float((found.layer(x) - layer(x)).norm() / layer(x).norm())
    assert error < 1e-3
    assert error == pytest.approx(math.sqrt(found.structure.rse), rel=2.0, abs=1e-5)


def test_what_is_not_a_choice_is_refused() -> None:
    with pytest.raises(EEGTensorError, match="permute is not a choice"):
        search_linear(nn.Linear(12, 20), permute=True)
    with pytest.raises(EEGTensorError, match="kind"):
        search_linear(nn.Linear(12, 20), "cp")
