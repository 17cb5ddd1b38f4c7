"""Fresh estimators for folds, and calls that pass them what they can take."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.base import clone

from eegtensor._check import fail, listing
from eegtensor.benchmark.modes import Mode


class Outputs(NamedTuple):
    """What an estimator says about trials.

    `y_pred` holds codes of classes, or continuous predictions;
    `probabilities` is (n_trials, n_classes) or None; `decision` is
    (n_trials,) or (n_trials, n_classes) where there are no probabilities.
    """

    y_pred: NDArray
    probabilities: NDArray | None
    decision: NDArray | None


def resolve_pipelines(
    pipelines: Mapping[str, Any] | Iterable[str], modes: Iterable[Mode]
) -> dict[str, dict[str, Any]]:
    """Return, for every pipeline, the estimator of every mode.

    Parameters
    ----------
    pipelines : dict of name to estimator | iterable of str
        A name of `eegtensor.PIPELINES` is built un-aligned for modes without
        adaptation and with its usual alignment for the others;
        "name+euclidean" chooses another, "name(C=1.0)" sets parameters. An
        estimator is used as it is.
    modes : iterable of Mode

    Returns
    -------
    dict
        ``{pipeline: {mode name: estimator}}``; modes share one object where
        they share the estimator.

    Raises
    ------
    EEGTensorError
        If there is no pipeline, or one is no scikit-learn estimator, or cannot
        calibrate under a mode that asks for it.
    """
    modes = list(modes)
    if isinstance(pipelines, str):
        pipelines = [pipelines]
    # A scikit-learn Pipeline can be iterated too: its steps are no pipelines.
    if hasattr(pipelines, "fit") or not isinstance(pipelines, Iterable):
        fail(
            f"pipelines is a {type(pipelines).__name__}",
            fix="give a dict of name to estimator, or names of eegtensor.PIPELINES",
        )
    resolved: dict[str, dict[str, Any]] = {}
    if isinstance(pipelines, Mapping):
        for name, estimator in pipelines.items():
            _check_estimator(name, estimator)
            resolved[str(name)] = {mode.name: estimator for mode in modes}
    else:
        for name in pipelines:
            resolved[str(name)] = _named(name, modes)
    if not resolved:
        fail("There are no pipelines", fix="give a dict of name to estimator")
    for mode in modes:
        if mode.calibrates:
            _check_calibrates(mode, {n: e[mode.name] for n, e in resolved.items()})
    return resolved


def _named(name: Any, modes: list[Mode]) -> dict[str, Any]:
    from eegtensor.pipelines import PIPELINES, make_pipeline, parse_pipeline

    if not isinstance(name, str):
        fail(
            f"A pipeline is a {type(name).__name__}, not a name",
            fix="give names of eegtensor.PIPELINES, or a dict of name to estimator",
        )
    base, params, alignment = parse_pipeline(name)
    usual = PIPELINES[base].adapts if base in PIPELINES else None
    built: dict[str | None, Any] = {}
    chosen = {}
    for mode in modes:
        align = (alignment or usual) if mode.adapts or mode.labelled else None
        if align not in built:
            built[align] = make_pipeline(base, align=align, **params)
        chosen[mode.name] = built[align]
    return chosen


def _check_estimator(name: Any, estimator: Any) -> None:
    missing = [
        method
        for method in ("fit", "predict", "get_params")
        if not hasattr(estimator, method)
    ]
    if missing or isinstance(estimator, type):
        what = "is a class" if isinstance(estimator, type) else "has no "
        fail(
            f"Pipeline {name!r} {what}{listing(missing)}",
            fix="give an instance of a scikit-learn estimator (fit, predict, "
            "get_params)",
        )


def _check_calibrates(mode: Mode, estimators: Mapping[str, Any]) -> None:
    """Raise for estimators without `calibrate`, or whose `fit` does not prepare it."""
    for name, estimator in estimators.items():
        if not hasattr(estimator, "calibrate"):
            fail(
                f"Pipeline {name!r} has no `calibrate` for adapt={mode.name!r}",
                why="Only networks learn a person from a few labelled trials",
                fix="use 'tsmnet(calibration=30)' or another network so, or "
                f"adapt='labelled-{mode.per_class}' for decoders fitted anew",
            )
        numbers = [
            value
            for key, value in estimator.get_params(deep=True).items()
            if key.rsplit("__", 1)[-1] == "calibration"
        ]
        if numbers and all(number is None for number in numbers):
            fail(
                f"Pipeline {name!r} has calibration=None, and adapt={mode.name!r} "
                "calibrates",
                why="`fit` then keeps no directions for the weights to move along",
                fix="give the number of directions, as in 'tsmnet(calibration=30)'",
            )


def fresh(estimator: Any, seed: int) -> Any:
    """Return an unfitted copy, seeded, that never guesses a domain's statistics.

    Parameters named ``random_state`` that are None get an integer drawn from
    `seed` and their own name; parameters named ``unseen`` become "pooled", so
    that target statistics come from `adapt` alone.
    """
    # clone, not deepcopy: what was fitted before, on anybody, must not come along.
    copy = clone(estimator)
    settings: dict[str, Any] = {}
    for name, value in copy.get_params(deep=True).items():
        last = name.rsplit("__", 1)[-1]
        if last == "unseen":
            settings[name] = "pooled"
        elif last == "random_state" and value is None:
            settings[name] = derive_seed(seed, name)
    return copy.set_params(**settings) if settings else copy


def can(estimator: Any, method: str) -> bool:
    """Return whether `adapt` or `partial_adapt` is there and changes something.

    An estimator may say in its attribute `can_adapt` that none of its parts do.
    """
    return hasattr(estimator, method) and bool(getattr(estimator, "can_adapt", True))


def derive_seed(seed: int, *names: object) -> int:
    """Return a 31-bit seed that depends on `seed` and the names alone."""
    text = "\0".join(map(str, (seed, *names))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big") >> 1


def call(
    estimator: Any,
    method: str,
    X: NDArray,
    y: NDArray | None = None,
    **domains: NDArray,
) -> Any:
    """Call a method with those of `subjects` and `sessions` that it takes."""
    function = getattr(estimator, method)
    taken = _taken(estimator, method, function, tuple(domains))
    keywords = {name: domains[name] for name in taken}
    if y is None:
        return function(X, **keywords)
    return function(X, y, **keywords)


def _taken(
    estimator: Any, method: str, function: Any, names: tuple[str, ...]
) -> Iterable[str]:
    parameters = inspect.signature(function).parameters
    named = [name for name in names if name in parameters]
    open_ended = any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )
    if not open_ended or len(named) == len(names):
        return named
    # scikit-learn's own **params (Pipeline, GridSearchCV) refuse metadata that no
    # step requests, and all metadata while routing is off.
    if getattr(function, "__module__", "").startswith("sklearn."):
        if not sklearn.get_config()["enable_metadata_routing"]:
            return named
        routing = sklearn.utils.metadata_routing.get_routing_for_object(estimator)
        return [*named, *routing.consumes(method, set(names) - set(named))]
    return names


def outputs(
    estimator: Any,
    X: NDArray,
    classes: tuple[str, ...],
    trained_on: NDArray,
    **domains: NDArray,
) -> Outputs:
    """Predict trials and bring what is said into the order of `classes`.

    Parameters
    ----------
    estimator : fitted estimator
    X : ndarray, shape (n_trials, ...)
    classes : tuple of str
        All class names, sorted; empty for continuous targets.
    trained_on : ndarray of str
        Sorted classes seen in training, where the estimator has no `classes_`.
    **domains : ndarray
        subjects and sessions of the trials.

    Raises
    ------
    EEGTensorError
        If the predictions have the wrong shape, are not finite, or if they or
        `classes_` name unknown classes.
    """
    y_pred = np.asarray(call(estimator, "predict", X, **domains))
    # Some libraries (CatBoost) answer with one column.
    if y_pred.shape not in ((len(X),), (len(X), 1)):
        fail(f"predict returned shape {y_pred.shape} for {len(X)} trials")
    y_pred = y_pred.ravel()
    if not classes:
        values = y_pred.astype(np.float64)
        # Means over people leave NaN out: a person it fails on would not count.
        if not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values))
            fail(f"predict returned NaN or infinity for {len(bad)} trials")
        return Outputs(values, None, None)
    known = np.asarray(classes)
    labels = y_pred.astype(str)
    codes = np.searchsorted(known, labels).clip(max=len(known) - 1)
    if (known[codes] != labels).any():
        fail(
            f"predict returned {listing(sorted(set(labels) - set(classes)))}, which "
            f"is no class among {listing(classes)}",
            fix="return the labels given to fit",
        )
    names = np.asarray(getattr(estimator, "classes_", trained_on)).astype(str)
    columns = np.searchsorted(known, names).clip(max=len(known) - 1)
    if (known[columns] != names).any():
        fail(
            f"classes_ holds {listing(names)} where the classes are {listing(classes)}",
            why="Probabilities would go to the wrong classes",
            fix="let classes_ hold the labels given to fit, sorted",
        )
    said = _said(estimator, "predict_proba", X, domains)
    if said is not None and said.shape == (len(X), len(columns)):
        probabilities = np.zeros((len(X), len(known)))
        probabilities[:, columns] = said
        return Outputs(codes, probabilities, None)
    said = _said(estimator, "decision_function", X, domains)
    if said is None or (said.ndim == 1 and len(known) != 2):
        return Outputs(codes, None, None)
    if said.ndim == 1 and len(columns) == 2:
        # One column is the score of classes_[1], whichever class that is.
        return Outputs(codes, None, said if columns[1] else -said)
    if said.shape == (len(X), len(columns)):
        decision = np.full((len(X), len(known)), np.nan)
        decision[:, columns] = said
        return Outputs(codes, None, decision)
    return Outputs(codes, None, None)


def _said(
    estimator: Any, method: str, X: NDArray, domains: dict[str, NDArray]
) -> NDArray | None:
    if not hasattr(estimator, method):
        return None
    return np.asarray(call(estimator, method, X, **domains), dtype=np.float64)
