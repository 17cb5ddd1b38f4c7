"""Compressed networks come back from their files as they were."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors import safe_open
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.compress import compress, load, save
from eegtensor.models import TSMNet
from eegtensor.training import Batch, forward_all

RECIPES = [
    "",
    "factorise(ratio=2.0)",
    "factorise(ratio=2.0, kind='tucker') | int8(min_size=1)",
    "int8(min_size=1)",
    "int8(activations='static', min_size=1)",
    "binary",
    "binary(method='biper', inputs='scaled')",
    "codebooks(bits=3, epochs=1)",
    "elastic(bits=(2, 8), final=(2, 8))",
    "prune(keep=0.5)",
    "prune(keep=0.5) | codebooks(bits=4, epochs=0)",
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_predictions_are_the_same_after_loading(
    recipe, net, power, toy, tuner, tmp_path
):
    small = compress(net, recipe, tune=tuner(1), data=toy[0])
    size = save(small, tmp_path / "net", floats="float32")
    assert size == (tmp_path / "net").stat().st_size
    again = load(tmp_path / "net", power(seed=5))
    x = toy[1]
    assert torch.equal(forward_all(again, x), forward_all(small, x))
    assert not again.training
    # A file without code: tensors, and JSON beside them.
    with safe_open(tmp_path / "net", framework="pt") as file:
        assert set(file.metadata()) == {"format", "state"}


def test_convolutions_come_back(waves, toy, tmp_path):
    g = torch.Generator().manual_seed(0)
    x = Batch(torch.randn(20, 8, 64, generator=g))
    for recipe in ("int8(min_size=1)", "binary(min_size=1, inputs='scaled')"):
        small = compress(waves(), recipe, data=x)
        save(small, tmp_path / "net")
        again = load(tmp_path / "net", waves(seed=3))
        assert torch.equal(forward_all(again, x), forward_all(small, x)), recipe
    wide = nn.Sequential(nn.Conv1d(8, 64, 9, padding=4), nn.Conv2d(1, 16, (8, 9)))
    small = compress(wide, "factorise(ratio=2.0)")
    save(small, tmp_path / "net")
    again = load(tmp_path / "net", copy.deepcopy(wide))
    assert torch.equal(again[0](x.x), small[0](x.x))
    assert torch.equal(again[1](x.x[:, None]), small[1](x.x[:, None]))


@pytest.mark.parametrize(("floats", "most"), [("float16", 2e-3), ("int8", 2e-2)])
def test_short_numbers(floats, most, net, power, toy, tmp_path):
    whole = save(net, tmp_path / "whole")
    small = save(net, tmp_path / "short", floats=floats)
    again = load(tmp_path / "short", power(seed=5))
    for (name, p), q in zip(net.named_parameters(), again.parameters(), strict=True):
        assert p.dtype == q.dtype
        assert (p - q).norm() <= most * p.norm(), name
    header = 6000
    assert small < (whole - header) / (1.9 if floats == "float16" else 3.0) + header
    # In every unit alike: half numbers of volts have few digits, eight bits do not.
    net.filters.weight.data *= 1e-6
    save(net, tmp_path / "volts", floats=floats)
    again = load(tmp_path / "volts", power(seed=5))
    error = (again.filters.weight - net.filters.weight).norm()
    assert floats == "float16" or error <= most * net.filters.weight.norm()


def test_flags_take_a_bit_each(net, power, tmp_path):
    g = torch.Generator().manual_seed(0)
    net.register_buffer("seen", torch.rand(81, 257, generator=g) > 0.5)
    other = power(seed=5)
    before = save(other, tmp_path / "other")
    assert save(net, tmp_path / "net") - before < 81 * 257 // 8 + 300
    other.register_buffer("seen", torch.zeros(81, 257, dtype=torch.bool))
    assert torch.equal(load(tmp_path / "net", other).seen, net.seen)


def test_numbers_that_another_file_has(net, power, tmp_path):
    save(net, tmp_path / "net", leave=["head.*"])
    own = power(seed=5)
    kept = own.head.weight.detach().clone()
    again = load(tmp_path / "net", own)
    assert torch.equal(again.head.weight, kept)
    assert torch.equal(again.filters.weight, net.filters.weight)


def test_spd_networks_with_domains(tmp_path):
    domains = [("a", "0", "0"), ("a", "1", "0")]
    net = TSMNet(8, 2, 64, domains=domains, random_state=0).eval()
    x = torch.randn(6, 8, 64, generator=torch.Generator().manual_seed(0))
    codes = torch.tensor([0, 1] * 3)
    net.fit_statistics(x, codes)
    data = Batch(x, domain=codes)
    small = compress(net, "int8(min_size=1)", data=data)
    frames = {n: p for n, p in net.named_parameters() if hasattr(p, "manifold")}
    assert frames
    for name, p in frames.items():
        assert torch.equal(small.get_parameter(name), p)
    save(small, tmp_path / "net")
    again = load(tmp_path / "net", TSMNet(8, 2, 64, domains=domains, random_state=1))
    told = (forward_all(m, data) for m in (net, small, again))
    plain, ours, back = told
    assert torch.equal(ours, back)
    assert (ours - plain).norm() < 0.05 * plain.norm()


@pytest.mark.parametrize("recipe", ["int8(min_size=1)", "binary", "prune(keep=0.5)"])
def test_networks_in_float64(recipe, net, power, toy, tmp_path):
    x = Batch(toy[0].x.double())
    small = compress(net.double(), recipe, data=x)
    save(small, tmp_path / "net")
    again = load(tmp_path / "net", power(seed=5).double())
    assert torch.equal(forward_all(again, x), forward_all(small, x))
    assert {v.dtype for v in again.state_dict().values() if v.is_floating_point()} == {
        torch.float64
    }


def test_files_of_other_networks(net, waves, tmp_path):
    save(compress(net, "int8(min_size=1)"), tmp_path / "net")
    with pytest.raises(EEGTensorError, match="another network"):
        load(tmp_path / "net", waves())
    (tmp_path / "net").write_bytes(b"nothing")
    with pytest.raises(EEGTensorError, match="no whole"):
        load(tmp_path / "net", net)
    with pytest.raises(EEGTensorError, match="floats"):
        save(net, tmp_path / "net", floats="int4")
