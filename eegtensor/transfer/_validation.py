"""Which source trials are kept back to choose the epoch, and how they are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from eegtensor._check import check_option, fail
from eegtensor.domains import Domain
from eegtensor.training import Batch, CrossEntropy, evaluate, evaluating

VALIDATIONS = ("trials", "domains", None)


def held_out(
    how: str | None,
    codes: NDArray,
    names: Sequence[Domain],
    y: NDArray,
    fraction: float,
    seed: int,
) -> NDArray[np.bool_]:
    """Return which source trials are kept back for validation.

    Parameters
    ----------
    how : "trials" | "domains" | None
        A share of every class in every domain; whole people, or sessions where
        there is one person; nothing.
    codes : ndarray of int, shape (n_trials,)
        Domain of each trial.
    names : sequence of Domain
        By code.
    y : ndarray of int, shape (n_trials,)
    fraction : float
        Share of trials or of people, at least one of these.
    seed : int

    Raises
    ------
    EEGTensorError
        If the fraction is out of range, or nothing would be left on a side.
    """
    check_option("validation", how, VALIDATIONS)
    kept = np.zeros(len(y), dtype=bool)
    if how is None:
        return kept
    if not 0.0 < fraction < 1.0:
        fail(
            f"validation_fraction={fraction!r}",
            fix="give a share between 0 and 1, or validation=None",
        )
    rng = np.random.default_rng([seed, 1])
    if how == "domains":
        kept = _people(names, fraction, rng)[codes]
    else:
        kept = _share_of_each(codes * (int(y.max()) + 1) + y, fraction, rng)
    for side, which in (("train on", ~kept), ("validate on", kept)):
        if len(np.unique(y[which])) < 2:
            fail(
                f"validation={how!r} leaves trials of fewer than two classes to {side}",
                fix="give more trials, or set validation=None",
            )
    return kept


def _people(
    names: Sequence[Domain], fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return which domains belong to the people drawn."""
    owner: list[tuple[str, ...]] = [(name.dataset, name.subject) for name in names]
    # One person: sessions stand for people.
    if len(set(owner)) == 1:
        owner = [tuple(name) for name in names]
    people = sorted(set(owner))
    if len(people) == 1:
        fail(
            "validation='domains' needs at least two people or sessions, there is one",
            why="The epoch is chosen on domains that training does not see",
            fix="pass subjects and sessions to fit, or set validation='trials'",
        )
    count = min(max(1, round(fraction * len(people))), len(people) - 1)
    drawn = {people[i] for i in rng.permutation(len(people))[:count]}
    return np.asarray([person in drawn for person in owner])


def _share_of_each(
    cells: NDArray, fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return a share of each cell's trials, rounded at random."""
    n_trials, size = len(cells), np.bincount(cells)
    # At least one trial of each cell stays in training.
    # At random, so that small cells give their share on average.
    quota = np.floor(fraction * size + rng.random(len(size)))
    quota = np.minimum(quota, np.maximum(size - 1, 0))
    shuffled = np.lexsort((rng.random(n_trials), cells))
    place = np.arange(n_trials) - (np.cumsum(size) - size)[cells[shuffled]]
    kept = np.zeros(n_trials, dtype=bool)
    kept[shuffled] = place < quota[cells[shuffled]]
    return kept


def refitted_loss(data: Batch) -> Callable[[nn.Module], dict[str, float]]:
    """Return a validation that first fits the statistics of its own domains.

    Their trials, not their labels, set the statistics, as at a new person; the
    rows of other domains stay.

    Parameters
    ----------
    data : Batch
        Labelled trials of domains that training leaves out.
    """
    objective = CrossEntropy()

    def validate(model: nn.Module) -> dict[str, float]:
        with torch.no_grad(), evaluating(model):
            model.fit_statistics(data.x, data.domain)  # type: ignore[operator]
        return {"valid_loss": evaluate(model, data, objective)["loss"]}

    return validate
