"""Noise of sensors taken from real EEG, over time and over time and frequency.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_denoising_kinds.py
        [--people 10 15 20] [--seconds 20] [--form recording|trials]

Data: rest of people of the shared `eegmat` set (19 channels, 125 Hz) as one
recording or as its trials of 4 s, which count as clean. To every channel is added
noise of its own: white; pink (1/f in power from 1 Hz); bursts of muscle (20-55 Hz,
0.2-0.8 s, each in one channel, about a quarter of the time). Printed is the gain in
signal-to-noise ratio over the noisy input, in dB, averaged over people; 0 is the
input itself. What each method is told of the noise:

`sigma`: the deviation of each channel; `spectrum`: of each channel and frequency;
`blind`: nothing. Defaults were chosen on `eeglab_sample` and on person 3.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from eegtensor.tensor.denoising import denoise_nonlocal, noise_spectrum
from eegtensor.tensor.denoising._lapped import analyse, synthesise

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "eegmat"
SFREQ = 125.0
BINS, HOP = 16, 8
Method = Callable[[NDArray, NDArray], NDArray]


def recording(person: int, seconds: float) -> NDArray:
    """EEG in volts, (n_channels, n_times)."""
    with np.load(DATA / f"sub-{person:02d}_ses-0.npz") as file:
        X = np.concatenate(file["X"][: round(seconds / 4.0)] * file["scale"], axis=-1)
    return X - X.mean(axis=-1, keepdims=True)


def noise(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> NDArray:
    """Noise of deviation 1 over all channels."""
    N = rng.standard_normal(shape)
    n_times = shape[1]
    if kind == "pink":
        frequency = np.fft.rfftfreq(n_times, 1.0 / SFREQ)
        N = np.fft.irfft(np.fft.rfft(N) / np.sqrt(np.maximum(frequency, 1.0)), n_times)
    if kind == "muscle":
        sos = butter(4, [20.0, 55.0], "bandpass", fs=SFREQ, output="sos")
        envelope = np.zeros(shape)
        for channel in envelope:
            for _ in range(round(0.5 * n_times / SFREQ)):
                length = round(rng.uniform(0.2, 0.8) * SFREQ)
                at = rng.integers(0, n_times - length)
                channel[at : at + length] = np.hanning(length)
        N = envelope * sosfiltfilt(sos, N)
    return N / N.std()


def spectrum(N: NDArray) -> NDArray:
    """Deviation of the coefficients of known noise."""
    C = analyse(torch.tensor(N), BINS, HOP)
    return (0.5 * C.abs().square().mean(dim=-1)).sqrt().numpy()


def channel_pca(Y: NDArray, level: NDArray) -> NDArray:
    """Principal components above the largest of white noise."""
    Z = Y / level[:, None]
    values, vectors = np.linalg.eigh(Z @ Z.T / Z.shape[1])
    A = vectors[:, values > (1 + np.sqrt(len(Z) / Z.shape[1])) ** 2]
    return level[:, None] * (A @ (A.T @ Z))


def wiener_channels(Y: NDArray, level: NDArray) -> NDArray:
    return Y - level[:, None] ** 2 * np.linalg.solve(Y @ Y.T / Y.shape[1], Y)


def wiener_frequencies(Y: NDArray, level: NDArray) -> NDArray:
    C = analyse(torch.tensor(Y), BINS, HOP).numpy()
    power = 0.5 * (np.abs(C) ** 2).mean(axis=-1)
    gain = np.maximum(power - level.reshape(len(Y), -1) ** 2, 0.0) / power
    return synthesise(torch.tensor(C * gain[..., None]), HOP, Y.shape[1]).numpy()


def wiener_both(Y: NDArray, level: NDArray) -> NDArray:
    """Over channels, at each frequency."""
    C = analyse(torch.tensor(Y), BINS, HOP).numpy().swapaxes(0, 1)
    S = 0.5 * (C @ C.conj().swapaxes(1, 2)) / C.shape[2]
    level = np.broadcast_to(level.reshape(len(Y), -1), (len(Y), BINS)).T
    C = C - level[..., None] ** 2 * np.linalg.solve(S, C)
    return synthesise(torch.tensor(C.swapaxes(0, 1)), HOP, Y.shape[1]).numpy()


def nonlocal_method(form: str, **options: str) -> Method:
    def method(Y: NDArray, level: NDArray | None) -> NDArray:
        length = round(4.0 * SFREQ)
        if form == "recording":
            return denoise_nonlocal(Y, sigma=level, **options).X
        trials = Y.reshape(len(Y), -1, length).swapaxes(0, 1)
        found = denoise_nonlocal(np.ascontiguousarray(trials), sigma=level, **options)
        return found.X.swapaxes(0, 1).reshape(Y.shape)

    return method


def rows(form: str) -> list[tuple[str, str, Method]]:
    over_time = nonlocal_method(form)
    spectral = nonlocal_method(form, domain="time-frequency")
    unshared = nonlocal_method(form, domain="time-frequency", noise="unshared")
    return [
        ("channel PCA", "sigma", channel_pca),
        ("Wiener, channels", "sigma", wiener_channels),
        ("Wiener, frequencies", "sigma", wiener_frequencies),
        ("Wiener, both", "sigma", wiener_both),
        ("nonlocal time", "sigma", over_time),
        ("nonlocal time-frequency", "sigma", spectral),
        ("Wiener, frequencies", "spectrum", wiener_frequencies),
        ("Wiener, both", "spectrum", wiener_both),
        ("nonlocal time-frequency", "spectrum", spectral),
        ("Wiener, both, unshared", "blind", wiener_both),
        ("nonlocal time", "blind", over_time),
        ("nonlocal time-frequency", "blind", spectral),
        ("nonlocal tf, unshared", "blind", unshared),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, nargs="+", default=[10, 15, 20])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--form", choices=["recording", "trials"], default="recording")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = [(k, r) for k in ("white", "pink", "muscle") for r in (0, 10)]
    heads = "".join(f"{f'{kind} {ratio}':>10}" for kind, ratio in cases)
    print(f"gain in dB, {options.form}; noise and its input ratio in dB")
    print(f"{'':24}{'told':10}{heads}{'CPU s':>8}")
    for name, told, method in rows(options.form):
        table, begin = np.zeros((len(options.people), len(cases))), time.process_time()
        for i, person in enumerate(options.people):
            X = recording(person, options.seconds)
            for j, (kind, ratio) in enumerate(cases):
                N = noise(kind, X.shape, np.random.default_rng(person))
                N *= X.std() * 10 ** (-ratio / 20)
                Y = X + N
                level = {"sigma": N.std(axis=1), "spectrum": spectrum(N)}.get(told)
                if level is None and "Wiener" in name:
                    level = noise_spectrum(Y)
                left = np.square(method(Y, level) - X).sum()
                table[i, j] = 10 * np.log10(np.square(N).sum() / left)
        spent = (time.process_time() - begin) / table.size
        values = "".join(f"{v:10.2f}" for v in table.mean(axis=0))
        print(f"{name:24}{told:10}{values}{spent:8.2f}", flush=True)


if __name__ == "__main__":
    main()
