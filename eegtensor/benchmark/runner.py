"""`benchmark`: plan the folds, run what the cache lacks, collect the results."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import mne
import numpy as np

from eegtensor._check import RandomState, as_generator, check_option, fail, listing
from eegtensor.benchmark.cache import FoldCache
from eegtensor.benchmark.estimators import resolve_pipelines
from eegtensor.benchmark.execute import Execution
from eegtensor.benchmark.fold import Job, Labels
from eegtensor.benchmark.frames import (
    Finished,
    Setting,
    make_frames,
    patterns_by_pipeline,
)
from eegtensor.benchmark.modes import Mode, Part, parse_modes, split_session
from eegtensor.benchmark.prefixes import Prefixes, Ready
from eegtensor.benchmark.record import describe_run, fold_keys
from eegtensor.benchmark.results import Results
from eegtensor.benchmark.splits import Fold, check_protocol, make_folds
from eegtensor.benchmark.targets import join_datasets, prepare_trials, warn_about
from eegtensor.domains import domain_names, encode_domains
from eegtensor.trials import Trials

logger = logging.getLogger("eegtensor")


def benchmark(
    trials: Trials | mne.BaseEpochs,
    pipelines: Mapping[str, Any] | Iterable[str],
    *,
    protocol: str = "leave-one-subject-out",
    adapt: str | Sequence[str] = "none",
    random_state: RandomState = 0,
    n_jobs: int = 1,
    cache: str | os.PathLike | None = None,
    target: str | None = None,
    train: str | None = None,
    test: str | Trials | mne.BaseEpochs | None = None,
    n_folds: int = 5,
    on_error: str = "raise",
    progress: bool | None = None,
    command: str | None = None,
) -> Results:
    """Score pipelines on people, sessions or datasets that they have not seen.

    Parameters
    ----------
    trials : Trials | mne.Epochs
        Labelled trials with subjects and sessions.
    pipelines : dict of name to estimator | list of names
        Scikit-learn-like estimators, or names of `eegtensor.PIPELINES`. They
        are cloned for every fold and never fitted themselves; `fit`, `adapt`,
        `partial_adapt` and `predict` get `subjects` and `sessions` where their
        signatures take them.
    protocol : str
        "leave-one-subject-out", "leave-one-session-out" (within each subject),
        "within-session" (shuffled stratified folds), "k-subjects-out" with a number (as
        "4-subjects-out") or "cross-dataset".
    adapt : str | list of str
        What of each held-out (subject, session) is given before scoring:
        "none", "none-trialwise" (trials predicted alone), "online" (each trial
        updates the decoder, then is predicted), "20%" or any share (the first
        trials in their order, without labels), "20%-random", "full"
        (transductive), "labelled-5" (the first 5 trials of every class, with
        labels, join the source), "labelled-20%" or "calibrate-5" (the same trials
        go to `calibrate` of a copy of the fitted decoder, session by session, as of
        "tsmnet(calibration=30)"). MOABB's names are accepted.
    random_state : int | numpy.random.Generator | None
        Seeds random parts, groups and every ``random_state=None`` in a pipeline.
    n_jobs : int
        Processes over folds; -1 for one a core. Small jobs stay serial.
    cache : path-like | None
        Folder of finished folds; a run that was interrupted resumes from it.
    target : str | None
        Metadata column of continuous targets, for regression.
    train, test : str | Trials | mne.Epochs | None
        Datasets of cross-dataset; trials as `test` are joined over the channels
        both have and make cross-dataset the protocol.
    n_folds : int
        Folds of within-session.
    on_error : "raise" | "warn"
        Whether a fold that fails ends the run; else its rows are missing, the
        warning names it and ``config["failed"]`` keeps the message.
    progress : bool | None
        Whether to show progress; by default where stderr is a terminal.
    command : str | None
        Command line to record.

    Returns
    -------
    Results

    Raises
    ------
    EEGTensorError
        If trials, pipelines, protocol or modes do not fit together, or a fold
        fails.

    Notes
    -----
    Every mode is also scored on one common set, the last ceil(n / 2) of each
    held-out session's n trials (columns ``*_common``); NaN where a mode used
    labels of that set.

    An estimator whose `predict` takes statistics of the batch it is given adapts
    unasked, and no flag can tell: its "none-trialwise" then differs from "none".
    """
    check_option("on_error", on_error, ("raise", "warn"))
    if not isinstance(n_jobs, (int, np.integer)):
        fail(f"n_jobs={n_jobs!r}", fix="give a number of processes, -1 for one a core")
    modes = parse_modes(adapt)
    data = prepare_trials(trials, target)
    if test is not None and not isinstance(test, str):
        data, train, test = join_datasets(data, prepare_trials(test, target))
        protocol = "cross-dataset"
    elif test is not None or train is not None:
        protocol = "cross-dataset"
    check_protocol(protocol)
    if protocol == "within-session" and any(m.adapts or m.labelled for m in modes):
        fail(
            f"adapt={listing(m.name for m in modes)} with protocol='within-session'",
            why="Every session is trained on there, so none is new to adapt to",
            fix="use adapt='none', or protocol='leave-one-session-out'",
        )
    resolved = resolve_pipelines(pipelines, modes)
    seed = _as_seed(random_state)
    folds = make_folds(
        data, protocol, seed=seed, n_folds=n_folds, train=train, test=test
    )
    assert data.y is not None
    labels = Labels(data.y, data.subjects, data.sessions, tuple(data.classes))
    plan = {fold.index: plan_fold(data, fold, modes, seed) for fold in folds}
    warn_about(plan, modes, resolved)
    store = None if cache is None else FoldCache(cache)
    digest = data.digest
    keys = {}
    if store:
        keys = fold_keys(
            data, resolved, folds, modes, digest=digest, protocol=protocol, seed=seed
        )
    execution = Execution(
        [
            Job(name, fold, plan[fold.index], {}, labels, seed, keys.get((name, i), {}))
            for i, fold in enumerate(folds)
            for name in resolved
        ],
        lambda: _ready(Prefixes(data.X, seed, go_on=on_error == "warn"), resolved),
        cache=store,
        n_jobs=n_jobs,
        on_error=on_error,
        progress=progress,
    )
    outcomes = execution.run()
    finished = [
        Finished(name, fold, mode, plan[fold.index][mode], outcome)
        for mode in modes
        for name in resolved
        for fold in folds
        if (outcome := outcomes.get((name, fold.index, mode.name))) is not None
    ]
    if not finished:
        fail("Every fold failed", why="; ".join(execution.failed[:3]))
    seconds = data.X.shape[2] / data.sfreq
    setting = Setting(protocol, seed, seconds, labels)
    scores, predictions = make_frames(finished, setting)
    flagged = scores.loc[scores["one_class_part"], "adapt"]
    if len(flagged):
        logger.info(
            "parts that hold one class only were adapted on under %s (column "
            "one_class_part); a random part, as 20%%-random, would mix them",
            listing(flagged.unique()),
        )
    config = describe_run(
        data,
        resolved,
        digest=digest,
        protocol=protocol,
        modes=modes,
        n_folds=len(folds),
        seed=seed,
        target=target,
        command=command,
        failed=execution.failed,
    )
    patterns = patterns_by_pipeline(finished)
    return Results(scores, predictions, config, trials=data, patterns=patterns)


def plan_fold(
    data: Trials, fold: Fold, modes: Sequence[Mode], seed: int
) -> dict[Mode, list[Part]]:
    """Return, for every mode, how a fold's held-out sessions are divided.

    Parameters
    ----------
    data : Trials
    fold : Fold
    modes : sequence of Mode
    seed : int
        For random parts.
    """
    # Of the held-out rows alone: naming all trials anew takes seconds with many folds.
    rows = data.metadata.iloc[fold.test]
    names = domain_names(len(rows), rows["subject"], rows["session"], rows["dataset"])
    codes, domains = encode_domains(names)
    plan: dict[Mode, list[Part]] = {mode: [] for mode in modes}
    for code, domain in enumerate(domains):
        index = fold.test[codes == code]
        y = None if data.y is None else data.y[index]
        for mode in modes:
            plan[mode].append(split_session(mode, index, domain, y=y, seed=seed))
    return plan


def _as_seed(random_state: RandomState) -> int:
    if isinstance(random_state, (int, np.integer)):
        # scikit-learn's bounds, which are the narrowest.
        if not 0 <= random_state < 2**32:
            fail(f"random_state={random_state}", fix="give a seed from 0 to 2**32 - 1")
        return int(random_state)
    return int(as_generator(random_state).integers(2**31))


def _ready(
    prefixes: Prefixes, resolved: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Ready]]:
    # Modes that share an estimator must share its Ready, by which fits are shared.
    made: dict[int, Ready] = {}
    ready: dict[str, dict[str, Ready]] = {}
    for name, by_mode in resolved.items():
        ready[name] = {}
        for mode, estimator in by_mode.items():
            if id(estimator) not in made:
                made[id(estimator)] = prefixes.prepare(estimator)
            ready[name][mode] = made[id(estimator)]
    return ready
