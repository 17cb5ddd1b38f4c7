"""Matrices and tangent vectors that several decoders read, made once for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike, NDArray

from eegtensor.features import TangentSpace
from eegtensor.transfer import Recenter

Domains = Mapping[str, ArrayLike | None]


class MatrixFront:
    """Matrices of trials, recentred by domain where asked.

    Parameters
    ----------
    maker : transformer
        From signals to matrices, trial by trial.
    align : None | "riemann"
    unseen : str
        As in `Recenter`.
    """

    def __init__(self, maker: Any, align: str | None, unseen: str) -> None:
        self._maker = maker
        self._align = Recenter(unseen=unseen) if align is not None else None

    def fit(self, X: NDArray, domains: Domains) -> NDArray:
        """Fit to source signals (n_trials, n_channels, n_times); return matrices."""
        matrices: NDArray = self._maker.fit(X).transform(X)
        if self._align is None:
            return matrices
        # Each domain is recentred on its own trials: a person held out of a fold
        # is already where unlabelled adaptation would put that person.
        return self._align.fit_transform(matrices, **domains)

    def adapt(self, X: NDArray, domains: Domains, *, trialwise: bool) -> NDArray:
        """Recentre the domains of an unlabelled batch; return its matrices."""
        matrices: NDArray = self._maker.transform(X)
        if self._align is None:
            return matrices
        if trialwise:
            self._align.partial_adapt(matrices, **domains)
        else:
            self._align.adapt(matrices, **domains)
        return self._align.transform(matrices, **domains)

    def transform(self, X: NDArray, domains: Domains) -> NDArray:
        """Return matrices, shape (n_trials, [n_bands,] n, n)."""
        matrices: NDArray = self._maker.transform(X)
        if self._align is None:
            return matrices
        return self._align.transform(matrices, **domains)


class Inputs(dict[str, NDArray]):
    """What the fronts make of a batch, tangent vectors when first asked for."""

    def vectors(self, front: str) -> NDArray:
        """Return tangent vectors at the identity, the mean of recentred matrices."""
        key = f"{front} vectors"
        if key not in self:
            space = TangentSpace(reference="identity")
            self[key] = space.fit_transform(self[front])
        return self[key]
