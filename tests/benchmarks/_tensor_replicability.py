"""How alike CP components of power are over halves of the trials and of the people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eegtensor.features import CPFeatures, NonnegativeCPFeatures, plot_factors
from eegtensor.features.selectrank import select_rank
from eegtensor.tensor.match import factor_match_score

RANKS = (1, 2, 3, 4, 5, 6, 8)
# Enough for a rank; fits with held-out cells are the slow ones.
TRIALS_FOR_RANK = 300
N_SPLITS = 5
REPLICABLE = 0.9
EXTRACTORS = {"cp": CPFeatures, "nonnegative-cp": NonnegativeCPFeatures}


def tensors(log_power: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Return what each model decomposes: how a person's power changes, and power."""
    changes, power = log_power.copy(), np.exp(log_power)
    for code in np.unique(codes):
        here = codes == code
        # Else components are persons: their level and spectrum outweigh the rest.
        changes[here] -= changes[here].mean(axis=0)
        power[here] /= power[here].mean()
    return {"cp": changes, "nonnegative-cp": power}


def halves_of(units: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """Return which trials are in each half of the units: trials, or people."""
    names = np.unique(units)
    first = np.isin(units, random.permutation(names)[: len(names) // 2])
    return [first, ~first]


def match(kind: str, X: np.ndarray, units: np.ndarray, whole: Any) -> np.ndarray:
    """Return the match of each component of `whole` in halves, (n_splits, rank).

    A component is looked up in the models of both halves; counted is how alike
    these two are, of which neither saw the other's trials.
    """
    rank = whole.factors_[0].shape[1]
    random = np.random.default_rng(0)
    found = []
    for _ in range(N_SPLITS):
        a, b = (
            EXTRACTORS[kind](rank).fit(X[half]).factors_
            for half in halves_of(units, random)
        )
        near = [factor_match_score(whole.factors_, m).partner for m in (a, b)]
        pairs = [[U[:, list(p)] for U in m] for m, p in zip((a, b), near, strict=True)]
        cosines = [(U * V).sum(axis=0) for U, V in zip(*pairs, strict=True)]
        found.append(np.abs(np.prod(cosines, axis=0)))
    return np.array(found)


def report(
    name: str,
    log_power: np.ndarray,
    subjects: np.ndarray,
    codes: np.ndarray,
    figure: dict[str, Any] | None,
    folder: Path | None,
) -> None:
    """Print, and draw into a folder, the components of one set."""
    for kind, X in tensors(log_power, codes).items():
        some = np.random.default_rng(0).permutation(len(X))[:TRIALS_FOR_RANK]
        choice = select_rank(
            X[some], RANKS, model=kind, n_folds=3, n_splits=2, ard=False
        )
        print(f"\n{name}, {kind}: ranks chosen {choice.choices}", flush=True)
        for method, rank in choice.choices.items():
            whole = EXTRACTORS[kind](rank).fit(X)
            trials = match(kind, X, np.arange(len(X)), whole)
            people = match(kind, X, subjects, whole)
            words = []
            for what, found in (("trials", trials), ("people", people)):
                each = found.mean(axis=0)
                low, high = found.mean(axis=1).min(), found.mean(axis=1).max()
                words.append(
                    f"halves of {what} match {each.mean():.3f} ({low:.3f} to "
                    f"{high:.3f}), {int((each >= REPLICABLE).sum())} of {rank} "
                    f"components by {REPLICABLE} or more"
                )
            explained = whole.score(X)
            print(
                f"  {method}, rank {rank}, {100 * explained:.0f} % of variance: "
                + "; ".join(words),
                flush=True,
            )
            if folder is not None and figure is not None:
                folder.mkdir(parents=True, exist_ok=True)
                drawn = plot_factors(whole, replicability=people.mean(axis=0), **figure)
                drawn.savefig(folder / f"{name}_{kind}_{method}.png", dpi=100)
