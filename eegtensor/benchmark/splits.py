"""Protocols: which trials train a decoder and which it has never seen."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold, StratifiedKFold

from eegtensor._check import fail, listing
from eegtensor.trials import Trials

logger = logging.getLogger("eegtensor")

PROTOCOLS = (
    "leave-one-subject-out",
    "leave-one-session-out",
    "within-session",
    "k-subjects-out",
    "cross-dataset",
)
_GROUPS = re.compile(r"([0-9]+)-subjects-out")


@dataclass(frozen=True)
class Fold:
    """One division of the trials.

    Attributes
    ----------
    index : int
    name : str
        What is held out, for messages.
    train, test : ndarray of int
        Indices of trials, ascending.
    """

    index: int
    name: str
    train: NDArray[np.int64]
    test: NDArray[np.int64]


def check_protocol(protocol: str) -> str:
    """Return a protocol's name, or raise naming the choices."""
    protocol = str(protocol)
    if protocol in PROTOCOLS and protocol != "k-subjects-out":
        return protocol
    match = _GROUPS.fullmatch(protocol)
    if match is None or int(match[1]) < 1:
        fail(
            f"protocol={protocol!r} is not known",
            fix="choose leave-one-subject-out, leave-one-session-out, within-session, "
            "cross-dataset, or k-subjects-out with a number (as 4-subjects-out)",
        )
    return protocol


def make_folds(
    trials: Trials,
    protocol: str,
    *,
    seed: int = 0,
    n_folds: int = 5,
    train: str | None = None,
    test: str | None = None,
) -> list[Fold]:
    """Return a protocol's folds in order of first appearance.

    Parameters
    ----------
    trials : Trials
    protocol : str
        A name of `PROTOCOLS`, with a number for k ("4-subjects-out").
    seed : int
        For the groups of k-subjects-out and the folds of within-session.
    n_folds : int
        Stratified folds of within-session.
    train, test : str | None
        Datasets of cross-dataset; with neither, each dataset is held out once.

    Raises
    ------
    EEGTensorError
        If the trials cannot be divided so (one person, one session, ...).
    """
    check_protocol(protocol)
    subjects = trials.subjects
    if protocol == "leave-one-subject-out":
        folds = _group_folds(subjects, [[s] for s in _appearing(subjects)], "subject")
    elif protocol == "leave-one-session-out":
        folds = _session_folds(subjects, trials.sessions)
    elif protocol == "within-session":
        folds = _within_folds(trials, n_folds, seed)
    elif protocol == "cross-dataset":
        folds = _dataset_folds(trials, train, test)
    else:
        size = int(protocol.split("-")[0])
        people = _appearing(subjects)
        # Names often say site or date of inclusion: neighbours are not exchangeable.
        order = np.random.default_rng(seed).permutation(len(people))
        groups = [
            sorted((people[i] for i in order[start : start + size]), key=people.index)
            for start in range(0, len(people), size)
        ]
        folds = _group_folds(subjects, groups, "subject")
    return [Fold(i, *fold) for i, fold in enumerate(folds)]


_Division = tuple[str, NDArray[np.int64], NDArray[np.int64]]


def _appearing(values: NDArray) -> list[str]:
    return list(dict.fromkeys(values.tolist()))


def _group_folds(
    values: NDArray, groups: list[list[str]], what: str
) -> list[_Division]:
    if len(groups) < 2:
        names = listing(_appearing(values))
        fail(
            f"Only the {what}s {names} are there, and all would be held out at once",
            why="Nothing would be left to train on",
            fix=f"give trials of more {what}s, or another protocol",
        )
    folds = []
    for group in groups:
        held_out = np.isin(values, group)
        name = f"{what} {', '.join(group)}"
        folds.append((name, np.flatnonzero(~held_out), np.flatnonzero(held_out)))
    return folds


def _session_folds(subjects: NDArray, sessions: NDArray) -> list[_Division]:
    folds: list[_Division] = []
    single = []
    for subject in _appearing(subjects):
        mine = subjects == subject
        names = _appearing(sessions[mine])
        if len(names) < 2:
            single.append(subject)
            continue
        for session in names:
            here = mine & (sessions == session)
            there = mine & ~here
            name = f"subject {subject}, session {session}"
            folds.append((name, np.flatnonzero(there), np.flatnonzero(here)))
    if not folds:
        fail(
            "No subject has two sessions, and leave-one-session-out needs them",
            fix="use protocol='within-session' or 'leave-one-subject-out'",
        )
    if single:
        logger.info("left out for want of a second session: %s", listing(single))
    return folds


def _within_folds(trials: Trials, n_folds: int, seed: int) -> list[_Division]:
    assert trials.y is not None
    if n_folds < 2:
        fail(f"n_folds={n_folds}", fix="give 2 or more")
    codes, names = trials.domain
    continuous = trials.y.dtype.kind == "f"
    splitter = KFold if continuous else StratifiedKFold
    folds: list[_Division] = []
    for code, domain in enumerate(names):
        here = np.flatnonzero(codes == code)
        y = trials.y[here]
        counts = [len(y)] if continuous else np.unique(y, return_counts=True)[1]
        if min(counts) < n_folds:
            fail(
                f"{domain} has {min(counts)} trials in its smallest class, too few "
                f"for {n_folds} folds",
                fix="give a smaller n_folds, or leave this session out",
            )
        # Shuffled as in MOABB: trials are scored between training trials of the same
        # minutes, which is kinder than later trials would be.
        cut = splitter(n_folds, shuffle=True, random_state=seed)
        for k, (inner_train, inner_test) in enumerate(cut.split(here, y)):
            name = f"{domain}, part {k + 1} of {n_folds}"
            folds.append((name, here[inner_train], here[inner_test]))
    return folds


def _dataset_folds(
    trials: Trials, train: str | None, test: str | None
) -> list[_Division]:
    datasets = trials.metadata["dataset"].to_numpy(dtype=str)
    present = _appearing(datasets)
    for role, name in (("train", train), ("test", test)):
        if name is not None and name not in present:
            fail(
                f"{role}={name!r} is not among the datasets {listing(present)}",
                fix="name a dataset of the metadata column 'dataset'",
            )
    if train is None and test is None:
        return _group_folds(datasets, [[name] for name in present], "dataset")
    if train == test:
        fail(f"train and test are both {train!r}", fix="name two datasets")
    source = np.flatnonzero(datasets != test if train is None else datasets == train)
    target = np.flatnonzero(datasets != train if test is None else datasets == test)
    if not len(source) or not len(target):
        fail(
            f"Only the dataset {listing(present)} is there",
            fix="give trials of two datasets, or test=other_trials",
        )
    name = f"dataset {listing(_appearing(datasets[target]))}"
    return [(name, source, target)]
