"""The simulator: shapes, reproducibility, and the shift it promises."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pyriemann.classification import MDM
from pyriemann.geometry.base import invsqrtm
from pyriemann.geometry.covariance import covariances
from pyriemann.geometry.mean import mean_riemann
from pyriemann.tangentspace import TangentSpace
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eegtensor import EEGTensorError, Trials, _headmodel, simulate
from eegtensor.simulate import TASKS, simulate_trials


def small(**changes) -> Trials:
    settings = {
        "n_subjects": 3,
        "n_sessions": 2,
        "n_trials": 10,
        "n_channels": 6,
        "duration": 0.5,
    }
    return simulate_trials(**{**settings, **changes})


def scores(
    trials: Trials, y=None, alignments=("raw", "recentred")
) -> dict[tuple[str, str], float]:
    """Leave one subject out: (decoder, "raw" | "recentred") -> balanced accuracy."""
    y = trials.y if y is None else y
    subjects, codes = trials.subjects, trials.domain.codes
    points = {"raw": covariances(trials.X * 1e6, "oas")}
    if "recentred" in alignments:
        points["recentred"] = points["raw"].copy()
        for code in np.unique(codes):
            mine = points["raw"][codes == code]
            white = invsqrtm(mean_riemann(mine, tol=1e-6))
            points["recentred"][codes == code] = white @ mine @ white
    decoders = {
        "mdm": MDM(),
        "tangent": make_pipeline(
            TangentSpace(), StandardScaler(), LogisticRegression(C=0.1, max_iter=500)
        ),
    }
    out = {}
    for alignment in alignments:
        C = points[alignment]
        for name, decoder in decoders.items():
            folds = []
            for person in np.unique(subjects):
                train = subjects != person
                decoder.fit(C[train], y[train])
                said = decoder.predict(C[~train])
                folds.append(balanced_accuracy_score(y[~train], said))
            out[name, alignment] = float(np.mean(folds))
    return out


@pytest.fixture(scope="module")
def default_scores() -> list[dict]:
    return [scores(simulate_trials(random_state=seed)) for seed in range(3)]


def test_default_call_has_the_promised_form():
    start = time.process_time()
    trials = simulate_trials()
    print(f"simulate_trials(): {time.process_time() - start:.2f} s of CPU")
    assert trials.X.shape == (480, 16, 256)
    assert trials.X.dtype == np.float64
    assert trials.sfreq == 128.0 and trials.tmin == 0.0
    assert trials.classes == ["left_hand", "right_hand"]
    assert len(trials.domain.names) == 12
    first = trials.metadata.iloc[0]
    assert (first.dataset, first.subject, first.session, first.run) == (
        "simulated",
        "01",
        "0",
        "0",
    )
    for domain in range(12):
        _, counts = np.unique(
            trials.y[trials.domain.codes == domain], return_counts=True
        )
        assert counts.tolist() == [20, 20]


def test_signals_look_like_eeg():
    trials = simulate_trials()
    deviation = trials.X.std(axis=2) * 1e6
    assert 10 < np.median(deviation) < 30
    assert np.percentile(deviation, 99.5) < 100
    power = np.abs(np.fft.rfft(trials.X * np.hanning(256), axis=-1)) ** 2
    power = power.mean(axis=(0, 1))
    freqs = np.fft.rfftfreq(256, 1 / 128)

    def band(low, high):
        return power[(freqs >= low) & (freqs < high)].mean()

    assert band(2, 5) > 3 * band(28, 40) > 3 * band(45, 60)
    assert band(9, 12) > 2 * band(14, 17)


def test_class_weakens_mu_over_its_own_cortex():
    trials = simulate_trials(snr=2, n_subjects=8)
    spectrum = np.abs(np.fft.rfft(trials.X, axis=-1)) ** 2
    freqs = np.fft.rfftfreq(trials.X.shape[2], 1 / trials.sfreq)
    mu = np.log(spectrum[..., (freqs >= 8) & (freqs <= 13)].mean(axis=-1))
    difference = mu[trials.y == "left_hand"].mean(axis=0) - mu[
        trials.y == "right_hand"
    ].mean(axis=0)
    assert trials.ch_names[int(np.argmin(difference))] in ("C4", "CP2", "FC2")
    assert trials.ch_names[int(np.argmax(difference))] in ("C3", "CP1", "FC1")


def test_times_of_events_and_positions_of_electrodes():
    trials = small(sfreq=100.0, duration=1.5)
    assert trials.X.shape[2] == 150
    one = trials[trials.domain.codes == 0].metadata
    assert (np.diff(one.event_sample) >= 150).all()
    assert one.event_code.isin([1, 2]).all()
    positions = np.array([ch["loc"][:3] for ch in trials.info["chs"]])
    assert np.isfinite(positions).all()
    assert positions[trials.ch_names.index("C3"), 0] < -0.03
    epochs = trials.to_epochs()
    assert set(epochs.event_id) == {"left_hand", "right_hand"}


def test_same_seed_same_bytes_and_other_seed_other_bytes():
    assert small().digest == small().digest
    assert small(random_state=1).digest != small().digest
    assert small(head="random").digest == small(head="random").digest
    draws = [small(random_state=np.random.default_rng(4)).digest for _ in range(2)]
    assert draws[0] == draws[1]
    rng = np.random.default_rng(4)
    assert small(random_state=rng).digest != small(random_state=rng).digest
    assert small(random_state=None).digest != small(random_state=None).digest


@pytest.mark.parametrize("head", ["sphere", "random"])
def test_more_people_or_sessions_leave_the_earlier_ones_as_they_are(head):
    few, more = small(head=head), small(head=head, n_subjects=5)
    np.testing.assert_array_equal(few.X, more.X[: len(few)])
    np.testing.assert_array_equal(few.y, more.y[: len(few)])
    long = small(head=head, n_sessions=3)
    earlier = long[long.sessions != "2"]
    np.testing.assert_array_equal(few.X, earlier.X)


def test_people_differ_and_without_shift_they_share_one_head():
    def spread(**changes):
        trials = simulate_trials(n_subjects=4, n_sessions=1, **changes)
        codes = trials.domain.codes
        means = [
            mean_riemann(covariances(trials.X[codes == c], "oas")) for c in range(4)
        ]
        logs = [np.linalg.slogdet(m)[1] for m in means]
        white = [invsqrtm(means[0]) @ m @ invsqrtm(means[0]) for m in means[1:]]
        return np.std(logs), np.mean(
            [np.linalg.norm(np.log(np.linalg.eigvalsh(w))) for w in white]
        )

    none, some = spread(subject_shift=0, session_shift=0), spread()
    assert some[0] > 3 * none[0]
    assert some[1] > 3 * none[1]


def test_electrode_gains_scale_the_brain_and_not_the_sensor_noise():
    info = _headmodel.make_info(["C3", "Cz"], 128.0)
    dipoles = _headmodel.place(
        _headmodel.channel_names(27), np.random.default_rng(0), tilt=0.0
    )

    def signals(gain):
        person = simulate._Person(dipoles, np.zeros(27), np.asarray(gain), 0.0)
        return simulate._signals(
            person,
            _headmodel.SphereHead(info),
            ["left_hand", "right_hand"],
            np.array([0, 1]),
            64,
            128.0,
            1.0,
            np.random.default_rng(1),
        )

    one, two, four = (signals([np.log(g), 0.0]) for g in (1, 2, 4))
    np.testing.assert_array_equal(one[:, 1], two[:, 1])
    assert np.std(two[:, 0] - one[:, 0]) > 1e-6
    np.testing.assert_allclose(four[:, 0] - two[:, 0], 2 * (two[:, 0] - one[:, 0]))


def test_recentring_is_needed_and_not_enough(default_scores):
    for seed, score in enumerate(default_scores):
        for decoder in ("mdm", "tangent"):
            raw, recentred = score[decoder, "raw"], score[decoder, "recentred"]
            print(seed, decoder, round(raw, 3), round(recentred, 3))
            assert 0.70 < recentred < 0.92
            assert raw < recentred - 0.08
    for decoder in ("mdm", "tangent"):
        assert np.mean([s[decoder, "raw"] for s in default_scores]) < 0.70


def test_larger_subject_shift_lowers_the_unaligned_score():
    def raw(size: float, seed: int) -> float:
        trials = simulate_trials(
            subject_shift=size, session_shift=0.2, n_channels=8, random_state=seed
        )
        return scores(trials, alignments=("raw",))["mdm", "raw"]

    curve = [np.mean([raw(size, seed) for seed in range(4)]) for size in (0, 1, 2)]
    print(np.round(curve, 3))
    assert curve[0] > curve[1] + 0.03
    assert curve[1] > curve[2] + 0.03


def test_no_shift_leaves_no_gap():
    score = [
        scores(
            simulate_trials(
                subject_shift=0, session_shift=0, n_channels=8, random_state=seed
            )
        )
        for seed in range(2)
    ]
    for decoder in ("mdm", "tangent"):
        raw, recentred = (
            np.mean([s[decoder, way] for s in score]) for way in ("raw", "recentred")
        )
        assert raw > 0.75
        assert abs(raw - recentred) < 0.04


def test_shuffled_labels_and_zero_snr_give_chance():
    trials = simulate_trials(n_channels=8)
    y = np.random.default_rng(0).permutation(trials.y)
    for score in (scores(trials, y), scores(simulate_trials(snr=0, n_channels=8))):
        # Four standard errors of 480 coin tosses.
        assert all(abs(value - 0.5) < 0.09 for value in score.values())


def test_class_priors_alternate_and_lose_no_class():
    trials = simulate_trials(class_prior_shift=0.5, n_trials=20, n_channels=4)
    left = [
        np.mean(trials.y[trials.subjects == person] == "left_hand")
        for person in np.unique(trials.subjects)
    ]
    assert left == pytest.approx([0.75, 0.25] * 3, abs=0.05)
    extreme = small(class_prior_shift=0.999, n_classes=4)
    for code in range(6):
        assert len(np.unique(extreme.y[extreme.domain.codes == code])) == 4
    assert len(extreme) == 60


@pytest.mark.parametrize("n_classes", [2, 5, 8])
def test_every_number_of_classes(n_classes):
    trials = small(n_classes=n_classes, n_trials=n_classes + 3)
    assert trials.classes == sorted(list(TASKS)[:n_classes])


@pytest.mark.parametrize("n_channels", [1, 3, 64, 335])
def test_montages_are_nested_and_named(n_channels):
    trials = small(n_channels=n_channels, n_subjects=1, n_sessions=1, n_trials=2)
    assert trials.X.shape[1] == n_channels == len(set(trials.ch_names))
    assert np.isfinite(trials.X).all()
    assert "C3" in trials.ch_names


def test_a_dipole_is_seen_best_by_the_electrode_above_it():
    names = _headmodel.channel_names(64)
    info = _headmodel.make_info(names, 128.0)
    head = _headmodel.SphereHead(info)
    rng = np.random.default_rng(0)
    dipoles = _headmodel.place(["C3", "Oz"], rng, tilt=0.0)
    field = head.leadfield(dipoles)
    assert names[int(np.argmax(field[:, 0]))] == "C3"
    assert names[int(np.argmax(field[:, 1]))] == "Oz"
    flipped = dipoles._replace(orientation=-dipoles.orientation)
    np.testing.assert_allclose(head.leadfield(flipped), -field, rtol=1e-12)


def test_moving_dipoles_by_nothing_moves_nothing():
    rng = np.random.default_rng(0)
    dipoles = _headmodel.place(["C3", "C4"], rng)
    still = _headmodel.move(dipoles, 0.0, rng)
    np.testing.assert_allclose(still.direction, dipoles.direction, rtol=1e-14)
    moved = _headmodel.move(dipoles, 5.0, rng)
    angle = np.rad2deg(np.arccos(np.sum(moved.direction * dipoles.direction, axis=1)))
    assert (angle > 0.1).all() and (angle < 30).all()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"n_subjects": 0}, "n_subjects=0"),
        ({"n_sessions": 1.5}, "n_sessions=1.5"),
        ({"n_trials": 1}, "n_trials=1"),
        ({"n_classes": 9}, "n_classes=9"),
        ({"n_channels": True}, "n_channels=True"),
        ({"n_channels": 400}, "335 electrodes"),
        ({"sfreq": 20.0}, "sfreq=20.0"),
        ({"subject_shift": -1}, "subject_shift=-1"),
        ({"session_shift": np.nan}, "session_shift=nan"),
        ({"snr": "high"}, "snr='high'"),
        ({"class_prior_shift": 1.0}, "class_prior_shift=1.0"),
        ({"duration": 0}, "duration=0"),
        ({"head": "cube"}, "'sphere', 'random'"),
        ({"random_state": -3}, "random_state=-3"),
        ({"random_state": "seed"}, "random_state is a str"),
    ],
)
def test_bad_parameters_are_named(changes, names):
    with pytest.raises(EEGTensorError, match=names):
        small(**changes)
