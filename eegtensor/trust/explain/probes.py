"""What a decoder reads: its accuracy on trials that keep one thing and lose another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from eegtensor._check import (
    as_generator,
    check_count,
    check_lengths,
    check_number,
    check_option,
    check_signals,
    fail,
)
from eegtensor.training.batch import Batch
from eegtensor.training.network import Network
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.statistics import evaluating


def random_phases(X: NDArray, rng: np.random.Generator) -> NDArray:
    """Return trials with random phases: spectra and cross-spectra stay, waveforms go.

    A frequency's phase is turned by the same angle in all channels of a trial.
    """
    n = X.shape[-1]
    S = np.fft.rfft(X, axis=-1)
    turn = np.exp(2j * np.pi * rng.random((len(X), 1, S.shape[-1])))
    # The mean, and of an even length the last frequency, have no phase to turn.
    turn[..., 0] = 1.0
    if n % 2 == 0:
        turn[..., -1] = 1.0
    return np.fft.irfft(S * turn, n=n, axis=-1)


def flat_amplitudes(X: NDArray, rng: np.random.Generator) -> NDArray:
    """Return trials whose frequencies have one amplitude: phases stay, spectra go.

    The power of a channel and trial stays, its mean over time too.
    """
    n = X.shape[-1]
    S = np.fft.rfft(X, axis=-1)
    size = np.abs(S)
    rest = size[..., 1:]
    white = np.divide(S[..., 1:], rest, out=np.zeros_like(S[..., 1:]), where=rest > 0)
    flat = np.concatenate([S[..., :1], white], axis=-1)
    out = np.fft.irfft(flat, n=n, axis=-1)
    middle, mean = X.mean(axis=-1, keepdims=True), out.mean(axis=-1, keepdims=True)
    own, new = X.std(axis=-1, keepdims=True), out.std(axis=-1, keepdims=True)
    scale = np.divide(own, new, out=np.zeros_like(own), where=new > 0)
    found: NDArray = middle + (out - mean) * scale
    return found


def shuffled_patches(
    X: NDArray, rng: np.random.Generator, *, n_patches: int = 8
) -> NDArray:
    """Return trials cut into stretches of time in random order, one for each trial."""
    pieces = np.array_split(np.arange(X.shape[-1]), n_patches)
    out = np.empty_like(X)
    for i, x in enumerate(X):
        order = np.concatenate([pieces[j] for j in rng.permutation(n_patches)])
        out[i] = x[:, order]
    return out


def permuted_channels(X: NDArray, rng: np.random.Generator) -> NDArray:
    """Return trials with their channels in random order, one order for each trial."""
    order = np.argsort(rng.random(X.shape[:2]), axis=1)
    return np.take_along_axis(X, order[:, :, None], axis=1)


PROBES = {
    "random phases": random_phases,
    "flat amplitudes": flat_amplitudes,
    "shuffled patches": shuffled_patches,
    "permuted channels": permuted_channels,
}


def probe(
    estimator: Any,
    X: NDArray,
    y: ArrayLike,
    *,
    probes: Sequence[str] = tuple(PROBES),
    n_patches: int = 8,
    n_draws: int = 5,
    random_state: int | np.random.Generator | None = 0,
    **domains: Any,
) -> dict[str, float]:
    """Return a fitted decoder's balanced accuracy on trials changed in one way.

    A decoder of band power keeps its accuracy under random phases; one of evoked
    waveforms falls to chance, and keeps it under flat amplitudes; order of time is
    what shuffled patches lose, place on the head what permuted channels lose.

    Parameters
    ----------
    estimator : classifier
        Fitted to plain trials.
    X : ndarray, shape (n_trials, n_channels, n_times)
    y : array-like, shape (n_trials,)
    probes : sequence of "random phases" | "flat amplitudes" | "shuffled patches" | \
"permuted channels"
    n_patches : int
    n_draws : int
        Accuracies are means over draws.
    random_state : int | numpy.random.Generator | None
    **domains
        Metadata of predict, such as subjects and sessions.

    Returns
    -------
    accuracy : dict of str to float
        By probe; "plain" is the unchanged trials'.

    References
    ----------
    T. Zhang and Z. Zhu, "Interpreting adversarially trained convolutional neural
    networks", ICML 2019.
    """
    X = check_signals(X)
    check_lengths(len(X), y=y)
    check_count("n_draws", n_draws)
    if check_count("n_patches", n_patches, least=2) > X.shape[-1]:
        fail(f"n_patches={n_patches} for {X.shape[-1]} samples", fix="choose fewer")
    rng = as_generator(random_state)

    def score(given: NDArray) -> float:
        return float(balanced_accuracy_score(y, estimator.predict(given, **domains)))

    found = {"plain": score(X)}
    for name in probes:
        change = PROBES[check_option("probe", name, tuple(PROBES))]
        options = {"n_patches": n_patches} if name == "shuffled patches" else {}
        # Flat amplitudes are not random: one draw is all.
        draws = 1 if name == "flat amplitudes" else n_draws
        scores = [
            score(change(X, rng, **options).astype(X.dtype)) for _ in range(draws)
        ]
        found[name] = float(np.mean(scores))
    return found


def smooth_grad(
    model: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    n_draws: int = 25,
    scale: float = 0.15,
    domain: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the mean gradient of the target's logit over noisy copies of trials.

    Parameters
    ----------
    model : torch.nn.Module
        Read in evaluation mode.
    x : Tensor, shape (n_trials, n_channels, n_times)
    target : Tensor of int64, shape (n_trials,)
    n_draws : int
    scale : float
        Noise in standard deviations of the channel; 0 is the plain gradient.
    domain : Tensor of int64, shape (n_trials,) | None
    generator : torch.Generator | None
        None starts one at seed 0.

    Returns
    -------
    gradient : Tensor, of the shape of x
        Per standard deviation of the channel: the same for volts and microvolt.

    References
    ----------
    D. Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017.
    """
    check_count("n_draws", n_draws)
    check_number("scale", scale, least=0.0)
    if generator is None:
        generator = torch.Generator(x.device).manual_seed(0)
    x = x.detach()
    size = channel_scale(x)
    total = torch.zeros_like(x)
    network = Network(model)
    with evaluating(model), torch.enable_grad():
        for _ in range(n_draws):
            noise = torch.randn(
                x.shape, generator=generator, dtype=x.dtype, device=x.device
            )
            noisy = (x + scale * size * noise).requires_grad_(True)
            logits = network(Batch(noisy, domain=domain))
            chosen = logits.gather(1, target[:, None]).sum()
            total += torch.autograd.grad(chosen, noisy)[0]
    return total / n_draws * size
