"""The nearest code, against all distances written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from eegtensor._check import EEGTensorError
from eegtensor.codebook import nearest_codes


def by_distance(X: Tensor, codes: Tensor) -> Tensor:
    return (X.double()[:, None] - codes.double()).square().sum(dim=-1).argmin(dim=1)


@pytest.mark.parametrize("n_codes", [1, 2, 100, 128, 129, 255, 256, 257, 300, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_nearest_code_is_found(
    n_codes: int, dtype: torch.dtype, device: torch.device
) -> None:
    g = torch.Generator().manual_seed(n_codes)
    X = torch.randn(500, 7, generator=g, dtype=dtype).to(device)
    codes = torch.randn(n_codes, 7, generator=g, dtype=dtype).to(device)
    found = nearest_codes(X.view(5, 100, 7), codes)
    assert found.shape == (5, 100) and found.dtype == torch.int64
    assert torch.equal(found.view(-1), by_distance(X, codes))


def test_many_vectors_are_searched_in_parts() -> None:
    g = torch.Generator().manual_seed(0)
    X, codes = torch.randn(9000, 3, generator=g), torch.randn(600, 3, generator=g)
    assert torch.equal(nearest_codes(X, codes), by_distance(X, codes))


def test_the_first_of_equal_codes_is_taken() -> None:
    codes = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    twice = torch.cat([codes, codes])
    assert torch.equal(nearest_codes(codes, twice), torch.arange(400))


def test_the_nearest_in_angle() -> None:
    g = torch.Generator().manual_seed(0)
    X, codes = torch.randn(200, 5, generator=g), torch.randn(300, 5, generator=g)
    codes = codes * torch.logspace(-2, 2, 300)[:, None]
    angle = torch.nn.functional.cosine_similarity(X[:, None], codes, dim=-1)
    assert torch.equal(nearest_codes(X, codes, cosine=True), angle.argmax(dim=1))


def test_numpy_comes_back_and_no_unit_matters() -> None:
    rng = np.random.default_rng(0)
    X, codes = rng.standard_normal((50, 6)), rng.standard_normal((20, 6))
    found = nearest_codes(X, codes)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(nearest_codes(1e-6 * X, 1e-6 * codes), found)


def test_what_cannot_be_coded_is_refused() -> None:
    X, codes = torch.randn(10, 3), torch.randn(4, 3)
    with pytest.raises(EEGTensorError, match=r"shape \(10, 3\), codes have 2"):
        nearest_codes(X, codes[:, :2])
    X[4, 1] = torch.nan
    with pytest.raises(EEGTensorError, match=r"1 of 10 vectors .* first is 4"):
        nearest_codes(X, codes)
    codes[2, 0] = torch.inf
    with pytest.raises(
        EEGTensorError, match="1 of 4 codes are not finite, the first is 2"
    ):
        nearest_codes(X[:2], codes)
    with pytest.raises(EEGTensorError, match=r"codes have shape \(0, 3\)"):
        nearest_codes(X[:2], codes[:0])
