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
from eegtensor.transfer._calibration import _codes

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


@pytest.fixture(scope="module")
def few(people):
    """Three trials of each class of the first new person, and all others."""
    return people.of(people.new[0], 3)


# To be copied, not changed.
@pytest.fixture(scope="module")
def adapted(people, fitted, few):
    model = copy.deepcopy(fitted)
    return model.adapt(people.X[few[0]], subjects=people.who[few[0]])


@pytest.fixture(scope="module")
def person(people, fitted, few):
    return calibrated(fitted, people, few[0])


def calibrated(model, people, index, **options):
    model = copy.deepcopy(model)
    return model.calibrate(
        people.X[index], people.y[index], subjects=people.who[index], **options
    )


def norms_of(model, names):
    norm = model.network_.norm
    rows = norm.encode(names)
    return {n: b[rows].clone() for n, b in norm.named_buffers() if b.ndim}


def at_base(model):
    """Return whether the weights are those that calibrations start from."""
    base = model.directions_["base"]
    leaves = ParamSpace(model.network_).leaves
    return all(torch.equal(p, base[name].to(p)) for name, p in leaves.items())


def test_recording_changes_no_fit(people):
    X, y, who = people.source
    plain, recorded = (
        TSMNetClassifier(**{**SMALL, "epochs": 3, "calibration": n}) for n in (None, 3)
    )
    for model in (plain, recorded):
        model.fit(X, y, subjects=who)
    for a, b in zip(
        plain.network_.parameters(), recorded.network_.parameters(), strict=True
    ):
        assert torch.equal(a, b)
    assert recorded.directions_ is not None
    # The weights a run ends with may not be those of its last epoch.
    assert at_base(recorded.set_params(averager="swa").fit(X, y, subjects=who))
    # Directions of an earlier fit are not those of this one.
    recorded.set_params(calibration=None).fit(X, y, subjects=who)
    assert recorded.directions_ is None
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


def test_only_the_numbers_asked_for_move(fitted, person):
    a = torch.from_numpy(person.coefficients_)
    assert a.shape == (20,) and a.abs().max() > 0
    base, directions = fitted.directions_["base"], fitted.directions_["directions"]
    assert at_base(fitted)
    space = ParamSpace(person.network_)
    moved = space.log(space.snapshot(), base)
    for name, d in directions.items():
        assert len(d) == 20
        along = torch.tensordot(a.to(d), d, dims=1)
        torch.testing.assert_close(moved[name], along, rtol=1e-4, atol=1e-6)
    W = person.network_.bimap.weight
    torch.testing.assert_close(W.mT @ W, torch.eye(5, dtype=W.dtype), rtol=0, atol=1e-9)


def test_statistics_of_others_stay(people, fitted, few, adapted, person):
    names = list(fitted.network_.norm.names)
    before, after = norms_of(fitted, names), norms_of(person, names)
    assert before and all(torch.equal(before[n], after[n]) for n in before)
    # The person's are those of `adapt`, at the trained weights.
    assert person.adaptation_ == adapted.adaptation_
    (name,) = person.adaptation_
    one, two = norms_of(person, [name]), norms_of(adapted, [name])
    assert all(torch.equal(one[n], two[n]) for n in one)
    index = few[0][:-1]
    kept = copy.copy(adapted).calibrate(
        people.X[index], people.y[index], subjects=people.who[index], adapt=False
    )
    # Of a shallow copy the network is another, too: the old one keeps its weights.
    assert at_base(adapted) and not at_base(kept)
    three = norms_of(kept, [name])
    assert all(torch.equal(one[n], three[n]) for n in one)


def test_each_call_starts_from_the_trained_weights(people, fitted, person):
    two, rest = people.of(people.new[1], 3)
    twice = calibrated(person, people, two)
    once = calibrated(fitted, people, two)
    where = {"subjects": people.who[rest]}
    np.testing.assert_array_equal(
        twice.predict_proba(people.X[rest], **where),
        once.predict_proba(people.X[rest], **where),
    )
    held = calibrated(fitted, people, two, ridge=1e9)
    assert np.abs(held.coefficients_).max() < 1e-6


def test_trials_without_labels_serve_the_statistics(people, fitted, few):
    # Those of another person come first, which takes the labelled ones' place.
    other, _ = people.of(people.new[1], 5)
    few, rest = few
    index = np.concatenate([other, few, rest])
    y = np.asarray(people.y[index], dtype=object)
    y[~np.isin(index, few)] = None
    model = copy.deepcopy(fitted)
    model.calibrate(people.X[index], y, subjects=people.who[index])
    two = copy.deepcopy(fitted).adapt(people.X[index], subjects=people.who[index])
    two = two.adapt(people.X[other], subjects=people.who[other])
    assert two.last_target_.subject == people.new[1]
    two = calibrated(two, people, few, adapt=False)
    assert two.last_target_ == model.last_target_
    np.testing.assert_allclose(model.coefficients_, two.coefficients_, atol=1e-6)
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


def test_save_and_load(people, fitted, few, person, tmp_path):
    few, rest = few
    fitted.save(tmp_path / "model")
    model = TSMNetClassifier.load(tmp_path / "model")
    assert clone(model).calibration == 20 and model.coefficients_ is None
    one = calibrated(model, people, few)
    np.testing.assert_allclose(one.coefficients_, person.coefficients_, atol=1e-3)
    one.save(tmp_path / "one")
    again = TSMNetClassifier.load(tmp_path / "one")
    np.testing.assert_array_equal(again.coefficients_, one.coefficients_)
    np.testing.assert_array_equal(
        again.decision_function(people.X[rest]), one.decision_function(people.X[rest])
    )


def test_through_a_pipeline(people):
    X, y, who = people.source
    network = TSMNetClassifier(**{**SMALL, "epochs": 3, "calibration": 3})
    pipe = Pipeline([("align", EuclideanAlignment()), ("network", network)])
    pipe.fit(X, y, subjects=who)
    by_hand = copy.deepcopy(pipe)
    few, rest = people.of(people.new[0], 3)
    given = {"subjects": people.who[few]}
    pipe.calibrate(people.X[few], people.y[few], **given, ridge=300.0)
    align, network = (step for _, step in by_hand.steps)
    Z = align.adapt(people.X[few], **given).transform(people.X[few], **given)
    network.calibrate(Z, people.y[few], **given, ridge=300.0)
    np.testing.assert_array_equal(
        pipe.predict_proba(people.X[rest]), by_hand.predict_proba(people.X[rest])
    )
    # Without `adapt` all steps keep the statistics that they have.
    here = people.who == people.new[0]
    pipe.adapt(people.X[here], subjects=people.who[here])
    by_hand = copy.deepcopy(pipe)
    pipe.calibrate(people.X[few], people.y[few], **given, ridge=300.0, adapt=False)
    align, network = (step for _, step in by_hand.steps)
    Z = align.transform(people.X[few], **given)
    network.calibrate(Z, people.y[few], **given, ridge=300.0, adapt=False)
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
    # Numbers beside None are objects, beside NaN floats.
    for labels in ([2, None, 1], [2.0, np.nan, 1.0]):
        assert _codes(labels, 3, np.array([1, 2])).tolist() == [1, -1, 0]
    with pytest.raises(EEGTensorError, match=r"ridge=-1\.0"):
        fitted.calibrate(X, y, ridge=-1.0)
    for value in (0, 21):
        with pytest.raises(EEGTensorError, match=f"calibration={value}"):
            TSMNetClassifier(**{**SMALL, "calibration": value}).fit(X, y)
