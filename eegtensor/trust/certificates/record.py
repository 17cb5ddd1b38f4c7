"""What was certified of trials, in one unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ABSTAIN = -1


@dataclass(frozen=True, eq=False)
class Certificates:
    """Predictions that no displacement within a radius changes.

    Sizes are in standard deviations of each channel over the trials of `fit`.

    Attributes
    ----------
    codes : ndarray of int, shape (n_trials,)
        Of classes; -1 where the vote was too close: it abstained.
    radius : ndarray, shape (n_trials,)
        Of the ball of displacements in `norm`; 0 where it abstained.
    norm : "l1" | "l2" | "linf"
    p : ndarray, shape (n_trials,)
        Lower bound of the class's share of votes (of two halves: their mean).
    alpha : float
        Chance that a trial's certificate is wrong, at most.
    n_values : int
        Channels times samples.
    power : ndarray, shape (n_trials,)
        Sum of squares of the trial about its channels' means.
    classes : ndarray | None
    """

    codes: NDArray
    radius: NDArray
    norm: str
    p: NDArray
    alpha: float
    n_values: int
    power: NDArray
    classes: NDArray | None = None

    @classmethod
    def joined(cls, parts: Sequence[Certificates], classes: NDArray) -> Certificates:
        """Return the certificates of several calls as one."""
        first = parts[0]
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("codes", "radius", "p", "power")
        }
        return replace(first, classes=classes, **columns)

    @property
    def abstained(self) -> NDArray:
        """Where nothing is said, shape (n_trials,)."""
        return self.codes == ABSTAIN

    @property
    def labels(self) -> NDArray:
        """Class of each trial, without meaning where it abstained."""
        return self.codes if self.classes is None else self.classes[self.codes]

    @property
    def l2(self) -> NDArray:
        """Radius of the largest l2 ball inside."""
        return self.radius / (np.sqrt(self.n_values) if self.norm == "l1" else 1.0)

    @property
    def linf(self) -> NDArray:
        """Radius of the largest l_inf ball inside."""
        root = {"l1": self.n_values, "l2": np.sqrt(self.n_values), "linf": 1.0}
        return self.radius / root[self.norm]

    @property
    def snr_db(self) -> NDArray:
        """Power of a trial over that of a displacement of `l2`; inf where it is 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(10.0 * np.log10(self.power / self.l2**2))

    def summary(self) -> dict[str, float]:
        """Return means over trials, those that abstained with 0; SNR of their ratio."""
        l2 = float(np.mean(self.l2**2))
        power = float(self.power.mean())
        return {
            "linf": float(self.linf.mean()),
            "l2": float(self.l2.mean()),
            "snr_db": 10.0 * np.log10(power / l2) if l2 > 0 else float("inf"),
            "abstained": float(self.abstained.mean()),
        }

    def accuracy(self, y: ArrayLike, radius: float = 0.0) -> float:
        """Return the share of trials that are right at every displacement of a size.

        Parameters
        ----------
        y : array-like, shape (n_trials,)
            Classes, or codes where `classes` is None.
        radius : float
            In `norm`.
        """
        truth = np.asarray(y)
        good = (self.labels == truth) & ~self.abstained & (self.radius >= radius)
        return float(good.mean())
