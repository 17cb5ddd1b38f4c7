"""GOPSARegressor: its limits, its gradient, its search, and where it pays."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error

from eegtensor import EEGTensorError
from eegtensor.domains import Domain
from eegtensor.features import TangentSpace
from eegtensor.geometry import frechet_mean, logm, powm, upper_vector
from eegtensor.transfer import GOPSARegressor, Recenter
from eegtensor.transfer._geodesicsteps import (
    GeodesicSteps,
    learn_steps,
    match_mean,
    ridge,
)
from eegtensor.transfer.gopsa import _folds


def sites(seed, *, n_sites=4, n_trials=40, n=4, shift=0.3, y_shift=1.0):
    """Sites that differ by a mixing and by the mean of y, which powers carry."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, n))
    weights = rng.standard_normal(n) / np.sqrt(n)
    X, y, subjects = [], [], []
    for site in range(n_sites):
        mixing = common @ (np.eye(n) + shift * rng.standard_normal((n, n)) / np.sqrt(n))
        t = y_shift * rng.standard_normal() + rng.standard_normal(n_trials)
        log_power = t[:, None] * weights + 0.3 * rng.standard_normal((n_trials, n))
        X.append(mixing @ (np.exp(log_power)[:, :, None] * np.eye(n)) @ mixing.T)
        y.append(t)
        subjects += [f"site{site}"] * n_trials
    return np.concatenate(X), np.concatenate(y), np.asarray(subjects)


@pytest.fixture(scope="module")
def data():
    return sites(0)


def test_alpha_one_is_recentring_and_a_ridge(data) -> None:
    X, y, subjects = data
    source = subjects != "site3"
    ours = GOPSARegressor(alpha=1.0, penalties=(10.0,))
    ours.fit(X[source], y[source], subjects=subjects[source])
    recenter, tangent = Recenter(), TangentSpace(reference="identity")
    Z = tangent.fit_transform(
        recenter.fit_transform(X[source], subjects=subjects[source])
    )
    plain = Ridge(alpha=10.0, fit_intercept=False).fit(Z, y[source] - y[source].mean())
    np.testing.assert_allclose(
        ours.predict(X[source], subjects=subjects[source]),
        plain.predict(Z) + y[source].mean(),
        atol=1e-8,
    )
    target = ~source
    recenter.adapt(X[target])
    ours.adapt(X[target], target_mean=99.0)
    want = plain.predict(tangent.transform(recenter.transform(X[target])))
    np.testing.assert_allclose(
        ours.predict(X[target]), want + y[source].mean(), atol=1e-8
    )


def test_one_domain_is_a_ridge_after_its_own_step(data) -> None:
    X, y, _ = data
    X, y = X[:40], y[:40]
    model = GOPSARegressor(penalties=(1.0,)).fit(X, y)
    R = frechet_mean(X)
    (alpha,) = model.alphas_
    assert 0.0 < alpha < 1.0
    size = np.linalg.det(R) ** 0.25
    W = powm(R / size, -alpha / 2.0) / np.sqrt(size)
    Z = upper_vector(logm(W @ X @ W))
    plain = Ridge(alpha=1.0, fit_intercept=False).fit(Z, y - y.mean())
    np.testing.assert_allclose(model.predict(X), plain.predict(Z) + y.mean(), atol=1e-8)


def test_a_constant_in_y_is_one_in_the_predictions(data) -> None:
    X, y, subjects = data
    source = subjects != "site3"
    for mean in (None, 0.7):
        got = []
        for constant in (0.0, 1000.0):
            model = GOPSARegressor().fit(
                X[source], y[source] + constant, subjects=subjects[source]
            )
            if mean is not None:
                model.adapt(X[~source], target_mean=mean + constant)
            got.append(model.predict(X[~source]) - constant)
        np.testing.assert_allclose(got[1], got[0], atol=1e-6)


def test_neither_unit_matters(data) -> None:
    X, y, subjects = data
    plain = GOPSARegressor().fit(X, y, subjects=subjects)
    volts = GOPSARegressor().fit(X * 1e-12, y * 1e3, subjects=subjects)
    np.testing.assert_allclose(volts.alphas_, plain.alphas_, atol=1e-5)
    np.testing.assert_allclose(
        volts.predict(X * 1e-12, subjects=subjects) / 1e3,
        plain.predict(X, subjects=subjects),
        atol=1e-4,
    )


def test_gradient_through_the_ridge(data) -> None:
    X, y, subjects = data
    codes = np.unique(subjects, return_inverse=True)[1]
    means = np.stack([frechet_mean(X[codes == k]) for k in range(4)])[:, None]
    for few in (slice(None), slice(None, None, 20)):
        # 8 trials of 10 features: the dual form.
        steps = GeodesicSteps(X[few, None], means, codes[few])
        target = torch.from_numpy(y[few])

        def loss(a, steps=steps, target=target):
            Z = steps.vectors(torch.sigmoid(a))
            return (target - Z @ ridge(Z, target, 2.0)).square().sum()

        a = torch.tensor([0.1, -0.4, 0.3, 0.9], dtype=torch.float64)
        torch.autograd.gradcheck(loss, a.requires_grad_())


def test_both_forms_of_the_ridge_agree(rng) -> None:
    for n, p in ((30, 7), (7, 30)):
        Z, y = rng.standard_normal((n, p)), rng.standard_normal(n)
        got = ridge(torch.from_numpy(Z), torch.from_numpy(y), 3.0).numpy()
        want = Ridge(alpha=3.0, fit_intercept=False).fit(Z, y).coef_
        np.testing.assert_allclose(got, want, atol=1e-10)


def test_learned_steps_are_a_minimum(data) -> None:
    X, y, subjects = data
    codes = np.unique(subjects, return_inverse=True)[1]
    means = np.stack([frechet_mean(X[codes == k]) for k in range(4)])[:, None]
    steps, target = GeodesicSteps(X[:, None], means, codes), torch.from_numpy(y)

    def residual(alphas) -> float:
        Z = steps.vectors(alphas)
        return (target - Z @ ridge(Z, target, 1.0)).square().sum().item()

    best = learn_steps(steps, target, 1.0, 150)
    assert residual(best) < residual(torch.full((4,), 0.5).double())
    for k in range(4):
        for step in (-0.02, 0.02):
            near = best.clone()
            near[k] = (near[k] + step).clamp(0.0, 1.0)
            # A step of 0 is reached in the limit only.
            assert residual(near) >= residual(best) - 1e-4


def test_the_search_meets_the_mean(data) -> None:
    X, y, subjects = data
    codes = np.unique(subjects, return_inverse=True)[1]
    means = np.stack([frechet_mean(X[codes == k]) for k in range(4)])[:, None]
    steps = GeodesicSteps(X[:, None], means, codes)
    coef = ridge(
        steps.vectors(torch.full((4,), 0.5).double()), torch.from_numpy(y), 1.0
    )

    def mean_at(alphas) -> np.ndarray:
        predicted = (steps.vectors(torch.as_tensor(alphas)) @ coef).numpy()
        return np.asarray([predicted[codes == k].mean() for k in range(4)])

    true = np.array([0.137, 0.5, 0.832, 0.25])
    for k in range(4):
        wanted = mean_at(true)[k]
        found = match_mean(steps, coef, wanted)
        assert abs(mean_at(found)[k] - wanted) < 1e-8
    # Out of reach: an end of the way, whichever is nearer.
    far = match_mean(steps, coef, 1e6)
    ends = np.stack([mean_at(np.zeros(4)), mean_at(np.ones(4))])
    np.testing.assert_allclose(mean_at(far), ends.max(axis=0), atol=1e-2)


def test_site_shift_in_both() -> None:
    """Lower error than recentring in at least eight of ten draws."""
    wins = 0
    for seed in range(10):
        X, y, subjects = sites(seed, n_sites=6)
        source = subjects != "site5"
        errors = []
        for alpha in (None, 1.0):
            model = GOPSARegressor(alpha=alpha)
            model.fit(X[source], y[source], subjects=subjects[source])
            model.adapt(X[~source], target_mean=y[~source].mean())
            errors.append(mean_absolute_error(y[~source], model.predict(X[~source])))
        wins += errors[0] < errors[1]
    assert wins >= 8


def test_the_penalty_is_chosen_on_people(data) -> None:
    X, y, subjects = data
    model = GOPSARegressor().fit(X, y, subjects=subjects)
    assert model.penalty_ in model.penalties
    noise = np.random.default_rng(0).standard_normal(len(y))
    assert GOPSARegressor().fit(X, noise, subjects=subjects).penalty_ > model.penalty_


def test_a_person_is_in_one_fold() -> None:
    names = [Domain("", person, session) for person in "abcdefg" for session in "12"]
    codes = np.arange(14).repeat(5)
    folds = _folds(codes, names, np.arange(70.0), 3)
    for person in range(7):
        assert len(set(folds[codes // 2 == person])) == 1
    assert set(folds) == {0, 1, 2}
    # Of one person: trials, whatever their order.
    y = np.random.default_rng(0).permutation(12).astype(float)
    alone = _folds(np.zeros(12, dtype=int), names[:1], y, 3)
    np.testing.assert_array_equal(np.bincount(alone), [4, 4, 4])
    order = np.argsort(y)
    np.testing.assert_array_equal(
        _folds(np.zeros(12, dtype=int), names[:1], y[order], 3), alone[order]
    )


def test_bands_are_side_by_side(data) -> None:
    X, y, subjects = data
    both = np.stack([X, X[::-1]], axis=1)
    model = GOPSARegressor().fit(both, y, subjects=subjects)
    assert model.coef_.shape == (20,)
    assert model.predict(both, subjects=subjects).shape == y.shape


def test_the_mean_must_be_given(data) -> None:
    X, y, subjects = data
    model = GOPSARegressor().fit(X, y, subjects=subjects)
    with pytest.raises(EEGTensorError, match="must be known"):
        model.adapt(X[:9])
    assert not model.can_adapt


def test_domains(data) -> None:
    X, y, subjects = data
    source = subjects != "site3"
    model = GOPSARegressor().fit(X[source], y[source], subjects=subjects[source])
    pooled = model.predict(X[~source])
    np.testing.assert_allclose(model.predict(X[~source], subjects="new"), pooled)
    twin = copy.copy(model).adapt(X[~source], target_mean=0.5, subjects="new")
    np.testing.assert_allclose(model.predict(X[~source], subjects="new"), pooled)
    assert twin.last_target_ == Domain("", "new", "")
    np.testing.assert_array_equal(
        twin.predict(X[~source]), twin.predict(X[~source], subjects="new")
    )
    known = model.predict(X[source], subjects=subjects[source])
    np.testing.assert_array_equal(
        twin.predict(X[source], subjects=subjects[source]), known
    )
    model.set_params(unseen="raise")
    with pytest.raises(EEGTensorError, match="new"):
        model.predict(X[~source], subjects="new")


def test_mistakes(data) -> None:
    X, y, _ = data
    for params, words in (
        ({"unseen": "adapt"}, "target_mean"),
        ({"penalties": (0.0,)}, "penalties"),
        ({"n_folds": 1}, "n_folds=1"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"alpha": 1.5}, "alpha=1.5"),
        ({"alpha": np.nan}, "alpha=nan"),
    ):
        with pytest.raises(EEGTensorError, match=words):
            GOPSARegressor(**params).fit(X, y)
    for bad, words in (
        (None, "needs targets"),
        (np.where(y > 0, "a", "b"), "dtype"),
        (np.where(y > 1, np.nan, y), "NaN"),
    ):
        with pytest.raises(EEGTensorError, match=words):
            GOPSARegressor().fit(X, bad)
    model = GOPSARegressor().fit(X, y)
    with pytest.raises(EEGTensorError, match="fit saw"):
        model.predict(X[:, :3, :3])
    with pytest.raises(EEGTensorError, match="at least 2 trials"):
        model.adapt(X[:1], target_mean=0.0)
