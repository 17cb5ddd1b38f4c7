"""AnyLoss against scikit-learn's scores."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics

from eegtensor import EEGTensorError
from eegtensor.training import Batch, ShuffleSampler, train
from eegtensor.training.objectives import AnyLoss
from eegtensor.training.objectives.anyloss import METRICS


def logits(k, n=300, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(k, (n,), generator=g)
    z = 2 * torch.randn(n, k, generator=g, dtype=torch.float64)
    return z + 1.5 * F.one_hot(y, k), y


def reported(metric, y, predicted, k, beta=1.0):
    if metric == "accuracy":
        return metrics.accuracy_score(y, predicted)
    if metric == "balanced-accuracy":
        return metrics.balanced_accuracy_score(y, predicted)
    if metric == "kappa":
        return metrics.cohen_kappa_score(y, predicted)
    if metric == "g-mean":
        recall = metrics.recall_score(y, predicted, average=None)
        return float(torch.tensor(recall).log().mean().exp())
    average = "binary" if k == 2 else "macro"
    return metrics.fbeta_score(y, predicted, beta=beta, average=average)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("metric", METRICS)
def test_steep_it_is_one_minus_the_reported_score(call, metric, k):
    z, y = logits(k)
    wanted = 1 - reported(metric, y, z.argmax(dim=1), k, beta=2.0)
    got = call(AnyLoss(metric, beta=2.0, steepness=1e6), z, y)
    assert got.shape == () and abs(float(got) - wanted) < 1e-3


def test_two_classes_are_the_published_formulas(call):
    z, y = logits(2)
    p = torch.sigmoid(z[:, 1] - z[:, 0])
    soft = 1 / (1 + (-73 * (p - 0.5)).exp())
    N, s_y, s_h, s_yh = len(y), y.sum(), soft.sum(), (y * soft).sum()
    TN = N - s_y - s_h + s_yh
    wanted = {
        "accuracy": (TN + s_yh) / N,
        "f": 2 * s_yh / (s_y + s_h),
        "g-mean": (s_yh * TN / (s_y * (N - s_y))).sqrt(),
        "balanced-accuracy": (s_yh / s_y + TN / (N - s_y)) / 2,
    }
    for metric, value in wanted.items():
        torch.testing.assert_close(call(AnyLoss(metric), z, y), 1 - value)


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("metric", METRICS)
def test_gradients(call, metric, k):
    z, y = logits(k, n=12)
    z.requires_grad_()
    objective = AnyLoss(metric, steepness=5.0)
    assert torch.autograd.gradcheck(lambda z: call(objective, z, y), z)


@pytest.mark.parametrize("metric", METRICS)
def test_classes_that_a_batch_lacks_and_unlabelled_trials(call, metric):
    z, y = logits(3)
    y[y == 2] = 1
    whole = call(AnyLoss(metric), z, y)
    assert torch.isfinite(whole)
    z.requires_grad_()
    y[:40] = -1
    part = call(AnyLoss(metric), z, y)
    torch.testing.assert_close(part, call(AnyLoss(metric), z[40:], y[40:]))
    part.backward()
    assert torch.isfinite(z.grad).all() and not z.grad[:40].any()


def test_steepness_grows_over_the_run(call):
    z, y = logits(2)
    grown = AnyLoss(start=5.0)
    first = call(AnyLoss(steepness=5.0), z, y)
    torch.testing.assert_close(call(grown, z, y, epoch=1, n_epochs=10), first)
    later = call(AnyLoss(steepness=5 * (73 / 5) ** 0.5), z, y)
    torch.testing.assert_close(call(grown, z, y, epoch=6, n_epochs=10), later)
    # Trials that are evaluated belong to no epoch.
    assert torch.equal(call(grown, z, y, epoch=0), call(AnyLoss(), z, y))


def test_rare_targets_get_a_better_f_than_by_cross_entropy():
    g = torch.Generator().manual_seed(0)
    n = 1050
    y = (torch.arange(n) % 21 == 0).long()
    x = torch.randn(n, 4, generator=g) + 1.2 * y[:, None]
    test_x = torch.randn(n, 4, generator=g) + 1.2 * y[:, None]

    class BCE:
        per_trial = True

        def __call__(self, model, batch, outputs, context):
            return F.cross_entropy(outputs, batch.y, reduction="none")

    def score(objective):
        torch.manual_seed(0)
        net = torch.nn.Linear(4, 2)
        train(
            net,
            Batch(x, y),
            objective=objective,
            optimizer=torch.optim.Adam(net.parameters(), lr=0.05),
            sampler=ShuffleSampler(n, batch_size=n),
            epochs=150,
        )
        return metrics.f1_score(y, net(test_x).argmax(dim=1))

    ours, plain = score(AnyLoss("f", start=5.0)), score(BCE())
    assert ours > plain + 0.03, (ours, plain)


def test_mistakes(call):
    with pytest.raises(EEGTensorError, match="metric='auc'"):
        AnyLoss("auc")
    z, y = logits(2)
    with pytest.raises(EEGTensorError, match="class codes"):
        call(AnyLoss(), z, y.double())
