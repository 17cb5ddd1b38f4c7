"""`Trials`: signals, labels, metadata, channels; the one type that flows."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eegtensor._check import check_lengths, fail, listing
from eegtensor.domains import DomainCodes, domain_names, encode_domains, missing_rows
from eegtensor.store import (
    StoreWriter,
    describe,
    finish_digest,
    join_labels,
    open_store,
    update_digest,
)

logger = logging.getLogger("eegtensor")

KEYS = ("dataset", "subject", "session", "run")


class _Stored(NamedTuple):
    """What a store said when it was opened, and the digest that goes with it."""

    digest: str
    y: NDArray | None
    metadata: pd.DataFrame
    ch_names: list[str]


@dataclass(frozen=True, eq=False)
class Trials:
    """Trials of one or more people, each labelled with its domain.

    Attributes
    ----------
    X : ndarray, shape (n_trials, n_channels, n_times)
        Volts; an array or a read-only memory map.
    y : ndarray, shape (n_trials,) | None
        Class names (str), continuous targets (float), or None.
    metadata : DataFrame
        One row a trial; the columns dataset, subject, session and run are
        strings ("" where unknown), others are kept as they came.
    info : mne.Info
        Channels, sampling rate in hertz, montage, filters.
    tmin : float
        Seconds of the first sample relative to the event.

    Raises
    ------
    EEGTensorError
        If shapes, lengths, channels or labels do not fit together.
    """

    # Frozen, but not deep: arrays and tables may still be changed in place.
    X: NDArray
    y: NDArray | None
    metadata: pd.DataFrame
    info: mne.Info
    tmin: float = 0.0
    _stored: _Stored | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if getattr(self.X, "ndim", None) != 3:
            fail(
                f"X has shape {np.shape(self.X)}",
                fix="give an array of shape (n_trials, n_channels, n_times)",
            )
        if self.X.dtype.kind not in "biuf":
            fail(f"X has dtype {self.X.dtype}, not real numbers", fix="give volts")
        if not isinstance(self.metadata, pd.DataFrame):
            fail(
                f"metadata is a {type(self.metadata).__name__}",
                fix="give a pandas.DataFrame with one row a trial",
            )
        n_trials, n_channels, _ = self.X.shape
        if n_channels != len(self.info["ch_names"]):
            fail(
                f"X has {n_channels} channels, info names "
                f"{len(self.info['ch_names'])} ({listing(self.info['ch_names'])})",
                fix="pick the same channels in both",
            )
        check_lengths(n_trials, y=self.y, metadata=self.metadata)
        if self.y is not None:
            object.__setattr__(self, "y", _as_targets(self.y))
        object.__setattr__(self, "metadata", _with_keys(self.metadata))

    def __len__(self) -> int:
        return len(self.X)

    def __repr__(self) -> str:
        n_subjects = self.metadata[["dataset", "subject"]].drop_duplicates().shape[0]
        n_domains = len(self.domain.names) if len(self) else 0
        target = "no labels"
        if self.y is not None:
            numeric = self.y.dtype.kind == "f"
            target = "continuous targets" if numeric else f"classes {self.classes}"
        return (
            f"<Trials | {len(self)} trials, {n_subjects} subjects, {n_domains} "
            f"domains, {self.X.shape[1]} channels, {self.X.shape[2]} samples at "
            f"{self.sfreq:g} Hz from {self.tmin:g} s, {target}>"
        )

    @property
    def sfreq(self) -> float:
        """Sampling rate in hertz."""
        return float(self.info["sfreq"])

    @property
    def times(self) -> NDArray:
        """Seconds of every sample relative to the event, shape (n_times,)."""
        return self.tmin + np.arange(self.X.shape[2]) / self.sfreq

    @property
    def ch_names(self) -> list[str]:
        """Channel names."""
        return list(self.info["ch_names"])

    @property
    def classes(self) -> list[str]:
        """Sorted class names; empty without labels or with continuous targets."""
        if self.y is None or self.y.dtype.kind == "f":
            return []
        return [str(name) for name in np.unique(self.y)]

    @property
    def domain(self) -> DomainCodes:
        """(dataset, subject, session) of every trial: codes, and names by code."""
        m = self.metadata
        return encode_domains(
            domain_names(len(self), m["subject"], m["session"], m["dataset"])
        )

    @property
    def subjects(self) -> NDArray:
        """Person of every trial, for estimators: "dataset/subject".

        The dataset is part of the name so that person 1 of one dataset never
        shares statistics with person 1 of another; without a dataset it is
        the bare subject.
        """
        # No column of the metadata: it would be stale after a change of the parts.
        rows = zip(self.metadata["dataset"], self.metadata["subject"], strict=True)
        return np.asarray([f"{d}/{s}" if d else s for d, s in rows], dtype=str)

    @property
    def sessions(self) -> NDArray:
        """Session of every trial, for estimators."""
        return self.metadata["session"].to_numpy(dtype=str)

    @property
    def digest(self) -> str:
        """Hash of samples, labels, metadata, channels, rate and tmin (hex)."""
        if self._stored is not None and self._as_stored(self._stored):
            return self._stored.digest
        # Never kept: arrays and tables can be changed in place, and a stale
        # digest would let the benchmark's cache return another data's scores.
        digest = hashlib.blake2b(digest_size=16)
        update_digest(digest, self.X)
        described = describe(self.y, self.metadata, self.info, self.tmin)
        return finish_digest(digest, self.X.shape, self.X.dtype, described)

    def _as_stored(self, stored: _Stored) -> bool:
        # The samples of a store are a read-only map; the rest may have changed.
        return (
            np.array_equal(self.y, stored.y)  # type: ignore[arg-type]
            and self.metadata.equals(stored.metadata)
            and self.ch_names == stored.ch_names
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_trials, n_channels, n_times): scikit-learn splits what has a shape."""
        return self.X.shape

    def __getitem__(self, index: Any) -> Trials:
        """Select trials by mask, indices, slice or one index."""
        # scikit-learn's splitters index what has a shape as X[rows, ...].
        if isinstance(index, tuple) and len(index) == 2 and index[1] is Ellipsis:
            index = index[0]
        if isinstance(index, (int, np.integer)):
            index = [index]
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.dtype == bool:
                check_lengths(len(self), mask=index)
            # An empty list becomes float64, which indexes nothing.
            elif index.size == 0:
                index = index.astype(np.int64)
        y = None if self.y is None else self.y[index]
        rows = self.metadata.iloc[index].reset_index(drop=True)
        return Trials(self.X[index], y, rows, self.info, self.tmin)

    def pick(self, ch_names: Sequence[str]) -> Trials:
        """Return the trials with these channels, in this order.

        Raises
        ------
        EEGTensorError
            If a channel is missing; the message names those there are.
        """
        missing = [name for name in ch_names if name not in self.ch_names]
        if missing:
            fail(
                f"No channels {listing(missing)} among {listing(self.ch_names, 40)}",
                fix="name channels that the trials have",
            )
        index = [self.ch_names.index(name) for name in ch_names]
        info = mne.pick_info(self.info, index)
        return Trials(self.X[:, index], self.y, self.metadata, info, self.tmin)

    @classmethod
    def from_epochs(
        cls,
        epochs: mne.BaseEpochs,
        *,
        target: str | None = None,
        picks: str | Sequence[str] = "data",
    ) -> Trials:
        """Make trials from MNE epochs.

        Data, events (sample and id), metadata, info and tmin are kept; the
        drop log, annotations and baseline are not.

        Parameters
        ----------
        epochs : mne.Epochs
            The last sample, which MNE includes, is kept.
        target : str | None
            Metadata column of continuous targets; by default y is the name of
            each epoch's event.
        picks : str | sequence of str
            Channels, as MNE names them. By default good data channels: a stim
            channel would tell a decoder the answer.
        """
        # Loading drops what a rejection threshold condemns; labels come afterwards.
        chosen = epochs.copy().load_data()
        try:
            bads = "bads" if isinstance(picks, str) else ()
            chosen = chosen.pick(picks, exclude=bads, verbose="ERROR")
        except ValueError as error:
            fail(
                f"picks={picks!r} leaves no channel of {listing(epochs.ch_names, 40)}",
                fix="name channels or types that the epochs have, as picks='eog'",
                cause=error,
            )
        lost = [name for name in epochs.ch_names if name not in chosen.ch_names]
        if lost:
            logger.info("channels not taken from the epochs: %s", listing(lost, 40))
        y, metadata = labels_of_epochs(chosen, target=target)
        X = chosen.get_data(copy=True)
        return cls(X, y, metadata, chosen.info, float(chosen.tmin))

    def to_epochs(self) -> mne.EpochsArray:
        """Return MNE epochs with the same data, events, metadata, info and tmin.

        MNE wants every event at a sample of its own. Where those of several
        recordings clash, events are numbered through and the samples stay in
        the metadata column event_sample.
        """
        n_trials, _, n_times = self.X.shape
        if not n_trials:
            fail("There are no trials, and MNE has no empty epochs array")
        metadata = self.metadata.copy()
        continuous = self.y is not None and self.y.dtype.kind == "f"
        if continuous and "target" not in metadata:
            metadata["target"] = self.y
        names = np.full(n_trials, "trial") if self.y is None or continuous else self.y
        codes = 1 + np.unique(names, return_inverse=True)[1]
        event_id = _code_of_name(names, codes)
        # Concatenation leaves NaN where a part had no codes or samples.
        if "event_code" in metadata and metadata["event_code"].notna().all():
            own = _code_of_name(names, metadata.pop("event_code"))
            # Names of two datasets may share a code: then none of them counts.
            if len(set(own.values())) == len(own):
                event_id = own
        samples = np.arange(n_trials) * n_times
        if "event_sample" in metadata:
            own_samples = metadata["event_sample"]
            if own_samples.notna().all() and own_samples.is_unique:
                samples = metadata.pop("event_sample").to_numpy(dtype=int)
        # EpochsArray reads event ids back from the codes, so each name keeps one.
        codes = np.asarray([event_id[str(n)] for n in names], dtype=int)
        events = np.column_stack([samples, np.zeros(n_trials, int), codes])
        return mne.EpochsArray(
            np.asarray(self.X, dtype=np.float64),
            self.info,
            events=events,
            tmin=self.tmin,
            event_id=event_id,
            metadata=metadata,
            on_missing="ignore",
            verbose="ERROR",
        )

    def save(self, path: str | os.PathLike) -> str:
        """Write a memory-mapped store and return its content digest."""
        with StoreWriter(path) as writer:
            writer.append(np.asarray(self.X), self.y, self.metadata)
            return writer.finish(self.info, self.tmin)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Trials:
        """Open a store; X is a read-only memory map."""
        X, y, metadata, info, tmin, digest = open_store(path)
        trials = cls(X, y, metadata, info, tmin)
        stored = _Stored(
            digest,
            None if trials.y is None else trials.y.copy(),
            trials.metadata.copy(),
            trials.ch_names,
        )
        object.__setattr__(trials, "_stored", stored)
        return trials


def concatenate(parts: Sequence[Trials | mne.BaseEpochs]) -> Trials:
    """Join trials that have the same channels, rate, window and kind of labels.

    Raises
    ------
    EEGTensorError
        If there is nothing to join, or parts differ; the message says how.
    """
    if not parts:
        fail("There are no trials to concatenate")
    parts = [as_trials(part) for part in parts]
    first = parts[0]
    for i, part in enumerate(parts[1:], start=1):
        for name, here, there in (
            ("channels", part.ch_names, first.ch_names),
            ("sampling rate", part.sfreq, first.sfreq),
            ("number of samples", part.X.shape[2], first.X.shape[2]),
            ("tmin", part.tmin, first.tmin),
        ):
            if here != there:
                fail(
                    f"Part {i} differs from part 0 in {name}: {here} and {there}",
                    fix="read or pick both with the same settings",
                )
    y = join_labels([part.y for part in parts])
    metadata = pd.concat([part.metadata for part in parts], ignore_index=True)
    X = np.concatenate([part.X for part in parts])
    return Trials(X, y, metadata, first.info, first.tmin)


def as_trials(data: Trials | mne.BaseEpochs) -> Trials:
    """Return trials from `Trials` or MNE epochs.

    Raises
    ------
    EEGTensorError
        For anything else.
    """
    if isinstance(data, Trials):
        return data
    if isinstance(data, mne.BaseEpochs):
        return Trials.from_epochs(data)
    fail(
        f"Got a {type(data).__name__} where trials are needed",
        fix="give eegtensor.Trials or mne.Epochs",
    )


def labels_of_epochs(
    epochs: mne.BaseEpochs, *, target: str | None = None
) -> tuple[NDArray, pd.DataFrame]:
    """Return the labels and the metadata of epochs, without their samples.

    Parameters
    ----------
    epochs : mne.Epochs
        Bad epochs have been dropped.
    target : str | None
        As in `Trials.from_epochs`.
    """
    metadata = epochs.metadata
    n_trials = len(epochs)
    if metadata is None:
        metadata = pd.DataFrame(index=range(n_trials))
    metadata = metadata.reset_index(drop=True).copy()
    # `to_epochs` leaves the column where samples of several recordings clash.
    if "event_sample" not in metadata:
        metadata["event_sample"] = epochs.events[:, 0].astype(np.int64)
    metadata["event_code"] = epochs.events[:, 2].astype(np.int64)
    if target is not None:
        if target not in metadata:
            fail(
                f"No metadata column {target!r} among {listing(metadata.columns)}",
                fix="name the column that holds the target",
            )
        y = pd.to_numeric(metadata[target], errors="coerce").to_numpy(dtype=float)
        wrong = np.flatnonzero(np.isnan(y))
        if len(wrong):
            fail(
                f"The target {target!r} is no number for trials {listing(wrong)}",
                fix="drop these epochs, or name a column of numbers",
            )
    else:
        name_of = {code: name for name, code in epochs.event_id.items()}
        y = np.asarray([name_of[code] for code in epochs.events[:, 2]], dtype=str)
    return y, metadata


def _code_of_name(names: NDArray, codes: Iterable[Any]) -> dict[str, int]:
    return {str(n): int(c) for n, c in zip(names, codes, strict=True)}


def _as_targets(y: Any) -> NDArray:
    array = np.asarray(y)
    if array.ndim != 1:
        fail(f"y has shape {array.shape}", fix="give one label per trial")
    # A table's column of numbers may have come as objects.
    if (
        array.dtype == object
        and len(array)
        and all(isinstance(v, float) for v in array)
    ):
        array = array.astype(np.float64)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            bad = np.flatnonzero(~np.isfinite(array))
            fail(
                f"y is not finite for trials {listing(bad)}",
                fix="drop these trials",
            )
        # float32 targets would differ in the digest from the same ones in float64.
        return array.astype(np.float64)
    missing = missing_rows(array.tolist())
    if missing:
        fail(f"y is missing for trials {listing(missing)}", fix="drop these trials")
    return array.astype(str)


def _with_keys(metadata: pd.DataFrame) -> pd.DataFrame:
    table = metadata.reset_index(drop=True)
    columns: dict[str, Any] = {}
    for key in KEYS:
        values = table[key].tolist() if key in table else [""] * len(table)
        missing = missing_rows(values)
        if missing:
            fail(
                f"metadata column {key!r} is missing for trials {listing(missing)}",
                fix=f"fill {key} for every trial, or leave the column out",
            )
        # Strings always: person 1 of one file must equal person "1" of another.
        columns[key] = pd.Series([str(v) for v in values], dtype="str")
    for name in table.columns:
        if name not in columns:
            columns[name] = table[name]
    return pd.DataFrame(columns, index=table.index)
