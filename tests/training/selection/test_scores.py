"""EL2N, GraNd, and which trials to keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import rankdata, spearmanr
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.training import Batch
from eegtensor.training.network import Network, features_of, forward_all
from eegtensor.training.scores import (
    data_inefficiency,
    el2n,
    el2n_of_runs,
    grand,
    keep_trials,
    last_layer_grand,
    quantiles_within,
)
from eegtensor.training.space import ParamSpace


def auc(scores, positive):
    rank, n = rankdata(scores), positive.sum()
    return (rank[positive].sum() - n * (n + 1) / 2) / (n * (len(rank) - n))


def test_el2n_by_hand():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
    got = el2n(logits, torch.tensor([0, 0]))
    torch.testing.assert_close(
        got, torch.tensor([0.14, 1.46]).sqrt(), atol=1e-6, rtol=1e-6
    )
    runs = torch.stack([logits, logits.flip(0)])
    torch.testing.assert_close(el2n(runs, torch.tensor([0, 0])), got.mean().expand(2))
    assert torch.isnan(el2n(logits, torch.tensor([-1, 0]))).tolist() == [True, False]


def test_last_layer_is_the_gradient_of_the_last_layer():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20, 6, generator=g, dtype=torch.float64)
    y = torch.arange(20) % 3
    net = nn.Linear(6, 3, dtype=torch.float64)
    wanted = last_layer_grand(net(x), x, y).detach()
    got = grand(net, Batch(x, y), batch_size=7)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)


def test_whole_gradient_is_the_riemannian_one(toy, trials):
    data, net = trials(24, dtype=torch.float64), toy(dtype=torch.float64)
    with torch.no_grad():
        # Away from the identity the metric of SPD matrices is not the Euclidean.
        net.shape.copy_(torch.diag(torch.tensor([3.0, 1.0, 0.2]).double()))
    net.train()
    before = {n: v.clone() for n, v in net.state_dict().items()}
    got = grand(net, data, batch_size=10)
    assert net.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    net.eval()
    space = ParamSpace(net)
    for i in range(24):
        net.zero_grad()
        one = data.pick(torch.tensor([i]))
        F.cross_entropy(Network(net)(one), one.y).backward()
        wanted = space.norm(space.rgrad(space.gradients()))
        assert float(got[i]) == pytest.approx(float(wanted), rel=1e-9)


def features(n=320, flips=0.15, seed=0):
    """Features of four people after alignment, three classes, some labels wrong."""
    g = torch.Generator().manual_seed(seed)
    centre = 1.4 * torch.randn(3, 20, generator=g)
    y = torch.randint(3, (n,), generator=g)
    x = centre[y] + 1.3 * torch.randn(n, 20, generator=g)
    wrong = torch.rand(n, generator=g) < flips
    return x, torch.where(wrong, (y + 1) % 3, y), wrong.numpy()


def make(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 3))


def test_wrong_labels_have_large_scores_that_agree_between_runs():
    x, y, wrong = features()
    data = Batch(x, y)
    first = el2n_of_runs(make, data, n_runs=3, epochs=5, lr=3e-3)
    second = el2n_of_runs(make, data, n_runs=3, epochs=5, lr=3e-3, random_state=50)
    assert auc(first.numpy(), wrong) > 0.85
    assert spearmanr(first, second)[0] > 0.7


def test_grand_of_an_untrained_network_with_features():
    x, y, _ = features(60)
    net, data = make(0), Batch(x, y)
    last = last_layer_grand(forward_all(net, data), features_of(net, data), y)
    assert (grand(net, data) >= last - 1e-5).all()


def test_quantiles_are_within_groups():
    scores = np.array([5.0, 1.0, 3.0, 100.0, 300.0, np.nan])
    groups = ["a", "a", "a", "b", "b", "b"]
    got = quantiles_within(scores, groups)
    np.testing.assert_allclose(got[:5], [5 / 6, 1 / 6, 0.5, 0.25, 0.75])
    assert np.isnan(got[5])
    kept = keep_trials(scores, 0.5, offset=0.25, groups=groups)
    assert kept.tolist() == [False, False, True, True, False, True]
    # Of 100 trials: 30 that remain after the 10 with the largest scores.
    values = np.random.default_rng(0).permutation(100)
    got = np.sort(values[keep_trials(values, 0.3, offset=0.1)])
    assert got.tolist() == list(range(60, 90))
    with pytest.raises(EEGTensorError, match="add up"):
        keep_trials(values, 0.8, offset=0.3)


def test_slope_of_the_norm_of_weights():
    rng = np.random.default_rng(0)
    Phi = rng.standard_normal((256, 2000))
    K = Phi @ Phi.T / 2000
    noise = data_inefficiency(K, rng.standard_normal(256))
    smooth = data_inefficiency(K + 20.0, np.ones(256) + 0.01 * rng.standard_normal(256))
    assert 0.4 < noise < 0.65
    assert smooth < 0.2
