"""What the trust card measures of one decoder and one person it never met."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from eegtensor.benchmark.estimators import call, fresh
from eegtensor.lifelong import Audit
from eegtensor.lifelong import forget as forget_people
from eegtensor.lifelong.known import Known, adapted
from eegtensor.trust.attacks import PGD, robustness_curve
from eegtensor.trust.certificates import SmoothedClassifier
from eegtensor.trust.scorers import evidence, make_scorer
from eegtensor.trust.scorers.base import standardiser


class Met(NamedTuple):
    """A decoder, whom it was fitted to, and a person it has adapted to since.

    Attributes
    ----------
    decoder : classifier
    source, person : Known
    """

    decoder: Any
    source: Known
    person: Known


def fitted(estimator: Any, known: Known, seed: int) -> Any:
    """Return a fresh decoder fitted to trials."""
    decoder = fresh(estimator, seed)
    return call(decoder, "fit", known.X, np.asarray(known.y), **known.domains)


def meet(estimator: Any, source: Known, person: Known, seed: int) -> Met:
    """Fit a fresh decoder to the source, and adapt it to a person without labels."""
    return Met(adapted(fitted(estimator, source, seed), person), source, person)


def robustness(met: Met, eps: Sequence[float], n_steps: int) -> pd.DataFrame:
    """Return accuracy under attacks of several sizes, see `robustness_curve`."""
    X, y = met.person.X, np.asarray(met.person.y)
    attack = PGD(n_steps=n_steps)
    return robustness_curve(
        met.decoder, X, y, eps=eps, attack=attack, **met.person.domains
    )


def logits(met: Met) -> NDArray:
    """Return the logits of a person's trials, shape (n_trials, n_classes)."""
    found = evidence(met.decoder, met.person.X, **met.person.domains)
    return found.need("logits")


def familiarity(met: Met, scorer: str) -> NDArray:
    """Return how familiar a person's trials are, in deviations of the source's."""
    score = make_scorer(scorer)
    options = {"gradients": "gradients" in score.needs}
    known = evidence(met.decoder, met.source.X, **met.source.domains, **options)
    score.fit(known, np.asarray(met.source.y))
    centre, scale = standardiser(score.score_samples(known))
    new = evidence(met.decoder, met.person.X, **met.person.domains, **options)
    values: NDArray = (score.score_samples(new) - centre) / scale
    return values


def certified(
    estimator: Any, met: Met, rows: NDArray, sigma: float, n_copies: int, seed: int
) -> pd.DataFrame:
    """Return radius and correctness of some of a person's trials, certified.

    Parameters
    ----------
    estimator : classifier
        Fitted anew, to trials with noise.
    met : Met
    rows : ndarray of int
        Trials of the person.
    sigma : float
        Standard deviations of each channel.
    n_copies : int
    seed : int

    Returns
    -------
    DataFrame
        "radius" (l2, in standard deviations), "linf", "snr_db", "correct".
    """
    smooth = SmoothedClassifier(
        fresh(estimator, seed), sigma=sigma, estimate=n_copies, random_state=seed
    )
    person = met.person
    smooth = adapted(fitted(smooth, met.source, seed), person)
    mask = np.isin(np.arange(len(person.X)), rows)
    part = person.pick(mask)
    found = smooth.certify(part.X, **part.domains)
    good = (found.labels == np.asarray(part.y)) & ~found.abstained
    return pd.DataFrame(
        {
            "radius": found.radius,
            "linf": found.linf,
            "snr_db": found.snr_db,
            "correct": good,
        }
    )


def forgotten(estimator: Any, met: Met, name: str, seed: int) -> tuple[Audit, float]:
    """Return the audit of forgetting one person of the source, and seconds of a refit.

    A quarter of every person's trials is not trained on: of the one who withdraws it
    tells whether membership can still be inferred, of the others what was lost.

    Parameters
    ----------
    estimator : classifier
        Fitted anew.
    met : Met
    name : str
        Who withdraws.
    seed : int
    """
    source = met.source
    who, y = np.asarray(source.subjects).astype(str), np.asarray(source.y)
    strata = [f"{name}\0{label}" for name, label in zip(who, y, strict=True)]
    folds = StratifiedKFold(4, shuffle=True, random_state=seed)
    kept = np.ones(len(who), dtype=bool)
    kept[next(iter(folds.split(who, strata)))[1]] = False
    train, held = source.pick(kept), source.pick(~kept)
    decoder = fitted(estimator, train, seed)
    rest = train.pick(np.asarray(train.subjects).astype(str) != name)
    start = time.perf_counter()
    again = fitted(estimator, rest, seed)
    seconds = time.perf_counter() - start
    assert train.subjects is not None
    audit = forget_people(
        decoder,
        name,
        train.X,
        train.y,
        subjects=train.subjects,
        sessions=train.sessions,
        holdout=held,
        transfer=met.person,
        retrained=again,
        random_state=seed,
    ).audit
    return audit, seconds
