"""Cross-spectral matrices of stationary signals: estimate, smooth, apply.

A stationary process is described by S(f) = sum_l R(l) exp(-2 pi i f l), the
transform of its lag covariances R(l) = E[x(t + l) x(t)']. Filtering with S, or
with a function of it, is a product at every frequency. Inside, signals have
shape (n_channels, n_signals, n_times) and matrices stand on `n_lags / 2 + 1`
frequencies; every finer frequency takes the nearest one.
"""

from __future__ import annotations

import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from eegtensor.geometry.spectral import eigh

# Values of waves that are made at a time.
WAVE_CELLS = 1 << 18


def frequency_weights(spectrum: Tensor) -> Tensor:
    """Return weights of the frequencies in an average over the full circle."""
    weights = torch.ones(len(spectrum), dtype=torch.float64, device=spectrum.device)
    weights[0] = weights[-1] = 0.5
    return weights / weights.sum()


def average(spectrum: Tensor) -> Tensor:
    """Return the covariance at lag 0, shape (n_channels, n_channels), real."""
    return torch.einsum("f,fij->ij", frequency_weights(spectrum), spectrum.real)


def welch(signals: Tensor, n_lags: int) -> Tensor:
    """Return the cross-spectral matrices of signals without losses.

    Parameters
    ----------
    signals : Tensor, shape (n_channels, n_signals, n_times)
    n_lags : int
        Length of the half-overlapping Hann windows.

    Returns
    -------
    spectrum : Tensor, shape (n_lags / 2 + 1, n_channels, n_channels), complex128
    """
    hann = torch.hann_window(n_lags, periodic=True).to(signals)
    windows = signals.unfold(-1, n_lags, max(1, n_lags // 2)) * hann
    transformed = torch.fft.rfft(windows, dim=-1).to(torch.complex128)
    rows = transformed.permute(3, 0, 1, 2).flatten(2)
    scale = rows.shape[-1] * float((hann.double() ** 2).sum())
    return rows @ rows.mH / scale


def smooth_coherence(
    spectrum: Tensor, n_lags: int, *, components: bool = False
) -> Tensor:
    """Return the spectrum with its coherences smoothed along frequency.

    Every channel keeps its own power at the full resolution; what is shared
    between channels is cut to `n_lags` lags by a triangular window, whose
    transform is not negative: the matrices stay positive. A tenth of the
    parameters, which is what a minute of data with losses can pay for.

    Parameters
    ----------
    spectrum : Tensor, shape (n_frequencies, n_channels, n_channels)
    n_lags : int
        Lags of coherence that are kept on each side.
    components : bool
        Whether principal components take the place of channels. They must where
        channels nearly determine each other (an average reference, many
        electrodes): smoothing would else fill the directions without power.
    """
    if not components:
        return _smooth(spectrum, n_lags)
    basis = eigh(average(spectrum))[1].to(spectrum.dtype)
    return basis @ _smooth(basis.mH @ spectrum @ basis, n_lags) @ basis.mH


def _smooth(spectrum: Tensor, n_lags: int) -> Tensor:
    power = spectrum.diagonal(dim1=1, dim2=2).real
    tiny = torch.finfo(power.dtype).tiny
    root = power.clamp_min(tiny).sqrt()
    outer = root[:, :, None] * root[:, None, :]
    size = 2 * (len(spectrum) - 1)
    lags = torch.arange(size, device=power.device)
    window = (1 - torch.minimum(lags, size - lags) / n_lags).clamp_min(0.0)
    coherence = torch.fft.irfft(spectrum / outer, n=size, dim=0)
    smooth = torch.fft.rfft(coherence * window[:, None, None].to(power), dim=0)
    # Rounding: Hermitian again.
    return 0.5 * (smooth + smooth.mH) * outer


def from_lags(lag_covariances: Tensor, n_lags: int, *, floor: float = 1e-3) -> Tensor:
    """Return the cross-spectral matrices of a sequence of lag covariances.

    Parameters
    ----------
    lag_covariances : Tensor, shape (n, n_channels, n_channels)
        R(0), R(1), ... with n <= n_lags / 2; the later ones are tapered.
    n_lags : int
        Size of the grid.
    floor : float
        Eigenvalues are at least this share of the largest at that frequency:
        pairwise estimates need not be positive, a covariance must.
    """
    n = len(lag_covariances)
    u = torch.arange(n, device=lag_covariances.device) / n
    parzen = torch.where(u <= 0.5, 1 - 6 * u**2 + 6 * u**3, 2 * (1 - u) ** 3)
    tapered = lag_covariances * parzen[:, None, None].to(lag_covariances)
    circle = tapered.new_zeros(n_lags, *tapered.shape[1:])
    circle[:n] = tapered
    if n > 1:
        circle[-(n - 1) :] = tapered[1:].flip(0).mT
    spectrum = torch.fft.rfft(circle, dim=0)
    return positive(0.5 * (spectrum + spectrum.mH), floor)


def positive(spectrum: Tensor, floor: float) -> Tensor:
    """Return Hermitian matrices with eigenvalues above a share of the largest."""
    n = spectrum.shape[-1]
    # A Hermitian matrix as a real symmetric one of twice the size.
    real, imag = spectrum.real, spectrum.imag
    top = torch.cat([real, -imag], dim=-1)
    values, vectors = eigh(torch.cat([top, torch.cat([imag, real], dim=-1)], dim=-2))
    limit = floor * values[:, -1:].clamp_min(0.0)
    both = (vectors * torch.maximum(values, limit)[:, None, :]) @ vectors.mT
    return torch.complex(both[:, :n, :n], both[:, n:, :n])


def fast_length(n_times: int) -> int:
    """Return the next length that the fast Fourier transform likes."""
    return int(next_fast_len(n_times, real=True))


def convolve(spectrum: Tensor, signals: Tensor) -> Tensor:
    """Return signals filtered, circularly, with the matrices of a spectrum.

    Parameters
    ----------
    spectrum : Tensor, shape (n_frequencies, n_channels, n_channels), complex
    signals : Tensor, shape (n_channels, n_signals, n_times)
    """
    n_channels, n_signals, n_times = signals.shape
    transformed = torch.fft.rfft(signals, dim=-1)
    # A caller's temporary is not to last beside the result.
    del signals
    edges = _edges(len(spectrum), n_times)
    for matrix, begin, end in zip(spectrum, edges, edges[1:], strict=False):
        if end > begin:
            part = transformed[:, :, begin:end].reshape(n_channels, -1)
            product = matrix @ part
            transformed[:, :, begin:end] = product.view(n_channels, n_signals, -1)
    return torch.fft.irfft(transformed, n=n_times, dim=-1)


def _edges(n_frequencies: int, n_times: int) -> list[int]:
    """Return where, among a transform's frequencies, each of the grid's begins."""
    step = n_times / (2 * (n_frequencies - 1))
    last = n_times // 2 + 1
    inner = [min(last, int((g - 0.5) * step) + 1) for g in range(1, n_frequencies)]
    return [0, *inner, last]


def impulse_response(spectrum: Tensor, n_times: int, n_lags: int) -> Tensor:
    """Return the circular filter of a spectrum at lags 0 ... n_lags - 1.

    Parameters
    ----------
    spectrum : Tensor, shape (n_frequencies, n_channels, n_channels), complex128
    n_times : int
        Length of the circle.
    n_lags : int

    Returns
    -------
    response : Tensor, shape (n_lags, n_channels, n_channels), float64
        At lag -l it is the transpose of that at lag l.
    """
    # Few lags are wanted: sums of cosines over every frequency's stretch.
    edges = torch.tensor(_edges(len(spectrum), n_times), device=spectrum.device)
    steps = torch.arange(n_times // 2 + 1, dtype=torch.float64, device=spectrum.device)
    twice = torch.full_like(steps, 2.0 / n_times)
    twice[0] = 1.0 / n_times
    if n_times % 2 == 0:
        twice[-1] = 1.0 / n_times
    lags = torch.arange(n_lags, dtype=torch.float64, device=spectrum.device)
    both = torch.stack([spectrum.real, spectrum.imag])
    found = []
    # A few lags at a time: waves of all are many times a long recording.
    for some in lags.split(max(1, WAVE_CELLS // len(steps))):
        angle = 2 * math.pi / n_times * (some[:, None] * steps)
        waves = torch.stack([angle.cos(), -angle.sin()]).mul_(twice)
        total = torch.nn.functional.pad(waves.cumsum(dim=-1), (1, 0))
        parts = total[..., edges[1:]] - total[..., edges[:-1]]
        found.append(torch.einsum("plf,pfij->lij", parts, both))
    return torch.cat(found)
