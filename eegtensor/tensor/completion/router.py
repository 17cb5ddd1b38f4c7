"""One call that looks at what is missing and restores it with what fits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import check_count, check_option
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
from eegtensor.tensor.completion._prepare import (
    Part,
    Prepared,
    excerpt,
    parts,
    prepare,
)
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
        Error relative to the signal (NRMSE, every channel in units of its own
        power), measured on observed cells that were hidden in the same kind of
        pattern; NaN where none could be hidden.
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
        In any unit, one for all channels where some hold no data: the spline
        averages channels. Elsewhere their gains play no part. NaN is lost too.
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
        Two arrays of the size of X. Long recordings are completed in parts: the
        work takes about 200 MB more, whatever their length.

    Raises
    ------
    EEGTensorError
        If shapes or options do not fit, nothing is observed, an observed cell is
        infinite, or a channel holds no data and there are no positions.
    """
    check_option("method", method, ("auto", *METHODS))
    check_count("random_state", random_state, least=0)
    tensor = floating(X)
    # Masks, patterns and draws are made on the CPU; so is the rest.
    prepared = prepare(tensor.detach().cpu(), mask, positions)
    live, varied, seen = prepared.live, prepared.varied, prepared.seen
    mean = prepared.mean.to(tensor.dtype)[:, None]
    values = mean.expand(prepared.shape).clone()
    std = torch.zeros_like(values)
    rows: list[Restored] = []
    if not bool(seen[:, varied].all()):
        rows = _restore(prepared, values, std, method, random_state)
    flat = int((~seen[:, live & ~varied]).count_nonzero())
    if flat:
        rows.append(Restored("flat", flat, "constant 1.00", 0.0))
    # In place: a long recording has no room for more arrays of this size.
    torch.where(seen, prepared.original, values, out=values)
    if not bool(live.all()):
        cells, error = restore_channels(values, std, prepared)
        rows.append(Restored(NAMES[CHANNEL], cells, "spline 1.00", error))
        # Such a channel may have a few observed cells.
        torch.where(seen, prepared.original, values, out=values)
    std.masked_fill_(seen, 0.0)
    device, shape = tensor.device, tensor.shape
    return Completion(
        values.view(shape).to(device), std.view(shape).to(device), tuple(rows)
    )


def _restore(
    prepared: Prepared, values: Tensor, std: Tensor, method: str, random_state: int
) -> list[Restored]:
    """Write completed values and their std, in the unit given; return the table.

    Of channels with data that vary. They are standardised part by part.
    """
    varied = prepared.varied
    rng = np.random.default_rng(random_state)
    kinds = kinds_of(prepared.seen[:, varied].numpy(force=True))
    part = excerpt(prepared, kinds)
    trial = make_trial(part.problem, part.kinds, rng)
    names, predictors = learn_methods(trial, method, random_state)
    choices = weigh(trial, predictors, rng)
    pieces = list(parts(torch.Size(kinds.shape)))
    learned_whole = len(pieces) == 1 and part.problem.values.shape == kinds.shape
    whole = part.problem if learned_whole else None
    del part, trial

    def write(piece: Part) -> None:
        own = whole or prepared.part(piece.trials, piece.times)
        at = piece.trials, slice(None), piece.times
        found = _mixed(own, kinds[at], predictors, choices)
        completed, spread = (x[..., piece.inner] for x in found)
        completed.mul_(prepared.scale[:, None]).add_(prepared.mean[varied, None])
        spread.mul_(prepared.scale[:, None])
        begin = piece.times.start + piece.inner.start
        here = piece.trials, slice(None), slice(begin, begin + spread.shape[-1])
        values[here][:, varied] = completed.to(values.dtype)
        std[here][:, varied] = spread.to(std.dtype)

    # A function: nothing of one piece is kept while the next one is completed.
    for piece in pieces:
        write(piece)
    rows = []
    for kind in (SCATTERED, RUN, GAP):
        cells = int((kinds == kind).sum())
        if cells:
            choice = choices.get(kind) or untried(len(names))
            words = _words(names, choice)
            rows.append(Restored(NAMES[kind], cells, words, choice.error))
    return rows


def _mixed(
    problem: Problem,
    kinds: NDArray[np.int8],
    predictors: list[Predict],
    choices: dict[int, Choice],
) -> tuple[Tensor, Tensor]:
    """Return values by the methods as they are weighed, and their std."""
    values, variance = predictors[0](problem)
    # In place, here and below: estimates of long parts are large, and nobody's else.
    std = torch.ones_like(values) if variance is None else variance.sqrt_()
    others: dict[int, Tensor] = {}
    for kind in (SCATTERED, RUN, GAP):
        where = torch.from_numpy(kinds == kind)
        if not bool(where.any()):
            continue
        choice = choices.get(kind) or untried(len(predictors))
        total = float(choice.weights[0]) * values[where]
        for k in range(1, len(predictors)):
            weight = float(choice.weights[k])
            if weight > 0.01:
                if k not in others:
                    others[k] = predictors[k](problem).values
                total += weight * others[k][where]
        values[where] = total
        std[where] *= choice.widen
    return values, std


def _words(names: list[str], choice: Choice) -> str:
    parts = [
        f"{name} {weight:.2f}"
        for name, weight in zip(names, choice.weights, strict=True)
        if weight > 0.01
    ]
    return " + ".join(parts) or "zero"
