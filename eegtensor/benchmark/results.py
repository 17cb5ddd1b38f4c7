"""`Results`: scores, predictions and configuration of one benchmark."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eegtensor._check import fail
from eegtensor.benchmark.network_patterns import FoldPatterns
from eegtensor.benchmark.tables import comparison_table, per_person, summary_table
from eegtensor.store import replace_text
from eegtensor.trials import Trials

if TYPE_CHECKING:
    from eegtensor.benchmark.trustrecord import TrustCard

_TEXT = (
    "dataset",
    "protocol",
    "adapt",
    "pipeline",
    "subject",
    "session",
    "part",
    "sees",
)
_FLAGS = ("transductive", "transductive_common", "adapted", "one_class_part", "common")


class Results:
    """What a benchmark found.

    Parameters
    ----------
    scores, predictions : DataFrame
    config : dict
    trials : Trials | None
    patterns : mapping of str to sequence of FoldPatterns | None

    Attributes
    ----------
    scores : DataFrame
        One row a (pipeline, adapt, held-out session, fold): dataset, protocol,
        adapt, pipeline, subject, session, n_trials, balanced_accuracy,
        accuracy, roc_auc, kappa, ece, seconds_fit, seconds_predict (a trial),
        transductive; then itr (bits a minute) and how the row came about.
        Columns ``*_common`` are scored on the last half of the session.
    predictions : DataFrame
        One row a scored trial, pipeline and mode; ``p:<class>`` columns hold
        probabilities, `trial` the index in the benchmarked trials.
    config : dict
        Protocol, modes, pipelines, data digest, versions, seed and date.
    trials : Trials | None
        The benchmarked trials; not saved.
    patterns : dict of str to list of FoldPatterns
        What the network of each fold looks at, for pipelines that say; not
        saved.
    """

    def __init__(
        self,
        scores: pd.DataFrame,
        predictions: pd.DataFrame,
        config: dict[str, Any],
        *,
        trials: Trials | None = None,
        patterns: Mapping[str, Sequence[FoldPatterns]] | None = None,
    ) -> None:
        self.scores = scores
        self.predictions = predictions
        self.config = config
        self.trials = trials
        self.patterns = {name: list(found) for name, found in (patterns or {}).items()}

    @property
    def metric(self) -> str:
        """The first score: balanced accuracy, or R2 for continuous targets."""
        return "balanced_accuracy" if self.config["classes"] else "r2"

    def per_person(self, metric: str | None = None) -> pd.DataFrame:
        """Return one row a person, one column a (pipeline, adapt)."""
        return per_person(self.scores, metric or self.metric)

    def table(self, metrics: str | Sequence[str] | None = None) -> pd.DataFrame:
        """Return means over people with intervals that resample people.

        Parameters
        ----------
        metrics : str | sequence of str | None
            Columns of `scores`; by default balanced accuracy and ROC-AUC, or R2
            and the mean absolute error.

        Returns
        -------
        DataFrame
            Indexed by (pipeline, adapt): transductive ("yes": adaptation saw
            the scored trials), n_people, and for every metric its mean over
            people (a person's sessions are averaged first), ``_low`` and
            ``_high`` of a 95 % BCa bootstrap interval, and ``_chance``.
        """
        if metrics is None:
            second = "roc_auc" if self.config["classes"] else "mae"
            metrics = [self.metric, second]
        chosen = [metrics] if isinstance(metrics, str) else list(metrics)
        n_classes = len(self.config["classes"])
        return summary_table(self.scores, chosen, n_classes, seed=self.config["seed"])

    def compare(self, metric: str | None = None) -> pd.DataFrame:
        """Return paired permutation tests between all (pipeline, adapt).

        Signs of people's differences are flipped, all 2^n ways up to 14 people;
        p_corrected is corrected over all pairs by the maximum statistic, and
        p_smallest says what p so many people can give at best (five: 0.0625).

        Parameters
        ----------
        metric : str | None
            A column of `scores`, by default balanced accuracy or R2.
        """
        return comparison_table(
            self.scores, metric or self.metric, seed=self.config["seed"]
        )

    def report(
        self, path: str | os.PathLike, *, trust: TrustCard | None = None
    ) -> Path:
        """Write one self-contained HTML file and return its path.

        Parameters
        ----------
        path : path-like
        trust : TrustCard | None
            Of `trust_card`, for a section on what can be relied on.
        """
        # The report draws pictures, which scores alone do not need.
        from eegtensor.benchmark.report import write_report

        return Path(write_report(self, path, trust=trust))

    def save(self, path: str | os.PathLike) -> Path:
        """Write scores.csv, predictions.csv and config.json, and Parquet if it can.

        Parameters
        ----------
        path : path-like
            Folder; made when missing, files of an earlier run are replaced.

        Raises
        ------
        EEGTensorError
            If the path is a file or cannot be written.
        """
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            fail(f"{folder} is a file", fix="name a folder for the results")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("scores", "predictions"):
                frame: pd.DataFrame = getattr(self, name)
                replace_text(folder / f"{name}.csv", frame.to_csv(index=False))
                parquet = folder / f"{name}.parquet"
                # That of an earlier run must not stay beside the new CSV.
                parquet.unlink(missing_ok=True)
                if importlib.util.find_spec("pyarrow") is not None:
                    frame.to_parquet(parquet, index=False)
            replace_text(folder / "config.json", json.dumps(self.config, indent=1))
        except OSError as error:
            fail(
                f"The results cannot be written to {folder}: {error}",
                fix="name a folder that can be written",
                cause=error,
            )
        return folder

    @classmethod
    def load(cls, path: str | os.PathLike) -> Results:
        """Read saved results; `trials` is None.

        Raises
        ------
        EEGTensorError
            If a file is missing or damaged.
        """
        folder = Path(path)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            continuous = not config["classes"]
            scores = _read(folder / "scores.csv", continuous)
            predictions = _read(folder / "predictions.csv", continuous)
        except FileNotFoundError as error:
            fail(
                f"{folder} holds no saved results: {error.filename} is missing",
                fix="name the folder given to Results.save or `--out`",
                cause=error,
            )
        except (ValueError, KeyError, TypeError) as error:
            fail(
                f"The results in {folder} are damaged: {error}",
                fix="run the benchmark again",
                cause=error,
            )
        return cls(scores, predictions, config)

    def __repr__(self) -> str:
        pipelines = listing_of(self.scores["pipeline"])
        modes = listing_of(self.scores["adapt"])
        people = self.scores[["dataset", "subject"]].drop_duplicates()
        means = self.per_person().mean().dropna()
        best = ""
        if len(means):
            name, mode = means.index[int(np.argmax(means.to_numpy()))]
            best = f"; best {self.metric} {means.max():.3f}: {name} ({mode})"
        return (
            f"<Results | {self.config['protocol']}, {len(people)} people, pipelines "
            f"{pipelines}, adapt {modes}{best}>"
        )

    def __str__(self) -> str:
        table = self.table()
        first = f"{self.metric}_chance"
        chance = f", chance {table[first].iloc[0]:.3g}" if first in table else ""
        head = (
            f"{self.config['protocol']}: mean over people [95 % interval]{chance}; "
            "transductive: adaptation saw the scored trials"
        )
        return f"{head}\n{table}"


def listing_of(column: pd.Series) -> str:
    """Return a column's distinct values joined by commas."""
    return ", ".join(dict.fromkeys(column.astype(str)))


def _read(path: Path, continuous: bool) -> pd.DataFrame:
    """Read a frame back with the types it had: "" and "NA" are names of people."""
    # pandas would read person "007" as 7 and class "NA" as missing.
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    labels = () if continuous else ("y_true", "y_pred")
    for name in frame.columns:
        if name in (*_TEXT, *labels):
            continue
        text = frame[name].to_numpy(dtype=str)
        if name in _FLAGS:
            frame[name] = text == "True"
            continue
        try:
            frame[name] = text.astype(np.int64)
        except ValueError:
            frame[name] = np.where(text == "", "nan", text).astype(np.float64)
    return frame
