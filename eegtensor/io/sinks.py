"""Where cut trials go: one array in memory, or a store on disk."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Protocol, Self

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eegtensor.store import StoreWriter, join_labels
from eegtensor.trials import Trials


class Sink(Protocol):
    """Takes trials recording by recording."""

    def append(
        self, X: NDArray[np.float32], y: NDArray | None, metadata: pd.DataFrame
    ) -> None:
        """Add one recording's trials."""
        ...

    def finish(self, info: mne.Info, tmin: float) -> Trials | None:
        """Return all trials, None if there are none."""
        ...


class MemorySink:
    """Collect trials in one array, without ever holding them twice.

    Parameters
    ----------
    n_most : int
        How many trials there will be at most; pages that stay unused are
        never touched.
    """

    def __init__(self, n_most: int) -> None:
        self._n_most = n_most
        self._X: NDArray[np.float32] | None = None
        self._n = 0
        self._y: list[NDArray | None] = []
        self._metadata: list[pd.DataFrame] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def append(
        self, X: NDArray[np.float32], y: NDArray | None, metadata: pd.DataFrame
    ) -> None:
        """Add one recording's trials."""
        if self._X is None:
            # Sized once: growing or joining would hold the trials twice.
            self._X = np.empty((self._n_most, *X.shape[1:]), dtype=np.float32)
        self._X[self._n : self._n + len(X)] = X
        self._n += len(X)
        self._y.append(y)
        self._metadata.append(metadata)

    def finish(self, info: mne.Info, tmin: float) -> Trials | None:
        """Return all trials, None if there are none."""
        if self._X is None:
            return None
        y = join_labels(self._y)
        metadata = pd.concat(self._metadata, ignore_index=True)
        return Trials(self._X[: self._n], y, metadata, info, tmin)


class StoreSink:
    """Append trials to a store, which appears when all are written.

    Parameters
    ----------
    path : path-like
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._writer = StoreWriter(path)
        self._any = False

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, traceback)

    def append(
        self, X: NDArray[np.float32], y: NDArray | None, metadata: pd.DataFrame
    ) -> None:
        """Add one recording's trials."""
        self._writer.append(X, y, metadata)
        self._any = True

    def finish(self, info: mne.Info, tmin: float) -> Trials | None:
        """Return the store opened, None if nothing was written."""
        if not self._any:
            return None
        self._writer.finish(info, tmin)
        # Opened anew, so that the caller gets a map and no memory is held.
        return Trials.load(self._writer.path)
