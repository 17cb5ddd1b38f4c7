"""One call that looks at what is missing and restores it with what fits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import check_option
from eegtensor.geometry._bridge import Array, bridged, floating
from eegtensor.tensor.completion._choose import Choice, untried
from eegtensor.tensor.completion._dead import restore_channels
from eegtensor.tensor.completion._holdout import learn_methods, make_trial, weigh
from eegtensor.tensor.completion._kinds import (
    CHANNEL,
    GAP,
    NAMES,
    RUN,
    SCATTERED,
    kinds_of,
)
from eegtensor.tensor.completion._prepare import excerpt, parts, prepare
from eegtensor.tensor.completion.methods import METHODS, Predict, Problem


class Restored(NamedTuple):
    """One row of the table of what was restored.

    Attributes
    ----------
    kind : str
        "scattered" cells, "run" (a channel for a while), "gap" (all channels
        for a while), "channel" (a channel for the whole recording) or "flat"
        (cells of channels that hold one value, which they take).
    cells : int
    method : str
        Methods and their weights.
    expected_error : float
        Error relative to the signal (NRMSE), measured on observed cells that were
        hidden in the same kind of pattern; NaN where none could be hidden.
    """

    kind: str
    cells: int
    method: str
    expected_error: float


class Completion(NamedTuple):
    """Completed signals, how sure they are, and what was done.

    Attributes
    ----------
    X : array, the shape and dtype given (integers become float64)
        Observed cells are unchanged, bit for bit.
    std : array, same shape
        X +- 1.645 std is a 90 % interval; zero where observed or flat.
    table : tuple of Restored
    """

    X: Array
    std: Array
    table: tuple[Restored, ...]


@bridged
def complete(
    X: Array,
    mask: Array | None = None,
    *,
    positions: Array | None = None,
    method: str = "auto",
    random_state: int = 0,
) -> Completion:
    """Restore lost cells of multichannel signals.

    Looks at what is lost, cell by cell, and takes what restores it best: scattered
    cells, runs in single channels and gaps in all of them are given their mean
    under a stationary process of all channels and delays (`delay`), weighted
    against the spatial covariance (`gaussian`) and the spherical spline as hidden
    observed cells advise; channels without any data take the spline.

    Parameters
    ----------
    X : array, shape (n_channels, n_times) or (n_trials, n_channels, n_times)
        In any unit. NaN is lost too.
    mask : array of bool, same shape, | None
        True where observed.
    positions : array, shape (n_channels, 3) | None
        Of the electrodes, about the centre of the head's sphere. Needed only for
        channels without any data.
    method : str
        "auto" or one of `METHODS`, then used alone except for channels without data.
    random_state : int

    Returns
    -------
    Completion

    Raises
    ------
    EEGTensorError
        If shapes do not fit, nothing is observed, an observed cell is infinite,
        or a channel holds no data and there are no positions.
    """
    check_option("method", method, ("auto", *METHODS))
    tensor = floating(X)
    # Masks, patterns and draws are made on the CPU; so is the rest.
    prepared = prepare(tensor.detach().cpu(), mask, positions)
    problem, live, varied = prepared.problem, prepared.live, prepared.varied
    values = tensor.new_zeros(prepared.shape, dtype=torch.float64)
    std = torch.zeros_like(values)
    rows: list[Restored] = []
    if not bool(problem.seen.all()):
        found, spread, rows = _restore(problem, method, random_state)
        scale = problem.scale[:, None]
        values[:, varied], std[:, varied] = found * scale, spread * scale
    else:
        values[:, varied] = problem.values * problem.scale[:, None]
    values += prepared.mean[:, None]
    flat = int((~prepared.seen[:, live & ~varied]).sum())
    if flat:
        rows.append(Restored("flat", flat, "constant 1.00", 0.0))
    if not bool(live.all()):
        cells, error = restore_channels(values, std, prepared)
        rows.append(Restored(NAMES[CHANNEL], cells, "spline 1.00", error))
    out = torch.where(prepared.seen, prepared.original, values.to(tensor.dtype))
    std = torch.where(prepared.seen, 0.0, std).to(tensor.dtype)
    device, shape = tensor.device, tensor.shape
    return Completion(
        out.view(shape).to(device), std.view(shape).to(device), tuple(rows)
    )


def _restore(
    problem: Problem, method: str, random_state: int
) -> tuple[Tensor, Tensor, list[Restored]]:
    """Return completed values, their std and the table, for channels with data."""
    rng = np.random.default_rng(random_state)
    kinds = kinds_of(problem.seen.numpy(force=True))
    part = excerpt(problem, kinds)
    trial = make_trial(part.problem, part.kinds, rng)
    names, predictors = learn_methods(trial, method, random_state)
    choices = weigh(trial, predictors, rng)
    values, std = torch.empty_like(problem.values), torch.empty_like(problem.values)
    pieces = list(parts(problem.values.shape))
    for piece in pieces:
        at = piece.trials, slice(None), piece.times
        own = problem
        if len(pieces) > 1:
            own = problem._replace(
                values=problem.values[at], seen=problem.seen[at], origin=object()
            )
        found = _mixed(own, kinds[at], predictors, choices)
        here, inner = (piece.trials, slice(None)), (..., piece.inner)
        begin = piece.times.start + piece.inner.start
        columns = slice(begin, begin + found[0][inner].shape[-1])
        values[(*here, columns)], std[(*here, columns)] = (x[inner] for x in found)
    rows = []
    for kind in (SCATTERED, RUN, GAP):
        cells = int((kinds == kind).sum())
        if cells:
            choice = choices.get(kind) or untried(len(names))
            words = _words(names, choice)
            rows.append(Restored(NAMES[kind], cells, words, choice.error))
    return values, std, rows


def _mixed(
    problem: Problem,
    kinds: NDArray[np.int8],
    predictors: list[Predict],
    choices: dict[int, Choice],
) -> tuple[Tensor, Tensor]:
    """Return values by the methods as they are weighed, and their std."""
    values, variance = predictors[0](problem)
    std = torch.ones_like(values) if variance is None else variance.sqrt()
    mixed, spread = values.clone(), std.clone()
    others: dict[int, Tensor] = {}
    for kind in (SCATTERED, RUN, GAP):
        where = torch.from_numpy(kinds == kind)
        if not bool(where.any()):
            continue
        choice = choices.get(kind) or untried(len(predictors))
        total = float(choice.weights[0]) * values
        for k in range(1, len(predictors)):
            weight = float(choice.weights[k])
            if weight > 0.01:
                if k not in others:
                    others[k] = predictors[k](problem).values
                total = total + weight * others[k]
        mixed = torch.where(where, total, mixed)
        spread = torch.where(where, choice.widen * std, spread)
    return mixed, spread


def _words(names: list[str], choice: Choice) -> str:
    parts = [
        f"{name} {weight:.2f}"
        for name, weight in zip(names, choice.weights, strict=True)
        if weight > 0.01
    ]
    return " + ".join(parts) or "zero"
