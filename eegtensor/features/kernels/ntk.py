"""Machines that weigh the tangent kernels of a network's layers."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, check_option, fail, listing
from eegtensor.features.kernels._heads import (
    KernelClassifier,
    KernelRegressor,
    VectorEstimator,
)
from eegtensor.features.kernels.layerkernels import alignment_weights, layer_kernels


class _WeightedNTK(VectorEstimator):
    hidden: tuple[int, ...]
    weights: str | tuple[float, ...]
    ridge: float
    random_state: int

    def __init__(
        self,
        hidden: tuple[int, ...] = (128, 128),
        weights: str | tuple[float, ...] = "alignment",
        ridge: float = 1e-1,
        random_state: int = 0,
    ) -> None:
        self.hidden = hidden
        self.weights = weights
        self.ridge = ridge
        self.random_state = random_state

    def _network(self, d: int) -> nn.Sequential:
        """Return a ReLU network, its weights drawn so that signals keep their size."""
        generator = torch.Generator().manual_seed(int(self.random_state))
        layers: list[nn.Module] = []
        for width in self.hidden:
            layers += [nn.Linear(d, check_count("hidden", width)), nn.ReLU()]
            d = width
        layers.append(nn.Linear(d, 1))
        net = nn.Sequential(*layers).double()
        with torch.no_grad():
            for name, p in net.named_parameters():
                p.zero_()
                if name.endswith("weight"):
                    p.normal_(std=(2.0 / p.shape[1]) ** 0.5, generator=generator)
        return net

    def _learn(self, X: NDArray, T: NDArray) -> None:
        check_number("ridge", self.ridge, above=0.0)
        self.mean_ = X.mean(axis=0)
        spread = X.std(axis=0)
        self.spread_ = np.where(spread > 0, spread, 1.0)
        with torch.random.fork_rng([]):
            self._net = self._network(X.shape[1])
        self._train = self._inputs(X)
        kernels = layer_kernels(self._net, self._train)
        self.layers_ = list(kernels)
        each = [K.numpy() for K in kernels.values()]
        self.offset_ = T.mean(axis=0)
        centred = T - self.offset_
        self.traces_ = np.array([np.trace(K) / len(K) for K in each])
        self.weights_ = self._chosen(each, centred)
        K = sum(
            w * k / t for w, k, t in zip(self.weights_, each, self.traces_, strict=True)
        )
        self.alpha_ = solve(K + self.ridge * np.eye(len(X)), centred, assume_a="pos")

    def _chosen(self, kernels: list[NDArray], T: NDArray) -> NDArray:
        if isinstance(self.weights, str):
            check_option("weights", self.weights, ("alignment", "ntk"))
            if self.weights == "ntk":
                # Every layer as it is: the plain kernel at trace n.
                return self.traces_ / self.traces_.sum()
            return alignment_weights(kernels, T)
        w = np.asarray(self.weights, dtype=np.float64)
        if w.shape != (len(kernels),) or (w < 0).any() or not w.sum() > 0:
            fail(
                f"weights={self.weights!r}",
                fix=f"give {len(kernels)} numbers from 0 up, for the layers "
                f"{listing(self.layers_)}",
            )
        return w

    def _inputs(self, X: NDArray) -> Tensor:
        return torch.from_numpy((X - self.mean_) / self.spread_)

    def _scores(self, X: NDArray) -> NDArray:
        kernels = layer_kernels(self._net, self._inputs(X), self._train)
        K = sum(
            w * k.numpy() / t
            for w, k, t in zip(
                self.weights_, kernels.values(), self.traces_, strict=True
            )
        )
        found: NDArray = self.offset_ + K @ self.alpha_
        return found


class WeightedNTKClassifier(_WeightedNTK, KernelClassifier):
    """Ridge regression of class targets with weighted kernels of a network's layers.

    K = sum_l w_l K_l / mean diagonal of K_l, K_l the neural tangent kernel of layer l
    of a ReLU network at random weights: as infinite training of that network, with
    a learning rate of its own for each layer.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    weights : "alignment" | "ntk" | tuple of float
        Of the layers, from the first. "alignment": nonnegative, nearest to the
        targets' kernel; "ntk": the kernel of the network as it is.
    ridge : float
        Beside a kernel of mean diagonal one.
    random_state : int

    Attributes
    ----------
    classes_ : ndarray, shape (n_classes,)
    layers_ : list of str
    weights_ : ndarray, shape (n_layers,)
    alpha_ : ndarray, shape (n_trials, n_targets)

    References
    ----------
    A. Jacot, F. Gabriel and C. Hongler, "Neural tangent kernel", NeurIPS, 2018.
    """

    def fit(self, X: NDArray, y: ArrayLike) -> Self:
        """Weigh the layers and solve.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
            Standardised inside.
        y : array-like, shape (n_trials,)

        Raises
        ------
        EEGTensorError
            If an option is out of its range, or there is one class.
        """
        self._learn(*self._checked(X, y))
        return self


class WeightedNTKRegressor(_WeightedNTK, KernelRegressor):
    """Ridge regression with the kernels of `WeightedNTKClassifier`.

    Attributes
    ----------
    layers_ : list of str
    weights_ : ndarray, shape (n_layers,)
    alpha_ : ndarray, shape (n_trials, n_targets)
    """

    def fit(self, X: NDArray, y: ArrayLike) -> Self:
        """Weigh the layers and solve.

        Parameters
        ----------
        X : ndarray, shape (n_trials, n_features)
        y : array-like, shape (n_trials,) or (n_trials, n_targets)

        Raises
        ------
        EEGTensorError
            If an option is out of its range.
        """
        self._learn(*self._checked(X, y))
        return self
