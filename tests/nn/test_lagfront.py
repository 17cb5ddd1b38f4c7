"""The linear front: both paths against the convolutions as published."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eegtensor import EEGTensorError
from eegtensor.nn import LinearFront
from eegtensor.nn._lag import lag_statistics, n_statistics, shifted_products

# channels, samples, kernel: trials longer than the filters, shorter, hardly longer
# than the padding, and filters of one sample.
SIZES = [(5, 100, 25), (3, 17, 25), (3, 13, 25), (4, 30, 3), (4, 30, 1), (1, 40, 5)]


def front(
    n_chans: int = 5, n_times: int = 100, kernel: int = 25, **options: object
) -> LinearFront:
    generator = torch.Generator().manual_seed(0)
    settings = {"n_temporal": 3, "n_spatial": 6, "dtype": torch.float64, **options}
    return LinearFront(n_chans, n_times, kernel=kernel, generator=generator, **settings)  # type: ignore[arg-type]


def signals(batch: int, n_chans: int, n_times: int, offset: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, n_chans, n_times, generator=generator, dtype=torch.float64)
    return x + offset


def published(layer: LinearFront, x: Tensor, W: Tensor | None = None) -> Tensor:
    """Convolutions one after the other, with biases, then covariance and BiMap."""
    half = layer.kernel // 2
    padded = F.pad(x[:, None], (half, half, 0, 0), mode="reflect")
    h = F.conv2d(padded, layer.temporal.weight, layer.temporal.bias)
    h = F.conv2d(h, layer.spatial.weight, layer.spatial.bias)[:, :, 0]
    h = h - h.mean(dim=-1, keepdim=True)
    S = h @ h.mT / h.shape[-1]
    return S if W is None else W.mT @ S @ W


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    assert a.shape == b.shape
    a, b = a.detach(), b.detach()
    assert float((a - b).abs().max()) <= tolerance * float(b.abs().max())


@pytest.mark.parametrize(("n_chans", "n_times", "kernel"), SIZES)
@pytest.mark.parametrize("path", ["conv", "lag"])
@pytest.mark.parametrize("projected", [False, True])
def test_values_and_gradients_are_those_of_the_convolutions(
    n_chans: int, n_times: int, kernel: int, path: str, projected: bool, device: str
) -> None:
    layer = front(n_chans, n_times, kernel, path=path).to(device)
    x = signals(7, n_chans, n_times).to(device).requires_grad_()
    W = torch.linalg.qr(signals(1, 6, 3, 0.0)[0])[0].to(device).requires_grad_()
    given = (x, W) if projected else (x,)
    wanted, got = published(layer, *given), layer(*given)
    close(got, wanted, 1e-12)
    parameters = [layer.temporal.weight, layer.spatial.weight, *given]
    cotangent = torch.randn_like(wanted)
    for ours, theirs in zip(
        torch.autograd.grad(got, parameters, cotangent),
        torch.autograd.grad(wanted, parameters, cotangent),
        strict=True,
    ):
        close(ours, theirs, 1e-11)


def test_gradients_against_finite_differences() -> None:
    layer = front(2, 14, 5, n_temporal=2, n_spatial=3, path="lag")
    x = signals(2, 2, 14)
    names = ("temporal.weight", "spatial.weight")
    weights = [layer.get_parameter(n).detach().requires_grad_() for n in names]

    def covariance(*values: Tensor) -> Tensor:
        return torch.func.functional_call(
            layer, dict(zip(names, values, strict=True)), (layer.statistics(x),)
        )

    assert torch.autograd.gradcheck(covariance, weights)
    assert torch.autograd.gradgradcheck(covariance, weights)


def test_statistics_stand_for_trials_and_do_not_depend_on_the_batch() -> None:
    layer = front(path="lag")
    x = signals(9, 5, 100)
    statistics = layer.statistics(x)
    assert statistics.shape == (9, layer.n_statistics) == (9, n_statistics(5, 25))
    close(layer(statistics), layer(x), 1e-14)
    for i in (0, 8):
        assert torch.equal(layer.statistics(x[i : i + 1])[0], statistics[i])


def test_long_recordings_go_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = signals(9, 5, 100)
    whole = lag_statistics(x, 25)
    monkeypatch.setattr("eegtensor.nn._lag._BLOCK", 1200)
    close(lag_statistics(x, 25), whole, 1e-15)


@pytest.mark.parametrize("path", ["conv", "lag"])
@pytest.mark.parametrize("unit", [1e-6, 1.0])
def test_float32_keeps_its_digits_in_volts_and_under_an_offset(
    path: str, unit: float
) -> None:
    wide = front(path=path)
    narrow = copy.deepcopy(wide).float()
    # Microvolts on an electrode offset a hundred times larger.
    x = unit * (10.0 * signals(20, 5, 100, 0.0) + 1000.0)
    got, wanted = narrow(x.float()).double(), wide(x.float().double())
    scale = wanted.diagonal(dim1=1, dim2=2).sqrt()
    error = (got - wanted) / (scale[:, :, None] * scale[:, None, :])
    assert float(error.abs().max()) < 3e-6


def test_sums_are_in_float64() -> None:
    x = signals(4, 5, 100).float()
    assert torch.equal(lag_statistics(x, 25), lag_statistics(x.double(), 25).float())


def test_the_path_can_change_and_parameters_are_the_same() -> None:
    conv, lag = front(path="conv"), front(path="lag")
    assert conv.state_dict().keys() == lag.state_dict().keys()
    lag.load_state_dict(conv.state_dict())
    x = signals(3, 5, 100)
    close(lag(x), conv(x), 1e-12)
    conv.path = "lag"
    assert torch.equal(conv(x), lag(x))


def test_the_matrix_products_for_gpus_are_a_convolution() -> None:
    x, weight = signals(4, 5, 60), signals(6, 5, 9)
    close(shifted_products(x, weight), F.conv1d(x, weight), 1e-13)


def test_seeds_pickles_and_copies() -> None:
    layer = front(path="lag")
    x = signals(3, 5, 100)
    for again in (front(path="lag"), copy.deepcopy(layer)):
        assert torch.equal(again(x), layer(x))
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), layer(x))
    # A float32 network has the weights of the same seed, rounded.
    narrow = front(path="lag", dtype=torch.float32)
    assert torch.equal(narrow.spatial.weight, layer.spatial.weight.float())


@pytest.mark.parametrize("path", ["conv", "lag"])
def test_export(path: str) -> None:
    layer = front(path=path).eval()
    x = signals(3, 5, 100)
    given = layer.statistics(x) if path == "lag" else x
    exported = torch.export.export(layer, (given,)).module()
    close(exported(given), layer(x), 1e-12)


def test_autocast_does_not_round() -> None:
    for path in ("conv", "lag"):
        layer = front(path=path, dtype=torch.float32)
        x = 1e-5 * signals(3, 5, 100).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(layer(x), front(path=path, dtype=torch.float32)(x))
        assert layer((1e6 * x).half()).dtype == torch.float32


def test_mistakes() -> None:
    conv, lag = front(), front(path="lag")
    with pytest.raises(EEGTensorError, match="5 channels and 100 samples"):
        conv(signals(2, 4, 100))
    with pytest.raises(EEGTensorError, match="5 channels and 100 samples"):
        lag.statistics(signals(2, 5, 99))
    with pytest.raises(EEGTensorError, match="front='conv' filters trials"):
        conv(lag.statistics(signals(2, 5, 100)))
    with pytest.raises(EEGTensorError, match="have 755 entries"):
        lag(torch.zeros(2, 7))
    with pytest.raises(EEGTensorError, match="odd"):
        front(kernel=24)
    with pytest.raises(EEGTensorError, match="too short"):
        front(n_times=12)
    with pytest.raises(EEGTensorError, match="front='lags' is not known"):
        front(path="lags")
    x = signals(4, 5, 100)
    x[2, 1, 7] = torch.nan
    for layer in (conv, lag):
        with pytest.raises(EEGTensorError, match="Trials 2 of the batch hold NaN"):
            layer(x)
