"""Small trials for tests."""

from __future__ import annotations

import mne
import numpy as np
import pandas as pd

from eegtensor import Trials


def make_trials(n: int = 12, *, seed: int = 0, y: object = "classes") -> Trials:
    rng = np.random.default_rng(seed)
    info = mne.create_info(["C3", "Cz", "C4"], 100.0, "eeg")
    info.set_montage(
        "colin27_1020" if "colin27_1020" in _montages() else "standard_1020"
    )
    labels = np.resize(["left", "right"], n) if isinstance(y, str) else y
    metadata = pd.DataFrame(
        {
            "dataset": "d",
            "subject": np.repeat(["1", "2"], [n // 2, n - n // 2]),
            "session": np.resize(["a", "a", "b"], n),
            "event_sample": 100 * np.arange(n) + 7,
            "event_code": np.where(np.resize([True, False], n), 4, 9),
            "note": [None, *["x"] * (n - 1)],
        }
    )
    X = rng.standard_normal((n, 3, 50)).astype(np.float32) * 1e-5
    return Trials(X, labels, metadata, info, -0.1)


def _montages() -> list[str]:
    return mne.channels.get_builtin_montages()
