"""Inputs that break quantisers: ties, offsets, no vectors, odd dtypes and units."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eegtensor._check import EEGTensorError
from eegtensor.codebook import (
    FiniteScalarQuantizer,
    GroupedQuantizer,
    LookupFreeQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
    allocate_levels,
    code_counts,
    code_usage,
    decode_residual,
    encode_residual,
    finite_scalar,
    kmeans,
    nearest_codes,
    stability,
    straight_through,
)

MAKE = {
    "running": lambda: VectorQuantizer(4, 8),
    "slope": lambda: VectorQuantizer(4, 8, update="gradient"),
    "residual": lambda: ResidualQuantizer(4, 8, 3),
    "grouped": lambda: GroupedQuantizer(4, 8, 2),
    "finite scalar": lambda: FiniteScalarQuantizer((5, 4, 3, 2)),
    "lookup-free": lambda: LookupFreeQuantizer(4),
}


def vectors(n: int, dim: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_codes", [3, 33, 100, 127, 131, 255, 301, 1025])
def test_the_first_of_equal_codes_wherever_the_blocks_end(n_codes: int) -> None:
    codes = vectors(n_codes, 7)
    repeated = codes.repeat(3, 1)
    assert torch.equal(nearest_codes(codes, repeated), torch.arange(n_codes))
    one = torch.stack([nearest_codes(c, repeated) for c in codes[:5]])
    assert torch.equal(one, torch.arange(min(5, n_codes)))


@pytest.mark.parametrize("offset", [1e3, 1e5])
def test_a_common_offset_costs_no_digits(offset: float) -> None:
    # Electrodes have offsets a thousand times what they measure.
    X, codes = vectors(500, 16) + offset, vectors(300, 16, 1) + offset
    want = torch.cdist(X.double(), codes.double()).argmin(dim=1)
    assert torch.equal(nearest_codes(X, codes), want)
    found = kmeans(X, 8)
    centred = kmeans((X - offset).double(), 8, max_iter=50)
    assert found.error < 1.1 * centred.error


@pytest.mark.parametrize("scale", [1e-14, 1.0, 1e14])
def test_angles_have_no_unit(scale: float) -> None:
    X, codes = vectors(200), vectors(20, seed=1)
    want = torch.nn.functional.cosine_similarity(X[:, None], codes, dim=-1).argmax(1)
    assert torch.equal(nearest_codes(scale * X, scale * codes, cosine=True), want)
    found = kmeans(scale * X, 5, cosine=True).codes
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    module = VectorQuantizer(4, 8, unit=True)
    module(scale * X)
    torch.testing.assert_close(module.codes.norm(dim=1), torch.ones(8))


def test_a_zero_vector_has_no_direction() -> None:
    X = torch.cat([torch.zeros(30, 4), vectors(100)])
    assert int(nearest_codes(X, vectors(20), cosine=True)[:30].max()) == 0
    found = kmeans(X, 6, cosine=True)
    torch.testing.assert_close(found.codes.norm(dim=1), torch.ones(6))
    assert int(found.counts.sum()) == 130
    # Opposite vectors have no mean direction; nothing but zeros, no code.
    assert kmeans(torch.eye(2)[:1] * torch.tensor([[1.0], [-1.0]]), 1, cosine=True)[
        0
    ].norm() == pytest.approx(1.0)
    assert bool(kmeans(torch.zeros(5, 3), 2, cosine=True).codes.isfinite().all())


def test_kmeans_of_one_vector_of_equal_ones_and_of_whole_numbers() -> None:
    one = kmeans(vectors(1), 3)
    assert one.error == 0 and torch.equal(one.codes, vectors(1).expand(3, 4))
    assert kmeans(torch.full((500, 3), 0.1), 16).error == pytest.approx(0, abs=1e-14)
    whole = kmeans(torch.arange(12).view(6, 2), 6)
    assert whole.error == 0 and whole.codes.dtype == torch.float64
    half = kmeans(vectors(50).half(), 4)
    assert half.codes.dtype == torch.float32


@pytest.mark.parametrize("seed", range(4))
def test_no_code_is_empty_on_heavy_tails(seed: int) -> None:
    X = vectors(2000, 3, seed) / vectors(2000, 1, seed + 9).abs().clamp_min(1e-3)
    assert int(kmeans(X, 200, max_iter=8, random_state=seed).counts.min()) > 0


def test_layout_gradient_and_dtype_of_vectors_change_nothing() -> None:
    X, codes = vectors(60, 8), vectors(20, seed=1)
    want = nearest_codes(X[:, ::2].contiguous(), codes)
    assert torch.equal(nearest_codes(X[:, ::2], codes), want)
    assert torch.equal(nearest_codes(X.T[::2].T.requires_grad_(), codes), want)
    assert torch.equal(nearest_codes(X[:, ::2].double(), codes), want)
    for dtype in (torch.float16, torch.bfloat16):
        rounded = X[:, ::2].to(dtype)
        found = nearest_codes(rounded, codes)
        assert torch.equal(found, nearest_codes(rounded.float(), codes))
    whole = nearest_codes(torch.tensor([[2, 0, 0, 0]]), 2 * torch.eye(4))
    assert whole.tolist() == [0]


@pytest.mark.parametrize("name", MAKE)
def test_no_vectors_cost_nothing(name: str) -> None:
    module = MAKE[name]()
    module(vectors(100))
    for mode in (True, False):
        out = module.train(mode)(torch.zeros(0, 5, 4, requires_grad=True))
        assert out.values.shape == (0, 5, 4) and float(out.loss.detach()) == 0


@pytest.mark.parametrize("name", MAKE)
def test_whole_numbers_get_codes_with_digits(name: str) -> None:
    module = MAKE[name]()
    z = (3 * vectors(100)).round().long()
    out = module(z)
    assert out.values.is_floating_point()
    torch.testing.assert_close(
        module.eval()(z).values.float(), module(z.double()).values.float()
    )


@pytest.mark.parametrize("name", MAKE)
def test_what_was_not_sent_is_zero(name: str) -> None:
    module = MAKE[name]()
    ids = module(vectors(100)).ids
    assert not bool(module.decode(torch.full_like(ids, -1)).any())
    some = ids.clone()
    some[0] = -1
    assert torch.equal(module.decode(some)[1:], module.decode(ids)[1:])
    assert not bool(module.decode(some)[0].any())


@pytest.mark.parametrize("name", MAKE)
def test_what_is_not_finite_is_refused(name: str) -> None:
    module = MAKE[name]()
    module(vectors(100))
    z = vectors(10)
    z[3, 1], z[7, 0] = torch.nan, -torch.inf
    for mode in (True, False):
        with pytest.raises(EEGTensorError, match=r"2 of 10 vectors .* first is 3"):
            module.train(mode)(z)


def test_large_finite_values_are_not_taken_for_infinite() -> None:
    X = torch.full((40, 4), 3e37)
    assert nearest_codes(X, torch.zeros(2, 4)).tolist() == [0] * 40


def test_other_weights_in_the_same_module_are_seen() -> None:
    module = VectorQuantizer(4, 8).eval()
    z = vectors(50)
    module(z)
    for seed in (3, 4):
        codes = vectors(8, seed=seed)
        out = torch.func.functional_call(module, {"codes": codes}, (z,))
        assert torch.equal(out.ids, nearest_codes(z, codes))
    with torch.no_grad():
        module.codes.mul_(-1)
    assert torch.equal(module(z).ids, nearest_codes(z, module.codes))


class Decoder(nn.Module):
    def __init__(self, quantiser: nn.Module) -> None:
        super().__init__()
        self.quantiser = quantiser

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.quantiser.decode(ids)
        return found


@pytest.mark.parametrize("name", MAKE)
def test_decoding_is_exported(name: str) -> None:
    module = MAKE[name]()
    ids = module(vectors(100)).ids
    n = torch.export.Dim("n", min=2, max=4096)
    exported = torch.export.export(
        Decoder(module.eval()), (ids,), dynamic_shapes=({0: n},)
    ).module()
    assert torch.equal(exported(ids[:40]), module.decode(ids[:40]))


def test_the_value_is_the_code_to_the_last_digit() -> None:
    z, q = 1e4 * vectors(50), vectors(50, seed=1)
    assert torch.equal(straight_through(z.requires_grad_(), q), q)


def test_residuals_without_vectors_without_codes_and_with_too_few_prefixes() -> None:
    tables = torch.stack([vectors(8, seed=k) for k in range(3)])
    X = vectors(20)
    X[4] = torch.nan
    for beam in (1, 3):
        with pytest.raises(EEGTensorError, match=r"1 of 20 vectors"):
            encode_residual(X, tables, beam=beam)
        assert encode_residual(X[:0].view(0, 2, 4), tables, beam=beam).shape == (
            0,
            2,
            3,
        )
    with pytest.raises(EEGTensorError, match="beam=0"):
        encode_residual(X[:3], tables, beam=0)
    nothing = torch.full((5, 3), -1)
    assert not bool(decode_residual(nothing, tables).any())
    assert code_counts(nothing, 8).sum() == 0
    assert code_usage(code_counts(nothing, 8)).perplexity.tolist() == [1.0] * 3
    assert math.isnan(float(stability(nothing[:0], nothing[:0])[0]))


def test_a_budget_that_is_no_number_buys_nothing_silently() -> None:
    errors = np.array([[4.0, 1.0]])
    with pytest.raises(EEGTensorError, match="not finite"):
        allocate_levels(errors, np.ones(1), float("nan"))
    assert allocate_levels(errors, np.ones(1), -1.0).tolist() == [0]
    assert allocate_levels(errors, np.ones(1), float("inf")).tolist() == [1]
    assert allocate_levels(np.ones((0, 3)), np.ones(0), 9.0).shape == (0,)


def test_a_coordinate_far_out_keeps_the_outermost_value() -> None:
    z = torch.tensor([[-1e30], [1e30]], dtype=torch.float64)
    for n in (2, 3, 4, 7, 8):
        low, high = (finite_scalar(z, (n,)) * (n // 2)).flatten().round().tolist()
        assert (low, high) == (-(n // 2), (n - 1) // 2)
