"""What the report says: sentences and HTML tables computed from the results."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from eegtensor.benchmark.figures import metric_name
from eegtensor.benchmark.figures_scores import (
    gains,
    modes_of,
    pipelines_of,
    shared_metric,
)
from eegtensor.benchmark.metrics import LOWER_IS_BETTER
from eegtensor.benchmark.modes import parse_mode
from eegtensor.benchmark.results import Results
from eegtensor.benchmark.tables import METHOD, PERSON

_PROTOCOLS = {
    "leave-one-subject-out": "each person was decoded by what was learned from all "
    "the others",
    "leave-one-session-out": "each session of a person was decoded by what was "
    "learned from that person's other sessions",
    "within-session": "each session was divided into folds, and decoded by what was "
    "learned from its other folds",
    "cross-dataset": "people of one dataset were decoded by what was learned from "
    "another",
}


def text(value: Any) -> str:
    """Return a value as HTML text."""
    return html.escape(str(value), quote=True)


def number(value: float, digits: int = 3) -> str:
    """Return a number for a table, a dash where it is unknown."""
    if value is None or not np.isfinite(value):
        return "\u2013"
    return f"{value:.{digits}f}".replace("-", "\u2212")


def joined(items: Iterable[Any]) -> str:
    """Return "a, b and c"."""
    words = [str(item) for item in items]
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + " and " + words[-1]


def several(count: int, noun: str) -> str:
    """Return "1 session", "2 sessions", "2 people"."""
    if noun == "person":
        return f"{count:,} " + ("person" if count == 1 else "people")
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{count:,} {noun if count == 1 else plural}"


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


def describe_data(results: Results) -> str:
    """Return a paragraph: whose data, which classes, what chance is."""
    config, scores = results.config, results.scores
    rows = scores[["dataset", "subject", "session"]].drop_duplicates()
    n_people = len(rows[PERSON].drop_duplicates())
    datasets = [d for d in rows["dataset"].unique() if d]
    source = f" ({joined(map(text, datasets))})" if datasets else ""
    words = (
        f"<b>{several(n_people, 'person')}</b>{source}, "
        f"{several(len(rows), 'session')}, {several(config['n_trials'], 'trial')} of "
        f"{config['n_times'] / config['sfreq']:.3g} s from {config['tmin']:g} s, "
        f"{several(config['n_channels'], 'channel')} at {config['sfreq']:g} Hz."
    )
    classes = config["classes"]
    if not classes:
        return (
            f"{words} The target is continuous ({text(config.get('target') or 'y')})."
        )
    chance = 1 / len(classes)
    return (
        f"{words} {several(len(classes), 'class').capitalize()}: "
        f"{joined(map(text, classes))}; guessing gives {chance:.3g} balanced accuracy."
    )


def describe_protocol(results: Results) -> str:
    """Return a paragraph: how people were divided, and what adaptation saw."""
    protocol = str(results.config["protocol"])
    division = _PROTOCOLS.get(
        protocol,
        "groups of people were decoded by what was learned from all the others",
    )
    words = [f"<b>{text(protocol)}</b>: {division}."]
    for mode in modes_of(results):
        words.append(f"<b>{text(mode)}</b>: {describe_mode(mode)}.")
    unadapted = results.scores.loc[~results.scores["adapted"]]
    for name, mode in unadapted[["pipeline", "adapt"]].drop_duplicates().to_numpy():
        if parse_mode(mode).adapts:
            words.append(
                f"{text(name)} cannot adapt: its {text(mode)} rows are un-adapted."
            )
    return " ".join(words)


def describe_mode(name: str) -> str:
    """Return what a mode of adaptation saw of the held-out session."""
    mode = parse_mode(name)
    if mode.transductive:
        return (
            "transductive: the statistics come from the very trials that are scored, "
            "without their labels"
        )
    if mode.online:
        return (
            "trial by trial: each trial updates the decoder without its label, then "
            "is predicted"
        )
    if mode.labelled:
        share = f"{mode.percent} %" if mode.percent else f"{mode.per_class} a class"
        which = "randomly drawn" if mode.part == "random" else "first"
        return (
            f"calibrated on the {which} trials ({share}) with their labels, which "
            "are not scored"
        )
    if mode.adapts and mode.part == "random":
        return (
            f"the statistics come from a random {mode.percent} % of the session's "
            "trials, without labels; the rest is scored"
        )
    if mode.adapts:
        return (
            f"only earlier trials: the statistics come from the first {mode.percent} "
            "% of the session, without labels; the rest is scored"
        )
    alone = ", each trial predicted alone" if mode.trialwise else ""
    return f"no adaptation: the decoder saw nothing of the held-out session{alone}"


def headline(results: Results) -> str:
    """Return the main finding in one sentence."""
    metric = shared_metric(results)
    table = results.table(metric)
    lower = metric.removesuffix("_common") in LOWER_IS_BETTER
    values = table[metric].astype(float)
    if not values.notna().any():
        return f"No {metric_name(metric)} could be computed"
    best = values.idxmin() if lower else values.idxmax()
    name, mode = best  # type: ignore[misc]
    row = table.loc[best]
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    interval = ""
    if np.isfinite(low):
        interval = f" (95 % interval over people {number(low)} to {number(high)})"
    shared = (
        ", on the trials that all modes score" if metric.endswith("_common") else ""
    )
    return (
        f"Best: {text(name)} with adaptation {text(mode)}, {metric_name(metric)} "
        f"{number(row[metric])}{interval}{shared}"
    )


def gain_sentence(results: Results) -> str:
    """Return how many people gain from the first to the last mode, by pipeline."""
    modes, parts = modes_of(results), []
    for name, change in gains(results).items():
        known = change.dropna()
        people = several(len(known), "person") + " gain" if not parts else len(known)
        parts.append(f"{int((known > 0).sum())} of {people} with {text(name)}")
    return f"From {text(modes[0])} to {text(modes[-1])}, {joined(parts)}"


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
    for (name, mode), row in table.iterrows():  # type: ignore[misc]
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


def ranking_sentence(results: Results) -> str:
    """Return who comes first, by how much, and whether that is more than chance."""
    metric = shared_metric(results)
    lower = metric.removesuffix("_common") in LOWER_IS_BETTER
    order = results.table(metric)[metric].dropna().sort_values(ascending=lower)
    if len(order) < 2:
        return "There is one decoder, and nothing to compare it with"
    first, second = (f"{name} ({mode})" for name, mode in order.index[:2])  # type: ignore[misc]
    gap = abs(float(order.iloc[0] - order.iloc[1]))
    if gap < 5e-4:
        return f"{text(first)} and {text(second)} come first, level"
    table = comparisons(results)
    pair = table[table["better"].isin([first, second])]
    pair = pair[pair["other"].isin([first, second])].iloc[0]
    return (
        f"{text(first)} comes first, {gap:.3f} from {text(second)} "
        f"(corrected p {pair['p_corrected']:.2g})"
    )


def comparisons(results: Results) -> pd.DataFrame:
    """Return paired tests of the score that is ranked, all on the same trials."""
    return results.compare(shared_metric(results))


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


def comparison_words(results: Results) -> str:
    """Return what was tested, and the smallest p that so many people can give."""
    table = comparisons(results)
    n_people = int(table["n_people"].max())
    smallest = float(table["p_smallest"].min())
    clear = int((table["p_corrected"] <= 0.05).sum())
    words = (
        f"{clear} of {several(len(table), 'pair')} differ at a corrected p of 0.05. "
        "Signs of people's differences are flipped (two-sided); p corrected allows for "
        "all pairs through the largest statistic. "
        f"With {several(n_people, 'person')} no p can be below {smallest:.3g}"
    )
    if smallest > 0.05:
        words += ", so no difference, however large, can reach 0.05"
    return words + "."


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
        for (name, mode), row in means.iterrows()  # type: ignore[misc]
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


def how_to_reproduce(results: Results) -> str:
    """Return the command, or the Python call, that makes these results again."""
    config = results.config
    if config.get("command"):
        return f"<pre>{text(config['command'])}</pre>"
    call = (
        f"result = et.benchmark(\n    trials, {pipelines_of(results)!r},\n"
        f"    protocol={config['protocol']!r}, adapt={modes_of(results)!r}, "
        f"random_state={config['seed']},\n)"
    )
    lines = [
        "import eegtensor as et",
        f"# trials.digest == {config['data_digest']!r}",
        "# names stand for the pipelines with the parameters below",
        call,
    ]
    return f"<pre>{text(chr(10).join(lines))}</pre>"


def flagged_parts(results: Results) -> str:
    """Return a sentence about parts of one class only; empty where there are none."""
    scores: pd.DataFrame = results.scores
    flagged = scores[scores["one_class_part"]]
    if not len(flagged):
        return ""
    sessions = flagged[["dataset", "subject", "session", "adapt"]].drop_duplicates()
    return (
        f"In {several(len(sessions), 'session')} the part adapted on held one class "
        f"only (modes {joined(map(text, flagged['adapt'].unique()))}): a random part, "
        "as 20%-random, would mix the classes."
    )
