"""MeoW: plain where it should be, and less of what is like nothing else."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from _toy_training import Perceptron, fit
from sklearn.metrics import roc_auc_score

from eegtensor import EEGTensorError
from eegtensor.training import Batch, Network
from eegtensor.training.objectives import MeoW
from eegtensor.training.perturbations._adversary import Budget, moved, worst
from eegtensor.training.perturbations.scales import channel_scale


@pytest.mark.parametrize(
    "options", [{"prototypes": 0}, {"temperature": math.inf}], ids=["none", "hot"]
)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_without_prototypes_it_is_plain_mixed_training(
    small, drawn, context, options, alpha
):
    net, batch = small(), drawn()
    method = MeoW(3, alpha=alpha, eps=0.3, n_steps=4, **options)
    c = context(net, batch, method)
    # What is drawn for the prototypes comes before the start of the attack.
    found = method(net, batch, c.network(batch), c)
    c = context(net, batch, method)
    if method.prototypes:
        torch.randn(3, 8, 8, generator=c.generator)
    budget = Budget.checked(0.3, 4, None, "linf")
    d = worst(Network(net), batch, budget, generator=c.generator)
    there = moved(batch, d, channel_scale(batch.x)).x
    clean, attacked = (
        F.cross_entropy(net(x), batch.y, reduction="none") for x in (batch.x, there)
    )
    wanted = alpha * clean + (1 - alpha) * attacked
    # Exactly: no weight is in it but alpha.
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-15)


def test_weights_are_those_worked_out_by_hand(context):
    method = MeoW(2, prototypes=2, temperature=0.5, low=0.0, high=9.0)
    e = torch.eye(3)
    method.bank = torch.stack([torch.stack([e[0], e[1]]), torch.stack([e[2], -e[0]])])
    h = torch.tensor([[2.0, 0, 0], [0, 0, 3.0], [0, 0, 1.0], [5.0, 5.0, 0]])
    y = torch.tensor([0, 0, 1, 1])
    s = torch.tensor([1.0, 0.0, 1.0, 0.0])
    wanted = 4 * (s / 0.5).softmax(0)
    found = method.weights(h, y, torch.ones(4, dtype=torch.bool))
    torch.testing.assert_close(found, wanted)
    known = torch.tensor([True, True, True, False])
    found = method.weights(h, y, known)
    wanted = 3 * (s[:3] / 0.5).softmax(0)
    torch.testing.assert_close(found[:3], wanted)
    assert found[3] == 0


def test_weights_average_one_and_keep_their_bounds():
    g = torch.Generator().manual_seed(0)
    method = MeoW(3, temperature=0.1)
    method.bank = F.normalize(torch.randn(3, 8, 5, generator=g), dim=-1)
    known = torch.ones(60, dtype=torch.bool)
    y = torch.arange(60) % 3
    w = method.weights(torch.randn(60, 5, generator=g), y, known)
    assert float(w.mean()) == pytest.approx(1.0, abs=1e-6)
    # Bounds are before the mean is made 1 again.
    assert w.max() / w.min() <= 25 + 1e-4


def test_prototypes_are_running_means_of_trials_that_are_right():
    method = MeoW(2, prototypes=2, momentum=0.5)
    e = torch.eye(3)
    method.bank = torch.stack([torch.stack([e[0], e[1]]), torch.stack([e[2], -e[2]])])
    method.counts = torch.tensor([[3.0, 0.0], [0.0, 0.0]])
    h = torch.tensor([[1.0, 0, 0], [1.0, 0.5, 0], [0, 2.0, 0], [0, 0.1, 1.0]])
    y = torch.tensor([0, 0, 0, 1])
    right = torch.tensor([True, True, True, False])
    method._learn(h, y, right)
    two = (F.normalize(h[:2], dim=1)).mean(0)
    torch.testing.assert_close(
        method.bank[0, 0], F.normalize(0.5 * e[0] + 0.5 * two, dim=0)
    )
    # A prototype that had no trial is the mean of its first ones.
    torch.testing.assert_close(method.bank[0, 1], e[1])
    torch.testing.assert_close(method.bank[1, 0], e[2])
    torch.testing.assert_close(method.counts, torch.tensor([[5.0, 1.0], [0.0, 0.0]]))


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_wrong_labels_count_less_after_five_epochs(toy_person, alpha):
    """Specification: AUROC of 0.8 or more with 20 % random labels."""
    found = []
    for seed in range(2):
        data, _ = toy_person(seed)
        g = torch.Generator().manual_seed(seed)
        wrong = torch.rand(len(data), generator=g) < 0.2
        other = (data.y + torch.randint(1, 3, (len(data),), generator=g)) % 3
        noisy = Batch(data.x, torch.where(wrong, other, data.y), data.domain)
        net = Perceptron(seed)
        method = MeoW(3, alpha=alpha, eps=0.1, n_steps=3)
        fit(net, noisy, seed, epochs=5, objective=method)
        kept = Network(net, keeps_features=True)
        with torch.no_grad():
            kept(noisy)
        w = method.weights(kept.features, noisy.y, torch.ones_like(wrong))
        assert w[wrong].mean() < w[~wrong].mean()
        found.append(roc_auc_score(~wrong, w))
    assert sum(found) / len(found) >= 0.8


def test_clean_statistics_and_the_steps_features_stay(toy, trials, context, equal):
    net, batch = toy(dropout=0.0), trials(40)
    method = MeoW(2, n_steps=2)
    c = context(net, batch, method)
    other = toy(dropout=0.0)
    out = c.network(batch)
    kept = c.network.features
    method(net, batch, out, c)
    assert c.network.features is kept
    context(other, batch, method).network(batch)
    assert equal(dict(net.named_buffers()), dict(other.named_buffers()))
    saved = method.state_dict()
    again = MeoW(2)
    again.load_state_dict(saved)
    assert torch.equal(again.bank, method.bank)


def test_mistakes():
    for options in (
        {"alpha": 1.5},
        {"temperature": 0.0},
        {"momentum": 1.0},
        {"low": 2.0},
        {"prototypes": -1},
        {"eps": 0.0},
    ):
        with pytest.raises(EEGTensorError, match=next(iter(options))):
            MeoW(3, **options)
    # Only with an attack does it need the trials themselves.
    assert "raw trials" in MeoW(3).needs and MeoW(3, alpha=1.0).needs == ("features",)
