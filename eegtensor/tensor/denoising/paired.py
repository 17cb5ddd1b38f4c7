"""Denoising learned from trials alone: each predicts others of its condition.

What a trial of a condition says of another one is the signal they share: noise of
one says nothing about noise of the other. So a network trained to predict the
average of half B from each trial of half A, and the reverse, becomes a denoiser
without ever seeing a clean trial (J. Lehtinen et al., "Noise2Noise", ICML 2018; for
two parts of one radar image, E. Dalsasso et al., "As if by magic: self-supervised
training of deep despeckling networks with MERLIN", IEEE Trans. Geosci. Remote Sens.
60, 2022).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eegtensor._check import RandomState, as_generator, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._shapes import check_rank
from eegtensor.tensor.denoising._mixture import set_mixture
from eegtensor.tensor.denoising._network import PairedNetwork
from eegtensor.tensor.denoising._noise import as_trials, unrepeated_noise
from eegtensor.tensor.denoising._pairs import (
    align,
    conditions,
    held_out,
    means,
)
from eegtensor.tensor.denoising._training import train, trust

HELD_OUT = 0.25
N_PROBES = 4


class PairedDenoised(NamedTuple):
    """Denoised trials.

    Attributes
    ----------
    X : array, shape (n_trials, n_channels, n_times), float64
        What trials of a condition share, with each trial's latency and amplitude.
    network : PairedNetwork
        For new trials: ``apply_paired(network, X)``.
    gain : float
        By how much held-out trials were predicted better than by zero, in noise
        variances per sample; 0 if nothing is shared, and then X is 0.
    """

    X: Array
    network: PairedNetwork
    gain: float


def denoise_paired(X: Array, y: Any = None, **options: Any) -> PairedDenoised:
    """Denoise trials by what trials of the same condition share.

    `fit_paired` and `apply_paired` on the same trials; see there for the options
    and for what is lost.

    Parameters
    ----------
    X : array, shape (n_trials, n_channels, n_times)
    y : array-like, shape (n_trials,) | None
    **options
        Of `fit_paired`.

    Returns
    -------
    PairedDenoised
    """
    network = fit_paired(X, y, **options)
    return PairedDenoised(apply_paired(network, X), network, float(network.gain))


@bridged
def fit_paired(
    X: Array,
    y: Any = None,
    *,
    hidden: int = 16,
    kernel: int = 9,
    max_shift: int | None = None,
    n_rounds: int = 2,
    n_networks: int = 2,
    max_epochs: int = 300,
    patience: int = 15,
    random_state: RandomState = 0,
) -> PairedNetwork:
    """Train networks to tell what trials of a condition share.

    Trials are whitened by what differs among them (noise of any spectrum and any
    covariance over channels). Each epoch draws two halves of every condition anew;
    each trial is to predict the average of the other half. Training stops when
    held-out trials are predicted worse. Then trials are aligned by what the
    networks found and training goes on, so that latencies which vary do not blur
    the response.

    Parameters
    ----------
    X : array, shape (n_trials, n_channels, n_times)
        Any unit. Trials are aligned to an event.
    y : array-like, shape (n_trials,) | None
        Condition of each trial: class or type of event. None: all one. Needed here
        alone, never for new trials.
    hidden, kernel : int
        Width of the network, and length of its filters in samples, odd; it sees
        ``7 (kernel - 1) + 1`` samples at a time.
    max_shift : int | None
        Samples by which latencies may vary. None: an eighth of the window.
    n_rounds : int
        Rounds of training on aligned trials; 0 keeps latencies as they are.
    n_networks : int
        Networks, each with other trials held out; they answer together.
    max_epochs, patience : int
        Most epochs of a round, and epochs without gain after which it stops.
    random_state : int | numpy.random.Generator | None

    Returns
    -------
    PairedNetwork

    Raises
    ------
    EEGTensorError
        If a condition has fewer than two trials, none has four, samples are not
        finite, or trials do not differ.

    Notes
    -----
    Whatever trials of a condition do not share is taken away, brain activity
    included: induced rhythms, whose phase differs from trial to trial, spontaneous
    activity, and what is peculiar to one trial. Do not use it before band power,
    covariances, connectivity or motor imagery. Components whose latencies vary
    independently within a trial are blurred by that variation.
    """
    sizes = {
        "hidden": hidden,
        "kernel": kernel,
        "n_networks": n_networks,
        "max_epochs": max_epochs,
        "patience": patience,
    }
    for name, value in sizes.items():
        check_rank(value, name)
    if kernel % 2 == 0:
        fail(f"kernel={kernel} is even", fix="choose an odd number of samples")
    signals = as_trials(X)
    codes = conditions(y, len(signals))
    # The order in which trials come must not matter: they are put in one of ours.
    order = _own_order(signals, codes)
    codes, signals = codes[order], signals[torch.from_numpy(order).to(signals.device)]
    n_times = signals.shape[-1]
    most = n_times // 8 if max_shift is None else max_shift
    if not 0 <= most < n_times or n_rounds < 0:
        fail(
            f"max_shift={max_shift}, n_rounds={n_rounds}",
            fix=f"choose max_shift from 0 to {n_times - 1} and n_rounds from 0",
        )
    rng = as_generator(random_state)
    at = torch.from_numpy(codes).to(signals.device)
    white = unrepeated_noise(signals, at)
    Z = white.forward(signals).to(torch.float32)
    random = torch.Generator().manual_seed(int(rng.integers(2**31)))
    signs = torch.randint(0, 2, (N_PROBES, *Z.shape[1:]), generator=random)
    probes = (2.0 * signs - 1.0).to(Z)
    tests = [held_out(codes, HELD_OUT, rng) for _ in range(n_networks)]
    sums, counts = means(Z, at)
    network = None
    for _ in range(n_rounds + 1):
        lags = torch.zeros_like(at)
        if network is not None:
            with torch.no_grad():
                shared = network.filtered(Z)
                lags = align(shared, at, most)
                white = unrepeated_noise(signals, at, white.back(shared.double()))
            Z = white.forward(signals).to(torch.float32)
            sums, counts = means(Z, at)
        fits = [
            train(Z, at, lags, test, (hidden, kernel), max_epochs, patience, rng)
            for test in tests
        ]
        filters, weights = [fit.network for fit in fits], trust(fits, Z)
        network = PairedNetwork(filters, weights, probes, sums / counts, white)
        network.gain.fill_(max(fit.gain for fit in fits))
        if not float(network.gain) > 0.0:
            break
    assert network is not None
    # What a trial becomes must not depend on the trials beside it by rounding.
    network.double()
    network.log_share.copy_((counts.flatten() / len(Z)).log())
    with torch.no_grad():
        set_mixture(network, white.forward(signals), at)
    return network.eval()


@bridged
def apply_paired(network: PairedNetwork, X: Array) -> Array:
    """Denoise trials by a network of `fit_paired`; no labels are needed.

    Parameters
    ----------
    network : PairedNetwork
    X : array, shape (n_trials, n_channels, n_times)
        Channels, window and unit as in the fit.

    Returns
    -------
    X : array, same shape, float64

    Raises
    ------
    EEGTensorError
        If channels or samples differ from those of the fit.
    """
    signals = as_trials(X)
    if signals.shape[1:] != network.probes.shape[1:]:
        fail(
            f"Trials have shape {tuple(signals.shape[1:])} (channels, times), the fit "
            f"saw {tuple(network.probes.shape[1:])}",
            fix="give the same channels and the same window",
        )
    with torch.no_grad():
        denoised: Tensor = network(signals)
    return denoised


def _own_order(X: Tensor, codes: NDArray) -> NDArray:
    """Return an order of trials that their values and conditions alone decide."""
    flat = X.flatten(1)
    weights = torch.arange(flat.shape[1], dtype=X.dtype, device=X.device).cos()
    order: NDArray = np.lexsort(((flat @ weights).cpu().numpy(), codes))
    return order
