"""The map of domains and the patterns find what was planted."""

from __future__ import annotations

import mne
import numpy as np
import pandas as pd
import pytest

from eegtensor import EEGTensorError
from eegtensor.benchmark.figures_maps import draw_domain_map, draw_patterns
from eegtensor.benchmark.maps import (
    between_share,
    domain_map,
    sample_covariances,
    split_band,
)
from eegtensor.benchmark.patterns import class_patterns, scalp_positions
from eegtensor.simulate import simulate_trials
from eegtensor.trials import Trials


def planted(
    n_channels: int, *, gain_db: float = 6.0, scale: float = 1e-5, seed: int = 0
) -> tuple[Trials, np.ndarray]:
    """Return trials in which one source is stronger in class "b", and its topography.

    People differ by a scale, which recentring must take away.
    """
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((n_channels, n_channels))
    mixing[:, 0] *= 2
    n_people, n_each = 5, 40
    X, y, subject = [], [], []
    for person in range(n_people):
        for i in range(n_each):
            sources = rng.standard_normal((n_channels, 400))
            name = "ab"[i % 2]
            if name == "b":
                sources[0] *= 10 ** (gain_db / 20)
            X.append(scale * (1 + person) * mixing @ sources)
            y.append(name)
            subject.append(str(person))
    info = mne.create_info([f"C{i}" for i in range(n_channels)], 100.0, "eeg")
    metadata = pd.DataFrame({"subject": subject, "session": "0"})
    return Trials(np.asarray(X), np.asarray(y), metadata, info), mixing[:, 0]


def same_direction(a, b) -> float:
    return float(abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("n_channels", [5, 30])
def test_patterns_find_the_planted_source(n_channels):
    trials, topography = planted(n_channels)
    patterns = class_patterns(sample_covariances(trials))
    assert list(patterns) == [("b", "a")]
    first = patterns["b", "a"][0]
    assert same_direction(first.values, topography) > 0.97
    assert first.decibel == pytest.approx(6.0, abs=0.7)
    assert first.unseen == pytest.approx(first.decibel, abs=0.7)
    assert (first.n_agree, first.n_people) == (5, 5)
    assert np.abs(first.values).max() == pytest.approx(1.0)
    assert len(first.values) == n_channels


def test_patterns_do_not_depend_on_the_unit():
    volts, _ = planted(5)
    micro, _ = planted(5, scale=10.0)
    a = class_patterns(sample_covariances(volts))["b", "a"][0]
    b = class_patterns(sample_covariances(micro))["b", "a"][0]
    np.testing.assert_allclose(a.values, b.values, rtol=1e-6)
    assert a.decibel == pytest.approx(b.decibel, rel=1e-6)


def test_noise_does_not_carry_over_to_people_left_out():
    trials, _ = planted(5, gain_db=0.0)
    first = class_patterns(sample_covariances(trials))["b", "a"][0]
    assert abs(first.unseen) < abs(first.decibel)


def test_several_classes_are_each_against_the_others():
    trials = simulate_trials(n_subjects=2, n_trials=24, n_classes=3, n_channels=6)
    patterns = class_patterns(sample_covariances(trials), n_patterns=2)
    assert set(patterns) == {(c, "the others") for c in trials.classes}
    assert all(len(row) == 2 for row in patterns.values())
    # Two people cannot vouch for each other.
    assert all(np.isnan(p.unseen) for row in patterns.values() for p in row)


def test_bands_have_patterns_of_their_own():
    low, topography = planted(4, seed=1)
    high, _ = planted(4, gain_db=0.0, seed=2)
    names = [f"C{i} {band}" for band in ("8-12Hz", "12.5-13.5 Hz") for i in range(4)]
    info = mne.create_info(names, 100.0, "eeg")
    X = np.concatenate([low.X, high.X], axis=1)
    trials = Trials(X, low.y, low.metadata, info)
    first, second = class_patterns(sample_covariances(trials))["b", "a"][:2]
    assert first.band == "8-12Hz"
    assert first.channels.tolist() == [0, 1, 2, 3]
    assert same_direction(first.values, topography) > 0.97
    assert abs(first.decibel) > 3 * abs(second.decibel)
    figure = draw_patterns(trials, {("b", "a"): [first]})
    axis = figure.subfigs[0].axes[0]
    assert axis.get_title().startswith("8-12Hz")
    assert [t.get_text() for t in axis.get_yticklabels()] == ["C0", "C1", "C2", "C3"]


def test_one_class_is_refused_and_no_labels():
    trials, _ = planted(4)
    with pytest.raises(EEGTensorError, match="one class"):
        class_patterns(sample_covariances(trials[trials.y == "a"]))
    bare = Trials(trials.X, None, trials.metadata, trials.info)
    with pytest.raises(EEGTensorError, match="no labels"):
        sample_covariances(bare)


def test_recentring_takes_domains_together_and_keeps_classes():
    trials = simulate_trials(n_subjects=5, n_trials=20, n_channels=8, snr=2.0)
    sample = sample_covariances(trials)
    before, after = domain_map(sample)
    assert before.between_domains > 0.5
    assert after.between_domains < 1e-12
    assert after.between_classes > 2 * before.between_classes
    assert before.trials.shape == after.trials.shape == (len(trials), 2)
    np.testing.assert_allclose(after.domains - after.domains[0], 0, atol=1e-6)
    assert len(before.cells) == 20
    draw_domain_map(sample, before, after)


def test_sample_is_seeded_and_shared_by_domains():
    trials = simulate_trials(n_subjects=3, n_trials=30, n_channels=4, duration=0.5)
    a = sample_covariances(trials, max_trials=60, seed=3)
    b = sample_covariances(trials, max_trials=60, seed=3)
    c = sample_covariances(trials, max_trials=60, seed=4)
    np.testing.assert_array_equal(a.trials, b.trials)
    assert a.trials.tolist() != c.trials.tolist()
    assert np.bincount(a.codes).tolist() == [10] * 6
    np.testing.assert_array_equal(a.labels, trials.y[a.trials])
    few = sample_covariances(trials, max_trials=12)
    assert len(np.unique(few.codes)) == 3


def test_continuous_targets_are_halved():
    trials, _ = planted(4)
    y = np.arange(len(trials), dtype=float)
    target = Trials(trials.X, y, trials.metadata, trials.info)
    sample = sample_covariances(target)
    assert (sample.labels == "high").sum() == len(trials) // 2
    np.testing.assert_array_equal(sample.labels == "high", sample.values > np.median(y))


def test_share_between_groups():
    points = np.asarray([[0.0], [2.0], [10.0], [12.0]])
    groups = np.asarray(["a", "a", "b", "b"])
    # Squares between: 4 * 5^2; within: 4 * 1.
    assert between_share(points, groups) == pytest.approx(100 / 104)
    assert between_share(points[:2], groups[:2]) == 0.0
    assert np.isnan(between_share(np.ones((3, 2)), np.arange(3)))


@pytest.mark.parametrize(
    ("name", "channel", "band"),
    [
        ("Oz 12.5-13.5Hz", "Oz", "12.5-13.5Hz"),
        ("EEG Fp1 8-30 Hz", "EEG Fp1", "8-30 Hz"),
        ("C3-A2", "C3-A2", ""),
        ("Cz", "Cz", ""),
    ],
)
def test_bands_are_read_from_names(name, channel, band):
    assert split_band(name) == (channel, band)


def test_scalp_is_drawn_only_where_channels_have_places():
    info = mne.create_info(["C3", "Cz", "C4", "P3", "Pz", "P4"], 100.0, "eeg")
    every = np.arange(6)
    assert scalp_positions(info, every) is None
    for i, channel in enumerate(info["chs"]):
        channel["loc"][:3] = [0.03 * (i % 3), 0.04 * (i // 3), 0.09]
    metres = scalp_positions(info, every)
    assert metres.shape == (6, 3)
    for channel in info["chs"]:
        channel["loc"][:3] *= 1000
    np.testing.assert_allclose(scalp_positions(info, every), metres)
    for channel in info["chs"]:
        channel["loc"][:3] *= 0.01
    assert scalp_positions(info, every) is None
    for channel in info["chs"]:
        channel["loc"][:3] *= 0.1
    assert scalp_positions(info, every[:3]) is None
    info["chs"][1]["loc"][:3] = info["chs"][0]["loc"][:3]
    assert scalp_positions(info, every) is None
