"""The autoencoder of windows: its parts by loops, its answer by what it beats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eegtensor import EEGTensorError
from eegtensor.tensor.completion import _embedded, complete, mmes, multichannel_ssa
from eegtensor.tensor.completion._autoencoder import (
    Autoencoder,
    errors,
    overlap_average,
    windows_of,
)
from eegtensor.tensor.completion.mmes import Manifold, spatial_start


@pytest.mark.parametrize(("n_times", "w"), [(9, 1), (12, 4), (5, 5), (6, 4)])
def test_windows_and_their_average_are_the_loops(n_times: int, w: int) -> None:
    X = torch.randn(2, 3, n_times, dtype=torch.float64)
    found = windows_of(X, w)
    n = n_times - w + 1
    assert found.shape == (2, n, 3 * w)
    for i in range(n):
        torch.testing.assert_close(found[:, i], X[:, :, i : i + w].flatten(1))
    other = torch.randn(2, n, 3 * w, dtype=torch.float64)
    total, count = torch.zeros_like(X), torch.zeros(n_times, dtype=torch.float64)
    for i in range(n):
        total[:, :, i : i + w] += other[:, i].view(2, 3, w)
        count[i : i + w] += 1
    torch.testing.assert_close(overlap_average(other, 3), total / count)


def test_gradient_reaches_lost_cells_and_network() -> None:
    generator = torch.Generator().manual_seed(0)
    network = Autoencoder(6, 2, 5, generator).double()
    seen = torch.rand(2, 2, 5, generator=generator) > 0.4
    X = torch.randn(2, 2, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64)
    weights = [p.detach().requires_grad_() for p in network.parameters()]
    names = [name for name, _ in network.named_parameters()]

    def loss(X: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        def call(windows: torch.Tensor) -> torch.Tensor:
            given = dict(zip(names, weights, strict=True))
            return torch.func.functional_call(network, given, (windows,))

        missed, off = errors(call, X, seen, noise, 3)  # type: ignore[arg-type]
        return missed + 5 * off

    assert torch.autograd.gradcheck(loss, (X.requires_grad_(), *weights))
    loss(X, *weights).backward()
    assert X.grad is not None and (X.grad[~seen] != 0).all()


def wobbling(n_times: int = 2000) -> NDArray:
    """An oscillation of 2 to 18 Hz and changing size, seen by three channels in turn.

    Its windows need some twenty directions, and three numbers.
    """
    t = np.arange(n_times) / 100
    size = 1 + 0.5 * np.sin(2 * np.pi * 0.21 * t)
    phase = 2 * np.pi * 10 * t + 8 / 0.13 * np.sin(2 * np.pi * 0.13 * t)
    return np.stack([size * np.cos(phase + turn) for turn in (0.0, 0.4, 1.1)])


def nrmse(X: NDArray, found: NDArray, seen: NDArray) -> float:
    return float(np.linalg.norm((found - X)[~seen]) / np.linalg.norm(X[~seen]))


def gaps(shape: tuple[int, ...]) -> NDArray:
    seen = np.random.default_rng(1).random(shape) > 0.3
    for start in range(40, shape[-1] - 20, 50):
        seen[..., start : start + 6] = False
    return seen


def test_a_curved_surface_beats_a_flat_one_of_its_dimension() -> None:
    X = wobbling()
    seen = gaps(X.shape)
    found = mmes(X, seen, window=16, latent=4, max_iter=500)
    flat = multichannel_ssa(X, seen, window=16, rank=4, n_steps=20)
    cut = multichannel_ssa(X, seen, window=16, rank=4, n_steps=20, shrink=False)
    linear = min(nrmse(X, flat.values, seen), nrmse(X, cut.values, seen))
    assert nrmse(X, found.values, seen) < 0.6 * linear
    assert found.n_steps > 0 and min(found.history) < 0.6 * found.history[0]
    assert (found.values[seen] == X[seen]).all()


def test_lost_cells_come_to_lie_on_the_surface() -> None:
    X = torch.from_numpy(wobbling(1000)[None])
    seen = torch.from_numpy(gaps(X.shape))
    values = torch.where(seen, X, 0.0)
    model = Manifold(12, 4, 0.05, 0)
    model.fit(values, seen, spatial_start(values, seen), 250)
    nothing = torch.zeros_like(seen)
    on = model.restore(model.filled, nothing, model.filled, passes=1)
    # Without the second error of the objective it is 0.1.
    assert float((on - model.filled)[~seen].square().mean()) < 0.03


def test_same_seed_same_result_in_any_unit() -> None:
    X = wobbling(400)
    seen = gaps(X.shape)
    options = {"window": 6, "latent": 3, "max_iter": 25}
    one, two = (mmes(X, seen, random_state=3, **options) for _ in range(2))
    np.testing.assert_array_equal(one.values, two.values)
    assert one.history == two.history
    other = mmes(X, seen, random_state=4, **options)
    assert (other.values != one.values).any()
    small = mmes(1e-6 * X, seen, random_state=3, **options)
    np.testing.assert_allclose(1e6 * small.values, one.values, atol=1e-3)


def test_it_keeps_the_start_where_nothing_is_better(rng: np.random.Generator) -> None:
    X = rng.standard_normal((3, 600))
    seen = rng.random(X.shape) > 0.2
    found = mmes(X, seen, start=np.zeros_like(X), max_iter=50)
    if found.n_steps == 0:
        np.testing.assert_allclose(found.values[~seen], 0.0, atol=1e-12)
    assert min(found.history) == found.history[found.n_steps // 25]


def test_arrays_and_trials(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_embedded, "MMES_STEPS", 50)
    X = wobbling(800).reshape(3, 2, 400).swapaxes(0, 1)
    seen = gaps(X.shape)
    found = complete(X, seen, method="mmes")
    assert (found.X[seen] == X[seen]).all() and np.isfinite(found.X).all()
    assert found.table[0].method.startswith(("mmes", "zero"))
    tensor = torch.from_numpy(X).float().to(device)
    mask = torch.from_numpy(seen).to(device)
    values = mmes(tensor, mask, max_iter=25).values
    assert values.dtype == torch.float32 and values.device.type == device
    assert (values[mask] == tensor[mask]).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(EEGTensorError, match="longer than the 30 samples"):
        mmes(wobbling(30), window=31)
    with pytest.raises(EEGTensorError, match="latent=0"):
        mmes(wobbling(30), latent=0)
