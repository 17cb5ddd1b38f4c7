"""The report says and draws what the results hold, in one file, whatever lacks."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from eegtensor import EEGTensorError
from eegtensor.benchmark import Results, benchmark
from eegtensor.benchmark.report import _summary, _which_trials, write_report
from eegtensor.benchmark.report_words import describe_protocol
from eegtensor.pipelines import make_pipeline
from eegtensor.simulate import simulate_trials
from eegtensor.trials import Trials

SECTIONS = [
    "Summary",
    "Score per person",
    "Ranking and tests",
    "Confusion matrices",
    "Calibration",
    "Map of domains",
    "Patterns of the classes",
    "Sessions and seconds",
    "Configuration",
]


class Page(HTMLParser):
    """The words of a page, the addresses it would fetch, and its pictures."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.words: list[str] = []
        self.fetched: list[str] = []
        self.pictures: list[str] = []
        self._silent = 0
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag in ("script", "style"):
            self._silent += 1
        if tag == "svg" and "aria-label" in found:
            self.pictures.append(found["aria-label"])
        names = ("src", "srcset", "xlink:href", "poster", "data")
        names += ("href",) if tag != "a" else ()
        self.fetched += [found[n] for n in names if found.get(n)]

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._silent -= 1

    def handle_data(self, data):
        if not self._silent:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def trials() -> Trials:
    return simulate_trials(n_subjects=4, n_trials=16, n_channels=8, duration=1.0)


@pytest.fixture(scope="module")
def results(trials) -> Results:
    pipelines = ["mdm", "tangent-space"]
    return benchmark(trials, pipelines, adapt=["none", "full"], progress=False)


@pytest.fixture(scope="module")
def page(results, tmp_path_factory) -> Page:
    return Page(write_report(results, tmp_path_factory.mktemp("r") / "report.html"))


def test_holds_every_section_in_order_and_all_pictures(page):
    places = [page.source.index(f">{name}</a>") for name in SECTIONS]
    assert places == sorted(places)
    assert len(page.pictures) == 7
    assert "could not be drawn" not in page.text


def test_needs_no_other_file_and_no_network(page):
    outside = [a for a in page.fetched if not a.startswith(("data:", "#"))]
    assert outside == []
    assert not re.search(r"url\(\s*['\"]?(https?:|//|file:)", page.source)
    assert not re.search(r"@import\s+(url|['\"]\s*(https?:|//))", page.source)
    assert len(page.source) < 3_000_000


def test_says_the_numbers_of_the_table(results, page):
    table = results.table("balanced_accuracy")
    for row in table.to_dict("records"):
        shown = f"{row['balanced_accuracy']:.3f}"
        assert f"{shown} [{row['balanced_accuracy_low']:.3f}" in page.text
    assert "With 4 people no p can be below 0.125" in page.text
    assert "the statistics come from the very trials that are scored" in page.text
    assert "guessing gives 0.5 balanced accuracy" in page.text
    assert results.config["data_digest"] in page.text
    assert f"mne {results.config['versions']['mne']}" in page.text


def test_headline_counts_people_who_gain(results, tmp_path):
    scores = results.scores.copy()
    scores["balanced_accuracy"] = 0.6
    adapted = (scores["adapt"] == "full") & (scores["pipeline"] == "mdm")
    for person, score in {"01": 0.9, "02": 0.7, "03": 0.25}.items():
        scores.loc[adapted & (scores["subject"] == person), "balanced_accuracy"] = score
    changed = Results(scores, results.predictions, results.config)
    page = Page(write_report(changed, tmp_path / "report.html"))
    expected = "From none to full, 2 of 4 people gain with mdm and 0 of 4 with tangent"
    assert expected in page.text
    assert "Most is lost by 03 with mdm (\u22120.35)" in page.text


def test_leaves_matplotlib_as_it_was(results, tmp_path):
    mine = {"font.size": 31.0, "axes.facecolor": "black", "text.usetex": True}
    with matplotlib.rc_context(mine):
        before = dict(matplotlib.rcParams)
        backend = matplotlib.rcParams._get_backend_or_none()
        write_report(results, tmp_path / "report.html")
        assert dict(matplotlib.rcParams) == before
        assert matplotlib.rcParams._get_backend_or_none() == backend
    assert plt.get_fignums() == []


def test_saved_results_say_that_trials_are_missing(results, tmp_path):
    loaded = Results.load(results.save(tmp_path / "saved"))
    page = Page(write_report(loaded, tmp_path / "report.html"))
    assert page.text.count("The trials are not part of saved results") == 2
    assert len(page.pictures) == 5


def test_names_pipelines_without_probabilities(trials, tmp_path):
    found = benchmark(trials, ["tangent-space-svm"], progress=False)
    page = Page(write_report(found, tmp_path / "report.html"))
    assert "No pipeline says how sure it is" in page.text
    assert "tangent-space-svm gives no probabilities" in page.text
    assert "There is one decoder, and nothing to compare it with" in page.text


def test_signals_that_cannot_be_drawn_leave_the_scores(results, tmp_path, caplog):
    flat = results.trials.X.copy()
    flat[:5] = 0
    odd = results.trials
    broken = Trials(flat, odd.y, odd.metadata, odd.info, odd.tmin)
    changed = Results(
        results.scores, results.predictions, results.config, trials=broken
    )
    page = Page(write_report(changed, tmp_path / "report.html"))
    assert "the trial is constant" in page.text
    assert "Map of domains" in caplog.text
    assert len(page.pictures) == 5


def test_common_trials_are_ranked_where_modes_score_others(trials, tmp_path):
    found = benchmark(trials, ["mdm"], adapt=["none", "50%", "online"], progress=False)
    page = Page(write_report(found, tmp_path / "report.html"))
    assert "all are shown on the last half of every session" in page.text
    assert "only earlier trials" in page.text
    assert "trial by trial" in page.text
    best = found.table("balanced_accuracy_common")["balanced_accuracy_common"].max()
    assert f"balanced accuracy {best:.3f}" in page.text


def test_continuous_targets_get_a_scatter(trials, tmp_path):
    y = (trials.y == trials.classes[0]) + np.linspace(0, 1, len(trials))
    target = Trials(trials.X, y, trials.metadata, trials.info)
    ridge = make_pipeline("tangent-space", align="riemann", task="regression")
    found = benchmark(target, {"ridge": ridge}, adapt=["none", "full"], progress=False)
    page = Page(write_report(found, tmp_path / "report.html"))
    assert "Predicted against true targets" in page.text
    assert "Confusion" not in page.text and "Calibration" not in page.text
    assert "low and high targets" in page.text
    assert "ROC-AUC" not in page.text


def test_names_are_text_and_never_markup(results, tmp_path):
    scores, predictions = results.scores.copy(), results.predictions.copy()
    bad = "<script>x</script>$_&"
    for frame in (scores, predictions):
        frame["pipeline"] = frame["pipeline"].replace("mdm", bad)
        frame["subject"] = frame["subject"].replace("01", "<i>$a_1")
    config = results.config | {"command": "eegtensor benchmark a && echo <b>"}
    odd = Results(scores, predictions, config)
    page = Page(write_report(odd, tmp_path / "report.html", title="A <u>title</u>"))
    assert "<script>x" not in page.source
    assert "<i>$a_1" not in page.source and "<u>title" not in page.source
    assert bad in page.text
    assert "eegtensor benchmark a && echo <b>" in page.text


def test_failed_folds_are_named(results, tmp_path):
    config = results.config | {"failed": ["pipeline 'x', fold 3: no luck"]}
    changed = Results(results.scores, results.predictions, config)
    page = Page(write_report(changed, tmp_path / "report.html"))
    assert "pipeline 'x', fold 3: no luck" in page.text


def test_replaces_a_file_and_makes_folders(results, tmp_path):
    target = tmp_path / "new" / "folder" / "report.html"
    loaded = Results(results.scores, results.predictions, results.config)
    assert write_report(loaded, target) == target
    first = target.read_text(encoding="utf-8")
    write_report(loaded, str(target), title="Again")
    assert "Again" in target.read_text(encoding="utf-8")
    assert "Again" not in first
    assert [p.name for p in target.parent.iterdir()] == ["report.html"]


def test_a_write_that_fails_leaves_the_older_file(results, tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    target.write_text("older")

    def half(self, path, **kwargs):
        Path(path).write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr("mne.Report.save", half)
    loaded = Results(results.scores, results.predictions, results.config)
    with pytest.raises(OSError, match="disk full"):
        write_report(loaded, target)
    assert target.read_text() == "older"
    assert list(tmp_path.iterdir()) == [target]


def test_refuses_a_folder_and_empty_scores(results, tmp_path):
    with pytest.raises(EEGTensorError, match="is a folder"):
        write_report(results, tmp_path)
    empty = Results(results.scores.iloc[:0], results.predictions, results.config)
    with pytest.raises(EEGTensorError, match="no scores"):
        write_report(empty, tmp_path / "report.html")


def test_results_write_their_report(results, tmp_path):
    loaded = Results(results.scores, results.predictions, results.config)
    assert loaded.report(tmp_path / "r.html").stat().st_size > 100_000


@pytest.mark.filterwarnings("ignore:Sessions of one trial")
def test_says_what_was_adapted_and_what_was_seen_of_the_common_trials(make_trials):
    trials = make_trials(3, (10, 1), separation=0.4)
    result = benchmark(trials, ["mdm"], adapt=["none", "80%"])
    words = describe_protocol(result)
    assert "3 rows of mdm under 80% had one trial to adapt on, or none" in words
    assert "cannot adapt" not in words
    assert "Adaptation 80% saw some of these" in _which_trials(result)
    half = benchmark(trials, ["mdm"], adapt=["none", "50%"])
    assert "which they share." in _which_trials(half)
    assert "saw" not in _which_trials(half)
    assert "too narrow" in _summary(half)


def test_an_estimator_that_cannot_adapt_is_named(make_trials):
    model = make_pipeline("mdm")
    words = describe_protocol(benchmark(make_trials(), {"m": model}, adapt="full"))
    assert "m cannot adapt: its full rows are un-adapted." in words
