"""What networks look at: the patterns that they bring, measured on people."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import EEGTensorError
from eegtensor.benchmark.estimators import call
from eegtensor.benchmark.maps import Sample
from eegtensor.benchmark.patterns import (
    Band,
    Pattern,
    bands_of,
    contrasts_of,
    decibels,
    largest_is_one,
)
from eegtensor.models.patterns import ClassPatterns, Sources, sources

logger = logging.getLogger("eegtensor")

MAX_TRIALS = 400


@dataclass(frozen=True)
class FoldPatterns:
    """What the network of one fold looks at.

    Attributes
    ----------
    unseen : ndarray of int
        Trials that the network was not trained on.
    patterns : ClassPatterns
    """

    unseen: NDArray
    patterns: ClassPatterns


def ask_for_patterns(
    estimator: Any,
    X: NDArray,
    classes: Sequence[str],
    index: NDArray,
    seed: int,
    domains: Callable[[NDArray], dict[str, NDArray]],
) -> ClassPatterns | None:
    """Return what a fitted estimator looks at in some of its source trials.

    Parameters
    ----------
    estimator : fitted estimator
        With ``class_patterns``, or a pipeline of it alone: after another step
        channels are no sensors.
    X : ndarray, shape (n_trials, n_channels, n_times)
        All trials.
    classes : sequence of str
        Of all trials, sorted.
    index : ndarray of int
        The source trials.
    seed : int
        For the choice among them.
    domains : callable
        Indices of trials to their ``subjects`` and ``sessions``.

    Returns
    -------
    ClassPatterns | None
        None where the estimator cannot say, or does not know every class.
    """
    steps = getattr(estimator, "steps", [("", estimator)])
    final = steps[-1][1]
    if len(steps) > 1 or not hasattr(final, "class_patterns"):
        return None
    if list(map(str, final.classes_)) != list(classes):
        return None
    if len(index) > MAX_TRIALS:
        rng = np.random.default_rng(seed)
        index = np.sort(rng.choice(index, MAX_TRIALS, replace=False))
    try:
        found: ClassPatterns = call(final, "class_patterns", X[index], **domains(index))
    except (EEGTensorError, np.linalg.LinAlgError) as error:
        # A fold's scores are worth more than its picture.
        logger.info("%s shows no patterns: %s", type(final).__name__, error)
        return None
    return found


def network_patterns(
    sample: Sample, found: Sequence[FoldPatterns], *, n_patterns: int = 4
) -> dict[tuple[str, str], list[Pattern]]:
    """Return the sources that networks look at, the largest changes first.

    Parameters
    ----------
    sample : Sample
        On which powers are measured, every domain moved to the mean of all.
    found : sequence of FoldPatterns
        Of one pipeline, at least one; what is drawn is their mean.
    n_patterns : int
        Number for each contrast, over all bands.

    Returns
    -------
    dict of (class, other) to list of Pattern
        ``decibel`` is measured in all people, ``unseen`` in each person with the
        filters of the network that had not seen this person; people agree
        whose sign is the one that the network expects.
    """
    pairs = contrasts_of(sample)
    parts = zip(*(fold.patterns for fold in found), strict=True)
    mean = ClassPatterns(*(np.mean(part, axis=0) for part in parts))
    own = [_without(person, sample, found) for person in np.unique(sample.subjects)]
    kept: dict[tuple[str, str], list[Pattern]] = {pair: [] for pair in pairs}
    for band in bands_of(sample):
        of_all = _within(band, mean)
        of_each = [None if p is None else _within(band, p) for p in own]
        for k, pair in enumerate(pairs):
            kept[pair] += _contrast(band, pair, k, of_all, of_each)
    for pair, row in kept.items():
        total = sum(p.share for p in row)
        row = [replace(p, share=p.share / total) for p in row]
        kept[pair] = sorted(row, key=lambda p: -p.share)[:n_patterns]
    return kept


def _without(
    person: str, sample: Sample, found: Sequence[FoldPatterns]
) -> ClassPatterns | None:
    """Return what a network looks at that was trained on no trial of a person."""
    trials = sample.trials[sample.subjects == person]
    for fold in found:
        if np.isin(trials, fold.unseen).all():
            return fold.patterns
    return None


def _within(band: Band, patterns: ClassPatterns) -> Sources:
    """Return the sources of one band's spatial components."""
    basis = band.basis
    return sources(*(basis.T @ part @ basis for part in patterns))


def _contrast(
    band: Band,
    pair: tuple[str, str],
    k: int,
    of_all: Sources,
    of_each: Sequence[Sources | None],
) -> list[Pattern]:
    """Return the patterns of all sources; shares are squared changes of power."""
    people, a, b = band.sides(pair)
    if not len(people):
        return []
    change = of_all.change[k]
    rank = np.argsort(np.argsort(change, kind="stable"), kind="stable")
    measured, expected = [], []
    for i, person in enumerate(people):
        own = of_each[person]
        if own is None:
            continue
        # Sources are paired by the rank of their change, not by their shape.
        order = np.argsort(own.change[k], kind="stable")[rank]
        measured.append(decibels(a[i], b[i], own.filters[k][:, order]))
        expected.append(np.sign(own.change[k][order]))
    unseen = np.asarray(measured).reshape(-1, len(change))
    agree = (np.sign(unseen) == np.reshape(expected, unseen.shape)).sum(axis=0)
    mean = unseen.mean(axis=0) if len(unseen) else np.full(len(change), np.nan)
    decibel = decibels(a.mean(axis=0), b.mean(axis=0), of_all.filters[k])
    values = (band.basis @ of_all.topographies[k])[band.channels]
    return [
        Pattern(
            largest_is_one(values[:, j]),
            band.channels,
            band.name,
            float(decibel[j]),
            float(mean[j]),
            int(agree[j]),
            len(unseen),
            float(change[j]) ** 2,
        )
        for j in range(len(change))
    ]
