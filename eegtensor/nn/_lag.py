"""Covariances of linearly filtered trials, by convolution and from lags.

A temporal filter w_f on every channel, then a spatial one over filters and
channels, gives h_s(t) = sum_{f,c,k} V[s,f,c] w[f,k] x~_c(t + k), with x~ the trial
padded by reflection. The covariance of h over the n_times kept samples is

    S = sum_{f,g} V_f M_fg V_g' - E E',   M_fg = sum_tau a_fg(tau) R_tau,

with R_tau = sum_u x~(u) x~(u + tau)' / n_times, a_fg(tau) = sum_k w[f,k] w[g,k+tau]
and E the outputs of the zero-extended convolution outside the kept samples, which
need only the first and last samples of the trial. R_tau and these samples are all
that S takes from a trial: they are computed once, whatever the filters become.

Constants in time leave S as it is, so that channels are centred first: then the
zero-extended outputs sum to zero, the kept ones to minus the others, and the
squared mean joins E as E (I + 11' / n_times)^(1/2).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from eegtensor.geometry.spectral import symmetrize

# Samples whose float64 copies are held at once.
_BLOCK = 2**22


def n_statistics(n_chans: int, kernel: int) -> int:
    """Return the length of one trial's `lag_statistics`."""
    return kernel * n_chans**2 + 2 * (kernel // 2 + 1) * n_chans


def lag_statistics(x: Tensor, kernel: int) -> Tensor:
    """Return what the covariance of filtered trials depends on.

    Parameters
    ----------
    x : Tensor, shape (batch, n_chans, n_times)
    kernel : int, odd
        Length of the temporal filters; ``n_times > kernel // 2``.

    Returns
    -------
    statistics : Tensor, shape (batch, n_statistics(n_chans, kernel))
        In the dtype of x, summed in float64: R_tau for tau = 0 ... kernel - 1,
        then the first and the last ``kernel // 2 + 1`` samples over
        sqrt(n_times).
    """
    if torch.compiler.is_compiling():
        return _statistics(x, kernel)
    size = max(1, _BLOCK // (x.shape[1] * x.shape[2]))
    parts = [_statistics(part, kernel) for part in x.split(size)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _statistics(x: Tensor, kernel: int) -> Tensor:
    half, n_times = kernel // 2, x.shape[-1]
    wide = x.double()
    padded = F.pad(wide, (half, half), mode="reflect")
    mean = padded.mean(dim=-1, keepdim=True)
    padded, wide = padded - mean, wide - mean
    length = padded.shape[-1]
    lags = [
        torch.bmm(padded[..., : length - tau], padded[..., tau:].mT)
        for tau in range(kernel)
    ]
    R = torch.stack(lags, dim=1) / n_times
    ends = torch.cat((wide[..., : half + 1], wide[..., n_times - half - 1 :]), dim=-1)
    ends = ends / math.sqrt(n_times)
    return torch.cat((R.flatten(1), ends.flatten(1)), dim=1).to(x.dtype)


def edge_map(kernel: int) -> Tensor:
    """Return how a filter and end samples make the outputs that are not kept.

    Returns
    -------
    edges : Tensor, shape (kernel, 2 (kernel // 2 + 1), 2 (kernel - 1))
        Zeros and ones: ``sum_{k,m} w[k] ends[m] edges[k, m, o]`` is output o.
    """
    half, n = kernel // 2, kernel - 1
    edges = torch.zeros(kernel, 2 * (half + 1), 2 * n)
    for i in range(n):
        # Output i - n sees padded samples 0 ... i, which mirror about sample `half`.
        for u in range(i + 1):
            edges[u - i + n, abs(u - half), i] += 1.0
        # Output length - n + i sees the last n - i padded samples.
        for u in range(i, n):
            mirrored = u + 1 if u < half else 2 * half - 1 - u
            edges[u - i, half + 1 + mirrored, n + i] += 1.0
    return edges


def lag_covariance(
    statistics: Tensor,
    temporal: Tensor,
    spatial: Tensor,
    edges: Tensor,
    n_times: int,
) -> Tensor:
    """Return the covariances of filtered trials from their lag statistics.

    Parameters
    ----------
    statistics : Tensor, shape (batch, n_statistics)
    temporal : Tensor, shape (n_filters, kernel)
    spatial : Tensor, shape (n_out, n_filters, n_chans)
    edges : Tensor
        Of `edge_map`.
    n_times : int
        Of the trials.

    Returns
    -------
    S : Tensor, shape (batch, n_out, n_out), exactly symmetric
    """
    batch = statistics.shape[0]
    n_out, n_filters, n_chans = spatial.shape
    kernel = temporal.shape[1]
    n_lagged = kernel * n_chans**2
    R = statistics[:, :n_lagged].view(batch, kernel, n_chans**2)
    ends = statistics[:, n_lagged:].view(batch, n_chans, -1)

    # Rows (g, f), so that (f, channel) are neighbours in N, as they are in V.
    shifted = F.pad(temporal, (0, kernel - 1)).unfold(1, kernel, 1)
    correlation = torch.einsum("fk,gtk->gft", temporal, shifted)
    # S = P + P' has lag 0 in both.
    correlation = torch.cat((0.5 * correlation[..., :1], correlation[..., 1:]), dim=-1)
    correlation = correlation.reshape(1, n_filters**2, kernel)
    V = spatial.reshape(n_out, n_filters * n_chans)

    # bmm with expanded weights: matmul would copy the trials instead.
    N = torch.bmm(correlation.expand(batch, -1, -1), R)
    N = N.view(batch * n_filters, n_filters * n_chans, n_chans)
    Q = torch.bmm(V.expand(batch * n_filters, -1, -1), N)
    Q = Q.view(batch, n_filters, n_out, n_chans).transpose(1, 2)
    P = (Q.reshape(batch * n_out, -1) @ V.mT).view(batch, n_out, n_out)

    Y = torch.bmm(spatial.reshape(1, -1, n_chans).expand(batch, -1, -1), ends)
    n_outside = edges.shape[-1]
    maps = (temporal @ edges.flatten(1)).view(n_filters * ends.shape[-1], n_outside)
    spread = (math.sqrt(1.0 + n_outside / n_times) - 1.0) / max(n_outside, 1)
    maps = maps + spread * maps.sum(dim=-1, keepdim=True)
    E = (Y.view(batch * n_out, -1) @ maps).view(batch, n_out, -1)
    return P + P.mT - torch.bmm(E, E.mT)


def convolved_covariance(x: Tensor, temporal: Tensor, spatial: Tensor) -> Tensor:
    """Return the covariances of filtered trials, by filtering them.

    The two filters are composed into one convolution, which is faster than
    theirs one after the other although it counts more operations.

    Parameters
    ----------
    x : Tensor, shape (batch, n_chans, n_times)
    temporal : Tensor, shape (n_filters, kernel)
    spatial : Tensor, shape (n_out, n_filters, n_chans)

    Returns
    -------
    S : Tensor, shape (batch, n_out, n_out), exactly symmetric
    """
    half, n_times = temporal.shape[1] // 2, x.shape[-1]
    weight = torch.einsum("sfc,fk->sck", spatial, temporal)
    # Centring first keeps the digits of float32 under an offset.
    padded = F.pad(x - x.mean(dim=-1, keepdim=True), (half, half), mode="reflect")
    convolve = F.conv1d if x.device.type == "cpu" else shifted_products
    h = convolve(padded, weight)
    h = h - h.mean(dim=-1, keepdim=True)
    # A matrix product rounds the two triangles differently.
    S: Tensor = symmetrize(torch.bmm(h, h.mT) / n_times)
    return S


def shifted_products(x: Tensor, weight: Tensor) -> Tensor:
    """Return the same as `conv1d`, as one matrix product a lag.

    For GPUs, where cuDNN rounds convolutions of float32 to 10 bits (TF32), and
    does so in the backward pass whatever was set in the forward pass.
    """
    kernel = weight.shape[-1]
    n_times = x.shape[-1] - kernel + 1
    batch = x.shape[0]
    h = torch.bmm(weight[..., 0].expand(batch, -1, -1), x[..., :n_times])
    for k in range(1, kernel):
        window = x[..., k : k + n_times]
        h = torch.baddbmm(h, weight[..., k].expand(batch, -1, -1), window)
    return h
