"""Decoders by name: `make_pipeline` and the table `PIPELINES`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from eegtensor._check import check_option, fail
from eegtensor.features import Covariances, TangentSpace
from eegtensor.pipeline import Pipeline
from eegtensor.transfer import MDM, BalancedRecenter, Recenter, SignalAlignment

__all__ = ["PIPELINES", "Pipeline", "PipelineSpec", "make_pipeline"]

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


def make_pipeline(name: str, *, align: str | None = None, **params: Any) -> Pipeline:
    """Return an unfitted pipeline by name.

    Parameters
    ----------
    name : str
        A key of `PIPELINES`.
    align : None | "euclidean" | "riemann" | "riemann-balanced"
        How domains are aligned: not at all, by whitening signals with the
        arithmetic mean covariance, by Riemannian recentring, or by Riemannian
        recentring with class-balanced means and iterated pseudo-labels.
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
    check_option("align", align, spec.alignments)
    unknown = sorted(set(params) - set(spec.parameters))
    if unknown:
        fail(
            f"Pipeline {name!r} has no parameter {', '.join(map(repr, unknown))}",
            fix="choose among " + ", ".join(spec.parameters),
        )
    return spec.build(align, **params)


def _signal_steps(align: str | None, n_bands: int, unseen: str) -> list[tuple[str, Any]]:
    """Return the alignment of raw signals, if any."""
    if align is None:
        return []
    metric = {"euclidean": "euclidean", "riemann": "affine-invariant"}[align]
    step = SignalAlignment(metric=metric, n_bands=n_bands, unseen=unseen)
    return [("align", step)]


def _matrix_pipeline(
    align: str | None,
    covariances: Any,
    decoder: list[tuple[str, Any]],
    *,
    metric: str,
    unseen: str,
    n_bands: int = 1,
) -> Pipeline:
    """Return covariances, their alignment, and a decoder of matrices."""
    steps: list[tuple[str, Any]] = []
    if align == "euclidean":
        steps += _signal_steps("euclidean", n_bands, unseen)
    steps.append(("covariances", covariances))
    if align == "riemann":
        steps.append(("align", Recenter(metric=metric, unseen=unseen)))
    if align == "riemann-balanced":
        inner = decoder[0][1] if len(decoder) == 1 else Pipeline(decoder)
        balanced = BalancedRecenter(inner, metric=metric, unseen=unseen)
        return Pipeline([*steps, ("decoder", balanced)])
    return Pipeline([*steps, *decoder])


def _reference(align: str | None) -> str:
    """Recentred training matrices have the identity as their mean."""
    recentred = ("riemann", "riemann-balanced")
    return "identity" if align in recentred else "mean"


def _mdm(
    align: str | None,
    estimator: str = "oas",
    metric: str = "affine-invariant",
    n_bands: int = 1,
    bands: str = "stack",
    unseen: str = "pooled",
) -> Pipeline:
    covariances = Covariances(estimator, n_bands, bands)
    return _matrix_pipeline(
        align,
        covariances,
        [("mdm", MDM(metric))],
        metric=metric,
        unseen=unseen,
        n_bands=n_bands,
    )


def _fb_mdm(
    align: str | None,
    n_bands: int = 1,
    estimator: str = "oas",
    metric: str = "affine-invariant",
    unseen: str = "pooled",
) -> Pipeline:
    return _mdm(align, estimator, metric, n_bands, "separate", unseen)


def _tangent(
    decoder: Callable[..., Any], task_decoder: Callable[..., Any] | None
) -> Callable[..., Pipeline]:
    def build(
        align: str | None,
        estimator: str = "oas",
        metric: str = "affine-invariant",
        n_bands: int = 1,
        bands: str = "stack",
        task: str = "classification",
        unseen: str = "pooled",
        **params: Any,
    ) -> Pipeline:
        tasks = ("classification", "regression")
        check_option("task", task, tasks if task_decoder else tasks[:1])
        make = decoder if task == "classification" else task_decoder
        assert make is not None
        if align == "riemann-balanced" and task == "regression":
            fail("Regression has no classes to balance", fix="use align='riemann'")
        return _matrix_pipeline(
            align,
            Covariances(estimator, n_bands, bands),
            [
                ("tangent", TangentSpace(metric, _reference(align))),
                ("scale", StandardScaler()),
                ("decoder", make(**params)),
            ],
            metric=metric,
            unseen=unseen,
            n_bands=n_bands,
        )

    extra = inspect.signature(decoder).parameters.values()
    own = inspect.signature(build)
    kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    build.__signature__ = own.replace(parameters=[*kept, *extra])  # type: ignore[attr-defined]
    return build


def _logistic(C: float = 0.1, class_weight: str | None = None) -> LogisticRegression:
    return LogisticRegression(C=C, class_weight=class_weight, max_iter=1000)


def _ridge(C: float = 0.1, class_weight: str | None = None) -> Ridge:
    return Ridge(alpha=1.0 / C)


def _lda(shrinkage: str | float = "auto") -> LinearDiscriminantAnalysis:
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)


def _svm(
    C: float = 1.0,
    gamma: str | float = "scale",
    class_weight: str | None = "balanced",
) -> SVC:
    return SVC(C=C, gamma=gamma, class_weight=class_weight)


def _svr(
    C: float = 1.0,
    gamma: str | float = "scale",
    class_weight: str | None = None,
) -> SVR:
    return SVR(C=C, gamma=gamma)


PIPELINES: dict[str, PipelineSpec] = {
    "mdm": PipelineSpec("nearest Riemannian class mean", "any", _mdm),
    "fb-mdm": PipelineSpec(
        "nearest class mean, distances averaged over filter bands", "any", _fb_mdm
    ),
    "tangent-space": PipelineSpec(
        "tangent vectors, logistic regression (or ridge for task='regression')",
        "any",
        _tangent(_logistic, _ridge),
    ),
    "tangent-space-lda": PipelineSpec(
        "tangent vectors, shrinkage linear discriminant", "any", _tangent(_lda, None)
    ),
    "tangent-space-svm": PipelineSpec(
        "tangent vectors, support vector machine with RBF kernel",
        "any",
        _tangent(_svm, _svr),
    ),
}
