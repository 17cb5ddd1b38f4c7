"""What the report says: sentences computed from the results."""

from __future__ import annotations

import html
from collections.abc import Iterable
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
from eegtensor.benchmark.tables import METHOD, PERSON, rows_of

_PROTOCOLS = {
    "leave-one-subject-out": "each person was decoded by what was learned from all "
    "the others",
    "leave-one-session-out": "each session of a person was decoded by what was "
    "learned from that person's other sessions",
    "within-session": "each session was divided into shuffled folds, and decoded by "
    "what was learned from its other folds, which hold trials of the same minutes",
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
    rows = results.scores.assign(left=~results.scores["adapted"])
    counts = rows.groupby(METHOD, sort=False)["left"].agg(["sum", "size"])
    for name, mode, (n_left, n_rows) in rows_of(counts):
        if not n_left or not parse_mode(mode).adapts:
            continue
        if n_left == n_rows:
            words.append(
                f"{text(name)} cannot adapt: its {text(mode)} rows are un-adapted."
            )
        else:
            words.append(
                f"{several(n_left, 'row')} of {text(name)} under {text(mode)} had one "
                "trial to adapt on, or none, and are un-adapted."
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
        if mode.calibrates:
            return (
                f"a few numbers of the fitted decoder are calibrated on the {which} "
                f"trials ({share}) of the session, with their labels; they are not "
                "scored"
            )
        return (
            f"calibrated on the {which} trials ({share}) of every held-out session "
            "together, with their labels; they are not scored"
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
    best = int(np.nanargmin(values) if lower else np.nanargmax(values))
    name, mode, row = rows_of(table)[best]
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
    modes = modes_of(results)
    parts: list[str] = []
    for name, change in gains(results).items():
        known = change.dropna()
        people = several(len(known), "person") + " gain" if not parts else len(known)
        parts.append(f"{int((known > 0).sum())} of {people} with {text(name)}")
    return f"From {text(modes[0])} to {text(modes[-1])}, {joined(parts)}"


def ranking_sentence(results: Results) -> str:
    """Return who comes first, by how much, and whether that is more than chance."""
    metric = shared_metric(results)
    lower = metric.removesuffix("_common") in LOWER_IS_BETTER
    order = results.table(metric)[metric].dropna().sort_values(ascending=lower)
    if len(order) < 2:
        return "There is one decoder, and nothing to compare it with"
    first, second = (f"{n} ({m})" for n, m, _ in rows_of(order.to_frame())[:2])
    gap = abs(float(order.iloc[0] - order.iloc[1]))
    if gap < 5e-4:
        return f"{text(first)} and {text(second)} come first, level"
    # The test leaves out sessions that one of the two lacks, so either may be the
    # better one there.
    table = comparisons(results)
    pair = table[table["better"].isin([first, second])]
    row = pair[pair["other"].isin([first, second])].iloc[0]
    return (
        f"{text(first)} comes first, {gap:.3f} from {text(second)} "
        f"(corrected p {row['p_corrected']:.2g})"
    )


def comparisons(results: Results) -> pd.DataFrame:
    """Return paired tests of the score that is ranked, all on the same trials."""
    return results.compare(shared_metric(results))


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
