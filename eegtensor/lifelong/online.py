"""A network that goes on learning during a session."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.frozen import FrozenEstimator

from eegtensor._check import check_lengths, fail
from eegtensor.domains import Domain, domain_names
from eegtensor.features._base import DomainEstimator
from eegtensor.lifelong.membership import class_places
from eegtensor.training import Batch, device_of, make_optimizer, train
from eegtensor.training.objectives import LogitAdjusted
from eegtensor.training.recipes.onlinestream import OnlineStream
from eegtensor.transfer._network import NetworkClassifier


class OnlineNetwork(ClassifierMixin, DomainEstimator):
    """A fitted network classifier that learns from labelled trials as they come.

    `partial_fit` trains once on each trial, beside remembered ones, with logits
    adjusted to how often classes came just now: a run of one command does not make
    the decoder answer it always. Domains that are new get statistics.

    The trials remembered are kept as the network takes them: personal data.

    Parameters
    ----------
    estimator : NetworkClassifier
        Fitted; it is copied. In pipelines and searches, which clone, inside
        `sklearn.frozen.FrozenEstimator`.
    tau : float
        0 is plain replay.
    batches : int
        Over how many batches classes are counted, replayed trials among them.
    lr : float
        Of SGD.
    batch_size, replay, buffer : int
        Trials of a step that come, trials replayed beside, and trials remembered.
    random_state : int

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    estimator_ : NetworkClassifier
    memory_ : Batch | None
        Trials remembered.
    n_seen_ : int

    References
    ----------
    Z. Huang et al., "Online continual learning via logit adjusted softmax", TMLR
    2024.
    """

    def __init__(
        self,
        estimator: Any = None,
        tau: float = 1.0,
        batches: int = 1,
        lr: float = 0.03,
        batch_size: int = 32,
        replay: int = 32,
        buffer: int = 200,
        random_state: int = 0,
    ) -> None:
        self.estimator = estimator
        self.tau = tau
        self.batches = batches
        self.lr = lr
        self.batch_size = batch_size
        self.replay = replay
        self.buffer = buffer
        self.random_state = random_state

    def _start(self) -> None:
        given = self.estimator
        given = given.estimator if isinstance(given, FrozenEstimator) else given
        if not isinstance(given, NetworkClassifier) or not hasattr(given, "network_"):
            fail(
                f"estimator is {type(given).__name__}, which is no fitted network",
                why="scikit-learn's clone, which pipelines and searches call, forgets "
                "fits",
                fix="fit a TSMNetClassifier or another network, and wrap it in "
                "sklearn.frozen.FrozenEstimator",
            )
        self.estimator_: Any = copy.deepcopy(given)
        self.classes_ = self.estimator_.classes_
        self.memory_: Batch | None = None
        self.n_seen_ = 0

    def fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Begin at the estimator given, and learn trials in their order."""
        self._start()
        return self.partial_fit(X, y, subjects=subjects, sessions=sessions)

    def partial_fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Learn further trials, in their order.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        y : array-like, shape (n_trials,)
            Of the classes that the network was trained on.
        subjects, sessions : array-like of str, shape (n_trials,) | None
        """
        if not hasattr(self, "estimator_"):
            self._start()
        X = self.estimator_._check_fitted_to(X)
        check_lengths(len(X), y=y)
        names = domain_names(len(X), subjects, sessions)
        x = self.estimator_._inputs(X)
        codes = self._codes(x, names)
        new = Batch(x, torch.from_numpy(class_places(self.estimator_, y)), codes)
        known = self.memory_
        n_known = 0 if known is None else len(known)
        data = new if known is None else _stacked(known, new)
        network = self.estimator_.network_
        recipe = OnlineStream(
            self.batch_size,
            self.replay,
            self.buffer,
            n_known=n_known,
            n_seen=self.n_seen_,
            random_state=self.random_state,
        )
        train(
            network,
            data.to(device_of(network)),
            objective=LogitAdjusted(self.tau, self.batches),
            optimizer=make_optimizer(
                network, "riemannian-sgd", lr=self.lr, weight_decay=0.0
            ),
            recipe=recipe,
            epochs=1,
            random_state=self.random_state,
        )
        kept = data.pick(torch.tensor(recipe.reservoir.kept, dtype=torch.int64))
        self.memory_ = Batch(kept.x, kept.y, kept.domain)
        self.n_seen_ = recipe.reservoir.n_seen
        self.estimator_.last_target_ = names[-1] if any(names[-1]) else None
        return self

    def _codes(self, x: torch.Tensor, names: list[Domain]) -> torch.Tensor:
        """Return codes of domains; those that are new get statistics of x."""
        network = self.estimator_.network_
        if network.norm is None or network.ignores_domains:
            return torch.zeros(len(names), dtype=torch.int64)
        fresh = [n for n in dict.fromkeys(names) if n not in network.norm.names]
        network.add_domains(fresh)
        codes: torch.Tensor = network.norm.encode(names)
        mine = np.isin(codes.cpu().numpy(), network.norm.encode(fresh).cpu().numpy())
        if mine.any():
            rows = torch.from_numpy(np.flatnonzero(mine))
            place = device_of(network)
            network.fit_statistics(x[rows].to(place), codes[rows].to(place))
        return codes.cpu()

    def predict(self, X: NDArray, **domains: Any) -> NDArray:
        """Return the predicted classes, shape (n_trials,)."""
        found: NDArray = self._fitted().predict(X, **domains)
        return found

    def predict_proba(self, X: NDArray, **domains: Any) -> NDArray:
        """Return class probabilities, shape (n_trials, n_classes)."""
        found: NDArray = self._fitted().predict_proba(X, **domains)
        return found

    def _fitted(self) -> Any:
        if not hasattr(self, "estimator_"):
            self._start()
        return self.estimator_


def _stacked(first: Batch, second: Batch) -> Batch:
    parts = [
        torch.cat([getattr(first, n), getattr(second, n)]) for n in ("x", "y", "domain")
    ]
    return Batch(*parts)
