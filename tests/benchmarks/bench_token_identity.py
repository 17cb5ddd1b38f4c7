"""Whether tokens tell which recording they come from (specification: C4).

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_token_identity.py [--kinds ...]

Set B of the yardstick, all recordings, per channel at 104 bit/s: logistic regression
from windows of 10 s to the recording, trained on the first half of every recording and
tested on the second. Features: how often each code occurs (of a band's first level, or
of a band), against the logarithms of five band powers of every channel. A tokenizer
that tells much more than the powers has learned amplifiers, not brains.
"""

from __future__ import annotations

import argparse

import numpy as np
import scipy.signal
import torch
from bench_tokens import band_codes, yardstick
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eegtensor.tokens import EEGTokenizer
from eegtensor.tokens._band_kind import BandKind
from eegtensor.tokens._bands import edges_to
from eegtensor.tokens.evaluate import BANDS

SECONDS, SFREQ = 10, 200


def counts(ids: NDArray, made: EEGTokenizer) -> NDArray:
    """Return how often codes occur in each window, all channels together."""
    if isinstance(made.codec_, BandKind):
        codes = band_codes(ids, made.codec_.bands)[..., 0]
        n = 256
    else:
        codes, n = np.minimum(ids, 31), 32
    n_windows = codes.shape[1] // SECONDS
    codes = codes[:, : n_windows * SECONDS].reshape(
        len(codes), n_windows, SECONDS, codes.shape[-1]
    )
    by_window = codes.transpose(1, 3, 0, 2).reshape(n_windows, codes.shape[-1], -1)
    found = np.stack([(by_window == k).mean(axis=-1) for k in range(n)], axis=-1)
    if not isinstance(made.codec_, BandKind):
        found = np.add.reduceat(found, edges_to(found.shape[1])[:-1], axis=1)
    return np.sqrt(found.reshape(n_windows, -1))


def powers(x: NDArray) -> NDArray:
    """Return log powers of five bands in each window, channel by channel."""
    n = x.shape[1] // (SECONDS * SFREQ)
    rows = []
    for edges in BANDS.values():
        sos = scipy.signal.butter(3, edges, btype="bandpass", fs=SFREQ, output="sos")
        y = scipy.signal.sosfiltfilt(sos, x, axis=-1)[:, : n * SECONDS * SFREQ]
        rows.append(np.log((y.reshape(len(x), n, -1) ** 2).mean(axis=-1)))
    return np.concatenate(rows).T


def accuracy(features: list[NDArray]) -> float:
    """Return the balanced accuracy of telling recordings apart."""
    halves = [(f[: len(f) // 2], f[len(f) // 2 :]) for f in features]
    train, test = (np.concatenate([h[k] for h in halves]) for k in (0, 1))
    y, z = (
        np.repeat(np.arange(len(halves)), [len(h[k]) for h in halves]) for k in (0, 1)
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return float(balanced_accuracy_score(z, model.fit(train, y).predict(test)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", nargs="+", default=["band-rvq", "learned"])
    kinds = parser.parse_args().kinds
    torch.set_num_threads(1)
    train, test = yardstick().load("B")
    every = [*train, *test]
    base = accuracy([powers(x) for x in every])
    print(
        f"{len(every)} recordings; five band powers a channel: {base:.3f}", flush=True
    )
    for kind in kinds:
        made = EEGTokenizer(kind).fit(train, sfreq=200.0)
        found = accuracy([counts(made.encode(x).ids, made) for x in every])
        print(f"{kind}: {found:.3f} ({found - base:+.3f})", flush=True)


if __name__ == "__main__":
    main()
