"""Tables: accuracy over budgets, and from decoder to decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from eegtensor._check import check_signals, fail
from eegtensor.trust.attacks.asking import fixed
from eegtensor.trust.attacks.attack import Attack
from eegtensor.trust.attacks.pgd import PGD
from eegtensor.trust.attacks.variancereduced import VarianceReducedFGSM
from eegtensor.trust.attacks.views import view_of

if TYPE_CHECKING:
    import pandas as pd


def robustness_curve(
    decoder: Any,
    X: ArrayLike,
    y: ArrayLike,
    *,
    eps: Sequence[float] = (0.02, 0.05, 0.1),
    attack: Attack | None = None,
    subjects: ArrayLike | None = None,
    sessions: ArrayLike | None = None,
) -> pd.DataFrame:
    """Return the accuracy under an attack of several sizes, clean trials first.

    Parameters
    ----------
    decoder : estimator or torch.nn.Module
    X : array-like, shape (n_trials, n_channels, n_times)
    y : array-like, shape (n_trials,)
    eps : sequence of float
    attack : Attack | None
        `PGD` with its 50 steps by default; its own eps is not used.
    subjects, sessions : array-like of str, shape (n_trials,) | None

    Returns
    -------
    DataFrame
        A row for each size: "eps", "accuracy", "linf", "l2", "snr_db".
    """
    import pandas as pd

    X, names = check_signals(X), {"subjects": subjects, "sessions": sessions}
    decoder = fixed(decoder, X, subjects=subjects, sessions=sessions)
    clean = view_of(decoder, len(X), **names, gradient=False).predict(X)
    accuracy = float((clean == np.asarray(y)).mean())
    rows = [
        {"eps": 0.0, "accuracy": accuracy, "linf": 0.0, "l2": 0.0, "snr_db": np.inf}
    ]
    for size in eps:
        found = replace(attack or PGD(), eps=size).perturb(decoder, X, y, **names)
        rows.append({"eps": size, "accuracy": found.accuracy, **found.budget.summary()})
    return pd.DataFrame(rows)


def transfer_report(
    decoders: Mapping[str, Any],
    X: ArrayLike,
    y: ArrayLike,
    *,
    attack: Attack | None = None,
    sources: Sequence[str] | None = None,
    subjects: ArrayLike | None = None,
    sessions: ArrayLike | None = None,
) -> pd.DataFrame:
    """Return what attacks on one decoder do to others.

    Parameters
    ----------
    decoders : mapping of str to fitted estimator or torch.nn.Module
    X : array-like, shape (n_trials, n_channels, n_times)
    y : array-like, shape (n_trials,)
        Labels (of modules their codes, and then of all decoders).
    attack : Attack | None
        `VarianceReducedFGSM` by default, which is made to be carried over.
    sources : sequence of str | None
        Decoders to attack; all by default. Leave out those without a gradient.
    subjects, sessions : array-like of str, shape (n_trials,) | None

    Returns
    -------
    DataFrame
        A row for each source, the first "none" of the clean trials; a column with
        the accuracy of each target, then the size "linf", "l2", "snr_db": attacks
        are to be compared at all of them together.

    References
    ----------
    L. Wu et al., "Understanding and enhancing the transferability of adversarial
    examples", arXiv 1802.09707.
    """
    import pandas as pd

    X, names = check_signals(X), {"subjects": subjects, "sessions": sessions}
    chosen = list(decoders if sources is None else sources)
    unknown = [name for name in chosen if name not in decoders]
    if unknown:
        fail(f"No decoder is named {unknown[0]!r}", fix="choose among the keys")
    still = {k: fixed(each, X, **names) for k, each in decoders.items()}
    views = {
        k: view_of(each, len(X), **names, gradient=False) for k, each in still.items()
    }
    truth = np.asarray(y)
    attack = VarianceReducedFGSM() if attack is None else attack

    def row(moved: Any) -> dict[str, float]:
        said = {k: view.predict(moved) for k, view in views.items()}
        return {k: float((labels == truth).mean()) for k, labels in said.items()}

    table = {"none": {**row(X), "linf": 0.0, "l2": 0.0, "snr_db": np.inf}}
    for name in chosen:
        found = attack.perturb(still[name], X, y, **names)
        table[name] = {**row(found.X), **found.budget.summary()}
    frame = pd.DataFrame.from_dict(table, orient="index")
    return frame.rename_axis(index="source", columns="target")
