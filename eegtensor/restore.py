"""Restoring a recording's lost channels and segments: file in, file out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eegtensor._check import fail, listing
from eegtensor._restored import MICROVOLT, draw_restoration
from eegtensor._segments import add_segments
from eegtensor.features._losses import runs
from eegtensor.features.completer import Completer

# File name endings that are written, besides MNE's own.
_EXPORTED = {".edf": "edf", ".set": "eeglab", ".vhdr": "brainvision"}


class Restoration(NamedTuple):
    """What was restored, and where the results are.

    Attributes
    ----------
    kinds : pandas.DataFrame
        One row a kind of loss: cells, method, expected relative error.
    stretches : pandas.DataFrame
        One row a stretch of a channel: onset and duration in seconds, mean
        half-width of the 90 % interval in microvolts, the channel's standard
        deviation in microvolts.
    left : pandas.DataFrame
        Onset and duration, seconds, of stretches that all channels lost and that
        were too long: they stay as they are.
    out, table, picture : Path
        The recording, the stretches as CSV, and the picture.
    """

    kinds: pd.DataFrame
    stretches: pd.DataFrame
    left: pd.DataFrame
    out: Path
    table: Path
    picture: Path

    def __str__(self) -> str:
        lines = ["Restored, by kind of loss (error relative to the signal):"]
        for kind in self.kinds.to_dict("records"):
            lines.append(
                f"  {kind['kind']:10} {kind['cells']:>9} samples  error about "
                f"{kind['expected_error']:.2f}  by {kind['method']}"
            )
        by_channel = self.stretches.groupby("channel", sort=False).agg(
            seconds=("duration", "sum"), interval=("interval_uV", "mean")
        )
        lines.append("By channel: seconds, and the 90 % interval as +- microvolts:")
        for name, row in by_channel.sort_values("seconds", ascending=False).iterrows():
            lines.append(
                f"  {name:10} {row['seconds']:9.2f} s  +- {row['interval']:.1f}"
            )
        for gap in self.left.to_dict("records"):
            lines.append(
                f"Left as it was: {gap['duration']:.2f} s of all channels at "
                f"{gap['onset']:.2f} s, too long to say what happened"
            )
        lines.append(f"Wrote {self.out}, {self.table} and {self.picture}")
        return "\n".join(lines)


def restore_recording(
    src: str | os.PathLike,
    out: str | os.PathLike,
    *,
    bads: Sequence[str] = (),
    segments: str | os.PathLike | None = None,
    method: str = "auto",
    max_gap: float = 1.0,
    random_state: int = 0,
) -> Restoration:
    """Restore a continuous recording, and write it with a picture and a table.

    Parameters
    ----------
    src : path
        Any continuous recording that `read_trials` reads.
    out : path
        ``.fif``, or ``.edf``, ``.set``, ``.vhdr`` where MNE can export, which round.
        The picture and the table get its name with ``.png`` and ``.csv``.
    bads : sequence of str
        Channels that count as lost, besides those the file marks.
    segments : path | None
        Bad segments besides those in the file: a table with columns onset and
        duration, seconds from the first sample, and perhaps channel (several with
        colons between; empty for all), or annotations as MNE writes them.
    method, max_gap, random_state
        As in `Completer`.

    Returns
    -------
    Restoration

    Raises
    ------
    EEGTensorError
        If the file cannot be read or holds trials, the results would overwrite
        what was given, a channel is not known, nothing is lost, or a channel
        without data has no position.
    """
    from eegtensor.io.formats import open_recording

    out = Path(out)
    _check_out(out, [src] if segments is None else [src, segments])
    raw = open_recording(Path(src)).signal
    if not isinstance(raw, mne.io.BaseRaw):
        fail(f"{src} holds trials", fix="give a continuous recording")
    raw = raw.copy().load_data(verbose="ERROR")
    unknown = [name for name in bads if name not in raw.ch_names]
    if unknown:
        fail(
            f"{src} has no channel {listing(unknown)}",
            fix="choose among " + listing(raw.ch_names, limit=40),
        )
    raw.info["bads"] = [*dict.fromkeys([*raw.info["bads"], *bads])]
    if segments is not None:
        add_segments(raw, Path(segments))
    _give_positions(raw)
    completer = Completer(method, max_gap, random_state)
    restored = completer.fit_transform(raw)
    if not completer.restored_.any():
        fail(
            f"Nothing is lost in {src}",
            why="It has no bad channel, no annotation that begins with BAD, no NaN",
            fix="name what is bad with --bads or --segments",
        )
    picks = mne.pick_types(raw.info, eeg=True, exclude=())
    names = [raw.ch_names[i] for i in picks]
    stretches = _stretches(completer, restored.get_data(picks=picks), names, raw)
    left = pd.DataFrame(
        runs(completer.left_) / raw.info["sfreq"], columns=["onset", "duration"]
    )
    left["duration"] -= left["onset"]
    _write(restored, out)
    table = out.with_suffix(".csv")
    stretches.to_csv(table, index=False, float_format="%.6g")
    picture = out.with_suffix(".png")
    draw_restoration(raw, restored, completer).savefig(picture, dpi=110)
    return Restoration(completer.table_, stretches, left, out, table, picture)


def _check_out(out: Path, given: Sequence[str | os.PathLike]) -> None:
    """Raise for a name that cannot be written, or that would cost what was given."""
    if out.suffix not in (".fif", *_EXPORTED):
        fail(
            f"{out} ends in {out.suffix or 'nothing'}",
            fix="write to .fif, " + ", ".join(_EXPORTED),
        )
    if not out.resolve().parent.is_dir():
        fail(f"{out.resolve().parent} is no folder", fix="make it first")
    written = {out.with_suffix(end).resolve() for end in (out.suffix, ".csv", ".png")}
    lost = [str(path) for path in given if Path(path).resolve() in written]
    if lost:
        fail(f"{listing(lost)} would be overwritten", fix="give --out another name")


def _write(raw: mne.io.BaseRaw, out: Path) -> None:
    if out.suffix == ".fif":
        # Bit for bit: only files of single precision lose nothing by it.
        fmt = "single" if raw.orig_format == "single" else "double"
        raw.save(out, fmt=fmt, overwrite=True, verbose="ERROR")
        return
    try:
        raw.export(out, fmt=_EXPORTED[out.suffix], overwrite=True, verbose="ERROR")
    except (ImportError, RuntimeError) as error:
        fail(
            f"{out} cannot be written: {error}",
            fix="write to .fif, or install what MNE asks for",
            cause=error,
        )


def _give_positions(raw: mne.io.BaseRaw) -> None:
    """Give EEG channels without positions those of the standard system, by name.

    Not to differences of two electrodes: these lie nowhere.
    """
    from eegtensor.io.montage import standard_positions

    picks = mne.pick_types(raw.info, eeg=True, exclude=())
    places = np.array([raw.info["chs"][i]["loc"][:3] for i in picks])
    placed = np.isfinite(places).all(axis=1) & places.any(axis=1)
    if placed.all():
        return
    known = {name.upper(): place for name, place in standard_positions().items()}
    words = [raw.ch_names[i].upper().removeprefix("EEG ").split("-") for i in picks]
    halves = [[word.strip(" .") for word in half[:2]] for half in words]
    scalp = known.keys() - {"A1", "A2", "M1", "M2"}
    # One electrode after every hyphen is the reference; several are pairs.
    second = {half[-1] for half in halves if len(half) > 1} & scalp
    # Those that were measured stay: both are in the head's coordinates.
    for i, half, own in zip(picks, halves, placed, strict=True):
        place = None if own else known.get(half[0])
        paired = len(half) > 1 and half[1] in second and len(second) > 1
        if place is not None and not paired:
            raw.info["chs"][i]["loc"][:3] = place


def _stretches(
    completer: Completer, X: NDArray, names: Sequence[str], raw: mne.io.BaseRaw
) -> pd.DataFrame:
    sfreq, rows = raw.info["sfreq"], []
    for i, name in enumerate(names):
        size = float(np.nanstd(X[i])) * MICROVOLT
        for start, stop in runs(completer.restored_[i]):
            half = 1.645 * completer.uncertainty_[i, start:stop].mean() * MICROVOLT
            rows.append(
                {
                    "channel": name,
                    "onset": start / sfreq,
                    "duration": (stop - start) / sfreq,
                    "interval_uV": half,
                    "std_uV": size,
                }
            )
    return pd.DataFrame(rows)
