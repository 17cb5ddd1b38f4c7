"""What a decoder says of trials: logits, features, their length, and the trials."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from eegtensor._check import fail
from eegtensor.geometry import covariances, logm, upper_vector
from eegtensor.training import Batch
from eegtensor.training.network import find_head, inner_module


# Not compared: equality of arrays has no truth value.
@dataclass(frozen=True, eq=False)
class Evidence:
    """What a fitted decoder makes of trials, one row a trial.

    Attributes
    ----------
    logits : ndarray, shape (n_trials, n_classes) | None
        Of two classes minus and plus half the decision value.
    features : ndarray, shape (n_trials, n_features) | None
        What enters the last linear map.
    signals : ndarray, shape (n_trials, ...) | None
        The trials as they came.
    matrices : ndarray, shape (n_trials, n, n) | None
        The last covariance matrices on the way, aligned where the decoder aligns.
    network : torch.nn.Module | None
    batch : Batch | None
        What the network was called with; both where "gradients" are asked for.
    """

    logits: NDArray | None = None
    features: NDArray | None = None
    signals: NDArray | None = None
    matrices: NDArray | None = None
    network: nn.Module | None = None
    batch: Batch | None = None

    def __len__(self) -> int:
        for part in (self.logits, self.features, self.signals, self.matrices):
            if part is not None:
                return len(part)
        return 0

    @property
    def norm(self) -> NDArray:
        """Length of the features, shape (n_trials,)."""
        return np.linalg.norm(self.need("features"), axis=1)

    def need(self, name: str) -> NDArray:
        """Return a part, or raise where there is none."""
        if name == "covariances":
            return self._covariances()
        part = getattr(self, name)
        if part is None:
            fail(
                f"There are no {name} among the evidence",
                fix="get it by evidence(decoder, X, subjects=..., sessions=...)",
            )
        return np.asarray(part)

    def _covariances(self) -> NDArray:
        if self.matrices is not None:
            return self.matrices
        X = self.need("signals")
        square = X.ndim == 3 and X.shape[1] == X.shape[2]
        return X if square else np.asarray(covariances(X, estimator="oas"))

    def pick(self, index: NDArray) -> Evidence:
        """Return the trials at an index or where a mask is True."""
        index = np.arange(len(self))[index]
        arrays = {
            f.name: value[index]
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), np.ndarray)
        }
        batch = self.batch
        if batch is not None:
            batch = batch.pick(torch.from_numpy(index).to(batch.device))
        return replace(self, batch=batch, **arrays)


def as_evidence(given: Any, needs: Sequence[str]) -> Evidence:
    """Return evidence; an array is read as the first part that is needed."""
    if isinstance(given, Evidence):
        return given
    array = np.asarray(given, dtype=np.float64)
    name = {"covariances": "signals"}.get(needs[0], needs[0])
    if array.ndim < 2 or name == "gradients":
        fail(
            f"Got an array of shape {array.shape} where {needs[0]} of trials are "
            "needed",
            fix="give evidence(decoder, X, subjects=..., sessions=...)",
        )
    parts: dict[str, Any] = {name: array}
    return Evidence(**parts)


def evidence(
    estimator: Any,
    X: NDArray,
    *,
    subjects: ArrayLike | None = None,
    sessions: ArrayLike | None = None,
    gradients: bool = False,
) -> Evidence:
    """Return what a fitted decoder makes of trials, by its statistics as they are.

    Of classifiers around a network: what its head gets and gives. Of pipelines:
    what enters the last step (log-Euclidean vectors, where it takes matrices), and
    its decision function, or the logarithm of its probabilities.

    Parameters
    ----------
    estimator : classifier
        Of this package, or of scikit-learn.
    X : ndarray, shape (n_trials, ...)
    subjects, sessions : array-like of str, shape (n_trials,) | None
    gradients : bool
        Whether the network and its inputs are kept, for `LowDimGradients`.

    Raises
    ------
    EEGTensorError
        If the estimator gives neither decision values nor probabilities, or
        gradients are asked of one without a network.
    """
    domains = {"subjects": subjects, "sessions": sessions}
    signals, matrices = np.asarray(X), None
    estimator, X = inside(estimator), signals
    while hasattr(estimator, "steps"):
        for k in range(len(estimator.steps) - 1):
            step = estimator.steps[k][1]
            if step is None or step == "passthrough":
                continue
            X = np.asarray(called(step, "transform", X, domains))
            if _is_stack(X):
                matrices = X
        estimator = inside(estimator.steps[-1][1])
    module = getattr(estimator, "network_", getattr(estimator, "module_", None))
    if isinstance(module, nn.Module):
        found = _of_network(estimator, module, X, domains, gradients)
        return replace(found, signals=signals, matrices=matrices)
    if gradients:
        fail(
            f"{type(estimator).__name__} has no network to take gradients of",
            fix="choose a scorer of logits or features",
        )
    logits = _logits(estimator, X, domains)
    if _is_stack(X):
        matrices, X = X, np.asarray(upper_vector(logm(X)))
    return Evidence(logits, X.reshape(len(X), -1), signals, matrices)


def inside(estimator: Any) -> Any:
    """Return the fitted decoder inside of wrappers that keep it as `estimator_`."""
    while hasattr(estimator, "estimator_"):
        estimator = estimator.estimator_
    return estimator


def called(step: Any, method: str, X: Any, domains: dict[str, Any]) -> Any:
    """Call a method with those of the domains that it takes."""
    bound = getattr(step, method)
    takes = inspect.signature(bound).parameters
    return bound(
        X, **{k: v for k, v in domains.items() if v is not None and k in takes}
    )


def _is_stack(X: NDArray) -> bool:
    square = X.ndim == 3 and X.shape[1] == X.shape[2]
    return square and bool(np.allclose(X, X.swapaxes(1, 2), rtol=1e-5, atol=0.0))


def _logits(estimator: Any, X: NDArray, domains: dict[str, Any]) -> NDArray:
    if hasattr(estimator, "decision_function"):
        z = np.asarray(called(estimator, "decision_function", X, domains), np.float64)
    elif hasattr(estimator, "predict_proba"):
        p = np.asarray(called(estimator, "predict_proba", X, domains), np.float64)
        return np.log(np.maximum(p, np.finfo(np.float64).tiny))
    else:
        fail(
            f"{type(estimator).__name__} gives neither decision values nor "
            "probabilities",
            fix="choose a classifier that has decision_function or predict_proba",
        )
    # Half each: neither class is preferred where the energy is taken.
    return np.stack([-0.5 * z, 0.5 * z], axis=1) if z.ndim == 1 else z


def _of_network(
    estimator: Any,
    module: nn.Module,
    X: NDArray,
    domains: dict[str, Any],
    gradients: bool,
) -> Evidence:
    """Return what passes the head while the classifier decides."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    inputs: list[tuple[nn.Module, Any, Any]] = []

    def at_head(head: Any, args: Any, output: torch.Tensor) -> None:
        seen.append((args[0].detach().flatten(1).cpu(), output.detach().cpu()))

    def at_input(network: nn.Module, args: Any, kwargs: Any) -> None:
        domain = kwargs.get("domain", args[1] if len(args) > 1 else None)
        inputs.append((network, args[0].detach(), domain))

    # Copies of the network that adapt to the trials alone keep the hooks.
    hooks: list[Any] = [find_head(module).register_forward_hook(at_head)]
    if gradients:
        inner = inner_module(module)
        hooks.append(inner.register_forward_pre_hook(at_input, with_kwargs=True))
    try:
        method = "decision_function"
        if not hasattr(estimator, method):
            method = "predict_proba"
        called(estimator, method, X, domains)
    finally:
        for hook in hooks:
            hook.remove()
    # What came before the last n rows were passes of an adaptation.
    h, z = (torch.cat([s[k] for s in seen])[-len(X) :].double().numpy() for k in (0, 1))
    if not gradients:
        return Evidence(z, h)
    x = torch.cat([part for _, part, _ in inputs])[-len(X) :]
    domain = None
    if inputs[-1][2] is not None:
        domain = torch.cat([d for _, _, d in inputs])[-len(X) :]
    return Evidence(z, h, network=inputs[-1][0], batch=Batch(x, domain=domain))
