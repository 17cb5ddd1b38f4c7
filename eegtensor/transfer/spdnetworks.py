"""SPDNet, Tensor-CSPNet and filter-bank TSMNet as classifiers that adapt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from eegtensor._check import check_option, fail
from eegtensor.domains import Domain
from eegtensor.models import FilterBankTSMNet, SPDNet, TensorCSPNet
from eegtensor.transfer._network import NetworkClassifier

# What each network takes beside the parameters that all have.
_NETWORKS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "spdnet": (SPDNet, ("sizes", "estimator")),
    "tensor-cspnet": (TensorCSPNet, ("n_bands", "n_windows", "sizes", "estimator")),
    "filter-bank-tsmnet": (
        FilterBankTSMNet,
        ("n_bands", "n_spatial_filters", "subspace"),
    ),
}
_DEFAULTS: dict[str, Any] = {
    "n_bands": 1,
    "n_windows": 3,
    "sizes": None,
    "n_spatial_filters": None,
    "subspace": None,
    "estimator": "scm",
}


class SPDNetworkClassifier(NetworkClassifier):
    """A network on covariances of bands and windows, with statistics by domain.

    Parameters
    ----------
    network : "spdnet" | "tensor-cspnet" | "filter-bank-tsmnet"
        See `eegtensor.models`.
    n_bands : int
        Bands that stand one after the other on the channel axis (not spdnet).
    n_windows : int
        Windows of a trial (tensor-cspnet).
    sizes : tuple of int | None
        Of the matrices after each BiMap (spdnet, tensor-cspnet).
    n_spatial_filters, subspace : int | None
        Of each band (filter-bank-tsmnet).
    estimator : str
        Of the covariances (spdnet, tensor-cspnet).
    norm, head, metric, epochs, batch_size, domains_per_batch, lr, weight_decay,
    validation, validation_fraction, patience, objective, perturbation,
    grad_transform, averager, sampler, optimizer, recipe, calibration, adaptation,
    prior, prior_trials, unseen, sfreq, device, spd_dtype, random_state, verbose
        As in `TSMNetClassifier`; its attributes and methods are there, too.
        Adaptation to label shift needs a network with one norm: spdnet.
    """

    def __init__(
        self,
        network: str = "spdnet",
        n_bands: int = 1,
        n_windows: int = 3,
        sizes: tuple[int, ...] | None = None,
        n_spatial_filters: int | None = None,
        subspace: int | None = None,
        estimator: str = "scm",
        norm: str = "domain",
        head: str = "linear",
        metric: str = "affine-invariant",
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
        self.network = network
        self.n_bands = n_bands
        self.n_windows = n_windows
        self.sizes = sizes
        self.n_spatial_filters = n_spatial_filters
        self.subspace = subspace
        self.estimator = estimator
        self.norm = norm
        self.head = head
        self.metric = metric
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
    ) -> Any:
        check_option("network", self.network, tuple(_NETWORKS))
        kind, taken = _NETWORKS[self.network]
        given = {name: getattr(self, name) for name in _DEFAULTS}
        # An option without effect would look in a grid search as if it had been tried.
        idle = [k for k, v in given.items() if k not in taken and v != _DEFAULTS[k]]
        if idle:
            fail(
                f"{', '.join(idle)} means nothing to network={self.network!r}",
                fix="leave it out",
            )
        return kind(
            n_chans,
            n_outputs,
            n_times,
            sfreq=self.sfreq,
            # Names that would do nothing are refused.
            domains=domains if self.norm == "domain" else (),
            norm=self.norm,
            head=self.head,
            metric=self.metric,
            dtype=self.spd_dtype,
            random_state=generator,
            **{name: given[name] for name in taken},
        )
