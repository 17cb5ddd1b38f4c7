"""The report's section on trust: what can be relied on in one pipeline."""

from __future__ import annotations

import numpy as np

from eegtensor.benchmark.figures import to_svg
from eegtensor.benchmark.figures_trust import SHARES, draw_trust, kept_accuracy
from eegtensor.benchmark.report_signals import Section
from eegtensor.benchmark.report_words import joined, text
from eegtensor.benchmark.trustrecord import TrustCard
from eegtensor.lifelong import Audit


def trust_section(card: TrustCard, chance: float) -> Section:
    """Return the section of a card.

    Parameters
    ----------
    card : TrustCard
    chance : float
        Accuracy of guessing.
    """
    words = headline(card)
    figure = draw_trust(card, chance)
    svg = "" if figure is None else to_svg(figure, words)
    who = joined(map(text, card.people))
    lines = [
        f"<p>Decoders fitted without {who} in turn, adapted to each without labels; "
        "attacks and certificates see these statistics fixed. Sizes are in standard "
        "deviations of each channel.</p>",
        svg,
    ]
    if card.certificate is not None:
        lines.append(_of_certificate(card))
    if card.audit is not None:
        lines.append(_of_audit(card.audit, card.seconds_retrained))
    lines += [f"<p>No {part}: {text(why)}</p>" for part, why in card.missing.items()]
    return Section(f"Trust card: {card.pipeline}", f"<h4>{words}</h4>" + "".join(lines))


def headline(card: TrustCard) -> str:
    """Return the card in a sentence or two."""
    said = []
    if card.robustness is not None:
        clean, *_, worst = card.robustness["accuracy"]
        last = card.robustness.iloc[-1]
        said.append(
            f"accuracy {clean:.2f} falls to {worst:.2f} under an attack "
            f"{last['snr_db']:.0f} dB below the signal"
        )
    if "after" in card.ece:
        said.append(
            f"the calibration error goes from {card.ece['before']:.3f} to "
            f"{card.ece['after']:.3f} by one temperature"
        )
    if card.rejection is not None:
        correct = card.rejection["correct"].to_numpy()
        fifth = int(np.argmin(np.abs(SHARES - 0.2)))
        kept = {
            name: kept_accuracy(card.rejection[name].to_numpy(), correct)
            for name in ("familiarity", "confidence")
        }
        best = max(kept, key=lambda name: kept[name][fifth])
        said.append(
            f"rejecting a fifth of the trials by {best} takes accuracy from "
            f"{kept[best][0]:.2f} to {kept[best][fifth]:.2f}"
        )
    words = "; ".join(said) or "nothing could be measured"
    return f"{text(card.pipeline)}: {words}"


def _of_certificate(card: TrustCard) -> str:
    found = card.certificate
    assert found is not None
    good = found["correct"].to_numpy()
    if not good.any():
        return "<p>No trial that was certified is right.</p>"
    held = found.loc[good, ["radius", "snr_db"]].median()
    return (
        f"<p>Of {len(found)} trials of one person {good.mean():.0%} are right with a "
        f"certificate: with noise of {card.sigma:g} no displacement below the radius "
        f"changes the vote (half of them up to {held['radius']:.2f}, a perturbation "
        f"{held['snr_db']:.0f} dB below the trial). It holds for the vote of a decoder "
        "that was fitted to noisy trials, not for the pipeline itself.</p>"
    )


def _of_audit(audit: Audit, seconds: float) -> str:
    titles = {
        "general": "people kept, trials not trained on",
        "forgetting": "people gone, trials not trained on",
        "transfer": "a person never met",
    }
    columns = ("before", "after", "retrained")
    rows = [
        (titles[axis], [f"{row[c]:.3f}" for c in columns])
        for axis, row in audit.accuracy.items()
        if axis in titles
    ]
    for way, found in audit.membership.items():
        cells = [f"{found[c].auc:.3f}" for c in columns]
        rows.append((f"membership inference (AUC), decoder {way}", cells))
    body = "".join(
        f"<tr><td>{name}</td>"
        + "".join(f'<td class="num">{cell}</td>' for cell in cells)
        + "</tr>"
        for name, cells in rows
    )
    heads = "".join(f'<th class="num">{c}</th>' for c in columns)
    how = "exact" if audit.exact else "approximate"
    return (
        f"<h4>Forgetting {joined(map(text, audit.people))}: {text(audit.method)} "
        f"({how}), {audit.seconds:.1f} s; training without them {seconds:.1f} s</h4>"
        '<div class="et-scroll"><table class="et"><thead><tr>'
        f"<th>balanced accuracy</th>{heads}</tr></thead><tbody>{body}</tbody></table>"
        "</div><p>An AUC of .5: nobody can tell whether they were trained on.</p>"
    )
