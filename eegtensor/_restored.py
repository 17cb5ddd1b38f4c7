"""A picture of a recording before and after it was restored."""

from __future__ import annotations

from typing import Any

import mne
import numpy as np
from numpy.typing import NDArray

from eegtensor.features._losses import runs
from eegtensor.features.completer import Completer

MICROVOLT = 1e6
_SHOWN_SECONDS = 8.0
_SHOWN_CHANNELS = 12


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
    old = before.get_data(picks=picks)[shown, part] * MICROVOLT
    new = after.get_data(picks=picks)[shown, part] * MICROVOLT
    half = 1.645 * completer.uncertainty_[shown, part] * MICROVOLT
    lost = lost[shown]
    # A stretch that was left may hold no numbers.
    held = np.isfinite(new).any(axis=1)
    step = 6.0 * float(np.median(np.nanstd(new[held], axis=1))) if held.any() else 1.0
    step = step or 1.0
    old = np.where(lost, _within_row(old, lost, 0.5 * step), old)
    figure = Figure(figsize=(13, 1.2 + 0.5 * len(shown)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    heights = -step * np.arange(len(shown))
    for axis, data, title in zip(axes, (old, new), ("before", "after"), strict=True):
        for row, height in enumerate(heights):
            axis.plot(times, data[row] + height, color="#444444", lw=0.7)
            for i, j in runs(lost[row]):
                span = slice(i, j)
                at, line = times[span], data[row, span] + height
                if title == "before":
                    ends = [times[i] - 0.5 / sfreq, times[j - 1] + 0.5 / sfreq]
                    low, high = height - 0.5 * step, height + 0.5 * step
                    axis.fill_between(ends, low, high, color="#d9d9d9", lw=0)
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
    # No trace is cut at the edges, unless it is far larger than the others.
    drawn = np.nan_to_num(new + heights[:, None])
    low = np.clip((drawn - half).min(), heights[-1] - 1.5 * step, -0.5 * step)
    high = np.clip((drawn + half).max(), 0.5 * step, 1.5 * step)
    axes[0].set_ylim(min(low, heights[-1] - 0.5 * step) - 0.05 * step, high)
    axes[0].set_xlim(times[0], times[-1])
    labels = [before.ch_names[picks[i]] for i in shown]
    axes[0].set_yticks(heights, labels, fontsize=8)
    axes[0].tick_params(axis="y", length=0)
    axes[1].tick_params(axis="y", length=0)
    figure.suptitle(
        "Grey: lost, cut at the edge of its row. Red: restored, with its 90 % "
        f"interval. Channels are {step:.0f} microvolts apart.",
        fontsize=10,
    )
    return figure


def _within_row(signals: NDArray, lost: NDArray, most: float) -> NDArray:
    """Return signals cut to some size: what was lost may be a thousand times larger."""
    out = signals.copy()
    for row, where in zip(out, lost & np.isfinite(signals), strict=True):
        middle = float(np.median(row[where])) if where.any() else 0.0
        row[where] -= middle if abs(middle) > most else 0.0
    return np.clip(out, -most, most)


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
