"""Volterra convolutions against sums written out, and their bound against draws."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch

from eegtensor._check import EEGTensorError
from eegtensor.nn import (
    VolterraConv1d,
    fit_volterra,
    perturbation_bound,
    volterra_series,
)
from eegtensor.nn.volterra import input_norms


def written_out(x: np.ndarray, kernels: list[np.ndarray], step: int) -> np.ndarray:
    """The definition, in loops: (in, times), kernels -> (out, times')."""
    n_in, n_times = x.shape
    taps = kernels[0].shape[-1]
    times = n_times - step * (taps - 1)
    y = np.zeros((len(kernels[0]), times))
    places = list(itertools.product(range(n_in), range(taps)))
    for n, H in enumerate(kernels, start=1):
        for chosen in itertools.product(places, repeat=n):
            index = tuple(i for place in chosen for i in place)
            for time in range(times):
                product = np.prod([x[c, time + step * k] for c, k in chosen])
                y[:, time] += H[(slice(None), *index)] * product
    return y


def layer(order: int, **options: object) -> VolterraConv1d:
    settings = {"rank": 3, "dtype": torch.float64}
    settings |= {"generator": torch.Generator().manual_seed(0)}
    return VolterraConv1d(2, 3, 3, order, **(settings | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("order", [2, 3])
def test_full_kernels_are_the_definition(order: int, rng: np.random.Generator) -> None:
    kernels = [rng.standard_normal((2, *(2, 3) * n)) for n in range(1, order + 1)]
    x = rng.standard_normal((2, 8))
    y = volterra_series(
        torch.from_numpy(x)[None], [torch.from_numpy(H) for H in kernels], dilation=2
    )
    np.testing.assert_allclose(y[0].numpy(), written_out(x, kernels, 2), atol=1e-10)


@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 3, "dilation": 2}])
@pytest.mark.parametrize("order", [2, 3])
def test_layer_is_the_series_of_its_kernels(
    order: int, options: dict[str, int], device: str
) -> None:
    net = layer(order, **options).to(device)
    x = torch.randn(4, 2, 20, dtype=torch.float64, device=device)
    kernels = net.kernels()
    assert kernels[-1].shape == (3, *(2, 3) * order)
    y = volterra_series(x, kernels, **options) + net.bias[:, None]  # type: ignore[index]
    torch.testing.assert_close(net(x), y, rtol=0, atol=1e-11)
    # Symmetric in its delays.
    H = kernels[1].flatten(1, 2).flatten(2)
    torch.testing.assert_close(H, H.mT)


@pytest.mark.parametrize("order", [2, 3])
def test_gradients(order: int) -> None:
    net = layer(order)
    x = torch.randn(2, 2, 6, dtype=torch.float64, requires_grad=True)
    names = list(dict(net.named_parameters()))

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(net, state, (x,))

    assert torch.autograd.gradcheck(run, (x, *net.parameters()))


def test_second_order_and_a_mean_is_a_covariance_feature() -> None:
    g = torch.Generator().manual_seed(0)
    net = VolterraConv1d(4, 1, 1, 2, rank=1, bias=False, dtype=torch.float64)
    x = torch.randn(3, 4, 50, dtype=torch.float64, generator=g)
    with torch.no_grad():
        net.linear.zero_()
        net.filters[1] = net.filters[0]
        net.mixing.fill_(1.0)
    w = net.filters[0, :, 0]
    C = x @ x.mT / 50
    power = torch.einsum("c,ncd,d->n", w, C, w)
    torch.testing.assert_close(net(x).mean(dim=2)[:, 0], power)


# -- the bound ------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.0, 2.0, float("inf")])
@pytest.mark.parametrize("order", [2, 3])
def test_bound_is_never_violated(order: int, p: float) -> None:
    g = torch.Generator().manual_seed(order)
    net = layer(order, padding=2)
    draws = 1000
    x = torch.randn(draws, 2, 12, dtype=torch.float64, generator=g)
    scale = 10.0 ** (4.0 * torch.rand(draws, 1, 1, generator=g).double() - 3.0)
    e = scale * torch.randn(draws, 2, 12, dtype=torch.float64, generator=g)
    # A tenth of the draws are pulses, where Hoelder's inequality is sharpest.
    x[::10] = 0.0
    x[::10, 0, 5] = 3.0
    e[::10] = scale[::10] * (x[::10] != 0)
    with torch.no_grad():
        change = torch.linalg.vector_norm(net(x + e) - net(x), p, dim=-1)
        norms = input_norms(x, order, p), input_norms(e, order, p)
        loose = perturbation_bound(net, *norms)
        tight = perturbation_bound(net.kernels(), *norms)
    assert (change <= tight * (1 + 1e-9)).all()
    assert (tight <= loose * (1 + 1e-9)).all()
    # A bound that says nothing would pass as well.
    assert float((change / tight).max()) > 0.4 / order


def test_bound_of_one_channel_is_the_papers_and_is_reached() -> None:
    H1 = torch.tensor([[[0.0]]], dtype=torch.float64)
    H2 = torch.full((1, 1, 1, 1, 1), -2.0, dtype=torch.float64)
    H3 = torch.full((1, 1, 1, 1, 1, 1, 1), 3.0, dtype=torch.float64)
    x = torch.zeros(1, 1, 9, dtype=torch.float64)
    x[0, 0, 4] = 2.0
    e = 0.5 * x
    for kernels, size, n in (((H1, H2), 2.0, 2), ((H1, 0 * H2, H3), 3.0, 3)):
        bound = perturbation_bound(kernels, input_norms(x, n), input_norms(e, n))
        assert float(bound) == pytest.approx(size * (3.0**n - 2.0**n))
        both = [volterra_series(z, kernels) for z in (x + e, x)]
        change = torch.linalg.vector_norm(both[0] - both[1])
        assert float(change) == pytest.approx(float(bound))


# -- recovery -------------------------------------------------------------------------


def planted(g: torch.Generator, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernels of order 1 and 2 of 6 taps, the second of low rank and symmetric."""
    h = torch.randn(1, 1, 6, dtype=torch.float64, generator=g)
    u = torch.randn(rank, 6, dtype=torch.float64, generator=g)
    H = torch.einsum("ra,rb->ab", u, u) / 6
    return h, H.reshape(1, 1, 6, 1, 6)


def test_planted_second_order_kernel_is_recovered() -> None:
    g = torch.Generator().manual_seed(0)
    h, H = planted(g, 6)
    # 6 + 21 numbers, 50 samples for each.
    x = torch.randn(1, 1, 27 * 50 + 5, dtype=torch.float64, generator=g)
    clean = volterra_series(x, (h, H))
    noise = torch.randn(clean.shape, dtype=torch.float64, generator=g)
    found = fit_volterra(x, clean + 0.05 * clean.std() * noise, 6)
    assert float((found[1] - H).norm() / H.norm()) < 0.01
    assert float((found[0] - h).norm() / h.norm()) < 0.02
    exact = fit_volterra(x * 1e-6, clean, 6)
    torch.testing.assert_close(exact[1] * 1e-12, H, rtol=0, atol=1e-9)


def test_layer_trained_on_white_input_recovers_the_kernel() -> None:
    g = torch.Generator().manual_seed(1)
    h, H = planted(g, 2)
    x = torch.randn(1, 1, 27 * 50 + 5, dtype=torch.float64, generator=g)
    y = volterra_series(x, (h, H))
    net = VolterraConv1d(1, 1, 6, 2, rank=4, generator=g, dtype=torch.float64)
    search = torch.optim.LBFGS(
        net.parameters(), max_iter=300, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        search.zero_grad()
        error = (net(x) - y).square().mean()
        error.backward()
        return error

    search.step(loss)
    found = net.kernels()[1].detach()
    assert float((found - H).norm() / H.norm()) < 0.01


def test_kernels_of_several_channels_and_order_three_are_recovered() -> None:
    g = torch.Generator().manual_seed(2)
    net = layer(3, bias=False)
    x = torch.randn(3, 2, 500, dtype=torch.float64, generator=g)
    with torch.no_grad():
        found = fit_volterra(x, net(x), 3, order=3)
        for a, b in zip(found, net.kernels(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


# -- as a module ----------------------------------------------------------------------


def test_copies_pickles_export_and_autocast(device: str) -> None:
    net = layer(3, dtype=torch.float32).to(device)
    x = torch.randn(4, 2, 30, device=device)
    y = net(x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(other(x), y, rtol=0, atol=0)
    batch = torch.export.Dim("batch", min=2, max=100)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(x[:3]), y[:3], rtol=0, atol=1e-6)
    with torch.autocast(device, torch.bfloat16):
        low = net(x)
    assert low.dtype == torch.bfloat16
    assert float(((low.float() - y).norm() / y.norm()).detach()) < 0.05


def test_mistakes_are_explained() -> None:
    with pytest.raises(EEGTensorError, match="order=4"):
        VolterraConv1d(2, 3, 3, 4)
    with pytest.raises(EEGTensorError, match="rank=0"):
        VolterraConv1d(2, 3, 3, rank=0)
    with pytest.raises(EEGTensorError, match="n_times"):
        layer(2)(torch.zeros(2, 3, 9, dtype=torch.float64))
    with pytest.raises(EEGTensorError, match="input_norms"):
        perturbation_bound(layer(3), torch.ones(1, 2, 2), torch.ones(1, 2, 2))
    with pytest.raises(EEGTensorError, match="numbers to find"):
        fit_volterra(torch.randn(1, 2, 12), torch.randn(1, 1, 10), 3)
