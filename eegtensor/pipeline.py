"""A scikit-learn pipeline that knows domains, adapts, and takes trials as they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import mne
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.pipeline import Pipeline as _SklearnPipeline
from sklearn.utils.metaestimators import available_if

from eegtensor._check import check_lengths, fail
from eegtensor.features._base import DOMAINS, DomainEstimator, class_codes
from eegtensor.trials import Trials, as_trials


def _final_can(method: str) -> Callable[[Pipeline], bool]:
    def check(self: Pipeline) -> bool:
        final = self._final()
        return method == "transform" if final is None else hasattr(final, method)

    return check


class Pipeline(_SklearnPipeline):
    """scikit-learn's Pipeline with domains, `adapt` and `partial_adapt`.

    Every step receives those of `subjects`, `sessions` and `sample_weight`
    that its method takes, so no routing has to be switched on. X may be an
    array, `Trials` or `mne.Epochs`; the latter two bring labels and domains.

    Notes
    -----
    MOABB's `X_target_unlabeled` given to `fit` is adapted to afterwards as one
    domain named "target"; `X_target_labeled` joins the training trials as that
    domain. `predict` without domains uses the domain adapted last. Where the last
    step is a network that learns from trials without labels (as by the objective
    "vat"), `X_target_unlabeled` joins its training trials, too, with None as labels.
    The steps before are fitted to the sources and adapt to it.
    """

    __metadata_request__fit: ClassVar[dict[str, bool]] = {
        **DOMAINS,
        "X_target_unlabeled": True,
        "X_target_labeled": True,
        "y_target_labeled": True,
    }
    __metadata_request__transform: ClassVar[dict[str, bool]] = DOMAINS
    __metadata_request__predict: ClassVar[dict[str, bool]] = DOMAINS
    __metadata_request__predict_proba: ClassVar[dict[str, bool]] = DOMAINS
    __metadata_request__decision_function: ClassVar[dict[str, bool]] = DOMAINS
    __metadata_request__score: ClassVar[dict[str, bool]] = DOMAINS

    def get_metadata_routing(self) -> Any:
        """Return the steps' requests and the pipeline's own."""
        return super().get_metadata_routing().add_self_request(self)

    def fit(
        self,
        X: NDArray | Trials | mne.BaseEpochs,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        X_target_unlabeled: NDArray | None = None,
        X_target_labeled: NDArray | None = None,
        y_target_labeled: ArrayLike | None = None,
    ) -> Pipeline:
        """Fit all steps to source trials.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times) | Trials | mne.Epochs
        y : array-like, shape (n_trials,) | None
        subjects, sessions : array-like of str, shape (n_trials,) | None
        sample_weight : array-like, shape (n_trials,) | None
        X_target_unlabeled, X_target_labeled : ndarray | None
        y_target_labeled : array-like | None
            MOABB's target trials, see the class notes.

        Raises
        ------
        EEGTensorError
            If lengths do not fit, or a classifier gets no labels, continuous
            ones or a single class.
        """
        self._fit_steps(
            X,
            y,
            subjects,
            sessions,
            sample_weight,
            X_target_labeled,
            y_target_labeled,
            X_target_unlabeled,
            transform_last=False,
        )
        # Labelled target trials are part of the fit already: adapting to them
        # would put pseudo-labels in place of their labels.
        if X_target_unlabeled is not None:
            self.adapt(X_target_unlabeled)
        return self

    def fit_transform(
        self,
        X: NDArray | Trials | mne.BaseEpochs,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> NDArray:
        """Fit all steps and return the trials transformed by all of them."""
        return self._fit_steps(
            X,
            y,
            subjects,
            sessions,
            sample_weight,
            None,
            None,
            None,
            transform_last=True,
        )

    def _fit_steps(
        self,
        X: Any,
        y: Any,
        subjects: Any,
        sessions: Any,
        sample_weight: Any,
        X_labelled: Any,
        y_labelled: Any,
        X_unlabelled: Any,
        *,
        transform_last: bool,
    ) -> Any:
        self._validate_steps()
        if self.memory is not None:
            fail(
                f"memory={self.memory!r} would not be used",
                why="This pipeline runs its steps itself and caches none",
                fix="leave memory out; `benchmark(cache=...)` keeps finished folds",
            )
        X, y, metadata = _unpack(X, y, subjects, sessions)
        n_source = len(X)
        if sample_weight is not None:
            check_lengths(n_source, sample_weight=sample_weight)
            metadata["sample_weight"] = np.asarray(sample_weight)
        if X_labelled is not None:
            if y_labelled is None:
                fail("X_target_labeled came without y_target_labeled")
            X, y, metadata = _join(X, y, metadata, X_labelled, y_labelled)
        final = self._final()
        # Ours check for themselves (CCA may do without); scikit-learn's would
        # answer with errors of their own, after all the work before them.
        if is_classifier(final) and not isinstance(final, DomainEstimator):
            class_codes(y, len(X), type(final).__name__, floats=True)
        target: Any = None
        given: dict[str, Any] = {}
        if X_unlabelled is not None and getattr(final, "learns_unlabelled", False):
            target, _, given = _unpack(X_unlabelled, None, None, None)
        for _, step in self._transformers():
            if hasattr(step, "fit_transform"):
                X = _call(step, "fit_transform", X, y, metadata=metadata)
            else:
                _call(step, "fit", X, y, metadata=metadata)
                X = _call(step, "transform", X, metadata=metadata)
            if target is not None:
                if hasattr(step, "adapt"):
                    _call(step, "adapt", target, metadata=given)
                target = _call(step, "transform", target, metadata=given)
        if target is not None:
            X, y, metadata = _join(X, y, metadata, target, None, given)
        if final is None:
            return X
        if transform_last:
            if hasattr(final, "fit_transform"):
                return _call(final, "fit_transform", X, y, metadata=metadata)
            _call(final, "fit", X, y, metadata=metadata)
            return _call(final, "transform", X, metadata=metadata)
        _call(final, "fit", X, y, metadata=metadata)
        return X

    def adapt(
        self,
        X: NDArray | Trials | mne.BaseEpochs,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Pipeline:
        """Adapt every step that can to an unlabelled batch of target trials.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times) | Trials | mne.Epochs
            Labels that it brings are not looked at.
        subjects, sessions : array-like of str, shape (n_trials,) | None
            Without both the batch is one domain, "target".

        Raises
        ------
        EEGTensorError
            If a domain has a single trial.
        """
        return self._adapt_steps("adapt", X, subjects, sessions)

    def partial_adapt(
        self,
        X: NDArray | Trials | mne.BaseEpochs,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Pipeline:
        """Adapt trial by trial, in the order given."""
        return self._adapt_steps("partial_adapt", X, subjects, sessions)

    def _adapt_steps(
        self, method: str, X: Any, subjects: Any, sessions: Any
    ) -> Pipeline:
        X, _, metadata = _unpack(X, None, subjects, sessions)
        steps = [step for _, step in self._transformers()]
        final = self._final()
        able = [i for i, s in enumerate([*steps, final]) if hasattr(s, method)]
        if not able:
            return self
        # A step adapts to what the steps before it, adapted already, make of X.
        for i, step in enumerate([*steps, final][: able[-1] + 1]):
            if i in able:
                _call(step, method, X, metadata=metadata)
            if i < able[-1]:
                X = _call(step, "transform", X, metadata=metadata)
        return self

    @available_if(_final_can("calibrate"))
    def calibrate(
        self,
        X: NDArray | Trials | mne.BaseEpochs,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        adapt: bool = True,
        **options: Any,
    ) -> Pipeline:
        """Fit the last step to a few labelled trials of a person.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times) | Trials | mne.Epochs
        y : array-like, shape (n_trials,) | None
            By default the labels that X brings.
        subjects, sessions : array-like of str, shape (n_trials,) | None
            Without both the trials are of one domain, "target".
        adapt : bool
            Whether every step that can adapts to the trials first.
        **options
            Of the last step's `calibrate`.
        """
        X, y, metadata = _unpack(X, y, subjects, sessions)
        for _, step in self._transformers():
            if adapt and hasattr(step, "adapt"):
                _call(step, "adapt", X, metadata=metadata)
            X = _call(step, "transform", X, metadata=metadata)
        metadata |= {"adapt": adapt, **options}
        _call(self._final(), "calibrate", X, y, metadata=metadata)
        return self

    @property
    def can_adapt(self) -> bool:
        """Whether any step adapts."""
        steps = [step for _, step in self._transformers()]
        return any(
            hasattr(step, "adapt") and getattr(step, "can_adapt", True)
            for step in [*steps, self._final()]
        )

    @available_if(_final_can("predict"))
    def predict(
        self,
        X: NDArray | Trials | mne.BaseEpochs,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return predicted classes or targets, shape (n_trials,)."""
        return self._finally("predict", X, subjects, sessions)

    @available_if(_final_can("predict_proba"))
    def predict_proba(
        self,
        X: NDArray | Trials | mne.BaseEpochs,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return class probabilities, shape (n_trials, n_classes)."""
        return self._finally("predict_proba", X, subjects, sessions)

    @available_if(_final_can("decision_function"))
    def decision_function(
        self,
        X: NDArray | Trials | mne.BaseEpochs,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the last step's decision values."""
        return self._finally("decision_function", X, subjects, sessions)

    @available_if(_final_can("transform"))
    def transform(
        self,
        X: NDArray | Trials | mne.BaseEpochs,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the trials transformed by all steps."""
        return self._finally("transform", X, subjects, sessions)

    @available_if(_final_can("score"))
    def score(
        self,
        X: NDArray | Trials | mne.BaseEpochs,
        y: ArrayLike | None = None,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Return the last step's score: accuracy of classifiers, R2 of regressors.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times) | Trials | mne.Epochs
        y : array-like, shape (n_trials,) | None
            By default the labels that X brings.
        subjects, sessions : array-like of str, shape (n_trials,) | None
        sample_weight : array-like, shape (n_trials,) | None
        """
        X, y, metadata = _unpack(X, y, subjects, sessions)
        if sample_weight is not None:
            metadata["sample_weight"] = sample_weight
        features = self._features(X, metadata)
        return float(_call(self._final(), "score", features, y, metadata=metadata))

    def split_trialwise(self) -> tuple[Pipeline | None, Pipeline]:
        """Split off the first steps whose output for a trial needs that trial only.

        Returns
        -------
        prefix : Pipeline | None
            What a benchmark may compute once for all trials.
        rest : Pipeline
        """
        # Only a leading run: behind a fitted step nothing is the trial's alone.
        count = 0
        for _, step in self.steps[:-1]:
            if not getattr(step, "trialwise", False):
                break
            count += 1
        if not count:
            return None, self
        return Pipeline(self.steps[:count]), Pipeline(self.steps[count:])

    def _finally(self, method: str, X: Any, subjects: Any, sessions: Any) -> NDArray:
        X, _, metadata = _unpack(X, None, subjects, sessions)
        features = self._features(X, metadata)
        final = self._final()
        if final is None:
            return features
        return _call(final, method, features, metadata=metadata)

    def _features(self, X: Any, metadata: dict[str, Any]) -> Any:
        for _, step in self._transformers():
            X = _call(step, "transform", X, metadata=metadata)
        return X

    def _transformers(self) -> list[tuple[str, BaseEstimator]]:
        return [
            (name, step)
            for name, step in self.steps[:-1]
            if step is not None and step != "passthrough"
        ]

    def _final(self) -> Any:
        final = self.steps[-1][1]
        return None if final is None or final == "passthrough" else final


def _unpack(
    X: Any, y: Any, subjects: Any, sessions: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """Return arrays and metadata from arrays, Trials or epochs."""
    # What is given by name wins over what the trials bring.
    if isinstance(X, (Trials, mne.BaseEpochs)):
        trials = as_trials(X)
        y = trials.y if y is None else y
        subjects = trials.subjects if subjects is None else subjects
        sessions = trials.sessions if sessions is None else sessions
        X = trials.X
    if not hasattr(X, "__len__"):
        fail(f"Got a {type(X).__name__} where trials are needed")
    check_lengths(len(X), y=y, subjects=_column(subjects), sessions=_column(sessions))
    return X, y, {"subjects": subjects, "sessions": sessions}


def _column(values: Any) -> Any:
    return None if isinstance(values, str) else values


def _join(
    X: Any,
    y: Any,
    metadata: dict[str, Any],
    X_target: Any,
    y_target: Any,
    names: dict[str, Any] | None = None,
) -> tuple[NDArray, NDArray, dict[str, Any]]:
    """Append target trials as the domain ("target", ""), or by their own names.

    Without `y_target` their labels are None.
    """
    check_lengths(len(X_target), y_target_labeled=y_target)
    n, m = len(X), len(X_target)
    joined = dict(metadata)
    own = {k: v for k, v in (names or {}).items() if v is not None}
    # As in transfer's TARGET, which `predict` without domains falls back on.
    own = own or {"subjects": "target", "sessions": ""}
    for key in ("subjects", "sessions"):
        joined[key] = np.concatenate(
            [_full(metadata.get(key), n), _full(own.get(key), m)]
        )
    if "sample_weight" in metadata:
        joined["sample_weight"] = np.concatenate(
            [metadata["sample_weight"], np.ones(m)]
        )
    X = np.concatenate([np.asarray(X), np.asarray(X_target)])
    if y_target is None:
        y = np.concatenate([np.asarray(y).astype(object), np.full(m, None)])
    else:
        y = np.concatenate([np.asarray(y), np.asarray(y_target)])
    return X, y, joined


def _full(values: Any, n: int) -> NDArray:
    """Return one name a trial: strings, "" where there is none."""
    if values is None or isinstance(values, str):
        values = np.full(n, values or "")
    return np.asarray(values, dtype=str)


def _call(step: Any, method: str, *args: Any, metadata: dict[str, Any]) -> Any:
    """Call a step's method with the metadata that its signature names."""
    # By signature, not by scikit-learn's routing: that is a global switch, and
    # raises where a step requests what another does not.
    bound = getattr(step, method)
    given = {k: v for k, v in metadata.items() if v is not None}
    if given:
        parameters = inspect.signature(bound).parameters
        explicit = {k: v for k, v in given.items() if k in parameters}
        # An inherited fit_transform(X, y, **fit_params) hands on what fit takes.
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if method == "fit_transform" and takes_any:
            accepted = inspect.signature(step.fit).parameters
            explicit |= {k: v for k, v in given.items() if k in accepted}
        given = explicit
    return bound(*args, **given)
