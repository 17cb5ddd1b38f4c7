"""Calibration of an unseen person with 20 trials: shared directions and the rest.

    python tests/benchmarks/bench_multitask.py [--draws 3] [--only ssvep] [--arithmetic]

Leave one person out on the shared recordings (EEGTENSOR_DATA), tangent vectors
after Recenter. 20 labelled trials of the person's first session are drawn, all its
others are tested. gamma, the rank, the modes of the task grid and the variance of a
person's own part are chosen on source people alone, by the same protocol: half of
them trains, the other half is calibrated with 20 trials, in turn.
EEGMAT is left out by default: there each class is one recording, so that any few
trials of a person tell the recordings apart and a machine of their own scores 1.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.signal import butter, sosfiltfilt
from sklearn.metrics import balanced_accuracy_score

from eegtensor.benchmark import bootstrap_interval
from eegtensor.features import Covariances, TangentSpace
from eegtensor.tensor.multitask import multitask
from eegtensor.transfer import Recenter, TensorMultitaskLSSVC

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
DATA = Path(os.environ.get("EEGTENSOR_DATA", SHARED))
N_TRIALS = 20
GAMMAS = (0.03, 0.1, 0.3)
RANKS = (1, 4)
MODES = (("subject",), ("subject", "session"))
OWN = (0.0, 0.1, 0.3, 1.0)
OWN_GAMMAS = (0.3, 1.0, 3.0)


class Set(NamedTuple):
    """Trials as vectors, with their labels and domains."""

    X: np.ndarray
    y: np.ndarray
    subjects: np.ndarray
    sessions: np.ndarray


def filtered(x: np.ndarray, sfreq: float, low: float, high: float) -> np.ndarray:
    sos = butter(4, [low, high], "bandpass", fs=sfreq, output="sos")
    return sosfiltfilt(sos, x, axis=-1)


def vectors(bands: Iterable[np.ndarray], subjects: Any, sessions: Any) -> np.ndarray:
    """Tangent vectors of each band, every session on its own mean."""
    out = []
    for x in bands:
        C = Recenter().fit_transform(
            Covariances().fit_transform(x), subjects=subjects, sessions=sessions
        )
        out.append(TangentSpace(reference="identity").fit_transform(C))
    return np.concatenate(out, axis=1)


def archives(
    folder: str, bands: list[tuple[int, int]], start: float, stop: float
) -> Set:
    X, y, subjects, sessions = [], [], [], []
    for path in sorted((DATA / folder).glob("*.npz")):
        with np.load(path, allow_pickle=False) as z:
            sfreq, n = float(z["sfreq"]), len(z["X"])
            X.append(z["X"] * np.float64(z["scale"]))
            y.append(z["y"])
            subjects.append(np.broadcast_to(z["subject"], n).astype(str))
            sessions.append(np.broadcast_to(z["session"], n).astype(str))
    x, who, when = map(np.concatenate, (X, subjects, sessions))
    window = slice(int(start * sfreq), int(stop * sfreq))
    parts = (filtered(x, sfreq, *band)[..., window] for band in bands)
    return Set(vectors(parts, who, when), np.concatenate(y).astype(str), who, when)


def ssvep() -> Set:
    import mne

    mne.set_log_level("ERROR")
    X, y, subjects, sessions = [], [], [], []
    for path in sorted((DATA / "ssvep_exo").rglob("*_raw.fif")):
        raw = mne.io.read_raw_fif(path, preload=True)
        sfreq, x = int(raw.info["sfreq"]), raw.get_data()
        lines = [filtered(x, sfreq, f - 0.5, f + 0.5) for f in (13, 17, 21)]
        stacked = np.concatenate(lines)
        events = mne.read_events(str(path).replace("_raw.fif", "-eve.fif"))
        for sample, _, code in events:
            first = sample - raw.first_samp + sfreq
            X.append(stacked[:, first : first + 4 * sfreq])
            y.append(str(code))
            subjects.append(path.name.split("_")[0])
            sessions.append(path.name.split("_")[1])
    who, when = np.asarray(subjects), np.asarray(sessions)
    return Set(vectors([np.stack(X)], who, when), np.asarray(y), who, when)


def drawn(data: Set, person: str, draw: int) -> tuple[np.ndarray, np.ndarray]:
    """Trials to calibrate with, as many of each class, and trials to test."""
    here = np.flatnonzero(data.subjects == person)
    first = here[data.sessions[here] == min(data.sessions[here])]
    rng = np.random.default_rng(draw)
    classes = np.unique(data.y)
    few = np.concatenate(
        [
            rng.permutation(first[data.y[first] == c])[: N_TRIALS // len(classes)]
            for c in classes
        ]
    )
    return few, np.setdiff1d(here, few)


def domains(data: Set, index: np.ndarray) -> dict[str, np.ndarray]:
    return {"subjects": data.subjects[index], "sessions": data.sessions[index]}


def machine(
    rank: int | None, gamma: float, modes: tuple[str, ...] = ()
) -> TensorMultitaskLSSVC:
    if rank is None:
        return TensorMultitaskLSSVC(modes=(), gamma=gamma)
    return TensorMultitaskLSSVC(rank=rank, gamma=gamma, modes=modes, max_iter=25)


def scores(
    data: Set, train: np.ndarray, people: list[str], draws: int, grid: Any
) -> Any:
    """Balanced accuracies of every method and setting: (method, setting) -> list."""
    found: dict[Any, list[list[float]]] = {}
    fitted = {}
    for method, setting in grid:
        if method in ("pooled", "shared, mean row", "shared, calibrated"):
            if setting[:3] not in fitted:
                model = machine(*setting[:3])
                model.fit(data.X[train], data.y[train], **domains(data, train))
                fitted[setting[:3]] = model
    for person in people:
        for draw in range(draws):
            few, test = drawn(data, person, draw)
            for method, setting in grid:
                if method == "own":
                    model = machine(*setting).fit(data.X[few], data.y[few])
                elif method == "pooled with the 20":
                    both = np.concatenate([train, few])
                    model = machine(*setting).fit(data.X[both], data.y[both])
                else:
                    model = copy.copy(fitted[setting[:3]])
                if method == "shared, calibrated":
                    model.own = setting[3]
                    model.calibrate(data.X[few], data.y[few], **domains(data, few))
                guess = model.predict(data.X[test], **domains(data, test))
                value = balanced_accuracy_score(data.y[test], guess)
                found.setdefault((method, setting), []).append([float(value)])
    return {key: np.ravel(values) for key, values in found.items()}


def settings() -> list[tuple[str, tuple[Any, ...]]]:
    shared = list(itertools.product(RANKS, GAMMAS, MODES))
    alone = [(None, g) for g in GAMMAS]
    return [
        *(("own", (None, g)) for g in OWN_GAMMAS),
        *(("pooled", s) for s in alone),
        *(("pooled with the 20", s) for s in alone),
        *(("shared, mean row", s) for s in shared),
        *(("shared, calibrated", (*s, own)) for s in shared for own in OWN),
    ]


def chosen(data: Set, sources: list[str], draws: int) -> list[Any]:
    """The best setting of each method on source people, halves in turn."""
    total: dict[Any, float] = {}
    for half in range(2):
        out = sources[half::2]
        train = np.flatnonzero(
            np.isin(data.subjects, [p for p in sources if p not in out])
        )
        for key, values in scores(data, train, out, draws, settings()).items():
            total[key] = total.get(key, 0.0) + float(values.sum())
    best: dict[str, Any] = {}
    for (method, setting), value in total.items():
        if method not in best or value > total[method, best[method]]:
            best[method] = setting
    return list(best.items())


def compare(name: str, data: Set, draws: int, step: int) -> None:
    people = sorted(set(data.subjects))
    results: dict[str, list[float]] = {}
    picks: list[str] = []
    start = time.process_time()
    for k in range(0, len(people), step):
        left = people[k : k + step]
        sources = [p for p in people if p not in left]
        grid = chosen(data, sources, 1)
        train = np.flatnonzero(np.isin(data.subjects, sources))
        for (method, setting), values in scores(data, train, left, draws, grid).items():
            results.setdefault(method, []).extend(
                values.reshape(len(left), draws).mean(axis=1)
            )
            if method == "shared, calibrated":
                R, gamma, modes, own = setting
                picks.append(f"R={R} gamma={gamma} D={len(modes)} own={own}")
    print(f"\n{name}: {len(people)} people, {N_TRIALS} trials, {draws} draws")
    ours = np.asarray(results["shared, calibrated"])
    for method, values in results.items():
        low, high = bootstrap_interval(np.asarray(values))
        gain = ours - np.asarray(values)
        line = f"  {method:20} {np.mean(values):.3f} [{low:.3f}, {high:.3f}]"
        if gain.any():
            low, high = bootstrap_interval(gain)
            line += f"   calibrated {100 * gain.mean():+.1f} [{100 * low:+.1f}, "
            line += f"{100 * high:+.1f}] points"
        print(line)
    print(f"  chosen: {', '.join(picks)}; {time.process_time() - start:.0f} s CPU")


def exactness(data: Set) -> None:
    """Dual beside primal for fixed U, and half steps that raise the objective."""
    levels = np.stack(
        [np.unique(v, return_inverse=True)[1] for v in (data.subjects, data.sessions)],
        1,
    )
    keep = np.arange(len(data.y)) % max(1, len(data.y) // 500) == 0
    y = np.where(data.y[keep] == data.y[0], 1.0, -1.0)
    # Of about unit length, as the machines have them.
    X = data.X[keep] / np.sqrt((data.X[keep] ** 2).sum(axis=1).mean())
    levels = levels[keep]
    for loss in ("squared", "hinge", "insensitive"):
        fixed = [
            multitask(X, y, levels, 3, loss=loss, solver=solver, max_iter=0)
            for solver in ("primal", "dual")
        ]
        u = np.prod([U[levels[:, d]] for d, U in enumerate(fixed[0].rows)], axis=0)
        task = np.unique(levels, axis=0, return_inverse=True)[1].ravel()
        f = [((X @ m.directions) * u).sum(axis=1) + m.biases[task] for m in fixed]
        values = np.asarray(
            multitask(X, y, levels, 3, loss=loss, max_iter=10).objective
        )
        rise = (np.diff(values) / values[0]).max()
        print(
            f"  {loss:12} |dual - primal| {np.abs(f[0] - f[1]).max():.1e}; "
            f"largest step of the objective {rise:+.1e} of it"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a set's name")
    parser.add_argument("--arithmetic", action="store_true", help="EEGMAT as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not DATA.is_dir():
        print(f"bench_multitask: no recordings at {DATA}; nothing run")
        return
    bands = [(7, 10), (10, 14), (14, 20), (20, 25)]
    sets = {
        "bnci_iv_2b": lambda: archives("bnci_iv_2b", bands, 0.5, 3.5),
        "ssvep_exo": ssvep,
        "eegmat": lambda: archives("eegmat", [(4, 30)], 0.0, 4.0),
    }
    first = True
    for name, load in sets.items():
        if options.only not in name or (name == "eegmat" and not options.arithmetic):
            continue
        data = load()
        if first:
            print(f"{name}: solvers")
            exactness(data)
            first = False
        compare(name, data, options.draws, 4 if name == "eegmat" else 1)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
