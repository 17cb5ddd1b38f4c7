"""What a token classifier does once it is fitted: adapt and predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from torch import Tensor

from eegtensor._check import fail
from eegtensor.domains import UNSEEN, Domain, raise_unseen
from eegtensor.features._base import DomainEstimator, check_fitted
from eegtensor.models.tokenclassifier import TokenClassifierNetwork
from eegtensor.tokens._signals import Signals, read_signals
from eegtensor.tokens._trials import Scales, learn_scales, tokenise
from eegtensor.tokens.tokens import Tokens
from eegtensor.training import Batch, forward_all
from eegtensor.transfer._perdomain import _names_or_last, _refuse_single, _target_names


class AdaptedTokens(ClassifierMixin, DomainEstimator):
    """Base of classifiers of tokens with statistics per domain.

    Its parameters and what is fitted are those that the methods here read.
    """

    pool: str
    unseen: str
    sfreq: float | None
    ch_names: tuple[str, ...] | None
    classes_: NDArray
    # Estimators, or None, whose parts mypy cannot know.
    tokenizer_: Any
    model_: Any
    network_: TokenClassifierNetwork
    scales_: Scales | None
    last_target_: Domain | None
    _n_units: int

    def adapt(
        self,
        X: Any,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Set scale, mean and variance of the domains in an unlabelled batch.

        Parameters
        ----------
        X : array, shape (n_trials, n_channels, n_times), Trials, Epochs or Tokens
            Without subjects and sessions the batch is one domain, "target".
        subjects, sessions : array-like of str, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If a domain has a single trial.
        """
        check_fitted(self, "network_")
        names = _target_names(n_trials_of(X), subjects, sessions)
        network, self.scales_ = self._adapted(X, names, "adapt")
        self.network_ = network
        self.last_target_ = names[-1]
        return self

    def _adapted(
        self, X: Any, names: list[Domain], action: str
    ) -> tuple[TokenClassifierNetwork, Scales | None]:
        """Return a network and scales that know the domains of a batch."""
        table = tuple(dict.fromkeys(names))
        counts = np.array([names.count(name) for name in table])
        _refuse_single(table, counts, action)
        scales = self.scales_
        if scales is not None and not isinstance(X, Tokens):
            found = learn_scales(self._signals(X), names)
            scales = Scales({**scales.by_domain, **found.by_domain}, scales.pooled)
        x = self._windows(X, names, scales)
        # Weights are shared, statistics are not: this estimator's copies stay alike.
        network = self.network_.with_own_norm()
        network.norm.add_domains(table, source=False)
        network.fit_statistics(x, network.norm.encode(names).cpu())
        return network, scales

    def predict(
        self,
        X: Any,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return the predicted classes, shape (n_trials,)."""
        p = self.predict_proba(X, subjects=subjects, sessions=sessions)
        return self.classes_[p.argmax(axis=1)]

    def predict_proba(
        self,
        X: Any,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return class probabilities, shape (n_trials, n_classes)."""
        check_fitted(self, "network_")
        n_trials = n_trials_of(X)
        names = _names_or_last(n_trials, subjects, sessions, self.last_target_)
        network, scales = self.network_, self.scales_
        new = (network.norm.encode(names) == UNSEEN).cpu().numpy()
        nameless = subjects is None and sessions is None
        if new.any() and not nameless and self.unseen != "pooled":
            here = [name for name, is_new in zip(names, new, strict=True) if is_new]
            if self.unseen == "raise":
                raise_unseen(here, network.norm.names)
            # Of this batch and for it alone: nothing is kept.
            network, scales = self._adapted(_rows(X, new), here, "unseen='adapt'")
        x = self._windows(X, names, scales)
        data = Batch(x, domain=network.norm.encode(names).cpu())
        logits = forward_all(network, data, batch_size=64).double().cpu()
        p: NDArray = logits.softmax(dim=1).numpy()
        return p

    def _signals(self, X: Any) -> Signals:
        rate = self.sfreq
        if rate is None and self.tokenizer_ is not None:
            rate = self.tokenizer_.sfreq_
        signals = read_signals(X, rate, self.ch_names)
        if signals.single:
            fail("X has two axes", fix="give (n_trials, n_channels, n_times)")
        return signals

    def _windows(
        self, X: Any, names: Sequence[Domain], scales: Scales | None
    ) -> dict[str, Tensor]:
        tokens = X
        if not isinstance(X, Tokens):
            if scales is None:
                fail("fit saw tokens, X is signals", fix="give tokens")
            tokens = tokenise(self.tokenizer_, self._signals(X), names, scales)
        x = self.model_.windows(tokens)
        if x["ids"].shape[2] != self._n_units and self.pool == "units":
            fail(
                f"X has {x['ids'].shape[2]} channels, fit saw {self._n_units}",
                fix="give the same channels, or pool='mean' for any",
            )
        return x


def n_trials_of(X: Any) -> int:
    """Return how many trials there are.

    Raises
    ------
    EEGTensorError
        If tokens are of one recording, whose first axis is that of channels.
    """
    if isinstance(X, Tokens) and np.ndim(X.ids) == 3:
        fail(
            f"X holds tokens of one recording, of shape {np.shape(X.ids)}",
            fix="give those of trials, (n_trials, n_units, n_frames, n_slots)",
        )
    return len(X)


def _rows(X: Any, rows: NDArray) -> Any:
    if isinstance(X, Tokens):
        return replace(X, ids=np.asarray(X.ids)[rows], bits=None)
    return X[rows]
