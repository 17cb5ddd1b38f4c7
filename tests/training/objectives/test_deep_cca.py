"""The loss of deep CCA, and stochastic CCA and PLS, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch, ShuffleSampler, train
from eegtensor.training.objectives import DeepCCA, eckart_young, stochastic_cca


def views(n=1500, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, 3)) * [3.0, 2.0, 1.0]
    X = z @ rng.standard_normal((3, 10)) + 2 * noise * rng.standard_normal((n, 10))
    Y = z @ rng.standard_normal((3, 8)) + noise * rng.standard_normal((n, 8))
    return X, Y


def root_inverse(C):
    w, V = np.linalg.eigh(C)
    return V / np.sqrt(w) @ V.T


def closed_form(X, Y):
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    n = len(X) - 1
    A, B = root_inverse(X.T @ X / n), root_inverse(Y.T @ Y / n)
    U, s, Vt = np.linalg.svd(A @ (X.T @ Y / n) @ B)
    return A @ U, s, B @ Vt.T, np.linalg.svd(X.T @ Y / n)[1]


def as_tensors(*arrays):
    return [torch.as_tensor(a) for a in arrays]


def test_loss_is_its_definition():
    g = torch.Generator().manual_seed(0)
    Z = [torch.randn(40, 3, generator=g, dtype=torch.float64) for _ in range(3)]
    covariance = lambda a, b: (a - a.mean(0)).mT @ (b - b.mean(0)) / 39  # noqa: E731
    C = sum(covariance(a, b) for a in Z for b in Z) / 3
    V = sum(covariance(a, a) for a in Z) / 3
    wanted = -2 * C.trace() + (V @ V).trace()
    torch.testing.assert_close(eckart_young(Z), wanted)
    other = [torch.randn(25, 3, generator=g, dtype=torch.float64) for _ in range(3)]
    Vo = sum((b - b.mean(0)).mT @ (b - b.mean(0)) / 24 for b in other) / 3
    wanted = -2 * C.trace() + (V @ Vo).trace()
    torch.testing.assert_close(eckart_young(Z, independent=other), wanted)


def test_canonical_directions_attain_the_minimum():
    X, Y = views()
    A, s, B, _ = closed_form(X, Y)
    k, scale = 3, np.sqrt(1 + closed_form(X, Y)[1][:3])
    Z = as_tensors(X @ A[:, :k] * scale, Y @ B[:, :k] * scale)
    wanted = -((1 + s[:k]) ** 2).sum()
    assert abs(float(eckart_young(Z)) - wanted) < 1e-9
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = [z + 0.1 * torch.randn(z.shape, generator=g).double() for z in Z]
        assert float(eckart_young(other)) > wanted


def test_all_trials_at_once_reach_the_closed_form():
    X, Y = views(n=400)
    A, s, _, singular = closed_form(X, Y)
    found = stochastic_cca([X, Y], 3, batch_size=None, epochs=700, lr=0.04)
    np.testing.assert_allclose(found.values, s[:3], rtol=0, atol=1e-6)
    assert abs(found.losses[-1] + ((1 + s[:3]) ** 2).sum()) < 1e-6
    first = found.transform([X, Y])[0]
    second = found.transform([X, Y])[1]
    both = (first.T @ first + second.T @ second) / 399 / 2
    centred = both - 400 / 399 * np.outer(first.mean(0), first.mean(0))
    np.testing.assert_allclose(centred, np.eye(3), atol=1e-6)
    cosine = np.corrcoef(first.T, (X @ A[:, :3]).T)[:3, 3:]
    np.testing.assert_allclose(np.abs(cosine), np.eye(3), atol=1e-4)
    pls = stochastic_cca([X, Y], 3, method="pls", batch_size=None, epochs=700, lr=0.04)
    np.testing.assert_allclose(pls.values, singular[:3], rtol=1e-6)


def test_batches_come_near_it_and_the_unit_does_not_matter():
    X, Y = views()
    s = closed_form(X, Y)[1][:3]
    found = stochastic_cca([X, Y], 3, epochs=80, lr=0.05)
    np.testing.assert_allclose(found.values, s, atol=5e-3)
    found = stochastic_cca([X, Y], 3, epochs=5)
    tiny = stochastic_cca([1e-6 * X, 1e3 * Y], 3, epochs=5)
    np.testing.assert_allclose(tiny.values, found.values, atol=1e-6)
    again = stochastic_cca([X, Y], 3, epochs=5)
    assert np.array_equal(again.values, found.values)


def test_three_views_share_what_all_have():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((800, 1))
    many = [
        z @ rng.standard_normal((1, p)) + rng.standard_normal((800, p))
        for p in (4, 5, 6)
    ]
    found = stochastic_cca(many, 1, batch_size=None, epochs=300, lr=0.03)
    # The third view sees little of it.
    for component in found.transform(many):
        assert abs(np.corrcoef(component[:, 0], z[:, 0])[0, 1]) > 0.65


class TwoViews(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(10, 2), nn.Linear(8, 2)
        self.head = nn.Identity()

    def forward(self, x):
        return self.first(x[0]), self.second(x[1])


def test_a_network_of_two_views_learns_in_the_loop():
    X, Y = views()
    s = closed_form(X, Y)[1][:2]
    x = tuple(torch.as_tensor(a / a.std(), dtype=torch.float32) for a in (X, Y))
    torch.manual_seed(0)
    net = TwoViews()
    train(
        net,
        Batch(x),
        objective=DeepCCA(),
        optimizer=torch.optim.Adam(net.parameters(), lr=0.02),
        sampler=ShuffleSampler(1500, batch_size=250),
        epochs=40,
    )
    with torch.no_grad():
        loss = float(eckart_young(net(x)))
    assert loss < -((1 + s) ** 2).sum() + 0.1


def test_mistakes(call):
    with pytest.raises(EEGTensorError, match="not one embedding a view"):
        call(DeepCCA(), torch.zeros(3, 2))
    with pytest.raises(EEGTensorError, match="1 view"):
        call(DeepCCA(), (torch.zeros(3, 2),))
    with pytest.raises(EEGTensorError, match="ridge=1"):
        DeepCCA(ridge=1.0)
    X, Y = views(20)
    with pytest.raises(EEGTensorError, match="9 components"):
        stochastic_cca([X, Y], 9)
    with pytest.raises(EEGTensorError, match="Views of shapes"):
        stochastic_cca([X, Y[:5]], 2)
    with pytest.raises(EEGTensorError, match="method='kcca'"):
        stochastic_cca([X, Y], 2, method="kcca")
