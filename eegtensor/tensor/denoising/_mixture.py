"""How much of the networks' answer and of the averages a denoised trial is."""

from __future__ import annotations

import torch
from torch import Tensor

from eegtensor.tensor.denoising._network import PairedNetwork, scores
from eegtensor.tensor.denoising._pairs import means

# What is found must exceed what noise alone gives by this many standard errors.
CERTAIN = 2.0


def set_mixture(network: PairedNetwork, Z: Tensor, codes: Tensor) -> None:
    """Set the weights of networks and averages, and the spread of amplitudes.

    Least squares of the clean trials, of which z = s + n is seen: <s, f> is
    <z, f> less the divergence of f, and <z, m> where m is an average without z.
    """
    A = network.filtered(Z)
    owed = network.divergence(Z, network.filtered)
    sums, counts = means(Z, codes)
    B = (sums[codes] - Z) / (counts[codes] - 1.0)
    by_networks = (Z * A).sum() - owed.sum()
    by_averages = (Z * B).sum()
    # Of white noise alone the products <z_i, z_j> are uncorrelated.
    per_condition = 2.0 * Z[0].numel() * (counts / (counts - 1.0)).sum()
    if not float(by_averages) > CERTAIN * float(per_condition.sqrt()):
        by_averages = torch.zeros_like(by_averages)
    mix = nonnegative_pair(
        [float((A * A).sum()), float((A * B).sum()), float((B * B).sum())],
        [float(by_networks), float(by_averages)],
    )
    network.mix.copy_(Z.new_tensor(mix))
    F = mix[0] * A + mix[1] * B
    if not any(mix):
        return
    found, error = scores(Z, F, mix[0] * owed)
    weight = (1.0 / error) / (1.0 / error).sum()
    mean = (weight * found).sum()
    spread = (weight * (found - mean).square()).sum() - (weight * error).sum()
    network.amplitude.copy_(torch.stack([mean, spread.clamp_min(0.0)]))


def nonnegative_pair(gram: list[float], target: list[float]) -> tuple[float, float]:
    """Return w >= 0 that minimises w'Gw / 2 - t'w, G = [[aa, ab], [ab, bb]]."""
    aa, ab, bb = gram
    a, b = target
    if a <= 0.0 or b <= 0.0 or aa == 0.0:
        alone = b / bb if b > 0.0 else 0.0
        return (a / aa, 0.0) if a > 0.0 < aa else (0.0, alone)
    det = aa * bb - ab * ab
    first, second = (bb * a - ab * b) / det, (aa * b - ab * a) / det
    if first <= 0.0:
        return 0.0, b / bb
    return (a / aa, 0.0) if second <= 0.0 else (first, second)
