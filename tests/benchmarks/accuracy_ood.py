"""Scores of novelty on the shared sets: artefacts, an unseen class, person, device.

    python tests/benchmarks/accuracy_ood.py [--seeds 3] [--epochs 15] [--only class]

People are left out in two halves (EEGTENSOR_DATA). Decoders are tangent vectors after
Recenter with logistic regression, and TSMNet of a few epochs; both adapt to unlabelled
trials of the new people, familiar ones alone. FPR95 and AUROC are means over halves and
seeds, intervals resample people. The score named "chosen" is that of the least FPR95 on
source people: half of them, one known class and artefacts are held back, and no
target trial is looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.signal import butter, resample_poly, sosfiltfilt

from eegtensor import EEGTensorWarning, make_pipeline, read_trials
from eegtensor.trust.scorers import (
    Evidence,
    ModeEnsemble,
    auroc,
    evidence,
    fpr_at_tpr,
    make_scorer,
)

DATA = Path(os.environ.get("EEGTENSOR_DATA", "../shared/data"))
SCORERS = (
    "msp",
    "energy",
    "knn",
    "knn(normalise=False)",
    "cop(norm_weight=0.0)",
    "cop",
    "corp(n_components=512)",
    "kpca(norm_weight=0.0)",
    "kpca",
    "kpca(norm_side='large')",
    "gradients",
    "potato",
)
# Peak, or root mean square, in standard deviations of the channel before filtering.
ARTEFACTS = {"blink": 20.0, "muscle": 3.0, "pop": 40.0}


class Set(NamedTuple):
    X: np.ndarray
    y: np.ndarray
    subjects: np.ndarray
    sessions: np.ndarray
    sfreq: float
    band: tuple[float, float]

    def at(self, mask: np.ndarray) -> Set:
        parts = (a[mask] for a in (self.X, self.y, self.subjects, self.sessions))
        return Set(*parts, self.sfreq, self.band)

    @property
    def domains(self) -> dict[str, np.ndarray]:
        return {"subjects": self.subjects, "sessions": self.sessions}


def load(name: str, **options: Any) -> Set:
    band = options.get("band", (0.0, 0.0))
    with warnings.catch_warnings():
        # ssvep_exo is not in volts, and says so: nothing here depends on the unit.
        warnings.simplefilter("ignore", EEGTensorWarning)
        trials = read_trials(DATA / name, on_bad="warn", **options)
    meta = trials.metadata
    who, when = (meta[c].to_numpy().astype(str) for c in ("subject", "session"))
    y = np.asarray(trials.y).astype(str)
    return Set(np.asarray(trials.X), y, who, when, trials.info["sfreq"], band)


def contaminated(data: Set, kind: str, size: float, seed: int) -> Set:
    """The same trials with one artefact each, filtered as the trials are."""
    rng = np.random.default_rng(seed)
    n, c, t = data.X.shape
    # Of each sitting, not of all: amplifiers and units differ.
    _, who = np.unique(
        np.stack([data.subjects, data.sessions]), axis=1, return_inverse=True
    )
    who = who.ravel()
    scale = np.stack([data.X[who == d].std(axis=(0, 2)) for d in range(who.max() + 1)])
    time_ = np.arange(t) / data.sfreq
    added = np.zeros((n, c, t))
    for i in range(n):
        start = rng.uniform(0.1, time_[-1] - 1.2)
        if kind == "blink":
            # A half sine of .3 s, from one end of the cap to the other.
            wave = np.where(
                (time_ >= start) & (time_ < start + 0.3),
                np.sin(np.pi * (time_ - start) / 0.3),
                0.0,
            )
            added[i] = np.linspace(1.0, 0.3, c)[:, None] * wave
        elif kind == "muscle":
            # A second of broadband noise on a third of the channels.
            burst = rng.standard_normal((c, t))
            burst *= (time_ >= start) & (time_ < start + 1.0)
            burst[rng.permutation(c)[max(1, c // 3) :]] = 0.0
            added[i] = burst
        else:
            # A step that decays with .2 s on one channel.
            late = np.maximum(time_ - start, 0.0)
            wave = np.where(time_ >= start, np.exp(-late / 0.2), 0.0)
            added[i, rng.integers(c)] = rng.choice((-1.0, 1.0)) * wave
    low, high = data.band
    sos = butter(4, (low, high), "bandpass", fs=data.sfreq, output="sos")
    added = sosfiltfilt(sos, added * size, axis=-1) * scale[who][:, :, None]
    return data._replace(X=data.X + added.astype(data.X.dtype))


def decoder(kind: str, epochs: int, seed: int) -> Any:
    if kind == "tangent":
        return make_pipeline("tangent-space", align="riemann")
    return make_pipeline("tsmnet", epochs=epochs, random_state=seed)


def seen(model: Any, data: Set) -> Evidence:
    return evidence(model, data.X, **data.domains)


def halves(people: np.ndarray, seed: int) -> list[np.ndarray]:
    names = np.random.default_rng(seed).permutation(np.unique(people))
    return [np.isin(people, part) for part in np.array_split(names, 2)]


class Case(NamedTuple):
    """Evidence of a fold: of the sources, of familiar and of novel trials."""

    source: Evidence
    y: np.ndarray
    familiar: Evidence
    novel: dict[str, tuple[Evidence, np.ndarray]]
    people: np.ndarray


def joined(parts: list[Evidence]) -> Evidence:
    names = ("logits", "features", "signals", "matrices")
    columns = {name: [getattr(e, name) for e in parts] for name in names}
    held = {n: np.concatenate(c) for n, c in columns.items() if c[0] is not None}
    return Evidence(**held)


def artefact_case(model: Any, source: Set, target: Set, seed: int, sizes: Any) -> Case:
    model.fit(source.X, source.y, **source.domains)
    model.adapt(target.X, **target.domains)
    novel = {}
    for factor in sizes:
        found = [
            seen(model, contaminated(target, kind, size * factor, seed))
            for kind, size in ARTEFACTS.items()
        ]
        who = np.tile(target.subjects, len(found))
        novel[f"any artefact x{factor:g}"] = (joined(found), who)
        if factor == 1.0:
            pairs = zip(ARTEFACTS, found, strict=True)
            novel |= {kind: (e, target.subjects) for kind, e in pairs}
    return Case(
        seen(model, source), source.y, seen(model, target), novel, target.subjects
    )


def class_case(model: Any, source: Set, target: Set, left: str) -> Case:
    known, new = source.at(source.y != left), target.y == left
    model.fit(known.X, known.y, **known.domains)
    familiar, other = target.at(~new), target.at(new)
    # A new person shows the classes asked for; the other comes afterwards.
    model.adapt(familiar.X, **familiar.domains)
    novel = {"unseen class": (seen(model, other), other.subjects)}
    return Case(
        seen(model, known), known.y, seen(model, familiar), novel, familiar.subjects
    )


def person_case(model: Any, source: Set, target: Set, seed: int) -> Case:
    """Held-out trials of known people, against people never adapted to."""
    held = np.random.default_rng(seed).random(len(source.y)) < 0.25
    known, familiar = source.at(~held), source.at(held)
    model.fit(known.X, known.y, **known.domains)
    novel = {"unseen person": (seen(model, target), target.subjects)}
    return Case(
        seen(model, known), known.y, seen(model, familiar), novel, familiar.subjects
    )


def device_case(model: Any, source: Set, target: Set, other: Set) -> Case:
    """Nobody is adapted to: new people on the same device against another one."""
    model.fit(source.X, source.y, **source.domains)
    novel = {"unseen device": (seen(model, other), other.subjects)}
    return Case(
        seen(model, source), source.y, seen(model, target), novel, target.subjects
    )


def scored(case: Case, spec: str) -> dict[str, tuple[np.ndarray, ...]]:
    """Familiar and novel scores, and whose they are, of each kind of novelty."""
    scorer = make_scorer(spec).fit(case.source, case.y)
    a = scorer.score_samples(case.familiar)
    return {
        name: (a, scorer.score_samples(e), case.people, who)
        for name, (e, who) in case.novel.items()
    }


def scored_together(cases: list[Case], spec: str) -> dict[str, tuple[np.ndarray, ...]]:
    one = cases[0]
    both = ModeEnsemble(spec).fit([c.source for c in cases], one.y)
    a = both.score_samples([c.familiar for c in cases])
    return {
        name: (
            a,
            both.score_samples([c.novel[name][0] for c in cases]),
            one.people,
            who,
        )
        for name, (_, who) in one.novel.items()
    }


class Table:
    """Scores of folds, by set, decoder, kind of novelty and scorer."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, ...], list[tuple[np.ndarray, ...]]] = {}
        self.inner: dict[tuple[str, ...], list[float]] = {}

    def add(self, where: tuple[str, str], spec: str, found: dict[str, Any]) -> None:
        for name, row in found.items():
            self.rows.setdefault((*where, name, spec), []).append(row)

    def measured(
        self, key: tuple[str, ...], draws: int = 200
    ) -> dict[str, list[float]]:
        """Mean over folds of both measures, and percentiles over draws of people."""
        rng, folds = np.random.default_rng(0), self.rows[key]
        result: dict[str, list[float]] = {}
        values = np.array([[auroc(a, b), fpr_at_tpr(a, b)] for a, b, *_ in folds])
        drawn = []
        split = []
        for a, b, who, other in folds:
            names = np.unique(np.r_[who, other])
            split.append([(a[who == n], b[other == n]) for n in names])
        for _ in range(draws):
            one = []
            for people in split:
                part = [people[i] for i in rng.integers(0, len(people), len(people))]
                x, z = (np.concatenate(side) for side in zip(*part, strict=True))
                if len(x) and len(z):
                    one.append((auroc(x, z), fpr_at_tpr(x, z)))
            drawn.append(np.mean(one, axis=0))
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        for k, name in enumerate(("auroc", "fpr95")):
            mean = float(values[:, k].mean())
            result[name] = [round(float(v), 3) for v in (mean, low[k], high[k])]
        return result


def default_of(table: Table) -> str:
    """The score of the least FPR95 on source people, over all that was tried."""
    mean = {
        spec: np.mean([np.mean(v) for k, v in table.inner.items() if k[3] == spec])
        for spec in SCORERS
    }
    print("\nFPR95 on source people, mean over sets, decoders and both kinds:")
    for spec, value in sorted(mean.items(), key=lambda item: item[1]):
        print(f"  {spec:42} {value:.3f}")
    return min(mean, key=mean.__getitem__)


def inner_fpr(kind: str, source: Set, epochs: int, seed: int, left: str | None) -> Any:
    """FPR95 of every scorer on source people: artefacts, or one class held back."""
    train, test = (source.at(m) for m in halves(source.subjects, seed))
    model = decoder(kind, epochs, seed)
    if left is None:
        case = artefact_case(model, train, test, seed, (1.0,))
    else:
        case = class_case(model, train, test, left)
    return {
        spec: float(
            np.mean([fpr_at_tpr(a, b) for a, b, *_ in scored(case, spec).values()])
        )
        for spec in SCORERS
    }


def run(args: argparse.Namespace) -> Table:
    table, wide = (
        Table(),
        {"tmin": 1.0, "tmax": 5.0, "band": (5.0, 45.0), "sfreq": 128.0},
    )
    sets = {
        "ssvep": load("ssvep_exo", **wide),
        "ssvep-lines": load(
            "ssvep_exo",
            tmin=1.0,
            tmax=5.0,
            bands=[(12.5, 13.5), (16.5, 17.5), (20.5, 21.5)],
        ),
        "eegmat": load("eegmat", tmin=0.0, tmax=4.0, band=(4.0, 36.0)),
    }
    plan = {
        "class": [("ssvep-lines", "tangent"), ("ssvep", "tsmnet")],
        "artefact": [("ssvep", "tsmnet"), ("eegmat", "tangent"), ("eegmat", "tsmnet")],
        "person": [("ssvep", "tsmnet"), ("eegmat", "tangent")],
    }
    for what, pairs in plan.items():
        for name, kind in pairs if args.only in (None, what) else ():
            start = time.process_time()
            data = sets[name]
            for half in halves(data.subjects, 0):
                source, target = data.at(~half), data.at(half)
                lefts = sorted(np.unique(data.y)) if what == "class" else [None]
                for left in lefts:
                    cases = []
                    for seed in range(args.seeds):
                        model = decoder(kind, args.epochs, seed)
                        if what == "artefact":
                            sizes = (0.5, 1.0) if name == "ssvep" else (1.0,)
                            cases.append(
                                artefact_case(model, source, target, seed, sizes)
                            )
                        elif what == "class":
                            cases.append(class_case(model, source, target, left))
                        else:
                            cases.append(person_case(model, source, target, seed))
                        for spec in SCORERS:
                            table.add((name, kind), spec, scored(cases[-1], spec))
                        if kind == "tangent" and what == "class":
                            break
                    if kind == "tsmnet" and what != "person" and len(cases) > 1:
                        for spec in ("msp", "energy", "kpca"):
                            found = scored_together(cases, spec)
                            table.add((name, kind), f"modes {spec}", found)
                    if what == "person":
                        continue
                    inside = None if left is None else _other(data.y, left)
                    found = inner_fpr(
                        kind, _without(source, left), args.epochs, 0, inside
                    )
                    for spec, value in found.items():
                        table.inner.setdefault((name, kind, what, spec), []).append(
                            value
                        )
            print(
                f"# {what} {name} {kind}: {time.process_time() - start:.0f} s",
                flush=True,
            )
    if args.only in (None, "device"):
        device(table, args)
    return table


def _other(y: np.ndarray, left: str) -> str:
    classes = sorted(np.unique(y))
    return classes[(classes.index(left) + 1) % len(classes)]


def _without(data: Set, left: str | None) -> Set:
    return data if left is None else data.at(data.y != left)


def device(table: Table, args: argparse.Namespace) -> None:
    """C3, Cz, C4 of EEGMAT (references at the ears) and of BNCI 2b (bipolar)."""
    options: dict[str, Any] = {"tmin": 0.0, "tmax": 4.0, "band": (7.0, 25.0)}
    data = load("eegmat", picks=["C3", "Cz", "C4"], **options)
    other = load("bnci_iv_2b", picks=["C3", "Cz", "C4"], **options)
    other = other.at(np.random.default_rng(0).permutation(len(other.y))[:600])
    X = resample_poly(other.X, 1, 2, axis=-1)[..., : data.X.shape[-1]]
    other = other._replace(X=X, sfreq=data.sfreq)
    for half in halves(data.subjects, 0):
        model = decoder("tangent", args.epochs, 0)
        case = device_case(model, data.at(~half), data.at(half), other)
        for spec in SCORERS:
            table.add(("eegmat", "tangent"), spec, scored(case, spec))


def report(table: Table, out: Path | None) -> None:
    lines = []
    default = default_of(table) if table.inner else None
    heads = dict.fromkeys(key[:3] for key in table.rows)
    for head in heads:
        print("\n" + " | ".join(head))
        rows = {k[3]: table.measured(k) for k in table.rows if k[:3] == head}
        what = "class" if head[2] == "unseen class" else "artefact"
        inner = {
            k[3]: float(np.mean(v))
            for k, v in table.inner.items()
            if k[:3] == (*head[:2], what)
        }
        if "unseen p" in head[2] or "device" in head[2]:
            inner = {}
        chosen = min(inner, key=inner.__getitem__) if inner else None
        for spec, row in rows.items():
            a, f = row["auroc"], row["fpr95"]
            words = f"  {spec:42} AUROC {a[0]:.3f} [{a[1]:.2f}, {a[2]:.2f}]"
            words += f"  FPR95 {f[0]:.3f} [{f[1]:.2f}, {f[2]:.2f}]"
            if spec in inner:
                words += f"  on source people {inner[spec]:.3f}"
            print(words + ("  <- chosen" if spec == chosen else ""))
            line = {"set": head[0], "decoder": head[1], "novel": head[2], "score": spec}
            lines.append(json.dumps(line | row | {"source": inner.get(spec)}))
        best = min(rows, key=lambda s: rows[s]["fpr95"][0])
        msp = rows["msp"]["fpr95"][0]
        gain = 100 * (msp - rows[best]["fpr95"][0])
        words = f"  best {best}: {gain:+.1f} points of FPR95 below MSP"
        if chosen:
            gain = 100 * (msp - rows[chosen]["fpr95"][0])
            words += f"; chosen {chosen}: {gain:+.1f}"
        if default:
            gain = 100 * (msp - rows[default]["fpr95"][0])
            words += f"; default {default}: {gain:+.1f}"
        print(words)
    if out is not None:
        out.write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--only", choices=["artefact", "class", "person", "device"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    report(run(args), args.out)
    print(f"\n{time.process_time() - start:.0f} CPU seconds")


if __name__ == "__main__":
    main()
