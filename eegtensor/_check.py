"""Errors, warnings and validators: what was wrong, why it matters, what to do."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

RandomState = int | np.random.Generator | None


class EEGTensorError(ValueError):
    """A mistake in what the user gave: the message says what, why and what to do."""


class EEGTensorWarning(UserWarning):
    """Something the user should act on; rare by intention."""


def fail(
    what: str,
    *,
    why: str | None = None,
    fix: str | None = None,
    error: type[EEGTensorError] = EEGTensorError,
    cause: BaseException | None = None,
) -> NoReturn:
    """Raise an error in the package's one voice.

    Parameters
    ----------
    what : str
        What was wrong, with the offending value and its place (file, trial,
        channel, subject).
    why : str | None
        Why it matters.
    fix : str | None
        What to do about it.
    error : type
        The class raised.
    cause : BaseException | None
        The exception this one explains.

    Raises
    ------
    EEGTensorError
        Always.
    """
    parts = [what.rstrip(".") + "."]
    if why:
        parts.append(why.rstrip(".") + ".")
    if fix:
        parts.append("What to do: " + fix.rstrip(".") + ".")
    raise error(" ".join(parts)) from cause


def listing(items: Iterable[Any], limit: int = 8) -> str:
    """Return items joined by commas, cut after `limit` with a count of the rest."""
    shown = [str(item) for item in items]
    if len(shown) > limit:
        return ", ".join(shown[:limit]) + f" and {len(shown) - limit} more"
    return ", ".join(shown)


def check_option(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """Return `value` if it is one of `allowed`, else raise naming the choices."""
    if not any(value is option or value == option for option in allowed):
        fail(
            f"{name}={value!r} is not known",
            fix="choose one of " + ", ".join(repr(option) for option in allowed),
        )
    return value


def check_count(name: str, value: Any, *, least: int = 1) -> int:
    """Return a whole number from `least` up, else raise naming the option."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least:
        fail(f"{name}={value!r}", fix=f"give a whole number from {least} up")
    return int(value)


def check_number(
    name: str, value: Any, *, least: float = -math.inf, above: float = -math.inf
) -> float:
    """Return a finite number from `least` up and above `above`, else raise."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not (math.isfinite(value) and value >= least and value > above):
        limit = f" above {above:g}" if above > -math.inf else ""
        limit = limit or (f" from {least:g} up" if least > -math.inf else "")
        fail(f"{name}={value!r}", fix=f"give a finite number{limit}")
    return float(value)


def as_generator(random_state: RandomState) -> np.random.Generator:
    """Return a NumPy generator from a seed, a generator or None (fresh entropy)."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    if random_state is not None and not isinstance(random_state, (int, np.integer)):
        fail(
            f"random_state is a {type(random_state).__name__}",
            fix="give an int, a numpy.random.Generator or None",
        )
    if isinstance(random_state, (int, np.integer)) and random_state < 0:
        fail(f"random_state={random_state!r}", fix="give a whole number from 0 up")
    return np.random.default_rng(random_state)


def as_array(X: Any) -> NDArray:
    """Return an array of what the user gave: NaN where masked, tensors detached."""
    if hasattr(X, "detach"):
        X = X.detach().cpu()
    if np.ma.is_masked(X):
        return np.ma.filled(X.astype(np.result_type(X, np.float32)), np.nan)
    return np.asarray(X)


def check_signals(X: Any, *, name: str = "X", finite: bool = True) -> NDArray:
    """Return trials as a float array of shape (n_trials, n_channels, n_times).

    Parameters
    ----------
    X : array-like, shape (n_trials, n_channels, n_times) or (n_trials, n_times)
        Two axes are read as one channel.
    name : str
        How the caller's user knows the array.
    finite : bool
        Whether NaN and infinity are refused.

    Returns
    -------
    X : ndarray, shape (n_trials, n_channels, n_times), float32 or float64

    Raises
    ------
    EEGTensorError
        If the shape is wrong, there is no trial, or samples are not finite.
    """
    array = as_array(X)
    if array.dtype == object or array.dtype.kind not in "fiub":
        fail(
            f"{name} has dtype {array.dtype}, not numbers",
            fix="give a numeric array of shape (n_trials, n_channels, n_times)",
        )
    if array.dtype.kind != "f" or array.dtype.itemsize < 4:
        array = array.astype(np.float64)
    if array.ndim == 2:
        array = array[:, np.newaxis, :]
    if array.ndim != 3:
        fail(
            f"{name} has shape {array.shape}",
            fix="give an array of shape (n_trials, n_channels, n_times)",
        )
    if 0 in array.shape:
        fail(f"{name} is empty: its shape is {array.shape}")
    if finite:
        check_finite_trials(array, name=name)
    return array


def check_finite_trials(X: NDArray, *, name: str = "X") -> None:
    """Raise if any sample is NaN or infinite, naming trials and channels.

    Parameters
    ----------
    X : ndarray, shape (n_trials, n_channels, ...)
    name : str
    """
    # The sum is finite when every sample is, and costs no temporary of X's size.
    if np.isfinite(X.sum(dtype=np.float64)):
        return
    bad = ~np.isfinite(X)
    if not bad.any():
        return
    bad = bad.reshape(len(X), X.shape[1], -1).any(axis=2)
    fail(
        f"{name} holds NaN or infinite samples in {int(bad.any(axis=1).sum())} of "
        f"{len(X)} trials (trials {listing(np.flatnonzero(bad.any(axis=1)))}; "
        f"channels {listing(np.flatnonzero(bad.any(axis=0)))})",
        why="Covariances and filters would be NaN for the whole trial",
        fix="drop these trials or channels, or read with on_bad='drop'",
    )


def check_lengths(n_trials: int, **arrays: Any) -> None:
    """Raise unless every array that is not None has one entry per trial.

    Parameters
    ----------
    n_trials : int
    **arrays : array-like | None
        By the name under which the caller's user knows them.
    """
    for name, array in arrays.items():
        # len() of a number, and of what np.asarray makes of one, is a TypeError.
        if array is None:
            continue
        if not hasattr(array, "__len__") or getattr(array, "shape", None) == ():
            fail(f"{name} is {array!r}", fix=f"give one entry of {name} per trial")
        if len(array) != n_trials:
            fail(
                f"{name} has {len(array)} entries for {n_trials} trials",
                fix=f"give one entry of {name} per trial",
            )
