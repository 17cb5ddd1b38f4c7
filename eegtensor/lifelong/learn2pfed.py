"""Linear heads of sites, with participation learned."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from eegtensor._check import check_count
from eegtensor.lifelong._ofsites import OfSites, with_constant
from eegtensor.lifelong.participation import (
    Participation,
    learn_participation,
    start,
    unrolled_admm,
)


class Learn2pFed(OfSites):
    """Linear heads of sites, each parameter as common as the trials say.

    How far a parameter of a site is pulled to the common one is learned by the
    gradient through the iterations by which the sites agree.

    Parameters
    ----------
    n_steps : int
        Iterations between sites.
    n_epochs : int
        Steps of the learning of participation; 0 leaves it at `stiffness`.
    lr, stiffness, rho : float
        Rate, and where participation starts.
    validation_fraction : float
        Share of each site's trials that participation is judged by; the weights
        are found with all.
    random_state : int

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    sites_ : dict of str to ndarray, shape (n_features + 1, n_classes)
    common_ : ndarray, shape (n_features + 1, n_classes)
    participation_ : Participation

    References
    ----------
    K. Lv et al., "Learn what you need in personalized federated learning", arXiv
    2401.08327.
    """

    def __init__(
        self,
        n_steps: int = 10,
        n_epochs: int = 200,
        lr: float = 1e-2,
        stiffness: float = 1.0,
        rho: float = 1.0,
        validation_fraction: float = 0.2,
        random_state: int = 0,
    ) -> None:
        self.n_steps = n_steps
        self.n_epochs = n_epochs
        self.lr = lr
        self.stiffness = stiffness
        self.rho = rho
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: NDArray, y: ArrayLike, subjects: ArrayLike) -> Self:
        """Learn participation, then the weights of all sites.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,)
        subjects : array-like of str, shape (n_trials,)
            Sites.
        """
        parts, names = self._parted(X, y, subjects)
        pairs = [
            (torch.from_numpy(with_constant(x)), torch.from_numpy(t)) for x, t in parts
        ]
        rng = np.random.default_rng(self.random_state)
        train, valid = [], []
        for x, t in pairs:
            order = torch.from_numpy(rng.permutation(len(x)))
            n = max(1, round(self.validation_fraction * len(x)))
            valid.append((x[order[:n]], t[order[:n]]))
            train.append((x[order[n:]], t[order[n:]]))
        given = start(
            [len(x) for x, _ in pairs],
            pairs[0][0].shape[1],
            stiffness=self.stiffness,
            rho=self.rho,
        )
        if check_count("n_epochs", self.n_epochs, least=0):
            given = learn_participation(
                [x for x, _ in train],
                [t for _, t in train],
                valid,
                given=given,
                n_steps=self.n_steps,
                n_epochs=self.n_epochs,
                lr=self.lr,
            )
        self.participation_: Participation = given
        found = unrolled_admm(
            [x for x, _ in pairs], [t for _, t in pairs], given, self.n_steps
        )
        self.common_ = found.common.numpy()
        self.sites_ = dict(zip(names, found.own.numpy(), strict=True))
        return self

    def _site_logits(self, X: NDArray, site: str | None) -> NDArray:
        W = self.common_ if site is None else self.sites_[site]
        return with_constant(X) @ W
