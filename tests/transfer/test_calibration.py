"""Networks that learn a person from a few labelled trials and a few numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone

import eegtensor as et
from eegtensor import EEGTensorError
from eegtensor.features import Covariances
from eegtensor.pipeline import Pipeline
from eegtensor.training import ParamSpace
from eegtensor.transfer import (
    EuclideanAlignment,
    SPDNetworkClassifier,
    TSMNetClassifier,
)

SMALL = {
    "n_temporal_filters": 2,
    "temporal_kernel": 9,
    "n_spatial_filters": 10,
    "subspace": 5,
    "epochs": 20,
    "lr": 5e-3,
    "calibration": 20,
}


class People:
    """Three sources, and six people for whom recentring is not enough."""

    def __init__(self) -> None:
        trials = et.simulate_trials(
            n_subjects=9,
            n_sessions=1,
            n_trials=60,
            n_channels=6,
            sfreq=64.0,
            subject_shift=2.0,
            random_state=0,
        )
        self.X, self.y = np.asarray(trials.X), trials.y
        self.who = np.asarray(trials.subjects)
        self.new = list(np.unique(self.who)[3:])
        source = ~np.isin(self.who, self.new)
        # Two of their electrodes record each other's signals, too.
        turn = np.eye(6)
        turn[:2, :2] = np.array([[1, -1], [1, 1]]) / np.sqrt(2)
        self.X = np.where(source[:, None, None], self.X, turn @ self.X)
        self.source = self.X[source], self.y[source], self.who[source]

    def of(self, person, per_class):
        """Return the first trials of each class, and all others."""
        index = np.flatnonzero(self.who == person)
        few = [index[self.y[index] == c][:per_class] for c in np.unique(self.y)]
        few = np.sort(np.concatenate(few))
        return few, np.setdiff1d(index, few)

    def accuracy(self, model, index):
        said = model.predict(self.X[index], subjects=self.who[index])
        return np.mean(said == self.y[index])


@pytest.fixture(scope="module")
def people():
    return People()


@pytest.fixture(scope="module")
def fitted(people):
    X, y, who = people.source
    return TSMNetClassifier(**SMALL).fit(X, y, subjects=who)


def calibrated(model, people, index, **options):
    model = copy.deepcopy(model)
    return model.calibrate(
        people.X[index], people.y[index], subjects=people.who[index], **options
    )


def norms_of(model, names):
    norm = model.network_.norm
    rows = norm.encode(names)
    return {n: b[rows].clone() for n, b in norm.named_buffers() if b.ndim}


def test_recording_changes_no_fit(people, fitted):
    X, y, who = people.source
    plain = TSMNetClassifier(**{**SMALL, "calibration": None}).fit(X, y, subjects=who)
    for a, b in zip(
        plain.network_.parameters(), fitted.network_.parameters(), strict=True
    ):
        assert torch.equal(a, b)
    assert plain.directions_ is None
    with pytest.raises(EEGTensorError, match="set calibration=20"):
        plain.calibrate(X[:4], y[:4])


def test_a_few_trials_help_on_the_average(people, fitted):
    gains = []
    for per_class in (1, 10):
        for person in people.new[:4]:
            few, rest = people.of(person, per_class)
            given = people.X[few], people.who[few]
            adapted = copy.deepcopy(fitted).adapt(given[0], subjects=given[1])
            after = people.accuracy(calibrated(fitted, people, few), rest)
            gains.append(after - people.accuracy(adapted, rest))
    one, ten = np.reshape(gains, (2, -1))
    # One trial of each class says next to nothing, and wrecks nobody.
    assert one.mean() > -0.01 and one.min() > -0.06
    assert ten.mean() > 0 and np.mean(gains) > 0.01


def test_only_the_numbers_asked_for_move(people, fitted):
    few, _ = people.of(people.new[0], 3)
    model = calibrated(fitted, people, few)
    assert model.coefficients_.shape == (20,) and np.abs(model.coefficients_).max() > 0
    base, directions = fitted.directions_["base"], fitted.directions_["directions"]
    space = ParamSpace(model.network_)
    moved = space.log(space.snapshot(), base)
    a = torch.from_numpy(model.coefficients_)
    for name, d in directions.items():
        assert len(d) == 20
        along = torch.tensordot(a.to(d), d, dims=1)
        torch.testing.assert_close(moved[name], along, rtol=1e-4, atol=1e-6)
    W = model.network_.bimap.weight
    torch.testing.assert_close(W.mT @ W, torch.eye(5, dtype=W.dtype), rtol=0, atol=1e-9)


def test_statistics_of_others_stay(people, fitted):
    few, _ = people.of(people.new[0], 3)
    names = list(fitted.network_.norm.names)
    before = norms_of(fitted, names)
    model = calibrated(fitted, people, few)
    after = norms_of(model, names)
    assert before and all(torch.equal(before[n], after[n]) for n in before)
    # The person's are those of `adapt`, at the trained weights.
    adapted = copy.deepcopy(fitted).adapt(people.X[few], subjects=people.who[few])
    assert model.adaptation_ == adapted.adaptation_
    (person,) = model.adaptation_
    one, two = norms_of(model, [person]), norms_of(adapted, [person])
    assert all(torch.equal(one[n], two[n]) for n in one)
    kept = adapted.calibrate(
        people.X[few[:-1]], people.y[few[:-1]], subjects=people.who[few[:-1]],
        adapt=False,
    )  # fmt: skip
    three = norms_of(kept, [person])
    assert all(torch.equal(one[n], three[n]) for n in one)


def test_each_call_starts_from_the_trained_weights(people, fitted):
    one, _ = people.of(people.new[0], 3)
    two, rest = people.of(people.new[1], 3)
    twice = calibrated(calibrated(fitted, people, one), people, two)
    once = calibrated(fitted, people, two)
    where = {"subjects": people.who[rest]}
    np.testing.assert_array_equal(
        twice.predict_proba(people.X[rest], **where),
        once.predict_proba(people.X[rest], **where),
    )
    held = calibrated(fitted, people, two, ridge=1e9)
    assert np.abs(held.coefficients_).max() < 1e-6


def test_trials_without_labels_serve_the_statistics(people, fitted):
    few, rest = people.of(people.new[0], 3)
    index = np.concatenate([few, rest])
    y = np.asarray(people.y[index], dtype=object)
    y[len(few) :] = None
    model = copy.deepcopy(fitted)
    model.calibrate(people.X[index], y, subjects=people.who[index])
    two = copy.deepcopy(fitted).adapt(people.X[index], subjects=people.who[index])
    two = calibrated(two, people, few, adapt=False)
    np.testing.assert_allclose(
        model.decision_function(people.X[rest]),
        two.decision_function(people.X[rest]),
        atol=1e-6,
    )


def test_classes_count_alike(people, fitted):
    few, rest = people.of(people.new[0], 2)
    again = np.concatenate([few, few[people.y[few] == people.y[few[0]]]])
    adapted = copy.deepcopy(fitted).adapt(people.X[rest], subjects=people.who[rest])
    one = calibrated(adapted, people, few, adapt=False, ridge=4.0)
    two = calibrated(adapted, people, again, adapt=False, ridge=6.0)
    np.testing.assert_allclose(one.coefficients_, two.coefficients_, atol=1e-3)


def test_save_and_load(people, fitted, tmp_path):
    few, rest = people.of(people.new[0], 3)
    fitted.save(tmp_path / "model")
    model = TSMNetClassifier.load(tmp_path / "model")
    assert clone(model).calibration == 20 and model.coefficients_ is None
    one, two = (calibrated(m, people, few) for m in (model, fitted))
    np.testing.assert_allclose(one.coefficients_, two.coefficients_, atol=1e-3)
    one.save(tmp_path / "person")
    again = TSMNetClassifier.load(tmp_path / "person")
    np.testing.assert_array_equal(again.coefficients_, one.coefficients_)
    np.testing.assert_array_equal(
        again.decision_function(people.X[rest]), one.decision_function(people.X[rest])
    )


def test_through_a_pipeline(people):
    X, y, who = people.source
    network = TSMNetClassifier(**{**SMALL, "epochs": 8, "calibration": 6})
    pipe = Pipeline([("align", EuclideanAlignment()), ("network", network)])
    pipe.fit(X, y, subjects=who)
    by_hand = copy.deepcopy(pipe)
    few, rest = people.of(people.new[0], 3)
    given = {"subjects": people.who[few]}
    pipe.calibrate(people.X[few], people.y[few], **given, ridge=5.0)
    align, network = (step for _, step in by_hand.steps)
    Z = align.adapt(people.X[few], **given).transform(people.X[few], **given)
    network.calibrate(Z, people.y[few], **given, ridge=5.0)
    np.testing.assert_array_equal(
        pipe.predict_proba(people.X[rest]), by_hand.predict_proba(people.X[rest])
    )
    assert not hasattr(et.make_pipeline("mdm"), "calibrate")
    assert not hasattr(Pipeline([("c", Covariances())]), "calibrate")


def test_a_network_without_domains(people):
    X, y, who = people.source
    model = SPDNetworkClassifier("spdnet", norm="batch", epochs=4, calibration=3)
    model.fit(X, y, subjects=who)
    few, _ = people.of(people.new[0], 2)
    buffers = {n: b.clone() for n, b in model.network_.named_buffers()}
    model.calibrate(people.X[few], people.y[few], subjects=people.who[few])
    assert model.coefficients_.shape == (3,)
    for n, b in model.network_.named_buffers():
        torch.testing.assert_close(b, buffers[n], rtol=0, atol=0, equal_nan=True)


def test_mistakes(people, fitted):
    few, _ = people.of(people.new[0], 2)
    X, y = people.X[few], people.y[few]
    for labels, words in (
        (["x", *y[1:]], "did not see: x"),
        (np.resize(y[:1], len(y)), "no trial of class"),
        (y[:2], "y has 2"),
    ):
        with pytest.raises(EEGTensorError, match=words):
            copy.deepcopy(fitted).calibrate(X, labels)
    with pytest.raises(EEGTensorError, match="ridge"):
        fitted.calibrate(X, y, ridge=-1.0)
    for value in (0, 21):
        with pytest.raises(EEGTensorError, match=f"calibration={value}"):
            TSMNetClassifier(**{**SMALL, "calibration": value}).fit(X, y)
