"""Decoders by name: `make_pipeline` and the table `PIPELINES`."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from sklearn.base import is_classifier

from eegtensor import _builders as builders
from eegtensor._check import check_option, fail
from eegtensor._literals import keyword_literals
from eegtensor.auto import DEFAULT, AutoDecoder
from eegtensor.pipeline import Pipeline

__all__ = ["PIPELINES", "Pipeline", "PipelineSpec", "make_pipeline", "parse_pipeline"]

ALIGNMENTS = (None, "euclidean", "riemann", "riemann-balanced")


@dataclass(frozen=True)
class PipelineSpec:
    """One row of the table of pipelines.

    Attributes
    ----------
    summary : str
        What it does, in a line.
    paradigm : str
        Where it is used: "any", "oscillatory", "erp" or "ssvep".
    build : callable
        ``build(align, **params) -> Pipeline``.
    alignments : tuple
        Values of `align` it takes.
    adapts : str | None
        The alignment a benchmark adds when it adapts; None where the pipeline
        brings its own adaptation.
    """

    summary: str
    paradigm: str
    build: Callable[..., Pipeline]
    alignments: tuple[str | None, ...] = ALIGNMENTS
    adapts: str | None = "riemann"

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters that `make_pipeline` takes for this name, with defaults."""
        signature = inspect.signature(self.build)
        return {
            name: parameter.default
            for name, parameter in signature.parameters.items()
            if name != "align"
        }


def make_pipeline(
    name: str,
    *,
    align: str | None = None,
    reject: float | None = None,
    **params: Any,
) -> Pipeline:
    """Return an unfitted pipeline by name.

    Parameters
    ----------
    name : str
        A key of `PIPELINES`.
    align : None | "euclidean" | "riemann" | "riemann-balanced"
        How domains are aligned: not at all, by whitening signals with the
        arithmetic mean covariance, by Riemannian recentring, or by Riemannian
        recentring with class-balanced means and iterated pseudo-labels.
    reject : float | None
        Share of clean trials of new people that `predict` calls "rejected", as unlike
        the trials of `fit`: the last step is a `RejectingClassifier` around the usual
        one, which is fitted four times.
    **params
        Parameters of that pipeline, see ``PIPELINES[name].parameters``.

    Returns
    -------
    Pipeline
        With ``fit(X, y, *, subjects, sessions)``, ``adapt``, ``partial_adapt``
        and ``predict``, see `Pipeline`.

    Raises
    ------
    EEGTensorError
        If the name, the alignment or a parameter is not known.

    Examples
    --------
    >>> make_pipeline("tangent-space", align="riemann", estimator="lwf").steps[0][1]
    Covariances(estimator='lwf')
    """
    if name not in PIPELINES:
        near = difflib.get_close_matches(name, PIPELINES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        fail(
            f"No pipeline is named {name!r}{hint}",
            fix="choose one of " + ", ".join(PIPELINES),
        )
    spec = PIPELINES[name]
    check_option("align", align, ALIGNMENTS)
    if align not in spec.alignments:
        fail(
            f"Pipeline {name!r} does not take align={align!r}",
            why=None if spec.adapts else "It brings its own adaptation or has none",
            fix="choose one of " + ", ".join(map(repr, spec.alignments)),
        )
    unknown = sorted(set(params) - set(spec.parameters))
    if unknown:
        fail(
            f"Pipeline {name!r} has no parameter {', '.join(map(repr, unknown))}",
            fix="choose among " + ", ".join(spec.parameters),
        )
    pipeline = spec.build(align, **params)
    return pipeline if reject is None else _rejecting(pipeline, name, reject)


def _rejecting(pipeline: Pipeline, name: str, reject: float) -> Pipeline:
    from eegtensor.transfer import NetworkClassifier
    from eegtensor.trust.rejecting import RejectingClassifier

    step, decoder = pipeline.steps[-1]
    if not is_classifier(decoder):
        fail(
            f"reject={reject!r} with a pipeline {name!r} for continuous targets",
            fix="leave reject out",
        )
    if len(pipeline.steps) == 1 and not isinstance(decoder, NetworkClassifier):
        fail(
            f"reject={reject!r} with pipeline {name!r}",
            why="Its only step takes signals, and there are no aligned features by "
            "which trials of a new person could be told from none",
            fix="choose a pipeline of covariances or a network",
        )
    around = RejectingClassifier(decoder, reject=reject)
    return Pipeline([*pipeline.steps[:-1], (step, around)])


def parse_pipeline(text: str) -> tuple[str, dict[str, Any], str | None]:
    """Return name, parameters and alignment of "name(parameter=value)+alignment".

    Parameters
    ----------
    text : str
        For example "tangent-space", "mdm+euclidean" or
        "cca(frequencies=(13, 17, 21), sfreq=256)"; values are Python literals.

    Raises
    ------
    EEGTensorError
        If the text does not read so.
    """
    match = re.fullmatch(r"\s*([\w-]+)\s*(\(.*\))?\s*(?:\+\s*([\w-]+))?\s*", text)
    if match is None:
        _refuse_text(text)
    name, arguments, align = match.groups()
    params = {}
    if arguments:
        try:
            params = keyword_literals(arguments)
        except ValueError as error:
            _refuse_text(text, error)
    return name, params, align


def _refuse_text(text: str, cause: Exception | None = None) -> NoReturn:
    fail(
        f"{text!r} names no pipeline",
        fix="write name, name+alignment or name(parameter=value, ...)",
        cause=cause,
    )


def _auto(
    align: str | None,
    estimator: str = "oas",
    n_bands: int = 1,
    bands: str = "stack",
    n_spectral_bands: int = 8,
    candidates: tuple[str, ...] = DEFAULT,
    combine: str = "stack",
    refine: bool = True,
    n_folds: int = 5,
    unseen: str = "pooled",
    random_state: int | None = 0,
) -> Pipeline:
    decoder = AutoDecoder(
        candidates,
        align,
        combine,
        refine,
        estimator,
        n_bands,
        bands,
        n_spectral_bands,
        n_folds,
        unseen,
        random_state,
    )
    return Pipeline([("decoder", decoder)])


_ON_SIGNALS = (None, "euclidean", "riemann")

PIPELINES: dict[str, PipelineSpec] = {
    "mdm": PipelineSpec("nearest Riemannian class mean", "any", builders.mdm),
    "fb-mdm": PipelineSpec(
        "nearest class mean, distances averaged over filter bands",
        "any",
        builders.fb_mdm,
    ),
    "tangent-space": PipelineSpec(
        "tangent vectors, logistic regression (or ridge for task='regression')",
        "any",
        builders.tangent(builders.logistic, builders.ridge),
    ),
    "tangent-space-lda": PipelineSpec(
        "tangent vectors, shrinkage linear discriminant",
        "any",
        builders.tangent(builders.lda, None),
    ),
    "tangent-space-svm": PipelineSpec(
        "tangent vectors, support vector machine with RBF kernel",
        "any",
        builders.tangent(builders.svm, builders.svr),
    ),
    "auto": PipelineSpec(
        "decoders weighed on held-out source people, refined on each new one",
        "any",
        _auto,
        (None, "riemann"),
    ),
    "csp-lda": PipelineSpec(
        "common spatial patterns, shrinkage linear discriminant",
        "oscillatory",
        builders.csp_lda,
        _ON_SIGNALS,
    ),
    "fbcsp-svm": PipelineSpec(
        "filter-bank common spatial patterns, support vector machine",
        "oscillatory",
        builders.fbcsp_svm,
        _ON_SIGNALS,
    ),
    "fbcsp-dss-lda": PipelineSpec(
        "filter-bank common spatial patterns, standardised per domain, linear "
        "discriminant",
        "oscillatory",
        builders.fbcsp_dss_lda,
        _ON_SIGNALS,
        adapts=None,
    ),
    "tucker-lr": PipelineSpec(
        "Tucker features of time-frequency power, logistic regression",
        "oscillatory",
        builders.tucker_lr,
        _ON_SIGNALS,
    ),
    "hoda-lda": PipelineSpec(
        "discriminant projections of time-frequency power, linear discriminant",
        "oscillatory",
        builders.hoda_lda,
        _ON_SIGNALS,
    ),
    "tangent-tensor": PipelineSpec(
        "tangent vectors beside discriminant projections of time-frequency power, "
        "logistic regression",
        "oscillatory",
        builders.tangent_tensor,
        _ON_SIGNALS,
    ),
    "tsmnet": PipelineSpec(
        "TSMNet: filters, covariance and SPD network with batch norm by domain",
        "any",
        builders.tsmnet,
        (None,),
        adapts=None,
    ),
    "spdnet": PipelineSpec(
        "SPDNet on covariances, with batch norm by domain",
        "any",
        builders.spdnet,
        (None,),
        adapts=None,
    ),
    "filter-bank-tsmnet": PipelineSpec(
        "an SPD network for each filter band, with batch norm by domain",
        "oscillatory",
        builders.filter_bank_tsmnet,
        (None,),
        adapts=None,
    ),
    "tensor-cspnet": PipelineSpec(
        "SPD networks over filter bands and time windows, convolution over windows",
        "oscillatory",
        builders.tensor_cspnet,
        (None,),
        adapts=None,
    ),
    "erp-mdm": PipelineSpec(
        "covariances with class-average responses, nearest Riemannian mean",
        "erp",
        builders.erp_mdm,
    ),
    "xdawn-tangent-space": PipelineSpec(
        "Xdawn covariances, tangent vectors, logistic regression",
        "erp",
        builders.xdawn_tangent,
    ),
    "cca": PipelineSpec(
        "canonical correlation with sines of the stimulation frequencies",
        "ssvep",
        builders.cca,
        (None,),
        adapts=None,
    ),
    "cca-lda": PipelineSpec(
        "canonical correlations, shrinkage linear discriminant",
        "ssvep",
        builders.cca_lda,
        (None,),
        adapts=None,
    ),
    "trca": PipelineSpec(
        "task-related components of phase-locked responses",
        "ssvep",
        builders.trca,
        _ON_SIGNALS,
    ),
}
