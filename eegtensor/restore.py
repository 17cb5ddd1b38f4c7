"""Restoring a recording's lost channels and segments: file in, file out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eegtensor._check import fail, listing
from eegtensor.features.completer import Completer, annotation_origin

# File name endings that are written, besides MNE's own.
_EXPORTED = {".edf": "edf", ".set": "eeglab", ".vhdr": "brainvision"}
_MICROVOLT = 1e6
_SHOWN_SECONDS = 8.0
_SHOWN_CHANNELS = 12


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
        Stretches of all channels that were too long and stay annotated as bad.
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
        ``.fif``, or ``.edf``, ``.set``, ``.vhdr`` where MNE can export. The picture
        and the table get its name with ``.png`` and ``.csv``.
    bads : sequence of str
        Channels that count as lost, besides those the file marks.
    segments : path | None
        Annotations of bad segments, besides those in the file.
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
        _add_segments(raw, Path(segments))
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
    left = _left(restored)
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


def _add_segments(raw: mne.io.BaseRaw, path: Path) -> None:
    """Annotate bad segments of a table or of a file that MNE wrote."""
    if not path.is_file():
        fail(f"{path} is no file", fix="name a file of bad segments")
    if path.suffix in (".fif", ".gz"):
        raw.set_annotations(raw.annotations + mne.read_annotations(path))
        return
    table = pd.read_csv(path, sep=None, engine="python", comment="#")
    missing = {"onset", "duration"} - set(table.columns)
    if missing:
        fail(
            f"{path} has no column {listing(sorted(missing))}",
            fix="give onset and duration in seconds from the first sample, and if "
            "you like description and channel",
        )
    channel = table["channel"] if "channel" in table else pd.Series([None] * len(table))
    raw.annotations.append(
        table["onset"].to_numpy(float) + annotation_origin(raw),
        table["duration"].to_numpy(float),
        ["BAD_segment"] * len(table),
        ch_names=[() if pd.isna(name) else (str(name),) for name in channel],
    )


def _write(raw: mne.io.BaseRaw, out: Path) -> None:
    if out.suffix == ".fif":
        raw.save(out, overwrite=True, verbose="ERROR")
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
    """Give EEG channels without positions those of the standard system, by name."""
    from eegtensor.io.montage import standard_positions

    picks = mne.pick_types(raw.info, eeg=True, exclude=())
    places = np.array([raw.info["chs"][i]["loc"][:3] for i in picks])
    if np.isfinite(places).all() and places.any(axis=1).all():
        return
    known = {name.upper(): place for name, place in standard_positions().items()}
    for i in picks:
        name = raw.ch_names[i].upper().strip(".").removeprefix("EEG ").strip()
        place = known.get(name.split("-")[0].strip())
        if place is not None:
            raw.info["chs"][i]["loc"][:3] = place


def _runs(flags: NDArray) -> NDArray:
    """Return first and last sample of each run of True, shape (n_runs, 2)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return edges.reshape(-1, 2)


def _stretches(
    completer: Completer, X: NDArray, names: Sequence[str], raw: mne.io.BaseRaw
) -> pd.DataFrame:
    sfreq, rows = raw.info["sfreq"], []
    for i, name in enumerate(names):
        size = float(X[i].std()) * _MICROVOLT
        for start, stop in _runs(completer.restored_[i]):
            half = 1.645 * completer.uncertainty_[i, start:stop].mean() * _MICROVOLT
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


def _left(raw: mne.io.BaseRaw) -> pd.DataFrame:
    first = annotation_origin(raw)
    rows = [
        {"onset": float(a["onset"]) - first, "duration": float(a["duration"])}
        for a in raw.annotations
        if a["description"].upper().startswith("BAD")
    ]
    return pd.DataFrame(rows, columns=["onset", "duration"])


def draw_restoration(
    before: mne.io.BaseRaw, after: mne.io.BaseRaw, completer: Completer
) -> Any:
    """Draw a stretch of a recording before and after, restored parts coloured.

    Parameters
    ----------
    before, after : mne.io.Raw
    completer : Completer
        That made one from the other.

    Returns
    -------
    matplotlib.figure.Figure
        The seconds with the most kinds of loss, the channels that lost most there
        and a few that lost nothing; the 90 % interval as a band.
    """
    from matplotlib.figure import Figure

    picks = mne.pick_types(before.info, eeg=True, exclude=())
    sfreq = before.info["sfreq"]
    window = min(before.n_times, round(_SHOWN_SECONDS * sfreq))
    start = _busiest(completer.restored_, window)
    part = slice(start, start + window)
    lost = completer.restored_[:, part]
    shown = _channels_to_show(lost)
    times = (start + np.arange(window)) / sfreq
    old = before.get_data(picks=picks)[shown, part] * _MICROVOLT
    new = after.get_data(picks=picks)[shown, part] * _MICROVOLT
    half = 1.645 * completer.uncertainty_[shown, part] * _MICROVOLT
    lost = lost[shown]
    step = 6.0 * float(np.median(new.std(axis=1)))
    figure = Figure(figsize=(13, 1.2 + 0.5 * len(shown)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    heights = -step * np.arange(len(shown))
    for axis, data, title in zip(axes, (old, new), ("before", "after"), strict=True):
        for row, height in enumerate(heights):
            axis.plot(times, data[row] + height, color="#444444", lw=0.7)
            for i, j in _runs(lost[row]):
                span = slice(i, j)
                at, line = times[span], data[row, span] + height
                if title == "before":
                    axis.axvspan(
                        times[i],
                        times[j - 1],
                        ymin=_share(row + 1, len(shown)),
                        ymax=_share(row, len(shown)),
                        color="#d9d9d9",
                        lw=0,
                    )
                else:
                    band = half[row, span]
                    axis.fill_between(
                        at, line - band, line + band, color="#c8553d", alpha=0.25, lw=0
                    )
                    axis.plot(at, line, color="#c8553d", lw=0.9)
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("seconds")
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    axes[0].set_ylim(heights[-1] - 0.5 * step, 0.5 * step)
    axes[0].set_xlim(times[0], times[-1])
    labels = [before.ch_names[picks[i]] for i in shown]
    axes[0].set_yticks(heights, labels, fontsize=8)
    axes[0].tick_params(axis="y", length=0)
    axes[1].tick_params(axis="y", length=0)
    figure.suptitle(
        "Grey: lost. Red: restored, with its 90 % interval. "
        f"Channels are {step:.0f} microvolts apart.",
        fontsize=10,
    )
    return figure


def _share(row: int, n_rows: int) -> float:
    """Return where a row's upper edge lies on the axis, as a share of its height."""
    return 1.0 - row / n_rows


def _busiest(restored: NDArray, window: int) -> int:
    """Return where a window covers most stretches that were lost for a while."""
    changes = np.diff(restored.astype(np.int8), axis=1, prepend=0) != 0
    count = np.concatenate([[0], np.cumsum(changes.sum(axis=0))])
    inside = count[window:] - count[:-window]
    return int(inside.argmax())


def _channels_to_show(lost: NDArray) -> NDArray:
    share = lost.mean(axis=1)
    order = np.argsort(-share, kind="stable")
    n_lost = min(int((share > 0).sum()), _SHOWN_CHANNELS - 2)
    n_shown = min(len(order), max(n_lost + 3, 6), _SHOWN_CHANNELS)
    return np.sort(order[:n_shown])
