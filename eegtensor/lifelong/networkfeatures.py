"""Features of a frozen network, for heads that merge and forget exactly."""

from __future__ import annotations

from typing import Any, Self

from numpy.typing import ArrayLike, NDArray
from sklearn.frozen import FrozenEstimator

from eegtensor._check import fail
from eegtensor.features._base import DomainTransformer
from eegtensor.training import Batch, features_of
from eegtensor.transfer._network import NetworkClassifier
from eegtensor.transfer._perdomain import _names_or_last
from eegtensor.transfer._retarget import encode


class NetworkFeatures(DomainTransformer):
    """What enters the head of a trained network, in evaluation mode.

    The network learns nothing here: an `AnalyticHead` behind it is exact for trials of
    people that the network was not trained on. `adapt` sets their statistics.

    Parameters
    ----------
    estimator : NetworkClassifier
        Fitted; inside `sklearn.frozen.FrozenEstimator` where it is to be cloned.

    Attributes
    ----------
    estimator_ : NetworkClassifier
    """

    def __init__(self, estimator: Any = None) -> None:
        self.estimator = estimator

    def fit(self, X: NDArray, y: ArrayLike | None = None, **domains: Any) -> Self:
        """Take the network; nothing is learned."""
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
        self.estimator_: Any = given
        return self

    def transform(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return features, shape (n_trials, n_features), float64.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        subjects, sessions : array-like of str, shape (n_trials,) | None
            Domains without statistics are normalised by the pooled one.
        """
        if not hasattr(self, "estimator_"):
            self.fit(X)
        net = self.estimator_
        X = net._check_fitted_to(X)
        names = _names_or_last(len(X), subjects, sessions, net.last_target_)
        codes = encode(net.network_, names).cpu()
        found: NDArray = (
            features_of(net.network_, Batch(net._inputs(X), domain=codes))
            .double()
            .cpu()
            .numpy()
        )
        return found
