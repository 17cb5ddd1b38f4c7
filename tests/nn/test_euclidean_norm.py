"""Domain batch norm of vectors against a loop over domains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from eegtensor import EEGTensorError
from eegtensor.nn import DomainBatchNorm

NAMES = ["ann", "bob", "eve"]


def vectors(b: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, 4, dtype=torch.float64, generator=generator) * 2 + 1


@pytest.mark.parametrize("dispersion", ["vector", "scalar", "none"])
def test_equals_a_loop_over_domains(dispersion: str) -> None:
    norm = DomainBatchNorm(4, NAMES, dispersion=dispersion, dtype=torch.float64)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        norm.bias.uniform_(-1, 1)
        if norm.scale is not None:
            norm.scale.uniform_(0.5, 2)
    bias = norm.bias.detach().numpy()
    scale = 1.0 if norm.scale is None else norm.scale.detach().numpy()
    state: dict[int, list] = {}

    def normalise(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        divisor = 1.0 if dispersion == "none" else np.sqrt(variance + 1e-5)
        return (x - mean) / divisor * scale + bias

    for step in range(20):
        domain = rng.choice(3 if step > 5 else 2, 9)
        eta, eta_test = rng.random(2)
        norm.set_momentum(eta, eta_test)
        x = vectors(9, step)
        y = norm(x, torch.tensor(domain)).detach().numpy()
        for d in np.unique(domain):
            own = x.numpy()[domain == d]
            axis = 0 if dispersion == "vector" else None
            # The variance is about the mean of the batch.
            batch = (own.mean(axis=0), own.mean(axis=0) * 0)
            batch = (batch[0], np.mean((own - batch[0]) ** 2, axis=axis))
            old = state.get(d, [*batch, *batch])
            weights = (eta, eta, eta_test, eta_test)
            state[d] = [
                (1 - w) * a + w * b
                for w, a, b in zip(weights, old, batch * 2, strict=True)
            ]
            expected = normalise(own, *state[d][:2])
            assert np.abs(y[domain == d] - expected).max() < 1e-12
    norm.eval()
    x, domain = vectors(9, 99), np.arange(9) % 3
    y = norm(x, torch.tensor(domain)).detach().numpy()
    for i, d in enumerate(domain):
        assert np.abs(y[i] - normalise(x[i].numpy(), *state[d][2:])).max() < 1e-12


def test_one_domain_is_torch_batch_norm() -> None:
    norm = DomainBatchNorm(4, ["all"], eta_test=0.1, dtype=torch.float64)
    other = torch.nn.BatchNorm1d(4, momentum=0.1, dtype=torch.float64)
    domain = torch.zeros(20, dtype=torch.int64)
    for step in range(3):
        x = vectors(20, step)
        assert (norm(x, domain) - other(x)).abs().max() < 1e-12
    # torch starts its running mean at 0, this layer at the first batch.
    norm.fit_statistics(x, domain)
    y = norm.eval()(x, domain)
    assert (y - other.train()(x)).abs().max() < 1e-12


@pytest.mark.parametrize("dispersion", ["vector", "scalar", "none"])
def test_gradients_are_exact(dispersion: str) -> None:
    domain = torch.tensor([0, 1, 0, 1, 2, 2, 0])
    norm = DomainBatchNorm(4, NAMES, dispersion=dispersion, dtype=torch.float64)
    norm(vectors(7, 1), domain)
    frozen = {k: b.clone() for k, b in norm.named_buffers()}
    norm.set_momentum(0.3, 0.3)

    def function(x: torch.Tensor) -> torch.Tensor:
        norm.load_state_dict(frozen, strict=False)
        return norm(x, domain)

    assert gradcheck(function, vectors(7, 2).requires_grad_())


def test_adaptation_and_stream() -> None:
    norm = DomainBatchNorm(4, NAMES, unseen="adapt", dtype=torch.float64).eval()
    x, domain = vectors(12, 0), torch.arange(12) % 3
    norm.fit_statistics(x, domain)
    own = norm(x, torch.full((12,), -1))
    assert own.mean(dim=0).abs().max() < 1e-12
    stream = DomainBatchNorm(4, NAMES, dtype=torch.float64)
    for i in range(12):
        part = slice(i, i + 1)
        stream.update_statistics(x[part], domain[part], prior_trials=0)
    assert (stream.test_mean[:3] - norm.test_mean[:3]).abs().max() < 1e-12
    assert (stream.test_variance[:3] - norm.test_variance[:3]).abs().max() < 1e-12
    with pytest.raises(EEGTensorError, match=r"\(12, 3\)"):
        norm(x[:, :3], domain)


@pytest.mark.parametrize("dispersion", ["vector", "scalar", "none"])
def test_no_trials(dispersion: str) -> None:
    norm = DomainBatchNorm(4, ["a"], dispersion=dispersion)
    none = torch.zeros(0, 4)
    with pytest.raises(EEGTensorError, match="no trials"):
        norm(none, torch.zeros(0, dtype=torch.int64))
    assert norm.eval()(none).shape == (0, 4)
