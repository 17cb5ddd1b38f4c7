"""The report's sections on signal space: the map of domains, and patterns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from eegtensor.benchmark.figures import to_svg
from eegtensor.benchmark.figures_maps import (
    MAX_CONTRASTS,
    can_draw_scalp,
    draw_domain_map,
    draw_patterns,
)
from eegtensor.benchmark.maps import Sample, domain_map, sample_covariances
from eegtensor.benchmark.network_patterns import network_patterns
from eegtensor.benchmark.patterns import Pattern, class_patterns
from eegtensor.benchmark.report_words import text
from eegtensor.benchmark.results import Results
from eegtensor.trials import Trials

logger = logging.getLogger("eegtensor")


class Section(NamedTuple):
    """One entry of the report: its name in the index, its HTML."""

    title: str
    body: str


def signal_sections(results: Results) -> list[Section]:
    """Return the map and the patterns, or why they are missing."""
    makers: dict[str, Callable[[Results, Sample], str]] = {
        "Map of domains": _domains,
        "Patterns of the classes": _patterns,
    }
    if results.trials is None:
        why = (
            "<p>The trials are not part of saved results, so this picture is missing. "
            "It is drawn when the report is written by the run itself.</p>"
        )
        return [Section(name, why) for name in makers]
    for name in results.patterns:
        makers[f"What the network looks at: {name}"] = partial(_network, name)
    sections = []
    sample: Sample | None = None
    for title, make in makers.items():
        try:
            if sample is None:
                seed = int(results.config["seed"])
                sample = sample_covariances(results.trials, seed=seed)
            body = make(results, sample)
        except (ValueError, np.linalg.LinAlgError) as error:
            # The scores are worth a report even where the signals are odd.
            logger.warning("the report's section %r is missing: %s", title, error)
            body = f"<p>This picture could not be drawn: {text(error)}</p>"
        sections.append(Section(title, body))
    return sections


def _domains(results: Results, sample: Sample) -> str:
    before, after = domain_map(sample)
    groups = "classes" if sample.values is None else "low and high targets"
    assert results.trials is not None
    words = (
        f"Before recentring {before.between_domains:.0%} of the spread between trials "
        f"is between sessions and people, after it {after.between_domains:.0%}; the "
        f"share between {groups} goes from {before.between_classes:.1%} to "
        f"{after.between_classes:.1%}"
    )
    svg = to_svg(draw_domain_map(sample, before, after), words)
    n_shown, n_all = len(sample.trials), len(results.trials)
    which = (
        f"all {n_all}" if n_shown == n_all else f"{n_shown} of {n_all}, drawn at random"
    )
    reduced = ""
    if sample.basis.shape[1] < sample.basis.shape[0]:
        reduced = (
            f" Covariances are of the {sample.basis.shape[1]} strongest spatial "
            f"components of {sample.basis.shape[0]} channels."
        )
    halves = ""
    if sample.values is not None:
        halves = " Classes are the low and the high half of the target."
    return (
        f"<h4>{words}</h4><p>What to look for: on the left, whether people lie apart, "
        "so that a border between classes drawn for some misses the others; on the "
        "right, whether one border serves all.</p>"
        f"{svg}<p>Each dot is a trial ({which}). Distances approximate the "
        "affine-invariant distance of covariances; both sides have one scale, and "
        "axes of their own: the directions in which the class means of sessions "
        "differ most. Recentring moves every session's mean to one point, with all "
        f"of its trials and no labels.{reduced}{halves}</p>"
    )


def _patterns(results: Results, sample: Sample) -> str:
    assert results.trials is not None
    patterns = class_patterns(sample)
    found = [(pair, p) for pair, row in patterns.items() for p in row]
    if not found:
        return (
            "<p>No person has trials of every class, so classes cannot be compared.</p>"
        )
    (high, low), best = max(found, key=lambda item: abs(item[1].decibel))
    if best.decibel < 0:
        high, low = low, high
    band = f" at {text(best.band)}" if best.band else ""
    words = (
        f"Largest difference: {abs(best.decibel):.1f} dB more power in {text(high)} "
        f"than in {text(low)}{band}"
    )
    if best.n_people:
        words += f", the same sign in {best.n_agree} of {best.n_people} people left out"
    return (
        f"<h4>{words}</h4><p>Each pattern shows how a source whose power differs "
        "between classes reaches the channels, after every session was moved to the "
        "common mean; only relative weights and signs between channels mean "
        "something. The number is its power ratio in all people; below it, the ratio "
        "when it is found without a person and measured on that person, and in how "
        "many people the sign is the same. A source whose sign few people share is "
        "noise. Labels of all people are used: this describes the data and is no "
        f"score.{_drawn(results.trials, patterns, words)}"
    )


def _network(name: str, results: Results, sample: Sample) -> str:
    assert results.trials is not None
    patterns = network_patterns(sample, results.patterns[name])
    found = [(pair, row[0]) for pair, row in patterns.items() if row]
    if not found:
        return (
            "<p>No person has trials of every class, so classes cannot be compared.</p>"
        )
    (high, low), first = max(found, key=lambda item: abs(item[1].decibel))
    if first.decibel < 0:
        high, low = low, high
    band = f" at {text(first.band)}" if first.band else ""
    words = (
        f"A source that {text(name)} looks at has {abs(first.decibel):.1f} dB more "
        f"power in {text(high)} than in {text(low)}{band}"
    )
    unseen = ""
    if first.n_people:
        words += (
            f", as the network expects in {first.n_agree} of {first.n_people} people "
            "it had not seen"
        )
        unseen = (
            "; below it, the same for the source of the network that was trained "
            "without a person, measured on that person, and in how many people the "
            "sign is the one that this network expects"
        )
    n = len(results.patterns[name])
    networks = "the network" if n == 1 else f"the networks of {n} folds"
    return (
        f"<h4>{words}</h4><p>Each pattern shows how a source whose power moves the "
        f"decision reaches the channels, led back from the tangent space of {networks} "
        "through their filters. Only relative weights and signs between channels mean "
        "something. The share is the source's part in all changes of power that go "
        "with the decision (squared). The decibels are its measured power ratio "
        f"between the classes in all people{unseen}. A large share without a ratio, "
        "or of a sign that few people share, is what the network should not look at."
        f"{_drawn(results.trials, patterns, words)}"
    )


def _drawn(
    trials: Trials, patterns: dict[tuple[str, str], list[Pattern]], words: str
) -> str:
    """Return the end of a paragraph, and the picture of patterns."""
    svg = to_svg(draw_patterns(trials, patterns), words, dpi=90)
    bars = ""
    if not can_draw_scalp(trials, patterns):
        bars = (
            " The channels have too few known places on the scalp, so each pattern "
            "is drawn as one bar a channel."
        )
    more = ""
    if len(patterns) > MAX_CONTRASTS:
        more = f" The first {MAX_CONTRASTS} of {len(patterns)} classes are shown."
    return f"{bars}{more}</p>{svg}"
