"""Tables over people from the frame of scores: means, intervals, paired tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from eegtensor._check import fail, listing
from eegtensor.benchmark.metrics import CHANCE, LOWER_IS_BETTER
from eegtensor.benchmark.modes import parse_mode
from eegtensor.benchmark.statistics import bootstrap_interval, sign_flip_test

PERSON = ["dataset", "subject"]
METHOD = ["pipeline", "adapt"]


class SummaryTable(pd.DataFrame):
    """A frame of means and intervals that prints each with its interval."""

    def __repr__(self) -> str:
        ends = [str(c) for c in self.columns if str(c).endswith("_low")]
        shown = pd.DataFrame(self[["transductive", "n_people"]])
        for metric in (name.removesuffix("_low") for name in ends):
            numbers = self[[metric, f"{metric}_low", f"{metric}_high"]].to_numpy()
            shown[metric] = [
                f"{mean:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low == low else "")
                for mean, low, high in numbers
            ]
        return shown.reset_index().to_string(index=False)

    def __str__(self) -> str:
        return repr(self)


def check_metric(scores: pd.DataFrame, metric: str) -> str:
    """Return a metric's name if the scores have it, else raise naming those."""
    if metric not in scores or scores[metric].dtype.kind != "f":
        numeric = [c for c in scores.columns if scores[c].dtype.kind == "f"]
        fail(
            f"metric={metric!r} is not among the scores",
            fix=f"choose one of {listing(numeric, 40)}",
        )
    return metric


def chance_level(metric: str, n_classes: int) -> float:
    """Return what guessing scores; NaN where that depends on the data.

    Parameters
    ----------
    metric : str
        Its ``_common`` form is read as the metric itself.
    n_classes : int
    """
    name = metric.removesuffix("_common")
    if name == "balanced_accuracy" and n_classes:
        return 1.0 / n_classes
    return CHANCE.get(name, float("nan"))


def per_person(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return one column a (pipeline, adapt), one row a person.

    A person's sessions (and folds) are averaged first; NaN is left out.
    """
    return _wide(scores, metric, PERSON)


def _wide(scores: pd.DataFrame, metric: str, keys: list[str]) -> pd.DataFrame:
    """Return means of a metric: one row for each of `keys`, one column a method."""
    check_metric(scores, metric)
    means = scores.groupby([*keys, *METHOD], sort=False)[metric].mean()
    # unstack sorts; the methods' own order is the order of the report.
    return means.unstack(METHOD).reindex(
        columns=pd.MultiIndex.from_frame(scores[METHOD].drop_duplicates())
    )


def score_the_same(modes: Iterable[str]) -> bool:
    """Return whether modes, by name, score the same trials."""
    return len({parse_mode(mode).keeps_back for mode in modes}) < 2


def summary_table(
    scores: pd.DataFrame, metrics: Sequence[str], n_classes: int, *, seed: int = 0
) -> SummaryTable:
    """Return means over people with 95 % bootstrap intervals.

    Parameters
    ----------
    scores : DataFrame
    metrics : sequence of str
    n_classes : int
    seed : int
        For the bootstrap.

    Returns
    -------
    SummaryTable
        Indexed by (pipeline, adapt): transductive ("yes" or "no"; of ``_common``
        metrics, whether adaptation saw any of the common set), n_people (whose
        first metric is known), and of each metric the mean under its name,
        _low, _high and _chance.
    """
    if not metrics:
        fail("metrics is empty", fix="name at least one column of the scores")
    by_metric = {metric: per_person(scores, metric) for metric in metrics}
    rows: list[dict[str, Any]] = []
    # "80%" scores unseen trials, but half of the common set is not unseen.
    columns = {f"transductive{'_common' * m.endswith('_common')}" for m in metrics}
    seen = scores.groupby(METHOD, sort=False)[sorted(columns)].any().any(axis=1)
    for method in by_metric[metrics[0]].columns:
        row: dict[str, Any] = {
            "pipeline": method[0],
            "adapt": method[1],
            "transductive": "yes" if seen[method] else "no",
            "n_people": int(by_metric[metrics[0]][method].count()),
        }
        for metric, table in by_metric.items():
            values = table[method].to_numpy(dtype=float)
            known = values[np.isfinite(values)]
            low, high = bootstrap_interval(values, seed=seed)
            row[metric] = known.mean() if len(known) else float("nan")
            row[f"{metric}_low"], row[f"{metric}_high"] = low, high
            chance = chance_level(metric, n_classes)
            if np.isfinite(chance):
                row[f"{metric}_chance"] = chance
        rows.append(row)
    return SummaryTable(pd.DataFrame(rows).set_index(METHOD))


def comparison_table(
    scores: pd.DataFrame, metric: str, *, seed: int = 0
) -> pd.DataFrame:
    """Return paired sign-flip tests between all pairs of (pipeline, adapt).

    Pairs whose modes score different trials are compared on the common set
    (column scored_on), where their differences are those of the decoders alone.
    Sessions that only one of the two was scored on (a failed fold, no ROC) are
    left out.

    Parameters
    ----------
    scores : DataFrame
    metric : str
    seed : int

    Returns
    -------
    DataFrame
        better, other, scored_on ("all", "common", or "different" trials where
        the metric has no common form), difference (mean over people, better -
        other), low, high, p, p_corrected (maximum statistic over all pairs),
        p_smallest, n_people; by p.
    """
    keys = [*PERSON, *(key for key in ("session", "fold") if key in scores)]
    here = _wide(scores, metric, keys)
    if here.shape[1] < 2:
        fail(
            "There is one pipeline under one mode, and nothing to compare it with",
            fix="benchmark two pipelines, or one under two modes",
        )
    on_common = f"{metric}_common"
    common = _wide(scores, on_common, keys) if on_common in scores else None
    sign = -1.0 if metric.removesuffix("_common") in LOWER_IS_BETTER else 1.0
    rows, differences = [], []
    methods: list[Any] = here.columns.tolist()
    for a, b in itertools.combinations(methods, 2):
        same = score_the_same([a[1], b[1]])
        table = here if same or common is None else common
        scored_on = "all" if same else "different"
        if table is common or metric.endswith("_common"):
            scored_on = "common"
        paired = (table[a] - table[b]).groupby(level=PERSON, sort=False).mean()
        delta = paired.to_numpy(dtype=float)
        known = delta[np.isfinite(delta)]
        if len(known) and sign * known.mean() < 0:
            a, b, delta, known = b, a, -delta, -known
        low, high = bootstrap_interval(known, seed=seed)
        rows.append(
            {
                "better": _label(a),
                "other": _label(b),
                "scored_on": scored_on,
                "difference": known.mean() if len(known) else float("nan"),
                "low": low,
                "high": high,
            }
        )
        differences.append(delta)
    test = sign_flip_test(np.stack(differences, axis=1), seed=seed)
    frame = pd.DataFrame(rows)
    unknown = test.n_people == 0
    frame["p"] = np.where(unknown, np.nan, test.p)
    frame["p_corrected"] = np.where(unknown, np.nan, test.p_corrected)
    frame["p_smallest"] = test.p_smallest
    frame["n_people"] = test.n_people
    return frame.sort_values("p", kind="stable", ignore_index=True)


def _label(method: tuple[str, str]) -> str:
    return f"{method[0]} ({method[1]})"


def rows_of(table: pd.DataFrame) -> list[tuple[str, str, pd.Series]]:
    """Return (pipeline, adapt, row) for the rows of a table indexed by both."""
    names = [(str(name), str(mode)) for name, mode in table.index.tolist()]
    return [(*names[i], table.iloc[i]) for i in range(len(table))]
