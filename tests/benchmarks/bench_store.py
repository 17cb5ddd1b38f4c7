"""Milliseconds to draw random trials from a store that is warm in memory."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import mne
import numpy as np
import pandas as pd

from eegtensor import Trials


def main() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((5000, 32, 256)).astype(np.float32) * 1e-5
    info = mne.create_info(32, 128.0, "eeg")
    metadata = pd.DataFrame({"subject": np.repeat(np.arange(50), 100)})
    trials = Trials(X, np.resize(["a", "b"], 5000), metadata, info)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        trials.save(Path(folder) / "store")
        print(f"write 5000 trials (160 MB): {time.perf_counter() - start:.2f} s wall")
        start = time.perf_counter()
        loaded = Trials.load(Path(folder) / "store")
        print(f"open the store: {1e3 * (time.perf_counter() - start):.1f} ms wall")
        times = []
        for _ in range(50):
            index = rng.integers(0, 5000, 64)
            start = time.perf_counter()
            np.asarray(loaded.X[index])
            times.append(1e3 * (time.perf_counter() - start))
        print(
            f"64 random trials of 32 x 256 float32: median {np.median(times):.2f} ms, "
            f"worst {max(times):.2f} ms wall"
        )


if __name__ == "__main__":
    main()
