"""Gaussian processes of vector fields on the scalp, from electrodes that are few."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from eegtensor._check import check_count, check_number, fail
from eegtensor.features.kernels._connection import smooth_fields


class VectorFieldGP(BaseEstimator):
    """Vector fields at all electrodes from those at some: Gaussian process on a scalp.

    RVGP: the process is a sum of the smoothest fields of the connection Laplacian,
    with variances of a Matern kernel, S(l) = (l + 2 nu / kappa^2)^-nu, scaled to mean
    variance sigma^2. Flow of phase or of travelling waves measured with few
    electrodes comes out at many, with its vortices and sources. Arrows are compared
    along the surface, so that no choice of axes matters, and what comes out lies in
    it.

    A field whose arrows are linear in the position, as of a turning sphere, is
    exactly what thin plate and spherical splines of the three components extend; it
    pays for fields that turn within the head.

    Parameters
    ----------
    n_neighbors : int
    n_fields : int
    weights : "gaussian" | "binary"
        Of the graph's edges; binary ones are published.
    nu, kappa, sigma : float
        Where the search of the largest marginal likelihood starts.
    noise : float
        Variance, in the fields' mean square. The released code ignores its own.
    optimize : bool
    max_iter : int

    Attributes
    ----------
    fields_ : Fields
    nu_, kappa_, sigma_ : float
    field_ : ndarray, shape (..., n_nodes, 3)
        At every node, in the unit given.
    std_ : ndarray, shape (n_nodes,)
        Root mean variance of an arrow's components at each node, in the unit given.
    kernel_ : ndarray, shape (3 n_nodes, 3 n_nodes)
        In the fields' mean square.

    References
    ----------
    R. Peach et al., "Implicit Gaussian process representation of vector fields over
    arbitrary latent manifolds", ICLR 2024.
    """

    def __init__(
        self,
        n_neighbors: int = 10,
        n_fields: int = 50,
        weights: str = "gaussian",
        nu: float = 1.5,
        kappa: float = 5.0,
        sigma: float = 1.0,
        noise: float = 1e-3,
        optimize: bool = True,
        max_iter: int = 100,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.n_fields = n_fields
        self.weights = weights
        self.nu = nu
        self.kappa = kappa
        self.sigma = sigma
        self.noise = noise
        self.optimize = optimize
        self.max_iter = max_iter

    def fit(self, X: NDArray, V: NDArray, *, frames: NDArray | None = None) -> Self:
        """Find the kernel, and the field at every node.

        Parameters
        ----------
        X : ndarray, shape (n_nodes, 3)
            All electrodes, those to be filled in among them.
        V : ndarray, shape (..., n_nodes, 3)
            Arrows; NaN at nodes that are not known, the same ones in all fields.
        frames : ndarray, shape (n_nodes, 3, 2) | None
            Tangents, where they are known.

        Raises
        ------
        EEGTensorError
            If shapes do not fit, or fewer than three nodes are known.
        """
        X, V = np.asarray(X, dtype=np.float64), np.asarray(V, dtype=np.float64)
        for name in ("nu", "kappa", "sigma", "noise"):
            check_number(name, getattr(self, name), above=0.0)
        check_count("n_fields", self.n_fields)
        if X.ndim != 2 or X.shape[1] != 3 or V.shape[-2:] != X.shape:
            fail(
                f"X has shape {X.shape}, V {V.shape}",
                fix="give positions (n_nodes, 3) and arrows (..., n_nodes, 3)",
            )
        if not 2 < check_count("n_neighbors", self.n_neighbors) < len(X):
            fail(
                f"n_neighbors={self.n_neighbors} of {len(X)} nodes",
                fix=f"choose 3 to {len(X) - 1}",
            )
        gaps = np.isnan(V).any(axis=-1).reshape(-1, len(X))
        known = ~gaps[0]
        if (gaps != gaps[0]).any() or known.sum() < 3:
            fail(
                f"{int(known.sum())} nodes are known, or not the same in all fields",
                fix="give three at least, NaN at the same nodes of all fields",
            )
        self.fields_ = smooth_fields(
            X,
            n_neighbors=self.n_neighbors,
            n_fields=self.n_fields,
            weights=self.weights,
            frames=frames,
        )
        F = self.fields_.fields
        r = F.shape[2]
        # Only the part along the surface can be told; coordinates of the frames.
        T = self.fields_.frames[known]
        arrows = V.reshape(-1, *X.shape)[:, known]
        self.scale_ = float(np.sqrt(np.mean(arrows**2))) or 1.0
        along = np.einsum("nij,fni->njf", T, arrows).reshape(-1, len(gaps))
        Y = along / self.scale_
        P = np.einsum("nij,nir->njr", T, F[known]).reshape(-1, r)
        theta = np.log([self.nu, self.kappa, self.sigma])
        if self.optimize:
            found = minimize(
                lambda t: self._evidence(t, P, Y),
                theta,
                jac=True,
                method="L-BFGS-B",
                bounds=[(-3.0, 3.0), (-3.0, 6.0), (-6.0, 6.0)],
                options={"maxiter": self.max_iter},
            )
            theta = found.x
        self.nu_, self.kappa_, self.sigma_ = (float(v) for v in np.exp(theta))
        S, _ = self._spectrum(theta)
        B = P.T @ P / self.noise + np.diag(1.0 / S)
        factor = cho_factor(B)
        weights = cho_solve(factor, P.T @ Y) / self.noise
        field = self.scale_ * np.einsum("nir,rf->fni", F, weights)
        self.field_ = field.reshape(V.shape)
        flat = F.reshape(-1, r)
        self.kernel_ = (flat * S) @ flat.T
        variance = (flat * cho_solve(factor, flat.T).T).sum(axis=1).reshape(-1, 3)
        self.std_ = self.scale_ * np.sqrt(variance.sum(axis=1) / 2)
        return self

    def _spectrum(self, theta: NDArray) -> tuple[NDArray, NDArray]:
        """Return variances of the fields, and their slopes by the logarithms."""
        nu, kappa, sigma = np.exp(theta)
        base = self.fields_.values + 2 * nu / kappa**2
        log_s = -nu * np.log(base)
        slopes = np.stack(
            [
                -nu * np.log(base) - nu * (2 * nu / kappa**2) / base,
                nu * (4 * nu / kappa**2) / base,
                np.full_like(base, 2.0),
            ]
        )
        S = np.exp(log_s - log_s.max())
        share = S / S.sum()
        # The scaling to mean variance sigma^2 takes off the mean slope.
        slopes[:2] -= (slopes[:2] * share).sum(axis=1, keepdims=True)
        return sigma**2 * share, slopes

    def _evidence(
        self, theta: NDArray, P: NDArray, Y: NDArray
    ) -> tuple[float, NDArray]:
        """Return minus the log marginal likelihood of a field and its slope."""
        S, slopes = self._spectrum(theta)
        n, n_fields = Y.shape
        root = np.sqrt(S)
        Q = P * root
        # N(0, Q Q' + noise I) by the small matrix.
        B = Q.T @ Q + self.noise * np.eye(len(S))
        factor = cho_factor(B)
        QY = Q.T @ Y
        solved = cho_solve(factor, QY)
        half = np.log(np.diag(factor[0])).sum()
        logdet = 2 * half + (n - len(S)) * np.log(self.noise)
        fit = ((Y**2).sum() - (QY * solved).sum()) / self.noise / n_fields
        value = 0.5 * (logdet + fit)
        # d / d log S_k of both terms.
        inside = cho_solve(factor, Q.T @ Q)
        residual = (QY - Q.T @ Q @ solved) / self.noise
        each = 0.5 * (np.diag(inside) - (residual**2).sum(axis=1) / n_fields)
        return float(value), slopes @ each

    def predict(self) -> NDArray:
        """Return the field at every node, shape of the V given."""
        check_is_fitted(self)
        return self.field_
