"""Rounds in which experts of one person refine what others' decoders say."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eegtensor.auto.experts import (
    Lesson,
    Memory,
    learn,
    new_trials,
    own_trials,
    remember,
)
from eegtensor.auto.stacking import HeldOut, mixed

# Experts of fewer trials a class than these know less than they mislead.
_FEWEST = 4
_MOST_ROUNDS = 6


class _Session(NamedTuple):
    features: list[NDArray]
    log_p: NDArray


class _Person(NamedTuple):
    memories: list[Memory]
    # By round, by expert.
    lessons: list[list[Lesson]]


class Refinement:
    """How much experts of a person count, learned on source people held out.

    Parameters
    ----------
    n_classes : int

    Attributes
    ----------
    rounds : ndarray, shape (n_rounds, 1 + n_experts)
        Weights of the decoders' log-probabilities and of each expert's logits.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes
        self.rounds: NDArray = np.zeros((0, 1))
        self._sessions: dict[str, dict[str, _Session]] = {}
        self._people: dict[str, _Person] = {}
        self._last: str | None = None

    def fit(self, features: list[NDArray], held: HeldOut, log_p: NDArray) -> NDArray:
        """Learn the weights; return what the last round says of the trials.

        Parameters
        ----------
        features : list of ndarray, shape (n_trials, n_features)
            Tangent vectors recentred by session, one array an expert.
        held : HeldOut
        log_p : ndarray, shape (n_trials, n_classes)
            What decoders that never saw these people say.
        """
        known = np.zeros(len(log_p), bool)
        memories: list[tuple[NDArray, list[Memory]]] = []
        for person in range(len(held.people)):
            rows = np.flatnonzero(held.owner == person)
            if len(rows) < _FEWEST * self.n_classes:
                continue
            # Only what says something of the trials remembered is needed here.
            own = [remember(f[rows]) for f in features]
            rows = rows[own[0].rows]
            known[rows] = True
            nothing = np.empty((0, 0))
            memories.append((rows, [m._replace(features=nothing) for m in own]))
        start = np.eye(1 + len(features))[0]
        rounds: list[NDArray] = []
        best = log_p
        if not known.any():
            return best
        losses = held.losses(best)
        now = log_p
        while len(rounds) < _MOST_ROUNDS:
            said = np.zeros((len(features), *log_p.shape))
            for rows, own in memories:
                for e, memory in enumerate(own):
                    lesson = learn(memory, np.exp(now[rows]))
                    said[e, rows] = own_trials(memory, lesson)
            columns = np.concatenate([log_p[np.newaxis], said])
            weights = held.weigh(columns, start, known)
            now = np.where(known[:, np.newaxis], mixed(weights, columns), log_p)
            after = held.losses(now)
            if not held.clearly_better(after, losses):
                break
            rounds.append(weights)
            best, losses = now, after
        self.rounds = np.asarray(rounds).reshape(len(rounds), len(start))
        return best

    def learn(
        self,
        features: list[NDArray],
        log_p: NDArray,
        subjects: NDArray,
        sessions: NDArray,
    ) -> None:
        """Let experts learn the people of an unlabelled batch.

        A session given again replaces what it held; other sessions of a person
        stay.
        """
        if not len(self.rounds):
            return
        for subject in np.unique(subjects):
            whose = subjects == subject
            held = self._sessions.setdefault(str(subject), {})
            for session in np.unique(sessions[whose]):
                rows = whose & (sessions == session)
                held[str(session)] = _Session([f[rows] for f in features], log_p[rows])
            self._people[str(subject)] = self._person(list(held.values()))
            self._last = str(subject)

    def _person(self, sessions: list[_Session]) -> _Person:
        log_p = np.concatenate([s.log_p for s in sessions])
        if len(log_p) < _FEWEST * self.n_classes:
            return _Person([], [])
        n_experts = len(sessions[0].features)
        memories = [
            remember(np.concatenate([s.features[e] for s in sessions]))
            for e in range(n_experts)
        ]
        log_p = log_p[memories[0].rows]
        now, lessons = log_p, []
        for weights in self.rounds:
            lessons.append([learn(m, np.exp(now)) for m in memories])
            said = [
                own_trials(m, x) for m, x in zip(memories, lessons[-1], strict=True)
            ]
            now = mixed(weights, np.stack([log_p, *said]))
        return _Person(memories, lessons)

    def refine(
        self, features: list[NDArray], log_p: NDArray, subjects: NDArray | None
    ) -> NDArray:
        """Return log-probabilities with what each person's experts say.

        Parameters
        ----------
        features : list of ndarray, shape (n_trials, n_features)
        log_p : ndarray, shape (n_trials, n_classes)
        subjects : ndarray of str, shape (n_trials,) | None
            None: all trials are the person's learned last.
        """
        if not self._people:
            return log_p
        if subjects is None:
            subjects = np.full(len(log_p), self._last)
        out = log_p.copy()
        for subject in np.unique(subjects):
            person = self._people.get(str(subject))
            if person is None or not person.lessons:
                continue
            rows = subjects == subject
            # Lessons of the rounds before shaped the last; that one speaks.
            said = [
                new_trials(memory, lesson, f[rows])
                for memory, lesson, f in zip(
                    person.memories, person.lessons[-1], features, strict=True
                )
            ]
            out[rows] = mixed(self.rounds[-1], np.stack([log_p[rows], *said]))
        return out
