"""How each named pipeline is put together: one builder a name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from eegtensor._check import check_option, fail
from eegtensor.features import (
    CCA,
    CSP,
    HODA,
    TRCA,
    CCAFeatures,
    Covariances,
    ERPCovariances,
    FilterBankCSP,
    TangentSpace,
    TimeFrequencyTensor,
    TuckerFeatures,
    XdawnCovariances,
)
from eegtensor.pipeline import Pipeline
from eegtensor.transfer import (
    MDM,
    BalancedRecenter,
    DomainStandardScaler,
    Recenter,
    SignalAlignment,
    SPDNetworkClassifier,
    TSMNetClassifier,
)
from eegtensor.transfer._sidebyside import SideBySide


def _signal_steps(
    align: str | None, n_bands: int, unseen: str
) -> list[tuple[str, Any]]:
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
        # Pseudo-labels need the classifier inside the alignment, not behind it.
        inner = decoder[0][1] if len(decoder) == 1 else Pipeline(decoder)
        balanced = BalancedRecenter(inner, metric=metric, unseen=unseen)
        return Pipeline([*steps, ("decoder", balanced)])
    return Pipeline([*steps, *decoder])


def _reference(align: str | None) -> str:
    """Recentred training matrices have the identity as their mean."""
    # It also makes the tangent vectors trialwise: computed once for all folds.
    recentred = ("riemann", "riemann-balanced")
    return "identity" if align in recentred else "mean"


def mdm(
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


def fb_mdm(
    align: str | None,
    n_bands: int = 1,
    estimator: str = "oas",
    metric: str = "affine-invariant",
    unseen: str = "pooled",
) -> Pipeline:
    return mdm(align, estimator, metric, n_bands, "separate", unseen)


def tangent(
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
        unused = sorted(set(params) - set(inspect.signature(make).parameters))
        if unused:
            fail(
                f"{', '.join(unused)} means nothing to task={task!r}",
                fix="leave it out",
            )
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

    # PIPELINES and make_pipeline read the names of parameters from the signature.
    extra = inspect.signature(decoder).parameters.values()
    own = inspect.signature(build)
    kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    build.__signature__ = own.replace(parameters=[*kept, *extra])  # type: ignore[attr-defined]
    return build


def logistic(C: float = 0.1, class_weight: str | None = None) -> LogisticRegression:
    return LogisticRegression(C=C, class_weight=class_weight, max_iter=1000)


def ridge(C: float = 0.1) -> Ridge:
    # C means less regularisation when larger, as in the classifiers.
    return Ridge(alpha=1.0 / C)


def lda(shrinkage: str | float = "auto") -> LinearDiscriminantAnalysis:
    # scikit-learn shrinks with lsqr and eigen only; svd would refuse.
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)


def svm(
    C: float = 1.0,
    gamma: str | float = "scale",
    class_weight: str | None = "balanced",
) -> SVC:
    return SVC(C=C, gamma=gamma, class_weight=class_weight)


def svr(C: float = 1.0, gamma: str | float = "scale") -> SVR:
    return SVR(C=C, gamma=gamma)


def csp_lda(
    align: str | None,
    n_components: int = 6,
    estimator: str = "oas",
    shrinkage: str | float = "auto",
    unseen: str = "pooled",
) -> Pipeline:
    return Pipeline(
        [
            *_signal_steps(align, 1, unseen),
            ("csp", CSP(n_components, estimator)),
            ("decoder", lda(shrinkage)),
        ]
    )


def fbcsp_svm(
    align: str | None,
    n_bands: int = 1,
    n_components: int = 4,
    n_selected: int = 4,
    C: float = 1.0,
    unseen: str = "pooled",
) -> Pipeline:
    return Pipeline(
        [
            *_signal_steps(align, n_bands, unseen),
            ("fbcsp", FilterBankCSP(n_bands, n_components, n_selected=n_selected)),
            ("scale", StandardScaler()),
            ("decoder", svm(C)),
        ]
    )


def fbcsp_dss_lda(
    align: str | None,
    n_bands: int = 1,
    n_components: int = 4,
    n_selected: int = 4,
    shrinkage: str | float = "auto",
    unseen: str = "pooled",
) -> Pipeline:
    return Pipeline(
        [
            *_signal_steps(align, n_bands, unseen),
            ("fbcsp", FilterBankCSP(n_bands, n_components, n_selected=n_selected)),
            ("standardize", DomainStandardScaler(unseen=unseen)),
            ("decoder", lda(shrinkage)),
        ]
    )


def erp_mdm(
    align: str | None, estimator: str = "oas", unseen: str = "pooled"
) -> Pipeline:
    return _matrix_pipeline(
        align,
        ERPCovariances(estimator=estimator),
        [("mdm", MDM())],
        metric="affine-invariant",
        unseen=unseen,
    )


def xdawn_tangent(
    align: str | None,
    nfilter: int = 4,
    estimator: str = "oas",
    C: float = 0.1,
    class_weight: str | None = "balanced",
    unseen: str = "pooled",
) -> Pipeline:
    decoder = [
        ("tangent", TangentSpace(reference=_reference(align))),
        ("scale", StandardScaler()),
        ("decoder", logistic(C, class_weight)),
    ]
    return _matrix_pipeline(
        align,
        XdawnCovariances(nfilter, estimator=estimator),
        decoder,
        metric="affine-invariant",
        unseen=unseen,
    )


def cca(
    align: str | None,
    frequencies: tuple[float, ...] = (),
    sfreq: float = 256.0,
    n_harmonics: int = 2,
    n_bands: int = 1,
) -> Pipeline:
    _need_frequencies("cca", frequencies)
    return Pipeline([("cca", CCA(frequencies, sfreq, n_harmonics, n_bands=n_bands))])


def cca_lda(
    align: str | None,
    frequencies: tuple[float, ...] = (),
    sfreq: float = 256.0,
    n_harmonics: int = 2,
    n_bands: int = 1,
    shrinkage: str | float = "auto",
) -> Pipeline:
    _need_frequencies("cca-lda", frequencies)
    return Pipeline(
        [
            ("cca", CCAFeatures(frequencies, sfreq, n_harmonics, n_bands)),
            ("decoder", lda(shrinkage)),
        ]
    )


def _need_frequencies(name: str, frequencies: tuple[float, ...]) -> None:
    if not len(frequencies):
        fail(
            f"Pipeline {name!r} needs the stimulation frequencies",
            fix=f"write {name}(frequencies=(13, 17, 21), sfreq=256), or pass them to "
            "make_pipeline",
        )


def trca(
    align: str | None,
    n_components: int = 1,
    ensemble: bool = True,
    n_bands: int = 1,
    unseen: str = "pooled",
) -> Pipeline:
    return Pipeline(
        [
            *_signal_steps(align, n_bands, unseen),
            ("trca", TRCA(n_components, ensemble, n_bands)),
        ]
    )


# Defaults of tensor pipelines are the best on people held out of training, over
# three sets together: tests/benchmarks/accuracy_tensor.py.
def tucker_lr(
    align: str | None,
    sfreq: float = 0.0,
    ranks: int | tuple[int, ...] = (8, 6, 3),
    fmin: float = 4.0,
    fmax: float = 40.0,
    n_freqs: int = 12,
    n_bins: int = 1,
    n_cycles: float | None = None,
    C: float = 0.01,
    class_weight: str | None = None,
    unseen: str = "pooled",
) -> Pipeline:
    power = _power("tucker-lr", sfreq, fmin, fmax, n_freqs, n_bins, n_cycles)
    steps = _tensor_steps(align, power, TuckerFeatures(ranks), unseen)
    return Pipeline([*steps, ("decoder", logistic(C, class_weight))])


def hoda_lda(
    align: str | None,
    sfreq: float = 0.0,
    ranks: int | tuple[int, ...] = (6, 4, 3),
    n_selected: int | None = None,
    fmin: float = 4.0,
    fmax: float = 40.0,
    n_freqs: int = 24,
    n_bins: int = 1,
    n_cycles: float | None = 30.0,
    shrinkage: str | float = "auto",
    unseen: str = "pooled",
) -> Pipeline:
    power = _power("hoda-lda", sfreq, fmin, fmax, n_freqs, n_bins, n_cycles)
    steps = _tensor_steps(align, power, HODA(ranks, n_selected), unseen)
    return Pipeline([*steps, ("decoder", lda(shrinkage))])


def tangent_tensor(
    align: str | None,
    sfreq: float = 0.0,
    estimator: str = "oas",
    metric: str = "affine-invariant",
    ranks: int | tuple[int, ...] = (6, 4, 3),
    n_selected: int | None = None,
    fmin: float = 4.0,
    fmax: float = 40.0,
    n_freqs: int = 24,
    n_bins: int = 1,
    n_cycles: float | None = 30.0,
    C: float = 0.01,
    class_weight: str | None = None,
    unseen: str = "pooled",
) -> Pipeline:
    power = _power("tangent-tensor", sfreq, fmin, fmax, n_freqs, n_bins, n_cycles)
    tensor = Pipeline(_tensor_steps(align, power, HODA(ranks, n_selected), unseen))
    tangent = _matrix_pipeline(
        align,
        Covariances(estimator),
        [("tangent", TangentSpace(metric, _reference(align)))],
        metric=metric,
        unseen=unseen,
    )
    return Pipeline(
        [
            ("features", SideBySide(tangent, tensor)),
            ("decoder", logistic(C, class_weight)),
        ]
    )


def _tensor_steps(
    align: str | None, power: TimeFrequencyTensor, extractor: Any, unseen: str
) -> list[tuple[str, Any]]:
    """Return the steps from signals to features of their power."""
    # Whitened first: the power of a mixture is no mixture of powers, so that
    # nothing behind the power can undo how a person's sources mix.
    scaler = StandardScaler() if align is None else DomainStandardScaler(unseen=unseen)
    return [
        *_signal_steps(align, 1, unseen),
        ("power", power),
        ("features", extractor),
        ("standardize", scaler),
    ]


def _power(
    name: str,
    sfreq: float,
    fmin: float,
    fmax: float,
    n_freqs: int,
    n_bins: int,
    n_cycles: float | None,
) -> TimeFrequencyTensor:
    if not sfreq > 0:
        fail(
            f"Pipeline {name!r} needs the sampling frequency",
            fix=f"write {name}(sfreq=128), or pass it to make_pipeline",
        )
    return TimeFrequencyTensor(sfreq, fmin, fmax, n_freqs, n_bins, n_cycles=n_cycles)


def network(classifier: type, step: str, **fixed: Any) -> Callable[..., Pipeline]:
    """Return the builder of a pipeline that is one network classifier.

    Without random_state a benchmark chooses the seed, as for other estimators.
    """

    def build(align: str | None, **params: Any) -> Pipeline:
        params = {"random_state": None, **fixed, **params}
        return Pipeline([(step, classifier(**params))])

    # PIPELINES and make_pipeline read the names of parameters from the signature.
    names = inspect.signature(classifier).parameters
    kept = [
        p.replace(default=None) if p.name == "random_state" else p
        for p in names.values()
        if p.name not in fixed
    ]
    align = inspect.Parameter("align", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    build.__signature__ = inspect.Signature([align, *kept])  # type: ignore[attr-defined]
    return build


tsmnet = network(TSMNetClassifier, "tsmnet")
spdnet = network(SPDNetworkClassifier, "network", network="spdnet")
tensor_cspnet = network(SPDNetworkClassifier, "network", network="tensor-cspnet")
filter_bank_tsmnet = network(
    SPDNetworkClassifier, "network", network="filter-bank-tsmnet"
)
