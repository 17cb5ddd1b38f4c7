"""Adaptation modes: what a decoder sees of a person before it is scored on them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eegtensor._check import fail
from eegtensor.domains import Domain

# MOABB 1.7's CrossSubjectMode values and other spellings -> our names.
SYNONYMS = {
    "train": "none",
    "train_trialwise": "none-trialwise",
    "train_and_target_unlabeled_20p": "20%",
    "train_and_target_unlabeled_50p": "50%",
    "train_and_target_unlabeled_full": "full",
    "train_and_target_labeled_20p": "labelled-20%",
    "train_and_target_labeled_50p": "labelled-50%",
    "trialwise": "online",
    "100%": "full",
}
_PATTERN = re.compile(
    r"(?P<labelled>labell?ed-|calibrate-)?(?P<number>[0-9]+)(?P<percent>%)?(?P<random>-random)?"
)


@dataclass(frozen=True)
class Mode:
    """One way to use trials of a held-out (subject, session).

    Attributes
    ----------
    name : str
        As written in tables: none, none-trialwise, online, NN%, NN%-random,
        full, labelled-k (k trials a class), labelled-NN% or calibrate-k.
    labelled : bool
        Whether the trials come with labels.
    calibrates : bool
        Whether these go to `calibrate` of a copy of the fitted decoder, session by
        session. Other labelled trials join the source in `fit`.
    percent : int
        Share of the session given, 0 where it is not a share.
    per_class : int
        Trials a class given, 0 where it is a share.
    part : str
        "first" or "random"; "" where nothing or everything is given.
    trialwise : bool
        Whether trials are predicted one at a time.
    online : bool
        Whether each trial updates the decoder (`partial_adapt`) just before it
        is predicted.
    """

    name: str
    labelled: bool = False
    calibrates: bool = False
    percent: int = 0
    per_class: int = 0
    part: str = ""
    trialwise: bool = False
    online: bool = False

    @property
    def transductive(self) -> bool:
        """Whether adaptation sees all the trials that are scored."""
        return self.percent == 100

    @property
    def keeps_back(self) -> tuple[str, int, int]:
        """What decides which trials are not scored: modes that agree score the same.

        Numbers of trials are no substitute: 20% and 20%-random score as many.
        """
        if self.transductive or not self.part:
            return "", 0, 0
        return self.part, self.percent, self.per_class

    @property
    def adapts(self) -> bool:
        """Whether unlabelled target trials are used."""
        return self.online or (self.percent > 0 and not self.labelled)

    @property
    def joins_source(self) -> bool:
        """Whether labelled target trials are among those of `fit`."""
        return self.labelled and not self.calibrates

    @property
    def sees(self) -> str:
        """What of the held-out session the decoder saw before a prediction."""
        if self.labelled:
            # Those of one class may be later than scored ones of another; and one
            # fit serves all sessions of a fold, as in MOABB, so that trials of a
            # later session are there when an earlier one is scored.
            return "other trials, with labels"
        if self.online:
            return "this and earlier trials"
        if self.transductive:
            return "the scored trials"
        if self.part == "random":
            return "other trials"
        return "earlier trials" if self.part else "nothing"


def parse_mode(name: str) -> Mode:
    """Return the mode of a name, ours or a value of MOABB's CrossSubjectMode.

    Raises
    ------
    EEGTensorError
        If the name is unknown or the share is out of range.
    """
    text = str(getattr(name, "value", name)).strip().lower()
    # None is more likely a forgotten argument than a wish for no adaptation.
    text = SYNONYMS.get(text, text) if name is not None else ""
    if text == "none":
        return Mode("none")
    if text == "none-trialwise":
        return Mode(text, trialwise=True)
    if text == "online":
        return Mode(text, trialwise=True, online=True)
    if text == "full":
        return Mode(text, percent=100)
    match = _PATTERN.fullmatch(text)
    if match is None or not (match["percent"] or match["labelled"]):
        fail(
            f"adapt={name!r} is not known",
            fix="choose none, none-trialwise, online, NN% (as 20%), NN%-random, "
            "full, labelled-k (as labelled-5), labelled-NN% or calibrate-k",
        )
    number, labelled = int(match["number"]), bool(match["labelled"])
    calibrates = match["labelled"] == "calibrate-"
    if calibrates and match["percent"]:
        fail(
            f"adapt={name!r} is a share",
            why="It may hold no trial of a class, which `calibrate` refuses",
            fix="give a number of trials a class, as calibrate-5",
        )
    limit = 50 if labelled else 99
    if number < 1 or (match["percent"] and number > limit):
        fail(
            f"adapt={name!r} is out of range",
            why="A labelled share is at most 50 %, as in MOABB" if labelled else None,
            fix=f"give from 1 to {limit} %" if match["percent"] else "give 1 or more",
        )
    part = "random" if match["random"] else "first"
    prefix = "labelled-" if labelled else ""
    prefix = "calibrate-" if calibrates else prefix
    suffix = "-random" if match["random"] else ""
    if match["percent"]:
        canonical = f"{prefix}{number}%{suffix}"
        return Mode(canonical, labelled=labelled, percent=number, part=part)
    return Mode(
        f"{prefix}{number}{suffix}",
        labelled=True,
        calibrates=calibrates,
        per_class=number,
        part=part,
    )


def parse_modes(adapt: str | Sequence[str]) -> list[Mode]:
    """Return the modes of one name or of several, without repeats."""
    names: list[Any] = [adapt]
    if isinstance(adapt, Iterable) and not isinstance(adapt, str):
        names = list(adapt)
    if not names:
        fail("adapt is empty", fix="name at least one mode, for example 'none'")
    return list({mode.name: mode for mode in map(parse_mode, names)}.values())


@dataclass(frozen=True)
class Part:
    """One held-out session under one mode, as indices of trials.

    Attributes
    ----------
    domain : Domain
    adapt : ndarray of int
        Trials given to the decoder, with labels only in labelled modes.
    scored : ndarray of int
        Trials that are scored.
    common : ndarray of int
        The last ceil(n / 2) of the session's n held-out trials: the same under
        every mode, and what "50%" leaves to score.
    """

    domain: Domain
    adapt: NDArray[np.int64]
    scored: NDArray[np.int64]
    common: NDArray[np.int64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Trials to predict: those scored, then the rest of the common set."""
        extra = np.setdiff1d(self.common, self.scored)
        return np.concatenate([self.scored, extra])


def split_session(
    mode: Mode,
    trials: NDArray[np.int64],
    domain: Domain,
    *,
    y: NDArray | None = None,
    seed: int = 0,
) -> Part:
    """Divide one held-out session's trials into given and scored ones.

    A share of n trials is floor(share * n) of them, at least 1, at most n - 1,
    in their order and not stratified by class: MOABB's rule.

    Parameters
    ----------
    mode : Mode
    trials : ndarray of int
        The session's held-out trials in their order.
    domain : Domain
    y : ndarray, shape (n_trials_of_the_session,) | None
        Their labels; read by labelled-k and calibrate-k alone.
    seed : int
        For random parts; the draw depends on it and on the domain only.

    Raises
    ------
    EEGTensorError
        If a class has too few trials for labelled-k or calibrate-k.
    """
    n_trials = len(trials)
    given = np.zeros(n_trials, dtype=bool)
    if mode.transductive:
        given[:] = True
    elif mode.per_class:
        given = _first_per_class(mode, domain, y, seed)
    elif mode.percent:
        # Integers: 0.29 * 100 is below 29 in floating point.
        n_given = min(max(mode.percent * n_trials // 100, 1), n_trials - 1)
        given[_order(mode, domain, n_trials, seed)[:n_given]] = True
    scored = np.ones(n_trials, dtype=bool) if mode.transductive else ~given
    return Part(domain, trials[given], trials[scored], trials[n_trials // 2 :])


def _order(mode: Mode, domain: Domain, n_trials: int, seed: int) -> NDArray[np.int64]:
    if mode.part != "random":
        return np.arange(n_trials)
    # Not Python's hash, which is salted anew in every process.
    name = hashlib.blake2b("\0".join(domain).encode(), digest_size=8).digest()
    rng = np.random.default_rng([seed, int.from_bytes(name, "big")])
    return rng.permutation(n_trials)


def _first_per_class(
    mode: Mode, domain: Domain, y: NDArray | None, seed: int
) -> NDArray[np.bool_]:
    if y is None or y.dtype.kind == "f":
        fail(
            f"adapt={mode.name!r} needs classes, and the targets are continuous",
            fix="use labelled-20% instead",
        )
    given = np.zeros(len(y), dtype=bool)
    order = _order(mode, domain, len(y), seed)
    for name in np.unique(y):
        positions = order[y[order] == name]
        if len(positions) <= mode.per_class:
            fail(
                f"adapt={mode.name!r} takes {mode.per_class} labelled trials a class, "
                f"and {domain} has {len(positions)} of class {str(name)!r}",
                why="No trial of that class would be left to score",
                fix="give a smaller number, or leave this session out",
            )
        given[positions[: mode.per_class]] = True
    return given
