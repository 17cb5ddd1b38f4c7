"""`trust_card`: what can be relied on in a pipeline, beyond its score."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from eegtensor._check import EEGTensorError, check_count, fail, listing
from eegtensor.benchmark.estimators import derive_seed, resolve_pipelines
from eegtensor.benchmark.fingerprint import (
    fingerprint,
    key_of,
    package_source,
    versions,
)
from eegtensor.benchmark.metrics import expected_calibration_error
from eegtensor.benchmark.modes import parse_modes
from eegtensor.benchmark.targets import prepare_trials
from eegtensor.benchmark.trustparts import (
    Met,
    certified,
    familiarity,
    forgotten,
    logits,
    meet,
    robustness,
)
from eegtensor.benchmark.trustrecord import TrustCard
from eegtensor.lifelong.known import Known
from eegtensor.trials import Trials
from eegtensor.trust.calibration import Temperature

logger = logging.getLogger("eegtensor")

PARTS = ("robustness", "calibration", "rejection", "certificate", "forgetting")


@dataclass(frozen=True)
class _Plan:
    """Options of `trust_card`."""

    eps: tuple[float, ...]
    n_steps: int
    scorer: str
    sigma: float
    n_certified: int
    n_copies: int
    seed: int


def trust_card(
    trials: Trials | mne.BaseEpochs,
    pipeline: str | Any,
    *,
    people: int | Sequence[str] = 3,
    parts: Sequence[str] = PARTS,
    eps: Sequence[float] = (0.02, 0.05, 0.1),
    n_steps: int = 50,
    scorer: str = "knn(normalise=False)",
    sigma: float = 0.25,
    n_certified: int = 20,
    n_copies: int = 1000,
    random_state: int = 0,
    cache: str | os.PathLike[str] | None = None,
) -> TrustCard:
    """Measure what can be relied on in a pipeline.

    People are left out one by one; a decoder is fitted to all others and adapted to
    the one left out without labels. Attacks and certificates see fixed statistics.

    Parameters
    ----------
    trials : Trials | mne.Epochs
        Labelled, of at least three people.
    pipeline : str | estimator
        A name, as those of `benchmark`, or a classifier.
    people : int | sequence of str
        How many people are left out in turn, drawn at random, or their names.
    parts : sequence of str
        Of "robustness", "calibration", "rejection", "certificate", "forgetting".
        The certificate takes one more fit (the first person's), forgetting two.
    eps : sequence of float
        Sizes of the attack, in standard deviations of each channel.
    n_steps : int
        Of the attack (PGD).
    scorer : str
        Of familiarity; see `eegtensor.trust.scorers.SCORERS`.
    sigma : float
        Noise of the certificate, in standard deviations of each channel.
    n_certified, n_copies : int
        Trials that are certified, and noisy copies of each.
    random_state : int
    cache : path-like | None
        Folder of finished parts; a card that was interrupted goes on from it.

    Returns
    -------
    card : TrustCard
        A part that the pipeline cannot give is None; `missing` says why.

    Raises
    ------
    EEGTensorError
        If there are fewer than three people, or names that are not known.
    """
    unknown = [name for name in parts if name not in PARTS]
    if unknown:
        fail(f"No part is named {unknown[0]!r}", fix=f"choose among {listing(PARTS)}")
    data = prepare_trials(trials, None)
    named = (
        [pipeline] if isinstance(pipeline, str) else {type(pipeline).__name__: pipeline}
    )
    ((name, by_mode),) = resolve_pipelines(named, parse_modes("full")).items()
    estimator = by_mode["full"]
    assert data.y is not None
    everything = Known(
        np.asarray(data.X), np.asarray(data.y), data.subjects, data.sessions
    )
    chosen = _choose(data, people, random_state)
    plan = _Plan(
        tuple(eps), n_steps, scorer, sigma, n_certified, n_copies, random_state
    )
    card, file = TrustCard(name, tuple(chosen)), None
    if cache is not None:
        file = _file(Path(cache), data, estimator, chosen, plan)
    if file is not None and file.is_file():
        try:
            card = TrustCard.load(file)
        except EEGTensorError as error:
            logger.info("a trust card is damaged and is made again: %s", error)
    decoders: dict[str, Met] = {}

    def met(person: str) -> Met:
        if person not in decoders:
            logger.info("trust card of %s: fitting without %s", name, person)
            here = np.asarray(data.subjects).astype(str) == person
            seed = derive_seed(random_state, "trust", person)
            source, target = everything.pick(~here), everything.pick(here)
            decoders[person] = meet(estimator, source, target, seed)
        return decoders[person]

    def everyone() -> list[Met]:
        return [met(person) for person in chosen]

    makers: dict[str, Callable[[], None]] = {
        "robustness": lambda: _robustness(card, everyone(), plan),
        "calibration": lambda: _calibration(card, everyone()),
        "rejection": lambda: _rejection(card, everyone(), plan),
        "certificate": lambda: _certificate(card, estimator, met(chosen[0]), plan),
        "forgetting": lambda: _forgetting(card, estimator, met(chosen[0]), plan),
    }
    for part in PARTS:
        done = getattr(card, "audit" if part == "forgetting" else part) is not None
        if part not in parts or done or part in card.missing:
            continue
        logger.info("trust card of %s: %s", name, part)
        try:
            makers[part]()
        except ValueError as error:
            # The other parts are worth a card.
            card.missing[part] = str(error)
        if file is not None:
            card.save(file)
    return card


def _file(
    cache: Path, data: Trials, estimator: Any, people: list[str], plan: _Plan
) -> Path | None:
    """Return where a card is kept; None where the estimator has no content hash."""
    own = fingerprint(estimator)
    if own.key is None:
        logger.info("the trust card is not kept: %s", own.problem)
        return None
    causes = {
        "data": data.digest,
        "estimator": own.key,
        "people": people,
        "plan": asdict(plan),
        "source": package_source(),
        "versions": versions(),
    }
    return cache / "trust" / f"{key_of(causes)}.json"


def _choose(data: Trials, people: int | Sequence[str], seed: int) -> list[str]:
    known = np.unique(np.asarray(data.subjects).astype(str))
    if len(known) < 3:
        fail(
            f"A trust card of {len(known)} people",
            why="One is left out, and one withdraws: nobody would be left",
            fix="give trials of at least three",
        )
    if isinstance(people, (int, np.integer)):
        n = min(check_count("people", people), len(known))
        rng = np.random.default_rng([seed, 7])
        return sorted(rng.choice(known, n, replace=False).tolist())
    strangers = sorted(set(people) - set(known.tolist()))
    if strangers or not len(people):
        fail(
            f"No trial is of {listing(strangers) or 'nobody'}",
            fix=f"choose among {listing(known)}",
        )
    return list(people)


def _robustness(card: TrustCard, met: list[Met], plan: _Plan) -> None:
    tables = [robustness(one, plan.eps, plan.n_steps) for one in met]
    card.robustness = pd.concat(tables).groupby("eps", as_index=False).mean()


def _codes(one: Met) -> NDArray:
    classes = np.asarray(one.decoder.classes_)
    return np.searchsorted(classes, np.asarray(one.person.y))


def _calibration(card: TrustCard, met: list[Met]) -> None:
    z, y = [logits(one) for one in met], [_codes(one) for one in met]
    before = [softmax(each, axis=1) for each in z]
    after = []
    for k in range(len(met)):
        rest = [i for i in range(len(met)) if i != k]
        if not rest:
            after = [np.full_like(before[0], np.nan)]
            break
        fitted = Temperature().fit(
            np.concatenate([z[i] for i in rest]), np.concatenate([y[i] for i in rest])
        )
        after.append(softmax(fitted.transform(z[k]), axis=1))
    people = np.repeat(card.people, [len(each) for each in y])
    p, q, truth = np.concatenate(before), np.concatenate(after), np.concatenate(y)
    card.calibration = pd.DataFrame(
        {
            "person": people,
            "confidence": p.max(axis=1),
            "after": q.max(axis=1),
            "correct": p.argmax(axis=1) == truth,
        }
    )
    card.ece = {"before": expected_calibration_error(truth, p)}
    if len(met) > 1:
        card.ece["after"] = expected_calibration_error(truth, q)


def _rejection(card: TrustCard, met: list[Met], plan: _Plan) -> None:
    rows = []
    for person, one in zip(card.people, met, strict=True):
        p = softmax(logits(one), axis=1)
        rows.append(
            pd.DataFrame(
                {
                    "person": person,
                    "familiarity": familiarity(one, plan.scorer),
                    "confidence": p.max(axis=1),
                    "correct": p.argmax(axis=1) == _codes(one),
                }
            )
        )
    card.rejection, card.scorer = pd.concat(rows, ignore_index=True), plan.scorer


def _certificate(card: TrustCard, estimator: Any, one: Met, plan: _Plan) -> None:
    n = len(one.person.X)
    rng = np.random.default_rng([plan.seed, 11])
    rows = np.sort(rng.choice(n, min(plan.n_certified, n), replace=False))
    card.certificate = certified(
        estimator, one, rows, plan.sigma, plan.n_copies, plan.seed
    )
    card.sigma = plan.sigma


def _forgetting(card: TrustCard, estimator: Any, one: Met, plan: _Plan) -> None:
    names = np.unique(np.asarray(one.source.subjects).astype(str))
    rng = np.random.default_rng([plan.seed, 13])
    who = str(rng.choice(names))
    card.audit, card.seconds_retrained = forgotten(estimator, one, who, plan.seed)
