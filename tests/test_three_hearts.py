"""One recording through all three hearts: SPD network, tensor features, tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eegtensor import Trials, make_pipeline, read_trials, simulate_trials
from eegtensor.tokens import EEGTokenizer
from eegtensor.tokens.classifier import TokenClassifier
from eegtensor.tokens.pretrain import MaskedTokenModel
from eegtensor.transfer import TSMNetClassifier


def spd_network(trials: Trials, epochs: int) -> Any:
    return TSMNetClassifier(epochs=epochs, random_state=0)


def tensor_features(trials: Trials, epochs: int) -> Any:
    return make_pipeline("tucker-lr", align="euclidean", sfreq=trials.info["sfreq"])


def tokens(trials: Trials, epochs: int) -> Any:
    names = tuple(trials.info["ch_names"])
    # Fitted on signals without labels, as a tokenizer from elsewhere would be.
    made = EEGTokenizer(bits_per_second=52, n_states=32).fit(trials)
    model = MaskedTokenModel(width=32, depth=1, epochs=epochs, validation_fraction=0.0)
    model.fit(made.encode(trials), tokenizer=made)
    return TokenClassifier(made, model, ch_names=names, C=0.01)


HEARTS: dict[str, Callable[[Trials, int], Any]] = {
    "spd network": spd_network,
    "tensor features": tensor_features,
    "tokens": tokens,
}


def predictions(heart: str, train: Trials, test: Trials, epochs: int) -> NDArray:
    """Fit on one part, adapt to the other without its labels, predict it."""
    torch.set_num_threads(1)
    decoder = HEARTS[heart](train, epochs)
    here = {"subjects": train.subjects, "sessions": train.sessions}
    there = {"subjects": test.subjects, "sessions": test.sessions}
    decoder.fit(train.X, train.y, **here)
    decoder.adapt(test.X, **there)
    return np.asarray(decoder.predict(test.X, **there))


@pytest.fixture(scope="module")
def people() -> tuple[Trials, Trials]:
    """Return the trials of two simulated people, and those of a third."""
    trials = simulate_trials(
        n_subjects=3, n_sessions=1, n_trials=60, n_channels=8, snr=4.0, random_state=0
    )
    new = (trials.metadata["subject"] == "03").to_numpy()
    return trials[~new], trials[new]


@pytest.mark.parametrize("heart", HEARTS)
def test_a_new_person_is_told_better_than_by_chance(
    heart: str, people: tuple[Trials, Trials]
) -> None:
    train, test = people
    said = predictions(heart, train, test, epochs=8)
    assert said.shape == test.y.shape and set(said) <= set(train.y)
    right = float(np.mean(said == test.y))
    # Of 60 coin tosses, fewer than one in a hundred series has 39 heads.
    assert right >= 39 / 60, right
    print(f"{heart}: {right:.2f} of the trials")


@pytest.fixture(scope="module")
def recording(shared_data: Path) -> Trials:
    return read_trials(
        shared_data / "ssvep_exo" / "sub-01" / "ses-0",
        events={"rest": 1, "13 Hz": 2, "21 Hz": 3, "17 Hz": 4},
        tmin=1.0,
        tmax=5.0,
        band=(5, 45),
        on_bad="warn",
    )


@pytest.mark.filterwarnings("ignore::eegtensor._check.EEGTensorWarning")
@pytest.mark.parametrize("heart", HEARTS)
def test_a_real_recording_ends_in_predictions(heart: str, recording: Trials) -> None:
    odd = np.arange(len(recording)) % 2 == 1
    train, test = recording[~odd], recording[odd]
    assert len(test) == 16 and test.X.shape[1] == 8
    said = predictions(heart, train, test, epochs=2)
    assert said.shape == (16,) and set(said) <= set(train.y)
    assert np.array_equal(said, predictions(heart, train, test, epochs=2))
