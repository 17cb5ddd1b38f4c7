"""Scores of structures: one fit each, kept, counted, and shared among processes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import fail
from eegtensor._optional import need
from eegtensor.tensor._canonical import (
    Bounds,
    State,
    Template,
    canonical,
    relative_size,
)
from eegtensor.tensor.network import TensorNetwork, tensor_network

# Structures of one step that are fitted side by side; between such groups, those
# that the best so far rules out are dropped. Not the number of processes: that
# must change no result.
_GROUP = 4
# As many entries as this times the cells are no compression: never fitted. In a
# dense graph one such core takes as long as a hundred fits of a ring.
_LARGEST, _LARGEST_GRAPH = 10.0, 2.0


class OutOfFits(Exception):
    """The fits allowed are used up."""


def fit_structure(
    X: Tensor, table: NDArray[np.int64], seed: int, options: dict[str, Any]
) -> TensorNetwork:
    """Return the fit of a structure: the same wherever and whenever it is asked."""
    upper = table[np.triu_indices(len(table), 1)]
    random = np.random.default_rng([seed, *upper.tolist()])
    model: TensorNetwork = tensor_network(X, table, random_state=random, **options)
    return model


class Fits:
    """Scores F = phi + penalty * RSE of structures, by fits that are made once.

    A fit depends on the structure alone, not on the way to it. So what a run has
    fitted, another run can take over, and leaving fits out changes no other.

    Parameters
    ----------
    X : Tensor of float64
    template : Template
    penalty : float
    seed : int
    options : dict
        Of `tensor_network`.
    n_jobs : int
    checkpoint : path | None
    prune, cache : bool
    """

    def __init__(
        self,
        X: Tensor,
        template: Template,
        penalty: float,
        seed: int,
        options: dict[str, Any],
        *,
        n_jobs: int = 1,
        checkpoint: str | os.PathLike[str] | None = None,
        prune: bool = True,
        cache: bool = True,
    ) -> None:
        self.X, self.template, self.penalty = X, template, penalty
        self.n_fits, self.allowed = 0, 0
        self.best: tuple[float, State] | None = None
        self._seed, self._options, self._n_jobs = seed, options, n_jobs
        self._bounds, self.prune, self._cache = Bounds(X), prune, cache
        self._rse: dict[str, float] = {}
        self._best_model: tuple[str, TensorNetwork] | None = None
        self._file = None if checkpoint is None else Path(checkpoint)
        # Fits of an earlier run: they count when this run comes to them.
        self._earlier = self._read()
        self._largest = _LARGEST_GRAPH if template.name == "graph" else _LARGEST

    def size(self, state: State) -> float:
        """Return phi."""
        return relative_size(self.template.table(state), self.X.shape)

    def least_error(self, state: State) -> float:
        """Return a squared relative error that the structure cannot go below."""
        return self._bounds(self.template.table(state))

    def least(self, state: State) -> float:
        """Return a score that the structure cannot go below."""
        return self.size(state) + self.penalty * self.least_error(state)

    def known(self, state: State) -> float | None:
        """Return the squared relative error, if the structure was fitted."""
        return self._rse.get(canonical(self.template.table(state)))

    def errors(self, states: Sequence[State], limit: float = math.inf) -> list[float]:
        """Return squared relative errors, infinite where the score is >= limit.

        Parameters
        ----------
        states : sequence of State
        limit : float
            A score to beat. Structures that cannot are not fitted.

        Raises
        ------
        OutOfFits
            After the last fit allowed.
        """
        tables = {
            canonical(t): (t, s) for s in states for t in [self.template.table(s)]
        }
        waiting = []
        for key, (table, state) in tables.items():
            if self._cache and key in self._rse:
                self._note(key, state)
            elif relative_size(table, self.X.shape) < self._largest:
                waiting.append((self.least(state), key))
        waiting.sort()
        best = limit
        while waiting:
            if self.prune:
                waiting = [(low, key) for low, key in waiting if low < best]
            group, waiting = waiting[:_GROUP], waiting[_GROUP:]
            left = self.allowed - self.n_fits
            keys = [key for _, key in group][:left]
            self._fit({key: tables[key][0] for key in keys})
            for key in keys:
                best = min(best, self._note(key, tables[key][1]))
            if len(keys) < len(group):
                raise OutOfFits
        out = []
        for state in states:
            rse = self.known(state)
            out.append(math.inf if rse is None else rse)
        return out

    def scores(self, states: Sequence[State], limit: float = math.inf) -> list[float]:
        """Return scores, infinite where a structure cannot be below the limit."""
        return [
            self.size(state) + self.penalty * rse
            for state, rse in zip(states, self.errors(states, limit), strict=True)
        ]

    def model(self, state: State) -> TensorNetwork:
        """Return the fitted network of a structure."""
        table = self.template.table(state)
        key = canonical(table)
        if self._best_model is not None and self._best_model[0] == key:
            return self._best_model[1]
        return fit_structure(self.X, table, self._seed, self._options)

    def _note(self, key: str, state: State) -> float:
        score = self.size(state) + self.penalty * self._rse[key]
        if self.best is None or score < self.best[0]:
            self.best = score, state
        return score

    def _fit(self, tables: dict[str, NDArray[np.int64]]) -> None:
        self.n_fits += len(tables)
        new = {k: t for k, t in tables.items() if k not in self._earlier}
        models = self._run(list(new.values()))
        for key, model in zip(new, models, strict=True):
            self._rse[key] = model.rse
            score = relative_size(new[key], self.X.shape) + self.penalty * model.rse
            if self.best is None or score < self.best[0]:
                self._best_model = key, model
        for key in tables:
            if key not in new:
                self._rse[key] = self._earlier[key]
        if new:
            self._write()

    def _run(self, tables: list[NDArray[np.int64]]) -> list[TensorNetwork]:
        if self._n_jobs == 1 or len(tables) < 2:
            return [fit_structure(self.X, t, self._seed, self._options) for t in tables]
        joblib = need("joblib", "fitting structures in several processes")
        with joblib.parallel_config("loky", inner_max_num_threads=1):
            parallel = joblib.Parallel(n_jobs=self._n_jobs)
            found: list[TensorNetwork] = parallel(
                joblib.delayed(fit_structure)(self.X, t, self._seed, self._options)
                for t in tables
            )
        return found

    def _problem(self) -> dict[str, Any]:
        """Return what fits depend on, as it stands in the checkpoint."""
        probe = torch.linspace(-1.0, 1.0, self.X.numel(), dtype=torch.float64)
        return {
            "shape": list(self.X.shape),
            "probe": float(probe.sin() @ self.X.reshape(-1)),
            "seed": self._seed,
            "options": self._options,
        }

    def _read(self) -> dict[str, float]:
        if self._file is None:
            return {}
        if not self._file.resolve().parent.is_dir():
            fail(f"{self._file.resolve().parent} is no folder", fix="make it first")
        if not self._file.exists():
            return {}
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            problem, fitted = content["problem"], content["fitted"]
        except (ValueError, KeyError, TypeError) as error:
            fail(
                f"{self._file} is not the checkpoint of a search",
                fix="give another file, or delete this one",
                cause=error,
            )
        own = self._problem()
        # Sums may differ in the last digit from one machine to another.
        near = math.isclose(
            problem.pop("probe", math.nan), own.pop("probe"), rel_tol=1e-6
        )
        if not near or problem != own:
            fail(
                f"{self._file} holds fits of another tensor or of other options",
                why="Its errors would be taken for errors of this search",
                fix="give the options of that run, or another file",
            )
        return {str(key): float(rse) for key, rse in fitted.items()}

    def _write(self) -> None:
        if self._file is None:
            return
        best = None
        if self.best is not None:
            score, state = self.best
            best = {"score": score, **state._asdict()}
        content = {
            "problem": self._problem(),
            "template": self.template.name,
            "n_fits": self.n_fits,
            "best": best,
            "fitted": {**self._earlier, **self._rse},
        }
        scratch = self._file.with_name(f".{self._file.name}.{os.getpid()}")
        scratch.write_text(json.dumps(content, indent=1), encoding="utf-8")
        os.replace(scratch, self._file)
