"""Low rank of many small matrices at once: weighted nuclear norms, closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from eegtensor.geometry._bridge import Array, bridged
from eegtensor.geometry.spectral import eigh


@bridged
def shrink_singular(s: Array, weight: float | Array, eps: float | Array = 0.0) -> Array:
    """Return the singular values of the reweighted nuclear norm's solution.

    The larger stationary point of (s - x)^2 / 2 + C log(x + eps) over x >= 0, or 0
    where there is none: x = (s - eps + sqrt((s + eps)^2 - 4 C)) / 2.

    Parameters
    ----------
    s : array
        Singular values of the noisy matrix.
    weight : float | array that broadcasts with s
        C; with eps = 0, singular values below 2 sqrt(C) vanish.
    eps : float | array that broadcasts with s

    Returns
    -------
    x : array, as s

    References
    ----------
    S. Gu et al., "Weighted nuclear norm minimization and its applications to low
    level vision", Int. J. Comput. Vis. 121, 183-208, 2017, corollary 1.
    """
    inside = (s + eps) ** 2 - 4.0 * weight
    x = 0.5 * (s - eps + inside.clamp_min(0.0).sqrt())
    return torch.where(inside >= 0.0, x.clamp_min(0.0), torch.zeros_like(x))


def low_rank(G: Tensor, sigma: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Return matrices denoised by shrinking their singular values, and their ranks.

    Columns are repetitions: their mean is kept, what is left is shrunk. The weight
    is that under which white noise alone leaves nothing: its largest singular value
    is near sigma (sqrt(d) + sqrt(n - 1)).

    Parameters
    ----------
    G : Tensor, shape (..., d, n)
    sigma : Tensor, shape ()
        Standard deviation of the noise.
    strength : float
        Factor of the largest singular value that counts as noise.
    """
    d, n = G.shape[-2:]
    mean = G.mean(dim=-1, keepdim=True)
    G = G - mean
    wide = n > d
    gram = G @ G.mT if wide else G.mT @ G
    values, vectors = eigh(gram)
    s = values.clamp_min(0.0).sqrt()
    edge = strength * sigma * (d**0.5 + max(n - 1, 1) ** 0.5)
    kept = shrink_singular(s, (0.5 * edge) ** 2)
    gain = torch.where(kept > 0.0, kept / s, 0.0)
    P = (vectors * gain[..., None, :]) @ vectors.mT
    return mean + (P @ G if wide else G @ P), (kept > 0.0).sum(dim=-1)
