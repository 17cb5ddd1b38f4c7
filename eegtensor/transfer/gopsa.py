"""Regression with a step along the geodesic for each domain, learned with a ridge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from torch import Tensor

from eegtensor._check import check_lengths, fail
from eegtensor.domains import (
    UNSEEN,
    Domain,
    DomainTable,
    check_unseen_policy,
    domain_names,
    encode_domains,
    raise_unseen,
)
from eegtensor.features._base import DomainEstimator, check_fitted, check_matrices
from eegtensor.features._means import segment_means
from eegtensor.geometry import congruence, expm, logm, upper_vector
from eegtensor.transfer._perdomain import TARGET, _refuse_single, _target_names
from eegtensor.transfer.recenter import check_means, pooled_mean

_GRID = 101
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


class GOPSARegressor(RegressorMixin, DomainEstimator):
    """Ridge regression on tangent vectors, each domain recentred only so far.

    Domain d with Riemannian mean R goes from its scaled mean (alpha 0: c I, c =
    det(R)^(1/n)) to fully recentred (alpha 1). The source domains' steps are
    learned together with the ridge; a target's step is chosen so that its mean
    prediction is a mean **that must be given**. It is therefore no unlabelled
    adaptation: use it where the mean is known, say the mean age of a cohort,
    and say so beside every score.

    Parameters
    ----------
    alpha : float | None
        The same step for every domain; learned if None. 1 is recentring and a
        ridge.
    penalties : tuple of float
        Of the ridge; the best in cross-validation over people, all recentred,
        is taken.
    n_folds : int
    max_iter : int
        Of L-BFGS.
    unseen : "pooled" | "raise"
        What `predict` does with a domain that was not adapted to: the sources'
        common mean and mean step, or an error.

    Attributes
    ----------
    domains_ : DomainTable
    means_ : ndarray, shape (n_domains, n_bands, n, n)
    alphas_ : ndarray, shape (n_domains,)
    coef_ : ndarray, shape (n_bands * n (n + 1) / 2,)
    intercept_ : float
        Mean of the sources' targets.
    penalty_ : float
    last_target_ : Domain | None

    References
    ----------
    A. Mellot et al., "Geodesic optimization for predictive shift adaptation on
    EEG data", NeurIPS 2024. Theirs runs to I, which depends on the unit.
    """

    def __init__(
        self,
        alpha: float | None = None,
        penalties: tuple[float, ...] = (1.0, 10.0, 1e2, 1e3, 1e4, 1e5),
        n_folds: int = 5,
        max_iter: int = 150,
        unseen: str = "pooled",
    ) -> None:
        self.alpha = alpha
        self.penalties = penalties
        self.n_folds = n_folds
        self.max_iter = max_iter
        self.unseen = unseen

    # Without the target's mean, which a benchmark cannot give, nothing adapts.
    can_adapt = False

    def fit(
        self,
        X: NDArray,
        y: ArrayLike,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Learn the ridge and the step of every source domain.

        Parameters
        ----------
        X : ndarray, shape (n_trials, [n_bands,] n, n)
        y : array-like of float, shape (n_trials,)
        subjects, sessions : array-like of str, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If y is missing, not numeric or not finite.
        """
        check_unseen_policy(self.unseen)
        if self.unseen == "adapt":
            fail(
                "unseen='adapt' needs the target's mean, which predict does not get",
                fix="call adapt(X, target_mean=...), or set unseen='pooled'",
            )
        if not self.penalties or min(self.penalties) <= 0:
            fail(f"penalties={self.penalties!r}", fix="give numbers above 0")
        X, values = _banded(X), _checked_targets(y, len(X))
        codes, names = encode_domains(domain_names(len(X), subjects, sessions))
        means = segment_means(X, codes, len(names))
        check_means(means)
        self.intercept_ = float(values.mean())
        centred = torch.from_numpy(values - self.intercept_)
        steps = _Steps(X, means, codes)
        owners = _folds(codes, names, self.n_folds)
        recentred = steps.vectors(torch.ones(len(names), dtype=torch.float64))
        self.penalty_ = _best_penalty(recentred, centred, owners, self.penalties)
        if self.alpha is None:
            alphas = _learn(steps, centred, self.penalty_, self.max_iter)
        else:
            alphas = torch.full((len(names),), float(self.alpha), dtype=torch.float64)
        self.coef_ = _ridge(steps.vectors(alphas), centred, self.penalty_).numpy()
        self.domains_ = DomainTable(names)
        self.means_, self.alphas_ = means, alphas.numpy()
        self._pooled = pooled_mean(means, np.bincount(codes), "affine-invariant")
        self._pooled_alpha = float(self.alphas_.mean())
        self.last_target_: Domain | None = TARGET if TARGET in names else None
        return self

    def adapt(
        self,
        X: NDArray,
        *,
        target_mean: float | None = None,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> Self:
        """Choose the step of each domain in a batch by its known mean.

        Parameters
        ----------
        X : ndarray, shape (n_trials, [n_bands,] n, n)
            Without subjects and sessions the batch is one domain, "target".
        target_mean : float
            Mean of y over the trials of each domain in the batch, known from
            elsewhere.
        subjects, sessions : array-like of str, shape (n_trials,) | None

        Raises
        ------
        EEGTensorError
            If the mean is not given, or a domain has a single trial.
        """
        X = self._check_fitted_to(X)
        if target_mean is None or not np.isfinite(target_mean):
            fail(
                f"adapt got target_mean={target_mean!r}",
                why="The step is the one at which the mean prediction is the "
                "target's mean, which must be known",
                fix="pass target_mean, or use Recenter, which needs no such number",
            )
        codes, names = encode_domains(_target_names(len(X), subjects, sessions))
        _refuse_single(names, np.bincount(codes), "adapt")
        means = segment_means(X, codes, len(names))
        alphas = _match_mean(
            _Steps(X, means, codes),
            torch.from_numpy(self.coef_),
            float(target_mean) - self.intercept_,
        )
        table = DomainTable(self.domains_.names)
        place = table.encode(names, grow=True)
        grown = len(table) - len(self.domains_)
        # New arrays: shallow copies of this estimator stay independent.
        self.means_ = np.concatenate(
            [self.means_, np.zeros_like(means[:1].repeat(grown, 0))]
        )
        self.alphas_ = np.concatenate([self.alphas_, np.zeros(grown)])
        self.means_[place], self.alphas_[place] = means, alphas
        self.domains_, self.last_target_ = table, names[codes[-1]]
        return self

    def predict(
        self,
        X: NDArray,
        *,
        subjects: ArrayLike | None = None,
        sessions: ArrayLike | None = None,
    ) -> NDArray:
        """Return predicted targets, shape (n_trials,).

        Without domains those adapted last are used, else the sources' common
        mean and mean step.
        """
        X = self._check_fitted_to(X)
        names = domain_names(len(X), subjects, sessions)
        nameless = subjects is None and sessions is None
        if nameless and self.last_target_ is not None:
            names = [self.last_target_] * len(X)
        codes = self.domains_.encode(names)
        unseen = codes == UNSEEN
        if unseen.any() and self.unseen == "raise" and not nameless:
            here = [name for name, new in zip(names, unseen, strict=True) if new]
            raise_unseen(here, self.domains_.names)
        means = np.concatenate([self.means_, self._pooled[np.newaxis]])
        alphas = np.append(self.alphas_, self._pooled_alpha)
        codes = np.where(unseen, len(self.means_), codes)
        Z = _Steps(X, means, codes).vectors(torch.from_numpy(alphas))
        predicted: NDArray = Z.numpy() @ self.coef_ + self.intercept_
        return predicted

    def _check_fitted_to(self, X: Any) -> NDArray:
        check_fitted(self, "coef_")
        X = _banded(X)
        if X.shape[1:] != self.means_.shape[1:]:
            fail(
                f"Matrices have shape {X.shape[1:]}, fit saw {self.means_.shape[1:]}",
                fix="use the same channels and bands as in fit",
            )
        return X


class _Steps:
    """Tangent vectors of trials as a function of their domains' steps.

    Parameters
    ----------
    X : ndarray, shape (n_trials, n_bands, n, n)
    means : ndarray, shape (n_domains, n_bands, n, n)
    codes : ndarray of int, shape (n_trials,)
    """

    def __init__(self, X: NDArray, means: NDArray, codes: NDArray) -> None:
        self._X = torch.from_numpy(np.asarray(X, dtype=np.float64))
        self.codes = torch.from_numpy(codes)
        self._log = logm(torch.from_numpy(np.asarray(means, dtype=np.float64)))
        eye = torch.eye(X.shape[-1], dtype=torch.float64)
        size = self._log.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
        # log c I: half of it always comes off, so that no unit is left.
        self._size = size[..., None, None] * eye

    def __len__(self) -> int:
        return len(self._log)

    def vectors(self, alphas: Tensor) -> Tensor:
        """Return (n_trials, n_bands n (n + 1) / 2) for one step a domain."""
        way = alphas[:, None, None, None] * (self._log - self._size)
        W = expm(-0.5 * (self._size + way))
        return upper_vector(logm(congruence(W[self.codes], self._X))).flatten(1)

    def mean_vectors(self, alphas: Tensor) -> Tensor:
        """Return each domain's mean vector, shape (n_domains, n_features)."""
        one_hot = torch.nn.functional.one_hot(self.codes, len(self)).double().mT
        return (one_hot / one_hot.sum(1, keepdim=True)) @ self.vectors(alphas)


def _ridge(Z: Tensor, y: Tensor, penalty: float) -> Tensor:
    """Return (Z'Z + penalty I)^-1 Z'y by the smaller of the two systems."""
    n, p = Z.shape
    eye = torch.eye(min(n, p), dtype=Z.dtype)
    if p <= n:
        return torch.linalg.solve(Z.mT @ Z + penalty * eye, Z.mT @ y)
    return Z.mT @ torch.linalg.solve(Z @ Z.mT + penalty * eye, y)


def _learn(steps: _Steps, y: Tensor, penalty: float, max_iter: int) -> Tensor:
    """Return the steps that leave the ridge the least residual."""
    a = torch.zeros(len(steps), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [a], max_iter=max_iter, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )
    # As a share of y's variance: the tolerance must not depend on y's unit.
    total = y.square().sum().clamp_min(torch.finfo(y.dtype).tiny)

    def closure() -> Tensor:
        optimizer.zero_grad()
        Z = steps.vectors(torch.sigmoid(a))
        loss = (y - Z @ _ridge(Z, y, penalty)).square().sum() / total
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return torch.sigmoid(a.detach())


@torch.no_grad()
def _match_mean(steps: _Steps, coef: Tensor, wanted: float) -> NDArray:
    """Return the steps in [0, 1] whose mean predictions come nearest to `wanted`."""

    def miss(alphas: Tensor) -> Tensor:
        return (steps.mean_vectors(alphas) @ coef - wanted).abs()

    grid = torch.linspace(0.0, 1.0, _GRID, dtype=torch.float64)
    best = grid[
        torch.stack([miss(alpha.expand(len(steps))) for alpha in grid]).argmin(dim=0)
    ]
    width = 1.0 / (_GRID - 1)
    low, high = (best - width).clamp_min(0.0), (best + width).clamp_max(1.0)
    # Each step leaves .62 of the bracket: 1e-10 after 40.
    for _ in range(40):
        left = high - _GOLDEN * (high - low)
        right = low + _GOLDEN * (high - low)
        nearer = miss(left) < miss(right)
        low, high = torch.where(nearer, low, left), torch.where(nearer, right, high)
    middle = 0.5 * (low + high)
    result: NDArray = torch.where(miss(middle) <= miss(best), middle, best).numpy()
    return result


def _best_penalty(
    Z: Tensor, y: Tensor, folds: NDArray, penalties: Sequence[float]
) -> float:
    """Return the penalty of the least squared error on people left out."""
    if len(penalties) == 1 or len(np.unique(folds)) < 2:
        return float(penalties[0])
    errors = np.zeros(len(penalties))
    for fold in np.unique(folds):
        out = torch.from_numpy(folds == fold)
        offset = y[~out].mean()
        for k, penalty in enumerate(penalties):
            coef = _ridge(Z[~out], y[~out] - offset, penalty)
            errors[k] += float((y[out] - offset - Z[out] @ coef).square().sum())
    return float(penalties[int(errors.argmin())])


def _folds(codes: NDArray, names: Sequence[Domain], n_folds: int) -> NDArray:
    """Return a fold for each trial: people stay together where there are several."""
    people = sorted({(name.dataset, name.subject) for name in names})
    if len(people) == 1:
        return np.arange(len(codes)) % min(n_folds, len(codes))
    place = {person: i % n_folds for i, person in enumerate(people)}
    owner = np.asarray([place[name.dataset, name.subject] for name in names])
    return owner[codes]


def _banded(X: Any) -> NDArray:
    X = check_matrices(X, ndim=(3, 4))
    return X[:, np.newaxis] if X.ndim == 3 else X


def _checked_targets(y: Any, n_trials: int) -> NDArray:
    if y is None:
        fail("GOPSARegressor needs targets", fix="call fit(X, y)")
    values = np.asarray(y)
    check_lengths(n_trials, y=values)
    if values.dtype.kind not in "fiu" or values.ndim != 1:
        fail(
            f"y has dtype {values.dtype} and shape {values.shape}",
            why="A regression needs one number a trial",
            fix="give numbers; classes are for classifiers",
        )
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        fail("y holds NaN or infinity", fix="drop these trials")
    return values
