"""How large a perturbation is: l_inf and l2 in standard deviations, dB of SNR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import fail
from eegtensor.training.perturbations.scales import channel_scale


@dataclass(frozen=True, eq=False)
class Budget:
    """What an attack was allowed, and what it took, the same in V and microvolt.

    Sizes are in standard deviations of each channel over the trials that were given.
    Attacks of one l_inf differ in l2 by 70 % and more: a number alone compares
    nothing.

    Attributes
    ----------
    eps : float | None
        What was asked.
    norm : str | None
        Of eps: "linf", "l2" or "affine-invariant".
    linf, l2 : ndarray, shape (n_trials,)
    snr_db : ndarray, shape (n_trials,)
        Power of the trial about its channels' means, each channel in its standard
        deviations, over that of the perturbation; inf where nothing changed.
    mean_snr_db : float
        Of the power of all trials: a few that are hardly perturbed do not lift it.

    References
    ----------
    S. Chen et al., "Measuring the transferability of l_inf attacks by the l_2 norm",
    arXiv 2102.10343.
    """

    eps: float | None
    norm: str | None
    linf: NDArray[np.float64]
    l2: NDArray[np.float64]
    snr_db: NDArray[np.float64]
    mean_snr_db: float

    def summary(self) -> dict[str, float]:
        """Return means over trials: {"linf", "l2", "snr_db"}."""
        return {
            "linf": float(self.linf.mean()),
            "l2": float(self.l2.mean()),
            "snr_db": self.mean_snr_db,
        }

    def __str__(self) -> str:
        asked = "" if self.eps is None else f"eps {self.eps:g} ({self.norm}): "
        return (
            f"{asked}l_inf {self.linf.mean():.3g} and l2 {self.l2.mean():.3g} standard "
            f"deviations, SNR {self.mean_snr_db:.1f} dB"
        )


def measure(
    X: Any,
    perturbed: Any,
    *,
    eps: float | None = None,
    norm: str | None = None,
    scale: Any = None,
) -> Budget:
    """Return the sizes of the perturbations of trials.

    Parameters
    ----------
    X, perturbed : ndarray or Tensor, shape (n_trials, n_channels, n_times)
        In any unit, the same for both.
    eps, norm : float, str | None
        What was asked, for the record.
    scale : ndarray or Tensor, shape (1, n_channels, 1) | None
        Size of a standard deviation of each channel; that of X by default.

    Raises
    ------
    EEGTensorError
        If the shapes differ.
    """
    x, moved = _double(X), _double(perturbed)
    if x.shape != moved.shape:
        fail(
            f"Perturbed trials have shape {tuple(moved.shape)}, the trials "
            f"{tuple(x.shape)}",
            fix="give the same trials before and after",
        )
    s = channel_scale(x) if scale is None else _double(scale)
    # A channel that never changes has no unit to measure by.
    unit = torch.where(s == 0, 1.0, s)
    d = ((moved - x) / unit).flatten(1)
    signal = x - x.mean(dim=tuple(range(2, x.ndim)), keepdim=True) if x.ndim > 2 else x
    power = (signal / unit).flatten(1).square().sum(1)
    noise = d.square().sum(1)
    return Budget(
        eps,
        norm,
        d.abs().amax(1).numpy(),
        noise.sqrt().numpy(),
        (10 * (power / noise).log10()).numpy(),
        float(10 * (power.sum() / noise.sum()).log10()),
    )


def _double(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu().double()
    return torch.from_numpy(np.asarray(values, dtype=np.float64))
