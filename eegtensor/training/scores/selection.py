"""Which trials to keep by their scores, person by person."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import check_lengths, check_number, fail
from eegtensor.training.samplers.seeded import as_codes


def quantiles_within(scores: Any, groups: Any = None) -> NDArray[np.float64]:
    """Return the rank of each score among those of its group, in (0, 1).

    Parameters
    ----------
    scores : array-like, shape (n_trials,)
    groups : array-like, shape (n_trials,) | None
        Subjects or sessions; all trials are one group without.

    Returns
    -------
    quantiles : ndarray, shape (n_trials,)
        (rank + 1/2) / n_group; NaN where the score is.
    """
    values = _numbers(scores)
    codes = np.zeros(len(values), np.int64) if groups is None else as_codes("g", groups)
    check_lengths(len(values), groups=codes)
    known = np.flatnonzero(~np.isnan(values))
    found = np.full(len(values), np.nan)
    order = known[np.lexsort((values[known], codes[known]))]
    size = np.bincount(codes[known], minlength=codes.max() + 1)
    first = np.cumsum(size) - size
    rank = np.arange(len(order)) - first[codes[order]]
    found[order] = (rank + 0.5) / size[codes[order]]
    return found


def keep_trials(
    scores: Any, share: float, *, offset: float = 0.0, groups: Any = None
) -> NDArray[np.bool_]:
    """Return which trials to keep: those with large scores but the very largest.

    Parameters
    ----------
    scores : array-like, shape (n_trials,)
        Such as `el2n`; trials without one (NaN) are kept.
    share : float
        Of each group's trials, to keep.
    offset : float
        Share with the largest scores that is left out first: noise, wrong labels.
    groups : array-like, shape (n_trials,) | None
        Subjects or sessions.

    Returns
    -------
    kept : ndarray of bool, shape (n_trials,)
    """
    check_number("share", share, above=0.0)
    check_number("offset", offset, least=0.0)
    if share + offset > 1:
        fail(
            f"share={share} and offset={offset}", fix="give shares that add up to <= 1"
        )
    q = quantiles_within(scores, groups)
    return np.isnan(q) | ((q < 1 - offset) & (q >= 1 - offset - share))


def _numbers(scores: Any) -> NDArray[np.float64]:
    if isinstance(scores, Tensor):
        scores = scores.detach().cpu().to(torch.float64).numpy()
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        fail(f"Scores have shape {values.shape}", fix="give one number a trial")
    return values
