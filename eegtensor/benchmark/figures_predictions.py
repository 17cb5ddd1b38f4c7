"""Pictures of predictions: confusions, calibration, continuous targets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eegtensor.benchmark.figures import (
    FAINT,
    INK,
    SOFT,
    WIDTH,
    mode_colours,
    new_figure,
    shorten,
    styled,
)
from eegtensor.benchmark.figures_scores import MAX_PANELS, modes_of, pipelines_of
from eegtensor.benchmark.metrics import confusion, expected_calibration_error
from eegtensor.benchmark.results import Results
from eegtensor.benchmark.tables import rows_of

N_BINS = 10
MIN_IN_BIN = 5


def predictions_of(results: Results, pipeline: str, mode: str) -> pd.DataFrame:
    """Return the predictions of one pipeline under one mode."""
    frame = results.predictions
    return frame[(frame["pipeline"] == pipeline) & (frame["adapt"] == mode)]


def first_and_last(results: Results) -> list[tuple[str, str]]:
    """Return (pipeline, mode) for the first and last mode, where predicted."""
    modes = modes_of(results)
    ends = dict.fromkeys([modes[0], modes[-1]])
    return [
        (name, mode)
        for name in pipelines_of(results)
        for mode in ends
        if len(predictions_of(results, name, mode))
    ]


def confusion_of(results: Results, pipeline: str, mode: str) -> NDArray:
    """Return counts over all people's scored trials, true by predicted class."""
    rows = predictions_of(results, pipeline, mode)
    classes = np.asarray(results.config["classes"])
    return confusion(
        np.searchsorted(classes, rows["y_true"].to_numpy(dtype=str)),
        np.searchsorted(classes, rows["y_pred"].to_numpy(dtype=str)),
        len(classes),
    )


@styled
def draw_confusions(results: Results) -> Figure:
    """Draw confusion matrices, rows in percent and counts below them."""
    methods = first_and_last(results)[:MAX_PANELS]
    classes = [shorten(c, 14) for c in results.config["classes"]]
    across = 4 if len(classes) < 4 else 3
    n_columns = min(across, len(methods))
    n_rows = math.ceil(len(methods) / n_columns)
    side = WIDTH / across
    tilted = len(classes) > 2 or max(map(len, classes)) > 11
    below = 0.9 if tilted else 0.45
    figure = new_figure(side * n_columns, (side + below) * n_rows)
    tilt: dict[str, Any] = {"rotation": 30, "ha": "right"} if tilted else {}
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axis in axes[len(methods) :]:
        axis.set_axis_off()
    for k, (axis, (name, mode)) in enumerate(zip(axes, methods, strict=False)):
        counts = confusion_of(results, name, mode)
        _draw_confusion(axis, counts)
        axis.set_title(f"{shorten(name, 18)} \u00b7 {mode}")
        axis.set_xticks(range(len(classes)), classes, **tilt)
        first = k % n_columns == 0
        upright = {} if tilted else {"rotation": 90, "va": "center"}
        axis.set_yticks(range(len(classes)), classes if first else [], **upright)
        axis.set_xlabel("predicted class")
        if first:
            axis.set_ylabel("true class")
    return figure


def _draw_confusion(axes: Axes, counts: NDArray) -> None:
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    axes.imshow(share, vmin=0, vmax=1, cmap="Blues", aspect="equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    n_classes = len(counts)
    for (i, j), count in np.ndenumerate(counts):
        ink = "white" if share[i, j] > 0.55 else INK
        put: dict[str, Any] = {"ha": "center", "color": ink}
        if n_classes <= 6:
            axes.text(j, i, f"{share[i, j]:.0%}", va="bottom", fontsize=11, **put)
            axes.text(j, i + 0.08, f"{count}", va="top", fontsize=8, **put)
        else:
            axes.text(j, i, f"{share[i, j]:.0%}", va="center", fontsize=7, **put)


def with_probabilities(results: Results) -> tuple[list[str], list[str]]:
    """Return the pipelines that give probabilities, and those that do not."""
    columns = [f"p:{c}" for c in results.config["classes"]]
    frame = results.predictions
    having: list[str] = []
    lacking: list[str] = []
    for name in pipelines_of(results):
        rows = frame[frame["pipeline"] == name]
        known = all(c in frame for c in columns) and bool(
            rows[columns].notna().all(axis=None)
        )
        (having if known else lacking).append(name)
    return having, lacking


def reliability(
    results: Results, pipeline: str, mode: str
) -> tuple[pd.DataFrame, float]:
    """Return confidence and accuracy by bins, and the calibration error.

    Parameters
    ----------
    results : Results
    pipeline, mode : str

    Returns
    -------
    bins : DataFrame
        confidence, accuracy (means of the trials in the bin) and n_trials of
        each of ten equal-width bins that hold a trial.
    ece : float
        Expected calibration error of all scored trials pooled.
    """
    rows = predictions_of(results, pipeline, mode)
    classes = np.asarray(results.config["classes"])
    p = rows[[f"p:{c}" for c in classes]].to_numpy(dtype=float)
    y = np.searchsorted(classes, rows["y_true"].to_numpy(dtype=str))
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == y
    bins = np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1)
    table = pd.DataFrame({"bin": bins, "confidence": confidence, "accuracy": correct})
    grouped = table.groupby("bin").agg(
        confidence=("confidence", "mean"),
        accuracy=("accuracy", "mean"),
        n_trials=("accuracy", "size"),
    )
    return grouped, expected_calibration_error(y, p, N_BINS)


@styled
def draw_calibration(results: Results) -> Figure:
    """Draw accuracy against confidence, and how often each confidence occurs."""
    names = with_probabilities(results)[0][:6]
    modes = modes_of(results)
    shown = modes if len(modes) <= 4 else [*modes[:1], *modes[-3:]]
    n_columns = min(3, len(names))
    n_rows = math.ceil(len(names) / n_columns)
    figure = new_figure(3.3 * n_columns, (4.3 + 0.2 * len(shown)) * n_rows)
    grid = figure.subplots(
        2 * n_rows,
        n_columns,
        squeeze=False,
        sharex=True,
        height_ratios=[3.2, 1] * n_rows,
    )
    for k, name in enumerate(names):
        top = grid[2 * (k // n_columns), k % n_columns]
        below = grid[2 * (k // n_columns) + 1, k % n_columns]
        found = {
            mode: reliability(results, name, mode)
            for mode in shown
            if len(predictions_of(results, name, mode))
        }
        _draw_reliability(top, below, found, mode_colours(modes))
        top.set_title(shorten(name))
        top.set_xlim(1 / len(results.config["classes"]) - 0.03, 1.02)
        if k % n_columns == 0:
            top.set_ylabel("accuracy")
            below.set_ylabel("trials")
    for k in range(len(names), n_rows * n_columns):
        grid[2 * (k // n_columns), k % n_columns].set_axis_off()
        grid[2 * (k // n_columns) + 1, k % n_columns].set_axis_off()
    return figure


def _draw_reliability(
    top: Axes,
    below: Axes,
    found: dict[str, tuple[pd.DataFrame, float]],
    colours: dict[str, str],
) -> None:
    """Draw one pipeline's curves, one a mode, and the histograms under them."""
    top.axline((0.5, 0.5), slope=1, color=SOFT, lw=1.0, ls=(0, (4, 3)))
    width = 0.8 / N_BINS / len(found)
    for i, (mode, (bins, ece)) in enumerate(found.items()):
        colour = colours[mode]
        share = bins["n_trials"] / bins["n_trials"].sum()
        # The accuracy of two or three trials would look like a finding.
        drawn = bins["n_trials"] >= MIN_IN_BIN
        curve = bins.loc[drawn, ["confidence", "accuracy"]].to_numpy().T
        top.plot(*curve, color=colour, lw=1.6)
        top.scatter(*curve, s=12 + 140 * share[drawn], color=colour, zorder=3, lw=0)
        left = (bins.index + 0.1) / N_BINS + i * width
        label = f"{mode}: calibration error {ece:.3f}"
        below.bar(left, share, width=width, align="edge", color=colour, label=label)
    top.set_ylim(None, 1.02)
    top.tick_params(labelbottom=False)
    below.set_xlabel("confidence (highest probability)")
    below.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    below.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.55), borderaxespad=0)


@styled
def draw_regression(results: Results) -> Figure:
    """Draw predicted against true continuous targets."""
    methods = first_and_last(results)[:MAX_PANELS]
    colours = mode_colours(modes_of(results))
    means = {(n, m): row for n, m, row in rows_of(results.table(["r2", "mae"]))}
    n_columns = min(4, len(methods))
    n_rows = math.ceil(len(methods) / n_columns)
    side = min(3.4, WIDTH / n_columns)
    figure = new_figure(side * n_columns, (side + 0.3) * n_rows)
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    frame = results.predictions[["y_true", "y_pred"]].to_numpy(dtype=float)
    # One wild prediction would press all others into a corner.
    low, high = np.quantile(frame, [0.002, 0.998])
    pad = 0.05 * (high - low) or 1.0
    for axis in axes.ravel()[len(methods) :]:
        axis.set_axis_off()
    for k, (axis, (name, mode)) in enumerate(zip(axes.ravel(), methods, strict=False)):
        rows = predictions_of(results, name, mode)
        axis.plot([low, high], [low, high], color=SOFT, lw=1.0, ls=(0, (4, 3)))
        axis.scatter(
            rows["y_true"].astype(float),
            rows["y_pred"].astype(float),
            s=9,
            alpha=0.4,
            lw=0,
            color=colours[mode],
            rasterized=True,
        )
        row = means[name, mode]
        r2 = f"{row['r2']:.2f}".replace("-", "\u2212")
        axis.set_title(f"{shorten(name, 14)} \u00b7 {mode}: R\u00b2 {r2}")
        axis.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad))
        axis.set_xlabel("true target")
        axis.grid(color=FAINT, lw=0.5)
        axis.set_axisbelow(True)
        if k % n_columns == 0:
            axis.set_ylabel("predicted target")
    return figure
