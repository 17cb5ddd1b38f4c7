"""Scores by name."""

from __future__ import annotations

import difflib
import re

from eegtensor._check import fail
from eegtensor._literals import keyword_literals
from eegtensor.trust.scorers.base import Scorer
from eegtensor.trust.scorers.gradients import LowDimGradients
from eegtensor.trust.scorers.kernelpca import CoP, CoRP
from eegtensor.trust.scorers.logits import Energy, MaximumProbability
from eegtensor.trust.scorers.neighbours import KNN
from eegtensor.trust.scorers.nystroem import NystroemKPCA
from eegtensor.trust.scorers.potato import RiemannianPotato

SCORERS: dict[str, type[Scorer]] = {
    "msp": MaximumProbability,
    "energy": Energy,
    "knn": KNN,
    "cop": CoP,
    "corp": CoRP,
    "kpca": NystroemKPCA,
    "gradients": LowDimGradients,
    "potato": RiemannianPotato,
}


def make_scorer(spec: str) -> Scorer:
    """Return an unfitted score by name, with options as in "knn(k=3)".

    Raises
    ------
    EEGTensorError
        If the name or an option is not known.
    """
    match = re.fullmatch(r"\s*([\w-]+)\s*(\(.*\))?\s*", spec)
    if match is None or match[1] not in SCORERS:
        near = difflib.get_close_matches(spec, SCORERS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        fail(
            f"No score is named {spec!r}{hint}",
            fix="choose one of " + ", ".join(SCORERS) + ", with options as in knn(k=3)",
        )
    scorer = SCORERS[match[1]]()
    try:
        options = keyword_literals(match[2]) if match[2] else {}
    except ValueError as error:
        fail(f"{spec!r} does not read", fix="write name(option=value)", cause=error)
    unknown = sorted(set(options) - set(scorer.get_params()))
    if unknown:
        fail(
            f"Score {match[1]!r} has no option {', '.join(unknown)}",
            fix="choose among " + (", ".join(scorer.get_params()) or "none"),
        )
    chosen: Scorer = scorer.set_params(**options)
    return chosen
