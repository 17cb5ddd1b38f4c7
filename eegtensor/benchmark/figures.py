"""How the report's pictures look: colours, sizes, and SVG that needs no file."""

from __future__ import annotations

import functools
import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK = "#24292f"
SOFT = "#6b7280"
FAINT = "#d5d9de"
UNADAPTED = "#8a8f98"
# Okabe and Ito's colours, told apart with any colour vision.
MODE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
CLASS_COLOURS = (
    "#E69F00",
    "#0072B2",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#56B4E9",
    "#5b4a9e",
    "#222222",
)
WIDTH = 10.0  # inches; 960 CSS pixels

METRIC_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "roc_auc": "ROC-AUC",
    "kappa": "Cohen's kappa",
    "ece": "calibration error",
    "itr": "bits a minute",
    "r2": "R\u00b2",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "pearson": "Pearson's r",
}

_STYLE: dict[str, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "svg.fonttype": "path",
    "figure.facecolor": "white",
    # Names of people and classes are not mathematics.
    "text.parse_math": False,
    "axes.unicode_minus": True,
}

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a function that draws in the report's style, whatever the user's is."""

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context():
            matplotlib.rcParams.update(_defaults())
            return draw(*args, **kwargs)

    return inside


def _defaults() -> dict[str, Any]:
    """Return matplotlib's own settings with ours, the backend left alone."""
    # Setting a backend here would switch, or start, the user's windows.
    kept = {k: v for k, v in matplotlib.rcParamsDefault.items() if "backend" not in k}
    return kept | _STYLE


def new_figure(width: float = WIDTH, height: float = 4.0) -> Figure:
    """Return a figure that is no part of pyplot's state; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Figure, label: str, *, dpi: float = 150) -> str:
    """Return a figure as one inline ``<svg>`` element.

    Parameters
    ----------
    figure : Figure
    label : str
        What the picture shows, for those who cannot see it.
    dpi : float
        Of the parts that are pixels.
    """
    # Text becomes paths, and no date is written: the same results, the same file.
    buffer = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcParams.update(_defaults())
        figure.savefig(buffer, format="svg", dpi=dpi, metadata={"Date": None})
    figure.clear()
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    spoken = html.escape(label, quote=True)
    return text.replace("<svg", f'<svg role="img" aria-label="{spoken}"', 1)


def mode_colours(modes: Sequence[str]) -> dict[str, str]:
    """Return a colour for each mode: grey where nothing adapts, blue for "full"."""
    colours = {m: UNADAPTED for m in modes if m in ("none", "none-trialwise")}
    free = list(MODE_COLOURS)
    if "full" in modes:
        colours["full"] = free.pop(0)
    for i, mode in enumerate(m for m in modes if m not in colours):
        colours[mode] = free[i % len(free)]
    return colours


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """Return a colour for each class."""
    return {c: CLASS_COLOURS[i % len(CLASS_COLOURS)] for i, c in enumerate(classes)}


def metric_name(metric: str) -> str:
    """Return how a score is called in words."""
    name = metric.removesuffix("_common")
    return METRIC_NAMES.get(name, name.replace("_", " "))


def shorten(name: str, limit: int = 22) -> str:
    """Return a name that is cut in the middle where it is long."""
    if len(name) <= limit:
        return name
    head = (limit - 1) // 2
    return name[:head] + "\u2026" + name[-(limit - 1 - head) :]


def spread_labels(values: Sequence[float], gap: float) -> NDArray:
    """Return heights near `values` that are at least `gap` apart, for labels."""
    order = np.argsort(values, kind="stable")
    heights = np.asarray(values, dtype=np.float64)[order]
    # Each pass moves neighbours that overlap apart by equal halves.
    for _ in range(200):
        overlap = gap - np.diff(heights)
        if not (overlap > 1e-9).any():
            break
        push = np.maximum(overlap, 0.0) / 2
        heights[:-1] -= push
        heights[1:] += push
    placed = np.empty_like(heights)
    placed[order] = heights
    return placed


def mark_chance(axes: Axes, chance: float, *, vertical: bool = False) -> None:
    """Draw the chance level as a dashed line with its name; NaN draws nothing."""
    if not np.isfinite(chance):
        return
    style: dict[str, Any] = {"color": SOFT, "lw": 1.0, "ls": (0, (4, 3)), "zorder": 0}
    text: dict[str, Any] = {"color": SOFT, "fontsize": 8.5}
    if vertical:
        axes.axvline(chance, **style)
        axes.annotate(
            f"chance {chance:.3g}",
            (chance, 1.0),
            xytext=(3, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            **text,
        )
    else:
        axes.axhline(chance, **style)
        axes.annotate(
            f"chance {chance:.3g}",
            (0.0, chance),
            xytext=(3, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            **text,
        )
