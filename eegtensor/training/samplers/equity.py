"""Weights that grow with how rare a trial's kind is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.cluster.vq import kmeans2, whiten
from torch import Tensor

from eegtensor._check import RandomState, check_count, check_number, fail
from eegtensor.training.network import features_of
from eegtensor.training.refit import refit_statistics
from eegtensor.training.samplers.seeded import as_codes
from eegtensor.training.samplers.shuffle import ShuffleSampler
from eegtensor.training.statistics import StatisticsGuard

if TYPE_CHECKING:
    from eegtensor.training.registry import Setup


def equity_weights(
    clusters: ArrayLike, *, eta: float = 1.0, gamma: float = 5.0
) -> NDArray[np.float64]:
    """Return (eta + (1 - p)^gamma) / (eta + 1), p the share of a trial's cluster.

    Parameters
    ----------
    clusters : array-like, shape (n_trials,)
        Kinds of trials: people, montages, clusters of features.
    eta : float
        The larger, the more alike the weights.
    gamma : float

    Returns
    -------
    weights : ndarray, shape (n_trials,)

    References
    ----------
    S. Shrivastava et al., "DatasetEquity: are all samples created equal? In the quest
    for equity within datasets", ICCV workshops 2023.
    """
    check_number("eta", eta, least=0.0)
    check_number("gamma", gamma, least=0.0)
    codes = as_codes("clusters", clusters)
    share = np.bincount(codes)[codes] / len(codes)
    weights: NDArray[np.float64] = (eta + (1.0 - share) ** gamma) / (eta + 1.0)
    return weights


class EquitySampler(ShuffleSampler):
    """Trials in random order, those of rare kinds with larger weights.

    Parameters
    ----------
    clusters : array-like, shape (n_trials,)
        See `equity_weights`. By name, ``"equity(clusters=8)"`` clusters what enters
        the network's head at the start into so many, ``"equity"`` takes the domains.
    eta, gamma : float
    batch_size : int
    random_state : int | numpy.random.Generator | torch.Generator | None
    """

    def __init__(
        self,
        clusters: Any,
        *,
        eta: float = 1.0,
        gamma: float = 5.0,
        batch_size: int = 50,
        random_state: RandomState | torch.Generator = 0,
    ) -> None:
        weights = equity_weights(clusters, eta=eta, gamma=gamma)
        super().__init__(len(weights), batch_size=batch_size, random_state=random_state)
        self._weights = torch.from_numpy(weights).float()

    @classmethod
    def for_run(cls, setup: Setup, **options: Any) -> EquitySampler:
        """Return the sampler of a run's trials."""
        clusters = options.pop("clusters", None)
        if isinstance(clusters, int):
            clusters = _clusters_of(setup, check_count("clusters", clusters, least=2))
        elif clusters is None:
            clusters = setup.data.domain
            if clusters is None:
                fail("There are no domains to weigh", fix="give clusters=8, say")
        found = {"batch_size": setup.batch_size, "random_state": setup.seed}
        return cls(clusters, **(found | options))

    def weights(self, epoch: int) -> Tensor:  # type: ignore[override]
        """Return the weight of every trial, shape (n_trials,)."""
        return self._weights


def _clusters_of(setup: Setup, n_clusters: int) -> NDArray[np.int64]:
    """Return clusters of what enters the head of the untrained network."""
    with StatisticsGuard(setup.model, "transient"):
        refit_statistics(setup.model, setup.data)
        h = features_of(setup.model, setup.data).double().cpu().numpy()
    h = h[:, h.std(axis=0) > 0]
    k = min(n_clusters, len(h))
    rng = np.random.default_rng(setup.seed)
    codes: NDArray[np.int64] = kmeans2(whiten(h), k, minit="++", rng=rng)[1]
    return codes
