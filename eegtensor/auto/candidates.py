"""Decoders that "auto" chooses among, frozen before any score was seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from eegtensor import _builders as builders
from eegtensor.pipeline import Pipeline

# Of decoders that read signals as they are.
SIGNALS = "signals"


class Candidate(NamedTuple):
    """What a decoder reads, and how it is put together.

    Attributes
    ----------
    front : "covariance" | "augmented" | "spectral" | "signals"
    build : callable
        ``build(align, unseen=...) -> Pipeline``, whose first step is the front's;
        of networks ``build(None, unseen=..., random_state=...)``.
    """

    front: str
    build: Callable[..., Pipeline]


def _network(**methods: Any) -> Callable[..., Pipeline]:
    def build(align: str | None, **options: Any) -> Pipeline:
        return builders.tsmnet(None, **methods, **options)

    return build


CANDIDATES: dict[str, Candidate] = {
    "mdm": Candidate("covariance", builders.mdm),
    "tangent-space": Candidate("covariance", builders.tangent(builders.logistic, None)),
    "tangent-space-lda": Candidate("covariance", builders.tangent(builders.lda, None)),
    "tangent-space-svm": Candidate("covariance", builders.tangent(builders.svm, None)),
    "augmented-lda": Candidate("augmented", builders.tangent(builders.lda, None)),
    "augmented-svm": Candidate("augmented", builders.tangent(builders.svm, None)),
    "spectral-mdm": Candidate("spectral", builders.mdm),
    "spectral-lda": Candidate("spectral", builders.tangent(builders.lda, None)),
    "spectral-svm": Candidate("spectral", builders.tangent(builders.svm, None)),
    "tsmnet": Candidate(SIGNALS, _network()),
    "tsmnet-f-sam": Candidate(SIGNALS, _network(perturbation="f-sam")),
    "tsmnet-swa": Candidate(SIGNALS, _network(averager="swa")),
}
# Networks take minutes where these take seconds.
QUICK = tuple(name for name, c in CANDIDATES.items() if c.front != SIGNALS)
DEFAULT = (*QUICK, "tsmnet")
