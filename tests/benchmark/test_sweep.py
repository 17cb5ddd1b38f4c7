"""Sweeps name pipelines that exist and train."""

from __future__ import annotations

import pytest

from eegtensor import EEGTensorError, make_pipeline, simulate_trials
from eegtensor.benchmark.sweep import sweep_pipelines
from eegtensor.pipelines import parse_pipeline
from eegtensor.training import METHODS


def test_every_pipeline_of_the_sweep_trains() -> None:
    trials = simulate_trials(
        n_subjects=3, n_sessions=1, n_trials=16, n_channels=4, random_state=0
    )
    texts = sweep_pipelines("training")
    assert len(texts) == len(set(texts)) > 30
    for text in texts:
        name, params, _ = parse_pipeline(text)
        pipe = make_pipeline(name, **{"epochs": 2, "batch_size": 12} | params)
        pipe.fit(trials).adapt(trials)
        assert set(pipe.predict(trials)) <= set(trials.classes), text


def test_every_method_named_is_in_the_table() -> None:
    said = " ".join(sweep_pipelines("training"))
    for kind in ("perturbation", "averager"):
        missing = [n for n, m in METHODS.items() if m.kind == kind and n not in said]
        # These change trials, which the network's front has read beforehand.
        assert all("raw trials" in METHODS[name].needs for name in missing), missing


def test_unknown_sweeps() -> None:
    with pytest.raises(EEGTensorError, match="sweep"):
        sweep_pipelines("everything")
