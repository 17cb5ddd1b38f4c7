"""TokenClassifier: trials to classes by what a masked token model has learned."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from eegtensor._check import check_lengths, check_option, fail
from eegtensor.domains import Domain, check_unseen_policy, domain_names
from eegtensor.features._base import check_fitted, class_codes
from eegtensor.models.tokenclassifier import POOLS, TokenClassifierNetwork
from eegtensor.tokens._adapted import n_trials_of
from eegtensor.tokens._codevectors import mixes
from eegtensor.tokens._finetune import finetune
from eegtensor.tokens._probe import start_head
from eegtensor.tokens._savedclassifier import SavedTokens
from eegtensor.tokens._trials import learn_scales, tokenise
from eegtensor.tokens.pretrain import MaskedTokenModel
from eegtensor.tokens.tokenizer import EEGTokenizer
from eegtensor.tokens.tokens import Tokens
from eegtensor.training import Batch, History, as_device
from eegtensor.training.seeds import as_seed
from eegtensor.transfer._perdomain import TARGET

# Of its own tokenizer: what rebuilds best may have none, which hides band powers.
_STATES = 64
MODES = ("probe", "finetune", "scratch")


class TokenClassifier(SavedTokens):
    """Classify trials by their tokens, and adapt to people never seen.

    Trials are scaled by domain and coded; a transformer reads the tokens, its
    states are averaged, and the averages get mean 0 and variance 1 within each
    domain (subject, session), for which `adapt` needs no label.

    Parameters
    ----------
    tokenizer : EEGTokenizer | path | None
        Fitted, or where one was saved. None fits one of kind "band-rvq" with 64
        states on the trials of `fit`.
    model : MaskedTokenModel | path | None
        Fitted on tokens of that tokenizer. None pre-trains one on the trials of
        `fit`, without their labels.
    mode : "probe" | "finetune" | "scratch"
        Logistic regression on what the model gives; the same as the start of a
        training of the whole network; the whole network from random weights,
        for comparison.
    pool : "units" | "mean"
        Averages of each channel, or of all; the latter for any channels.
    C : float | None
        Of the logistic regression; None for what is best in a cross-validation over
        the labelled trials.
    epochs, batch_size : int
    lr, weight_decay, dropout : float
        Of the training.
    pretrain_epochs : int
        Of the model, where none is given.
    unseen : "pooled" | "adapt" | "raise"
        What `predict` does with domains it has no statistics for.
    sfreq : float | None
        Hertz, where trials are arrays; None for the tokenizer's.
    ch_names : tuple of str | None
        Where trials are arrays.
    device : str
    random_state : int | None
    verbose : bool

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    tokenizer_ : EEGTokenizer
    model_ : MaskedTokenModel
    network_ : TokenClassifierNetwork
    history_ : History
    last_target_ : Domain | None
        What `predict` without domains uses: the domain adapted last.

    References
    ----------
    Kumar et al., "Fine-tuning can distort pretrained features and underperform
    out-of-distribution", ICLR, 2022 (a probe as the start of fine-tuning).
    """

    def __init__(
        self,
        tokenizer: EEGTokenizer | str | os.PathLike[str] | None = None,
        model: MaskedTokenModel | str | os.PathLike[str] | None = None,
        *,
        mode: str = "probe",
        pool: str = "units",
        C: float | None = None,
        epochs: int = 30,
        batch_size: int = 32,
        lr: float = 3e-4,
        weight_decay: float = 0.01,
        dropout: float = 0.1,
        pretrain_epochs: int = 30,
        unseen: str = "pooled",
        sfreq: float | None = None,
        ch_names: tuple[str, ...] | None = None,
        device: str = "auto",
        random_state: int | None = 0,
        verbose: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.model = model
        self.mode = mode
        self.pool = pool
        self.C = C
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.pretrain_epochs = pretrain_epochs
        self.unseen = unseen
        self.sfreq = sfreq
        self.ch_names = ch_names
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
        labelled: ArrayLike | None = None,
    ) -> Self:
        """Train on trials, of which some may be without label.

        Parameters
        ----------
        X : array, shape (n_trials, n_channels, n_times), Trials, Epochs or Tokens
            Tokens were scaled by whoever made them.
        y : array-like, shape (n_trials,)
        subjects, sessions : array-like of str, shape (n_trials,) | None
        labelled : array of bool, shape (n_trials,) | None
            Whose labels are learned from, all by default. What trials of the
            others tell of their domain's scale, mean and variance, and what a
            model is pre-trained on, takes no label.

        Raises
        ------
        EEGTensorError
            If trials cannot be read or labels are of one class.
        """
        check_option("mode", self.mode, MODES)
        check_option("pool", self.pool, POOLS)
        check_unseen_policy(self.unseen)
        self._start(X)
        n_trials = n_trials_of(X)
        names = domain_names(n_trials, subjects, sessions)
        known = np.ones(n_trials, dtype=bool)
        if labelled is not None:
            check_lengths(n_trials, labelled=labelled)
            known = np.asarray(labelled, dtype=bool)
        check_lengths(n_trials, y=y)
        self.classes_, labels = class_codes(
            np.asarray(y)[known], int(known.sum()), type(self).__name__
        )
        seed = as_seed(self.random_state)
        tokens = self._learn_tokens(X, names)
        if self.model is None:
            self.model_ = self._pretrained(tokens, seed)
        x = self.model_.windows(tokens)
        self._n_units = x["ids"].shape[2]
        table = sorted(set(names))
        fresh = self.model_.network(random_state=seed, dropout=self.dropout)
        if self.mode != "scratch":
            fresh.load_state_dict(self.model_.network_.state_dict())
        network = TokenClassifierNetwork(
            fresh,
            len(self.classes_),
            self._n_units,
            domains=table,
            pool=self.pool,
            random_state=seed,
        )
        self.network_ = network.to(as_device(self.device)).eval()
        domain = self.network_.norm.encode(names).cpu()
        self.network_.fit_statistics(x, domain)
        rows = torch.from_numpy(np.flatnonzero(known))
        own = Batch({k: v[rows] for k, v in x.items()}, domain=domain[rows])
        if self.mode != "scratch":
            start_head(self.network_, own, labels, C=self.C)
        self.history_ = History()
        if self.mode != "probe":
            self.history_ = finetune(
                self.network_,
                Batch(own.x, torch.from_numpy(labels), own.domain),
                Batch(x, domain=domain),
                epochs=self.epochs,
                batch_size=self.batch_size,
                lr=self.lr,
                weight_decay=self.weight_decay,
                seed=seed,
                verbose=self.verbose,
            )
        self.last_target_ = TARGET if TARGET in table else None
        return self

    def __sklearn_clone__(self) -> Self:
        # What was given as fitted stays so: scikit-learn's clones would not.
        return type(self)(**self.get_params(deep=False))

    def _start(self, X: Any) -> None:
        """Take over, or load, what was given as fitted."""
        tokenizer, model = self.tokenizer, self.model
        if isinstance(tokenizer, (str, os.PathLike)):
            tokenizer = EEGTokenizer.load(tokenizer)
        if isinstance(model, (str, os.PathLike)):
            model = MaskedTokenModel.load(model, device=self.device)
        if model is not None and tokenizer is None and not isinstance(X, Tokens):
            fail(
                "there is a model, but not the tokenizer it was fitted with",
                why="Codes of another tokenizer would mean nothing to it",
                fix="give tokenizer=, or tokens in place of trials",
            )
        if tokenizer is not None:
            check_fitted(tokenizer, "codec_")
        if model is not None:
            check_fitted(model, "network_")
        self.tokenizer_, self.model_ = tokenizer, model

    def _learn_tokens(self, X: Any, names: Sequence[Domain]) -> Tokens:
        if isinstance(X, Tokens):
            self.scales_ = None
            return X
        signals = self._signals(X)
        if self.tokenizer_ is None:
            seed = as_seed(self.random_state)
            self.tokenizer_ = EEGTokenizer(n_states=_STATES, random_state=seed)
            self.tokenizer_.fit(
                signals.X, sfreq=signals.sfreq, ch_names=signals.ch_names or None
            )
        self.scales_ = learn_scales(signals, names)
        return tokenise(self.tokenizer_, signals, names, self.scales_)

    def _pretrained(self, tokens: Tokens, seed: int) -> MaskedTokenModel:
        spatial = self.tokenizer_ is not None and mixes(self.tokenizer_)
        made = MaskedTokenModel(
            epochs=self.pretrain_epochs if self.mode != "scratch" else 1,
            units="components" if spatial else "channels",
            device=self.device,
            random_state=seed,
            verbose=self.verbose,
        )
        return made.fit(tokens, tokenizer=self.tokenizer_)
