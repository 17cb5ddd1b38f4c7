"""The report's tables as HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from eegtensor.benchmark.figures import metric_name
from eegtensor.benchmark.metrics import LOWER_IS_BETTER
from eegtensor.benchmark.report_words import comparisons, number, several, text
from eegtensor.benchmark.results import Results
from eegtensor.benchmark.tables import METHOD, rows_of


def html_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: int = 99
) -> str:
    """Return a table; cells are HTML already.

    Parameters
    ----------
    head : sequence of str
    rows : iterable of sequences of str
    numeric : int
        Columns from this one on are set to the right.
    """
    sides = [' class="num"' if i >= numeric else "" for i in range(len(head))]
    top = "".join(f"<th{s}>{h}</th>" for h, s in zip(head, sides, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{s}>{c}</td>" for c, s in zip(row, sides, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="et-scroll"><table class="et"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def scores_table(results: Results) -> str:
    """Return means over people with intervals, one row a pipeline and mode."""
    candidates = ("balanced_accuracy", "roc_auc", "kappa", "ece", "itr")
    if not results.config["classes"]:
        candidates = ("r2", "pearson", "mae", "rmse")  # type: ignore[assignment]
    metrics = [m for m in candidates if m in results.scores]
    table = results.table(metrics)
    best = {
        m: table[m].min() if m in LOWER_IS_BETTER else table[m].max() for m in metrics
    }
    rows = []
    for name, mode, row in rows_of(table):
        cells = [text(name), text(mode), text(row["transductive"])]
        cells.append(str(row["n_people"]))
        for metric in metrics:
            digits = 1 if metric == "itr" else 3
            value = number(row[metric], digits)
            if row[metric] == best[metric] and len(table) > 1:
                value = f"<b>{value}</b>"
            low, high = row[f"{metric}_low"], row[f"{metric}_high"]
            if np.isfinite(low):
                value += (
                    f'<span class="soft">[{number(low, digits)}, '
                    f"{number(high, digits)}]</span>"
                )
            cells.append(value)
        rows.append(cells)
    head = ["pipeline", "adaptation", "transductive", "people"]
    head += [text(metric_name(m)) for m in metrics]
    return html_table(head, rows, numeric=3)


def comparison_rows(results: Results, limit: int = 12) -> str:
    """Return the paired tests as a table, those beyond `limit` folded away."""
    rows = [
        [
            text(row["better"]),
            text(row["other"]),
            number(row["difference"]),
            f"[{number(row['low'])}, {number(row['high'])}]",
            f"{row['p']:.2g}",
            f"{row['p_corrected']:.2g}",
            str(row["n_people"]),
        ]
        for row in comparisons(results).to_dict("records")
    ]
    head = ["better", "other", "difference", "95 % interval", "p", "p corrected"]
    head.append("people")
    first = html_table(head, rows[:limit], numeric=2)
    if len(rows) <= limit:
        return first
    rest = html_table(head, rows[limit:], numeric=2)
    more = several(len(rows) - limit, "more pair")
    return f"{first}<details><summary>{more}</summary>{rest}</details>"


def timing_table(results: Results) -> str:
    """Return seconds to fit a fold, and milliseconds to predict a trial."""
    columns = ["seconds_fit", "seconds_predict"]
    means = results.scores.groupby(METHOD, sort=False)[columns].mean()
    rows = [
        [
            text(name),
            text(mode),
            number(row["seconds_fit"]),
            number(1000 * row["seconds_predict"]),
        ]
        for name, mode, row in rows_of(means)
    ]
    head = ["pipeline", "adaptation", "seconds to fit a fold", "ms to predict a trial"]
    return html_table(head, rows, numeric=2)


def config_table(results: Results) -> str:
    """Return the run's full configuration, one row an entry."""
    rows = []
    for key, value in results.config.items():
        if key == "versions":
            shown = text(", ".join(f"{k} {v}" for k, v in value.items()))
        elif key == "pipelines":
            shown = "<br>".join(_pipeline_lines(value))
        elif isinstance(value, str):
            shown = text(value)
        elif isinstance(value, list) and all(isinstance(v, str) for v in value):
            shown = text(", ".join(value)) or "none"
        elif value is None:
            shown = "not given"
        else:
            shown = text(json.dumps(value))
        rows.append([text(key.replace("_", " ")), shown])
    return html_table(["entry", "value"], rows)


def _pipeline_lines(described: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in described.items():
        modes = value if isinstance(value, dict) else {"": value}
        for mode, parameters in modes.items():
            suffix = f" \u00b7 {text(mode)}" if mode else ""
            lines.append(f"<b>{text(name)}{suffix}</b> <code>{text(parameters)}</code>")
    return lines
