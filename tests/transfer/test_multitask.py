"""Multi-task machines: their referees, the task grid, and calibration of new people."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from eegtensor import EEGTensorError
from eegtensor.transfer import (
    TensorMultitaskLSSVC,
    TensorMultitaskSVC,
    TensorMultitaskSVR,
)

MACHINES = (TensorMultitaskLSSVC, TensorMultitaskSVC)
D, R = 12, 2
SHARED = np.random.default_rng(9).standard_normal((D, R))


def people(seed, *, n_people=12, n_trials=24, sessions=("a", "b"), noise=0.5):
    """People whose weights are L (u * v): features, targets, domains."""
    rng = np.random.default_rng(seed)
    v = {"a": np.array([1.0, 0.7]), "b": np.array([0.7, 1.0])}
    X, f, subjects, where = [], [], [], []
    for p in range(n_people):
        u = np.array([1.0, 0.0]) + 0.8 * rng.standard_normal(R)
        for s in sessions:
            x = rng.standard_normal((n_trials, D))
            X.append(x)
            f.append(x @ SHARED @ (u * v[s]) + noise * rng.standard_normal(n_trials))
            subjects += [f"p{p}"] * n_trials
            where += [s] * n_trials
    domains = {"subjects": np.asarray(subjects), "sessions": np.asarray(where)}
    return np.concatenate(X), np.concatenate(f), domains


@pytest.fixture(scope="module")
def source():
    X, f, domains = people(0)
    return X, f, np.where(f > 0, "right", "left"), domains


@pytest.fixture(scope="module")
def fitted(source):
    X, _, y, domains = source
    return TensorMultitaskLSSVC(gamma=0.3).fit(X, y, **domains)


def newcomer(seed=77, n_trials=200):
    X, f, domains = people(seed, n_people=1, n_trials=n_trials)
    domains = {"subjects": np.full(len(X), "new"), "sessions": domains["sessions"]}
    return X, f, np.where(f > 0, "right", "left"), domains


def some(domains, index):
    return {k: v[index] for k, v in domains.items()}


@pytest.mark.parametrize(
    ("machine", "prior"),
    [(MACHINES[0], "people"), (MACHINES[0], "mean"), (MACHINES[1], "people")],
)
def test_few_trials_of_a_new_person_pay(source, machine, prior) -> None:
    X, _, y, domains = source
    model = machine(gamma=0.3, prior=prior).fit(X, y, **domains)
    pooled, calibrated, own = [], [], []
    for seed in range(70, 80):
        Xn, _, yn, dn = newcomer(seed)
        few = np.r_[0:10, 200:210]
        rest = np.setdiff1d(np.arange(len(Xn)), few)
        test = (Xn[rest], yn[rest])
        pooled.append(model.score(*test, **some(dn, rest)))
        new = copy.copy(model).calibrate(Xn[few], yn[few], **some(dn, few))
        calibrated.append(new.score(*test, **some(dn, rest)))
        alone = machine(modes=()).fit(Xn[few], yn[few])
        own.append(alone.score(*test))
        # A shallow copy learned: the model itself did not.
        assert model.score(*test, **some(dn, rest)) == pooled[-1]
    assert np.mean(calibrated) > np.mean(pooled) + 0.03
    assert np.mean(calibrated) > np.mean(own) + 0.03


def test_a_single_person_is_one_least_squares_machine(source) -> None:
    X, _, y, _ = source
    X, y = 3.0 * X[:48], y[:48]
    model = TensorMultitaskLSSVC(gamma=0.7, class_weight=None).fit(X, y)
    scale = np.sqrt(((X - X.mean(axis=0)) ** 2).sum(axis=1).mean())
    t = np.where(y == "right", 1.0, -1.0)
    K = X @ X.T / scale**2 + np.eye(48) / 0.7
    system = np.block([[np.zeros((1, 1)), np.ones((1, 48))], [np.ones((48, 1)), K]])
    b, *a = np.linalg.solve(system, np.r_[0.0, t])
    want = (X @ X.T / scale**2) @ np.asarray(a) + b
    np.testing.assert_allclose(model.decision_function(X), want, atol=1e-9)


def test_balanced_classes_move_the_boundary_to_the_middle() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [90, 10])
    X = rng.standard_normal((100, 2)) + 3.0 * y[:, None]
    subjects = np.tile(["a", "b"], 50)
    balanced = TensorMultitaskLSSVC().fit(X, y, subjects=subjects)
    plain = TensorMultitaskLSSVC(class_weight=None).fit(X, y, subjects=subjects)
    middle = np.full((2, 2), 1.5)
    near = balanced.decision_function(middle, subjects=["a", "b"])
    far = plain.decision_function(middle, subjects=["a", "b"])
    assert np.abs(near).max() < 0.1
    assert far.max() < -0.25


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("machine", MACHINES)
def test_neither_unit_nor_origin_matters(source, machine, kernel) -> None:
    X, _, y, domains = source
    Xn, _, yn, dn = newcomer(n_trials=10)
    got = []
    for scale, origin in ((1.0, 0.0), (1e-6, 3.0)):
        model = machine(kernel=kernel, max_iter=5)
        model.fit(scale * (X + origin), y, **domains)
        f = [model.decision_function(scale * (Xn + origin), **dn)]
        model.calibrate(scale * (Xn + origin), yn, **dn)
        f.append(model.decision_function(scale * (Xn + origin)))
        got.append(np.concatenate(f))
    np.testing.assert_allclose(got[1], got[0], atol=1e-5)


def test_regression_is_blind_to_the_unit_of_its_target(source) -> None:
    X, f, _, domains = source
    Xn, fn, _, dn = newcomer(n_trials=60)
    few, got = np.r_[0:10, 60:70], []
    for scale, origin in ((1.0, 0.0), (1e3, 40.0)):
        model = TensorMultitaskSVR(max_iter=10).fit(X, scale * f + origin, **domains)
        pooled = model.score(Xn, scale * fn + origin, **dn)
        model.calibrate(Xn[few], scale * fn[few] + origin, **some(dn, few))
        got.append((model.predict(Xn, **dn) - origin) / scale)
    np.testing.assert_allclose(got[1], got[0], atol=1e-6)
    assert model.score(Xn, scale * fn + origin, **dn) > max(pooled, 0.6)


def test_the_pooled_row_is_the_mean_row(fitted) -> None:
    Xn, _, _, dn = newcomer(n_trials=10)
    got = fitted.decision_function(Xn, **dn)
    U, V = fitted.rows_[0][0], fitted.rows_[1][0]
    u = U.mean(axis=0) * V[(dn["sessions"] == "b").astype(int)]
    Z = (Xn / fitted.scale_) @ fitted.directions_[0]
    want = ((Z - fitted.centre_[0]) * u).sum(axis=1) + fitted.offset_[0]
    np.testing.assert_allclose(got, want, atol=1e-12)
    # Without domains both are the mean.
    nameless = fitted.decision_function(Xn)
    u = U.mean(axis=0) * V.mean(axis=0)
    want = ((Z - fitted.centre_[0]) * u).sum(axis=1) + fitted.offset_[0]
    np.testing.assert_allclose(nameless, want, atol=1e-12)


def test_calibration_touches_the_new_rows_alone(fitted, source) -> None:
    X, _, _, domains = source
    Xn, _, yn, dn = newcomer(n_trials=10)
    model = copy.deepcopy(fitted)
    before = model.decision_function(X, **domains)
    model.calibrate(Xn, yn, **dn)
    np.testing.assert_array_equal(model.decision_function(X, **domains), before)
    for old, new in zip(fitted.rows_, model.rows_, strict=True):
        np.testing.assert_array_equal(new[:, : old.shape[1]], old)
    assert [len(labels) for labels in model.levels_] == [13, 2]
    first = model.decision_function(Xn, **dn)
    # The same again is the same, and others of other people change nothing.
    model.calibrate(Xn[::-1], yn[::-1], **{k: v[::-1] for k, v in dn.items()})
    other = {"subjects": np.full(20, "x"), "sessions": dn["sessions"]}
    model.calibrate(-Xn, yn, **other)
    np.testing.assert_allclose(model.decision_function(Xn, **dn), first, atol=1e-9)
    np.testing.assert_array_equal(
        model.decision_function(Xn),
        model.decision_function(
            Xn, **{**other, **{"sessions": np.full(20, dn["sessions"][-1])}}
        ),
    )


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("own", [0.0, 0.4])
def test_calibration_is_the_mean_of_a_gaussian_process(source, kernel, own) -> None:
    X, _, y, domains = source
    who = domains["subjects"]
    model = TensorMultitaskLSSVC(
        gamma=0.3, kernel=kernel, own=own, class_weight=None, modes=("subject",)
    ).fit(X, y, subjects=who)
    Xn, _, yn, _ = newcomer(seed=5, n_trials=40)
    few, t = np.r_[0:15, 50:60], np.where(yn == "right", 1.0, -1.0)
    model.calibrate(Xn[few], yn[few], subjects=np.full(25, "new"))
    means = np.stack([X[who == s].mean(axis=0) for s in np.unique(who)])
    rest = X - means[np.unique(who, return_inverse=True)[1]]
    scale = np.sqrt((rest**2).sum() / len(X))

    def kernel_of(A, B):
        A, B = (A - means.mean(axis=0)) / scale, (B - means.mean(axis=0)) / scale
        if kernel == "linear":
            return A @ B.T
        return np.exp(-0.5 * ((A[:, None] - B[None]) ** 2).sum(axis=2))

    Z = Xn / scale if kernel == "linear" else kernel_of(Xn, X)
    H = np.c_[Z @ model.directions_[0] - model.centre_[0], np.ones(len(Xn))]
    rows = model.rows_[0][0, :12]
    first = H @ np.append(rows.mean(axis=0), model.offset_[0])
    K = H @ model._person_spread(0, rows) @ H.T + own * kernel_of(Xn, Xn)
    noise = np.eye(25) * max(model.error_[0], 0.1)
    change = K[:, few] @ np.linalg.solve(K[np.ix_(few, few)] + noise, (t - first)[few])
    got = model.decision_function(Xn, subjects=np.full(len(Xn), "new"))
    np.testing.assert_allclose(got, first + change, atol=1e-6)
    assert np.abs(change).max() > 0.1
    # Others keep the shared directions alone.
    other = model.decision_function(Xn, subjects=np.full(len(Xn), "else"))
    np.testing.assert_allclose(other, first, atol=1e-9)


def test_weights_beside_the_shared_directions_are_learned_by_the_own_part() -> None:
    rng = np.random.default_rng(3)
    X, f, domains = people(4)
    model = TensorMultitaskLSSVC(gamma=0.3).fit(X, f > 0, **domains)
    scores = {0.0: [], 0.3: []}
    for seed in range(20):
        w = SHARED @ [1.0, 0.0] + 0.8 * rng.standard_normal(D)
        x = rng.standard_normal((220, D))
        y = x @ w > 0
        for own, found in scores.items():
            new = copy.copy(model).set_params(own=own)
            new.calibrate(x[:20], y[:20])
            found.append(new.score(x[20:], y[20:]))
        assert seed or new.own_[0, 12].coefficients.shape == (1, 20)
    assert np.mean(scores[0.3]) > np.mean(scores[0.0]) + 0.02


def test_the_own_parts_of_two_people_are_apart(fitted) -> None:
    (X1, _, y1, d1), (X2, _, y2, d2) = newcomer(1, 10), newcomer(2, 10)
    d2 = {**d2, "subjects": np.full(20, "second")}
    apart = copy.deepcopy(fitted).calibrate(X1, y1, **d1).calibrate(X2, y2, **d2)
    both = {k: np.concatenate([d1[k], d2[k]]) for k in d1}
    X, y = np.concatenate([X1, X2]), np.concatenate([y1, y2])
    joint = copy.deepcopy(fitted).calibrate(X, y, **both)
    np.testing.assert_allclose(
        joint.decision_function(X, **both),
        apart.decision_function(X, **both),
        atol=1e-9,
    )


def test_a_new_session_of_a_known_person(fitted) -> None:
    Xn, _, yn, _ = newcomer(n_trials=10)
    model = copy.deepcopy(fitted)
    model.calibrate(Xn, yn, subjects=np.full(20, "p3"), sessions=np.full(20, "c"))
    assert model.levels_[1] == ("a", "b", "c")
    assert len(model.levels_[0]) == 12
    with pytest.raises(EEGTensorError, match="p3/a has no row to learn"):
        model.calibrate(Xn, yn, subjects=np.full(20, "p3"), sessions=np.full(20, "a"))


@pytest.mark.parametrize("machine", MACHINES)
def test_tasks_without_a_class_and_holes_in_the_grid(source, machine) -> None:
    X, _, y, domains = source
    s, k = domains["subjects"], domains["sessions"]
    keep = ~((s == "p1") & (k == "a"))
    keep &= ~((s == "p2") & (y == "left")) & ~((s == "p3") & (k == "b") & (y == "left"))
    model = machine(gamma=0.3)
    model.fit(X[keep], y[keep], **some(domains, keep))
    predicted = model.predict(X, **domains)
    assert np.mean(predicted == y) > 0.8
    # One class in the trials is no reason to predict no other.
    assert set(predicted[s == "p2"]) == {"left", "right"}
    assert np.mean((predicted == y)[s == "p2"]) > 0.6


def test_three_classes_and_one_of_them_missing_in_calibration() -> None:
    rng = np.random.default_rng(1)
    y = np.tile(["a", "b", "c"], 80)
    centres = {"a": [3.0, 0.0], "b": [0.0, 3.0], "c": [-3.0, -3.0]}
    X = np.asarray([centres[label] for label in y]) + rng.standard_normal((240, 2))
    subjects = np.repeat(list("stuv"), 60)
    model = TensorMultitaskSVC(gamma=3.0).fit(X[:180], y[:180], subjects=subjects[:180])
    assert model.score(X[:180], y[:180], subjects=subjects[:180]) > 0.95
    assert model.decision_function(X[:5]).shape == (5, 3)
    two = np.flatnonzero(y[180:200] != "c") + 180
    model.calibrate(X[two], y[two], subjects=subjects[two])
    assert model.score(X[180:], y[180:], subjects=subjects[180:]) > 0.9


def test_bands_are_tasks_whose_decisions_are_averaged(source) -> None:
    X, _, y, domains = source
    both = np.stack([X, np.random.default_rng(0).standard_normal(X.shape)], axis=1)
    model = TensorMultitaskLSSVC(gamma=0.3, max_iter=10).fit(both, y, **domains)
    assert [len(labels) for labels in model.levels_] == [12, 2, 2]
    assert model.score(both, y, **domains) > 0.85
    Xn, _, yn, dn = newcomer(n_trials=10)
    model.calibrate(np.stack([Xn, Xn], axis=1), yn, **dn)
    assert model.rows_[0].shape == (1, 13, 2)
    # The band that is noise has the smaller rows.
    norms = np.linalg.norm(model.rows_[2][0], axis=1)
    assert norms[1] < 0.5 * norms[0]


def test_mistakes_are_named(fitted, source) -> None:
    X, _, y, domains = source
    with pytest.raises(NotFittedError):
        TensorMultitaskLSSVC().calibrate(X, y)
    for options, message in (
        ({"kernel": "poly"}, "kernel="),
        ({"modes": ("person",)}, "modes="),
        ({"width": 0.0}, "width="),
        ({"class_weight": "equal"}, "class_weight="),
        ({"unseen": "adapt"}, "unseen="),
        ({"prior": "none"}, "prior="),
        ({"own": -1.0}, "own="),
    ):
        with pytest.raises(EEGTensorError, match=message):
            TensorMultitaskLSSVC(**options).fit(X, y, **domains)
    with pytest.raises(EEGTensorError, match="did not see the classes up"):
        fitted.calibrate(X[:2], ["up", "left"], subjects=["new", "new"])
    with pytest.raises(EEGTensorError, match="same bands and features"):
        fitted.predict(X[:, :4])
    with pytest.raises(EEGTensorError, match="do not vary"):
        TensorMultitaskLSSVC().fit(np.ones_like(X), y, **domains)
    with pytest.raises(EEGTensorError, match="All targets are equal"):
        TensorMultitaskSVR().fit(X, np.ones(len(X)), **domains)
    lone = np.where(domains["subjects"] < "p5", "left", "right")
    with pytest.raises(EEGTensorError, match="session holds two classes"):
        TensorMultitaskLSSVC().fit(X, lone, **domains)
    model = TensorMultitaskLSSVC(unseen="raise", max_iter=2).fit(X, y, **domains)
    with pytest.raises(EEGTensorError, match="nobody"):
        model.predict(X[:3], subjects=["nobody"] * 3, sessions=["a"] * 3)


@pytest.mark.parametrize("prior", ["people", "mean"])
def test_weights_of_zero_calibrate_to_numbers(source, prior) -> None:
    X, _, y, domains = source
    model = TensorMultitaskLSSVC(gamma=1e-6, prior=prior).fit(X, y, **domains)
    Xn, _, yn, dn = newcomer(n_trials=10)
    model.calibrate(Xn, yn, **dn)
    assert np.isfinite(model.decision_function(Xn, **dn)).all()
