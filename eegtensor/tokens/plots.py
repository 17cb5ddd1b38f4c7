"""Pictures of tokens: what is lost, at which rate, and which codes say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.tokens._prepared import RATE, each_signals, prepared_pair
from eegtensor.tokens.evaluate import BANDS, Distortion, decode_filled, distortion

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can tell apart, and greys
# that differ in print.
_TRUE, _REBUILT = "#9a9a9a", "#d55e00"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = "osD^vP"
_EDGES = {name: f"{a:g}\u2013{b:g} Hz" for name, (a, b) in BANDS.items()}


def plot_reconstruction(
    tokenizer: Any,
    recording: Any,
    *,
    sfreq: float = 200.0,
    start: float = 0.0,
    seconds: float = 5.0,
    channels: int = 5,
    fill: float = 0.0,
) -> Figure:
    """Draw a stretch of a recording and what its tokens stand for, and the errors.

    Parameters
    ----------
    tokenizer : EEGTokenizer, or any object that `evaluate` takes
    recording : array (n_channels, n_times), MNE's Raw, or path
        Compared from 0.5 to 44.5 Hz, every channel at variance one.
    sfreq : float
        Hertz, of an array.
    start, seconds : float
        The stretch. The errors are those of the whole recording.
    channels : int
        How many are drawn: those with the least, the median, ... the largest error.
    fill : float
        See `EEGTokenizer.decode`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    signals, _ = next(each_signals(recording, sfreq))
    known = {"ch_names": signals.ch_names} if signals.ch_names else {}
    tokens = tokenizer.encode(signals.X[0], sfreq=signals.sfreq, **known)
    rebuilt = decode_filled(tokenizer, tokens, fill)
    x, y = prepared_pair(signals.X[0], rebuilt, signals.sfreq)
    spent = float(getattr(tokens, "bits_per_second", np.nan))
    found = distortion([x], [y])._replace(bits_per_second=spent)
    return draw_reconstruction(
        x,
        y,
        signals.ch_names,
        found,
        start=start,
        seconds=seconds,
        channels=channels,
    )


def draw_reconstruction(
    x: NDArray,
    y: NDArray,
    names: tuple[str, ...],
    found: Distortion,
    *,
    start: float = 0.0,
    seconds: float = 5.0,
    channels: int = 5,
) -> Figure:
    """Draw what `prepared_pair` gave, and its distortion."""
    from matplotlib.figure import Figure

    first = round(start * RATE)
    span = slice(first, first + round(seconds * RATE))
    if x[:, span].shape[1] < 2:
        fail(
            f"start={start:g} s, seconds={seconds:g}",
            fix=f"the recording has {x.shape[1] / RATE:.1f} s between its ends",
        )
    order = np.argsort(np.square(x - y).mean(axis=1), kind="stable")
    n = min(max(channels, 1), len(x))
    shown = order[np.linspace(0, len(x) - 1, n).round().astype(int)]
    figure = Figure(figsize=(12, 1.6 + 0.75 * n))
    figure.set_layout_engine("constrained")
    left, right = figure.subplots(1, 2, width_ratios=[2.6, 1])
    times = start + np.arange(x[:, span].shape[1]) / RATE
    step = 5.0
    for row, channel in enumerate(shown):
        at = -step * row
        ends = {"label": "recording"}, {"label": "from its tokens"}
        for signal, colour, width, words in zip(
            (x, y), (_TRUE, _REBUILT), (2.0, 1.0), ends, strict=True
        ):
            left.plot(
                times,
                signal[channel, span] + at,
                color=colour,
                lw=width,
                **(words if row == 0 else {}),
            )
    error = np.sqrt(np.square(x - y).mean(axis=1))
    labels = [
        f"{names[c] if names else f'channel {c}'}\nNRMSE {error[c]:.2f}" for c in shown
    ]
    left.set_yticks(-step * np.arange(n), labels, fontsize=9)
    left.tick_params(axis="y", length=0)
    left.set_xlim(times[0], times[-1])
    left.set_xlabel("seconds")
    left.set_title(
        f"{found.bits_per_second:.0f} bit/s/channel, NRMSE of all {len(x)} channels "
        f"{found.nrmse:.2f}",
        fontsize=11,
    )
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower left",
        ncols=2,
        frameon=False,
    )
    _draw_bands(right, found)
    _bare(left, "left")
    return figure


def _draw_bands(axis: Any, found: Distortion) -> None:
    """Draw the normalised error of every band, with power and phase in words."""
    at = np.arange(len(BANDS))[::-1]
    error = [found.nmse[band] for band in BANDS]
    axis.barh(at, error, color=_REBUILT, height=0.6)
    most = max(1.0, *error)
    for place, band in zip(at, BANDS, strict=True):
        axis.text(
            1.05 * most,
            place,
            f"{found.nmse[band]:.2f}   {found.power_db[band]:4.1f} dB   "
            f"{found.phase_deg[band]:.0f}\u00b0",
            va="center",
            fontsize=9,
        )
    axis.set_yticks(at, [f"{b}\n{_EDGES[b]}" for b in BANDS], fontsize=9)
    axis.tick_params(axis="y", length=0)
    axis.set_xlim(0, 1.95 * most)
    axis.set_xticks([0, 0.5, 1])
    axis.set_xlabel("squared error / energy")
    axis.set_title("error, power off by, phase off by", fontsize=11)
    _bare(axis, "left")


def plot_rate_distortion(table: pd.DataFrame) -> Figure:
    """Draw what tokenizers lose against the bits they spend.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `rate_distortion`; several below each other (``pandas.concat``) give
        several curves.

    Returns
    -------
    matplotlib.figure.Figure
        Waveform error on the left, error of the bands' power on the right.
    """
    from matplotlib.figure import Figure

    lacking = {"bits_per_second", "nrmse", "power_db"} - set(table.columns)
    if lacking or not len(table):
        fail(
            f"the table has {len(table)} rows and no columns {sorted(lacking)}",
            fix="give what rate_distortion() returned",
        )
    figure = Figure(figsize=(11, 4.4))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(1, 2)
    titles = {
        "nrmse": "waveform error (NRMSE)",
        "power_db": "power of bands off by (dB)",
    }
    for i, (words, curve) in enumerate(_curves(table)):
        curve = curve.sort_values("bits_per_second")
        for axis, column in zip(axes, titles, strict=True):
            axis.plot(
                curve["bits_per_second"],
                curve[column],
                color=_COLOURS[i % len(_COLOURS)],
                marker=_MARKERS[i % len(_MARKERS)],
                ls=("-", "--", ":")[i // len(_COLOURS) % 3],
                lw=1.8,
                ms=6,
                label=words,
            )
    ticks = np.unique(table.get("asked", table["bits_per_second"]).round().astype(int))
    for axis, (column, title) in zip(axes, titles.items(), strict=True):
        axis.set_xscale("log")
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set_ylim(0, 1.08 * table[column].max())
        axis.set_xlabel("bits a second and channel")
        axis.set_ylabel(title)
        axis.grid(color="#e5e5e5", lw=0.8)
        axis.set_axisbelow(True)
        _bare(axis)
    axes[0].legend(frameon=False)
    return figure


def _curves(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each curve, and what tells it from the others."""
    numbers = {"asked", *Distortion(0, {}, {}, {})._fields}
    said = [
        name
        for name in table.columns
        if name not in numbers
        and not name.startswith(("nmse_", "power_db", "phase_deg"))
    ]
    different = [n for n in said if n == "kind" or table[n].nunique(dropna=False) > 1]
    if not different:
        return [("tokens", table)]
    return [
        (
            ", ".join(
                str(value) if name == "kind" else f"{name} {value}"
                for name, value in zip(different, values, strict=True)
            ),
            rows,
        )
        for values, rows in table.groupby(different, sort=False, dropna=False)
    ]


def _bare(axis: Any, *more: str) -> None:
    for side in ("top", "right", *more):
        axis.spines[side].set_visible(False)
