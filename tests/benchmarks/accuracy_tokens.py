"""Does pre-training pay? Few labels, people never seen: tokens against tangent space.

People are left out in groups. Of the others all trials are there without labels (for
the tokenizer, the pre-training, and every domain's scale, mean and covariance), and
the labels of so many trials of each class, drawn at random from all of them together.
Every person left out is adapted to with all of its unlabelled trials and none of its
labels, and never trained on. Three rows get the same trials: pre-trained tokens
(probe and fine-tuned), the same network from random weights, and tangent space with OAS
covariances, recentred by domain, and logistic regression, whose C is chosen by
cross-validation over the labelled trials, as that of a probe is. Balanced accuracy, its
mean over people and draws, and an interval from a bootstrap over people::

    OMP_NUM_THREADS=1 python tests/benchmarks/accuracy_tokens.py \
        --data ../shared/data --out tokens.jsonl --cache FOLDER

One JSON line a fold, draw and row; lines in the file are skipped.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _tensor_data import Data
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

from eegtensor.domains import domain_names, encode_domains
from eegtensor.tokens import EEGTokenizer, Tokens
from eegtensor.tokens._signals import read_signals
from eegtensor.tokens._trials import learn_scales, tokenise
from eegtensor.tokens.classifier import TokenClassifier
from eegtensor.tokens.pretrain import MaskedTokenModel

# Groups of people left out: one person at a time where that can be paid for.
GROUPS = {"eegmat": 6, "ssvep_exo": 8}
# About as many steps for each set, whose people have unlike numbers of tokens.
EPOCHS = {"eegmat": 8, "ssvep_exo": 20}
LABELS = (5, 10, 20)
# Unlabelled trials of a source domain that its statistics are fitted on.
STATISTICS = 20
KEY = ("set", "out", "labels", "draw", "row")
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class Fold:
    """One group of people left out, and what is learned without labels."""

    def __init__(self, data: Data, group: int, cache: Path) -> None:
        self.data, self.group = data, group
        self.out = np.isin(data.subjects, data.groups[group])
        self.left = "-".join(str(person) for person in data.groups[group])
        self.cache = cache / f"tokens_{data.name}_{self.left}"
        self._tokens: Tokens | None = None

    def learn(self) -> tuple[EEGTokenizer, MaskedTokenModel, Tokens]:
        data, source = self.data, ~self.out
        signals = read_signals(
            np.asarray(data.X, dtype=np.float64), data.sfreq, tuple(data.channels)
        )
        names = domain_names(len(data.X), data.subjects, data.sessions)
        scales = learn_scales(signals, names)
        files = [self.cache.with_suffix(s) for s in (".tokenizer", ".model")]
        if not files[1].exists():
            start = time.process_time()
            codes = encode_domains(names).codes
            own = np.unique(codes[source])
            recordings = [signals.X[codes == k] for k in own]
            tokenizer = EEGTokenizer(n_states=256)
            tokenizer.fit(recordings, sfreq=data.sfreq, ch_names=data.channels)
            tokenizer.save(files[0])
            tokens = tokenise(tokenizer, signals, names, scales)
            model = MaskedTokenModel(
                depth=2,
                n_frames=4,
                epochs=EPOCHS[data.name],
                batch_size=8,
                lr=2e-3,
                dropout=0.1,
            ).fit(part(tokens, source), tokenizer=tokenizer)
            assert model.n_code_features_ is not None
            model.save(files[1])
            print(
                f"  {data.name} group {self.group}: {model.scores_}, "
                f"{time.process_time() - start:.0f} CPU s",
                flush=True,
            )
        tokenizer = EEGTokenizer.load(files[0])
        model = MaskedTokenModel.load(files[1])
        if self._tokens is None:
            self._tokens = tokenise(tokenizer, signals, names, scales)
        return tokenizer, model, self._tokens

    def draw(self, n: int, seed: int) -> np.ndarray:
        """Return which source trials have labels, n of each class."""
        rng = np.random.default_rng([self.group, n, seed])
        known = np.zeros(len(self.data.y), dtype=bool)
        for name in np.unique(self.data.y):
            rows = np.flatnonzero((self.data.y == name) & ~self.out)
            known[rng.choice(rows, n, replace=False)] = True
        return known

    def predict(self, row: str, known: np.ndarray, seed: int) -> np.ndarray:
        """Return predictions of all trials; those of the people left out count."""
        data = self.data
        if row == "tangent":
            T = data.tangents(bank=False)
            T = StandardScaler().fit(T[~self.out]).transform(T)
            fitted = GridSearchCV(
                LogisticRegression(class_weight="balanced", max_iter=2000),
                {"C": STRENGTHS},
                cv=5,
                scoring="neg_log_loss",
            ).fit(T[known], data.y[known])
            return np.asarray(fitted.predict(T))
        _, model, tokens = self.learn()
        rng = np.random.default_rng(seed)
        rank = rng.random(len(known))
        kept = known.copy()
        for name in np.unique(data.subjects[~self.out]):
            for session in np.unique(data.sessions[data.subjects == name]):
                here = (data.subjects == name) & (data.sessions == session)
                rows = np.flatnonzero(here)
                kept[rows[np.argsort(rank[rows])[:STATISTICS]]] = True
        kept &= ~self.out
        clf = TokenClassifier(None, model, mode=row, random_state=seed)
        clf.fit(
            part(tokens, kept),
            data.y[kept],
            subjects=data.subjects[kept],
            sessions=data.sessions[kept],
            labelled=known[kept],
        )
        mine: Any = {
            "subjects": data.subjects[self.out],
            "sessions": data.sessions[self.out],
        }
        found = np.zeros_like(data.y)
        there = part(tokens, self.out)
        found[self.out] = clf.adapt(there, **mine).predict(there, **mine)
        return found


def part(tokens: Tokens, rows: np.ndarray) -> Tokens:
    return replace(tokens, ids=tokens.ids[rows], bits=None)


def report(rows: list[dict[str, Any]]) -> None:
    """Print means and intervals over people, and differences from tangent space."""
    for name in dict.fromkeys(r["set"] for r in rows):
        for n in LABELS:
            found: dict[str, dict[str, list[float]]] = {}
            for r in rows:
                if r["set"] == name and r["labels"] == n:
                    for person, score in r["ba"].items():
                        mine = found.setdefault(r["row"], {})
                        mine.setdefault(person, []).append(score)
            table = {
                row: np.array([np.mean(s[p]) for p in sorted(s)])
                for row, s in found.items()
            }
            words = [f"{row} {interval(v)}" for row, v in table.items()]
            for row, v in table.items():
                for base in ("tangent", "scratch"):
                    if row != base and base in table and len(v) == len(table[base]):
                        if row == "tangent" or (row, base) == ("scratch", "tangent"):
                            continue
                        words.append(f"{row}-{base} {interval(v - table[base])}")
            print(f"{name}, {n} a class: " + "; ".join(words))


def interval(values: np.ndarray) -> str:
    draws = np.random.default_rng(0).integers(len(values), size=(10_000, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(GROUPS), choices=GROUPS)
    parser.add_argument("--mode", nargs="+", default=["probe", "finetune"])
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--groups", type=int, help="of people; else per set")
    args = parser.parse_args()
    torch.set_num_threads(1)
    text = args.out.read_text().splitlines() if args.out.exists() else []
    rows = [json.loads(line) for line in text]
    done = {tuple(r[k] for k in KEY) for r in rows}
    for name in args.sets:
        data = Data(name, args.data, args.cache)
        data.groups = np.array_split(data.people, args.groups or GROUPS[name])
        folds = [Fold(data, k, args.cache) for k in range(len(data.groups))]
        tasks = product(
            range(args.draws), folds, LABELS, ("tangent", *args.mode, "scratch")
        )
        for draw, fold, n, row in tasks:
            key = (name, fold.left, n, draw, row)
            if key in done:
                continue
            start = time.process_time()
            found = fold.predict(row, fold.draw(n, draw), draw)
            here = {str(p): data.subjects == p for p in data.groups[fold.group]}
            ba = {
                p: balanced_accuracy_score(data.y[mine], found[mine])
                for p, mine in here.items()
            }
            rows.append(
                dict(zip(KEY, key, strict=True))
                | {"ba": ba, "cpu": time.process_time() - start}
            )
            with args.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    report(rows)


if __name__ == "__main__":
    main()
