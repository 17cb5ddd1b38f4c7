"""Features by tensor trains and tensor rings."""

from __future__ import annotations

import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor.features._tensors import PatternFeatures
from eegtensor.tensor import ring, train
from eegtensor.tensor._shapes import norm_of
from eegtensor.tensor.kernels import positive_peaks
from eegtensor.tensor.train import chain, check_links


class _Orthonormal(PatternFeatures):
    """Base: patterns are an orthonormal basis, features uncorrelated in training."""

    def _keep_patterns(self, basis: Tensor, X: Tensor) -> None:
        """Keep columns, with positive peaks, as patterns of the shape of a trial."""
        flat = positive_peaks(basis).mT.to(X.dtype).contiguous()
        self.patterns_ = flat.reshape(-1, *X.shape[1:]).numpy()

    def _gram(self) -> Tensor | None:
        return None


class TensorTrainFeatures(_Orthonormal):
    """Features by a tensor train whose last core holds the trials.

    Parameters
    ----------
    ranks : int | tuple of int
        Largest ranks after each axis of a trial; the last is the number of
        features.
    center : bool
        Whether the mean of the training trials is taken off first.
    max_iter, tol
        Of the imputation, where cells are missing.

    Attributes
    ----------
    cores_ : tuple of ndarray, shape (r_{n-1}, d_n, r_n)
        Left-orthogonal; the trials' core is not kept.
    patterns_ : ndarray, shape (n_features, d1, ..., dm)
        Orthonormal.
    mean_, train_scores_, fit_, n_iter_

    See Also
    --------
    eegtensor.tensor.tensor_train
    """

    def __init__(
        self,
        ranks: int | tuple[int, ...] = 16,
        center: bool = True,
        max_iter: int = 1000,
        tol: float = 1e-5,
    ) -> None:
        self.ranks = ranks
        self.center = center
        self.max_iter = max_iter
        self.tol = tol

    def _fit_model(self, X: Tensor, observed: Tensor | None, y: NDArray | None) -> None:
        # Trials last: the cores before then span an orthonormal basis of a trial.
        model = train.decompose(
            X.movedim(0, -1).contiguous(),
            None if observed is None else observed.movedim(0, -1),
            norm_of(X),
            self.ranks,
            max_iter=self.max_iter,
            tol=self.tol,
        )
        self.fit_, self.n_iter_ = model.fit, model.n_iter
        self.cores_ = tuple(core.numpy() for core in model.cores[:-1])
        basis = chain(model.cores[:-1])[0]
        # The right singular vectors of the trials' core order the features.
        turn = _principal_axes(model.cores[-1][:, :, 0].double())
        self._keep_patterns(basis.double() @ turn, X)


class TensorRingFeatures(_Orthonormal):
    """Features by a tensor ring: the cells of each trial's own core.

    Parameters
    ----------
    ranks : int | tuple of int
        Ranks before the trials' axis and before each axis of a trial; a trial
        gets as many features as the first two have in product.
    center : bool
        Whether the mean of the training trials is taken off first.
    ridge, max_iter, tol
        As in `eegtensor.tensor.tensor_ring`.

    Attributes
    ----------
    cores_ : tuple of ndarray, shape (r_{n-1}, d_n, r_n)
        Of the axes of a trial.
    patterns_ : ndarray, shape (n_features, d1, ..., dm)
        Orthonormal: a ring's own cores are unique only up to a change of basis,
        in which features would depend on chance.
    mean_, train_scores_, fit_, n_iter_

    See Also
    --------
    eegtensor.tensor.tensor_ring
    """

    def __init__(
        self,
        ranks: int | tuple[int, ...] = 4,
        center: bool = True,
        ridge: float = 1e-9,
        max_iter: int = 100,
        tol: float = 1e-6,
    ) -> None:
        self.ranks = ranks
        self.center = center
        self.ridge = ridge
        self.max_iter = max_iter
        self.tol = tol

    def _fit_model(self, X: Tensor, observed: Tensor | None, y: NDArray | None) -> None:
        wanted = [r if r is not None else 1 for r in check_links(self.ranks, X.ndim)]
        model = ring.decompose(
            X,
            observed,
            norm_of(X),
            wanted,
            ridge=self.ridge,
            max_iter=self.max_iter,
            tol=self.tol,
        )
        if observed is not None:
            X.masked_fill_(~observed, 0.0)
        self.fit_, self.n_iter_ = model.fit, model.n_iter
        self.cores_ = tuple(core.numpy() for core in model.cores[1:])
        rest = chain(model.cores[1:]).double()
        # (b, cells, a): the trial's core weighs cell (a, b) of this basis.
        basis = rest.permute(2, 0, 1).reshape(-1, rest.shape[1]).mT
        own = model.cores[0].double().permute(0, 2, 1).reshape(-1, len(X))
        Q, R = torch.linalg.qr(basis)
        turn = _principal_axes(R @ own)
        self._keep_patterns(Q @ turn, X)


def _principal_axes(scores: Tensor) -> Tensor:
    """Return the rotation (r, r) to uncorrelated features by falling energy."""
    U, _, _ = torch.linalg.svd(scores, full_matrices=False)
    return U
