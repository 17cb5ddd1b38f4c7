"""Learn2pFed and decentralised kernel regression: limits that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.lifelong import DecentralizedKernelRidge, Learn2pFed
from eegtensor.lifelong.decentralized import (
    agree,
    complete,
    draw_features,
    ring,
    solve_alone,
)
from eegtensor.lifelong.participation import (
    learn_participation,
    start,
    unrolled_admm,
)


@pytest.fixture
def sites(rng):
    """Three sites: the first coefficient in common, the second of each its own."""
    X, Y = [], []
    for own in (-2.0, 0.5, 3.0):
        x = rng.standard_normal((40, 2))
        X.append(torch.from_numpy(x))
        noise = 0.1 * rng.standard_normal((40, 1))
        Y.append(torch.from_numpy(x @ [[1.0], [own]] + noise))
    return X, Y


def least_squares(X, Y):
    return torch.linalg.lstsq(X, Y).solution


def test_without_participation_each_site_is_alone(sites) -> None:
    X, Y = sites
    given = start([40] * 3, 2, stiffness=1e-12)
    found = unrolled_admm(X, Y, given, 2000)
    for x, y, v in zip(X, Y, found.own, strict=True):
        torch.testing.assert_close(v, least_squares(x, y), rtol=0, atol=1e-9)


def test_full_participation_is_pooled(sites) -> None:
    X, Y = sites
    given = start([40] * 3, 2, stiffness=1e9, rho=10.0)
    found = unrolled_admm(X, Y, given, 2000)
    pooled = least_squares(torch.cat(X), torch.cat(Y))
    torch.testing.assert_close(found.common, pooled, rtol=0, atol=6e-5)
    for v in found.own:
        torch.testing.assert_close(v, pooled, rtol=0, atol=6e-5)


def test_each_coordinate_for_itself(sites) -> None:
    X, Y = sites
    given = start([40] * 3, 2, rho=10.0)
    given.stiffness[:, 0], given.stiffness[:, 1] = 1e9, 1e-9
    found = unrolled_admm(X, Y, given, 3000)
    own = found.own[:, :, 0]
    assert (own[:, 0] - own[0, 0]).abs().max() < 3.5e-7
    assert (own[:, 1] - torch.tensor([-2.0, 0.5, 3.0])).abs().max() < 0.1
    # The constrained problem, solved at once.
    A = torch.zeros(120, 4, dtype=torch.float64)
    for r, x in enumerate(X):
        A[40 * r : 40 * r + 40, 0] = x[:, 0]
        A[40 * r : 40 * r + 40, 1 + r] = x[:, 1]
    exact = least_squares(A, torch.cat(Y))[:, 0]
    torch.testing.assert_close(own[0, 0], exact[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(own[:, 1], exact[1:], rtol=0, atol=1e-6)


def test_three_iterations_by_hand(sites, rng) -> None:
    X, Y = ([t.numpy() for t in part] for part in sites)
    given = start([40] * 3, 2)._replace(
        **{
            name: torch.from_numpy(rng.uniform(0.5, 2.0, 3))
            for name in ("rho", "eta", "gamma", "theta", "p")
        },
        stiffness=torch.from_numpy(rng.uniform(0.5, 2.0, (3, 2))),
    )
    found = unrolled_admm(*sites, given, 3)
    g = {name: value.numpy() for name, value in given._asdict().items()}
    w, v, z, a = np.zeros((2, 1)), *(np.zeros((3, 2, 1)) for _ in range(3))
    for _ in range(3):
        above = below = 0.0
        for r in range(3):
            a[r] += g["theta"][r] * (z[r] - v[r] + w)
            A = X[r].T @ X[r] + g["rho"][r] * np.eye(2)
            v[r] = np.linalg.solve(A, X[r].T @ Y[r] + g["rho"][r] * (w + z[r] + a[r]))
            L = np.diag(g["stiffness"][r]) + g["eta"][r] * np.eye(2)
            z[r] = g["eta"][r] * np.linalg.solve(L, v[r] - w - a[r])
            c = g["p"][r] * g["gamma"][r]
            above, below = above + c * (v[r] - z[r] - a[r]), below + c
        w = above / below
    np.testing.assert_allclose(found.common, w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.own, v, rtol=0, atol=1e-12)


def test_the_gradient_through_the_iterations(sites) -> None:
    X, Y = ([t[:8] for t in part] for part in sites)
    given = start([8] * 3, 2)

    def loss(stiffness, rho, gamma):
        now = given._replace(stiffness=stiffness, rho=rho, gamma=gamma)
        found = unrolled_admm(X, Y, now, 4)
        return found.own.square().sum() + found.common.sum()

    args = [t.clone().requires_grad_() for t in (given.stiffness, given.rho, given.p)]
    assert torch.autograd.gradcheck(loss, args)


def test_participation_is_learned_where_sites_agree(sites) -> None:
    X, Y = sites
    few = [x[:4] for x in X], [y[:4] for y in Y]
    valid = [(x[4:], y[4:]) for x, y in zip(X, Y, strict=True)]

    def error(given):
        found = unrolled_admm(*few, given)
        parts = zip(valid, found.own, strict=True)
        return np.mean([float((x @ v - y).square().mean()) for (x, y), v in parts])

    begin = start([4] * 3, 2)
    learned = learn_participation(*few, valid, given=begin, lr=0.1, n_epochs=300)
    assert error(learned) < 0.5 * error(begin)
    # The coefficient in common is held more than that of each site.
    ratio = learned.stiffness[:, 0] / learned.stiffness[:, 1]
    assert (ratio > 1.0).all()
    assert ratio.max() > 2.0
    assert all((part > 0).all() for part in learned)


def wave(x):
    return np.sin(3.0 * x) + 0.5 * x


@pytest.fixture
def nodes(rng):
    """Three nodes that see a third of the line each."""
    found = []
    for low in (-3.0, -1.0, 1.0):
        x = rng.uniform(low, low + 2.0, (60, 1))
        found.append((x, wave(x) + 0.1 * rng.standard_normal((60, 1))))
    return found


def functions(nodes, n_features=60, chosen=1, **options):
    given = {"bandwidth": 0.5, "n_candidates": chosen * n_features}
    features = [
        draw_features(x, y, n_features, **given, random_state=j)
        for j, (x, y) in enumerate(nodes)
    ]
    return features, agree(nodes, features, complete(3), **{"ridge": 1e-5} | options)


def errors(features, theta):
    grid = np.linspace(-3.0, 3.0, 200)[:, None]
    return [
        float(np.mean((z(grid) @ t - wave(grid)) ** 2))
        for z, t in zip(features, theta, strict=True)
    ]


def test_without_agreement_each_node_is_alone(nodes) -> None:
    features, theta = functions(nodes, c=0.0)
    for (x, y), z, t, alone in zip(
        nodes, features, theta, solve_alone(nodes, features, 1e-5), strict=True
    ):
        Z = z(x)
        exact = np.linalg.solve(Z.T @ Z + 1e-5 * 60 * np.eye(60), Z.T @ y)
        np.testing.assert_allclose(t, exact, rtol=0, atol=1e-8)
        np.testing.assert_array_equal(t, alone)


def test_agreement_teaches_what_a_node_never_saw(nodes) -> None:
    features, alone = functions(nodes, c=0.0)
    _, theta = functions(nodes, c=1.0, n_steps=3000)
    x, y = (np.concatenate(part) for part in zip(*nodes, strict=True))
    whole = draw_features(x, y, 60, bandwidth=0.5, random_state=0)
    Z = whole(x)
    central = [np.linalg.solve(Z.T @ Z + 1e-5 * 180 * np.eye(60), Z.T @ y)]
    best = errors([whole], central)[0]
    assert min(errors(features, alone)) > 0.2
    assert max(errors(features, theta)) < 0.001 + best
    # Features chosen by a third of the line do not reach the rest of it.
    features, theta = functions(nodes, chosen=5, c=1.0, n_steps=3000)
    assert max(errors(features, theta)) > 100.0 * best


def test_the_damping_does_not_move_the_result(nodes) -> None:
    few = [(x[:20], y[:20]) for x, y in nodes]
    found = [
        functions(few, 6, damping=d, n_steps=4000, ridge=1e-2)[1] for d in (1.0, 5.0)
    ]
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-7)


def test_features_are_chosen_by_correlation(nodes) -> None:
    x, y = nodes[0]
    few = draw_features(x, y, 10, n_candidates=200, random_state=0)
    plain = draw_features(x, y, 10, n_candidates=10, random_state=0)

    def scores(f):
        return np.abs(f(x).T @ y).mean()

    assert scores(few) > 1.2 * scores(plain)
    # Inner products are the kernel's.
    many = draw_features(x, y, 4000, n_candidates=4000, bandwidth=0.7, random_state=1)
    K = np.exp(-((x - x.T) ** 2) / (2 * 0.7**2))
    assert np.abs(many(x) @ many(x).T - K).max() < 0.1
    assert ring(4) == [[1, 3], [0, 2], [1, 3], [0, 2]]
    assert ring(2) == [[1], [0]]


@pytest.mark.parametrize(
    "decoder",
    [
        Learn2pFed(n_epochs=20),
        DecentralizedKernelRidge(30, n_steps=50),
        DecentralizedKernelRidge(20, n_steps=20, c=None, graph="ring"),
    ],
    ids=["learn2pfed", "kernel", "kernel-ring"],
)
def test_as_classifiers_of_sites(decoder, rng) -> None:
    y = rng.integers(3, size=240)
    X = rng.standard_normal((240, 5)) + 2.0 * np.eye(5)[y]
    where = np.array(["a", "b", "c"])[np.arange(240) % 3]
    # One site has turned axes.
    X[where == "c"] = X[where == "c"][:, [1, 2, 0, 3, 4]]
    fitted = decoder.fit(X[:180], np.array(list("xyz"))[y[:180]], where[:180])
    said = fitted.predict(X[180:], where[180:])
    assert (said == np.array(list("xyz"))[y[180:]]).mean() > 0.6
    p = fitted.predict_proba(X[180:])
    np.testing.assert_allclose(p.sum(1), 1.0)
    assert p.shape == (60, 3)
    with pytest.raises(EEGTensorError, match="Sites were not given"):
        decoder.fit(X, y, None)
