"""The trust card: what it measures, what it keeps, and how it is shown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

import eegtensor as et
from eegtensor import EEGTensorError
from eegtensor.benchmark import TrustCard, trust_card
from eegtensor.benchmark import trustcard as module
from eegtensor.benchmark.figures_trust import (
    SHARES,
    binned,
    certified_accuracy,
    kept_accuracy,
)
from eegtensor.benchmark.report_trust import headline, trust_section
from eegtensor.benchmark.trustparts import forgotten, meet
from eegtensor.lifelong.known import Known

FEW = {"people": 2, "n_steps": 5, "n_certified": 4, "n_copies": 100}


@pytest.fixture(scope="module")
def trials():
    return et.simulate_trials(n_subjects=4, n_sessions=1, n_trials=20, n_channels=6)


@pytest.fixture(scope="module")
def card(trials, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    made = trust_card(trials, "tangent-space", cache=folder, **FEW)
    return made, folder


def test_a_card_has_all_parts(card, trials):
    made, _ = card
    assert not made.missing
    assert len(made.people) == 2
    curve = made.robustness
    assert curve["eps"].tolist() == [0, 0.02, 0.05, 0.1]
    assert (np.diff(curve["accuracy"]) <= 0).all()
    assert curve["accuracy"].iloc[-1] < curve["accuracy"].iloc[0] - 0.2
    # Both tables are of all trials of the people left out.
    assert len(made.calibration) == len(made.rejection) == 40
    for name in ("calibration", "rejection"):
        right = getattr(made, name)["correct"].mean()
        assert right == pytest.approx(curve["accuracy"].iloc[0])
    assert made.ece["before"] == pytest.approx(
        _ece(made.calibration["confidence"], made.calibration["correct"])
    )
    assert made.ece["after"] == pytest.approx(
        _ece(made.calibration["after"], made.calibration["correct"])
    )
    assert len(made.certificate) == 4
    assert made.audit.exact
    gone = made.audit.people[0]
    assert made.people[0] != gone
    # One person of three sources withdrew with 15 of 20 trials; 5 were kept out.
    assert made.audit.n_trials == 15
    scores = made.audit.accuracy
    assert {"general", "forgetting", "transfer"} <= set(scores)
    assert scores["general"]["after"] == scores["general"]["retrained"]


def _ece(sure, correct):
    bins = np.ceil(np.asarray(sure) * 10).astype(int)
    gaps = [
        abs((np.asarray(correct)[bins == k] - np.asarray(sure)[bins == k]).sum())
        for k in np.unique(bins)
    ]
    return sum(gaps) / len(sure)


def test_the_temperature_of_a_person_is_that_of_the_others(trials):
    """Another person's labels move it, and the person's own do not."""
    names = sorted(set(trials.metadata["subject"]))[:2]
    people = [f"simulated/{name}" for name in names]
    found = trust_card(trials, "mdm", people=people, parts=("calibration",))
    again = trust_card(trials, "mdm", people=people[::-1], parts=("calibration",))
    a, b = (c.calibration.set_index("person") for c in (found, again))
    for name in people:
        pd.testing.assert_frame_equal(a.loc[name], b.loc[name])
    alone = trust_card(trials, "mdm", people=people[:1], parts=("calibration",))
    assert "after" not in alone.ece
    # One number scales the logits of a person: confidence keeps its order.
    one = found.calibration[found.calibration["person"] == people[0]]
    assert (one["confidence"].rank() == one["after"].rank()).all()


def test_cards_are_kept_part_by_part(card, trials, monkeypatch):
    made, folder = card

    def never(*args):
        raise AssertionError("fitted again")

    monkeypatch.setattr(module, "meet", never)
    again = trust_card(trials, "tangent-space", cache=folder, **FEW)
    assert again.to_dict() == made.to_dict()
    with pytest.raises(AssertionError, match="fitted again"):
        trust_card(trials, "tangent-space", cache=folder, **FEW | {"n_copies": 101})
    with pytest.raises(AssertionError, match="fitted again"):
        trust_card(trials[:79], "tangent-space", cache=folder, **FEW)


def test_an_interrupted_card_goes_on(card, trials, tmp_path, monkeypatch):
    made, _ = card
    part = module._certificate
    calls = []

    def interrupted(*args):
        calls.append(len(calls))
        if len(calls) == 1:
            raise KeyboardInterrupt
        part(*args)

    monkeypatch.setattr(module, "_certificate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trust_card(trials, "tangent-space", cache=tmp_path, **FEW)
    monkeypatch.setattr(module, "_robustness", lambda *args: pytest.fail("made twice"))
    again = trust_card(trials, "tangent-space", cache=tmp_path, **FEW)
    assert again.rejection is not None
    pd.testing.assert_frame_equal(again.certificate, made.certificate)


def test_a_card_is_saved_and_loaded(card, tmp_path):
    made, _ = card
    loaded = TrustCard.load(made.save(tmp_path / "new" / "card.json"))
    assert loaded.to_dict() == made.to_dict()
    assert loaded.robustness["snr_db"].iloc[0] == np.inf
    (tmp_path / "bad.json").write_text('{"pipeline": ')
    with pytest.raises(EEGTensorError, match="holds no trust card"):
        TrustCard.load(tmp_path / "bad.json")


class Silent(ClassifierMixin, BaseEstimator):
    """Says classes, and nothing of how sure it is."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.where(X[:, 0, 0] > 0, *self.classes_)


def test_parts_that_a_pipeline_cannot_give_are_said(trials):
    made = trust_card(trials, Silent(), **FEW)
    assert made.pipeline == "Silent"
    assert set(made.missing) == {"robustness", "calibration", "rejection"}
    assert made.certificate is not None
    assert made.audit.accuracy
    assert not made.audit.membership
    assert "or no probabilities" in str(made.audit)
    section = trust_section(made, 0.5)
    assert "No calibration" in section.body
    assert "nothing could be measured" in headline(made)


def test_the_audit_keeps_trials_back(trials):
    estimator = et.make_pipeline("mdm", align="riemann")
    names = trials.metadata["subject"].to_numpy().astype(str)
    known = Known(np.asarray(trials.X), np.asarray(trials.y), names)
    here = names == names[0]
    one = meet(estimator, known.pick(~here), known.pick(here), 0)
    audit, seconds = forgotten(estimator, one, names[-1], 0)
    assert audit.people == (names[-1],)
    assert seconds > 0
    # Exact: what is left is what was trained without them.
    assert (
        audit.accuracy["transfer"]["after"] == audit.accuracy["transfer"]["retrained"]
    )


def test_curves():
    score = np.array([3.0, 1.0, 2.0, 4.0])
    correct = np.array([True, False, False, True])
    kept = kept_accuracy(score, correct)
    assert kept[0] == 0.5
    assert kept[np.searchsorted(SHARES, 0.25)] == pytest.approx(2 / 3)
    assert kept[np.searchsorted(SHARES, 0.5)] == 1.0
    x, y, share = binned(np.arange(16) / 16, np.arange(16) >= 8)
    np.testing.assert_allclose(x, np.arange(8) / 8 + 1 / 32)
    np.testing.assert_allclose(y, np.arange(8) >= 4)
    np.testing.assert_allclose(share, 1 / 8)
    radius, right = certified_accuracy(
        np.array([0.0, 0.2, 0.5]), np.array([False, True, True])
    )
    np.testing.assert_allclose(radius, [0, 0.2, 0.5, 0.5])
    np.testing.assert_allclose(right, [2 / 3, 2 / 3, 1 / 3, 0])


def test_a_report_shows_the_card(card, trials, tmp_path):
    made, _ = card
    results = et.benchmark(trials, ["tangent-space"], adapt="full")
    # Without them there are no scalps to draw.
    results.trials = None
    page = results.report(tmp_path / "a.html", trust=made).read_text()
    assert "Trust card: tangent-space" in page
    assert "Forgetting" in page
    assert "Trust card" not in results.report(tmp_path / "b.html").read_text()


def test_mistakes(trials):
    with pytest.raises(EEGTensorError, match="No part is named 'speed'"):
        trust_card(trials, "mdm", parts=("speed",))
    with pytest.raises(EEGTensorError, match="nobody"):
        trust_card(trials, "mdm", people=())
    with pytest.raises(EEGTensorError, match="No trial is of"):
        trust_card(trials, "mdm", people=("x",))
    two = trials.metadata["subject"].isin(sorted(set(trials.metadata["subject"]))[:2])
    with pytest.raises(EEGTensorError, match="at least three"):
        trust_card(trials[two.to_numpy()], "mdm")
