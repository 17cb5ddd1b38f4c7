"""A table of what speaks for each number of components, and a choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eegtensor._check import check_option
from eegtensor.features._trials import check_tensor
from eegtensor.tensor.cp import cp
from eegtensor.tensor.nonnegative import nonnegative_cp
from eegtensor.tensor.rank import choose_rank

MODELS = {"cp": cp, "nonnegative-cp": nonnegative_cp}


class RankChoice(NamedTuple):
    """A choice and what it rests on.

    Attributes
    ----------
    rank : int
    table : pandas.DataFrame
        One row a rank: fit, error over held-out cells and its standard error, core
        consistency in percent, factor match between halves of the trials,
        congruence of the most alike components.
    choices : dict of str to int
        What each method that was computed would choose.
    """

    rank: int
    table: pd.DataFrame
    choices: dict[str, int]


def select_rank(
    X: NDArray,
    ranks: Sequence[int] = tuple(range(1, 9)),
    *,
    method: str = "cross-validation",
    model: str = "cp",
    center: bool = True,
    random_state: int = 0,
    **options: Any,
) -> RankChoice:
    """Compare numbers of components for trials, and choose one.

    Parameters
    ----------
    X : ndarray, shape (n_trials, d1, ..., dm)
        Training trials alone; NaN where missing.
    ranks : sequence of int
    method : "cross-validation" | "core-consistency" | "split-half" | "ard"
        Whose choice is returned, see `eegtensor.tensor.choose_rank`.
    model : "cp" | "nonnegative-cp"
    center : bool
        Whether the mean over trials is taken off first, as `CPFeatures` does; of
        no effect for "nonnegative-cp".
    random_state : int
    **options
        For `eegtensor.tensor.choose_rank`.

    Returns
    -------
    RankChoice

    Notes
    -----
    Wavelet power is alike at neighbouring frequencies and times, so that cells held
    out can be told from their neighbours: many components pass, of which few are
    found again in other people. For components to look at and name, take
    ``method="split-half"`` or ``"core-consistency"``.
    """
    check_option("model", model, tuple(MODELS))
    X = check_tensor(X)
    if center and model == "cp":
        X = X - np.nanmean(X, axis=0, keepdims=True)
    found = choose_rank(
        X,
        ranks,
        method=method,
        fit=MODELS[model],
        random_state=random_state,
        **options,
    )
    table = pd.DataFrame(found.rows()).set_index("rank")
    return RankChoice(found.choice, table, found.choices)
