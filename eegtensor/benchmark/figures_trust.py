"""Pictures of the trust card: attacks, calibration, rejection, certificates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eegtensor.benchmark.figures import (
    MODE_COLOURS,
    SOFT,
    UNADAPTED,
    WIDTH,
    mark_chance,
    new_figure,
    styled,
)
from eegtensor.benchmark.trustrecord import TrustCard

N_BINS = 8
# Shares of trials that are rejected; of the rest too few would be left.
SHARES = np.linspace(0.0, 0.6, 25)


@styled
def draw_trust(card: TrustCard, chance: float) -> Figure | None:
    """Draw what there is of four panels; None where there is nothing.

    Parameters
    ----------
    card : TrustCard
    chance : float
    """
    panels: list[Callable[[Axes], None]] = []
    if card.robustness is not None:
        panels.append(lambda axes: _robustness(axes, card, chance))
    if card.calibration is not None:
        panels.append(lambda axes: _calibration(axes, card, chance))
    if card.rejection is not None:
        panels.append(lambda axes: _rejection(axes, card))
    if card.certificate is not None:
        panels.append(lambda axes: _certificate(axes, card))
    if not panels:
        return None
    n_columns = min(2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = new_figure(WIDTH * n_columns / 2, 3.6 * n_rows)
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, draw in zip(grid, panels, strict=False):
        draw(axes)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    return figure


def _robustness(axes: Axes, card: TrustCard, chance: float) -> None:
    assert card.robustness is not None
    eps, accuracy = (card.robustness[c].to_numpy() for c in ("eps", "accuracy"))
    axes.plot(eps, accuracy, "o-", color=MODE_COLOURS[0], lw=1.6, ms=5)
    for x, y, db in zip(eps, accuracy, card.robustness["snr_db"], strict=True):
        if np.isfinite(db):
            axes.annotate(
                f"{db:.0f} dB",
                (x, y),
                xytext=(4, 6),
                textcoords="offset points",
                color=SOFT,
                fontsize=8.5,
            )
    mark_chance(axes, chance)
    axes.set_title("Under attack (PGD), signal over perturbation in dB")
    axes.set_xlabel("size of the attack (standard deviations of a channel)")
    axes.set_ylabel("accuracy")
    axes.set_ylim(-0.02, 1.02)
    axes.margins(x=0.12)


def _calibration(axes: Axes, card: TrustCard, chance: float) -> None:
    assert card.calibration is not None
    axes.axline((0.5, 0.5), slope=1, color=SOFT, lw=1.0, ls=(0, (4, 3)))
    rows = {"confidence": ("before", "as it says", UNADAPTED)}
    if "after" in card.ece:
        rows["after"] = ("after", "temperature of the other people", MODE_COLOURS[0])
    for column, (key, name, colour) in rows.items():
        sure = card.calibration[column].to_numpy()
        x, y, share = binned(sure, card.calibration["correct"].to_numpy())
        label = f"{name}: error {card.ece[key]:.3f}"
        axes.plot(x, y, color=colour, lw=1.6, label=label)
        axes.scatter(x, y, s=12 + 140 * share, color=colour, lw=0, zorder=3)
    axes.set_title("How sure and how right, people not seen")
    axes.set_xlabel("confidence (highest probability)")
    axes.set_ylabel("accuracy")
    axes.set_xlim(chance - 0.03, 1.02)
    axes.set_ylim(None, 1.02)
    axes.legend(loc="lower right")


def binned(sure: NDArray, correct: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Return mean confidence, accuracy and share of trials of bins of like size."""
    order = np.argsort(sure, kind="stable")
    parts = [p for p in np.array_split(order, min(N_BINS, len(order))) if len(p)]
    x = np.asarray([sure[part].mean() for part in parts])
    y = np.asarray([correct[part].mean() for part in parts])
    return x, y, np.asarray([len(part) / len(sure) for part in parts])


def kept_accuracy(score: NDArray, correct: NDArray) -> NDArray:
    """Return the accuracy of the trials left, for each share of `SHARES` rejected.

    Parameters
    ----------
    score : ndarray, shape (n_trials,)
        The lowest are rejected first.
    correct : ndarray of bool, shape (n_trials,)
    """
    order = np.argsort(score, kind="stable")
    starts = np.floor(SHARES * len(score)).astype(int)
    return np.asarray([correct[order[start:]].mean() for start in starts])


def _rejection(axes: Axes, card: TrustCard) -> None:
    assert card.rejection is not None
    correct = card.rejection["correct"].to_numpy()
    names = {
        "familiarity": f"unlike the source ({card.scorer})",
        "confidence": "unsure",
    }
    for k, (column, name) in enumerate(names.items()):
        score = card.rejection[column].to_numpy()
        axes.plot(
            SHARES,
            kept_accuracy(score, correct),
            color=MODE_COLOURS[k],
            lw=1.6,
            label=name,
        )
    axes.set_title("Trials left when some are rejected")
    axes.set_xlabel("share of trials rejected")
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    axes.set_ylabel("accuracy of the others")
    axes.legend(loc="best")


def _certificate(axes: Axes, card: TrustCard) -> None:
    assert card.certificate is not None
    found: pd.DataFrame = card.certificate
    radius, share = certified_accuracy(
        found["radius"].to_numpy(), found["correct"].to_numpy()
    )
    axes.step(radius, share, where="pre", color=MODE_COLOURS[2], lw=1.6)
    axes.set_title(f"Certified (noise {card.sigma:g}), {len(found)} trials")
    axes.set_xlabel("radius (l2 of the trial, standard deviations)")
    axes.set_ylabel("right at every displacement")
    axes.set_ylim(-0.02, 1.02)


def certified_accuracy(radius: NDArray, correct: NDArray) -> tuple[NDArray, NDArray]:
    """Return radii and the share of trials that are right up to each, to zero.

    Parameters
    ----------
    radius : ndarray, shape (n_trials,)
    correct : ndarray of bool, shape (n_trials,)
    """
    at = np.unique(np.r_[0.0, radius])
    share = np.asarray([(correct & (radius >= r)).mean() for r in at])
    return np.r_[at, at[-1]], np.r_[share, 0.0]
