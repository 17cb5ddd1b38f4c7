"""TSMNet as a scikit-learn classifier that adapts to people it has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from eegtensor._check import check_option
from eegtensor.domains import Domain
from eegtensor.models import TSMNet
from eegtensor.training import Callback
from eegtensor.transfer._patterns import PatternedNetwork

# Weight of a new batch where it is constant: the ablation "SPDDSBN" of the paper.
_CONSTANT = 0.1


class TSMNetClassifier(PatternedNetwork):
    """Tangent space mapping network with batch norm by domain (SPDDSMBN).

    A temporal and a spatial filter, covariance, BiMap, ReEig, a batch norm with
    statistics of each (subject, session), tangent vectors, a linear classifier.
    A person never seen needs unlabelled trials only: `adapt` sets the statistics.
    Defaults are those published.

    Parameters
    ----------
    n_temporal_filters, temporal_kernel, n_spatial_filters, subspace : int
        Sizes of the filters (samples for the kernel) and of the SPD matrices.
    norm : "domain" | "batch" | "none"
        Statistics of each domain, of all trials, or no norm (ablations).
    features : "spd" | "log-variance"
        The second is the network without SPD matrices (ablation).
    head : "linear" | "grassmann" | "simplex" | "orthogonal"
    metric : "affine-invariant" | "log-euclidean" | "log-cholesky"
    momentum : "schedule" | "constant"
        Of the statistics in training: falling from epoch to epoch, or 0.1.
    front : "lag" | "conv"
        Covariances from lagged covariances, computed once a trial and remembered
        between fits, or from filtered trials. The same numbers; lag is faster.
    epochs, batch_size, domains_per_batch : int
        Batches hold as many trials of each of so many domains, with the
        domains' proportions of classes.
    lr, weight_decay : float
        Of Riemannian Adam.
    validation : "trials" | "domains" | None
        On what the epoch is chosen whose weights are kept: a share of all
        source trials; whole source people, whose statistics are refitted
        without labels each time; nothing, which keeps the last epoch.
    validation_fraction : float
    patience : int | None
        Epochs without a better one after which training stops; None trains on.
    objective, perturbation, grad_transform, averager, sampler, optimizer, recipe : str
        Training methods by their names in `eegtensor.training.METHODS`, with
        options as in ``"f-sam(rho=0.1)"``. `objective` and `perturbation` may be
        tuples of them, objectives with weights as in ``"0.3 * vat"``. With an
        averager the network ends with its average and not with the best epoch.
    calibration : int | None
        In how many directions `calibrate` may move the weights, 20 to 40: those in
        which they moved most from epoch to epoch. None records none.
    adaptation : str
        What `adapt` does. "refit": mean and dispersion of the domain's trials.
        "online": the same trial by trial. For targets whose classes are not
        balanced: "spdim-bias" and "spdim-geodesic" (see `maximise_information`),
        "balanced" (see `balance_classes`).
    prior : "source" | "uniform"
        Shares of classes that "balanced" aims at.
    prior_trials : float
        For how many trials the sources' statistics count when `partial_adapt`
        meets a new domain.
    unseen : "pooled" | "adapt" | "raise"
        What `predict` does with a domain it has no statistics for: use the mean
        of the sources' statistics, adapt to the given batch, or raise.
    sfreq : float | None
        Not used; for the sake of other networks' signature.
    device : str
        "auto" is the GPU where there is one.
    spd_dtype : "float64" | "float32"
    random_state : int | None
        Of the initial weights, the batches and the validation.
    verbose : bool
        Whether to show a bar of epochs.

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    network_ : TSMNet
    history_ : History
    prior_ : ndarray, shape (n_classes,)
    adaptation_ : dict of Domain to str
    last_target_ : Domain | None
    directions_ : dict | None
        What `calibrate` moves the weights along.
    coefficients_ : ndarray, shape (n_directions,) | None
        What the last `calibrate` found.

    Notes
    -----
    A fitted classifier holds weights and statistics, no trial and no label.

    References
    ----------
    R. Kobler, J. Hirayama, Q. Zhao and M. Kawanabe, "SPD domain-specific batch
    normalization to crack interpretable unsupervised domain adaptation in EEG",
    NeurIPS 2022.
    """

    def __init__(
        self,
        n_temporal_filters: int = 4,
        temporal_kernel: int = 25,
        n_spatial_filters: int = 40,
        subspace: int = 20,
        norm: str = "domain",
        features: str = "spd",
        head: str = "linear",
        metric: str = "affine-invariant",
        momentum: str = "schedule",
        front: str = "lag",
        epochs: int = 50,
        batch_size: int = 50,
        domains_per_batch: int = 5,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        validation: str | None = "trials",
        validation_fraction: float = 0.2,
        patience: int | None = None,
        objective: str | tuple[str, ...] = "cross-entropy",
        perturbation: str | tuple[str, ...] | None = None,
        grad_transform: str | None = None,
        averager: str | None = None,
        sampler: str = "domain-balanced",
        optimizer: str = "riemannian-adam",
        recipe: str | None = None,
        calibration: int | None = None,
        adaptation: str = "refit",
        prior: str = "source",
        prior_trials: float = 5.0,
        unseen: str = "pooled",
        sfreq: float | None = None,
        device: str = "auto",
        spd_dtype: str = "float64",
        random_state: int | None = 0,
        verbose: bool = False,
    ) -> None:
        self.n_temporal_filters = n_temporal_filters
        self.temporal_kernel = temporal_kernel
        self.n_spatial_filters = n_spatial_filters
        self.subspace = subspace
        self.norm = norm
        self.features = features
        self.head = head
        self.metric = metric
        self.momentum = momentum
        self.front = front
        self.epochs = epochs
        self.batch_size = batch_size
        self.domains_per_batch = domains_per_batch
        self.lr = lr
        self.weight_decay = weight_decay
        self.validation = validation
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.objective = objective
        self.perturbation = perturbation
        self.grad_transform = grad_transform
        self.averager = averager
        self.sampler = sampler
        self.optimizer = optimizer
        self.recipe = recipe
        self.calibration = calibration
        self.adaptation = adaptation
        self.prior = prior
        self.prior_trials = prior_trials
        self.unseen = unseen
        self.sfreq = sfreq
        self.device = device
        self.spd_dtype = spd_dtype
        self.random_state = random_state
        self.verbose = verbose

    def _build(
        self,
        n_chans: int,
        n_outputs: int,
        n_times: int,
        domains: Sequence[Domain],
        generator: torch.Generator | None,
    ) -> TSMNet:
        check_option("momentum", self.momentum, ("schedule", "constant"))
        options: dict[str, Any] = {}
        if self.momentum == "constant":
            options = {"eta": _CONSTANT, "eta_test": _CONSTANT}
        return TSMNet(
            n_chans,
            n_outputs,
            n_times,
            sfreq=self.sfreq,
            # Names that would do nothing are refused.
            domains=domains if self.norm == "domain" else (),
            front=self.front,
            n_temporal_filters=self.n_temporal_filters,
            temporal_kernel=self.temporal_kernel,
            n_spatial_filters=self.n_spatial_filters,
            subspace=self.subspace,
            norm=self.norm,
            features=self.features,
            head=self.head,
            metric=self.metric,
            norm_options=options,
            spd_dtype=self.spd_dtype,
            random_state=generator,
        )

    def _callbacks(self) -> list[Callback]:
        return [] if self.momentum == "constant" else super()._callbacks()
