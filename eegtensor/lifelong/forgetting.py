"""A person withdraws: a fitted decoder without them, and a report that says so."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from eegtensor._check import check_lengths, check_option, fail, listing
from eegtensor.domains import Domain, domain_names
from eegtensor.lifelong._unlearn import unlearn_network
from eegtensor.lifelong.analytichead import AnalyticHead
from eegtensor.lifelong.audit import Audit, audit_forgetting
from eegtensor.lifelong.known import Known, takes
from eegtensor.transfer import DomainStandardScaler, Recenter, Rescale
from eegtensor.transfer._network import NetworkClassifier
from eegtensor.transfer._perdomain import PerDomain

METHODS = ("auto", "sums", "refit", "sfron", "natmu")
# What these do to a trial depends on its own domain alone.
_OWN_DOMAIN = (Recenter, Rescale, DomainStandardScaler)


class Forgotten(NamedTuple):
    """What `forget` returns.

    Attributes
    ----------
    estimator : classifier
        A copy that has forgotten; the one given is as it was.
    audit : Audit
    """

    estimator: Any
    audit: Audit


def forget(
    estimator: Any,
    subject: str | Sequence[str],
    X: NDArray,
    y: ArrayLike,
    *,
    subjects: ArrayLike,
    sessions: ArrayLike | None = None,
    method: str = "auto",
    holdout: Known | tuple[Any, ...] | None = None,
    new: Known | tuple[Any, ...] | None = None,
    transfer: Known | tuple[Any, ...] | None = None,
    retrained: Any = None,
    random_state: int = 0,
    **options: Any,
) -> Forgotten:
    """Remove people from a fitted decoder: from its weights and its statistics.

    Parameters
    ----------
    estimator : classifier
        A `NetworkClassifier`, or anything that scikit-learn can clone; a pipeline of
        these. Left as it is: delete it and its files yourself.
    subject : str | sequence of str
        Whom to forget.
    X : ndarray
        All trials that it was trained on, those to forget among them.
    y : array-like, shape (n_trials,)
    subjects : array-like of str, shape (n_trials,)
        Whose the trials are.
    sessions : array-like of str, shape (n_trials,) | None
    method : "auto" | "sums" | "refit" | "sfron" | "natmu"
        "sums": the sums behind an `AnalyticHead`, less theirs; exactly as trained
        without them, and asks nobody else's trials. "refit": fitted anew to the rest;
        exact. "sfron" and "natmu": training goes on in a network, approximate; see
        `eegtensor.training.recipes.SFRon` and `NatMU`. "auto" is the first of sums,
        sfron (for networks) and refit that can.
    holdout : Known | tuple (X, y[, subjects[, sessions]]) | None
        Trials that were never trained on, of the people to keep and of those to
        forget; without the latter nothing is said of membership.
    new, transfer : Known | tuple | None
        Trials of what was learned last, and of people never met.
    retrained : classifier | None
        The same decoder trained without them, where there is one to compare with.
    random_state : int
    **options
        Of "sfron" and "natmu": `share` of the steps of the training, `lr`, and the
        options of the recipe.

    Returns
    -------
    forgotten : Forgotten (estimator, audit)

    Raises
    ------
    EEGTensorError
        If nobody of that name was trained on, nobody would be left, or the method
        does not fit the decoder.
    """
    check_option("method", method, METHODS)
    X, y = np.asarray(X), np.asarray(y)
    names = domain_names(len(X), subjects, sessions)
    check_lengths(len(X), y=y)
    people = [subject] if isinstance(subject, str) else [str(s) for s in subject]
    who = np.asarray([name.subject for name in names])
    unknown = sorted(set(people) - set(who.tolist()))
    if unknown or not people:
        fail(
            f"No trial is of {listing(unknown) or 'nobody'}",
            fix=f"choose among {listing(sorted(set(who.tolist())))}",
        )
    gone = np.isin(who, people)
    if gone.all():
        fail("Nobody would be left", fix="train a new decoder on other people")
    domains: dict[str, Any] = {"subjects": who}
    if sessions is not None:
        domains["sessions"] = np.asarray([name.session for name in names])
    start = time.perf_counter()
    way = _choose(estimator, method)
    if options and way not in ("sfron", "natmu"):
        fail(
            f"{way!r} takes no {listing(map(repr, options))}",
            fix="leave them out: it is exact",
        )
    if way == "refit":
        after = _fit(clone(estimator), X[~gone], y[~gone], _rows(domains, ~gone))
    elif way == "sums":
        after = _without_sums(estimator, X, y, names, gone, domains)
    else:
        after = _in_network(
            estimator, X, y, names, gone, domains, way, random_state, options
        )
    seconds = time.perf_counter() - start
    members = Known(X[gone], y[gone], *_rows(domains, gone).values())
    audit = audit_forgetting(
        estimator,
        after,
        people,
        members,
        holdout=holdout,
        new=new,
        transfer=transfer,
        retrained=retrained,
        method=way,
        seconds=seconds,
        random_state=random_state,
    )
    return Forgotten(after, audit)


def _choose(estimator: Any, method: str) -> str:
    final, before = _final(estimator), _before(estimator)
    own = all(
        getattr(step, "trialwise", False) or type(step) in _OWN_DOMAIN
        for step in before
    )
    can = {
        "sums": isinstance(final, AnalyticHead) and own,
        "sfron": isinstance(final, NetworkClassifier) and own,
        "natmu": isinstance(final, NetworkClassifier) and own,
        "refit": True,
    }
    if method == "auto":
        return next(name for name in ("sums", "sfron", "refit") if can[name])
    if not can[method]:
        shared = [s for s in before if not getattr(s, "trialwise", False)]
        fail(
            f"method={method!r} does not fit {type(final).__name__}"
            + (f" after {listing(type(s).__name__ for s in shared)}" if shared else ""),
            why="'sums' is for an AnalyticHead, 'sfron' and 'natmu' are for networks, "
            "and steps before must treat each domain by itself",
            fix="choose 'refit', which fits anew to the people who are left",
        )
    return method


def _without_sums(
    estimator: Any,
    X: NDArray,
    y: NDArray,
    names: Sequence[Domain],
    gone: NDArray[np.bool_],
    domains: Mapping[str, Any],
) -> Any:
    after = copy.deepcopy(estimator)
    theirs = _rows(domains, gone)
    head = _final(after)
    features = _features(after, X[gone], theirs)
    subjects = theirs["subjects"] if head.people else None
    head.forget(features, y[gone], subjects=subjects)
    _drop(after, names, gone)
    return after


def _in_network(
    estimator: Any,
    X: NDArray,
    y: NDArray,
    names: Sequence[Domain],
    gone: NDArray[np.bool_],
    domains: Mapping[str, Any],
    method: str,
    seed: int,
    options: Mapping[str, Any],
) -> Any:
    features = _features(estimator, X, domains)
    final = unlearn_network(
        _final(estimator),
        features,
        y,
        names,
        gone,
        method=method,
        random_state=seed,
        **options,
    )
    if not isinstance(estimator, Pipeline):
        return final
    after = copy.deepcopy(estimator)
    after.steps[-1] = (after.steps[-1][0], final)
    _drop(after, names, gone)
    return after


def _drop(estimator: Any, names: Sequence[Domain], gone: NDArray[np.bool_]) -> None:
    """Remove the statistics of domains from the steps of a pipeline."""
    lost = {name for name, is_gone in zip(names, gone, strict=True) if is_gone}
    sources = set(names) - lost
    for step in _before(estimator):
        if isinstance(step, PerDomain):
            known = step.domains_.names
            kept = [k for k, name in enumerate(known) if name not in lost]
            source = [k for k in kept if known[k] in sources]
            step.pooled_ = step._pool(step.statistics_[source], step.counts_[source])
            step.statistics_ = step.statistics_[kept]
            step.counts_ = step.counts_[kept]
            step.domains_ = type(step.domains_)(known[k] for k in kept)
            if step.last_target_ in lost:
                step.last_target_ = None


def _final(estimator: Any) -> Any:
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def _before(estimator: Any) -> list[Any]:
    if not isinstance(estimator, Pipeline):
        return []
    steps = [step for _, step in estimator.steps[:-1]]
    return [s for s in steps if s is not None and s != "passthrough"]


def _features(estimator: Any, X: NDArray, domains: Mapping[str, Any]) -> NDArray:
    for step in _before(estimator):
        given = domains if isinstance(step, PerDomain) else {}
        X = step.transform(X, **given)
    return X


def _fit(estimator: Any, X: NDArray, y: NDArray, domains: Mapping[str, Any]) -> Any:
    given = {k: v for k, v in domains.items() if takes(estimator.fit, k)}
    return estimator.fit(X, y, **given)


def _rows(domains: Mapping[str, Any], mask: NDArray[np.bool_]) -> dict[str, Any]:
    return {name: column[mask] for name, column in domains.items()}
