"""Batch normalisation of SPD matrices with momentum."""

from __future__ import annotations

import math
from typing import Any, TypedDict

import geoopt
import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.geometry._bridge import floating
from eegtensor.geometry._groups import Groups, look_up
from eegtensor.geometry.manifolds import SPD
from eegtensor.geometry.normalization import Norm
from eegtensor.geometry.spectral import symmetrize
from eegtensor.nn._precision import full_precision
from eegtensor.nn._spaces import (
    AffineSpace,
    LogCholeskySpace,
    LogEuclideanSpace,
    MatrixSpace,
)
from eegtensor.nn._statistics import RunningStatistics

METRICS = ("affine-invariant", "log-euclidean", "log-cholesky")


class SPDNormOptions(TypedDict, total=False):
    """Keywords of `SPDNorm`."""

    metric: str
    congruence: str
    dispersion: str
    bias: str
    eta: float
    eta_test: float
    eps: float
    steps: int
    theta: float
    alpha: float
    beta: float
    detach_statistics: bool | str
    synchronise: bool
    dtype: torch.dtype | None
    device: torch.device | str | None


class SPDNorm(RunningStatistics):
    """What batch norms of SPD matrices share: parameters, and one normalisation.

    Parameters
    ----------
    n : int
    **options
        See `SPDBatchNorm`.
    """

    space: MatrixSpace
    # The published floor: squared distances have no unit.
    least_variance = 1e-7
    unit: Tensor

    def __init__(
        self,
        n: int,
        *,
        metric: str = "affine-invariant",
        congruence: str = "symmetric",
        dispersion: str = "scalar",
        bias: str = "identity",
        eta: float = 1.0,
        eta_test: float = 0.1,
        eps: float = 1e-5,
        steps: int = 1,
        theta: float = 1.0,
        alpha: float = 1.0,
        beta: float = 0.0,
        detach_statistics: bool | str = False,
        synchronise: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_option("metric", metric, METRICS)
        check_option("congruence", congruence, ("symmetric", "cholesky"))
        check_option("dispersion", dispersion, ("scalar", "none"))
        check_option("bias", bias, ("identity", "learned"))
        check_option("detach_statistics", detach_statistics, (False, "whitening", True))
        if n < 1 or steps < 1 or not eps >= 0:
            fail(
                f"n={n}, steps={steps}, eps={eps}", fix="n, steps from 1, eps from 0 up"
            )
        if theta == 0 or not alpha > 0 or not beta > -alpha / n:
            fail(
                f"theta={theta}, alpha={alpha}, beta={beta} give no metric",
                fix="take theta other than 0, alpha above 0 and beta above -alpha / n",
            )
        self.n = n
        self.eps = eps
        self.detach_statistics = detach_statistics
        # Statistics are of phi(X): a layer with another theta cannot read them.
        self.kind = metric if theta == 1.0 else f"{metric} of powers {theta}"
        space: MatrixSpace
        if metric == "log-euclidean":
            space = LogEuclideanSpace(Norm(alpha, beta))
        elif metric == "log-cholesky":
            space = LogCholeskySpace(Norm(1.0 / theta**2), theta)
        else:
            norm = Norm(alpha / theta**2, beta / theta**2)
            detach = detach_statistics == "whitening"
            space = AffineSpace(norm, theta, congruence, steps, detach)
        self._start_statistics(
            space,
            (space.origin(n), torch.ones(())),
            eta=eta,
            eta_test=eta_test,
            synchronise=synchronise,
            device=device,
        )
        # NaN: not known before the first batch.
        unknown = torch.full((), math.nan, dtype=torch.float64, device=device)
        self.register_buffer("unit", unknown)
        new: Any = {"dtype": dtype, "device": device}
        self.scale: nn.Parameter | None = None
        if dispersion == "scalar":
            self.scale = nn.Parameter(torch.ones((), **new))
        self.bias: nn.Parameter | None = None
        if bias == "learned":
            self.bias = geoopt.ManifoldParameter(torch.eye(n, **new), manifold=SPD())

    def check_shape(self, X: Tensor) -> None:
        """Raise unless X has the shape (batch, n, n)."""
        if X.ndim != 3 or X.shape[1:] != (self.n, self.n):
            fail(
                f"X has shape {tuple(X.shape)}",
                fix=f"give SPD matrices of shape (batch, {self.n}, {self.n})",
            )

    def _enter(self, X: Tensor, *, learn: bool, symmetric: bool = False) -> Tensor:
        """Return checked matrices in the coordinates of the metric."""
        if not symmetric:
            self.check_shape(X)
            X = symmetrize(floating(X))
        if learn and isinstance(self.space, LogCholeskySpace):
            self._learn_unit(self.space.log_unit(X))
        # Before any trial the statistics are those of I, in whatever unit. A new
        # tensor: the next pass writes into the buffer, backward may come later.
        return self.space.enter(X, torch.where(self.unit.isnan(), 1.0, self.unit))

    def _learn_unit(self, logs: Tensor) -> None:
        """Take the unit of log-Cholesky coordinates from the first batch."""
        total = torch.stack([logs.sum(), torch.full_like(logs[0], len(logs))])
        reduce = self._reduce()
        total = total if reduce is None else reduce(total)
        mean = (total[0] / total[1]).exp()
        self.unit.copy_(torch.where(self.unit.isnan(), mean, self.unit))

    def _normalise(
        self, X: Tensor, codes: Tensor, *, log: bool, symmetric: bool = False
    ) -> Tensor:
        with full_precision(X):
            V = self._enter(X, learn=self.training, symmetric=symmetric)
            statistics = self._train if self.training else self._look_up
            mean, variance, groups = statistics(V, codes)
            if self.detach_statistics is True:
                mean, variance = mean.detach(), variance.detach()
            scale = None
            if self.scale is not None:
                scale = self.scale * groups.spread((variance + self.eps).rsqrt())
                scale = scale.to(V.dtype)
            return self.space.leave(V, mean, scale, groups, self.bias, log=log)


class SPDBatchNorm(SPDNorm):
    """Batch normalisation of SPD matrices with momentum, for one domain.

    Training normalises by running statistics that each batch moves first (momentum
    batch norm), evaluation by statistics with a momentum of their own:
    `DomainSPDBatchNorm` has the equations, for many domains.

    Parameters
    ----------
    n : int
        Matrices are n x n.
    metric : "affine-invariant" | "log-euclidean" | "log-cholesky"
        Where means and distances are taken. Log-Euclidean saves one of the two
        decompositions of a training step, log-Cholesky both, but for logarithms;
        its coordinates have a unit, which is learned from the first batch.
    congruence : "symmetric" | "cholesky"
        How the affine-invariant norm centres: by the inverse root of the mean or
        by its inverse Cholesky factor, which adds a rotation of each domain.
    dispersion : "scalar" | "none"
        Whether the dispersion becomes a learned number, or stays.
    bias : "identity" | "learned"
        What the mean becomes: I, or a learned SPD matrix.
    eta, eta_test : float
        Weight of a new batch in the statistics of training and evaluation.
    eps : float
        Added to variances, which have no unit.
    steps : int
        Karcher steps from the arithmetic mean of a batch.
    theta, alpha, beta : float
        The family of metrics of Chen et al.: power deformation X^theta, and the
        inner product alpha <V, W> + beta tr(V) tr(W). Log-Euclidean is the same
        for every theta, log-Cholesky knows neither alpha nor beta; congruence and
        steps are of the affine-invariant metric alone.
    detach_statistics : False | "whitening" | True
        What the gradient leaves out: nothing (exact), the whitening by the
        arithmetic mean (the TSMNet authors' code) or mean and variance (LieBN's).
    synchronise : bool
        Whether processes that train together share the statistics of a batch.
    dtype : torch.dtype | None
        Of the parameters; statistics are float64.
    device : torch.device | str | None

    References
    ----------
    Kobler, Hirayama and Kawanabe, Controlling the Frechet variance improves batch
    normalization on the symmetric positive definite manifold, ICASSP 2022;
    Chen, Song, Liu and Sebe, A Lie group approach to Riemannian batch
    normalization, ICLR 2024 (theta, alpha, beta and the flat metrics).
    """

    def forward(self, X: Tensor) -> Tensor:
        """Return normalised SPD matrices, shape (batch, n, n)."""
        return self._normalise(X, self._one_row(X), log=False)

    def log(self, X: Tensor) -> Tensor:
        """Return the logarithms of `forward`, without forming it."""
        return self._normalise(X, self._one_row(X), log=True)

    def fit_statistics(self, X: Tensor, *, weights: Tensor | None = None) -> None:
        """Replace the statistics by those of a batch, without momentum.

        Parameters
        ----------
        X : Tensor, shape (batch, n, n)
        weights : Tensor, shape (batch,) | None
            Weights of the trials.
        """
        codes = self._one_row(X, learn=True)
        with torch.no_grad(), full_precision(X):
            self._replace(self._enter(X.double(), learn=True), codes, weights)

    def update_statistics(self, X: Tensor, *, prior_trials: float = 10.0) -> None:
        """Move the statistics by new trials, as a running mean over all of them.

        Parameters
        ----------
        X : Tensor, shape (batch, n, n)
        prior_trials : float
            For how many trials the statistics count that training left.
        """
        codes = self._one_row(X, learn=True)
        with torch.no_grad(), full_precision(X):
            self._stream(self._enter(X.double(), learn=True), codes, prior_trials)

    def _look_up(self, V: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Groups]:
        return self.test_mean, self.test_variance, look_up(codes, 1)[1]

    def _one_row(self, X: Tensor, *, learn: bool = False) -> Tensor:
        if (learn or self.training) and not len(X):
            fail("Statistics got no trials", fix="give one or more")
        return torch.zeros(X.shape[:1], dtype=torch.int64, device=X.device)
