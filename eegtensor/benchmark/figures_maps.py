"""Pictures of signal space: where domains lie, and scalp maps of the classes."""

from __future__ import annotations

from typing import Any

import matplotlib
import mne
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mne.viz import plot_topomap
from numpy.typing import NDArray

from eegtensor.benchmark.figures import (
    INK,
    SOFT,
    WIDTH,
    class_colours,
    new_figure,
    shorten,
    styled,
)
from eegtensor.benchmark.maps import Sample, View, split_band
from eegtensor.benchmark.patterns import Pattern, scalp_positions
from eegtensor.trials import Trials

MAX_CONTRASTS = 8


@styled
def draw_domain_map(sample: Sample, before: View, after: View) -> Figure:
    """Draw trials before and after recentring, by person and by class.

    Parameters
    ----------
    sample : Sample
    before, after : View
        From `eegtensor.benchmark.maps.domain_map`.
    """
    xlim, ylim = _limits(before, after)
    tall = float(np.clip(np.ptp(ylim) / np.ptp(xlim), 0.45, 1.1))
    figure = new_figure(WIDTH, 2 * (4.55 * tall + 0.95))
    draw = (_draw_people, _draw_classes)
    for part, draw_row in zip(figure.subfigures(2, 1), draw, strict=True):
        axes = part.subplots(1, 2)
        for axis, view, when in zip(
            axes, (before, after), ("before", "after"), strict=True
        ):
            draw_row(axis, sample, view, f"{when} recentring: ")
            axis.set(xlim=xlim, ylim=ylim, aspect="equal")
            axis.set_xlabel("first axis (affine-invariant distance)")
        axes[0].set_ylabel("second axis (a.-i. distance)")
        marks, words = axes[0].get_legend_handles_labels()
        part.legend(marks, words, loc="outside upper left", ncols=4)
    return figure


Limits = tuple[float, float]


def _limits(before: View, after: View) -> tuple[Limits, Limits]:
    """Frame 99 % of the trials and every mean: one far trial must not shrink all."""
    trials = np.concatenate([before.trials, after.trials])
    means = [*before.cells.values(), *after.cells.values()]
    low, high = np.quantile(trials, [0.005, 0.995], axis=0)
    low = np.minimum(low, np.min(means, axis=0))
    high = np.maximum(high, np.max(means, axis=0))
    pad = 0.06 * float((high - low).max()) or 1.0
    (x, y), (right, top) = low - pad, high + pad
    return (float(x), float(right)), (float(y), float(top))


def _draw_people(axes: Axes, sample: Sample, view: View, when: str) -> None:
    people = list(dict.fromkeys(sample.subjects.tolist()))
    colours = matplotlib.colormaps["turbo"](np.linspace(0.06, 0.94, len(people)))
    for person, colour in zip(people, colours, strict=True):
        here = sample.subjects == person
        _dots(axes, view.trials[here], colour)
        codes = np.unique(sample.codes[here])
        points = view.domains[codes]
        marks = {"marker": "o", "s": _size(view), "lw": 1.0, "zorder": 4}
        axes.scatter(*points.T, color=[colour], edgecolor=INK, **marks)
        if len(people) <= 12 and _apart(view):
            axes.annotate(
                shorten(_bare(person, people), 12),
                points[0],
                xytext=(6, 5),
                textcoords="offset points",
                fontsize=8.5,
                zorder=5,
                bbox={"boxstyle": "round,pad=0.1", "fc": "#ffffffb0", "lw": 0},
            )
    words = "mean of a session, coloured by person"
    axes.scatter([], [], s=62, color="white", edgecolor=INK, lw=1.1, label=words)
    share = view.between_domains
    axes.set_title(f"{when}{share:.0%} of the spread is between sessions")


def _size(view: View) -> float:
    """Return the area of a mean's mark in square points; many would hide trials."""
    return 58.0 if len(view.domains) <= 40 else 18.0


def _apart(view: View) -> bool:
    """Return whether means lie apart, so that names beside them can be read."""
    spread = np.linalg.norm(view.domains.std(axis=0))
    return bool(spread > 0.1 * np.linalg.norm(view.trials.std(axis=0)))


def _bare(person: str, people: list[str]) -> str:
    one_dataset = len({p.rpartition("/")[0] for p in people}) == 1
    return person.rpartition("/")[2] if one_dataset else person


def _draw_classes(axes: Axes, sample: Sample, view: View, when: str) -> None:
    names = sorted(set(sample.labels.tolist()))
    colours = class_colours(names)
    for name in names:
        _dots(axes, view.trials[sample.labels == name], colours[name])
    for code in np.unique(sample.codes):
        ends = [view.cells[code, n] for n in names if (code, n) in view.cells]
        if len(names) == 2 and len(ends) == 2:
            axes.plot(*np.transpose(ends), color=INK, lw=0.8, alpha=0.6, zorder=3)
    for name in names:
        points = np.asarray([p for (_, n), p in view.cells.items() if n == name])
        axes.scatter(
            *points.T,
            s=_size(view),
            color=colours[name],
            edgecolor=INK,
            lw=1.0,
            zorder=4,
            label=f"{shorten(name)}, mean of a session",
        )
    share = view.between_classes
    groups = "classes" if sample.values is None else "low and high"
    axes.set_title(f"{when}{share:.1%} of the spread is between {groups}")


def _dots(axes: Axes, points: NDArray, colour: Any) -> None:
    # Hundreds of vector dots make a heavy page; pixels do as well.
    axes.scatter(
        *points.T, s=9, color=[colour], alpha=0.35, lw=0, zorder=1, rasterized=True
    )


@styled
def draw_patterns(
    trials: Trials, patterns: dict[tuple[str, str], list[Pattern]]
) -> Figure:
    """Draw patterns on the scalp, or as bars where channels have no places.

    Parameters
    ----------
    trials : Trials
        For names and places of channels.
    patterns : dict
        From `eegtensor.benchmark.patterns.class_patterns`.
    """
    shown = {k: v for k, v in list(patterns.items())[:MAX_CONTRASTS] if v}
    n_columns = max(len(row) for row in shown.values())
    on_scalp = can_draw_scalp(trials, patterns)
    n_bars = max(len(p.channels) for row in shown.values() for p in row)
    height = 2.9 if on_scalp else max(1.6, 0.2 * n_bars) + 1.1
    figure = new_figure(WIDTH, height * len(shown) + 0.3)
    figure.get_layout_engine().set(h_pad=0.12)
    rows = figure.subfigures(len(shown), 1, squeeze=False)[:, 0]
    for part, (pair, row) in zip(rows, shown.items(), strict=True):
        part.suptitle(
            f"more power in {pair[0]} (+) or in {pair[1]} (\u2212)",
            x=0.01,
            ha="left",
            fontsize=10.5,
        )
        axes = part.subplots(1, n_columns, squeeze=False)[0]
        for axis in axes[len(row) :]:
            axis.set_axis_off()
        for axis, pattern in zip(axes, row, strict=False):
            if on_scalp:
                _draw_scalp(axis, pattern, trials.info)
            else:
                _draw_bars(axis, pattern, trials.ch_names)
            axis.set_title(_caption(pattern), loc="center", fontsize=9.5)
    return figure


def can_draw_scalp(
    trials: Trials, patterns: dict[tuple[str, str], list[Pattern]]
) -> bool:
    """Return whether the channels of all patterns have places on the scalp."""
    channels = {tuple(p.channels.tolist()) for row in patterns.values() for p in row}
    return all(
        scalp_positions(trials.info, np.asarray(c)) is not None for c in channels
    )


def _caption(pattern: Pattern) -> str:
    lines = [pattern.band] if pattern.band else []
    decibel = f"{pattern.decibel:+.1f} dB".replace("-", "\u2212")
    share = f", share {pattern.share:.0%}" if np.isfinite(pattern.share) else ""
    lines.append(decibel + share)
    if np.isfinite(pattern.unseen):
        unseen = f"{pattern.unseen:+.1f}".replace("-", "\u2212")
        lines.append(
            f"left out {unseen} dB, {pattern.n_agree} of {pattern.n_people} agree"
        )
    return "\n".join(lines)


def _draw_scalp(axes: Axes, pattern: Pattern, info: mne.Info) -> None:
    own = mne.pick_info(info, pattern.channels, copy=True)
    own["bads"] = []
    places = scalp_positions(info, pattern.channels)
    sphere: tuple[float, ...] | None = None
    if places is not None:
        for channel, place in zip(own["chs"], places, strict=True):
            channel["loc"][:3] = place
        if not own["dig"]:
            # Without digitisation MNE draws one size of head for everyone.
            radius = float(np.median(np.linalg.norm(places, axis=1)))
            sphere = (0.0, 0.0, 0.0, max(0.095, radius))
    plot_topomap(
        pattern.values,
        own,
        axes=axes,
        show=False,
        cmap="RdBu_r",
        vlim=(-1, 1),
        contours=4,
        extrapolate="head" if len(pattern.channels) >= 32 else "local",
        sphere=sphere,
        sensors="k.",
    )


def _draw_bars(axes: Axes, pattern: Pattern, ch_names: list[str]) -> None:
    places = np.arange(len(pattern.channels))
    colours = np.where(pattern.values >= 0, "#b2182b", "#2166ac")
    axes.barh(places, pattern.values, color=colours, height=0.7)
    axes.axvline(0, color=SOFT, lw=0.8)
    names = [split_band(ch_names[int(c)])[0] for c in pattern.channels]
    axes.set_yticks(places, names, fontsize=8.5 if len(names) < 25 else 6.5)
    axes.invert_yaxis()
    axes.set(xlim=(-1.08, 1.08), xlabel="weight (largest is 1)")
