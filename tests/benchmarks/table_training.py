"""The sweep over training methods as a page: what each brings, and what it costs.

Reads what `eegtensor benchmark ... --sweep training --adapt none,full --out DIR` wrote,
one folder for each data set, and prints the table of docs/training_sweep.md:

    python tests/benchmarks/table_training.py DIR [DIR ...]

A cell is the mean balanced accuracy over people and, in brackets, the 95 % interval of
its difference from plain training on the same people, in points; bold where it leaves
zero out. Cost is what `METHODS` says of a step, in plain steps; `bench_training.py
methods` measures it.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pandas as pd

from eegtensor.benchmark.statistics import bootstrap_interval
from eegtensor.benchmark.sweep import sweep_pipelines
from eegtensor.training import METHODS

PLAIN = "tsmnet"


def by_person(scores: pd.DataFrame) -> pd.DataFrame:
    """Return balanced accuracies, one row a person, one column a pipeline."""
    return scores.pivot_table(
        index="subject", columns="pipeline", values="balanced_accuracy", aggfunc="mean"
    )


def cell(people: pd.DataFrame, pipeline: str) -> str:
    if pipeline not in people:
        return ""
    mean = people[pipeline].mean()
    if pipeline == PLAIN:
        return f"{mean:.3f}"
    gain = 100 * (people[pipeline] - people[PLAIN]).to_numpy()
    low, high = bootstrap_interval(gain)
    said = f"{mean:.3f} [{low:+.1f}, {high:+.1f}]"
    return f"**{said}**" if low > 0 or high < 0 else said


def shown(pipeline: str) -> str:
    inside = pipeline.removeprefix(PLAIN)[1:-1]
    return f"`{inside}`" if inside else "plain"


def cost(pipeline: str) -> str:
    """Return the cost of a step that the table of methods gives."""
    named = [
        method
        for name, method in METHODS.items()
        if re.search(rf"""['"]{re.escape(name)}['"(]""", pipeline)
        and name != "cross-entropy"
    ]
    return named[0].cost if named else "1"


def page(folders: list[Path]) -> str:
    """Return the table in Markdown."""
    sets = {folder.name: pd.read_csv(folder / "scores.csv") for folder in folders}
    found = set().union(*(scores["pipeline"].unique() for scores in sets.values()))
    words = {"full": "adapted", "none": "not adapted"}
    people = {
        f"{name}, {word}": by_person(scores[scores["adapt"] == adapt])
        for adapt, word in words.items()
        for name, scores in sets.items()
    }
    head = ["method", *(f"{name} ({len(p)})" for name, p in people.items()), "cost"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for pipeline in sweep_pipelines("training"):
        if pipeline not in found:
            continue
        row = [shown(pipeline), *(cell(p, pipeline) for p in people.values())]
        lines.append("| " + " | ".join([*row, cost(pipeline)]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    print(page(parser.parse_args().folders), end="")
