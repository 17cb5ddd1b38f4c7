"""Multi-task machines: dual beside primal, falling objective, optimality, few shots."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.tensor._margin import Fitted, Loss, settle_biases
from eegtensor.tensor.multitask import few_shot_rows, multitask

LOSSES = ("squared", "hinge", "insensitive")


def grid(rng, *, people=6, sessions=3, n=8, d=6, R=2):
    """Planted tasks over a grid with holes: X, levels, f without noise."""
    L = rng.standard_normal((d, R))
    U = rng.uniform(0.3, 1.5, (people, R)) * rng.choice([-1, 1], (people, 1))
    V = rng.uniform(0.5, 1.5, (sessions, R))
    cells = [(p, s) for p in range(people) for s in range(sessions) if (p + s) % 5]
    levels = np.repeat(np.asarray(cells), n, axis=0)
    X = rng.standard_normal((len(levels), d)) + 0.5 * levels[:, :1]
    return X, levels, ((X @ L) * U[levels[:, 0]] * V[levels[:, 1]]).sum(axis=1)


@pytest.fixture
def data(rng):
    X, levels, f = grid(rng)
    y = np.where(f + 0.5 * rng.standard_normal(len(f)) > np.median(f), 1.0, -1.0)
    return X, levels, y


def decisions(model, X, levels):
    u = np.prod([U[levels[:, d]] for d, U in enumerate(model.rows)], axis=0)
    _, task = np.unique(levels, axis=0, return_inverse=True)
    return ((X @ model.directions) * u).sum(axis=1) + model.biases[task.ravel()]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sweeps", [0, 5])
def test_dual_and_primal_predict_the_same(data, loss, sweeps) -> None:
    X, levels, y = data
    weights = np.linspace(0.5, 2.0, len(y))
    options = {"rank": 3, "loss": loss, "max_iter": sweeps, "weights": weights}
    K = X @ X.T
    primal = multitask(X, y, levels, solver="primal", **options)
    dual = multitask(X, y, levels, solver="dual", **options)
    kernel = multitask(K, y, levels, kernel="precomputed", **options)
    want = decisions(primal, X, levels)
    np.testing.assert_allclose(decisions(dual, X, levels), want, atol=1e-6)
    np.testing.assert_allclose(decisions(kernel, K, levels), want, atol=1e-6)
    for other in (dual, kernel):
        np.testing.assert_allclose(other.centre, primal.centre, atol=1e-6)
        np.testing.assert_allclose(other.offset, primal.offset, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_error_and_the_variance_are_weighted_means(data, loss) -> None:
    X, levels, y = data
    # A task with one class alone, which tells nothing of a boundary.
    y = np.where((levels == levels[0]).all(axis=1), 1.0, y)
    weights = np.linspace(0.0, 2.0, len(y))
    model = multitask(
        X, y, levels, 2, loss=loss, epsilon=0.3, weights=weights, max_iter=2
    )
    f = decisions(model, X, levels)
    e = {
        "squared": y - f,
        "hinge": np.maximum(0.0, 1.0 - y * f),
        "insensitive": np.maximum(0.0, np.abs(y - f) - 0.3),
    }[loss]
    assert float(model.error) == pytest.approx((weights * e**2).sum() / weights.sum())
    tasks, task = np.unique(levels, axis=0, return_inverse=True)
    u = np.prod([U[tasks[:, d]] for d, U in enumerate(model.rows)], axis=0)
    values = []
    for t in range(len(tasks)):
        own = task.ravel() == t
        if len(np.unique(y[own])) == 2:
            mean = np.average(X[own] @ model.directions, axis=0, weights=weights[own])
            values.append(mean @ u[t] + model.biases[t])
    assert float(model.offset) == pytest.approx(np.mean(values))
    assert float(model.offset_variance) == pytest.approx(np.var(values, ddof=1))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", range(2))
def test_no_half_step_raises_the_objective(data, loss, seed) -> None:
    X, levels, y = data
    K = np.exp(-0.1 * ((X[:, None] - X) ** 2).sum(axis=2))
    for A, kernel in ((X, "linear"), (K, "precomputed")):
        for gamma in (0.1, 10.0):
            model = multitask(
                A,
                y,
                levels,
                3,
                kernel=kernel,
                loss=loss,
                gamma=gamma,
                max_iter=4,
                random_state=seed,
            )
            values = np.asarray(model.objective)
            assert (np.diff(values) <= 1e-12 * values[0]).all()
            assert values[-1] < 0.99 * values[0]


def objective(model, X, levels, y, loss, gamma, epsilon):
    """The joint objective, written anew in torch for its gradient."""
    L, b = torch.tensor(model.directions), torch.tensor(model.biases)
    rows = [torch.tensor(U) for U in model.rows]
    parameters = [L, b, *rows]
    for p in parameters:
        p.requires_grad_()
    _, task = np.unique(levels, axis=0, return_inverse=True)
    u = rows[0][levels[:, 0]] * rows[1][levels[:, 1]]
    f = ((torch.tensor(X) @ L) * u).sum(1) + b[task.ravel()]
    y = torch.tensor(y)
    e = {
        "squared": y - f,
        "hinge": (1 - y * f).clamp_min(0),
        "insensitive": ((y - f).abs() - epsilon).clamp_min(0),
    }[loss]
    norms = L.square().sum() + sum(U.square().sum() for U in rows)
    return 0.5 * norms + 0.5 * gamma * e.square().sum(), parameters


@pytest.mark.parametrize("loss", LOSSES)
def test_the_end_is_stationary(data, loss) -> None:
    X, levels, y = data
    model = multitask(
        X, y, levels, 2, loss=loss, gamma=0.5, epsilon=0.2, max_iter=3000, tol=1e-9
    )
    assert model.converged
    value, parameters = objective(model, X, levels, y, loss, 0.5, 0.2)
    np.testing.assert_allclose(float(value.detach()), model.objective[-1], rtol=1e-12)
    value.backward()
    size = float(value.detach())
    for p in parameters:
        assert float(p.grad.abs().max()) < 1e-5 * size


def test_one_task_is_a_least_squares_machine(data) -> None:
    X, _, y = data
    model = multitask(X, y, np.zeros((len(y), 0), dtype=int), gamma=0.7)
    # Of Suykens: [[0, y'], [y, Q + I / gamma]] [b; alpha] = [0; 1].
    Q = np.outer(y, y) * (X @ X.T) + np.eye(len(y)) / 0.7
    system = np.block([[np.zeros((1, 1)), y[None]], [y[:, None], Q]])
    solved = np.linalg.solve(system, np.r_[0.0, np.ones(len(y))])
    np.testing.assert_allclose(model.biases[0], solved[0], atol=1e-9)
    want = X.T @ (solved[1:] * y)
    np.testing.assert_allclose(model.directions[:, 0], want, atol=1e-9)
    assert model.rows == () and model.converged


def test_hinge_and_insensitive_of_one_task_are_scikit_learns(rng) -> None:
    from sklearn.svm import LinearSVC, LinearSVR

    X = rng.standard_normal((60, 4))
    f = X @ rng.standard_normal(4) + 0.5 * rng.standard_normal(60)
    y = np.where(f > 0, 1.0, -1.0)
    # Theirs penalises the bias; centred this way the bias is zero in both.
    X, y, f = np.r_[X, -X], np.r_[y, -y], np.r_[f, -f]
    none = np.zeros((120, 0), dtype=int)
    ours = multitask(X, y, none, loss="hinge", gamma=0.6)
    theirs = LinearSVC(C=0.3, tol=1e-10, max_iter=100000).fit(X, y)
    np.testing.assert_allclose(ours.directions[:, 0], theirs.coef_[0], atol=1e-6)
    ours = multitask(X, f, none, loss="insensitive", gamma=0.6, epsilon=0.3)
    theirs = LinearSVR(
        C=0.3, epsilon=0.3, loss="squared_epsilon_insensitive", dual=False, tol=1e-10
    ).fit(X, f)
    np.testing.assert_allclose(ours.directions[:, 0], theirs.coef_, atol=1e-5)


def test_shared_directions_beat_tasks_of_their_own(rng) -> None:
    X, levels, f = grid(rng, people=20, n=6, d=20)
    new, new_levels, _ = grid(np.random.default_rng(5), people=20, n=30, d=20)
    y = np.sign(f + 0.3 * rng.standard_normal(len(f)))
    rng = np.random.default_rng(0)
    L = rng.standard_normal((20, 2))
    U = rng.uniform(0.3, 1.5, (20, 2)) * rng.choice([-1, 1], (20, 1))
    V = rng.uniform(0.5, 1.5, (3, 2))
    truth = ((new @ L) * U[new_levels[:, 0]] * V[new_levels[:, 1]]).sum(axis=1)

    def accuracy(codes, new_codes):
        model = multitask(X, y, codes, 2, max_iter=30)
        got = (
            decisions(model, new, new_codes)
            if codes.shape[1] == 2
            else ((new @ model.directions)[:, 0] + model.biases[0])
        )
        return np.mean((got > 0) == (truth > 0))

    pooled = accuracy(levels[:, :0], new_levels[:, :0])
    shared = accuracy(levels, new_levels)
    alone = []
    for cell in np.unique(levels, axis=0):
        here = (levels == cell).all(axis=1)
        there = (new_levels == cell).all(axis=1)
        model = multitask(X[here], y[here], levels[here][:, :0])
        got = (new[there] @ model.directions)[:, 0] + model.biases[0]
        alone.append(np.mean((got > 0) == (truth[there] > 0)))
    assert shared > np.mean(alone) + 0.05
    assert shared > pooled + 0.05


@pytest.mark.parametrize("loss", LOSSES)
def test_few_shot_rows_are_the_minimum(data, loss) -> None:
    X, levels, y = data
    model = multitask(X, y, levels, 2, loss=loss)
    H = X[:16] @ model.directions
    group, task = np.repeat([0, 1], 8), np.repeat([0, 1, 2, 2], 4)
    prior = np.stack([model.rows[0].mean(axis=0)] * 2)
    rows, biases = few_shot_rows(
        H, y[:16], group, task, prior, loss=loss, gamma=0.8, epsilon=0.2
    )
    U, b = torch.tensor(rows, requires_grad=True), torch.tensor(biases)
    b.requires_grad_()
    f = (torch.tensor(H) * U[group]).sum(1) + b[task]
    t = torch.tensor(y[:16])
    e = {
        "squared": t - f,
        "hinge": (1 - t * f).clamp_min(0),
        "insensitive": ((t - f).abs() - 0.2).clamp_min(0),
    }[loss]
    (0.5 * (U - torch.tensor(prior)).square().sum() + 0.4 * e.square().sum()).backward()
    assert float(U.grad.abs().max()) < 1e-9
    assert float(b.grad.abs().max()) < 1e-9


def test_balanced_columns_have_equal_norms(data) -> None:
    X, levels, y = data
    # After any sweep, not at the optimum alone, where they are equal by themselves.
    model = multitask(X, y, levels, 2, max_iter=2)
    assert not model.converged
    first, second = (np.linalg.norm(U, axis=0) for U in model.rows)
    np.testing.assert_allclose(first, second, rtol=1e-12)


def test_tensors_stay_tensors_and_seeds_count(data, device) -> None:
    X, levels, y = data
    T = [torch.from_numpy(a).to(device) for a in (X, y, levels)]
    ours = multitask(*T, 2)
    assert isinstance(ours.directions, torch.Tensor)
    assert ours.directions.device.type == device
    plain = multitask(X, y, levels, 2)
    np.testing.assert_allclose(ours.directions.cpu(), plain.directions, atol=1e-7)
    other = multitask(X, y, levels, 2, random_state=1, max_iter=1)
    assert not np.allclose(other.rows[0], plain.rows[0])


def test_a_small_gamma_leaves_zero_not_nan(data) -> None:
    X, levels, y = data
    model = multitask(X, y, levels, 2, gamma=1e-6)
    for value in (model.directions, *model.rows, model.biases, model.centre):
        assert np.isfinite(value).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "log"}, "loss="),
        ({"gamma": 0.0}, "gamma"),
        ({"rank": 0}, "rank"),
        ({"kernel": "precomputed"}, "square kernel"),
        ({"loss": "hinge", "y": "numbers"}, "-1 and 1"),
        ({"X": "nan"}, "NaN"),
    ],
)
def test_mistakes_are_named(data, change, message) -> None:
    X, levels, y = data
    X, y = X.copy(), y.copy()
    change = dict(change)
    if change.pop("y", None):
        y[0] = 0.3
    if change.pop("X", None):
        X[3, 1] = np.nan
    with pytest.raises(EEGTensorError, match=message):
        multitask(X, y, levels, **change)


@pytest.mark.parametrize(
    ("loss", "y", "f", "shift"),
    [
        ("hinge", [1.0, 1.0, -1.0, -1.0], [3.0, 2.0, -1.5, -4.0], -0.25),
        ("hinge", [1.0, 1.0, -1.0, -1.0], [3.0, 0.5, -1.5, -4.0], 0.0),
        ("insensitive", [1.0, 2.0, 0.0, -1.0], [1.1, 2.0, 0.3, -1.0], -0.15),
        ("squared", [1.0, 2.0, 0.0, -1.0], [1.1, 2.0, 0.3, -1.0], 0.0),
    ],
)
def test_a_free_bias_lies_in_the_middle(loss, y, f, shift) -> None:
    y, f = torch.tensor(y), torch.tensor(f)
    task = torch.zeros(4, dtype=torch.int64)
    before = Fitted(torch.zeros(1, 2), torch.tensor([5.0]), f, torch.zeros(1))
    after = settle_biases(before, Loss(loss, y, torch.ones(4), 0.5), task)
    assert float(after.biases) == pytest.approx(5.0 + shift)
    np.testing.assert_allclose(after.predicted, f + shift, rtol=1e-6)
