"""Neural tangent kernels: the Jacobian's Gram, and what the weights are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.features.kernels import (
    WeightedNTKClassifier,
    WeightedNTKRegressor,
    layer_kernels,
)
from eegtensor.features.kernels.layerkernels import alignment_weights


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(3, 4, 5), nn.BatchNorm1d(4), nn.ELU(), nn.Flatten(), nn.Linear(64, 2)
    ).double()


def jacobian(net, x):
    """J (n, n_outputs, n_numbers) by one backward pass each."""
    net.eval()
    rows = []
    for i in range(len(x)):
        out = net(x[i : i + 1])[0]
        row = [
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(
                        o, list(net.parameters()), retain_graph=True
                    )
                ]
            )
            for o in out
        ]
        rows.append(torch.stack(row))
    return torch.stack(rows)


def test_layers_add_up_to_the_gram_of_the_jacobian(monkeypatch):
    net = network().train()
    x = torch.randn(7, 3, 20, dtype=torch.float64)
    z = torch.randn(4, 3, 20, dtype=torch.float64)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    kernels = layer_kernels(net, x, z)
    assert net.training and list(kernels) == ["0", "1", "4"]
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    J, L = jacobian(net, x), jacobian(net, z)
    full = torch.einsum("nkp,mkp->nm", J, L)
    torch.testing.assert_close(sum(kernels.values()), full, rtol=1e-6, atol=1e-9)
    monkeypatch.setattr("eegtensor.features.kernels.layerkernels._BLOCK", 1)
    blocks = layer_kernels(net, x, z)
    torch.testing.assert_close(sum(blocks.values()), full, rtol=1e-6, atol=1e-9)
    # The last layer's is known: features' products, plus one for the bias.
    h = net[:4](x)
    torch.testing.assert_close(
        layer_kernels(net, x)["4"], 2 * (h @ h.mT + 1), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
    "kind", [WeightedNTKClassifier, WeightedNTKRegressor], ids=lambda k: k.__name__
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learn_checks(kind):
    results = check_estimator(kind(hidden=(8,)), on_fail=None)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    assert not failed and len(results) > 30, failed


def drawn(n=60, d=4):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    return X, np.sign(X[:, 0] * X[:, 1])


def test_weights_as_they_are_give_the_plain_kernel():
    X, y = drawn()
    model = WeightedNTKRegressor((16,), "ntk", ridge=0.2).fit(X, y)
    x = model._inputs(X)
    full = sum(layer_kernels(model._net, x).values()).numpy()
    full /= np.trace(full) / len(X)
    plain = KernelRidge(alpha=0.2, kernel="precomputed").fit(full, y - y.mean())
    np.testing.assert_allclose(
        model.predict(X), plain.predict(full) + y.mean(), atol=1e-9
    )
    ones = WeightedNTKRegressor((16,), (1.0, 1.0), ridge=0.2).fit(X, y)
    assert np.abs(ones.predict(X) - model.predict(X)).max() > 1e-4


def test_alignment_finds_the_kernels_that_make_the_targets():
    rng = np.random.default_rng(1)
    T = rng.standard_normal((40, 3))
    T -= T.mean(axis=0)
    made = [T[:, [k]] @ T[:, [k]].T for k in range(3)]
    other = [A @ A.T for A in rng.standard_normal((2, 40, 40))]
    # At trace n the targets' kernel is sum_k tr_k / n K_k.
    traces = np.array([np.trace(K) for K in made])
    w = alignment_weights([*made, *other], T)
    np.testing.assert_allclose(w, [*traces / traces.sum(), 0, 0], atol=1e-8)


def test_aligned_layers_tell_what_no_linear_machine_does():
    rng = np.random.default_rng(1)
    X, y = drawn(200)
    new = rng.standard_normal((400, 4))
    truth = np.sign(new[:, 0] * new[:, 1])
    model = WeightedNTKClassifier((64, 64)).fit(X, y)
    assert model.weights_.sum() == pytest.approx(1.0) and len(model.layers_) == 3
    assert model.score(new, truth) > 0.75


def test_units_and_refusals():
    X, y = drawn()
    model = WeightedNTKClassifier((8,))
    f = model.fit(X, y).decision_function(X)
    np.testing.assert_allclose(
        model.fit(1e-6 * X, y).decision_function(1e-6 * X), f, rtol=1e-6, atol=1e-9
    )
    with pytest.raises(EEGTensorError, match="2 numbers"):
        WeightedNTKClassifier((8,), (1.0,)).fit(X, y)
    with pytest.raises(EEGTensorError, match="weights"):
        WeightedNTKClassifier((8,), "all").fit(X, y)
    frozen = nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(EEGTensorError, match="gradients"):
        layer_kernels(frozen, torch.zeros(2, 2))
