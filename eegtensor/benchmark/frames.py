"""From outcomes of folds to tidy frames of scores and predictions, and patterns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eegtensor.benchmark.fold import Labels, Outcome
from eegtensor.benchmark.metrics import (
    CLASSIFICATION,
    REGRESSION,
    classification_scores,
    information_transfer_rate,
    regression_scores,
)
from eegtensor.benchmark.modes import Mode, Part
from eegtensor.benchmark.network_patterns import FoldPatterns
from eegtensor.benchmark.splits import Fold
from eegtensor.models.patterns import ClassPatterns

FIRST_COLUMNS = (
    "dataset",
    "protocol",
    "adapt",
    "pipeline",
    "subject",
    "session",
    "n_trials",
    *CLASSIFICATION,
    "seconds_fit",
    "seconds_predict",
    "transductive",
)


@dataclass(frozen=True)
class Finished:
    """One pipeline, fold and mode with its outcome."""

    pipeline: str
    fold: Fold
    mode: Mode
    parts: list[Part]
    outcome: Outcome


@dataclass(frozen=True)
class Setting:
    """What all rows share."""

    protocol: str
    seed: int
    trial_seconds: float
    labels: Labels

    @property
    def continuous(self) -> bool:
        """Whether targets are continuous."""
        return not self.labels.classes


def score_rows(done: Finished, setting: Setting) -> list[dict[str, Any]]:
    """Return one row of scores for every held-out session of a finished fold."""
    rows = []
    outcome, mode = done.outcome, done.mode
    for i, (part, rows_of) in enumerate(_rows_of_parts(done.parts)):
        here = outcome.trials[rows_of]
        is_scored = np.isin(here, part.scored)
        is_common = np.isin(here, part.common)
        # Trials whose labels were used cannot be scored, so neither can the set.
        spoilt = mode.labelled and bool(np.isin(part.adapt, part.common).any())
        scores = _scores(outcome, rows_of[is_scored], setting)
        common = _scores(outcome, rows_of[is_common & (not spoilt)], setting)
        y_adapt = setting.labels.y[part.adapt]
        one_class = bool(len(y_adapt)) and len(np.unique(y_adapt)) == 1
        row: dict[str, Any] = {
            "dataset": part.domain.dataset,
            "protocol": setting.protocol,
            "adapt": mode.name,
            "pipeline": done.pipeline,
            "subject": part.domain.subject,
            "session": part.domain.session,
            "n_trials": len(part.scored),
            # Present for continuous targets too: the first columns are a contract.
            **dict.fromkeys(CLASSIFICATION, float("nan")),
            **{name: v for name, v in scores.items() if name in CLASSIFICATION},
            "seconds_fit": outcome.seconds_fit,
            "seconds_predict": float(outcome.seconds_predict[i]),
            # By mode, also where the estimator could not adapt (column adapted).
            "transductive": mode.transductive,
            "itr": information_transfer_rate(
                scores.get("accuracy", float("nan")),
                len(setting.labels.classes),
                setting.trial_seconds,
            ),
            **{name: v for name, v in scores.items() if name in REGRESSION},
            "n_source": outcome.n_source,
            "n_adapt": len(part.scored) if mode.online else len(part.adapt),
            "seconds_adapt": float(outcome.seconds_adapt[i]),
            "part": mode.part,
            "sees": mode.sees,
            "adapted": bool(outcome.adapted[i]),
            "one_class_part": one_class and not setting.continuous,
            "fold": done.fold.index,
            "seed": setting.seed,
            "n_trials_common": 0 if spoilt else len(part.common),
            "transductive_common": bool(np.isin(part.adapt, part.common).any())
            and not spoilt,
            **{f"{name}_common": value for name, value in common.items()},
        }
        rows.append(row)
    return rows


def prediction_frame(done: Finished, setting: Setting) -> pd.DataFrame:
    """Return one row for every scored trial of a finished fold."""
    outcome, labels = done.outcome, setting.labels
    frames = []
    for part, rows_of in _rows_of_parts(done.parts):
        # `Part.predicted` begins with the scored trials.
        rows = rows_of[: len(part.scored)]
        trials = outcome.trials[rows]
        columns: dict[str, Any] = {
            "dataset": part.domain.dataset,
            "protocol": setting.protocol,
            "adapt": done.mode.name,
            "pipeline": done.pipeline,
            "subject": part.domain.subject,
            "session": part.domain.session,
            "trial": trials,
            "fold": done.fold.index,
            "y_true": labels.y[trials],
            "y_pred": outcome.y_pred[rows]
            if setting.continuous
            else np.asarray(labels.classes)[outcome.y_pred[rows]],
            "common": np.isin(trials, part.common),
        }
        for k, name in enumerate(labels.classes):
            columns[f"p:{name}"] = (
                np.full(len(rows), np.nan)
                if outcome.probabilities is None
                else outcome.probabilities[rows, k]
            )
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def make_frames(
    finished: list[Finished], setting: Setting
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the frames of scores and of predictions."""
    rows = [row for done in finished for row in score_rows(done, setting)]
    frames = [prediction_frame(done, setting) for done in finished]
    return pd.DataFrame(rows), pd.concat(frames, ignore_index=True)


def patterns_by_pipeline(finished: list[Finished]) -> dict[str, list[FoldPatterns]]:
    """Return what the network of each fold looks at, once for all modes."""
    found: dict[tuple[str, int], FoldPatterns] = {}
    for done in finished:
        P, C = done.outcome.matrices, done.outcome.covariance
        if P is not None and C is not None:
            patterns = FoldPatterns(done.fold.test, ClassPatterns(P, C))
            found.setdefault((done.pipeline, done.fold.index), patterns)
    by_name: dict[str, list[FoldPatterns]] = {}
    for (name, _), patterns in found.items():
        by_name.setdefault(name, []).append(patterns)
    return by_name


def _rows_of_parts(parts: list[Part]) -> list[tuple[Part, NDArray[np.int64]]]:
    """Return each part with the rows that it has in an outcome's arrays."""
    stops = np.cumsum([len(part.predicted) for part in parts])
    return [
        (part, np.arange(stop - len(part.predicted), stop))
        for part, stop in zip(parts, stops, strict=True)
    ]


def _scores(outcome: Outcome, rows: NDArray, setting: Setting) -> Mapping[str, float]:
    y_true = setting.labels.y[outcome.trials[rows]]
    y_pred = outcome.y_pred[rows]
    if setting.continuous:
        return regression_scores(y_true, y_pred)
    classes = np.asarray(setting.labels.classes)
    return classification_scores(
        np.searchsorted(classes, y_true),
        y_pred,
        None if outcome.probabilities is None else outcome.probabilities[rows],
        None if outcome.decision is None else outcome.decision[rows],
        len(classes),
    )
