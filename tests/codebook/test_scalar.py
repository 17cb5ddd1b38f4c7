"""Rounding to few values: every code is reached, every index comes back."""

from __future__ import annotations

import math

import pytest
import torch

from eegtensor._check import EEGTensorError
from eegtensor.codebook import (
    finite_scalar,
    index_to_scalar,
    index_to_signs,
    lookup_free,
    lookup_free_penalty,
    scalar_to_index,
    signs_to_index,
)


@pytest.mark.parametrize("levels", [(2,), (3, 5), (8, 5, 4), (2, 2, 7)])
def test_every_index_comes_back_and_all_are_reached(levels: tuple[int, ...]) -> None:
    index = torch.arange(math.prod(levels))
    values = index_to_scalar(index, levels)
    assert torch.equal(scalar_to_index(values, levels), index)
    assert len(values.unique(dim=0)) == len(index)
    g = torch.Generator().manual_seed(0)
    z = 6 * torch.rand(20_000, len(levels), generator=g) - 3
    found = scalar_to_index(finite_scalar(z, levels), levels)
    assert torch.equal(found.unique(), index)
    torch.testing.assert_close(index_to_scalar(found, levels), finite_scalar(z, levels))


def test_rounding_takes_the_nearest_value_and_passes_the_gradient_of_the_bound() -> (
    None
):
    z = torch.linspace(-4, 4, 41, dtype=torch.float64)[:, None].requires_grad_()
    out = finite_scalar(z, (5,))
    bounded = 2 * (1 + 1e-3) * z.detach().tanh()
    torch.testing.assert_close(out.detach(), bounded.round() / 2)
    out.sum().backward()
    torch.testing.assert_close(z.grad, (1 + 1e-3) / z.detach().cosh() ** 2)


def test_signs() -> None:
    index = torch.arange(16)
    signs = index_to_signs(index, 4)
    assert torch.equal(signs_to_index(signs), index)
    z = torch.randn(50, 4, requires_grad=True)
    out = lookup_free(z)
    assert torch.equal(out.detach(), torch.where(z > 0, 1.0, -1.0))
    out.sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))


def test_the_first_coordinate_counts_least() -> None:
    assert torch.equal(signs_to_index(2 * torch.eye(4) - 1), torch.tensor([1, 2, 4, 8]))
    low = torch.tensor([-1.0, -1.0])
    assert scalar_to_index(low, (3, 5)) == 0
    assert scalar_to_index(low + torch.tensor([1.0, 0.0]), (3, 5)) == 1
    assert scalar_to_index(low + torch.tensor([0.0, 0.5]), (3, 5)) == 3


def test_penalty_takes_a_bit_as_a_choice_by_its_product_with_the_sign() -> None:
    z = torch.tensor([[0.3], [-0.2], [0.9]], dtype=torch.float64)
    p = torch.softmax(z * torch.tensor([-1.0, 1.0]) / 0.7, dim=1)
    mean = p.mean(dim=0)
    want = -(p * p.log()).sum(dim=1).mean() + (mean * mean.log()).sum()
    torch.testing.assert_close(lookup_free_penalty(z, temperature=0.7), want)


def test_penalty_is_lowest_for_sure_bits_used_alike() -> None:
    alike = index_to_signs(torch.arange(8), 3)
    one = alike[:1].expand(8, 3)
    unsure = 1e-4 * alike
    best = float(lookup_free_penalty(alike))
    assert best == pytest.approx(-3 * math.log(2), rel=1e-5)
    assert float(lookup_free_penalty(one)) == pytest.approx(0.0, abs=1e-5)
    assert float(lookup_free_penalty(unsure)) > best + 1


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(EEGTensorError, match="two values"):
        finite_scalar(torch.zeros(3, 1), (1,))
    with pytest.raises(EEGTensorError, match=r"shape \(3, 2\), there are 1"):
        finite_scalar(torch.zeros(3, 2), (4,))
    with pytest.raises(EEGTensorError, match="4 and 4, codes between 0 and 3"):
        index_to_scalar(torch.tensor([4]), (4,))
