"""MOABB's cross-subject evaluation and ours give the same scores."""

from __future__ import annotations

import tempfile

import mne
import numpy as np
import pandas as pd
import pytest

import eegtensor as et

pytest.importorskip("moabb")

MODES = {
    "none": "train",
    "none-trialwise": "train_trialwise",
    "20%": "train_and_target_unlabeled_20p",
    "50%": "train_and_target_unlabeled_50p",
    "full": "train_and_target_unlabeled_full",
    "labelled-20%": "train_and_target_labeled_20p",
    "labelled-50%": "train_and_target_labeled_50p",
}
CHANNELS = ("C3", "Cz", "C4")


@pytest.fixture(scope="module")
def moabb_data(tmp_path_factory):
    """One dataset of four people whose channels are mixed differently."""
    from moabb.datasets.fake import FakeDataset
    from moabb.paradigms import LeftRightImagery

    class Shifted(FakeDataset):
        def _get_single_subject_data(self, subject):
            data = super()._get_single_subject_data(subject)
            mixing = np.random.default_rng(subject).normal(np.eye(3), 0.4)
            for raw in data["0"].values():
                for onset in np.flatnonzero(raw._data[3]):
                    class_ = int(raw._data[3, onset])
                    raw._data[class_ - 1, onset : onset + 384] *= 1.2
                raw._data[:3] = mixing @ raw._data[:3]
            return data

    with pytest.MonkeyPatch.context() as patch, mne.use_log_level("ERROR"):
        # The data set makes a temporary folder that nobody removes.
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("fake")))
        dataset = Shifted(
            event_list=("left_hand", "right_hand"),
            n_sessions=1,
            n_runs=1,
            n_subjects=4,
            n_events=22,
            duration=110,
            channels=CHANNELS,
            seed=3,
        )
        paradigm = LeftRightImagery()
        X, y, metadata = paradigm.get_data(dataset, subjects=dataset.subject_list)
        info = mne.create_info(list(CHANNELS), 128.0, "eeg")
        yield dataset, paradigm, et.Trials(X, y, metadata, info)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", MODES)
def test_scores_are_moabbs(moabb_data, mode, tmp_path):
    """Each person has one session: MOABB merges sessions, we keep them apart."""
    from moabb.evaluations import CrossSubjectEvaluation

    dataset, paradigm, trials = moabb_data
    pipe = et.make_pipeline("tangent-space", align="riemann")
    evaluation = CrossSubjectEvaluation(
        paradigm, [dataset], cs_mode=MODES[mode], hdf5_path=str(tmp_path)
    )
    theirs = pd.DataFrame(evaluation.process({"p": pipe}))
    theirs.index = theirs["subject"].astype(str)
    ours = et.benchmark(trials, {"p": pipe}, adapt=mode).scores.set_index("subject")
    assert 0.5 < ours["roc_auc"].mean() < 1.0
    # MOABB stores scores as float32; in that type they are the same numbers.
    np.testing.assert_array_equal(
        ours["roc_auc"].astype(np.float32),
        theirs.loc[ours.index, "score"].astype(np.float32),
    )
