"""Networks as scikit-learn classifiers that adapt: state here, work elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from torch import Tensor, nn

from eegtensor._check import check_signals, fail
from eegtensor.domains import (
    UNSEEN,
    Domain,
    check_unseen_policy,
    domain_names,
    encode_domains,
    raise_unseen,
)
from eegtensor.features._base import DomainEstimator, check_fitted
from eegtensor.training import (
    Batch,
    BestWeights,
    Callback,
    EarlyStopping,
    MomentumSchedule,
    Progress,
    Setup,
    as_device,
    device_of,
    forward_all,
    make_plugs,
    train,
)
from eegtensor.training.seeds import as_seed
from eegtensor.transfer._calibration import CalibratedNetwork
from eegtensor.transfer._perdomain import (
    TARGET,
    _names_or_last,
    _refuse_single,
    _target_names,
)
from eegtensor.transfer._retarget import (
    check_adaptation,
    check_label_shift,
    encode,
    retarget,
)
from eegtensor.transfer._saving import SavedNetwork
from eegtensor.transfer._trialcache import described, remembered
from eegtensor.transfer._unlabelled import (
    as_tuple,
    known_classes,
    learns_unlabelled,
    of_known,
)
from eegtensor.transfer._validation import held_out, refitted_loss


def _can_adapt(self: NetworkClassifier) -> bool:
    return self.can_adapt


class NetworkClassifier(
    ClassifierMixin, CalibratedNetwork, SavedNetwork, DomainEstimator
):
    """Base of classifiers that train an SPD network with statistics per domain.

    A subclass gives `_build`. Its parameters are those that the methods here read.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    network_ : torch.nn.Module
        In evaluation mode, with statistics of the sources and of all domains
        adapted to; no trial is kept.
    history_ : History
        Losses of every epoch.
    prior_ : ndarray, shape (n_classes,)
        Share of each class in the sources.
    adaptation_ : dict of Domain to str
        What `adapt` and `partial_adapt` did for each domain.
    last_target_ : Domain | None
        What `predict` without domains uses: the domain adapted last.
    directions_ : dict | None
        What `calibrate` moves the weights along.
    coefficients_ : ndarray, shape (n_directions,) | None
    """

    norm: str
    epochs: int
    batch_size: int
    domains_per_batch: int
    lr: float
    weight_decay: float
    validation: str | None
    validation_fraction: float
    patience: int | None
    objective: str | tuple[str, ...]
    perturbation: str | tuple[str, ...] | None
    grad_transform: str | None
    averager: str | None
    sampler: str
    optimizer: str
    recipe: str | None
    adaptation: str
    prior: str
    prior_trials: float
    unseen: str
    random_state: int | None
    verbose: bool

    def _inputs(self, X: NDArray, order: NDArray | None = None) -> Tensor:
        """Return what `network_` takes of trials, on the CPU.

        What a front computes of a trial before anything is learned is computed
        once and remembered between fits.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times)
        order : ndarray of int | None
            Trials wanted; all by default.
        """
        order = np.arange(len(X)) if order is None else order
        front, device = self.network_.front, device_of(self.network_)
        if getattr(front, "path", "lag") == "conv":
            return torch.from_numpy(X[order]).to(front.spatial.weight.dtype)

        def compute(part: NDArray) -> Tensor:
            with torch.no_grad():
                rows: Tensor = front.statistics(torch.from_numpy(part).to(device))
                return rows.cpu()

        return remembered(described(front), X, order, compute)

    def _callbacks(self) -> list[Callback]:
        """Return what is done beside training: the published momenta of the norm."""
        if self.norm == "batch":
            # Those of statistics of all domains together.
            return [MomentumSchedule(batch_size=500, domain_batch_size=50, tau0=0.35)]
        share = self.batch_size / self.domains_per_batch
        return [MomentumSchedule(batch_size=self.batch_size, domain_batch_size=share)]

    @property
    def can_adapt(self) -> bool:
        """Whether there are statistics of each domain."""
        return self.norm == "domain"

    @property
    def learns_unlabelled(self) -> bool:
        """Whether a training method that is named learns from unlabelled trials."""
        named = [*as_tuple(self.objective), *as_tuple(self.recipe)]
        return any(learns_unlabelled(method) for method in named)

    def fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Train the network, then fit the statistics of every source domain.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times), volts
        y : array-like, shape (n_trials,)
            None or NaN where the class is not known: such trials have no loss of
            their own, but objectives such as "vat" learn from them, and their
            domains, people to come among them, get statistics.
        subjects, sessions : array-like of str, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If samples are not finite, labels are missing or of one class, or
            parameters do not fit the data.
        """
        check_unseen_policy(self.unseen)
        check_adaptation(self.adaptation, self.prior, self.prior_trials)
        device = as_device(self.device)
        X = check_signals(X)
        classes, labels = known_classes(y, len(X), type(self).__name__)
        codes, names = encode_domains(domain_names(len(X), subjects, sessions))
        table, codes, order = _canonical_order(X, names, codes, labels)
        codes, labels = codes[order], labels[order]
        seed = as_seed(self.random_state)
        generator = torch.Generator().manual_seed(seed)
        n_chans, n_times = X.shape[1:]
        # Torch's layers draw weights of their own before ours replace them.
        with torch.random.fork_rng([]):
            network = self._build(n_chans, len(classes), n_times, table, generator)
        # Before the training that would be for nothing.
        check_label_shift(network, self.adaptation)
        recorder = self._recorder()
        self.network_ = network.to(device).eval()
        self.classes_ = classes
        self._size = (n_chans, n_times)
        data = Batch(
            self._inputs(X, order).to(device),
            torch.from_numpy(labels).to(device),
            torch.from_numpy(codes).to(device),
        )
        split = self.validation, codes, table, labels, self.validation_fraction, seed
        kept = of_known(held_out, *split)
        self._train(data, kept, seed, [] if recorder is None else [recorder])
        self._keep_directions(recorder, self.network_)
        fit_statistics(self.network_, data)
        counts = np.bincount(labels[labels >= 0], minlength=len(classes))
        self.prior_ = counts / counts.sum()
        self.adaptation_ = {}
        # Labelled target trials come with the sources: see Pipeline.
        self.last_target_ = TARGET if TARGET in table else None
        return self

    def _train(
        self,
        data: Batch,
        kept: NDArray[np.bool_],
        seed: int,
        recorders: Sequence[Callback] = (),
    ) -> None:
        """Train on the trials that are not kept back, and go back to the best epoch."""
        part = {
            side: data.pick(torch.from_numpy(np.flatnonzero(mask)).to(data.device))
            for side, mask in (("train", ~kept), ("valid", kept))
        }
        callbacks = [*self._callbacks(), *recorders]
        validation: Any = None
        if kept.any():
            validation = part["valid"]
            if self.validation == "domains":
                validation = refitted_loss(part["valid"])
            # With an averager the network ends with the average, not the best epoch.
            if self.averager is None:
                callbacks.append(
                    BestWeights()
                    if self.patience is None
                    else EarlyStopping(patience=self.patience)
                )
        if self.patience is not None and self.averager is not None:
            fail(
                f"patience={self.patience} and averager={self.averager!r}",
                why="The network ends with the average of the weights of all epochs",
                fix="leave one of them out",
            )
        if self.patience is not None and not kept.any():
            fail(
                f"patience={self.patience} has nothing to watch without validation",
                fix="set validation='trials' or 'domains', or patience=None",
            )
        if self.verbose:
            callbacks.append(Progress(type(self).__name__))
        plugs = self._plugs(part["train"], part["valid"] if kept.any() else None, seed)
        self.history_ = train(
            self.network_,
            part["train"],
            **plugs,
            epochs=self.epochs,
            validation=validation,
            callbacks=callbacks,
            random_state=seed,
        )

    def _plugs(self, data: Batch, valid: Batch | None, seed: int) -> dict[str, Any]:
        """Return the parts of the training loop that parameters name."""
        setup = Setup(
            self.network_,
            replace(data, index=None),
            n_classes=len(self.classes_),
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=seed,
            domains_per_batch=self.domains_per_batch,
            lr=self.lr,
            weight_decay=self.weight_decay,
            validation=valid,
        )
        return make_plugs(
            setup,
            objective=self.objective,
            perturbation=self.perturbation,
            grad_transform=self.grad_transform,
            averager=self.averager,
            sampler=self.sampler,
            optimizer=self.optimizer,
            recipe=self.recipe,
            raw_trials=getattr(self.network_.front, "path", "lag") == "conv",
        )

    @available_if(_can_adapt)
    def adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Set the statistics of the domains in an unlabelled batch.

        How is said by the parameter `adaptation`. No source trial is needed.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times)
            Without subjects and sessions the batch is one domain, "target".
        subjects, sessions : array-like of str, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If a domain has a single trial.
        """
        if self.adaptation == "online":
            return self.partial_adapt(X, subjects=subjects, sessions=sessions)
        X = self._check_fitted_to(X)
        names = _target_names(len(X), subjects, sessions)
        network, done = self._retargeted(X, names, "adapt")
        self.network_ = network
        self.adaptation_ = {**self.adaptation_, **done}
        self.last_target_ = names[-1]
        return self

    @available_if(_can_adapt)
    def partial_adapt(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Move the statistics trial by trial, in the order given.

        A domain met for the first time starts at the sources' common
        statistics, which count as `prior_trials` trials.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_channels, n_times)
            One trial or more; without domains they are of one, "target".
        subjects, sessions : array-like of str, shape (n_trials,) | None
        """
        X = self._check_fitted_to(X)
        names = _target_names(len(X), subjects, sessions)
        network = copy.deepcopy(self.network_)
        x = self._inputs(X)
        done = retarget(network, x, names, "online", prior_trials=self.prior_trials)
        self.network_ = network
        self.adaptation_ = {**self.adaptation_, **done}
        self.last_target_ = names[-1]
        return self

    def _retargeted(
        self, X: NDArray, names: list[Domain], action: str
    ) -> tuple[nn.Module, dict[Domain, str]]:
        """Return an adapted copy of the network, and what was done."""
        codes, table = encode_domains(names)
        _refuse_single(table, np.bincount(codes), action)
        # A copy: an interrupt leaves all as it was, and shallow copies of this
        # estimator stay independent.
        network = copy.deepcopy(self.network_)
        method = "refit" if self.adaptation == "online" else self.adaptation
        prior = tuple(self.prior_) if self.prior == "source" else None
        done = retarget(network, self._inputs(X), names, method, prior=prior)
        return network, done

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the predicted classes, shape (n_trials,)."""
        logits = self._logits(X, subjects, sessions)
        return self.classes_[logits.argmax(dim=1).numpy()]

    def predict_proba(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return class probabilities, shape (n_trials, n_classes)."""
        p: NDArray = self._logits(X, subjects, sessions).softmax(dim=1).numpy()
        return p

    def decision_function(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return logits; of two classes the second's minus the first's, (n_trials,)."""
        z: NDArray = self._logits(X, subjects, sessions).numpy()
        # scikit-learn wants one number for two classes, positive for the second.
        return z[:, 1] - z[:, 0] if z.shape[1] == 2 else z

    def _logits(
        self, X: NDArray, subjects: ArrayLike | None, sessions: ArrayLike | None
    ) -> Tensor:
        X = self._check_fitted_to(X)
        names = _names_or_last(len(X), subjects, sessions, self.last_target_)
        network, policy = self.network_, self.unseen
        # Without names, or statistics by name, no domain is to adapt to or to refuse.
        if (subjects is None and sessions is None) or not self.can_adapt:
            policy = "pooled"
        codes = encode(network, names)
        new = (codes == UNSEEN).cpu().numpy()
        if new.any() and policy != "pooled":
            unknown = [name for name, is_new in zip(names, new, strict=True) if is_new]
            if policy == "raise":
                raise_unseen(unknown, network.norm.names)
            # Of this batch and for it alone: nothing is kept.
            network, _ = self._retargeted(X[new], unknown, "unseen='adapt'")
            codes = encode(network, names)
        # On the CPU: trials go to the device batch by batch.
        data = Batch(self._inputs(X), domain=codes.cpu())
        return forward_all(network, data).double().cpu()

    def _check_fitted_to(self, X: Any) -> NDArray:
        check_fitted(self, "network_")
        X = check_signals(X)
        if X.shape[1:] != self._size:
            (n_chans, n_times), (c, t) = X.shape[1:], self._size
            fail(
                f"X has {n_chans} channels x {n_times} samples, fit saw {c} x {t}",
                fix="use the same channels, rate and window as in fit",
            )
        return X


def _canonical_order(
    X: NDArray, names: Sequence[Domain], codes: NDArray, labels: NDArray
) -> tuple[list[Domain], NDArray, NDArray]:
    """Return domains by name, trials' codes among them, and an order of trials.

    The order in which trials come means nothing. Within a domain they are
    sorted by where along their samples the energy lies, a number that does not
    depend on the unit.
    """
    table = sorted(names)
    place = {name: k for k, name in enumerate(table)}
    codes = np.asarray([place[name] for name in names])[codes]
    ramp = np.linspace(0.0, 1.0, X[0].size, dtype=X.dtype).reshape(X.shape[1:])
    energy = np.einsum("nct,nct->n", X, X, dtype=np.float64)
    centre = np.einsum("nct,nct,ct->n", X, X, ramp, dtype=np.float64)
    centre /= np.where(energy > 0, energy, 1.0)
    return table, codes, np.lexsort((labels, centre, codes))


def fit_statistics(network: Any, data: Batch) -> None:
    """Fit the statistics of all domains of some trials, in evaluation mode."""
    network.eval()
    with torch.no_grad():
        network.fit_statistics(data.x, data.domain)
