"""Kernel regression whose support trials have bandwidths of their own."""

from __future__ import annotations

import torch
from torch import Tensor


def local_kernel(A: Tensor, S: Tensor, theta: Tensor, *, form: str) -> Tensor:
    """Return K(a, s_i) = exp(-|theta_i * (a - s_i)|^p), shape (n, n_supports).

    Parameters
    ----------
    A : Tensor, shape (n, n_features)
    S : Tensor, shape (n_supports, n_features)
    theta : Tensor, shape (n_supports, n_features)
        Inverse bandwidths of each support.
    form : "gaussian" | "laplacian"
        p = 2 or 1.
    """
    w = theta**2
    # Centred, so that little cancels; the product form needs no (n, m, d) array.
    middle = S.mean(dim=0)
    A, S = A - middle, S - middle
    d = (A**2) @ w.mT - 2 * A @ (w * S).mT + (w * S**2).sum(dim=1)
    d = d.clamp_min(0.0)
    if form == "gaussian":
        return torch.exp(-d)
    # The root's slope at 0 is infinite: a support has distance 0 from itself.
    away = d > 1e-14
    return torch.exp(-torch.where(away, torch.where(away, d, 1.0).sqrt(), 0.0))


def support_weights(
    S: Tensor, T: Tensor, theta: Tensor, *, ridge: float, form: str
) -> Tensor:
    """Return alpha of f(x) = K(x, S) alpha, for targets T (n_supports, n_targets).

    (K + ridge I) alpha = T; with ridge 0 the least squares solution of smallest norm.
    """
    K = local_kernel(S, S, theta, form=form)
    if ridge == 0.0:
        return torch.linalg.pinv(K) @ T
    eye = torch.eye(len(S), dtype=S.dtype, device=S.device)
    return torch.linalg.solve(K + ridge * eye, T)


class Fitting:
    """Supports, their bandwidths, and how they are learned from the other trials.

    Parameters
    ----------
    X : Tensor, shape (n_trials, n_features)
    T : Tensor, shape (n_trials, n_targets)
        Centred where the model has an offset.
    supports : Tensor of int64, shape (n_supports,)
    theta : Tensor, shape (n_supports, n_features)
    ridge : float
    form : str
    """

    def __init__(
        self,
        X: Tensor,
        T: Tensor,
        supports: Tensor,
        theta: Tensor,
        *,
        ridge: float,
        form: str,
    ) -> None:
        self.X, self.T, self.supports, self.theta = X, T, supports, theta
        self.ridge, self.form = ridge, form

    @property
    def others(self) -> Tensor:
        """Positions of trials that are no supports."""
        rest = torch.ones(len(self.X), dtype=torch.bool)
        rest[self.supports] = False
        return rest.nonzero()[:, 0]

    def alpha(self) -> Tensor:
        """Return the weights of the supports."""
        S, T = self.X[self.supports], self.T[self.supports]
        return support_weights(S, T, self.theta, ridge=self.ridge, form=self.form)

    def predict(self, A: Tensor) -> Tensor:
        """Return f of trials (n, n_features), (n, n_targets)."""
        S = self.X[self.supports]
        return local_kernel(A, S, self.theta, form=self.form) @ self.alpha()

    def learn(
        self,
        steps: int,
        generator: torch.Generator,
        *,
        lr: float,
        batch_size: int,
        clip: float,
    ) -> None:
        """Take Adam's steps on bandwidths, through the solution for the weights.

        The loss is the squared error of trials that are no supports.
        """
        rest = self.others
        if not len(rest):
            return
        self.theta = self.theta.detach().requires_grad_(True)
        optimizer = torch.optim.Adam([self.theta], lr=lr)
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(steps):
            while len(order) < min(batch_size, len(rest)):
                turn = torch.randperm(len(rest), generator=generator)
                order = torch.cat([order, rest[turn]])
            batch, order = order[:batch_size], order[batch_size:]
            loss = ((self.predict(self.X[batch]) - self.T[batch]) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([self.theta], clip)
            optimizer.step()
        self.theta = self.theta.detach()

    def grow(self, limit: int) -> bool:
        """Take the trials of largest error as supports; return whether there were."""
        rest, n = self.others, len(self.supports)
        count = min(max(10, n // 10), limit - n, len(rest))
        if count <= 0:
            return False
        error = ((self.predict(self.X[rest]) - self.T[rest]) ** 2).sum(dim=1)
        new = rest[error.topk(count).indices]
        self.supports = torch.cat([self.supports, new])
        self.theta = torch.cat(
            [self.theta, self.theta.mean().expand(count, self.X.shape[1])]
        )
        return True
