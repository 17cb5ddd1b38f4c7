"""Factorised convolutions: the dense kernel's numbers, whatever the way."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from nn._networks import KINDS, dense
from torch.nn.functional import conv1d, conv2d

from eegtensor._check import EEGTensorError
from eegtensor.nn import FactorizedConv1d, FactorizedConv2d
from eegtensor.nn._stages import stages

SHAPES = {"in_shape": (4, 6), "out_shape": (2, 8), "dtype": torch.float64}


@pytest.mark.parametrize("kind", KINDS)
def test_weight_is_the_kronecker_reconstruction(kind: str) -> None:
    net = FactorizedConv2d(24, 16, (3, 2), kind, 4, **SHAPES)  # type: ignore[arg-type]
    cores = [core.detach().numpy() for core in net.cores]
    W = dense(kind, (4, 6, 6, 2, 8), cores).reshape(24, 3, 2, 16)
    W = W.transpose(3, 0, 1, 2)
    np.testing.assert_allclose(net.weight.detach().numpy(), W, rtol=0, atol=1e-12)


@pytest.mark.parametrize("way", list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize("kind", KINDS)
def test_every_way_is_the_dense_convolution(
    kind: str, way: tuple[bool, bool], device: str
) -> None:
    options = {"stride": 2, "padding": 3, "dilation": 2}
    net = FactorizedConv1d(24, 16, 5, kind, 4, **options, **SHAPES).to(device)  # type: ignore[arg-type]
    x = torch.randn(3, 24, 40, dtype=torch.float64, device=device)
    net.plan(x.shape)
    for key in net._stages:
        net._stages[key] = stages(net.layout, 2, way, 100, 50)
    y = conv1d(x, net.weight, net.bias, 2, 3, 2)
    torch.testing.assert_close(net(x), y, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same", "dilation": (2, 1)},
        {"padding": "valid", "stride": (1, 3)},
        {"padding": (2, 0), "stride": 2, "bias": False},
    ],
)
@pytest.mark.parametrize("kind", ["tr", "cp"])
def test_options_are_those_of_torch(kind: str, options: dict[str, object]) -> None:
    net = FactorizedConv2d(24, 16, (3, 5), kind, 3, **options, **SHAPES)  # type: ignore[arg-type]
    other = torch.nn.Conv2d(24, 16, (3, 5), **options, dtype=torch.float64)  # type: ignore[arg-type]
    with torch.no_grad():
        other.weight.copy_(net.weight)
        if net.bias is not None and other.bias is not None:
            other.bias.copy_(net.bias)
    for shape in ((2, 24, 11, 20), (24, 11, 20)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(net(x), other(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    net = FactorizedConv1d(
        4, 4, 3, kind, 2, in_shape=(4,), out_shape=(2, 2), dtype=torch.float64
    )
    x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    names = list(dict(net.named_parameters()))

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(net, state, (x,))

    assert torch.autograd.gradcheck(run, (x, *net.parameters()))


@pytest.mark.parametrize("kind", ["tt", "tucker", "cp", "stt", "sttu"])
def test_a_trained_kernel_of_the_same_form_is_found_again(kind: str) -> None:
    planted = FactorizedConv1d(24, 16, 5, kind, 2, **SHAPES)  # type: ignore[arg-type]
    conv = torch.nn.Conv1d(24, 16, 5, 1, 4, 2, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(planted.weight)
    modes = {"in_shape": (4, 6), "out_shape": (2, 8)}
    net = FactorizedConv1d.from_conv(conv, kind, 2, **modes)  # type: ignore[arg-type]
    assert net.error < (2e-2 if kind == "cp" else 1e-6)
    x = torch.randn(2, 24, 30, dtype=torch.float64)
    close = 0.1 if kind == "cp" else 1e-6
    torch.testing.assert_close(net(x), conv(x), rtol=0, atol=close)
    # tltorch once lost it.
    assert net.dilation == (2,)


def test_full_rank_is_the_trained_convolution() -> None:
    conv = torch.nn.Conv2d(8, 6, (1, 3), padding="same", dtype=torch.float64)
    net = FactorizedConv2d.from_conv(conv, "tt", 1000)
    x = torch.randn(2, 8, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(net(x), conv(x), rtol=0, atol=1e-6)


def test_the_cheapest_way_is_taken() -> None:
    low = FactorizedConv1d(64, 64, 9, "tt", 2)
    high = FactorizedConv1d(64, 64, 9, "tt", 64)
    assert low.plan((64, 64, 500)).merged == (False, False)
    # Bonds as wide as the channels: mixing first would be work for nothing.
    assert high.plan((64, 64, 500)).merged == (True, True)


def test_the_kept_kernel_is_that_of_the_cores() -> None:
    net = FactorizedConv1d(64, 64, 9, "tt", 64, stride=2, padding=3)
    x = torch.randn(8, 64, 100)
    with torch.no_grad():
        for scale in (1.0, 2.0):
            net.cores[0].data.mul_(scale)
            net(x), net(x)
            assert net._kept is not None
            assert net._kept.weight is not None
            y = conv1d(x, net.weight, net.bias, 2, 3)
            torch.testing.assert_close(net(x), y, rtol=0, atol=1e-5)
            torch.testing.assert_close(net(x[0]), y[0], rtol=0, atol=1e-5)


def test_copies_and_pickles_and_export() -> None:
    net = FactorizedConv1d(24, 16, 5, "str", 4, in_shape=(4, 6), out_shape=(2, 8))
    x = torch.randn(3, 24, 40)
    y = net(x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(other(x), y, rtol=0, atol=0)
    batch = torch.export.Dim("batch", min=2, max=512)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: batch},))
    x = torch.randn(7, 24, 40)
    torch.testing.assert_close(program.module()(x), net(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["cp", "sttu"])
def test_autocast_gives_bfloat16(kind: str, device: str) -> None:
    options = {"in_shape": (4, 6), "out_shape": (2, 8)}
    net = FactorizedConv1d(24, 16, 5, kind, 4, **options).to(device)  # type: ignore[arg-type]
    x = torch.randn(3, 24, 40, device=device)
    with torch.autocast(device, torch.bfloat16):
        y = net(x)
    assert y.dtype == torch.bfloat16
    error = (y.float() - net(x)).norm() / net(x).norm()
    assert float(error.detach()) < 0.03


def test_initial_kernel_has_glorot_variance() -> None:
    g = torch.Generator().manual_seed(0)
    squares = [
        FactorizedConv1d(32, 16, 5, "tr", 4, generator=g).weight.square().mean()
        for _ in range(100)
    ]
    ratios = torch.stack(squares).detach() * 5 * (32 + 16) / 2
    uncertainty = float(ratios.std()) / len(ratios) ** 0.5
    assert uncertainty < 0.08
    assert abs(float(ratios.mean()) - 1.0) < 3.5 * uncertainty


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"groups": 2}, "groups=2"),
        ({"padding": "full"}, "padding"),
        ({"padding": "same", "stride": 2}, "stride"),
        ({"padding": -1}, "padding=-1"),
        ({"stride": (1, 2)}, "stride"),
    ],
)
def test_mistakes_are_explained(options: dict[str, object], words: str) -> None:
    with pytest.raises(EEGTensorError, match=words):
        FactorizedConv1d(24, 16, 5, "tt", 4, **options)  # type: ignore[arg-type]
    net = FactorizedConv1d(24, 16, 5, "tt", 4)
    with pytest.raises(EEGTensorError, match="24 channels"):
        net(torch.zeros(2, 23, 40))


def test_conv2d_kernel_against_torch_by_hand() -> None:
    net = FactorizedConv2d(6, 4, (2, 3), "tucker", 3, padding=1)
    x = torch.randn(2, 6, 7, 8)
    torch.testing.assert_close(
        net(x), conv2d(x, net.weight, net.bias, padding=1), rtol=0, atol=1e-5
    )
