"""Fitted steps of a pipeline in torch: the same numbers, with a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eegtensor.domains import UNSEEN, Domain, domain_names
from eegtensor.features import CSP, Covariances, TangentSpace
from eegtensor.geometry import (
    congruence,
    covariances,
    distance,
    inv_sqrtm,
    logm,
    upper_vector,
)
from eegtensor.transfer import MDM, DomainStandardScaler, Recenter, SignalAlignment

# Values of some trials, and which trials they are, to values.
Twin = Callable[[Tensor, Tensor], Tensor]


def twin_of(step: Any, n_trials: int, subjects: Any, sessions: Any) -> Twin | None:
    """Return what a fitted step does to trials, or None where it is not known.

    Parameters
    ----------
    step : estimator
    n_trials : int
    subjects, sessions : array-like of str, shape (n_trials,) | None
        Domains of all trials; per-domain steps use the statistics that they have.
    """
    make = _TWINS.get(type(step))
    if make is None:
        make = _linear if hasattr(step, "coef_") else _scaler
    return make(step, _Domains(n_trials, subjects, sessions))


class _Domains:
    """The domains of trials, for steps that look them up."""

    def __init__(self, n_trials: int, subjects: Any, sessions: Any) -> None:
        self.nameless = subjects is None and sessions is None
        self.names = domain_names(n_trials, subjects, sessions)

    def codes(self, step: Any) -> Tensor:
        """Return each trial's place among a step's statistics; pooled is the last."""
        last: Domain | None = step.last_target_
        names = self.names
        if self.nameless and last is not None:
            names = [last] * len(names)
        codes = step.domains_.encode(names)
        return torch.from_numpy(np.where(codes == UNSEEN, len(step.domains_), codes))


def _constant(array: Any) -> Tensor:
    return torch.tensor(np.asarray(array), dtype=torch.float64)


def _with_pooled(step: Any) -> Tensor:
    return _constant(np.concatenate([step.statistics_, step.pooled_[np.newaxis]]))


def _banded(x: Tensor, n_bands: int) -> Tensor:
    return x.unflatten(1, (n_bands, -1))


def _covariances(step: Covariances, domains: _Domains) -> Twin:
    whole = step.bands == "stack" or step.n_bands == 1

    def run(x: Tensor, rows: Tensor) -> Tensor:
        x = x.double()
        if whole:
            C: Tensor = covariances(x, estimator=step.estimator)
            return C[:, None] if step.bands == "separate" else C
        C = covariances(_banded(x, step.n_bands), estimator=step.estimator)
        if step.bands == "separate":
            return C
        return torch.stack([torch.block_diag(*trial) for trial in C])

    return run


def _alignment(step: SignalAlignment, domains: _Domains) -> Twin:
    whiten, codes = inv_sqrtm(_with_pooled(step)), domains.codes(step)

    def run(x: Tensor, rows: Tensor) -> Tensor:
        W = whiten[codes[rows]].to(x)
        return (W @ _banded(x, step.n_bands)).flatten(1, 2)

    return run


def _recenter(step: Recenter, domains: _Domains) -> Twin:
    whiten, codes = inv_sqrtm(_with_pooled(step)), domains.codes(step)

    def run(C: Tensor, rows: Tensor) -> Tensor:
        moved: Tensor = congruence(whiten[codes[rows]].to(C), C)
        return moved

    return run


def _tangent(step: TangentSpace, domains: _Domains) -> Twin:
    at = _constant(step.reference_)
    euclidean = step.metric == "log-euclidean"
    whiten = inv_sqrtm(at)
    identity = step.reference == "identity"

    def run(C: Tensor, rows: Tensor) -> Tensor:
        if euclidean:
            V = logm(C) - logm(at).to(C)
        else:
            V = logm(C if identity else congruence(whiten.to(C), C))
        vectors: Tensor = upper_vector(V).flatten(1)
        return vectors

    return run


def _csp(step: CSP, domains: _Domains) -> Twin | None:
    if step.input != "signals" or step.norm_trace:
        return None
    filters = _constant(step.filters_)

    def run(x: Tensor, rows: Tensor) -> Tensor:
        power = (filters.to(x.device) @ x.double()).var(dim=-1, correction=0)
        return power.log() if step.log else power

    return run


def _mdm(step: MDM, domains: _Domains) -> Twin:
    means = _constant(step.means_)

    def run(C: Tensor, rows: Tensor) -> Tensor:
        d = torch.stack(
            [distance(mean.to(C), C, metric=step.metric) for mean in means], dim=1
        )
        return -((d.mean(dim=2) if d.ndim == 3 else d) ** 2)

    return run


def _domain_scaler(step: DomainStandardScaler, domains: _Domains) -> Twin:
    mean = _constant(np.vstack([step.mean_, step.pooled_mean_]))
    scale = _constant(np.vstack([step.scale_, step.pooled_scale_]))
    codes = domains.codes(step)

    def run(v: Tensor, rows: Tensor) -> Tensor:
        code = codes[rows]
        return (v - mean[code].to(v)) / scale[code].to(v)

    return run


def _scaler(step: Any, domains: _Domains) -> Twin | None:
    """Return the twin of scikit-learn's StandardScaler, or None."""
    if type(step).__name__ != "StandardScaler":
        return None
    shift = None if step.mean_ is None else _constant(step.mean_)
    scale = None if step.scale_ is None else _constant(step.scale_)

    def run(v: Tensor, rows: Tensor) -> Tensor:
        v = v if shift is None else v - shift.to(v)
        return v if scale is None else v / scale.to(v)

    return run


def _linear(step: Any, domains: _Domains) -> Twin | None:
    """Return the twin of a linear classifier, or None where it is not quite one."""
    if not hasattr(step, "decision_function"):
        return None
    weight = np.atleast_2d(step.coef_)
    bias = np.broadcast_to(np.ravel(step.intercept_), len(weight))
    # Support vector machines have coefficients too, but of pairs of classes.
    probe = np.random.default_rng(0).standard_normal((5, weight.shape[1]))
    expected = step.decision_function(probe).reshape(5, -1)
    found = probe @ weight.T + bias
    if found.shape != expected.shape or not np.allclose(found, expected):
        return None
    W, b = _constant(weight), _constant(bias)

    def run(v: Tensor, rows: Tensor) -> Tensor:
        z = v @ W.T.to(v) + b.to(v)
        return torch.cat([torch.zeros_like(z), z], 1) if z.shape[1] == 1 else z

    return run


_TWINS: dict[type, Any] = {
    Covariances: _covariances,
    SignalAlignment: _alignment,
    Recenter: _recenter,
    TangentSpace: _tangent,
    CSP: _csp,
    MDM: _mdm,
    DomainStandardScaler: _domain_scaler,
}
