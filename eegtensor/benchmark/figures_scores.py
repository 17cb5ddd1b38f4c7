"""Pictures of scores: people before and after adaptation, ranking, sessions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eegtensor.benchmark.figures import (
    FAINT,
    INK,
    SOFT,
    WIDTH,
    mark_chance,
    metric_name,
    mode_colours,
    new_figure,
    shorten,
    spread_labels,
    styled,
)
from eegtensor.benchmark.metrics import LOWER_IS_BETTER
from eegtensor.benchmark.results import Results
from eegtensor.benchmark.tables import (
    METHOD,
    PERSON,
    chance_level,
    per_person,
    rows_of,
    score_the_same,
)

MAX_PANELS = 12


def modes_of(results: Results) -> list[str]:
    """Return the adaptation modes in their order."""
    return list(dict.fromkeys(results.scores["adapt"].astype(str)))


def pipelines_of(results: Results) -> list[str]:
    """Return the pipelines in their order."""
    return list(dict.fromkeys(results.scores["pipeline"].astype(str)))


def shared_metric(results: Results) -> str:
    """Return the score that all modes have on the same trials.

    Modes that score different trials are compared on the common set, where
    every mode has it.
    """
    metric, scores = results.metric, results.scores
    common = f"{metric}_common"
    if score_the_same(modes_of(results)) or common not in scores:
        return metric
    known = scores.groupby(METHOD, sort=False)[common].count()
    return common if (known > 0).all() else metric


def people_table(results: Results, metric: str) -> pd.DataFrame:
    """Return scores with one short name a person as index."""
    table = per_person(results.scores, metric)
    datasets = table.index.get_level_values("dataset")
    if datasets.nunique() > 1:
        table.index = [f"{d}/{s}" if d else str(s) for d, s in table.index]
    else:
        table.index = [str(s) for s in table.index.get_level_values("subject")]
    return table


def gains(results: Results) -> pd.DataFrame:
    """Return what each person gains from the first to the last mode.

    Returns
    -------
    DataFrame
        One row a person, one column a pipeline; positive is better. Empty with
        one mode.
    """
    metric, modes = shared_metric(results), modes_of(results)
    table = people_table(results, metric)
    sign = -1.0 if metric.removesuffix("_common") in LOWER_IS_BETTER else 1.0
    if len(modes) < 2:
        return pd.DataFrame(index=table.index)
    return pd.DataFrame(
        {
            name: sign * (table[name, modes[-1]] - table[name, modes[0]])
            for name in pipelines_of(results)
            if (name, modes[0]) in table and (name, modes[-1]) in table
        }
    )


@styled
def draw_people(results: Results) -> Figure:
    """Draw every person's score, joined by lines across adaptation modes.

    With one mode, lines join pipelines instead.
    """
    metric, modes = shared_metric(results), modes_of(results)
    table = people_table(results, metric)
    names = pipelines_of(results)
    panels = [(n, [(n, m) for m in modes]) for n in names]
    if len(modes) == 1:
        panels = [(modes[0], [(n, modes[0]) for n in names])]
    panels = [(t, [m for m in ms if m in table]) for t, ms in panels]
    n_columns = min(len(panels), 3 if len(modes) <= 3 else 2)
    n_rows = math.ceil(len(panels) / n_columns)
    width = WIDTH if n_columns > 1 or len(panels[0][1]) > 3 else 0.65 * WIDTH
    figure = new_figure(width, 4.3 * n_rows)
    axes = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    frame = _frame(table.to_numpy(), metric, results)
    intervals = results.table(metric)
    for axis, (title, methods) in zip(axes, panels, strict=False):
        axis.set_ylim(*frame)
        _draw_panel(axis, table[methods], intervals, metric, results)
        axis.set_title(_panel_title(title, results, table[methods]))
        if len(modes) == 1:
            labels = [shorten(n, 16) for n, _ in methods]
            axis.set_xticks(range(len(methods)), labels)
        else:
            axis.set_xticks(range(len(methods)), [m for _, m in methods])
            axis.set_xlabel("adaptation to the new session")
    for axis in axes[::n_columns]:
        axis.set_ylabel(metric_name(metric))
    return figure


def _panel_title(title: str, results: Results, table: pd.DataFrame) -> str:
    gain = gains(results)
    if title not in gain:
        return f"adapt: {title}"
    change = gain[title].dropna()
    better = int((change > 0).sum())
    middle = f"{change.mean():+.2f}".replace("-", "\u2212")
    return f"{shorten(title)}: {better} of {len(change)} people gain, mean {middle}"


def _frame(values: Any, metric: str, results: Results) -> tuple[float, float]:
    """Return limits of the score's axis: the data, chance and some air."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if not known.size:
        return 0.0, 1.0
    chance = chance_level(metric, len(results.config["classes"]))
    low, high = float(known.min()), float(known.max())
    if np.isfinite(chance):
        low, high = min(low, chance), max(high, chance)
    pad = 0.06 * (high - low) or 0.05
    return low - pad, high + pad


def _draw_panel(
    axes: Axes,
    table: pd.DataFrame,
    intervals: pd.DataFrame,
    metric: str,
    results: Results,
) -> None:
    colours = mode_colours(modes_of(results))
    values = table.to_numpy(dtype=float)
    x = np.arange(values.shape[1])
    crowd = len(values) > 20
    line: dict[str, Any] = {"color": SOFT, "lw": 0.6 if crowd else 1.0, "zorder": 1}
    axes.plot(x, values.T, alpha=0.35 if crowd else 0.55, **line)
    for k, method in enumerate(table.columns):
        colour = colours[method[1]]
        size = 16 if crowd else 34
        axes.scatter(
            np.full(len(values), k), values[:, k], s=size, color=colour, zorder=2, lw=0
        )
        row = intervals.loc[method]
        mean, low, high = (row[f"{metric}{end}"] for end in ("", "_low", "_high"))
        beside = k - 0.16
        axes.plot([beside] * 2, [low, high], color="white", lw=4.6, zorder=3)
        axes.plot([beside] * 2, [low, high], color=INK, lw=2.2, zorder=3)
        axes.plot(beside, mean, "D", color=INK, ms=6, mec="white", mew=0.9, zorder=4)
        axes.annotate(
            f"{mean:.2f}",
            (beside, mean),
            xytext=(-7, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
            weight="bold",
            zorder=5,
            bbox={"boxstyle": "round,pad=0.12", "fc": "#ffffffd0", "lw": 0},
        )
    mark_chance(axes, chance_level(metric, len(results.config["classes"])))
    axes.set_xlim(-0.62, len(x) - 1 + 0.55)
    _name_people(axes, table)


def _name_people(axes: Axes, table: pd.DataFrame) -> None:
    """Name everyone when few, else those who gain and lose most."""
    # One name for each line: twenty at one end could not be read.
    values = table.to_numpy(dtype=float)
    known = np.flatnonzero(np.isfinite(values[:, -1]))
    change = values[:, -1] - values[:, 0]
    if len(known) > 10 and np.isfinite(change[known]).any():
        order = known[np.argsort(change[known], kind="stable")]
        known = np.unique(np.concatenate([order[:3], order[-3:]]))
    low, high = axes.get_ylim()
    heights = spread_labels(values[known, -1], 0.042 * (high - low))
    last = values.shape[1] - 1
    for person, height in zip(known, heights, strict=True):
        axes.annotate(
            shorten(str(table.index[int(person)]), 12),
            (last, values[person, -1]),
            xytext=(last + 0.12, height),
            fontsize=8.5,
            color=SOFT,
            va="center",
            arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.7, "shrinkB": 4},
        )


@styled
def draw_ranking(results: Results) -> Figure:
    """Draw means over people with 95 % intervals, best first."""
    metric = shared_metric(results)
    table = results.table(metric)
    people = people_table(results, metric)
    best_last = metric.removesuffix("_common") not in LOWER_IS_BETTER
    table = table.sort_values(metric, ascending=best_last, kind="stable")
    colours = mode_colours(modes_of(results))
    figure = new_figure(WIDTH, 0.8 + 0.42 * len(table))
    axes = figure.subplots()
    for k, (name, mode, row) in enumerate(rows_of(table)):
        colour = colours[mode]
        dots = people[name, mode].to_numpy(dtype=float)
        axes.scatter(dots, np.full(len(dots), k), s=12, color=colour, alpha=0.4, lw=0)
        low, high = row[f"{metric}_low"], row[f"{metric}_high"]
        axes.plot([low, high], [k, k], color=colour, lw=3.2, solid_capstyle="butt")
        axes.plot(row[metric], k, "o", color=colour, ms=8.5, mec="white", mew=1.2)
        interval = f" [{low:.3f}, {high:.3f}]" if np.isfinite(low) else ""
        axes.annotate(
            f"{row[metric]:.3f}{interval}",
            (1.0, k),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
        )
    labels = [f"{shorten(n, 26)} \u00b7 {m}" for n, m in table.index]
    axes.set_yticks(range(len(table)), labels)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.set_xlim(*_frame(people.to_numpy(), metric, results))
    axes.set_xlabel(f"{metric_name(metric)} (small dots: people)")
    mark_chance(
        axes, chance_level(metric, len(results.config["classes"])), vertical=True
    )
    return figure


def session_tables(results: Results) -> dict[tuple[str, str], pd.DataFrame]:
    """Return a table of people by sessions for the first and last mode."""
    metric, modes = results.metric, modes_of(results)
    rows = results.scores[results.scores["adapt"].isin([modes[0], modes[-1]])]
    several = rows["dataset"].nunique() > 1
    tables = {}
    for method, part in rows.groupby(METHOD, sort=False):
        table = part.groupby([*PERSON, "session"], sort=False)[metric].mean()
        wide = table.unstack("session")
        wide.index = [f"{d}/{s}" if several and d else str(s) for d, s in wide.index]
        tables[str(method[0]), str(method[1])] = wide
    order = [(p, m) for p in pipelines_of(results) for m in dict.fromkeys(modes)]
    return {method: tables[method] for method in order if method in tables}


@styled
def draw_sessions(results: Results) -> Figure:
    """Draw scores of every person and session as colours."""
    metric = results.metric
    tables = dict(list(session_tables(results).items())[:MAX_PANELS])
    n_columns = min(len(tables), 2 if len(modes_of(results)) > 1 else 3)
    n_rows = math.ceil(len(tables) / n_columns)
    n_people = max(len(t) for t in tables.values())
    height = 0.75 + min(9.0, max(1.2, 0.27 * n_people))
    figure = new_figure(WIDTH, n_rows * height)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axis in axes[len(tables) :]:
        axis.set_axis_off()
    values = np.concatenate([t.to_numpy(dtype=float).ravel() for t in tables.values()])
    low, high = _frame(values, metric, results)
    colour = chance_level(metric, len(results.config["classes"]))
    image: Any = None
    for axis, ((name, mode), table) in zip(axes, tables.items(), strict=False):
        grid = table.to_numpy(dtype=float)
        # Differences below chance mean nothing and get no shade of their own.
        low_end = colour if np.isfinite(colour) else low
        image = axis.imshow(
            grid, vmin=low_end, vmax=high, cmap="cividis", aspect="auto"
        )
        axis.set_title(f"{shorten(name)} \u00b7 {mode}: mean {np.nanmean(grid):.2f}")
        axis.set_xticks(
            range(grid.shape[1]), [shorten(str(s), 10) for s in table.columns]
        )
        small = {"fontsize": 8.5 if n_people <= 30 else 5.5}
        axis.set_yticks(
            range(grid.shape[0]), [shorten(str(p), 14) for p in table.index], **small
        )
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set_xlabel("session")
        if grid.size <= 240 and n_people <= 30:
            _write_cells(axis, grid, low_end, high)
    axes[0].set_ylabel("person")
    figure.colorbar(
        image, ax=list(axes), label=metric_name(metric), shrink=0.8, pad=0.01
    )
    return figure


def _write_cells(axes: Axes, grid: Any, low: float, high: float) -> None:
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            dark = value < low + 0.55 * (high - low)
            axes.text(
                j,
                i,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=8.5,
                color="white" if dark else INK,
            )
