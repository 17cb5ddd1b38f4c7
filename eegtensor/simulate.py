"""Many people's EEG with subject and session shift of a chosen strength."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfftfreq

from eegtensor import _headmodel
from eegtensor._check import RandomState, as_generator, fail
from eegtensor._headmodel import Dipoles, Head
from eegtensor.trials import Trials

# A class and the electrode over the cortex whose rhythms it weakens.
TASKS: dict[str, str | None] = {
    "left_hand": "C4",
    "right_hand": "C3",
    "feet": "Cz",
    "tongue": "C6",
    "rest": None,
    "subtraction": "F3",
    "word_association": "FT7",
    "navigation": "P4",
}
_RHYTHMIC = [electrode for electrode in TASKS.values() if electrode]
_BACKGROUND = (
    "Fp1 Fp2 F7 F4 F8 FC3 FC4 T7 T8 CP3 CP4 P7 P3 Pz P8 PO7 PO8 O1 Oz O2"
).split()
_N_RHYTHMIC = len(_RHYTHMIC)

# Amplitudes at rest: root mean square of a source in ampere-metres.
_PINK = 25e-9
_MU = 58e-9
_BETA = 25e-9
_NOISE = 3e-6  # sensors, volts
_MU_HZ, _BETA_HZ = 10.5, 21.0
_DEPTH = 0.55  # weakening of a rhythm by its task, log amplitude at snr=1
_RESTLESS = 0.35  # trial-to-trial standard deviation of a rhythm, log amplitude
_PAUSE = 2.0  # seconds between trials

# What differs between people at shift 1, as standard deviations.
_DEGREES = 3.0
_STRENGTH = 0.6  # log amplitude of a source
_GAIN = 0.15  # log gain of an electrode
_PEAK = 0.5  # hertz of the individual alpha frequency


class _Person(NamedTuple):
    """How one person's sources reach the electrodes, in one sitting or all."""

    dipoles: Dipoles
    strength: NDArray  # (n_sources,), log amplitude
    gain: NDArray  # (n_channels,), log gain
    peak: float  # hertz above the population's mu frequency, within +-2.5


def simulate_trials(
    *,
    n_subjects: int = 6,
    n_sessions: int = 2,
    n_trials: int = 40,
    n_classes: int = 2,
    n_channels: int = 16,
    sfreq: float = 128.0,
    subject_shift: float = 1.0,
    session_shift: float = 0.5,
    class_prior_shift: float = 0.0,
    snr: float = 1.0,
    duration: float = 2.0,
    head: str = "sphere",
    random_state: RandomState = 0,
) -> Trials:
    """Simulate imagery of many people whose EEG differs as real people's does.

    Every trial is a sum of cortical dipoles seen through a head model: 1/f
    background everywhere, mu and beta rhythms over motor and association
    cortex that a class weakens (event-related desynchronisation) over its own
    area, and white sensor noise. People, and sittings of one person, differ in
    where their dipoles lie and point, how strong each is, in electrode gains
    and in the alpha frequency: mostly a congruence of the covariances, so
    recentring every (subject, session) to the identity mends most of it, and
    dipole positions leave a rest.

    Parameters
    ----------
    n_subjects, n_sessions : int
        People, and sittings of each.
    n_trials : int
        Trials a session, shared equally by the classes.
    n_classes : int
        2 to 8, in the order of `TASKS`: left_hand, right_hand, feet, tongue,
        rest, subtraction, word_association, navigation.
    n_channels : int
        Electrodes of the 10-05 system, motor cortex first.
    sfreq : float
        Sampling rate in hertz, at least 60.
    subject_shift, session_shift : float
        Size of the differences between people and between a person's
        sessions, 0 to 5; 0 makes all alike.
    class_prior_shift : float
        In [0, 1): how far each person prefers one class; the preferred class
        alternates from person to person, and none is lost.
    snr : float
        Factor on the classes' effect on log amplitude, 0 to 5; 0 leaves
        nothing to decode.
    duration : float
        Seconds of a trial.
    head : "sphere" | "random"
        Three-shell sphere solved by MNE, or a random mixing.
    random_state : int | Generator | None
        One seed gives the same bytes. People have streams of their own: more
        people or sessions leave the earlier ones as they are.

    Returns
    -------
    trials : Trials
        X in volts, float64, shape (n_subjects * n_sessions * n_trials,
        n_channels, duration * sfreq); tmin is 0. Metadata: dataset
        "simulated", subject "01"..., session "0"..., run "0", event_sample,
        event_code.

    Raises
    ------
    EEGTensorError
        If a parameter is out of its range.

    Notes
    -----
    Event-related desynchronisation: Pfurtscheller and Lopes da Silva,
    Clin. Neurophysiol. 110 (1999) 1842-1857.
    """
    for name, count in {
        "n_subjects": n_subjects,
        "n_sessions": n_sessions,
        "n_channels": n_channels,
    }.items():
        _check_count(name, count, 1)
    _check_count("n_classes", n_classes, 2, len(TASKS))
    _check_count("n_trials", n_trials, n_classes)
    for name, size in {
        "subject_shift": subject_shift,
        "session_shift": session_shift,
        "snr": snr,
    }.items():
        _check_number(name, size, 0.0, 5.0)
    _check_number("class_prior_shift", class_prior_shift, 0.0, 1.0, open_end=True)
    _check_number("sfreq", sfreq, 60.0, 1e5)
    _check_number("duration", duration, 0.1, 3600.0)

    classes = list(TASKS)[:n_classes]
    n_times = max(2, round(duration * sfreq))
    # One stream a person: a seventh person must not change the first six.
    streams = _seed(random_state).spawn(1 + n_subjects)
    rng = np.random.default_rng(streams[0])
    info = _headmodel.make_info(_headmodel.channel_names(n_channels), sfreq)
    everyone = _Person(
        _headmodel.place(_RHYTHMIC + _BACKGROUND, rng),
        np.zeros(_N_RHYTHMIC + len(_BACKGROUND)),
        np.zeros(n_channels),
        0.0,
    )
    model = _headmodel.make_head(head, info, rng)

    X, y, tables = [], [], []
    for index, stream in enumerate(streams[1:]):
        own, *sittings = stream.spawn(1 + n_sessions)
        person = _shift(everyone, subject_shift, np.random.default_rng(own))
        counts = _class_counts(n_trials, n_classes, index, class_prior_shift)
        for session, seed in enumerate(sittings):
            rng = np.random.default_rng(seed)
            sitting = _shift(person, session_shift, rng)
            # In random order, or the first 20 % of a session would be one class.
            codes = rng.permutation(np.repeat(np.arange(n_classes), counts))
            X.append(_signals(sitting, model, classes, codes, n_times, sfreq, snr, rng))
            y.append(np.asarray(classes)[codes])
            tables.append(_table(index, session, codes, duration, sfreq))
    metadata = pd.concat(tables, ignore_index=True)
    return Trials(np.concatenate(X), np.concatenate(y), metadata, info, 0.0)


def _shift(person: _Person, size: float, rng: np.random.Generator) -> _Person:
    dipoles = _headmodel.move(person.dipoles, _DEGREES * size, rng)
    # Nobody's alpha is ten times another's: the tails are cut.
    strength, gain, peak = (
        spread * size * np.clip(rng.standard_normal(n), -2, 2)
        for spread, n in (
            (_STRENGTH, len(person.strength)),
            (_GAIN, len(person.gain)),
            (_PEAK, 1),
        )
    )
    return _Person(
        dipoles,
        person.strength + strength,
        person.gain + gain,
        float(np.clip(person.peak + peak[0], -2.5, 2.5)),
    )


def _signals(
    person: _Person,
    head: Head,
    classes: list[str],
    codes: NDArray,
    n_times: int,
    sfreq: float,
    snr: float,
    rng: np.random.Generator,
) -> NDArray:
    """Return one sitting's trials in volts, shape (n_trials, n_channels, n_times)."""
    gain = np.exp(person.gain)[:, np.newaxis]
    leadfield = gain * head.leadfield(person.dipoles) * np.exp(person.strength)
    rhythmic = leadfield[:, :_N_RHYTHMIC]
    # Longer than the trial: a spectrum's inverse repeats itself end to end.
    n_fft = next_fast_len(n_times + round(0.5 * sfreq), real=True)
    freqs = rfftfreq(n_fft, 1 / sfreq)
    level = _rhythm_levels(classes, codes, snr, rng)

    pink = _noise(rng, (len(codes), leadfield.shape[1]), _pink(freqs), n_fft)
    spectrum = leadfield @ (_PINK * pink)
    for peak, width, size in (
        (_MU_HZ + person.peak, 1.2, _MU),
        (_BETA_HZ + 2 * person.peak, 2.5, _BETA),
    ):
        shape = np.exp(-0.5 * ((freqs - peak) / width) ** 2)
        rhythm = _noise(rng, (len(codes), _N_RHYTHMIC), shape, n_fft)
        spectrum += rhythmic @ (size * level[:, :, np.newaxis] * rhythm)
    X = irfft(spectrum, n_fft, axis=-1)[..., :n_times]
    return X + _NOISE * rng.standard_normal(X.shape)


def _rhythm_levels(
    classes: list[str], codes: NDArray, snr: float, rng: np.random.Generator
) -> NDArray:
    """Return the amplitude of every rhythm, shape (n_trials, n_rhythmic)."""
    effect = np.zeros((len(classes), _N_RHYTHMIC))
    for code, name in enumerate(classes):
        electrode = TASKS[name]
        if electrode is not None:
            effect[code] = 0.25 * _DEPTH
            effect[code, _RHYTHMIC.index(electrode)] = -_DEPTH
    restless = _RESTLESS * rng.standard_normal((len(codes), _N_RHYTHMIC))
    return np.exp(snr * effect[codes] + restless)


def _noise(
    rng: np.random.Generator, shape: tuple[int, int], amplitude: NDArray, n_fft: int
) -> NDArray:
    """Return spectra of Gaussian noise whose signals have unit root mean square."""
    parts = rng.standard_normal((*shape, len(amplitude), 2))
    # A coefficient a of positive frequency adds 2 |a / n_fft|^2 to the power.
    scale = 0.5 * n_fft / np.sqrt(np.sum(amplitude**2))
    return scale * amplitude * parts.view(np.complex128)[..., 0]


def _pink(freqs: NDArray) -> NDArray:
    """Return the amplitude of 1/f noise, high-passed at 1 Hz like an amplifier."""
    amplitude = np.zeros_like(freqs)
    passed = freqs >= 1.0
    amplitude[passed] = 1 / np.sqrt(freqs[passed])
    return amplitude


def _class_counts(
    n_trials: int, n_classes: int, subject: int, prior_shift: float
) -> NDArray[np.int64]:
    """Return trials of each class; the preferred class alternates over people."""
    prior = np.full(n_classes, (1 - prior_shift) / n_classes)
    prior[subject % n_classes] += prior_shift
    free = (n_trials - n_classes) * prior
    counts = 1 + np.floor(free).astype(np.int64)
    rest = np.argsort(np.floor(free) - free, kind="stable")
    counts[rest[: n_trials - counts.sum()]] += 1
    return counts


def _table(
    subject: int, session: int, codes: NDArray, duration: float, sfreq: float
) -> pd.DataFrame:
    onsets = (_PAUSE + np.arange(len(codes)) * (duration + _PAUSE)) * sfreq
    return pd.DataFrame(
        {
            "dataset": "simulated",
            "subject": f"{subject + 1:02d}",
            "session": str(session),
            "run": "0",
            "event_sample": np.round(onsets).astype(np.int64),
            "event_code": codes.astype(np.int64) + 1,
        }
    )


def _seed(random_state: RandomState) -> np.random.SeedSequence:
    if random_state is None:
        return np.random.SeedSequence()
    if isinstance(random_state, (int, np.integer)) and random_state < 0:
        fail(f"random_state={random_state} is negative", fix="give an int from 0 up")
    rng = as_generator(random_state)
    if isinstance(random_state, np.random.Generator):
        return np.random.SeedSequence(int(rng.integers(2**63)))
    return np.random.SeedSequence(int(random_state))


def _check_count(name: str, value: Any, low: int, high: int | None = None) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        upper = "" if high is None else f" to {high}"
        fail(f"{name}={value!r} is out of range", fix=f"give an int from {low}{upper}")


def _check_number(
    name: str, value: Any, low: float, high: float, *, open_end: bool = False
) -> None:
    number = isinstance(value, (int, float, np.integer, np.floating))
    if not number or not low <= value <= high or (open_end and value == high):
        bracket = ")" if open_end else "]"
        fail(
            f"{name}={value!r} is out of range",
            fix=f"give a number in [{low:g}, {high:g}{bracket}",
        )
