"""AAA: scores that mislead those who attack by asking."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from eegtensor._check import (
    EEGTensorWarning,
    check_count,
    check_number,
    check_option,
    fail,
)
from eegtensor.trust.calibration.maps import OutputMap, best_log_temperature


class AAA(OutputMap):
    """Logits whose margin falls where the decoder's rises; the class stays.

    An attacker who follows scores is led back to the middle of an interval of
    margins, while the confidence is that of calibrated logits. For three classes or
    more: of two the margin is the confidence, and both aims contradict each other.

    Parameters
    ----------
    shape : "linear" | "sine"
        Of the margin within an interval.
    tau : float | None
        Width of an interval; None: half the median margin in `fit`. (Published: 4 or
        6, for networks of images.)
    step : float
        Slope of the margin within an interval, downwards.
    beta : float
        Weight of the confidence.
    lr : float
    n_iter : int
        Of Adam on the logits of each trial; no pass through the network.

    Attributes
    ----------
    tau_ : float
    temperature_ : float
        Of the least log loss; the release searches that of the least calibration
        error.

    References
    ----------
    S. Chen et al., "Adversarial attack on attackers: post-process to mitigate
    black-box score-based query attacks", NeurIPS 2022.
    """

    def __init__(
        self,
        shape: str = "linear",
        tau: float | None = None,
        step: float = 1.0,
        beta: float = 5.0,
        lr: float = 0.1,
        n_iter: int = 100,
    ) -> None:
        self.shape = shape
        self.tau = tau
        self.step = step
        self.beta = beta
        self.lr = lr
        self.n_iter = n_iter

    def _fit(self, z: NDArray, codes: NDArray, domains: NDArray | None) -> None:
        check_option("shape", self.shape, ("linear", "sine"))
        check_number("step", self.step, least=0.0)
        check_number("beta", self.beta, least=0.0)
        check_number("lr", self.lr, above=0.0)
        check_count("n_iter", self.n_iter)
        if z.shape[1] == 2:
            warnings.warn(
                "AAA with two classes: its confidence or its margin is wrong, since "
                "one is a function of the other. What to do: method='temperature'.",
                EEGTensorWarning,
                stacklevel=4,
            )
        tau = 0.5 * float(np.median(_margin(z))) if self.tau is None else self.tau
        if not tau > 0:
            fail("The median margin of the logits is 0", fix="give tau")
        self.tau_ = check_number("tau", tau, above=0.0)
        self.temperature_ = float(np.exp(best_log_temperature(z, codes)))

    def target(self, margin: NDArray) -> NDArray:
        """Return the margin that is aimed at, of the same shape."""
        tau = self.tau_
        centre = (np.floor(margin / tau) + 0.5) * tau
        if self.shape == "linear":
            return centre - self.step * (margin - centre)
        wave = np.sin(np.pi * (1.0 - 2.0 * (margin - centre) / tau))
        return np.maximum(margin - 0.7 * tau * wave, 0.0)

    def _map(self, z: NDArray, domains: NDArray | None) -> NDArray:
        top = z.argmax(axis=1)
        rows = np.arange(len(z))
        aim = torch.from_numpy(self.target(_margin(z)))
        sure = torch.from_numpy(softmax(z / self.temperature_, axis=1)[rows, top])
        mine = torch.zeros(z.shape, dtype=torch.bool)
        mine[torch.from_numpy(rows), torch.from_numpy(top)] = True
        out = torch.from_numpy(z.copy()).requires_grad_(True)
        adam = torch.optim.Adam([out], lr=self.lr)
        with torch.enable_grad():
            for _ in range(self.n_iter):
                loss = (self._gap(out, mine) - aim).abs()
                p = out.softmax(dim=1)[mine]
                # Adam goes entry by entry: a trial's steps are its own.
                total = (loss + self.beta * (p - sure).abs()).sum()
                adam.zero_grad()
                total.backward()
                adam.step()
        return _same_class(out.detach().numpy(), top)

    @staticmethod
    def _gap(z: Tensor, mine: Tensor) -> Tensor:
        others = z.masked_fill(mine, -torch.inf).amax(dim=1)
        return z[mine] - others


def _margin(z: NDArray) -> NDArray:
    two = np.sort(z, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]


def _same_class(out: NDArray, top: NDArray) -> NDArray:
    """Return logits whose largest is the given one."""
    rows = np.arange(len(out))
    others = out.copy()
    others[rows, top] = -np.inf
    best = others.max(axis=1)
    # The next number: equal ones would be decided by their order.
    out[rows, top] = np.maximum(out[rows, top], np.nextafter(best, np.inf))
    return out
