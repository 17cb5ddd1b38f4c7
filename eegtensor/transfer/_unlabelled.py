"""Labels of which some are not known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eegtensor._check import check_lengths
from eegtensor.features._base import class_codes
from eegtensor.training import METHODS, UNLABELLED


def known_classes(y: Any, n_trials: int, purpose: str) -> tuple[NDArray, NDArray]:
    """Return the sorted classes and each trial's code, -1 where y is None or NaN.

    Parameters
    ----------
    y : array-like, shape (n_trials,)
    n_trials : int
    purpose : str
        Who asks, for the messages.

    Raises
    ------
    EEGTensorError
        As `class_codes`, of the labels that are known.
    """
    labels = np.asarray(y)
    missing = pd.isna(labels) if labels.ndim == 1 else np.zeros(1, dtype=bool)
    if not missing.any():
        return class_codes(y, n_trials, purpose)
    check_lengths(n_trials, y=labels)
    # A list again: numbers beside None are kept as objects, beside NaN as floats.
    known = np.asarray(labels[~missing].tolist())
    if known.dtype.kind == "f" and (known == np.round(known)).all():
        known = known.astype(np.int64)
    classes, codes = class_codes(known, len(known), purpose)
    full = np.full(n_trials, UNLABELLED)
    full[~missing] = codes
    return classes, full


def of_known(
    held_out: Any, how: Any, codes: NDArray, names: Any, y: NDArray, *options: Any
) -> NDArray[np.bool_]:
    """Return which trials a function of labelled trials alone keeps back.

    Parameters
    ----------
    held_out : callable
        ``held_out(how, codes, names, y, *options)``.
    how, codes, names, y, *options
        Its arguments, with y = -1 where the class is not known.
    """
    kept, known = np.zeros(len(y), dtype=bool), y != UNLABELLED
    # Domains without a label are no people to validate on.
    domains, own = np.unique(codes[known], return_inverse=True)
    kept[known] = held_out(how, own, [names[d] for d in domains], y[known], *options)
    return kept


def as_tuple(named: Any) -> tuple[Any, ...]:
    """Return one or several methods, or none, as a tuple."""
    if named is None:
        return ()
    return tuple(named) if isinstance(named, (tuple, list)) else (named,)


def learns_unlabelled(method: Any) -> bool:
    """Return whether an objective or a recipe learns from trials without a label.

    Parameters
    ----------
    method : str | object
        As estimators take it, such as ``"0.3 * vat"``, or an objective itself.
    """
    if not isinstance(method, str):
        # Losses that judge a label are no regularisers.
        return bool(getattr(method, "training_only", False))
    kinds = ("objective", "recipe")
    name = method.partition("(")[0].rpartition("*")[2].strip()
    if name not in METHODS or METHODS[name].kind not in kinds:
        return False
    needs = METHODS[name].needs
    return "unlabelled" in needs or (
        METHODS[name].kind == "objective" and "y" not in needs
    )
