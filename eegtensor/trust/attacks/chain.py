"""Estimators with a gradient: pipelines step by step, and networks."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import fail
from eegtensor.training.batch import Batch
from eegtensor.training.device import device_of
from eegtensor.training.network import Network
from eegtensor.training.perturbations.places import frozen
from eegtensor.transfer import NetworkClassifier, SignalAlignment
from eegtensor.transfer._perdomain import _names_or_last
from eegtensor.transfer._retarget import encode
from eegtensor.trust.attacks.asking import ask, names_at, scores
from eegtensor.trust.attacks.blackbox import Differences
from eegtensor.trust.attacks.twins import Twin, twin_of
from eegtensor.trust.attacks.views import EstimatorView


class ChainView(EstimatorView):
    """An estimator, or the steps of a pipeline, one after the other in torch.

    Alignment of signals, covariances, recentring, tangent vectors, CSP, scalers,
    MDM, linear classifiers and networks are done in torch. From the first other
    step on, if it is behind the covariances or another reduction, the gradient is
    found by differences of the scores.
    """

    def __init__(
        self, estimator: Any, n_trials: int, subjects: Any, sessions: Any
    ) -> None:
        super().__init__(estimator)
        self.network: Network | None = None
        self.rest: list[Any] = []
        self.twins: list[Twin] = []
        signals = True
        steps = list(_flat(estimator))
        for k, step in enumerate(steps):
            if isinstance(step, NetworkClassifier) and signals:
                self._use(step, n_trials, subjects, sessions)
                break
            twin = twin_of(step, n_trials, subjects, sessions)
            if twin is None and signals:
                fail(
                    f"{type(step).__name__} has no gradient with respect to signals",
                    fix="use Square, which needs scores alone, or carry over what "
                    "fools another decoder (transfer_report)",
                )
            if twin is None:
                self.rest = steps[k:]
                break
            self.twins.append(twin)
            signals = signals and isinstance(step, SignalAlignment)
        else:
            # The last one gives the scores.
            self.last = self.twins.pop()

    def _use(
        self, step: NetworkClassifier, n_trials: int, subjects: Any, sessions: Any
    ) -> None:
        names = _names_or_last(n_trials, subjects, sessions, step.last_target_)
        module = copy.deepcopy(step.network_)
        front: Any = getattr(module, "front", None)
        if getattr(front, "path", None) == "lag":
            # The same numbers, and a third of the time where trials change.
            front.path = "conv"
            if not self.twins:
                self.dtype = front.spatial.weight.dtype
        self.network = Network(module, keeps_features=True)
        self.codes = encode(module, names).cpu()
        self.device = device_of(module)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Inside, a network uses evaluation statistics and no dropout."""
        if self.network is None:
            yield
        else:
            with frozen(self.network.model):
                yield

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what enters the last step (of a network, its head), and scores."""
        for twin in self.twins:
            x = twin(x, self.rows)
        if self.network is not None:
            front = getattr(self.network.model, "front", None)
            if front is not None and hasattr(front, "spatial"):
                x = x.to(front.spatial.weight.dtype)
            domain = self.codes[self.rows].to(x.device)
            z = self.network(Batch(x, domain=domain))
            assert self.network.features is not None
            return self.network.features, z
        if self.rest:
            found = Differences.apply(x, self.rows.numpy(), self._score)
        else:
            found = self.last(x, self.rows)
        return x.flatten(1), found

    def _score(self, values: NDArray, rows: NDArray) -> NDArray:
        """Return the scores that the steps without a twin give."""
        names = names_at(self.names, rows)
        for step in self.rest[:-1]:
            values = ask(step, "transform", values, names)
        return scores(self.rest[-1], values, names)


def _flat(estimator: Any) -> Iterator[Any]:
    """Return the steps of a pipeline, of pipelines in it too."""
    if not hasattr(estimator, "steps"):
        yield estimator
        return
    for _, step in estimator.steps:
        if step is not None and step != "passthrough":
            yield from _flat(step)
