"""Pictures of codes: which are used, and what they look like."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.codebook import code_counts, code_usage
from eegtensor.tokens._band_kind import BandKind
from eegtensor.tokens._signals import frame_length
from eegtensor.tokens._slots import SlotGroup, slot_groups
from eegtensor.tokens.learned import LearnedCodec
from eegtensor.tokens.tokens import Tokens

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#8a8a8a"
# Rows of more groups are not told apart at a glance.
_ROWS = 6
# Seconds that a mean is taken over, at least.
_LEAST = 5


def plot_usage(tokens: Tokens, tokenizer: Any = None) -> Figure:
    """Draw how often every slot is sent, and how many of its codes are used.

    Parameters
    ----------
    tokens : Tokens
    tokenizer : EEGTokenizer | None
        That gave them; names the slots.

    Returns
    -------
    matplotlib.figure.Figure
        Above, the share of units and seconds in which a slot is sent. Below, of
        the codes that it has: those that occur, and its perplexity, which is how
        many codes used evenly would say as much.
    """
    from matplotlib.figure import Figure

    ids = _flat(tokens)
    counts = code_counts(ids, int(np.max(tokens.alphabet)))
    total = counts.sum(axis=1)
    shown = total > 0
    at = np.arange(shown.sum())
    figure = Figure(figsize=(11, 5))
    figure.set_layout_engine("constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2])
    above.bar(at, 100 * total[shown] / len(ids), width=0.8, color=_GREY)
    above.set_ylabel("sent in %\nof seconds")
    above.set_ylim(0, 105)
    possible = np.minimum(tokens.alphabet, total)[shown]
    used = (counts > 0).sum(axis=1)[shown]
    below.bar(
        at,
        possible,
        width=0.8,
        color="#e3e3e3",
        label="could occur (codes of the slot, or tokens sent if fewer)",
    )
    below.plot(at, used, "o", ms=6, mfc="none", color=_BLUE, label="occur")
    perplexity = code_usage(counts).perplexity[shown]
    below.plot(at, perplexity, "D", ms=4, color=_ORANGE, label="perplexity")
    below.set_yscale("log", base=2)
    most = float(np.max(tokens.alphabet))
    below.set_ylim(0.8, 3 * most)
    ticks = 2 ** np.arange(0, int(np.log2(most)) + 1, 2)
    below.set_yticks(ticks, [str(tick) for tick in ticks])
    below.set_ylabel("codes")
    below.legend(frameon=False, ncols=3, loc="upper left", fontsize=9)
    groups = slot_groups(tokenizer, len(shown))
    place = np.cumsum(shown) - shown
    middles, names = [], []
    for group in groups:
        n = int(shown[group.first : group.stop].sum())
        if not n:
            continue
        middles.append(place[group.first] + (n - 1) / 2)
        names.append(group.name)
        for axis in (above, below):
            axis.axvline(place[group.first] - 0.5, color="#bbbbbb", lw=0.8, zorder=0)
    if len(groups) > 1:
        turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        below.set_xticks(middles, names, fontsize=9, **turned)
        below.tick_params(axis="x", length=0)
    below.set_xlabel("slots that are sent, in their order")
    below.set_xlim(-0.5, len(at) - 0.5)
    for axis in (above, below):
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    return figure


def plot_codes(tokenizer: Any, tokens: Tokens, *, n_codes: int = 5) -> Figure:
    """Draw what the most used codes look like: the mean second that says them.

    Parameters
    ----------
    tokenizer : EEGTokenizer
    tokens : Tokens
        That it gave, of some minutes.
    n_codes : int
        Of each row.

    Returns
    -------
    matplotlib.figure.Figure
        One row for the first level of each band or branch, the most used code on
        the left. Every curve is the mean of what is decoded wherever the code was
        said: of kinds "band-rvq" and "learned" from this slot alone, of others
        with all that comes with it.

    Raises
    ------
    EEGTensorError
        If the tokenizer is spatial, or no code occurs often enough.
    """
    from matplotlib.figure import Figure

    ids = _flat(tokens)
    if getattr(getattr(tokenizer, "codec_", None), "mixing", None) is not None:
        fail(
            "the tokenizer is spatial",
            why="A code of a component is a wave of all channels",
            fix="draw one that was fitted with spatial=False",
        )
    rows = [
        (group, slot, codes)
        for group, slot in _drawn_slots(tokenizer, ids)
        if len(codes := _most_used(ids[:, slot], tokenizer, n_codes))
    ]
    if not rows:
        fail(
            f"no code occurs {_LEAST} times",
            why="A mean of few seconds shows these, not the code",
            fix="give tokens of a longer recording",
        )
    figure = Figure(figsize=(2.0 * n_codes + 1.4, 1.2 * len(rows) + 0.9))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(len(rows), n_codes, sharex=True, sharey="row", squeeze=False)
    length = frame_length(tokens.sfreq)
    times = np.arange(length) / tokens.sfreq
    for axes, (group, slot, codes) in zip(grid, rows, strict=True):
        said = ids[:, slot]
        frames = _frames(tokenizer, tokens, slot)
        for axis in axes[len(codes) :]:
            axis.set_axis_off()
        for axis, code in zip(axes, codes, strict=False):
            where = said == code
            axis.axhline(0, color="#cccccc", lw=0.8)
            axis.plot(times, frames[where].mean(axis=0), color=_BLUE, lw=1.4)
            share = 100 * where.sum() / (said >= 0).sum()
            axis.set_title(f"code {code}: {share:.1f} %", fontsize=9, pad=3)
            axis.set_yticks([])
            axis.set_xlim(0, 1)
            axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axis.tick_params(labelsize=8)
            for side in ("top", "right", "left"):
                axis.spines[side].set_visible(False)
        axes[0].set_ylabel(group.name, rotation=0, ha="right", va="center", fontsize=10)
    for axis in grid[-1]:
        axis.set_xlabel("seconds", fontsize=9)
    figure.suptitle(
        "The most used codes of each row: mean of the seconds that say them",
        fontsize=11,
    )
    return figure


def _flat(tokens: Tokens) -> NDArray:
    """Return ids of all trials, units and frames, (n, n_slots)."""
    ids = np.asarray(tokens.ids)
    if not ids.size:
        fail("there are no tokens", fix="give those of a recording")
    return ids.reshape(-1, ids.shape[-1]).astype(np.int64)


def _frames(tokenizer: Any, tokens: Tokens, slot: int) -> NDArray:
    """Return what every unit and frame decodes to, (n, n_times), without scale."""
    ids = np.array(tokens.ids)
    codec = getattr(tokenizer, "codec_", None)
    others = np.arange(ids.shape[-1]) != slot
    if isinstance(codec, BandKind):
        # Its state, the first slot, says how large a code is.
        others[0] = False
        ids[..., others] = -1
    elif isinstance(codec, LearnedCodec):
        ids[..., others] = 0
    length = frame_length(tokens.sfreq)
    n_times, scale = ids.shape[-2] * length, np.ones(len(tokens.scale))
    alone = replace(tokens, ids=ids, n_times=n_times, scale=scale)
    return np.asarray(tokenizer.decode(alone)).reshape(-1, length)


def _drawn_slots(tokenizer: Any, ids: NDArray) -> list[tuple[SlotGroup, int]]:
    """Return the groups that say most, each with its slot of the most codes."""
    groups = [g for g in slot_groups(tokenizer, ids.shape[1]) if g.name != "state"]
    said = ids >= _silent(tokenizer)
    often = [said[:, g.first : g.stop].sum() for g in groups]
    kept = sorted(np.argsort(often, kind="stable")[::-1][:_ROWS])
    found = []
    for group in (groups[i] for i in kept):
        count = said[:, group.first : group.stop].sum(axis=0)
        found.append((group, group.first + int(count.argmax())))
    return found


def _most_used(said: NDArray, tokenizer: Any, n_codes: int) -> NDArray:
    """Return the codes of a slot that are said most, and often enough."""
    said = said[said >= _silent(tokenizer)]
    found, count = np.unique(said, return_counts=True)
    order = np.argsort(-count, kind="stable")[:n_codes]
    return np.asarray(found[order][count[order] >= _LEAST])


def _silent(tokenizer: Any) -> int:
    """Return the first id that says something: zero of kind "learned" is silence."""
    return int(isinstance(getattr(tokenizer, "codec_", None), LearnedCodec))
