"""What is asked of fitted estimators: classes, scores, and to stay as they are."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail, listing
from eegtensor.domains import Domain, domain_names


def codes_of(y: NDArray, classes: NDArray | None, n_trials: int) -> NDArray[np.int64]:
    """Return the codes of labels among a decoder's classes.

    Raises
    ------
    EEGTensorError
        If there is not one label a trial, or the decoder does not know one.
    """
    if y.shape != (n_trials,):
        fail(f"y has shape {y.shape} for {n_trials} trials", fix="give one a trial")
    if classes is None:
        return y.astype(np.int64)
    order = np.argsort(classes)
    place = np.searchsorted(classes[order], y).clip(max=len(classes) - 1)
    codes = order[place]
    unknown = np.unique(y[classes[codes] != y])
    if unknown.size:
        fail(
            f"y holds {listing(unknown)}, of which the decoder knows nothing",
            fix=f"give classes among {listing(classes)}",
        )
    return codes.astype(np.int64)


def ask(estimator: Any, method: str, X: Any, names: dict[str, Any]) -> Any:
    """Call a method with the names of domains that its signature takes."""
    bound = getattr(estimator, method)
    taken = inspect.signature(bound).parameters
    return bound(X, **{k: v for k, v in names.items() if v is not None and k in taken})


def scores(estimator: Any, X: Any, names: dict[str, Any]) -> NDArray[np.float64]:
    """Return decision values or log-probabilities, shape (n_trials, n_classes).

    Raises
    ------
    EEGTensorError
        If the estimator has neither.
    """
    if hasattr(estimator, "decision_function"):
        z = np.asarray(ask(estimator, "decision_function", X, names), dtype=np.float64)
        # Of two classes one number, positive for the second.
        return np.stack([np.zeros_like(z), z], axis=1) if z.ndim == 1 else z
    if not hasattr(estimator, "predict_proba"):
        fail(
            f"{type(estimator).__name__} gives neither decision values nor "
            "probabilities",
            why="Labels alone do not say which of two perturbations is the better",
            fix="attack a decoder with predict_proba and carry the trials over, see "
            "transfer_report",
        )
    p = np.asarray(ask(estimator, "predict_proba", X, names), dtype=np.float64)
    return np.log(p.clip(min=np.finfo(np.float64).tiny))


def fixed(decoder: Any, X: NDArray, *, subjects: Any, sessions: Any) -> Any:
    """Return a decoder that does not adapt to the trials that it is asked about.

    Where it would, that is a copy, adapted to these trials; elsewhere itself.
    """
    parameters: dict[str, Any] = getattr(decoder, "get_params", dict)()
    adapts = any(
        name.rpartition("__")[2] == "unseen" and value == "adapt"
        for name, value in parameters.items()
    )
    if not adapts or (subjects is None and sessions is None):
        return decoder
    names = domain_names(len(X), subjects, sessions)
    new = [name not in known_domains(decoder) for name in names]
    if not any(new):
        return decoder
    keep = np.flatnonzero(new)
    given = names_at({"subjects": subjects, "sessions": sessions}, keep)
    return copy.deepcopy(decoder).adapt(X[keep], **given)


def known_domains(estimator: Any) -> set[Domain]:
    """Return the domains that a fitted estimator, or a step of it, knows."""
    found: set[Domain] = set()
    for step in _parts(estimator):
        table = getattr(step, "domains_", None)
        norm = getattr(getattr(step, "network_", None), "norm", None)
        for names in (getattr(table, "names", ()), getattr(norm, "names", ())):
            found |= set(names)
    return found


def _parts(estimator: Any) -> Iterator[Any]:
    yield estimator
    for _, step in getattr(estimator, "steps", ()):
        yield from _parts(step)
    for name in ("recenter_", "estimator_", "decoder_"):
        if hasattr(estimator, name):
            yield from _parts(getattr(estimator, name))


def names_at(names: dict[str, Any], rows: NDArray) -> dict[str, Any]:
    """Return the domains of some trials; one name for all stays one."""
    return {
        k: v if v is None or isinstance(v, str) else np.asarray(v)[rows]
        for k, v in names.items()
    }
