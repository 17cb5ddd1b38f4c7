"""Structure search: hidden rings (S1), and the order of modes of EEG power.

    python tests/benchmarks/bench_structure.py [--seeds 2] [--first 0]
        [--methods tnale tnls tnga] [--eeg] [--graph]

S1: a ring of order 6, 3^6 cells, ranks 1 to 7 and order drawn at random; asked are
no more entries than the hidden one has, RSE <= 1e-4, <= 300 fits, <= 120 CPU s.
EEG: log power of EEGMAT (EEGTENSOR_DATA), people x trials x channels x frequencies
x times: the ring found against trains and rings in that order, at equal RSE.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eegtensor.tensor import tensor_train
from eegtensor.tensor.structure import Structure, search_structure

MODES = ("people", "trials", "channels", "frequencies", "times")


def hidden(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return a tensor, its ring's ranks, the modes in its places, its entries."""
    rng = np.random.default_rng(seed)
    ranks = rng.integers(1, 8, 6)
    cores = [rng.standard_normal((ranks[k], 3, ranks[(k + 1) % 6])) for k in range(6)]
    whole = cores[0]
    for core in cores[1:]:
        whole = np.tensordot(whole, core, (-1, 0))
    order = rng.permutation(6)
    X = np.trace(whole, axis1=0, axis2=-1).transpose(np.argsort(order))
    return np.ascontiguousarray(X), ranks, order, sum(core.size for core in cores)


def timed(X: np.ndarray, **options: Any) -> tuple[Structure, float]:
    start = time.process_time()
    model = search_structure(X, **options)
    return model, time.process_time() - start


def planted(seeds: range, methods: list[str]) -> None:
    print("S1: hidden rings of 3^6 cells. asked: entries <= hidden, rse <= 1e-4")
    for method in methods:
        passed = 0
        for seed in seeds:
            X, ranks, _, entries = hidden(seed)
            # A genetic search of rings has no permutation: it searches the graph.
            template = "graph" if method == "tnga" else "ring"
            model, cost = timed(X, method=method, template=template)
            good = model.n_entries <= entries and model.rse <= 1e-4
            passed += good
            print(
                f"  {method:5} seed {seed}: hidden {ranks} {entries:4} entries, "
                f"found {model.n_entries:4}, phi {model.phi:.3f}, rse {model.rse:.1e}, "
                f"{model.n_fits:3} fits, {cost:6.1f} CPU s  "
                f"{'yes' if good else 'NO'}",
                flush=True,
            )
        print(f"  {method}: {passed} of {len(seeds)}", flush=True)


def power(n_people: int, n_trials: int) -> np.ndarray | None:
    """Return centred log power, people x trials x channels x frequencies x times."""
    data = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("EEGTENSOR_DATA", data)) / "eegmat"
    files = sorted(folder.glob("*.npz"))[:n_people]
    if not files:
        return None
    from eegtensor.features import TimeFrequencyTensor

    people = []
    for file in files:
        with np.load(file, allow_pickle=False) as content:
            X = content["X"] * np.float64(content["scale"])
            front = TimeFrequencyTensor(float(content["sfreq"]), 4.0, 30.0, 6, 6)
        # From the whole recording: rest first, arithmetic last.
        chosen = np.linspace(0, len(X) - 1, n_trials).round().astype(int)
        people.append(front.fit_transform(X[chosen]))
    out = np.stack(people)
    return out - out.mean()


def eeg(X: np.ndarray) -> None:
    options: dict[str, Any] = {
        "max_rank": 10,
        "n_starts": 2,
        "max_fits": 120,
        "fit_starts": 2,
        "max_iter": 40,
    }
    best, cost = timed(X, penalty=1.0, **options)
    report("ring, order searched", best, cost)
    print("    " + " - ".join(MODES[m] for m in best.permutation))
    options["permute"] = False
    ring = at_error(X, best.rse, template="ring", **options)
    # A train closes no circle: its middle links have to be larger.
    train = at_error(X, best.rse, template="train", **{**options, "max_rank": 40})
    cut, entries = svd_train(X, best.rse)
    print(
        f"  train, natural order, TT-SVD: {entries} entries, rse {cut:.4f}\n"
        f"  entries at rse <= {best.rse:.4f}, relative to the searched ring: ring in "
        f"natural order {ring / best.n_entries:.2f}, train in natural order "
        f"{train / best.n_entries:.2f}, TT-SVD {entries / best.n_entries:.2f}"
    )


def svd_train(X: np.ndarray, rse: float) -> tuple[float, int]:
    """Return error and entries of the smallest train, by TT-SVD, at an error."""
    found = []
    # A cut promises its error and stays below it: looser ones are tried too.
    for allowed in np.linspace(math.sqrt(rse), min(0.99, 2.0 * math.sqrt(rse)), 40):
        cut = tensor_train(X, error=float(allowed))
        if (1.0 - cut.fit) ** 2 <= rse:
            found.append((sum(G.size for G in cut.cores), (1.0 - cut.fit) ** 2))
    entries, reached = min(found)
    return reached, entries


def graph(X: np.ndarray) -> None:
    """Print the graph found, and rings and trains in natural order at its error."""
    options: dict[str, Any] = {
        "max_rank": 6,
        "n_starts": 2,
        "max_fits": 60,
        "initial_trips": 1,
        "fit_starts": 2,
        "max_iter": 40,
    }
    start = time.process_time()
    best, cost = timed(X, penalty=1.0, template="graph", **options)
    report("graph", best, cost)
    order = {**options, "permute": False, "n_starts": 1, "max_rank": 12}
    ring = at_error(X, best.rse, template="ring", **order)
    cut, entries = svd_train(X, best.rse)
    print(
        f"  train, natural order, TT-SVD: {entries} entries, rse {cut:.4f}\n"
        f"  entries at rse <= {best.rse:.4f}, relative to the graph: ring in natural "
        f"order {ring / best.n_entries:.2f}, TT-SVD {entries / best.n_entries:.2f}; "
        f"in all {time.process_time() - start:.0f} CPU s (asked <= 300)"
    )


def at_error(X: np.ndarray, rse: float, **options: Any) -> float:
    """Return the fewest entries visited at an error or below, over some penalties."""
    fewest = math.inf
    with tempfile.TemporaryDirectory() as folder:
        # Fits do not depend on the penalty: the searches share them.
        file = Path(folder) / "fits.json"
        for penalty in (0.85, 1.0, 1.2, 1.5, 2.0, 2.8, 4.0):
            model, cost = timed(X, penalty=penalty, checkpoint=file, **options)
            reached = [
                v.phi * X.size
                for v in model.history
                if v.phase == "main" and v.rse <= rse
            ]
            fewest = min([fewest, *reached])
            name = f"{options['template']}, natural order, penalty {penalty}"
            report(name, model, cost)
            if model.rse <= rse:
                break
    return fewest


def report(name: str, model: Structure, cost: float) -> None:
    n = len(MODES)
    links = [
        f"{MODES[i]}-{MODES[j]} {model.adjacency[i, j]}"
        for i in range(n)
        for j in range(i)
        if model.adjacency[i, j] > 1
    ]
    print(
        f"  {name}: score {model.score:.4f}, {model.n_entries} entries, phi "
        f"{model.phi:.4f}, rse {model.rse:.4f}, {model.n_fits} fits, {cost:.1f} CPU s\n"
        f"    links: {', '.join(links)}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=["tnale", "tnls", "tnga"])
    parser.add_argument("--eeg", action="store_true")
    parser.add_argument("--graph", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    planted(range(options.first, options.first + options.seeds), options.methods)
    X = power(4, 5) if options.eeg or options.graph else None
    if X is not None:
        sizes = dict(zip(MODES, X.shape, strict=True))
        print(f"EEG: centred log power {sizes}")
        if options.eeg:
            eeg(X)
        if options.graph:
            graph(X)
    elif options.eeg or options.graph:
        print("EEG: no data")


if __name__ == "__main__":
    main()
