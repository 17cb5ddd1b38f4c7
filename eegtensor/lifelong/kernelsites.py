"""Kernel regression by sites that agree."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import KFold

from eegtensor._check import check_option
from eegtensor.lifelong._ofsites import OfSites
from eegtensor.lifelong.decentralized import (
    Features,
    agree,
    complete,
    draw_features,
    ring,
)

WEIGHTS_OF_AGREEMENT = (0.5, 1.0, 2.0, 4.0, 8.0)


class DecentralizedKernelRidge(OfSites):
    """Kernel regression onto classes by sites that agree with their neighbours.

    Coefficients and random features travel, and so do the trials' features X: sites
    evaluate theirs at their neighbours' trials. Not private.

    Parameters
    ----------
    n_features : int
        Random features of each site, chosen by its own trials.
    bandwidth : float | None
        Of the Gaussian kernel. None: ``sqrt(n_inputs var(X))``.
    graph : "complete" | "ring"
    c : float | None
        Weight of agreement; None chooses among .5, 1, 2, 4 and 8 by five folds.
    ridge : float
    n_steps : int
    random_state : int

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    sites_ : dict of str to (Features, ndarray)
        Features and coefficients.
    c_ : float

    References
    ----------
    "Decentralized kernel ridge regression based on data-dependent random features",
    IEEE TNNLS 2024.
    """

    def __init__(
        self,
        n_features: int = 100,
        bandwidth: float | None = None,
        graph: str = "complete",
        c: float | None = 1.0,
        ridge: float = 1e-3,
        n_steps: int = 200,
        random_state: int = 0,
    ) -> None:
        self.n_features = n_features
        self.bandwidth = bandwidth
        self.graph = graph
        self.c = c
        self.ridge = ridge
        self.n_steps = n_steps
        self.random_state = random_state

    def fit(self, X: NDArray, y: ArrayLike, subjects: ArrayLike) -> Self:
        """Let the sites agree.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,)
        subjects : array-like of str, shape (n_trials,)
            Sites.
        """
        check_option("graph", self.graph, ("complete", "ring"))
        nodes, names = self._parted(X, y, subjects)
        every = np.concatenate([x for x, _ in nodes])
        width = self.bandwidth
        if width is None:
            width = float(np.sqrt(every.shape[1] * every.var())) or 1.0
        near = complete(len(nodes)) if self.graph == "complete" else ring(len(nodes))
        features = [
            draw_features(
                x,
                t,
                self.n_features,
                bandwidth=width,
                random_state=np.random.default_rng([self.random_state, j]),
            )
            for j, (x, t) in enumerate(nodes)
        ]
        self.c_ = self._choose(nodes, features, near) if self.c is None else self.c
        theta = self._agree(nodes, features, near, self.c_)
        self.sites_: dict[str, tuple[Features, NDArray]] = {
            name: (z, t) for name, z, t in zip(names, features, theta, strict=True)
        }
        return self

    def _agree(self, nodes: Any, features: Any, near: Any, c: float) -> list[NDArray]:
        ridge, n_steps = self.ridge, self.n_steps
        return agree(nodes, features, near, c=c, ridge=ridge, n_steps=n_steps)

    def _choose(self, nodes: Any, features: Any, near: Any) -> float:
        errors = dict.fromkeys(WEIGHTS_OF_AGREEMENT, 0.0)
        n_folds = min(5, *(len(x) for x, _ in nodes))
        folds = KFold(n_folds, shuffle=True, random_state=self.random_state)
        cuts = [list(folds.split(x)) for x, _ in nodes]
        for c in errors:
            for k in range(n_folds):
                kept = [
                    (x[cut[k][0]], t[cut[k][0]])
                    for (x, t), cut in zip(nodes, cuts, strict=True)
                ]
                theta = self._agree(kept, features, near, c)
                for (x, t), cut, z, w in zip(nodes, cuts, features, theta, strict=True):
                    out = cut[k][1]
                    errors[c] += float(((z(x[out]) @ w - t[out]) ** 2).sum())
        return min(errors, key=lambda c: errors[c])

    def _site_logits(self, X: NDArray, site: str | None) -> NDArray:
        chosen = list(self.sites_.values()) if site is None else [self.sites_[site]]
        return np.mean([z(X) @ w for z, w in chosen], axis=0)
