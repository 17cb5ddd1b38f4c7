"""Finished folds on disk, one file each, named by the hash of their causes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import uuid
from pathlib import Path

import numpy as np

from eegtensor._check import fail
from eegtensor.benchmark.fold import Outcome

logger = logging.getLogger("eegtensor")

_SCALARS = ("seconds_fit", "n_source")
_ARRAYS = ("trials", "y_pred", "seconds_adapt", "seconds_predict", "adapted")
# Entries of before there were patterns lack them.
_OPTIONAL = ("probabilities", "decision", "matrices", "covariance")


class FoldCache:
    """A folder of outcomes; entries are written whole or not at all.

    Parameters
    ----------
    path : path-like
        Made when missing.

    Raises
    ------
    EEGTensorError
        If the path is a file or cannot be made.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fail(
                f"The cache {self.path} cannot be made: {error}",
                fix="name a folder that can be written, or cache=None",
                cause=error,
            )

    def _file(self, key: str) -> Path:
        return self.path / key[:2] / f"{key}.npz"

    def load(self, key: str) -> Outcome | None:
        """Return an outcome, or None if it is absent or damaged."""
        path = self._file(key)
        if not path.is_file():
            return None
        try:
            # No pickles: a cache folder may be shared, and a pickle runs code.
            with np.load(path, allow_pickle=False) as arrays:
                scalars = json.loads(str(arrays["scalars"]))
                # A copied or renamed file must not pass for another fold.
                if scalars["key"] != key:
                    raise ValueError("it belongs to another key")
                values = {name: arrays[name] for name in _ARRAYS}
                for name in _OPTIONAL:
                    values[name] = arrays[name] if name in arrays.files else None
                values |= {name: scalars[name] for name in _SCALARS}
                return Outcome(**values)
        except Exception as error:
            logger.info("cache entry %s is damaged and is made again: %s", path, error)
            return None

    def save(self, key: str, outcome: Outcome) -> None:
        """Write an outcome; a reader sees all of it or nothing.

        What cannot be written (a full disk) is logged, not raised: hours of folds
        are worth more than their copy.
        """
        path = self._file(key)
        scalars = {name: getattr(outcome, name) for name in _SCALARS}
        arrays = {name: getattr(outcome, name) for name in (*_ARRAYS, *_OPTIONAL)}
        arrays = {name: array for name, array in arrays.items() if array is not None}
        arrays["scalars"] = np.asarray(json.dumps({"key": key, **scalars}))
        # A random name: processes, also of other hosts, may write the same fold.
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(exist_ok=True)
            with open(temporary, "wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            logger.warning("a fold is not kept in the cache: %s", error)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
