"""Lost cells restored: the yardstick's table for `complete`, with its references.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_completion.py
        [--only "segment"] [--draws 1]
        [--average-reference] [--drift UV] [--edf [FILE]] [--no-references] [--big]

Data, masks, error and references are those of `measure/completion.py` in the
folder of shared files. A row: scenario, spline, Gaussian, complete(auto), coverage
of its 90 % interval, what it expected (NRMSE of hidden cells), CPU seconds of a
call. `--edf` takes another recording (EEGMAT: 19 channels at 500 Hz; average of
the draws on 60 s from t = 10 s, 1-40 Hz, resampled to 128 Hz). `--drift` adds
a random walk of so many microvolts (standard deviation) to every channel. `--big`
times 64 channels x 10 minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import mne
import numpy as np
import torch
from numpy.typing import NDArray

from eegtensor.tensor.completion import complete

SHARED = Path(__file__).resolve().parents[3] / "shared"
EDF = Path("native") / "Subject00_1.edf"


def yardstick() -> ModuleType | None:
    path = SHARED / "measure" / "completion.py"
    if not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location("yardstick", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_edf(path: Path, ruler: ModuleType) -> tuple[NDArray, NDArray]:
    """Signals (microvolts) and positions of the EEG channels of an EEGMAT file."""
    raw = mne.io.read_raw_edf(path, preload=True, verbose="error")
    names = {c: c.removeprefix("EEG ").split("-")[0] for c in raw.ch_names}
    raw.rename_channels(names)
    montage = mne.channels.make_standard_montage("standard_1020")
    raw.pick([c for c in raw.ch_names if c in montage.ch_names and c not in "A1 A2"])
    raw.set_montage(montage)
    raw.filter(1.0, 40.0, verbose="error").resample(ruler.SFREQ, verbose="error")
    x = raw.get_data()[:, 10 * ruler.SFREQ :][:, : ruler.N_TIMES] * 1e6
    places = np.array([c["loc"][:3] for c in raw.info["chs"]])
    centre = mne.bem._fit_sphere(places)[1]
    return x - x.mean(axis=1, keepdims=True), places - centre


def rows(
    ruler: ModuleType, x: NDArray, positions: NDArray, options: argparse.Namespace
) -> None:
    print(
        f"{'scenario':22}{'spline':>8}{'gauss':>8}{'auto':>8}{'/ best':>8}"
        f"{'cover':>8}{'expect':>8}{'CPU s':>8}  methods",
        flush=True,
    )
    for name, (make, argument, draws) in ruler.SCENARIOS.items():
        if options.only not in name:
            continue
        found = []
        for seed in range(min(draws, options.draws)):
            mask = make(argument, seed, n=len(x))
            begin = time.process_time()
            done = complete(x, mask, positions=positions)
            seconds = time.process_time() - begin
            inside = np.abs(done.X - x) <= 1.6448536 * done.std
            row = max(done.table, key=lambda r: r.cells)
            references = [np.nan, np.nan]
            if not options.no_references:
                references[0] = ruler.nrmse(x, ruler.spline(x, mask, positions), mask)
                if not name.startswith(("random", "whole")):
                    references[1] = ruler.nrmse(x, ruler.gaussian(x, mask), mask)
            own = ruler.nrmse(x, done.X, mask)
            cover = inside[~mask].mean()
            found.append([*references, own, cover, row.expected_error, seconds])
        spline, gauss, own, cover, expected, seconds = np.mean(found, axis=0)
        best = np.nanmin([spline, gauss, np.inf])
        print(
            f"{name:22}{spline:8.3f}{gauss:8.3f}{own:8.4f}{own / best:8.3f}"
            f"{cover:8.3f}{expected:8.3f}{seconds:8.2f}  {row.kind}: {row.method}",
            flush=True,
        )


def big() -> None:
    """64 channels x 10 minutes at 128 Hz, with runs, cells and gaps lost."""
    rng = np.random.default_rng(0)
    n, n_times = 64, 600 * 128
    sources = np.cumsum(rng.standard_normal((n, n_times)), axis=1)
    sources[:, 64:] -= sources[:, :-64].copy()
    x = rng.standard_normal((n, n)) @ sources
    seen = rng.random(x.shape) > 0.02
    for _ in range(200):
        channel, start = rng.integers(n), rng.integers(n_times - 512)
        seen[channel, start : start + rng.integers(32, 512)] = False
    for start in range(2000, n_times - 100, 5000):
        seen[:, start : start + 13] = False
    begin = time.process_time()
    done = complete(x, seen)
    print(f"64 channels x 10 min: {time.process_time() - begin:.1f} CPU s")
    for row in done.table:
        print("  ", row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a scenario's name")
    parser.add_argument("--draws", type=int, default=99)
    parser.add_argument("--average-reference", action="store_true")
    parser.add_argument("--drift", type=float, default=0.0)
    parser.add_argument("--edf", nargs="?", const="", default=None)
    parser.add_argument("--no-references", action="store_true")
    parser.add_argument("--big", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.big:
        big()
        return
    ruler = yardstick()
    if ruler is None or not ruler.DATA.is_dir():
        print(f"bench_completion: no yardstick or data below {SHARED}; nothing run")
        return
    if options.edf is None:
        x, positions, _ = ruler.load()
    else:
        x, positions = read_edf(
            Path(options.edf) if options.edf else ruler.DATA / EDF, ruler
        )
    if options.average_reference:
        x = x - x.mean(axis=0)
    if options.drift:
        walks = np.cumsum(np.random.default_rng(0).standard_normal(x.shape), axis=1)
        walks -= walks.mean(axis=1, keepdims=True)
        x = x + options.drift * walks / walks.std(axis=1, keepdims=True)
    rows(ruler, x, positions, options)


if __name__ == "__main__":
    sys.exit(main())
