"""Network classifiers that say what they look at."""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike, NDArray

from eegtensor.domains import encode_domains
from eegtensor.models.patterns import ClassPatterns, class_patterns
from eegtensor.training import device_of
from eegtensor.transfer._network import NetworkClassifier
from eegtensor.transfer._perdomain import _names_or_last
from eegtensor.transfer._retarget import encode


class PatternedNetwork(NetworkClassifier):
    """Base of classifiers whose network has a linear front, as TSMNet's."""

    def class_patterns(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> ClassPatterns:
        """Return how sensor covariance changes as the decision for a class rises.

        Give each matrix and the covariance to `eegtensor.models.sources` for
        spatial filters and topographies.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
            Trials to measure on, such as the sources' or some of them; several
            of each domain. Labels are not needed.
        subjects, sessions : array-like of str, shape (n_trials,) | None

        Returns
        -------
        ClassPatterns
            ``matrices`` and ``covariance`` as arrays. For two classes the one
            matrix is of ``classes_[1]`` over ``classes_[0]``; for more, each
            class in the order of `classes_` is over the others.

        Raises
        ------
        EEGTensorError
            If the estimator is not fitted, X does not fit it, or the decision
            is the same for all trials.
        """
        X = self._check_fitted_to(X)
        names = _names_or_last(len(X), subjects, sessions, self.last_target_)
        network = self.network_
        # A network without statistics by domain still hears domains that differ.
        codes = (
            torch.from_numpy(encode_domains(names)[0])
            if network.ignores_domains
            else encode(network, names)
        )
        device = device_of(network)
        x = self._inputs(X).to(device)
        found = class_patterns(network, x, codes.to(device))
        return ClassPatterns(*(part.cpu().numpy() for part in found))
