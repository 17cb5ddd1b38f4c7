"""Single trials of evoked responses denoised, by us and by what is in use.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_denoising.py
        [--only real|planted|sensor] [--draws 2] [--networks 2]

Data: `eeglab_sample` of the shared files (30 EEG channels at 128 Hz, 1-40 Hz; 80
"square" stimuli 3 s apart).

`real`: the trials in three parts. Methods learn from the first and denoise the
second; each denoised trial is correlated (channels x time) with the average of the
*third*, as recorded. Six permutations of the parts. A method that answers every
trial with one waveform does well here, and only here.
`planted`: a known response (two waves, latency +- 30 ms, amplitude +- 30 %) in
stretches of the same recording; learned from 60 trials, relative error
||found - truth|| / ||truth|| over 40 new ones; 1 is what zero has.
`sensor`: white noise added to the recorded trials; relative error against them.
CPU seconds are of fit and application together.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from eegtensor.tensor.denoising import apply_paired, denoise_nonlocal, fit_paired

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "eeglab_sample"
SFREQ = 128.0
N_TIMES = 128
Method = Callable[[NDArray, NDArray], NDArray]


def recording() -> tuple[NDArray, NDArray]:
    """EEG in volts, 1-40 Hz, and the samples of the stimuli."""
    raw = mne.io.read_raw_eeglab(
        DATA / "eeglab_data.set", preload=True, verbose="error"
    )
    events, names = mne.events_from_annotations(raw, verbose="error")
    raw.drop_channels(["EOG1", "EOG2"])
    raw.filter(1.0, 40.0, verbose="error")
    return raw.get_data(), events[events[:, 2] == names["square"], 0]


def as_recorded(X: NDArray, new: NDArray) -> NDArray:
    return new


def low_pass(X: NDArray, new: NDArray) -> NDArray:
    sos = butter(4, 12.0, fs=SFREQ, output="sos")
    return sosfiltfilt(sos, new, axis=-1)


def channel_pca(X: NDArray, new: NDArray) -> NDArray:
    """Six leading components of the channels."""
    flat = X.swapaxes(0, 1).reshape(X.shape[1], -1)
    A = np.linalg.svd(flat @ flat.T)[0][:, :6]
    return (A @ A.T) @ new


def xdawn(n_components: int) -> Method:
    def method(X: NDArray, new: NDArray) -> NDArray:
        info = mne.create_info(X.shape[1], SFREQ, "eeg")

        def epochs(Z: NDArray) -> mne.EpochsArray:
            return mne.EpochsArray(Z, info, verbose="error")

        found = mne.preprocessing.Xdawn(n_components, correct_overlap=False, reg=0.01)
        found.fit(epochs(X))
        return found.apply(epochs(new))["1"].get_data(copy=False)

    return method


def average(X: NDArray, new: NDArray) -> NDArray:
    """The average of the trials learned from, whatever the new trial is."""
    return np.broadcast_to(X.mean(axis=0), new.shape)


def scaled_average(X: NDArray, new: NDArray) -> NDArray:
    """The Wiener filter of one waveform: the average, scaled to fit the trial."""
    mean = X.mean(axis=0)
    rest = (X - mean).swapaxes(0, 1).reshape(X.shape[1], -1)
    S = rest @ rest.T / rest.shape[1]
    weight = np.linalg.solve(S + 1e-6 * np.trace(S) * np.eye(len(S)), mean)
    energy = (weight * mean).sum()
    scale = (new * weight).sum(axis=(1, 2)) / energy
    # Of amplitudes 1 +- 0.3 as planted, whose error has variance 1 / energy.
    scale = 1.0 + 0.09 / (0.09 + 1.0 / energy) * (scale - 1.0)
    return scale[:, None, None] * mean


def nonlocal_method(noise: str) -> Method:
    def method(X: NDArray, new: NDArray) -> NDArray:
        return denoise_nonlocal(new, noise=noise).X

    return method


def paired(n_networks: int) -> Method:
    def method(X: NDArray, new: NDArray) -> NDArray:
        return apply_paired(fit_paired(X, n_networks=n_networks), new)

    return method


def methods(n_networks: int) -> dict[str, Method]:
    return {
        "as recorded": as_recorded,
        "low-pass 12 Hz": low_pass,
        "channel PCA 6": channel_pca,
        "MNE Xdawn 2": xdawn(2),
        "MNE Xdawn 6": xdawn(6),
        "average": average,
        "scaled average": scaled_average,
        "nonlocal white": nonlocal_method("white"),
        "nonlocal unrepeated": nonlocal_method("unrepeated"),
        "paired": paired(n_networks),
    }


def timed(method: Method, X: NDArray, new: NDArray) -> tuple[NDArray, float]:
    begin = time.process_time()
    found = method(X, new)
    return found, time.process_time() - begin


def correlation(found: NDArray, reference: NDArray) -> float:
    flat = found.reshape(len(found), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    goal = reference.ravel() - reference.mean()
    size = np.linalg.norm(flat, axis=1) * np.linalg.norm(goal)
    return float((flat @ goal / np.maximum(size, 1e-300)).mean())


def real(signals: NDArray, events: NDArray, options: argparse.Namespace) -> None:
    start = events + round(-0.2 * SFREQ)
    X = np.stack([signals[:, s : s + N_TIMES] for s in start])
    parts = [X[k::3] for k in range(3)]
    print(f"\n{'real: correlation with the average of other trials':52}CPU s")
    for name, method in methods(options.networks).items():
        rows, seconds = [], []
        for a, b, c in itertools.permutations(range(3)):
            found, spent = timed(method, parts[a], parts[b])
            rows.append(correlation(found, parts[c].mean(axis=0)))
            seconds.append(spent)
        spread = np.ptp(rows)
        print(
            f"{name:24}{np.mean(rows):8.3f}  (range {spread:.3f})"
            f"{np.mean(seconds):12.2f}",
            flush=True,
        )


def planted_response(n: int, signals: NDArray, rng: np.random.Generator) -> NDArray:
    """Two waves, as smooth over channels as the recording; one latency, amplitude."""
    t = np.arange(N_TIMES) / SFREQ - 0.2
    at = t - 0.03 * rng.standard_normal((n, 1))
    waves = [
        np.exp(-0.5 * ((at - 0.15) / 0.03) ** 2) * np.cos(40 * (at - 0.15)),
        np.exp(-0.5 * ((at - 0.38) / 0.07) ** 2),
    ]
    root = np.linalg.cholesky(np.cov(signals))
    patterns = np.random.default_rng(7).standard_normal((2, len(signals))) @ root.T
    X = sum(p[:, None] * w[:, None] for p, w in zip(patterns, waves, strict=True))
    return X * (1.0 + 0.3 * rng.standard_normal((n, 1, 1)))


def error(found: NDArray, truth: NDArray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def planted(signals: NDArray, options: argparse.Namespace) -> None:
    levels = (-15, -10, -5, 0)
    heads = "".join(f"{f'{level} dB':>9}" for level in levels)
    print(f"\n{'planted: relative error, by power of the response':24}")
    print(f"{'':24}{heads}{'CPU s':>9}")
    for name, method in methods(options.networks).items():
        if options.method not in name:
            continue
        table = np.zeros((options.draws, len(levels)))
        seconds = []
        for draw, (k, level) in itertools.product(
            range(options.draws), enumerate(levels)
        ):
            rng = np.random.default_rng(draw)
            start = rng.integers(0, signals.shape[1] - N_TIMES, 100)
            N = np.stack([signals[:, s : s + N_TIMES] for s in start])
            S = planted_response(100, signals, rng)
            S *= 10 ** (level / 20) * np.sqrt((N**2).mean() / (S**2).mean())
            found, spent = timed(method, (S + N)[:60], (S + N)[60:])
            table[draw, k] = error(found, S[60:])
            seconds.append(spent)
        values = "".join(f"{v:9.3f}" for v in table.mean(axis=0))
        print(f"{name:24}{values}{np.mean(seconds):9.2f}", flush=True)


def sensor(signals: NDArray, events: NDArray, options: argparse.Namespace) -> None:
    start = events + round(-0.2 * SFREQ)
    X = np.stack([signals[:, s : s + N_TIMES] for s in start])
    levels = (0.1, 0.3, 1.0)
    heads = "".join(f"{level:9.1f}" for level in levels)
    print("\nsensor: relative error, by noise over the signals' deviation")
    print(f"{'':24}{heads}{'CPU s':>9}")
    for name in ("as recorded", "low-pass 12 Hz", "channel PCA 6", "nonlocal white"):
        row, seconds = [], []
        for level in levels:
            N = np.random.default_rng(0).standard_normal(X.shape)
            noisy = X + level * X.std() * N
            found, spent = timed(methods(1)[name], noisy, noisy)
            row.append(error(found, X))
            seconds.append(spent)
        values = "".join(f"{v:9.3f}" for v in row)
        print(f"{name:24}{values}{np.mean(seconds):9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["real", "planted", "sensor"])
    parser.add_argument("--method", default="", help="part of a name, for planted")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--networks", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    mne.set_log_level("ERROR")
    signals, events = recording()
    if options.only in (None, "sensor"):
        sensor(signals, events, options)
    if options.only in (None, "real"):
        real(signals, events, options)
    if options.only in (None, "planted"):
        planted(signals, options)


if __name__ == "__main__":
    main()
