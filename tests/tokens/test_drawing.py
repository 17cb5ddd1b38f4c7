"""Tokens that a trained model draws decode to what EEG looks like."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.signal
import torch
from numpy.typing import NDArray

from eegtensor.tokens import EEGTokenizer, MaskedTokenModel, Tokens

SFREQ = 200.0
NAMES = ("Fz", "Cz", "Pz", "Oz", "C3", "C4")
EDGES = (1, 4, 8, 13, 30)


class Drawn(NamedTuple):
    truth: NDArray
    coded: NDArray
    drawn: NDArray
    half: NDArray
    random: NDArray


def recording(seed: int, seconds: int) -> NDArray:
    """Return six channels of two sources: 1/f with an alpha rhythm, and 1/f."""
    rng = np.random.default_rng(seed)
    n = int(seconds * SFREQ)
    f = np.fft.rfftfreq(n, 1 / SFREQ)
    falling = np.where((f > 0.5) & (f < 40), 1 / np.maximum(f, 1), 0)
    shapes = np.stack([falling + 0.3 * np.exp(-((f - 10) ** 2)), falling])
    sources = np.fft.irfft(np.fft.rfft(rng.standard_normal((2, n))) * shapes, n)
    mixing = np.array([[1, 1, 1, 0, 0, 1], [0, 0, 0.5, 1, 1, -1.0]]).T
    x = mixing @ sources
    return 2e-5 * x / x.std()


@pytest.fixture(scope="module")
def found() -> Drawn:
    torch.set_num_threads(1)
    known: dict[str, Any] = {"sfreq": SFREQ, "ch_names": NAMES}
    tokenizer = EEGTokenizer(bits_per_second=40, n_states=16)
    tokenizer.fit(recording(0, 60), **known)
    train, test = (
        tokenizer.encode(recording(*of), **known) for of in ((1, 160), (2, 60))
    )
    model = MaskedTokenModel(
        width=32, depth=1, n_frames=2, epochs=20, batch_size=4, lr=5e-3, dropout=0.0
    ).fit(train, tokenizer=tokenizer)
    # Nothing is kept: every token is drawn.
    mask = np.ones(test.ids.shape[:-1], dtype=bool)
    drawn = model.sample(test, mask, n_steps=12, random_state=0)
    rng = np.random.default_rng(0)
    ids = np.where(test.ids >= 0, rng.integers(test.alphabet, size=test.ids.shape), -1)

    def decoded(tokens: Tokens) -> NDArray:
        return tokenizer.decode(tokens, fill=0.5)

    random = replace(test, ids=ids.astype(test.ids.dtype))
    half = model.sample(test, rng.random(mask.shape) < 0.5, random_state=0)
    return Drawn(
        recording(2, 60),
        decoded(test),
        decoded(drawn),
        decoded(half),
        decoded(random),
    )


def powers(x: NDArray) -> NDArray:
    """Return decibels of bands, (n_channels, n_bands)."""
    f, p = scipy.signal.welch(x, SFREQ, nperseg=400)
    bands = [p[:, (f >= a) & (f < b)].mean(axis=1) for a, b in pairwise(EDGES)]
    return 10 * np.log10(np.stack(bands, axis=1))


def correlations(x: NDArray) -> NDArray:
    return np.corrcoef(x)[np.triu_indices(len(x), 1)]


def test_spectra_are_those_of_eeg(found: Drawn) -> None:
    # Against what true tokens give: what they leave out cannot be drawn.
    drawn, half, random = (
        np.abs(powers(x) - powers(found.coded)).mean()
        for x in (found.drawn, found.half, found.random)
    )
    assert drawn < 1.2
    assert half < 0.8
    assert drawn < 0.7 * random


def test_channels_go_together_as_those_of_eeg(found: Drawn) -> None:
    truth, drawn, random = (
        correlations(x) for x in (found.truth, found.drawn, found.random)
    )
    assert np.abs(drawn - truth).mean() < 0.7 * np.abs(random - truth).mean()
    assert np.corrcoef(drawn, truth)[0, 1] > 0.7
    # Ids drawn one by one have no such pattern.
    assert np.abs(random).max() < 0.2
