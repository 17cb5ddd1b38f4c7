"""What a benchmark asks of its trials, and what it says about them beforehand."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import mne
import numpy as np

from eegtensor._check import EEGTensorWarning, fail, listing
from eegtensor.benchmark.estimators import can
from eegtensor.benchmark.modes import Mode, Part
from eegtensor.trials import Trials, as_trials, concatenate

logger = logging.getLogger("eegtensor")


def prepare_trials(data: Trials | mne.BaseEpochs, target: str | None) -> Trials:
    """Return labelled trials, with a metadata column as targets if one is named.

    Raises
    ------
    EEGTensorError
        If there is no trial, no label, one class only, or no such column of
        numbers.
    """
    trials = as_trials(data)
    if not len(trials):
        fail("There are no trials to benchmark")
    if target is not None:
        if target not in trials.metadata:
            fail(
                f"No metadata column {target!r}",
                fix=f"name one of {listing(trials.metadata.columns, 40)}",
            )
        try:
            y = trials.metadata[target].to_numpy(dtype=float)
        except (ValueError, TypeError) as error:
            fail(
                f"Metadata column {target!r} holds no numbers: {error}",
                fix="name a column of continuous targets; classes belong in y",
                cause=error,
            )
        trials = replace(trials, y=y)
    if trials.y is None:
        fail(
            "The trials have no labels to score against",
            fix="read them with events, or name a metadata column: target='age'",
        )
    if len(trials.classes) == 1:
        fail(
            f"All trials are of class {trials.classes[0]!r}",
            fix="read the events of at least two classes",
        )
    return trials


def join_datasets(train: Trials, test: Trials) -> tuple[Trials, str | None, str | None]:
    """Return the trials of two datasets over common channels, and their names.

    Raises
    ------
    EEGTensorError
        If they share no channel, a (dataset, subject, session), or a class.
    """
    sides = []
    for role, trials in (("train", train), ("test", test)):
        names = np.unique(trials.metadata["dataset"].to_numpy(dtype=str))
        if len(names) != 1:
            fail(
                f"The {role} trials are of the datasets {listing(names)}",
                fix="give trials of one dataset, or all in one with train= and "
                "test= naming datasets",
            )
        sides.append(str(names[0]))
    if sides[0] == sides[1]:
        fail(
            f"The train and the test trials are both of dataset {sides[0]!r}",
            why="Statistics of their people could be mixed up",
            fix="set the metadata column 'dataset' to different names",
        )
    # In the training set's order, so that a decoder's channels keep their places.
    common = [name for name in train.ch_names if name in test.ch_names]
    if not common:
        fail(
            f"No channel is in both: {listing(train.ch_names)} and "
            f"{listing(test.ch_names)}",
            fix="rename the channels to the same names",
        )
    if bool(train.classes) != bool(test.classes):
        # Joined, numbers would become class names, one class a number.
        fail(
            "One dataset has classes, the other continuous targets",
            fix="give both the same kind, or name a metadata column: target='age'",
        )
    unknown = set(test.classes) - set(train.classes)
    if unknown:
        fail(
            f"The test classes {listing(sorted(unknown))} are not among the training "
            f"classes {listing(train.classes)}",
            why="A decoder cannot predict a class it was not trained on",
            fix="read the same classes from both datasets",
        )
    if len(common) < max(len(train.ch_names), len(test.ch_names)):
        logger.info("common channels: %s", listing(common, 80))
    both = concatenate([train.pick(common), test.pick(common)])
    return both, sides[0], sides[1]


def warn_about(
    plan: Mapping[int, Mapping[Mode, list[Part]]],
    modes: Sequence[Mode],
    pipelines: Mapping[str, Mapping[str, Any]],
) -> None:
    """Warn of sessions that cannot be divided; log modes a pipeline cannot use."""
    shares = [mode for mode in modes if mode.part and mode.percent]
    alone = {
        str(part.domain)
        for by_mode in plan.values()
        for mode in shares
        for part in by_mode[mode]
        if not len(part.adapt)
    }
    if alone:
        warnings.warn(
            f"Sessions of one trial ({listing(sorted(alone))}) leave nothing to adapt "
            f"on under {listing(mode.name for mode in shares)}: they are scored "
            "un-adapted. Leave them out, or read more of their trials.",
            EEGTensorWarning,
            stacklevel=3,
        )
    for name, by_mode in pipelines.items():
        lacking = [
            mode.name
            for mode in modes
            if mode.adapts
            and not can(by_mode[mode.name], "partial_adapt" if mode.online else "adapt")
        ]
        if lacking:
            logger.info(
                "pipeline %r cannot adapt and runs as it is under %s",
                name,
                listing(lacking),
            )
