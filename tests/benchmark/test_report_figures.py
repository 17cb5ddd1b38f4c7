"""Pictures show the numbers they are made from."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from eegtensor.benchmark import Results, benchmark
from eegtensor.benchmark import figures_predictions as predictions
from eegtensor.benchmark import figures_scores as scores
from eegtensor.benchmark.figures import (
    mode_colours,
    shorten,
    spread_labels,
    to_svg,
)
from eegtensor.simulate import simulate_trials


@pytest.fixture(scope="module")
def results() -> Results:
    trials = simulate_trials(n_subjects=4, n_trials=16, n_channels=8, duration=1.0)
    names = ["mdm", "tangent-space"]
    return benchmark(trials, names, adapt=["none", "full"], progress=False)


def texts(axes) -> list[str]:
    return [t.get_text() for t in axes.texts]


def test_people_are_dots_at_their_scores(results):
    axes = scores.draw_people(results).axes
    table = results.per_person("balanced_accuracy")
    for axis, name in zip(axes, ["mdm", "tangent-space"], strict=True):
        for k, mode in enumerate(["none", "full"]):
            dots = axis.collections[k].get_offsets()
            np.testing.assert_allclose(dots[:, 0], k)
            np.testing.assert_allclose(dots[:, 1], table[name, mode])
        gain = table[name, "full"] - table[name, "none"]
        title = axis.get_title(loc="left")
        assert f"{(gain > 0).sum()} of 4 people gain" in title
        assert {"01", "02", "03", "04"} <= set(texts(axis))
        assert "chance 0.5" in texts(axis)


def test_gains_are_positive_where_errors_shrink():
    frame = pd.DataFrame(
        {
            "dataset": "d",
            "subject": ["a", "b", "a", "b"],
            "pipeline": "p",
            "adapt": ["none", "none", "full", "full"],
            "n_trials": 10,
            "mae": [3.0, 2.0, 1.0, 2.5],
        }
    )

    class Errors(Results):
        metric = "mae"

    gain = scores.gains(Errors(frame, pd.DataFrame(), {"classes": []}))
    assert gain["p"].to_dict() == {"a": 2.0, "b": -0.5}


def test_ranking_is_by_mean_with_the_best_on_top(results):
    axis = scores.draw_ranking(results).axes[0]
    table = results.table("balanced_accuracy")["balanced_accuracy"]
    means = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(means, np.sort(table))
    labels = [t.get_text() for t in axis.get_yticklabels()]
    name, mode = table.idxmax()
    assert labels[int(np.argmax(means))] == f"{name} \u00b7 {mode}"
    assert means[-1] == max(means)


def test_sessions_are_cells(results):
    figure = scores.draw_sessions(results)
    rows = results.scores.query("pipeline == 'mdm' and adapt == 'full'")
    axis = next(
        a for a in figure.axes if a.get_title(loc="left").startswith("mdm \u00b7 full")
    )
    grid = np.asarray(axis.images[0].get_array())
    wide = rows.pivot(index="subject", columns="session", values="balanced_accuracy")
    np.testing.assert_allclose(grid, wide)


def test_confusion_counts_and_row_percent(results):
    counts = predictions.confusion_of(results, "mdm", "none")
    rows = results.predictions.query("pipeline == 'mdm' and adapt == 'none'")
    expected = pd.crosstab(rows["y_true"], rows["y_pred"]).to_numpy()
    np.testing.assert_array_equal(counts, expected)
    axis = predictions.draw_confusions(results).axes[0]
    assert f"{counts[0, 1] / counts[0].sum():.0%}" in texts(axis)
    assert str(counts[0, 1]) in texts(axis)
    image = np.asarray(axis.images[0].get_array())
    np.testing.assert_allclose(image.sum(axis=1), 1.0)


def test_confusion_rows_are_true_classes():
    frame = pd.DataFrame(
        {
            "pipeline": "x",
            "adapt": "none",
            "y_true": ["a"] * 8 + ["b"] * 2,
            "y_pred": ["a"] * 6 + ["b"] * 3 + ["a"],
        }
    )
    methods = frame[["pipeline", "adapt"]].drop_duplicates()
    odd = Results(methods, frame, {"classes": ["a", "b"]})
    axis = predictions.draw_confusions(odd).axes[0]
    image = np.asarray(axis.images[0].get_array())
    np.testing.assert_allclose(image, [[0.75, 0.25], [0.5, 0.5]])
    assert {"75%", "6", "25%", "2", "50%", "1"} <= set(texts(axis))


def test_reliability_of_known_probabilities():
    p = np.repeat([0.95, 0.65], [20, 10])
    y = np.asarray(["b"] * 19 + ["a"] + ["b"] * 5 + ["a"] * 5)
    frame = pd.DataFrame(
        {"pipeline": "x", "adapt": "none", "y_true": y, "p:a": 1 - p, "p:b": p}
    )
    odd = Results(pd.DataFrame(), frame, {"classes": ["a", "b"]})
    bins, ece = predictions.reliability(odd, "x", "none")
    np.testing.assert_allclose(bins["confidence"], [0.65, 0.95])
    np.testing.assert_allclose(bins["accuracy"], [0.5, 0.95])
    assert bins["n_trials"].tolist() == [10, 20]
    assert ece == pytest.approx(10 / 30 * 0.15)


def test_calibration_draws_bins_of_enough_trials(results):
    figure = predictions.draw_calibration(results)
    bins, ece = predictions.reliability(results, "mdm", "none")
    enough = bins[bins["n_trials"] >= predictions.MIN_IN_BIN]
    drawn = figure.axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(drawn, enough[["confidence", "accuracy"]])
    words = [
        t.get_text()
        for axis in figure.axes
        if axis.get_legend()
        for t in axis.get_legend().get_texts()
    ]
    assert f"none: calibration error {ece:.3f}" in words


def test_colours_of_modes_do_not_depend_on_their_company():
    alone = mode_colours(["none", "full"])
    crowd = mode_colours(["none", "20%", "50%", "online", "full"])
    assert crowd["full"] == alone["full"] and crowd["none"] == alone["none"]
    assert len(set(crowd.values())) == 5


def test_labels_are_spread_in_order():
    values = [0.5, 0.5, 0.51, 0.9]
    placed = spread_labels(values, 0.05)
    assert (np.diff(placed) >= 0.05 - 1e-6).all()
    assert placed[3] == pytest.approx(0.9)
    assert spread_labels([0.3, 0.1], 0.05).tolist() == [0.3, 0.1]


def test_long_names_are_cut_in_the_middle():
    assert shorten("tangent", 10) == "tangent"
    assert shorten("abcdefghijklmnop", 7) == "abc\u2026nop"


def test_svg_is_one_element_without_text_fonts(results):
    svg = to_svg(scores.draw_ranking(results), 'a "label" & more')
    assert svg.startswith('<svg role="img" aria-label="a &quot;label&quot; &amp; more"')
    assert svg.rstrip().endswith("</svg>")
    assert svg.count("<svg") == 1
    assert not re.search(r"<text\b", svg)
