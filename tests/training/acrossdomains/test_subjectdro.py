"""Subject DRO: its limits, its inner problem, and its weights of trials."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn
from torch.nn.functional import cross_entropy

from eegtensor import EEGTensorError
from eegtensor.training import (
    Batch,
    DomainBalancedSampler,
    Network,
    StepContext,
    evaluate,
    make_optimizer,
    train,
)
from eegtensor.training.objectives import SubjectDRO
from eegtensor.training.objectives.worstmixture import worst_mixture


def embedded(n=7, seed=0):
    rng = np.random.default_rng(seed)
    E = rng.standard_normal((n, 12))
    return rng.random(n), E @ E.T, E


def test_all_people_held_is_the_worst_one_and_none_is_all_alike():
    losses, K, _ = embedded()
    worst = worst_mixture(losses, K, 0.0)
    assert worst[np.argmax(losses)] == 1 and worst.sum() == 1
    np.testing.assert_allclose(worst_mixture(losses, K, 1.0), 1 / 7)
    np.testing.assert_array_equal(worst_mixture(losses[:1], K[:1, :1], 0.5), [1.0])


@pytest.mark.parametrize("nu", [0.2, 0.5, 0.8])
def test_the_mixture_is_in_the_ball_and_no_other_there_is_worse(nu):
    for seed in range(5):
        losses, K, E = embedded(seed=seed)
        q = worst_mixture(losses, K, nu)
        centre = E.mean(0)
        distance = np.linalg.norm(E - centre, axis=1)
        radius = np.sort(distance)[int(np.ceil(round((1 - nu) * 7, 9))) - 1]
        assert q.min() >= 0 and q.sum() == pytest.approx(1)
        assert np.linalg.norm(q @ E - centre) <= radius * (1 + 1e-4)
        # The ball cut by many planes that touch it: a linear programme whose value
        # is an upper bound of the maximum.
        rng = np.random.default_rng(1)
        normals = rng.standard_normal((2000, 12))
        towards = q @ E - centre
        normals = np.vstack(
            [normals, towards + 0.02 * np.linalg.norm(towards) * normals]
        )
        normals /= np.linalg.norm(normals, axis=1)[:, None]
        normals = np.vstack([normals, towards[None] / np.linalg.norm(towards)])
        bound = linprog(
            -losses,
            A_ub=normals @ (E - centre).T,
            b_ub=np.full(len(normals), radius),
            A_eq=np.ones((1, 7)),
            b_eq=[1.0],
        )
        assert losses @ q <= -bound.fun + 1e-6
        assert losses @ q >= -bound.fun - 0.02 * np.ptp(losses)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def call(method, net, batch):
    wrapped = Network(net, keeps_features=True)
    out = wrapped(batch)
    return method(net, batch, out, StepContext(wrapped, None, batch)), out


def test_the_mean_of_its_losses_is_the_mixture_of_domains():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(11, 4, generator=g), torch.randint(2, (11,), generator=g)
    domain = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2])
    y[3] = -1
    method = SubjectDRO(3)
    method.q = torch.tensor([0.2, 0.5, 0.3]).double()
    loss, out = call(method, network(), Batch(x, y, domain))
    means = [
        cross_entropy(out[(domain == d) & (y >= 0)], y[(domain == d) & (y >= 0)])
        for d in range(3)
    ]
    wanted = 0.2 * means[0] + 0.5 * means[1] + 0.3 * means[2]
    torch.testing.assert_close(loss.mean(), 3 * wanted / 3)
    assert loss[3] == 0
    # Two of three domains in a batch stand for all.
    part = Batch(x[6:], y[6:], domain[6:])
    loss, _ = call(method, network(), part)
    torch.testing.assert_close(loss.mean(), 3 * (0.5 * means[1] + 0.3 * means[2]) / 2)


def test_one_domain_is_plain_cross_entropy():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(9, 4, generator=g), torch.randint(2, (9,), generator=g)
    loss, out = call(SubjectDRO(1), network(), Batch(x, y, torch.zeros(9).long()))
    torch.testing.assert_close(loss, cross_entropy(out, y, reduction="none"))


@pytest.mark.parametrize("nu", [0.0, 0.5, 1.0])
def test_training_moves_weight_to_the_hard_person(trials, toy, nu):
    data = trials(200)
    # The labels of one person are noise.
    y = data.y.clone()
    hard = data.domain == 2
    y[hard] = torch.randint(
        2, (int(hard.sum()),), generator=torch.Generator().manual_seed(5)
    )
    data = Batch(data.x, y, data.domain)
    net, method = toy(dropout=0.0), SubjectDRO(4, nu=nu)
    train(
        net,
        data,
        objective=method,
        optimizer=make_optimizer(net, "riemannian-adam", lr=0.02, weight_decay=0.0),
        sampler=DomainBalancedSampler(data.domain, batch_size=40, domains_per_batch=4),
        epochs=8,
        validation=data,
        random_state=0,
    )
    assert method.q.sum() == pytest.approx(1)
    if nu == 1.0:
        torch.testing.assert_close(method.q, torch.full((4,), 0.25).double())
    else:
        # Others may take turns with it, where one person alone may have all.
        assert method.q[2] > 0.3 and (nu == 0 or method.q.argmax() == 2)
    # Trials that are only evaluated are weighed alike, and nothing is learned.
    before = {k: v.clone() for k, v in method.state_dict().items()}
    evaluate(net, data, method)
    assert all(torch.equal(before[k], v) for k, v in method.state_dict().items())
    other = SubjectDRO(4)
    other.load_state_dict(before)
    torch.testing.assert_close(other.q, method.q)


def test_mistakes():
    with pytest.raises(EEGTensorError, match="nu=2"):
        SubjectDRO(3, nu=2)
    with pytest.raises(EEGTensorError, match="without domains"):
        call(SubjectDRO(2), network(), Batch(torch.ones(2, 4), torch.tensor([0, 1])))


def test_running_means_keep_their_share_of_the_past():
    net = network()
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 4, generator=g), torch.arange(12) % 2
    data = Batch(x, y, torch.arange(12) // 6)
    method = SubjectDRO(2, momentum=0.7, n_features=16)
    seen = []
    for scale in (1.0, 3.0):
        batch = Batch(scale * x, y, data.domain)
        call(method, net, batch)
        loss = cross_entropy(net(batch.x), y, reduction="none").detach().double()
        seen.append(torch.stack([loss[:6].mean(), loss[6:].mean()]))
    torch.testing.assert_close(method.losses, 0.7 * seen[0] + 0.3 * seen[1])
