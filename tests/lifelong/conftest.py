"""Simulated people whose trials are parted into seen and held out."""

from __future__ import annotations

import numpy as np
import pytest

from eegtensor.lifelong import Known
from eegtensor.simulate import simulate_trials


@pytest.fixture(scope="session")
def people():
    """Trials trained on, and trials held out, of four people; all as `Known`."""
    trials = simulate_trials(
        n_subjects=4,
        n_sessions=2,
        n_trials=24,
        n_channels=5,
        sfreq=64.0,
        subject_shift=0.5,
        snr=1.0,
        random_state=1,
    )
    whole = Known(trials.X, trials.y, trials.subjects, trials.sessions)
    out = np.arange(len(trials)) % 3 == 0
    return whole.pick(~out), whole.pick(out)
