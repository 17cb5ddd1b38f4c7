"""Codes of a few bits in bytes, and layers that are kept as such."""

from __future__ import annotations

import copy

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.compress import PackedLayer
from eegtensor.compress._layers import Shape
from eegtensor.compress._packing import pack_bits, unpack_bits


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("n", [0, 1, 7, 64, 101])
def test_codes_come_back_and_take_so_many_bits(bits, n):
    codes = torch.randint(2**bits, (n,), generator=torch.Generator().manual_seed(n))
    packed = pack_bits(codes, bits)
    assert packed.dtype == torch.uint8 and len(packed) == -(-n * bits // 8)
    assert torch.equal(unpack_bits(packed, bits, n), codes)
    # The stream as Python's own whole number.
    whole = sum(int(code) << (bits * k) for k, code in enumerate(codes))
    assert bytes(packed.tolist()) == whole.to_bytes(len(packed), "little")


def test_codes_that_do_not_fit_are_refused():
    with pytest.raises(EEGTensorError, match="2 bits"):
        pack_bits(torch.tensor([0, 4]), 2)
    with pytest.raises(EEGTensorError, match="bits=9"):
        pack_bits(torch.tensor([0]), 9)


@pytest.mark.parametrize("kind", ["integer", "binary", "codebook"])
def test_weights_are_those_of_the_formula(kind):
    g = torch.Generator().manual_seed(0)
    bits = 1 if kind == "binary" else 3
    codes = torch.randint(2**bits, (5, 7), generator=g)
    shape = Shape("linear", (5, 7))
    scale, table = torch.rand(5, generator=g), torch.randn(2, 8, generator=g)
    group = torch.tensor([0, 1, 1, 0, 1], dtype=torch.uint8)
    if kind == "codebook":
        layer = PackedLayer(shape, kind, bits, bias=False, n_groups=2)
        layer.fill(codes, None, table=table, group=group)
        wanted = table[group.long()[:, None], codes]
    else:
        offset = kind == "integer"
        layer = PackedLayer(shape, kind, bits, bias=False, offset=offset)
        layer.fill(codes, None, scale=scale, **({"offset": -scale} if offset else {}))
        wanted = (codes - 4.0) * scale[:, None] - scale[:, None]
        wanted = wanted if offset else (2.0 * codes - 1.0) * scale[:, None]
    assert torch.allclose(layer.weight, wanted, atol=1e-7)
    x = torch.randn(2, 4, 7, generator=g)
    assert torch.allclose(layer(x), x @ wanted.mT, atol=1e-6)
    twin = copy.deepcopy(layer)
    assert twin._weight is None and torch.equal(twin(x), layer(x))


def test_loading_forgets_the_weight_of_before():
    layer = PackedLayer(Shape("linear", (2, 3)), "binary", 1, bias=False)
    other = copy.deepcopy(layer)
    other.fill(torch.ones(2, 3).long(), None, scale=torch.full((2,), 2.0))
    assert (layer.weight == -1).all()
    layer.load_state_dict(other.state_dict())
    assert (layer.weight == 2).all()
