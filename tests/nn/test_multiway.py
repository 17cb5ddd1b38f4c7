"""Multi-way attention against the tensor of all tuples, built whole."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from torch import Tensor

from eegtensor._check import EEGTensorError
from eegtensor.nn import MultiwayAttention, MultiwayBlock


def layer(n: int = 3, **options: object) -> MultiwayAttention:
    settings = {"rank": 3, "n_heads": 2, "dtype": torch.float64}
    settings |= {"generator": torch.Generator().manual_seed(0)}
    dims = (6, 4, 8, 3, 5, 7)[:n]
    return MultiwayAttention(dims, **(settings | options))  # type: ignore[arg-type]


def inputs(net: MultiwayAttention, length: int = 5, batch: int = 2) -> list[Tensor]:
    g = torch.Generator().manual_seed(1)
    W = net.ring[0]
    return [
        torch.randn(batch, length, d, generator=g, dtype=torch.float64).to(W)
        for d in net.dims
    ]


def brute_force(net: MultiwayAttention, xs: list[Tensor]) -> list[Tensor]:
    """Every tuple's weight and value, one after the other."""
    out = [torch.zeros_like(x) for x in xs]
    width = net.d_value // net.n_heads
    for b in range(len(xs[0])):
        gathered = [torch.zeros(x.shape[1], net.d_value).to(x) for x in xs]
        for h in range(net.n_heads):
            G, v = [], []
            for m, x in enumerate(xs):
                ring = (net.ring[m] @ x[b].mT).mT
                size = net.rank**2
                g = ring[:, h * size : (h + 1) * size]
                g = g.exp() if net.feature == "exp" else g.square()
                G.append(g.reshape(-1, net.rank, net.rank))
                v.append((x[b] @ net.value[m].mT)[:, h * width : (h + 1) * width])
            total = [torch.zeros(x.shape[1]).to(x) for x in xs]
            top = [torch.zeros(x.shape[1], width).to(x) for x in xs]
            for index in itertools.product(*(range(x.shape[1]) for x in xs)):
                chain = torch.eye(net.rank).to(xs[0])
                for g, i in zip(G, index, strict=True):
                    chain = chain @ g[i]
                A = chain.trace()
                assert A > 0
                for m, i in enumerate(index):
                    total[m][i] += A
                    others = [v[n][j] for n, j in enumerate(index) if n != m]
                    top[m][i] += A * torch.stack(others).sum(dim=0)
            for m in range(len(xs)):
                mean = top[m] / total[m][:, None]
                gathered[m][:, h * width : (h + 1) * width] = mean
        for m in range(len(xs)):
            out[m][b] = gathered[m] @ net.out[m].mT
    return out


@pytest.mark.parametrize("feature", ["exp", "square"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_tensor_of_all_tuples(
    feature: str, dtype: torch.dtype, device: str
) -> None:
    net = layer(feature=feature, dtype=dtype).to(device)
    xs = inputs(net)
    with torch.no_grad():
        wanted = brute_force(net.cpu().double(), [x.cpu().double() for x in xs])
        got = net.to(device, dtype)(*xs)
    close = 1e-5 if dtype == torch.float32 else 1e-12
    for x, y, z in zip(xs, got, wanted, strict=True):
        assert y.shape == x.shape
        assert float(z.std()) > 0.05
        torch.testing.assert_close(y.cpu().double(), z, rtol=0, atol=close)


def test_two_modalities_of_rank_one_are_a_weighted_mean() -> None:
    net = layer(2, rank=1, n_heads=1)
    x, y = inputs(net)
    weights = (y @ net.ring[1].mT).softmax(dim=1)
    mean = (weights * (y @ net.value[1].mT)).sum(dim=1, keepdim=True)
    wanted = (mean @ net.out[0].mT).expand_as(x)
    torch.testing.assert_close(net(x, y)[0], wanted)


def test_gradients() -> None:
    net = layer(rank=2, n_heads=1, d_value=2)
    xs = [x[:, :3].requires_grad_() for x in inputs(net, batch=1)]
    names = list(dict(net.named_parameters()))

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip(names, values[3:], strict=True))
        return torch.func.functional_call(net, state, values[:3])

    assert torch.autograd.gradcheck(run, (*xs, *net.parameters()))


def test_padding_is_not_attended_to() -> None:
    for feature in ("exp", "square"):
        net = layer(feature=feature)
        xs = inputs(net)
        masks = [torch.ones(2, 5, dtype=torch.bool), None, None]
        masks[0][:, 3:] = False  # type: ignore[index]
        xs[0][:, 3:] = 1e3
        short = net(xs[0][:, :3], *xs[1:])
        padded = net(*xs, masks=masks)
        torch.testing.assert_close(padded[0][:, :3], short[0])
        for a, b in zip(padded[1:], short[1:], strict=True):
            torch.testing.assert_close(a, b)
        assert all(y.isfinite().all() for y in padded)
        padded[1].sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def saved(net: MultiwayAttention, xs: list[Tensor]) -> int:
    """Numbers that one forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = net(*xs)
    del out
    return sum(kept.values())


def test_memory_is_linear_in_the_number_of_modalities() -> None:
    numbers = []
    for n in range(2, 7):
        net = MultiwayAttention((16,) * n, 4, n_heads=2)
        xs = [torch.randn(4, 30, 16) for _ in range(n)]
        numbers.append(saved(net, xs))
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    # All tuples would be 30^2 to 30^6 numbers for each trial.
    assert max(steps) < 1.25 * min(steps)


def test_long_rings_and_large_inputs_stay_finite() -> None:
    net = MultiwayAttention((8,) * 12, 4, generator=torch.Generator().manual_seed(0))
    xs = [50.0 * torch.randn(2, 40, 8) for _ in range(12)]
    out = net(*xs)
    assert all(y.isfinite().all() for y in out)
    sum(y.sum() for y in out).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_block_is_residual_and_trains() -> None:
    make = {"rank": 2, "n_heads": 2}
    a, b = (
        MultiwayBlock((8, 4), **make, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
        for _ in range(2)
    )
    xs = [torch.randn(3, 5, 8), torch.randn(3, 9, 4)]
    out = a(*xs)
    for x, y, z in zip(xs, out, b(*xs), strict=True):
        assert y.shape == x.shape
        torch.testing.assert_close(y, z, rtol=0, atol=0)
    sum(y.square().sum() for y in out).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.any() for p in a.attention.parameters())
    with torch.no_grad():
        for W in a.attention.out:
            W.zero_()
        for feed in a.feed:
            feed[4].weight.zero_()
            feed[4].bias.zero_()
        for x, y in zip(xs, a(*xs), strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_copies_pickles_export_and_autocast(device: str) -> None:
    net = layer(dtype=torch.float32).to(device)
    xs = inputs(net)
    wanted = net(*xs)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(other(*xs), wanted, rtol=0, atol=0)
    program = torch.export.export(net, tuple(xs))
    torch.testing.assert_close(program.module()(*xs), wanted)
    with torch.autocast(device, torch.bfloat16):
        torch.testing.assert_close(net(*xs), wanted, rtol=0, atol=1e-6)


def test_mistakes_are_explained() -> None:
    with pytest.raises(EEGTensorError, match="two modalities"):
        MultiwayAttention((4,))
    with pytest.raises(EEGTensorError, match="multiple of n_heads=2"):
        MultiwayAttention((4, 4), n_heads=2, d_value=3)
    with pytest.raises(EEGTensorError, match="feature"):
        MultiwayAttention((4, 4), feature="relu")
    net = layer()
    with pytest.raises(EEGTensorError, match="3 modalities"):
        net(*inputs(net)[:2])
