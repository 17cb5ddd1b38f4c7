"""Tokens with structure, made without a tokenizer."""

from __future__ import annotations

import numpy as np

from eegtensor.tokens import Tokens

ALPHABET = np.array([6, 6, 4])
NAMES = ("Fz", "Cz", "Pz", "Oz", "C3", "C4")


def streams(
    seed: int,
    n_trials: int = 40,
    n_frames: int = 4,
    names: tuple[str, ...] = NAMES,
    noisy: tuple[int, ...] = (),
) -> Tokens:
    """Return tokens that all channels of a frame share, but for one in ten.

    The third slot is sent where the first id is even. Channels in `noisy` have
    ids of no pattern.
    """
    rng = np.random.default_rng(seed)
    shape = (n_trials, len(names), n_frames, 3)
    ids = rng.integers(ALPHABET, size=shape)
    common = rng.integers(ALPHABET, size=(n_trials, 1, n_frames, 3))
    same = rng.random(shape) < 0.9
    same[:, list(noisy)] = False
    ids = np.where(same, common, ids).astype(np.int32)
    ids[..., 2] = np.where(ids[..., 0] % 2 == 0, ids[..., 2], -1)
    return Tokens(
        ids, np.ones(len(names)), 200.0, names, 200 * n_frames, ALPHABET.copy()
    )
