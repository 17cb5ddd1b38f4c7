"""Recentring under label shift: the objective, its gradient, and the toy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from _toy_spd import toy_people, with_ratio
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from eegtensor import EEGTensorError
from eegtensor.geometry import congruence, frechet_mean, inv_sqrtm, logm, upper_vector
from eegtensor.transfer import label_shift
from eegtensor.transfer.label_shift import (
    balance_classes,
    information_objective,
    linear_decision,
    maximise_information,
)

VARIANTS = ("bias", "geodesic")


def vectors(centre, X):
    return upper_vector(logm(congruence(inv_sqrtm(centre), X)))


def fitted(people):
    """Logistic regression on people who are recentred each."""
    V = np.concatenate([vectors(frechet_mean(X), X) for X, _ in people])
    y = np.concatenate([y for _, y in people])
    return LogisticRegression(C=1.0, max_iter=2000).fit(V, y)


@pytest.fixture(scope="module")
def toy():
    people = toy_people(0)
    return fitted(people[:-1]), people[-1]


def decision(model):
    return linear_decision(model.coef_, model.intercept_)


class TestObjective:
    def test_uniform_logits_give_zero(self) -> None:
        z = torch.zeros(6, 2, dtype=torch.float64)
        share = torch.full((1, 6), 1 / 6, dtype=torch.float64)
        assert abs(information_objective(z, share).item()) < 1e-12

    @pytest.mark.parametrize("n_classes", [2, 4])
    def test_balanced_certainty_gives_minus_log_k(self, n_classes: int) -> None:
        n = 3 * n_classes
        z = 200.0 * torch.eye(n_classes, dtype=torch.float64).repeat(3, 1)
        share = torch.full((1, n), 1 / n, dtype=torch.float64)
        loss = information_objective(z, share).item()
        assert abs(loss + math.log(n_classes)) < 1e-4

    def test_one_class_for_all_gives_zero(self) -> None:
        z = torch.tensor([[200.0, 0.0]], dtype=torch.float64).repeat(5, 1)
        share = torch.full((1, 5), 0.2, dtype=torch.float64)
        assert abs(information_objective(z, share).item()) < 1e-4

    def test_it_is_that_of_the_paper(self, rng) -> None:
        z = rng.standard_normal((12, 3))
        for temperature in (1.0, 2.0):
            p = np.exp(z / temperature)
            p /= p.sum(1, keepdims=True)
            m = p.mean(0)
            want = -(p * np.log(p + 1e-5)).sum(1).mean() + (m * np.log(m + 1e-5)).sum()
            share = torch.full((1, 12), 1 / 12, dtype=torch.float64)
            got = information_objective(
                torch.from_numpy(z), share, temperature=temperature
            )
            assert abs(got.item() - want) < 1e-12


@pytest.mark.parametrize("place", [label_shift._bias, label_shift._geodesic])
def test_gradient_is_exact(place, toy) -> None:
    model, target = toy
    decide = decision(model)
    X, codes, share = label_shift._prepared(target[0][:12], np.arange(12) % 2)
    at, start = place(frechet_mean(X, segments=codes))
    rng = np.random.default_rng(1)
    here = start.detach() + 0.3 * torch.from_numpy(rng.standard_normal(start.shape))

    def loss(parameter):
        tangents, _ = label_shift._tangents(
            X, at(parameter), codes, share, lambda v: 0.7 / (v + 1e-5).sqrt()
        )
        return information_objective(decide(tangents), share)

    torch.autograd.gradcheck(loss, here.requires_grad_(), rtol=1e-6, atol=1e-9)


def test_geodesic_does_not_depend_on_the_unit(toy) -> None:
    X = torch.from_numpy(toy[1][0][:40])
    codes = torch.zeros(40, dtype=torch.int64)
    share = torch.full((1, 40), 1 / 40, dtype=torch.float64)
    got = []
    for unit in (1.0, 1e-12, 1e12):
        at, _ = label_shift._geodesic(frechet_mean(X * unit)[None])
        centre = at(torch.tensor([0.6], dtype=torch.float64))
        got.append(label_shift._tangents(X * unit, centre, codes, share, None)[0])
    torch.testing.assert_close(got[1], got[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(got[2], got[0], rtol=0, atol=1e-9)
    # And its ends: none of the shape at 0, plain recentring at 1.
    mean = frechet_mean(X)
    at, _ = label_shift._geodesic(mean[None])
    torch.testing.assert_close(at(torch.ones(1).double())[0], mean)
    size = torch.linalg.det(mean) ** (1 / 8)
    torch.testing.assert_close(
        at(torch.zeros(1).double())[0], size * torch.eye(8).double()
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_fit_does_not_depend_on_the_unit(variant: str, toy) -> None:
    model, target = toy
    X, _ = with_ratio(target, 100, 4.0)
    plain = maximise_information(X, decision(model), variant=variant)
    volts = maximise_information(X * 1e-12, decision(model), variant=variant)
    assert plain.action == volts.action
    torch.testing.assert_close(volts.centre * 1e12, plain.centre, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(volts.variance, plain.variance, rtol=1e-6, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_fit_does_not_depend_on_the_scale_of_the_logits(variant, toy) -> None:
    model, target = toy
    X, _ = with_ratio(target, 60, 4.0)
    decide = decision(model)
    plain = maximise_information(X, decide, variant=variant)
    assert plain.action == (f"spdim-{variant}",)
    for scale in (1e-3, 1e3):
        found = maximise_information(
            X, lambda v, by=scale: by * decide(v), variant=variant
        )
        torch.testing.assert_close(found.centre, plain.centre, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_temperature_is_the_mean_margin_over_the_other_classes(
    n_classes: int, toy, rng
) -> None:
    X = toy[1][0][:30]
    codes = np.repeat([0, 1], [10, 20])
    weight = torch.from_numpy(rng.standard_normal((36, n_classes)))
    found = maximise_information(X, lambda v: v @ weight, domains=codes)
    for k in (0, 1):
        part = X[codes == k]
        z = np.sort(vectors(frechet_mean(part), part) @ weight.numpy(), axis=1)
        temperature = (z[:, -1] - z[:, -2]).mean() / (n_classes - 1)
        alone = maximise_information(
            part, lambda v: v @ weight, temperature=float(temperature)
        )
        assert alone.action == (found.action[k],) == ("spdim-bias",)
        torch.testing.assert_close(
            found.centre[k], alone.centre[0], rtol=1e-7, atol=1e-9
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_domains_in_one_batch_are_domains_alone(variant: str, toy) -> None:
    model, target = toy
    parts = [with_ratio(target, n, r)[0] for n, r in ((40, 1.0), (60, 4.0), (5, 1.0))]
    X = np.concatenate(parts)
    codes = np.repeat([0, 1, 2], [len(p) for p in parts])
    mix = np.random.default_rng(0).permutation(len(X))
    both = maximise_information(
        X[mix], decision(model), domains=codes[mix], variant=variant
    )
    for k, part in enumerate(parts):
        alone = maximise_information(part, decision(model), variant=variant)
        assert alone.action == (both.action[k],)
        torch.testing.assert_close(
            both.centre[k], alone.centre[0], rtol=1e-7, atol=1e-9
        )
    fair = balance_classes(X[mix], decision(model), domains=codes[mix])
    for k, part in enumerate(parts):
        alone = balance_classes(part, decision(model))
        torch.testing.assert_close(
            fair.centre[k], alone.centre[0], rtol=1e-7, atol=1e-9
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_more_steps_never_lose_what_was_found(variant: str, toy) -> None:
    model, target = toy
    X, _ = with_ratio(target, 60, 4.0)
    # Steps that jump about: later iterates are worse than the best.
    gains = [
        maximise_information(
            X, decision(model), variant=variant, lr=0.3, steps=steps
        ).gain.item()
        for steps in range(0, 9, 2)
    ]
    assert gains == sorted(gains)
    assert gains[0] == 0.0 < gains[-1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_objective_never_ends_above_plain_recentring(variant: str, toy) -> None:
    model, target = toy
    decide = decision(model)
    X, _ = with_ratio(target, 80, 4.0)
    share = torch.full((1, 80), 1 / 80, dtype=torch.float64)

    def at(centre):
        z = decide(torch.from_numpy(vectors(centre, X)))
        return information_objective(z, share, temperature=1.5).item()

    # Steps that overshoot: the start must win over all of them.
    for lr in (0.01, 3.0):
        found = maximise_information(X, decide, variant=variant, temperature=1.5, lr=lr)
        plain, reached = at(frechet_mean(X)), at(found.centre[0].numpy())
        assert reached <= plain + 1e-12
        assert abs(plain - reached - found.gain.item()) < 1e-9


def test_variance_is_about_the_centre(toy) -> None:
    model, target = toy
    found = maximise_information(target[0][:60], decision(model))
    about = (vectors(found.centre[0].numpy(), target[0][:60]) ** 2).sum(1).mean()
    assert abs(found.variance.item() - about) < 1e-9


class TestGuard:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_too_few_trials_are_recentred_plainly(self, variant: str, toy) -> None:
        model, target = toy
        X = target[0][:3]
        found = maximise_information(X, decision(model), variant=variant)
        assert found.action == ("refit: fewer than 2 trials per class",)
        torch.testing.assert_close(found.centre[0], torch.from_numpy(frechet_mean(X)))
        found = maximise_information(target[0][:4], decision(model), variant="bias")
        assert found.action == ("spdim-bias",)

    def test_balance_wants_more_trials(self, toy) -> None:
        model, target = toy
        found = balance_classes(target[0][:7], decision(model))
        assert found.action == ("refit: fewer than 4 trials per class",)
        assert balance_classes(target[0][:8], decision(model)).action == ("balanced",)

    def test_nothing_to_gain(self, toy) -> None:
        X = toy[1][0][:40]
        # Logits that do not look at the trials.
        found = maximise_information(X, lambda v: v[:, :2] * 0.0)
        assert found.action == ("refit: nothing to gain",)
        assert found.gain.item() == 0.0
        torch.testing.assert_close(found.centre[0], torch.from_numpy(frechet_mean(X)))

    def test_mistakes(self, toy) -> None:
        model, target = toy
        with pytest.raises(EEGTensorError, match="shape"):
            maximise_information(target[0][0], decision(model))
        with pytest.raises(EEGTensorError, match="variant"):
            maximise_information(target[0], decision(model), variant="bais")
        with pytest.raises(EEGTensorError, match="temperature=0"):
            maximise_information(target[0], decision(model), temperature=0.0)
        with pytest.raises(EEGTensorError, match="Domains 1 have no trial"):
            balance_classes(target[0][:4], decision(model), domains=[0, 0, 2, 2])
        with pytest.raises(EEGTensorError, match="3 entries"):
            balance_classes(target[0][:4], decision(model), domains=[0, 0, 1])
        with pytest.raises(EEGTensorError, match="2 shares"):
            balance_classes(target[0][:40], decision(model), prior=(1.0, 1.0, 1.0))


def test_a_frozen_decoder_collects_no_gradient(toy) -> None:
    head = torch.nn.Linear(36, 2, dtype=torch.float64)
    maximise_information(toy[1][0][:40], head, steps=3)
    assert head.weight.grad is None
    with torch.no_grad():
        maximise_information(toy[1][0][:40], head, steps=3)


def test_linear_decision_is_that_of_scikit_learn(toy, rng) -> None:
    model, target = toy
    V = vectors(frechet_mean(target[0][:30]), target[0][:30])
    p = torch.softmax(decision(model)(torch.from_numpy(V)), dim=-1)
    np.testing.assert_allclose(p.numpy(), model.predict_proba(V), atol=1e-12)
    three = LogisticRegression().fit(rng.standard_normal((30, 36)), np.arange(30) % 3)
    p = torch.softmax(decision(three)(torch.from_numpy(V)), dim=-1)
    np.testing.assert_allclose(p.numpy(), three.predict_proba(V), atol=1e-12)


def test_balance_of_certain_classes_is_the_balanced_mean(toy) -> None:
    """Where probabilities are labels, the weights are those of the labels."""
    X, y = with_ratio(toy[1], 80, 4.0)
    logits = 500.0 * torch.eye(2, dtype=torch.float64)[y]
    for prior in (None, (0.3, 0.7)):
        found = balance_classes(X, lambda v: logits, prior=prior, rounds=2)
        weights = np.asarray(prior or (0.5, 0.5))[y] / np.bincount(y)[y]
        want = frechet_mean(X, weights=weights)
        np.testing.assert_allclose(found.centre[0].numpy(), want, rtol=1e-6, atol=1e-8)


def scores(seed: int) -> dict[tuple[float, str], float]:
    people = toy_people(seed)
    model = fitted(people[:-1])
    targets = {ratio: with_ratio(people[-1], 160, ratio) for ratio in (1.0, 4.0, 0.25)}
    X = np.concatenate([X for X, _ in targets.values()])
    codes = np.repeat(np.arange(3), 160)
    bias = maximise_information(X, decision(model), domains=codes)
    result = {}
    for k, (ratio, (X, y)) in enumerate(targets.items()):
        balanced = frechet_mean(X, weights=1.0 / np.bincount(y)[y])
        centres = {
            "recentred": frechet_mean(X),
            "oracle": balanced,
            "bias": bias.centre[k].numpy(),
        }
        for name, centre in centres.items():
            predicted = model.predict(vectors(centre, X))
            result[ratio, name] = balanced_accuracy_score(y, predicted)
    return result


def test_the_toy_of_label_shift() -> None:
    """Mean of six draws: near the oracle at 4:1, harmless when balanced."""
    draws = [scores(seed) for seed in range(6)]
    mean = {key: np.mean([draw[key] for draw in draws]) for key in draws[0]}
    for ratio in (4.0, 0.25):
        assert mean[ratio, "oracle"] - mean[ratio, "bias"] < 0.02
        lost = mean[ratio, "oracle"] - mean[ratio, "recentred"]
        assert mean[ratio, "oracle"] - mean[ratio, "bias"] < 0.5 * lost
    assert mean[1.0, "recentred"] - mean[1.0, "bias"] < 0.01
