"""Simulated trials with a tokenizer and a model, for tests of what stands on both."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from eegtensor import Trials, simulate_trials
from eegtensor.domains import Domain
from eegtensor.tokens import EEGTokenizer
from eegtensor.tokens.pretrain import MaskedTokenModel


class Given(NamedTuple):
    """Trials, what was trained on them, and which are the test person's."""

    trials: Trials
    tokenizer: EEGTokenizer
    model: MaskedTokenModel
    test: NDArray

    def part(self, rows: NDArray) -> dict[str, Any]:
        meta = self.trials.metadata[rows]
        return {
            "subjects": meta["subject"].to_numpy(),
            "sessions": meta["session"].to_numpy(),
        }


def simulated() -> Given:
    """Return trials of four people, a tokenizer and a model of them."""
    torch.set_num_threads(1)
    trials = simulate_trials(
        n_subjects=4,
        n_sessions=1,
        n_trials=24,
        n_channels=8,
        snr=4.0,
        subject_shift=0.5,
    )
    tokenizer = EEGTokenizer(bits_per_second=40, n_states=4).fit(trials)
    tokens = tokenizer.encode(trials)
    model = MaskedTokenModel(width=32, depth=1, n_frames=2, epochs=4, batch_size=8)
    model.fit(tokens, tokenizer=tokenizer)
    test = (
        trials.metadata["subject"] == trials.metadata["subject"].iloc[-1]
    ).to_numpy()
    return Given(trials, tokenizer, model, test)


def domains_of(given: Given, rows: NDArray) -> list[Domain]:
    """Return the domain of each of these trials."""
    part = given.part(rows)
    return [
        Domain("", *n) for n in zip(part["subjects"], part["sessions"], strict=True)
    ]
