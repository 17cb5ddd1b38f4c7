"""Ways to walk over structures: local enumeration, local sampling, a genetic search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from eegtensor.tensor._canonical import State, transpositions, with_rank
from eegtensor.tensor._fits import Fits


class Visit(NamedTuple):
    """Where the search stood after one step.

    Attributes
    ----------
    start : int
        Number of the start.
    phase : str
        Part of the search: initial or main (TnALE), generation (TNLS, TNGA).
    step : int
        Number of the step or generation in its phase.
    score, phi, rse : float
        Of the best so far, in this start.
    ranks, permutation : tuple of int
    n_fits : int
        Fits so far, of all starts.
    """

    start: int
    phase: str
    step: int
    score: float
    phi: float
    rse: float
    ranks: tuple[int, ...]
    permutation: tuple[int, ...]
    n_fits: int


def _visit(
    fits: Fits, start: int, phase: str, step: int, state: State, rse: float
) -> Visit:
    phi = fits.size(state)
    score = phi + fits.penalty * rse
    return Visit(start, phase, step, score, phi, rse, *state, fits.n_fits)


def _window(rank: int, radius: int, max_rank: int) -> tuple[int, int]:
    """Return the ends of 2 radius + 1 numbers around a rank, within 1 to max_rank."""
    low = max(1, min(rank - radius, max_rank - 2 * radius))
    return low, min(max_rank, low + 2 * radius)


def enumerate_locally(
    fits: Fits, state: State, start: int, max_rank: int, initial_trips: int
) -> Iterator[Visit]:
    """TnALE: one variable at a time, all its neighbours tried, the best taken.

    Variables are the ranks in turn, then the permutation (if there is one), and
    the ranks back. The initial phase reaches two ranks far, but fits the ends only;
    the main phase fits every neighbour. The score never rises, and the search ends
    when no variable moves.

    References
    ----------
    C. Li et al., "Alternating local enumeration (TnALE): solving tensor network
    structure search with fewer evaluations", ICML, 2023.
    """
    n_ranks = len(state.ranks)
    forth = list(range(n_ranks))
    if fits.template.permutes:
        trip = [*forth, None, *forth[:0:-1]]
    else:
        trip = [*forth, *forth[-2:0:-1]]
    # Wide steps first: from ranks of 2, single ones take too many fits to 7.
    step = 0
    for _ in range(initial_trips):
        for k in trip:
            state, rse = _move(fits, state, k, max_rank, wide=True)
            yield _visit(fits, start, "initial", step, state, rse)
            step += 1
    still, step = 0, 0
    while True:
        for k in trip:
            before = state
            state, rse = _move(fits, state, k, max_rank, wide=False)
            yield _visit(fits, start, "main", step, state, rse)
            step += 1
            still = still + 1 if state == before else 0
            if still > n_ranks:
                return


def _move(
    fits: Fits, state: State, k: int | None, max_rank: int, *, wide: bool
) -> tuple[State, float]:
    """Return the best neighbour along one variable, or the state itself."""
    own = fits.errors([state])[0]
    score = fits.size(state) + fits.penalty * own
    if k is None:
        others = transpositions(state)
    else:
        low, high = _window(state.ranks[k], 2 if wide else 1, max_rank)
        # Between the ends of a wide reach the error is interpolated linearly, and
        # the size is linear in one rank: only an end or the centre can be best.
        numbers = (low, high) if wide else range(low, high + 1)
        others = [with_rank(state, k, r) for r in numbers if r != state.ranks[k]]
    errors = [own, *fits.errors(others, score)]
    states = [state, *others]
    scores = [
        fits.size(s) + fits.penalty * e for s, e in zip(states, errors, strict=True)
    ]
    # The first of equals is the state itself: a search that goes round ends.
    best = int(np.argmin(scores))
    return states[best], errors[best]


def sample_locally(
    fits: Fits,
    state: State,
    start: int,
    max_rank: int,
    allowed: int,
    random: np.random.Generator,
    generations: int = 20,
) -> Iterator[Visit]:
    """TNLS: neighbours drawn at random, ever nearer; the best becomes the centre.

    References
    ----------
    C. Li et al., "Permutation search of tensor network structures via local
    sampling", ICML, 2022.
    """
    n_samples = max(1, (allowed - fits.n_fits) // generations)
    score = fits.scores([state])[0]
    for g in range(generations):
        drawn = [
            _neighbour(fits, state, max_rank, 0.9**g, 0.94**g, random)
            for _ in range(n_samples)
        ]
        scores = fits.scores(drawn, score)
        best = int(np.argmin(scores))
        # Equal ones too: the centre drifts along a plateau.
        if scores[best] <= score:
            state, score = drawn[best], scores[best]
        rse = (score - fits.size(state)) / fits.penalty
        yield _visit(fits, start, "generation", g, state, rse)


def _neighbour(
    fits: Fits,
    state: State,
    max_rank: int,
    spread: float,
    exchange: float,
    random: np.random.Generator,
) -> State:
    """Return ranks moved by rounded normal steps, and perhaps two places exchanged."""
    ranks = np.array(state.ranks)
    steps = np.rint(random.normal(0.0, spread, len(ranks))).astype(int)
    outside = (ranks + steps < 1) | (ranks + steps > max_rank)
    moved = np.clip(np.where(outside, ranks - steps, ranks + steps), 1, max_rank)
    order = list(state.permutation)
    if fits.template.permutes and random.random() < exchange:
        i, j = random.choice(len(order), 2, replace=False)
        order[i], order[j] = order[j], order[i]
    return State(tuple(moved.tolist()), tuple(order))


def evolve(
    fits: Fits,
    max_rank: int,
    max_fits: int,
    random: np.random.Generator,
    population: int = 50,
    mutation: float = 0.05,
) -> Iterator[Visit]:
    """TNGA: structures recombined and mutated; a genetic search.

    Four fifths of a generation may have children, the better ones more; the best
    fifth lives on. Ranks are inherited link by link, the order from one parent.

    References
    ----------
    C. Li and Z. Sun, "Evolutionary topology search for tensor network
    decomposition", ICML, 2020.
    """
    population = max(5, min(population, max_fits // 6))
    people = [_random_state(fits, max_rank, random) for _ in range(population)]
    generation = 0
    while True:
        # Twenty times as many tries as fits: a population of one structure ends.
        if generation * population > 20 * max_fits:
            return
        scores = fits.scores(people)
        ranking = np.argsort(scores, kind="stable")
        people = [people[i] for i in ranking]
        state = people[0]
        phi = fits.size(state)
        rse = (scores[ranking[0]] - phi) / fits.penalty
        yield _visit(fits, 0, "generation", generation, state, rse)
        parents = people[: max(2, 4 * population // 5)]
        chance = 0.9 ** np.arange(len(parents))
        chance /= chance.sum()
        children: list[State] = []
        while len(children) < population - population // 5:
            a, b = random.choice(len(parents), 2, replace=False, p=chance)
            child = _child(parents[a], parents[b], max_rank, mutation, random)
            if fits.template.permutes and random.random() < mutation:
                tried = transpositions(child)
                child = tried[int(random.integers(len(tried)))]
            children.append(child)
        people = [*people[: population // 5], *children]
        generation += 1


def _random_state(fits: Fits, max_rank: int, random: np.random.Generator) -> State:
    """Return a random structure with about two links for each mode."""
    form = fits.template
    density = min(1.0, form.n_modes / len(form.links))
    there = random.random(len(form.links)) < density
    ranks = np.where(there, random.integers(1, max_rank + 1, len(there)), 1)
    order = np.arange(form.n_modes)
    if form.permutes:
        order = random.permutation(form.n_modes)
    return State(tuple(ranks.tolist()), tuple(order.tolist()))


def _child(
    a: State, b: State, max_rank: int, mutation: float, random: np.random.Generator
) -> State:
    n = len(a.ranks)
    ranks = np.where(random.random(n) < 0.5, a.ranks, b.ranks)
    # Mutation may also remove a link: rank 1.
    drawn = random.integers(1, max_rank + 1, n)
    ranks = np.where(random.random(n) < mutation, drawn, ranks)
    return State(tuple(ranks.tolist()), a.permutation)
