"""A network classifier trained by people who keep their trials to themselves."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, clone

from eegtensor._check import check_signals, fail
from eegtensor.domains import domain_names, encode_domains
from eegtensor.features._base import DomainEstimator, class_codes
from eegtensor.lifelong.federated import Site, simulate_federation
from eegtensor.training import Batch, History, as_device, refit_statistics
from eegtensor.training.seeds import as_seed
from eegtensor.transfer import TSMNetClassifier
from eegtensor.transfer._network import NetworkClassifier


class FederatedClassifier(ClassifierMixin, DomainEstimator):
    """A network trained by FedAvg: every person is a site of their own.

    A simulation in one process of what `eegtensor.lifelong.flower` does between
    machines. Sites send weights, averaged on their manifolds. Statistics of domains
    are personal data and stay: the common network has none, so that a person never
    met must be adapted to (`adapt`), or is by the batch given (``unseen="adapt"``).

    Parameters
    ----------
    estimator : NetworkClassifier | None
        Unfitted, with ``norm="domain"``; its network, rate, batches and seed are
        taken. None is `TSMNetClassifier()`.
    rounds, local_epochs : int
    share : float
        Of the sites that train in a round.
    personal : tuple of str
        Beginnings of names of parameters that sites keep, such as ("head",).
    mu : float
        Pull towards the common weights (FedProx); 0 is FedAvg.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    estimator_ : NetworkClassifier
        With the common weights and no person's statistics.
    sites_ : dict of str to NetworkClassifier
        By subject, with that person's own statistics.
    history_ : list of dict

    References
    ----------
    B. McMahan et al., "Communication-efficient learning of deep networks from
    decentralized data", AISTATS 2017.
    """

    def __init__(
        self,
        estimator: Any = None,
        rounds: int = 50,
        local_epochs: int = 1,
        share: float = 1.0,
        personal: tuple[str, ...] = (),
        mu: float = 0.0,
    ) -> None:
        self.estimator = estimator
        self.rounds = rounds
        self.local_epochs = local_epochs
        self.share = share
        self.personal = personal
        self.mu = mu

    def fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Train the common network.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        y : array-like, shape (n_trials,)
        subjects : array-like of str, shape (n_trials,)
            The sites.
        sessions : array-like of str, shape (n_trials,) | None
        """
        given = TSMNetClassifier() if self.estimator is None else self.estimator
        base: Any = clone(given)
        if not isinstance(base, NetworkClassifier) or base.norm != "domain":
            fail(
                f"estimator is {base!r}",
                why="Sites keep their statistics, which must be of domains",
                fix="give a network classifier with norm='domain'",
            )
        X = check_signals(X)
        self.classes_, labels = class_codes(y, len(X), type(self).__name__)
        names = domain_names(len(X), subjects, sessions)
        seed, device = as_seed(base.random_state), as_device(base.device)
        n_chans, n_times = X.shape[1:]
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng([]):
            network = base._build(
                n_chans, len(self.classes_), n_times, (), generator
            ).to(device)
        base.network_ = network.eval()
        base.classes_, base._size = self.classes_, (n_chans, n_times)
        base.prior_ = np.full(len(self.classes_), 1.0 / len(self.classes_))
        base.history_, base.adaptation_ = History(), {}
        base.last_target_ = base.directions_ = base.coefficients_ = None
        who = np.asarray([name.subject for name in names])
        sites = []
        for person in np.unique(who):
            rows = np.flatnonzero(who == person)
            own = copy.deepcopy(network)
            codes, table = encode_domains([names[i] for i in rows])
            own.add_domains(table)
            data = Batch(
                base._inputs(X, rows),
                torch.from_numpy(labels[rows]),
                torch.from_numpy(codes),
            )
            sites.append(Site(str(person), own, data.to(device)))
        self.history_ = simulate_federation(
            network,
            sites,
            rounds=self.rounds,
            epochs=self.local_epochs,
            share=self.share,
            personal=self.personal,
            random_state=seed,
            mu=self.mu,
            batch_size=base.batch_size,
            lr=base.lr,
        )
        self.sites_: dict[str, Any] = {}
        for site in sites:
            refit_statistics(site.network, site.data)
            mine = copy.copy(base)
            mine.network_ = site.network.eval()
            self.sites_[site.name] = mine
        if base.unseen == "pooled":
            # There is nothing to pool: no site sends statistics.
            base.unseen = "adapt"
        self.estimator_ = base
        return self

    def adapt(self, X: NDArray, **domains: Any) -> Self:
        """Set the statistics of people never met; see `NetworkClassifier.adapt`."""
        self.estimator_.adapt(X, **domains)
        return self

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the predicted classes, shape (n_trials,)."""
        p = self.predict_proba(X, subjects=subjects, sessions=sessions)
        return self.classes_[p.argmax(axis=1)]

    def predict_proba(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return class probabilities: at a site by its own network."""
        X = check_signals(X)
        names = domain_names(len(X), subjects, sessions)
        who = np.asarray([name.subject for name in names])
        p = np.zeros((len(X), len(self.classes_)))
        for person in np.unique(who):
            rows = np.flatnonzero(who == person)
            decoder = self.sites_.get(str(person), self.estimator_)
            given = {} if subjects is None else {"subjects": who[rows]}
            if sessions is not None:
                given["sessions"] = np.asarray([names[i].session for i in rows])
            if not given and decoder.last_target_ is None:
                fail(
                    "The common network has no statistics, and no domain was given",
                    why="Statistics are personal data, which sites do not share",
                    fix="call adapt with unlabelled trials first, or give subjects",
                )
            p[rows] = decoder.predict_proba(X[rows], **given)
        return p
