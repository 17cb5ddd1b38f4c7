"""Learn2pFed: how far each site's each parameter takes part, learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor._check import check_count, check_number, fail


class Participation(NamedTuple):
    """What is learned beside the weights; all above 0.

    Attributes
    ----------
    stiffness : Tensor, shape (n_sites, n_features)
        Diagonals of Lambda: 0 leaves a parameter to its site, infinity makes it the
        common one.
    rho, eta, gamma, theta, p : Tensor, shape (n_sites,)
        Steps of the iterations, and shares of the sites.
    """

    stiffness: Tensor
    rho: Tensor
    eta: Tensor
    gamma: Tensor
    theta: Tensor
    p: Tensor


class Personal(NamedTuple):
    """Weights of sites and common ones.

    Attributes
    ----------
    own : Tensor, shape (n_sites, n_features, n_outputs)
    common : Tensor, shape (n_features, n_outputs)
    """

    own: Tensor
    common: Tensor


def start(
    n_trials: Sequence[int],
    n_features: int,
    *,
    stiffness: float = 1.0,
    rho: float = 1.0,
) -> Participation:
    """Return where learning starts: all parameters alike, sites by their trials."""
    n = torch.tensor([*n_trials], dtype=torch.float64)
    same = torch.full_like(n, rho)
    return Participation(
        torch.full((len(n), n_features), float(stiffness), dtype=torch.float64),
        same,
        same.clone(),
        torch.ones_like(n),
        torch.ones_like(n),
        n / n.sum(),
    )


def unrolled_admm(
    X: Sequence[Tensor], Y: Sequence[Tensor], given: Participation, n_steps: int = 10
) -> Personal:
    """Return the weights after some iterations, differentiable in `given`.

    For ``min sum_r |X_r v_r - Y_r|^2 / 2 + z_r' Lambda_r z_r / 2`` with
    ``z_r = v_r - w``::

        alpha += theta (z - v + w)
        v = (X'X + rho I)^-1 (X'Y + rho (w + z + alpha))
        z = eta (Lambda + eta I)^-1 (v - w - alpha)
        w = sum_r c_r (v_r - z_r - alpha_r) / sum_r c_r,   c_r = p_r gamma_r

    Only v - z - alpha leaves a site.

    Parameters
    ----------
    X : sequence of Tensor, each of shape (n_trials, n_features)
        Of each site, float64.
    Y : sequence of Tensor, each of shape (n_trials, n_outputs)
    given : Participation
    n_steps : int
    """
    check_count("n_steps", n_steps)
    if len(X) != len(Y) or len(X) != len(given.p):
        fail(f"{len(X)} X, {len(Y)} Y and {len(given.p)} sites", fix="give one a site")
    eye = torch.eye(X[0].shape[1], dtype=X[0].dtype)
    gram = torch.stack([x.mT @ x for x in X])
    moment = torch.stack([x.mT @ y for x, y in zip(X, Y, strict=True)])
    rho, eta, theta = (t[:, None, None] for t in (given.rho, given.eta, given.theta))
    factor = torch.linalg.cholesky(gram + rho * eye)
    c = (given.p * given.gamma)[:, None, None]
    shrink = eta / (given.stiffness[:, :, None] + eta)
    v, z, alpha = (torch.zeros_like(moment) for _ in range(3))
    w = torch.zeros_like(moment[0])
    for _ in range(n_steps):
        alpha = alpha + theta * (z - v + w)
        v = torch.cholesky_solve(moment + rho * (w + z + alpha), factor)
        z = shrink * (v - w - alpha)
        w = (c * (v - z - alpha)).sum(0) / c.sum()
    return Personal(v, w)


def learn_participation(
    X: Sequence[Tensor],
    Y: Sequence[Tensor],
    valid: Sequence[tuple[Tensor, Tensor]],
    *,
    given: Participation | None = None,
    n_steps: int = 10,
    n_epochs: int = 200,
    lr: float = 1e-2,
    max_norm: float = 1.0,
) -> Participation:
    """Learn all of `Participation` by the gradient through the iterations.

    The loss is the sites' mean squared error on trials held out (the published code
    takes the training trials, for which no participation is best). Logarithms are
    learned, so that all stay above 0. SGD, with a tenth of the rate in the second half.

    Parameters
    ----------
    X, Y : sequence of Tensor
        As for `unrolled_admm`.
    valid : sequence of (X, Y)
        Trials held out, of each site.
    given : Participation | None
        Where to start.
    n_steps, n_epochs : int
    lr : float
    max_norm : float
        Of the gradient.

    References
    ----------
    K. Lv, R. Ye, X. Huang, J. Yang and S. Chen, "Learn what you need in personalized
    federated learning", arXiv 2401.08327.
    """
    check_number("lr", lr, above=0.0)
    given = start([len(x) for x in X], X[0].shape[1]) if given is None else given
    logs = [t.log().clone().requires_grad_() for t in given]
    optimizer = torch.optim.SGD(logs, lr=lr)
    with torch.enable_grad():
        for epoch in range(n_epochs):
            optimizer.param_groups[0]["lr"] = lr if 2 * epoch < n_epochs else lr / 10
            optimizer.zero_grad()
            found = unrolled_admm(
                X, Y, Participation(*(t.exp() for t in logs)), n_steps
            )
            errors = [
                (x @ v - y).square().mean()
                for (x, y), v in zip(valid, found.own, strict=True)
            ]
            torch.stack(errors).mean().backward()
            torch.nn.utils.clip_grad_norm_(logs, max_norm)
            optimizer.step()
    return Participation(*(t.detach().exp() for t in logs))
