"""What identifies a run: keys of its folds, and the configuration it saves."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sklearn

from eegtensor.benchmark.fingerprint import (
    fingerprint,
    key_of,
    package_source,
    versions,
)
from eegtensor.benchmark.modes import Mode
from eegtensor.benchmark.splits import Fold
from eegtensor.store import describe
from eegtensor.trials import Trials

logger = logging.getLogger("eegtensor")


def describe_run(
    data: Trials,
    resolved: Mapping[str, Mapping[str, Any]],
    *,
    digest: str,
    protocol: str,
    modes: Sequence[Mode],
    n_folds: int,
    seed: int,
    target: str | None,
    command: str | None,
    failed: Sequence[str],
) -> dict[str, Any]:
    """Return a run's configuration as a JSON-able dict."""
    return {
        "protocol": protocol,
        "adapt": [mode.name for mode in modes],
        "pipelines": _described(resolved),
        "data_digest": digest,
        "classes": data.classes,
        "chance": 1.0 / len(data.classes) if data.classes else None,
        "n_trials": len(data),
        "n_people": len(np.unique(data.subjects)),
        "n_sessions": len(data.domain.names),
        "n_channels": data.X.shape[1],
        "n_times": data.X.shape[2],
        "sfreq": data.sfreq,
        "tmin": data.tmin,
        "ch_names": data.ch_names,
        "n_folds": n_folds,
        "target": target,
        "seed": seed,
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "failed": list(failed),
    }


def fold_keys(
    data: Trials,
    resolved: Mapping[str, Mapping[str, Any]],
    folds: Sequence[Fold],
    modes: Sequence[Mode],
    *,
    digest: str,
    protocol: str,
    seed: int,
) -> dict[tuple[str, int], dict[str, str | None]]:
    """Return the cache key of every pipeline, fold and mode; None is not cached."""
    described = describe(data.y, data.metadata, data.info, data.tmin)
    shared = {
        # A digest that a store brings is of its writing; metadata may have changed.
        "data": [digest, key_of(described)],
        "versions": versions(),
        "protocol": protocol,
        # A change of code within a version must not return its old scores.
        "source": package_source(),
        "seed": seed,
        # Whether scikit-learn's own pipelines pass domains on depends on it.
        "sklearn": sklearn.get_config(),
    }
    divisions = [
        [fold.index, key_of({"train": fold.train.tolist(), "test": fold.test.tolist()})]
        for fold in folds
    ]
    keys: dict[tuple[str, int], dict[str, str | None]] = {}
    for name, by_mode in resolved.items():
        prints = {id(e): fingerprint(e) for e in by_mode.values()}
        # Modes may share a problem, which is said once.
        for problem in dict.fromkeys(p.problem for p in prints.values() if not p.key):
            logger.info("pipeline %r is not cached: %s", name, problem)
        for i, division in enumerate(divisions):
            keys[name, i] = {}
            for mode in modes:
                estimator = prints[id(by_mode[mode.name])].key
                causes = shared | {
                    "estimator": estimator,
                    "mode": mode.name,
                    "fold": division,
                }
                keys[name, i][mode.name] = None if estimator is None else key_of(causes)
    return keys


def _described(resolved: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the parameters of every pipeline's estimators, one entry if they agree."""
    described: dict[str, Any] = {}
    for name, by_mode in resolved.items():
        texts = {
            mode: " ".join(f"{type(e).__name__}({_parameters(e)})".split())
            for mode, e in by_mode.items()
        }
        same = len(set(texts.values())) == 1
        described[name] = next(iter(texts.values())) if same else texts
    return described


def _parameters(estimator: Any) -> str:
    parameters = estimator.get_params(deep=False)
    return ", ".join(f"{name}={value!r}" for name, value in parameters.items())
