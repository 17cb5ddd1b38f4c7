"""Components of a decomposition at a glance: where, at which frequency, when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull, QhullError

from eegtensor._check import check_option, fail
from eegtensor.features._base import check_fitted

if TYPE_CHECKING:
    import mne
    from matplotlib.figure import Figure

AXES = ("channel", "frequency", "time", "other")
_COLOUR = "#1f5f8b"
_GREY = "#666666"
# A map of electrodes on less of the head would be invented for the most part.
_COVERED = 0.1
# Names of more channels than this do not fit under their bars.
_NAMED = 16


def plot_factors(
    extractor: Any,
    *,
    info: mne.Info | None = None,
    axes: tuple[str, ...] | None = None,
    freqs: ArrayLike | None = None,
    times: ArrayLike | None = None,
    replicability: ArrayLike | None = None,
    n_components: int = 8,
) -> Figure:
    """Draw each component of a CP model as topography, spectrum and time course.

    Parameters
    ----------
    extractor : CPFeatures | NonnegativeCPFeatures | any with factors_ of one rank
        Fitted.
    info : mne.Info | None
        With electrode positions for topographies; bars without, or where they
        cover less than a tenth of the head.
    axes : tuple of str | None
        What each axis of a trial is: "channel", "frequency", "time" or "other". By
        default channel x time for two axes, channel x frequency x time for three.
    freqs : array-like | None
        Hertz, of the axis of frequencies.
    times : array-like | None
        Seconds, of the axis of time.
    replicability : array-like, shape (rank,) | None
        A number from 0 to 1 to print beside each component, such as its match
        between halves of the trials.
    n_components : int
        At most so many, in the order of the model.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    EEGTensorError
        If the model has no factors of one rank, or axes do not fit them.
    """
    from matplotlib.figure import Figure

    check_fitted(extractor, "factors_")
    factors: tuple[NDArray, ...] = extractor.factors_
    ranks = {U.shape[1] for U in factors}
    if len(ranks) != 1:
        fail(
            f"{type(extractor).__name__} has factors of {len(ranks)} ranks",
            why="Its columns do not belong together as components do",
            fix="draw a CP model",
        )
    names = _axis_names(axes, factors)
    shown = min(n_components, ranks.pop())
    energy = np.square(extractor.train_scores_).sum(axis=0)
    share = energy / energy.sum() if energy.sum() > 0 else energy
    figure = Figure(figsize=(2.6 * len(factors) + 1.2, 1.55 * shown + 0.7))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(shown, len(factors), squeeze=False)
    for r in range(shown):
        last = r == shown - 1
        for n, (name, U) in enumerate(zip(names, factors, strict=True)):
            axis = grid[r, n]
            if name == "channel":
                _draw_channels(axis, U[:, r], info, label=last)
            else:
                grids = {"frequency": freqs, "time": times}
                _draw_curve(axis, U, r, name, grids.get(name), label=last)
            if r == 0:
                axis.set_title(_TITLES[name], fontsize=10)
        words = f"{r + 1}   {100 * share[r]:.0f} %"
        if replicability is not None:
            words += f"\nmatch {np.asarray(replicability)[r]:.2f}"
        grid[r, 0].text(
            -0.12,
            0.5,
            words,
            transform=grid[r, 0].transAxes,
            ha="right",
            va="center",
            fontsize=9,
        )
    figure.suptitle("Components, with their share of the scores' energy", fontsize=11)
    return figure


_TITLES = {
    "channel": "where",
    "frequency": "at which frequency",
    "time": "when",
    "other": "weight",
}


def _axis_names(
    axes: tuple[str, ...] | None, factors: tuple[NDArray, ...]
) -> tuple[str, ...]:
    if axes is None:
        known = {2: ("channel", "time"), 3: ("channel", "frequency", "time")}
        axes = known.get(len(factors), ("other",) * len(factors))
    if len(axes) != len(factors):
        fail(
            f"axes={axes!r} for a model of {len(factors)} axes",
            fix="name each axis of a trial",
        )
    for name in axes:
        check_option("axes", name, AXES)
    return axes


def _draw_channels(
    axis: Any, weights: NDArray, info: mne.Info | None, *, label: bool
) -> None:
    if info is not None and len(weights) != len(info["ch_names"]):
        fail(
            f"The model has {len(weights)} channels, info has {len(info['ch_names'])}",
            fix="give the info of the trials that were decomposed",
        )
    if info is None or _coverage(info) < _COVERED:
        _draw_bars(axis, weights, None if info is None else info["ch_names"], label)
        return
    import mne

    limit = float(np.abs(weights).max())
    positive = bool((weights >= 0).all())
    low = 0.0 if positive else -limit
    mne.viz.plot_topomap(
        weights,
        info,
        axes=axis,
        show=False,
        cmap="Reds" if positive else "RdBu_r",
        vlim=(low, limit),
        # Of the colours' range: a map that is nearly flat then looks flat.
        contours=np.linspace(low, limit, 6)[1:-1] if limit > 0 else 0,
    )


def _coverage(info: mne.Info) -> float:
    """Return the share of the upper half of the head between the electrodes."""
    if info.get_montage() is None:
        return 0.0
    places = np.array([ch["loc"][:3] for ch in info["chs"]])
    if not np.isfinite(places).all():
        return 0.0
    # By angle from the vertex, as maps of the head are drawn; at 90 degrees it ends.
    angle = np.arctan2(np.hypot(places[:, 0], places[:, 1]), places[:, 2])
    turn = np.arctan2(places[:, 1], places[:, 0])
    flat = np.column_stack([angle * np.cos(turn), angle * np.sin(turn)])
    try:
        return float(ConvexHull(flat).volume / (np.pi * (np.pi / 2) ** 2))
    except QhullError:
        return 0.0


def _draw_bars(
    axis: Any, weights: NDArray, names: list[str] | None, label: bool
) -> None:
    at = np.arange(len(weights))
    axis.bar(at, weights, color=_COLOUR)
    axis.axhline(0.0, color=_GREY, lw=0.6)
    axis.set_yticks([])
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(False)
    if names is None or len(names) > _NAMED or not label:
        axis.set_xticks([])
        return
    axis.set_xticks(at, names, fontsize=8, rotation=90 if len(names) > 4 else 0)
    axis.tick_params(length=0)


def _draw_curve(
    axis: Any, U: NDArray, r: int, name: str, grid: ArrayLike | None, *, label: bool
) -> None:
    x = np.arange(len(U)) if grid is None else np.asarray(grid, dtype=float)
    if len(x) != len(U):
        fail(
            f"{len(x)} values for an axis of length {len(U)} ({name})",
            fix="give one value for each entry of the axis",
        )
    axis.plot(x, U[:, r], color=_COLOUR, lw=1.6)
    axis.fill_between(x, 0.0, U[:, r], color=_COLOUR, alpha=0.15, lw=0)
    low, high = min(0.0, float(U.min())), max(0.0, float(U.max()))
    axis.set_ylim(1.05 * low, 1.05 * high)
    axis.axhline(0.0, color=_GREY, lw=0.6)
    axis.set_yticks([])
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(labelsize=8, labelbottom=label)
    units = {"frequency": "Hz", "time": "s"}
    if label and grid is not None and name in units:
        axis.set_xlabel(units[name], fontsize=9)
