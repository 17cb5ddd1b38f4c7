"""Domains: (dataset, subject, session) and their integer codes.

A domain is one sitting of one person. Networks and estimators see int64 codes
of a table of their own; `UNSEEN` (-1) marks a domain the table does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_lengths, check_option, fail, listing

UNSEEN = -1
UNSEEN_POLICIES = ("pooled", "adapt", "raise")


class Domain(NamedTuple):
    """One sitting of one person in one dataset."""

    dataset: str
    subject: str
    session: str

    # Parts may hold slashes themselves: for messages, never for keys.
    def __str__(self) -> str:
        """Return the parts that are set, joined by slashes."""
        return "/".join(part for part in self if part) or "(no domain)"


class DomainCodes(NamedTuple):
    """Trials' domains: `names[codes[i]]` is the domain of trial i."""

    codes: NDArray[np.int64]
    names: tuple[Domain, ...]


def domain_names(
    n_trials: int,
    subjects: ArrayLike | None = None,
    sessions: ArrayLike | None = None,
    datasets: ArrayLike | None = None,
) -> list[Domain]:
    """Return one `Domain` per trial; a part that is None is the empty string.

    Parameters
    ----------
    n_trials : int
    subjects, sessions, datasets : array-like of shape (n_trials,) | str | None
        Labels; they are compared as strings, and one string stands for all.

    Raises
    ------
    EEGTensorError
        If a length differs from `n_trials` or a label is missing (NaN, None).
    """
    columns = [
        _labels(n_trials, name, values)
        for name, values in (
            ("datasets", datasets),
            ("subjects", subjects),
            ("sessions", sessions),
        )
    ]
    return [Domain(*row) for row in zip(*columns, strict=True)]


def _labels(n_trials: int, name: str, values: Any) -> list[str]:
    if values is None:
        return [""] * n_trials
    if isinstance(values, str):
        return [values] * n_trials
    # As objects: a NaN among strings would become the string 'nan'.
    array = np.asarray(values, dtype=object)
    if array.ndim != 1:
        fail(f"{name} has shape {array.shape}", fix=f"give one of {name} per trial")
    check_lengths(n_trials, **{name: array})
    labels = array.tolist()
    missing = missing_rows(labels)
    if missing:
        fail(
            f"{name} is missing (None or NaN) for trials {listing(missing)}",
            why="A trial without a person or session would be normalised wrongly",
            fix=f"fill {name} for every trial",
        )
    return [str(label) for label in labels]


def missing_rows(values: Sequence[Any]) -> list[int]:
    """Return which values are None, NaN, NaT or pandas.NA."""
    # Not pandas.isna: this module must import where pandas is absent.
    return [i for i, v in enumerate(values) if v is None or _is_nan(v)]


def _is_nan(value: Any) -> bool:
    try:
        return bool(value != value)
    except TypeError:
        # pandas.NA compares to pandas.NA, which is neither true nor false.
        return True


class DomainTable:
    """An ordered table of domain names, and the codes of trials in it.

    Parameters
    ----------
    names : iterable of Domain or of (dataset, subject, session)

    Examples
    --------
    >>> table = DomainTable()
    >>> table.encode(domain_names(3, ["ann", "bob", "ann"]), grow=True)
    array([0, 1, 0])
    >>> table.encode(domain_names(2, ["bob", "eve"]))
    array([ 1, -1])
    """

    def __init__(self, names: Iterable[Sequence[str]] = ()) -> None:
        # Codes are positions: a dict keeps its order, and so does a state_dict.
        self._code: dict[Domain, int] = {}
        for name in names:
            self._code.setdefault(Domain(*name), len(self._code))

    @property
    def names(self) -> tuple[Domain, ...]:
        """The domains in order of their codes."""
        return tuple(self._code)

    def __len__(self) -> int:
        return len(self._code)

    def __contains__(self, name: Sequence[str]) -> bool:
        return Domain(*name) in self._code

    def encode(
        self, names: Iterable[Sequence[str]], *, grow: bool = False
    ) -> NDArray[np.int64]:
        """Return int64 codes, `UNSEEN` for names that are not in the table.

        Parameters
        ----------
        names : iterable of Domain
            One per trial.
        grow : bool
            Whether unknown names are added to the end of the table.
        """
        codes = []
        for name in names:
            key = Domain(*name)
            if grow:
                codes.append(self._code.setdefault(key, len(self._code)))
            else:
                codes.append(self._code.get(key, UNSEEN))
        return np.asarray(codes, dtype=np.int64)


def encode_domains(names: Iterable[Sequence[str]]) -> DomainCodes:
    """Return the codes of trials' domains in order of first appearance."""
    table = DomainTable()
    codes = table.encode(names, grow=True)
    return DomainCodes(codes, table.names)


def check_unseen_policy(policy: str) -> str:
    """Return the policy for unseen domains, or raise naming the choices."""
    return check_option("unseen", policy, UNSEEN_POLICIES)


def raise_unseen(names: Iterable[Domain], known: Iterable[Domain]) -> None:
    """Raise for domains without statistics under ``unseen="raise"``."""
    fail(
        f"No statistics for the domains {listing(dict.fromkeys(map(str, names)))}; "
        f"known are {listing(map(str, known))}",
        why="unseen='raise' refuses to guess them",
        fix="call adapt(X, subjects=..., sessions=...) with unlabelled trials of "
        "these domains first, or set unseen='adapt' or 'pooled'",
    )
