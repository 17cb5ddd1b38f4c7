"""Trials that were cut before: epochs files, `.npz` trials, stores."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eegtensor._check import EEGTensorError
from eegtensor.io.errors import RecordingError
from eegtensor.trials import Trials, labels_of_epochs

_REQUIRED = ("X", "scale", "y", "sfreq", "ch_names")
_KEYS = ("subject", "session", "run")
# A store keeps the task as well.
_LABELS = ("dataset", *_KEYS, "task")
_LAYOUT = (
    "write X (n_trials, n_channels, n_times), scale (volts per unit of X), y, "
    "sfreq, ch_names and, where known, subject, session, run; see the docstring "
    "of eegtensor.io.read_trials"
)


@dataclass
class StoredTrials:
    """Trials in a file: everything but the samples, which `load` reads.

    Attributes
    ----------
    load : callable
        Returns the samples in volts, (n_trials, n_channels, n_times).
    y : ndarray, shape (n_trials,) | None
        Class names (str) or targets (float).
    metadata : DataFrame
        One row a trial; what the file says of subject, session, run.
    info : mne.Info
    n_times : int
    tmin : float
        Seconds of the first stored sample relative to the event.
    aliases : dict
        Other names of a class, as its event code.
    """

    load: Callable[[], NDArray]
    y: NDArray | None
    metadata: pd.DataFrame
    info: mne.Info
    n_times: int
    tmin: float = 0.0
    aliases: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.metadata)


def trials_of_epochs(epochs: mne.BaseEpochs, path: Path) -> StoredTrials:
    """Return an epochs file's trials; bad epochs are left out, as MNE does."""
    epochs.drop_bad()
    if len(epochs) == 0:
        raise RecordingError(path, "it holds no good epochs", "leave it out")
    # Only the labels are wanted now; the samples stay in the file.
    y, metadata = labels_of_epochs(epochs)
    metadata = metadata.drop(columns=["event_sample", "event_code"])
    # Our own epochs keep it: where recordings clashed their samples are made up.
    if "onset" not in metadata:
        metadata["onset"] = epochs.events[:, 0] / float(epochs.info["sfreq"])
    return StoredTrials(
        load=lambda: epochs.get_data(copy=True),
        y=y,
        metadata=_drop_unset(metadata),
        info=epochs.info,
        n_times=len(epochs.times),
        tmin=float(epochs.tmin),
        aliases={str(code): name for name, code in epochs.event_id.items()},
    )


def _drop_unset(metadata: pd.DataFrame) -> pd.DataFrame:
    unset = [
        key
        for key in _LABELS
        if key in metadata and (metadata[key].astype(str) == "").all()
    ]
    return metadata.drop(columns=unset)


def open_trial_store(path: Path) -> StoredTrials:
    """Open a store written by `Trials.save`."""
    try:
        trials = Trials.load(path)
    except EEGTensorError as error:
        raise RecordingError(path, str(error)) from error
    if not len(trials):
        raise RecordingError(path, "it is a store of no trials", "leave it out")
    return StoredTrials(
        load=lambda: np.asarray(trials.X, dtype=np.float64),
        y=trials.y,
        metadata=_drop_unset(trials.metadata),
        info=trials.info,
        n_times=trials.X.shape[2],
        tmin=trials.tmin,
    )


def open_npz(path: Path) -> StoredTrials:
    """Open a `.npz` file of trials; no pickled object is ever loaded.

    Raises
    ------
    RecordingError
        If the file is damaged, or a key is missing or does not fit the others.
    """
    # X may be large: only its header is read here.
    try:
        shape, dtype = _header_of(path, "X")
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in _REQUIRED if key not in file.files]
            if missing:
                raise RecordingError(
                    path, f"its keys {', '.join(missing)} are missing", _LAYOUT
                )
            values = {key: file[key] for key in file.files if key != "X"}
    except (zipfile.BadZipFile, EOFError, OSError, KeyError, ValueError) as error:
        if isinstance(error, RecordingError):
            raise
        raise RecordingError(path, _npz_fault(error), _LAYOUT) from error
    if len(shape) != 3 or dtype.kind not in "iuf" or 0 in shape:
        _refuse(path, f"X has shape {shape} and dtype {dtype}")
    return _from_arrays(path, shape, values)


def _npz_fault(error: Exception) -> str:
    if "pickle" in str(error) or "Object arrays" in str(error):
        return "it holds pickled objects, which are never loaded (they can run code)"
    if isinstance(error, KeyError):
        return "its key X is missing"
    return f"it is no .npz file, damaged or cut short ({type(error).__name__}: {error})"


def _header_of(path: Path, key: str) -> tuple[tuple[int, ...], np.dtype]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(member)
    if dtype.hasobject:
        raise ValueError("Object arrays hold pickled objects")
    return shape, dtype


def _from_arrays(
    path: Path, shape: tuple[int, ...], values: dict[str, NDArray]
) -> StoredTrials:
    n_trials, n_channels, n_times = shape
    scale = _number(path, values, "scale")
    sfreq = _number(path, values, "sfreq")
    names = [str(name) for name in np.atleast_1d(values["ch_names"])]
    if len(names) != n_channels or len(set(names)) != n_channels:
        _refuse(path, f"ch_names has {len(set(names))} names for {n_channels} channels")
    y = values["y"]
    if y.shape != (n_trials,):
        _refuse(path, f"y has shape {y.shape} for {n_trials} trials")
    if y.dtype.kind != "f":
        y = y.astype(str)
    elif not np.isfinite(y).all():
        _refuse(path, "y holds NaN or infinity")
    unit = str(values.get("unit", np.asarray("V")))
    if unit != "V":
        _refuse(path, f"unit is {unit!r}; scale must lead to volts ('V')")
    metadata = pd.DataFrame(index=range(n_trials))
    for key in _KEYS:
        if key in values:
            metadata[key] = _per_trial(path, key, values[key], n_trials)
    return StoredTrials(
        load=lambda: _load_npz(path, scale),
        y=y,
        metadata=metadata,
        info=mne.create_info(names, sfreq, "eeg", verbose="ERROR"),
        n_times=n_times,
    )


def _load_npz(path: Path, scale: float) -> NDArray:
    try:
        with np.load(path, allow_pickle=False) as file:
            # In half or single precision, volts of EEG would lose their digits.
            return np.multiply(file["X"], scale, dtype=np.float64)
    except Exception as error:
        raise RecordingError(path, _npz_fault(error), _LAYOUT) from error


def _number(path: Path, values: dict[str, NDArray], key: str) -> float:
    value: Any = values[key]
    if value.size != 1 or value.dtype.kind not in "iuf" or not value.item() > 0:
        _refuse(path, f"{key} is {value!r}, not one positive number")
    if not np.isfinite(value.item()):
        _refuse(path, f"{key} is {value!r}")
    return float(value.item())


def _per_trial(path: Path, key: str, value: NDArray, n_trials: int) -> list[str]:
    if value.ndim == 0:
        return [str(value)] * n_trials
    if value.shape != (n_trials,):
        _refuse(path, f"{key} has shape {value.shape} for {n_trials} trials")
    return [str(v) for v in value]


def _refuse(path: Path, fault: str) -> NoReturn:
    raise RecordingError(path, fault, _LAYOUT)
