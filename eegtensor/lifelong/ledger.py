"""Sums of trials by class and by person: what was learned, in a form that adds up."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_lengths, fail, listing
from eegtensor.lifelong.analytic import Sums, sums_of


class Ledger:
    """The sums of all trials learned, and of each person's where they are told.

    Parameters
    ----------
    n_features : int
    people : bool
        Whether sums of each person are kept.

    Attributes
    ----------
    classes : ndarray, shape (n_classes,)
        In sorted order; columns of the sums.
    total : Sums
    people : dict of str to Sums
    """

    def __init__(self, n_features: int, *, people: bool = False) -> None:
        self.classes: NDArray = np.empty(0)
        self.total = Sums(
            np.zeros((n_features, n_features)), np.zeros((n_features, 0)), 0
        )
        self.keeps_people = people
        self.people: dict[str, Sums] = {}

    def add(self, H: NDArray, y: NDArray, subjects: ArrayLike | None) -> None:
        """Add trials; classes never met get a column.

        Parameters
        ----------
        H : ndarray, shape (n_trials, n_features)
        y : ndarray, shape (n_trials,)
        subjects : array-like of str, shape (n_trials,) | None
        """
        who = self._who(len(H), subjects)
        self.add_classes(y)
        codes = np.searchsorted(self.classes, y)
        for name, sums in self._by_person(H, codes, who).items():
            mine = self.people.get(name)
            self.people[name] = sums if mine is None else mine + sums
        self.total = self.total + sums_of(H, codes, len(self.classes))

    def take(self, H: NDArray, y: NDArray, subjects: ArrayLike | None) -> None:
        """Take trials away.

        Raises
        ------
        EEGTensorError
            If they cannot all have been added.
        """
        unknown = set(np.unique(y).tolist()) - set(self.classes.tolist())
        if unknown:
            fail(f"No trial of the classes {listing(unknown)} was learned")
        codes = np.searchsorted(self.classes, y)
        self._check_left(len(H))
        parts = self._by_person(H, codes, self._who(len(H), subjects))
        self._check_people(parts)
        for name, sums in parts.items():
            self.people[name] = left = self.people[name] - sums
            if left.n_trials <= 0:
                del self.people[name]
        self.total = self.total - sums_of(H, codes, len(self.classes))

    def take_people(self, subjects: ArrayLike | None) -> None:
        """Take all trials of some people away.

        Raises
        ------
        EEGTensorError
            If there are no sums of theirs, or nothing would be left.
        """
        given = np.asarray([] if subjects is None else subjects)
        names = [str(name) for name in np.unique(given)]
        if not names:
            fail("There is nothing to forget", fix="give trials, or subjects")
        self._check_people(names)
        self._check_left(sum(self.people[name].n_trials for name in names))
        for name in names:
            self.total = self.total - self.people.pop(name)

    def join(self, other: Ledger) -> None:
        """Add what another ledger holds."""
        self.add_classes(other.classes)
        columns = np.searchsorted(self.classes, other.classes)
        for name, sums in other.people.items():
            theirs, mine = self._placed(sums, columns), self.people.get(name)
            self.people[name] = theirs if mine is None else mine + theirs
        self.total = self.total + self._placed(other.total, columns)

    def add_classes(self, names: NDArray) -> None:
        """Give every sum a column for each class, in sorted order."""
        new = np.unique(names)
        every = np.union1d(self.classes, new) if len(self.classes) else new
        if len(every) == len(self.classes):
            return
        before, self.classes = self.classes, every
        columns = np.searchsorted(every, before) if len(before) else np.empty(0, int)
        self.total = self._placed(self.total, columns)
        self.people = {n: self._placed(s, columns) for n, s in self.people.items()}

    def _placed(self, sums: Sums, columns: NDArray) -> Sums:
        moment = np.zeros((len(sums.gram), len(self.classes)))
        moment[:, columns] = sums.moment
        return sums._replace(moment=moment)

    def _who(self, n_trials: int, subjects: ArrayLike | None) -> NDArray | None:
        if not self.keeps_people:
            return None
        if subjects is None:
            fail(
                "people=True needs to know whose trials these are", fix="give subjects"
            )
        who = np.asarray(subjects).astype(str)
        check_lengths(n_trials, subjects=who)
        return who

    def _by_person(
        self, H: NDArray, codes: NDArray, who: NDArray | None
    ) -> dict[str, Sums]:
        if who is None:
            return {}
        n = len(self.classes)
        return {
            str(name): sums_of(H[who == name], codes[who == name], n)
            for name in np.unique(who)
        }

    def _check_people(self, names: object) -> None:
        unknown = [name for name in names if name not in self.people]  # type: ignore[attr-defined]
        if unknown:
            fail(
                f"There are no sums of {listing(map(repr, unknown))}; known are "
                f"{listing(self.people) or 'none'}",
                fix="set people=True and give subjects to fit, or forget their trials",
            )

    def _check_left(self, n_gone: int) -> None:
        if n_gone >= self.total.n_trials:
            fail(
                f"{n_gone} trials are to be forgotten, {self.total.n_trials} were "
                "learned",
                fix="fit a new head where nothing is to be left",
            )
