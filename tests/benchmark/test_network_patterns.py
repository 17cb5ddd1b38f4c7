"""Networks say what they look at; the benchmark keeps it and the report draws it."""

from __future__ import annotations

from dataclasses import replace

import mne
import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin

from eegtensor.benchmark import benchmark, network_patterns, report_signals
from eegtensor.benchmark.cache import FoldCache
from eegtensor.benchmark.fold import Outcome
from eegtensor.benchmark.maps import sample_covariances
from eegtensor.benchmark.network_patterns import FoldPatterns
from eegtensor.benchmark.network_patterns import network_patterns as measured
from eegtensor.models.patterns import ClassPatterns, class_patterns
from eegtensor.pipeline import Pipeline
from eegtensor.pipelines import make_pipeline
from eegtensor.simulate import simulate_trials
from eegtensor.transfer import EuclideanAlignment, TSMNetClassifier
from eegtensor.trials import Trials

from .test_report_maps import planted, same_direction

SMALL = {
    "epochs": 2,
    "validation": None,
    "temporal_kernel": 5,
    "n_spatial_filters": 6,
    "subspace": 4,
}


class Planted(ClassifierMixin, BaseEstimator):
    """Decides by the power of one spatial filter, and says so."""

    asked = 0

    def __init__(self, topography=(1.0, 0.0, 0.0)):
        self.topography = topography

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        a = np.asarray(self.topography)
        power = np.log(np.einsum("c,ict->it", a, X).var(axis=1))
        return self.classes_[(power > np.median(power)).astype(int)]

    def class_patterns(self, X, *, subjects, sessions):
        Planted.asked += 1
        Planted.domains = sorted(set(zip(subjects, sessions, strict=True)))
        Planted.n_trials = len(X)
        a = np.asarray(self.topography)
        C = np.mean([np.cov(trial) for trial in X], axis=0)
        return ClassPatterns(np.outer(a, a)[np.newaxis], C / C.trace() * len(a))


@pytest.fixture(autouse=True)
def _reset():
    Planted.asked = 0


def fold(trials, person, topography):
    matrices = np.outer(topography, topography)[np.newaxis]
    unseen = np.flatnonzero(np.isin(trials.subjects, person))
    covariance = np.eye(len(topography)) + 0.1 * np.outer(topography, topography)
    return FoldPatterns(unseen, ClassPatterns(matrices, covariance))


def people_of(trials):
    return np.unique(trials.subjects)


@pytest.mark.parametrize("n_channels", [5, 30])
def test_a_source_is_measured_on_people_and_on_those_left_out(n_channels):
    trials, topography = planted(n_channels)
    sample = sample_covariances(trials)
    right = ClassPatterns(
        np.outer(topography, topography)[np.newaxis],
        np.mean([np.cov(x) for x in trials.X[:40]], axis=0),
    )
    found = [
        FoldPatterns(np.flatnonzero(trials.subjects == p), right)
        for p in people_of(trials)
    ]
    patterns = measured(sample, found)
    assert list(patterns) == [("b", "a")]
    first, second = patterns["b", "a"][:2]
    assert same_direction(first.values, topography) > 0.97
    assert np.abs(first.values).max() == 1.0
    assert first.decibel == pytest.approx(6.0, abs=0.7)
    assert first.unseen == pytest.approx(6.0, abs=0.7)
    assert (first.n_agree, first.n_people) == (5, 5)
    assert first.share == pytest.approx(1.0) and second.share < 1e-6


def test_left_out_people_are_measured_by_their_own_fold():
    trials, topography = planted(5)
    people = people_of(trials)
    found = [fold(trials, person, topography) for person in people]
    swapped = np.isin(trials.subjects, people[:2])
    y = np.where(swapped, np.where(trials.y == "a", "b", "a"), trials.y)
    sample = sample_covariances(Trials(trials.X, y, trials.metadata, trials.info))
    first = measured(sample, found)["b", "a"][0]
    assert (first.n_agree, first.n_people) == (3, 5)
    # What the network without the last person looks at tells nothing of them.
    sample = sample_covariances(trials)
    before = measured(sample, found)["b", "a"][0].unseen
    elsewhere = np.linalg.svd(topography[np.newaxis])[2][1]
    found[4] = fold(trials, people[4], elsewhere)
    after = measured(sample, found)["b", "a"][0].unseen
    assert after == pytest.approx(0.8 * before, rel=0.1)
    both = [fold(trials, people[:2], topography), found[4]]
    assert measured(sample, both)["b", "a"][0].n_people == 3
    half = found[0].unseen[::2]
    part = [FoldPatterns(half, found[0].patterns)]
    first = measured(sample, part)["b", "a"][0]
    assert first.n_people == 0 and np.isnan(first.unseen)
    assert first.decibel > 0 and first.share == pytest.approx(1.0)


def test_bands_share_what_the_network_looks_at():
    low, topography = planted(4, seed=1)
    high, other = planted(4, gain_db=0.0, seed=2)
    names = [f"C{i} {band}" for band in ("8-12Hz", "20-30Hz") for i in range(4)]
    info = mne.create_info(names, 100.0, "eeg")
    X = np.concatenate([low.X, high.X], axis=1)
    trials = Trials(X, low.y, low.metadata, info)
    mixed = np.zeros((2, 8))
    mixed[0, :4], mixed[1, 4:] = topography, other
    C = np.mean([np.cov(x) for x in X], axis=0)
    sizes = [np.sqrt(c @ np.linalg.solve(C, c)) for c in mixed]
    strong, weak = (np.outer(c, c) / s**2 for c, s in zip(mixed, sizes, strict=True))
    matrices = (2 * strong - weak)[np.newaxis]
    found = [FoldPatterns(np.arange(0), ClassPatterns(matrices, C))]
    first, second = measured(sample_covariances(trials), found)["b", "a"][:2]
    assert (first.band, second.band) == ("8-12Hz", "20-30Hz")
    assert first.share == pytest.approx(0.8, abs=0.02)
    assert second.share == pytest.approx(0.2, abs=0.02)
    assert second.channels.tolist() == [4, 5, 6, 7]
    assert same_direction(first.values, topography) > 0.97
    assert first.decibel > 5 and abs(second.decibel) < 0.5


def test_patterns_are_asked_once_a_fold_on_source_trials(make_trials, monkeypatch):
    trials = make_trials(3, (8, 8))
    monkeypatch.setattr(network_patterns, "MAX_TRIALS", 20)
    results = benchmark(trials, {"p": Planted()}, adapt=["none", "full", "labelled-2"])
    assert Planted.asked == 3 and Planted.n_trials == 20
    assert {person.rpartition("/")[2] for person, _ in Planted.domains} == {"s1", "s2"}
    assert list(results.patterns) == ["p"]
    found = results.patterns["p"]
    assert [len(f.unseen) for f in found] == [16] * 3
    assert np.unique(np.concatenate([f.unseen for f in found])).tolist() == list(
        range(48)
    )
    assert benchmark(trials, {"p": Planted()}, adapt="labelled-2").patterns == {}


def test_what_cannot_show_patterns_is_left_out(make_trials, caplog):
    class Failing(Planted):
        def class_patterns(self, X, *, subjects, sessions):
            raise np.linalg.LinAlgError("singular")

    trials = make_trials(3)
    after = Pipeline([("align", EuclideanAlignment()), ("net", Planted())])
    alone = Pipeline([("net", Planted())])
    caplog.set_level("INFO", logger="eegtensor")
    pipelines = {"failing": Failing(), "after": after, "alone": alone}
    results = benchmark(trials, pipelines)
    assert list(results.patterns) == ["alone"]
    assert "Failing shows no patterns: singular" in caplog.text


def test_folds_without_every_class_are_left_out(make_trials):
    trials = make_trials(3, (9,), n_classes=3)
    rare = (trials.y != "class2") | (trials.subjects == trials.subjects[0])
    found = benchmark(trials[rare], {"p": Planted()}, on_error="warn").patterns["p"]
    assert len(found) == 2


def test_patterns_survive_the_cache(make_trials, tmp_path):
    trials = make_trials(3)
    first = benchmark(trials, {"p": Planted()}, cache=tmp_path).patterns["p"]
    asked = Planted.asked
    second = benchmark(trials, {"p": Planted()}, cache=tmp_path).patterns["p"]
    assert Planted.asked == asked
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.unseen, b.unseen)
        for x, y in zip(a.patterns, b.patterns, strict=True):
            np.testing.assert_array_equal(x, y)


def test_cache_entries_of_before_still_load(tmp_path):
    cache = FoldCache(tmp_path)
    part = np.zeros(1)
    outcome = Outcome(
        np.arange(3), np.zeros(3), None, None, 1.0, 5, part, part, part > 0
    )
    cache.save("key", outcome)
    (file,) = tmp_path.rglob("*.npz")
    with np.load(file) as arrays:
        assert "matrices" not in arrays.files
    assert cache.load("key").matrices is None
    cache.save("key", replace(outcome, matrices=np.ones((1, 2, 2))))
    np.testing.assert_array_equal(cache.load("key").matrices, np.ones((1, 2, 2)))


def test_a_trained_network_is_drawn_in_the_report():
    trials = simulate_trials(
        n_subjects=3, n_sessions=1, n_trials=24, n_channels=8, duration=1.0
    )
    results = benchmark(
        trials,
        {"<net>": make_pipeline("tsmnet", **SMALL), "csp": make_pipeline("csp-lda")},
    )
    assert set(results.patterns) == {"<net>"}
    name, body = report_signals.signal_sections(results)[-1]
    assert name == "What the network looks at: <net>"
    assert "source that &lt;net&gt; looks at" in body and "<net>" not in body
    assert "of 3 people it had not seen" in body
    assert "networks of 3 folds" in body and "one bar a channel" not in body
    for channel in results.trials.info["chs"]:
        channel["loc"][:] = np.nan
    body = report_signals._network("<net>", results, sample_covariances(trials))
    assert "one bar a channel" in body
    results.trials = None
    assert len(report_signals.signal_sections(results)) == 2


def test_the_classifier_gives_what_its_network_gives():
    trials = simulate_trials(
        n_subjects=2, n_sessions=2, n_trials=12, n_channels=6, duration=1.0
    )
    domains = {"subjects": trials.subjects, "sessions": trials.sessions}
    network = TSMNetClassifier(**SMALL).fit(trials.X, trials.y, **domains)
    found = network.class_patterns(trials.X, **domains)
    assert found.matrices.shape == (1, 6, 6) and isinstance(found.matrices, np.ndarray)
    net = network.network_
    names = list(zip([""] * 48, *domains.values(), strict=True))
    codes = net.norm.encode([tuple(map(str, name)) for name in names])
    assert (codes >= 0).all()
    direct = class_patterns(net, torch.from_numpy(trials.X), codes)
    np.testing.assert_allclose(found.matrices, direct.matrices, rtol=1e-5, atol=1e-8)
    # Where the network hears no domains, patterns are within domains all the same.
    free = TSMNetClassifier(norm="none", **SMALL).fit(trials.X, trials.y, **domains)
    split = free.class_patterns(trials.X, **domains)
    whole = free.class_patterns(trials.X)
    assert np.abs(split.matrices - whole.matrices).max() > 1e-3
    with pytest.raises(ValueError, match="fit"):
        TSMNetClassifier(**SMALL).class_patterns(trials.X)
