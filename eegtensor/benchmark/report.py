"""The report: one HTML file that shows what a benchmark found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import mne
import numpy as np
import pandas as pd

from eegtensor._check import fail
from eegtensor.benchmark.figures import metric_name, to_svg
from eegtensor.benchmark.figures_predictions import (
    MIN_IN_BIN,
    confusion_of,
    draw_calibration,
    draw_confusions,
    draw_regression,
    first_and_last,
    predictions_of,
    reliability,
    with_probabilities,
)
from eegtensor.benchmark.figures_scores import (
    MAX_PANELS,
    draw_people,
    draw_ranking,
    draw_sessions,
    gains,
    modes_of,
    session_tables,
    shared_metric,
)
from eegtensor.benchmark.report_signals import Section, signal_sections
from eegtensor.benchmark.report_tables import (
    comparison_rows,
    config_table,
    scores_table,
    timing_table,
)
from eegtensor.benchmark.report_words import (
    comparison_words,
    describe_data,
    describe_protocol,
    flagged_parts,
    gain_sentence,
    headline,
    how_to_reproduce,
    joined,
    number,
    ranking_sentence,
    several,
    text,
)
from eegtensor.benchmark.results import Results
from eegtensor.benchmark.tables import score_the_same

if TYPE_CHECKING:
    from eegtensor.benchmark.trustrecord import TrustCard

_CSS = """
#content {font-size: 1rem; color: #24292f}
#content svg {max-width: 100%; height: auto; display: block; margin: .6rem 0}
#content h4 {font-size: 1.25rem; margin: .4rem 0 .5rem; max-width: 60rem}
#content h4 + p, #content p {max-width: 60rem; margin-bottom: .6rem}
#content .soft {color: #6b7280; font-size: .85em; white-space: nowrap; display: block}
#content .et-scroll {overflow-x: auto}
#content table.et {border-collapse: collapse; margin: .4rem 0 1rem; font-size: .95rem}
#content table.et th {font-weight: 600; border-bottom: 2px solid #8a8f98}
#content table.et th, #content table.et td {
  padding: .28rem .9rem .28rem 0; vertical-align: top; text-align: left}
#content table.et .num {
  text-align: right; padding: .28rem 0 .28rem 1.4rem;
  font-variant-numeric: tabular-nums}
#content table.et td {border-bottom: 1px solid #e5e7eb}
#content table.et td:first-child {white-space: nowrap}
#content code {color: #24292f; word-break: break-word}
#content pre {background: #f6f8fa; padding: .7rem 1rem; border-radius: .3rem;
  white-space: pre-wrap}
#filter-by-tags-dropdown-menu, .accordion-header .badge {display: none}
"""


def write_report(
    results: Results,
    path: str | os.PathLike,
    *,
    title: str | None = None,
    trust: TrustCard | None = None,
) -> Path:
    """Write results as one self-contained HTML file.

    Scores by person before and after adaptation, ranking with paired tests,
    confusions, calibration, a map of domains, patterns of the classes, sessions
    and the configuration. What cannot be drawn (trials that were not kept,
    pipelines without probabilities) is said in words.

    Parameters
    ----------
    results : Results
    path : path-like
        HTML file; folders are made, an older file is replaced.
    title : str | None
        By default the protocol and the number of people.
    trust : TrustCard | None
        What can be relied on in one of the pipelines, which gets a section.

    Returns
    -------
    path : Path

    Raises
    ------
    EEGTensorError
        If there are no scores, or the path is a folder.
    """
    target = Path(path)
    if target.is_dir():
        fail(
            f"{target} is a folder",
            fix=f"name a file, for example {target / 'report.html'}",
        )
    if not len(results.scores):
        fail("There are no scores to report", fix="run the benchmark first")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(
            f"The folder of {target} cannot be made: {error}",
            fix="name a file in a folder that can be written",
            cause=error,
        )
    report = mne.Report(title=title or _title(results), verbose="ERROR")
    report.add_custom_css(_CSS)
    sections = _sections(results)
    if trust is not None:
        # Of torch, which a report without a card does not need.
        from eegtensor.benchmark.report_trust import trust_section

        # Before "Sessions and seconds" and the configuration.
        sections.insert(-2, trust_section(trust, results.config["chance"]))
    for section in sections:
        report.add_html(section.body, section.title, tags=("eegtensor",))
    # A reader must never meet half a file.
    draft = target.with_name(f".{target.name}.{os.getpid()}.html")
    try:
        report.save(draft, open_browser=False, overwrite=True, verbose="ERROR")
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def _title(results: Results) -> str:
    people = results.scores[["dataset", "subject"]].drop_duplicates()
    return f"{results.config['protocol']}: {several(len(people), 'person')}"


def _sections(results: Results) -> list[Section]:
    classes = bool(results.config["classes"])
    sections = [
        Section("Summary", _summary(results)),
        Section("Score per person", _people(results)),
        Section("Ranking and tests", _ranking(results)),
    ]
    if classes:
        sections.append(Section("Confusion matrices", _confusions(results)))
        sections.append(Section("Calibration", _calibration(results)))
    else:
        sections.append(Section("True and predicted targets", _regression(results)))
    sections += [
        *signal_sections(results),
        Section("Sessions and seconds", _sessions(results)),
        Section("Configuration", _configuration(results)),
    ]
    return sections


def _summary(results: Results) -> str:
    failed = results.config.get("failed") or []
    warning = ""
    if failed:
        lines = "".join(f"<li>{text(line)}</li>" for line in failed)
        warning = (
            f"<p><b>Folds that failed and are missing here:</b></p><ul>{lines}</ul>"
        )
    flagged = flagged_parts(results)
    hidden = ""
    if results.config["classes"]:
        hidden = "ROC-AUC hides a shifted threshold, which balanced accuracy shows."
    n_people = len(results.per_person())
    narrow = ""
    if 2 <= n_people < 10:
        # Coverage of BCa on normal values, simulated; see bootstrap_interval.
        narrow = (
            f" With {several(n_people, 'person')} such intervals are too narrow: they "
            "hold the true mean in some 80 to 90 % of cases."
        )
    gain = f"<p>{gain_sentence(results)}.</p>" if len(modes_of(results)) > 1 else ""
    return (
        f"<h4>{headline(results)}</h4>{gain}<p>{describe_data(results)}</p>"
        f"<p>{describe_protocol(results)}</p>"
        + (f"<p>{flagged}</p>" if flagged else "")
        + warning
        + scores_table(results)
        + "<p>Means over people with 95 % intervals that resample people; a person's "
        f"sessions are averaged first.{narrow} Transductive: adaptation saw the "
        f"scored trials. {hidden}</p>"
    )


def _people(results: Results) -> str:
    modes = modes_of(results)
    if len(modes) > 1:
        words = gain_sentence(results)
        look = (
            "Each line is a person; the diamond is the mean over people with its "
            "95 % interval. Lines that rise are people whom adaptation helps."
        )
        lost = pd.Series(gains(results).unstack()).dropna()
        if len(lost) and float(lost.min()) <= -0.005:
            name, person = map(str, lost.index[int(np.argmin(lost))])
            look += (
                f" Most is lost by {text(person)} with {text(name)} "
                f"({number(float(lost.min()), 2)})."
            )
    else:
        words = f"Every person under adaptation {text(modes[0])}"
        look = (
            "Each dot is a person, joined across pipelines; the diamond is the mean "
            "over people with its 95 % interval."
        )
    look += _which_trials(results)
    svg = to_svg(draw_people(results), f"Score per person. {words}")
    return f"<h4>{words}</h4><p>{look}</p>{svg}"


def _which_trials(results: Results) -> str:
    if shared_metric(results).endswith("_common"):
        scores = results.scores
        seen = scores[scores["transductive_common"] & ~scores["transductive"]]
        caution = ""
        if len(seen):
            modes = joined(map(text, seen["adapt"].unique()))
            caution = f" Adaptation {modes} saw some of these, without labels."
        return (
            " Modes score different trials, so all are shown on the last half of "
            f"every session, which they share.{caution}"
        )
    if not score_the_same(modes_of(results)):
        return " The modes score different trials, so small differences mean little."
    return ""


def _ranking(results: Results) -> str:
    svg = to_svg(draw_ranking(results), "Ranking of pipelines and modes.")
    n_methods = len(results.scores[["pipeline", "adapt"]].drop_duplicates())
    which = _which_trials(results)
    lead = f"<h4>{ranking_sentence(results)}</h4>"
    lead += f"<p>{which}</p>{svg}" if which else svg
    if n_methods < 2:
        return lead
    return f"{lead}<p>{comparison_words(results)}</p>{comparison_rows(results)}"


def _confusions(results: Results) -> str:
    methods = first_and_last(results)
    classes = results.config["classes"]
    words = "No class is taken for another"
    highest = 0.0
    for name, mode in methods:
        if mode != modes_of(results)[-1]:
            continue
        counts = confusion_of(results, name, mode)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        np.fill_diagonal(share, 0.0)
        i, j = np.unravel_index(int(share.argmax()), share.shape)
        if share[i, j] > highest:
            highest = float(share[i, j])
            words = (
                f"Most frequent confusion with adaptation {text(mode)}: {highest:.0%} "
                f"of {text(classes[i])} taken for {text(classes[j])} ({text(name)})"
            )
    svg = to_svg(draw_confusions(results), words)
    left_out = len(methods) - MAX_PANELS
    more = f" {left_out} more are left out." if left_out > 0 else ""
    return (
        f"<h4>{words}</h4><p>All scored trials of all people; percent of each true "
        f"class, number of trials below it.{more}</p>{svg}"
    )


def _calibration(results: Results) -> str:
    having, lacking = with_probabilities(results)
    note = ""
    if lacking:
        verb = "gives" if len(lacking) == 1 else "give"
        note = f"<p>{joined(map(text, lacking))} {verb} no probabilities.</p>"
    if not having:
        return f"<h4>No pipeline says how sure it is</h4>{note}"
    errors = {
        (name, mode): reliability(results, name, mode)[1]
        for name in having
        for mode in modes_of(results)
        if len(predictions_of(results, name, mode))
    }
    name, mode = min(errors, key=lambda method: errors[method])
    words = (
        f"Best calibrated: {text(name)} with adaptation {text(mode)}, expected "
        f"calibration error {errors[name, mode]:.3f}"
    )
    svg = to_svg(draw_calibration(results), words)
    return (
        f"<h4>{words}</h4><p>A decoder that is right as often as it says lies on the "
        "dashed line; below it, it is too sure. Errors here pool the trials of all "
        "people; the summary's are means over sessions, whose few trials make them "
        f"larger. Bins of fewer than {MIN_IN_BIN} trials are not drawn. Below: how "
        f"often each confidence occurs.</p>{note}{svg}"
    )


def _regression(results: Results) -> str:
    svg = to_svg(draw_regression(results), "Predicted against true targets.")
    return (
        "<h4>Predicted against true targets</h4><p>All scored trials of all people; "
        "a perfect decoder lies on the dashed line. R\u00b2 is the mean over people."
        f"</p>{svg}"
    )


def _sessions(results: Results) -> str:
    tables = session_tables(results)
    timing = (
        "<p>Mean seconds of one core over folds; a shared first step is counted in "
        f"proportion.</p>{timing_table(results)}"
    )
    if max(t.shape[1] for t in tables.values()) < 2:
        return (
            "<h4>Every person has one session</h4><p>Scores per session are those per "
            f"person above.</p>{timing}"
        )
    spread = {m: float(t.std(axis=1, ddof=0).mean()) for m, t in tables.items()}
    means = {m: np.nanmean(t.to_numpy(dtype=float)) for m, t in tables.items()}
    (name, mode) = max(means, key=lambda m: means[m])
    words = (
        f"Sessions of a person differ by {spread[name, mode]:.2f} on average "
        f"({text(name)}, adaptation {text(mode)})"
    )
    svg = to_svg(draw_sessions(results), words)
    return (
        f"<h4>{words}</h4><p>Standard deviation over a person's sessions of "
        f"{metric_name(results.metric)}; dark is chance or below.</p>{svg}{timing}"
    )


def _configuration(results: Results) -> str:
    return (
        f"<p>Data digest <code>{text(results.config['data_digest'])}</code>. "
        f"To make these results again:</p>{how_to_reproduce(results)}"
        f"{config_table(results)}"
    )
