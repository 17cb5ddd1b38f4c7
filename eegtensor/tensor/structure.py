"""Search for the structure of a tensor network: topology, ranks, order of the modes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eegtensor._check import check_count, check_number, check_option, fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.tensor._canonical import Template, as_float64, best_guess, random_start
from eegtensor.tensor._fits import Fits, OutOfFits
from eegtensor.tensor._moves import (
    Visit,
    enumerate_locally,
    evolve,
    sample_locally,
)
from eegtensor.tensor._shapes import as_tensor, check_rank
from eegtensor.tensor.network import TensorNetwork
from eegtensor.tensor.ring import close

METHODS = ("tnale", "tnls", "tnga")
_COUNTS = ("max_rank", "n_starts", "agree", "max_fits", "fit_starts", "max_iter")


class Structure(NamedTuple):
    """A tensor network whose structure was searched for, fitted.

    Attributes
    ----------
    template : str
    ranks : tuple of int
        Of the template's links. Ring: link k is before place k, link 0 closes it.
        Train: link k is after place k. Graph: modes (0, 1), (0, 2), ..., (1, 2), ...
    permutation : tuple of int
        The mode of X in each place.
    adjacency : array of int, shape (N, N)
        Ranks between modes, symmetric; 1 is no link.
    score : float
        phi + penalty * rse.
    phi : float
        Entries of all cores over cells of X.
    rse : float
        ||X - reconstruction||^2 / ||X||^2.
    cores : tuple of array
        Ring and train: (r before, I, r after), in the order of the places. Graph:
        one for each mode, as in `TensorNetwork`.
    history : tuple of Visit
        A row for each step of the search; ``pandas.DataFrame(history)`` is a table.
    n_fits : int
        Structures fitted.
    """

    template: str
    ranks: tuple[int, ...]
    permutation: tuple[int, ...]
    adjacency: Array
    score: float
    phi: float
    rse: float
    cores: tuple[Array, ...]
    history: tuple[Visit, ...]
    n_fits: int

    @property
    def n_entries(self) -> int:
        """Entries of all cores."""
        return sum(math.prod(core.shape) for core in self.cores)

    def reconstruct(self) -> Array:
        """Return the tensor that the model stands for, its modes ordered as in X."""
        return _rebuild(self.template, self.permutation, *self.cores)


@bridged
def _rebuild(template: str, permutation: Sequence[int], *cores: Tensor) -> Tensor:
    if template == "graph":
        whole: Tensor = TensorNetwork(cores, 0.0, 0).reconstruct()
        return whole
    placed = close(cores).reshape([core.shape[1] for core in cores])
    return placed.permute(*np.argsort(permutation).tolist())


@bridged
def search_structure(
    X: Array,
    *,
    method: str = "tnale",
    template: str = "ring",
    max_rank: int = 7,
    penalty: float = 200.0,
    permute: bool = True,
    n_starts: int = 6,
    agree: int = 3,
    max_fits: int = 300,
    initial_trips: int = 2,
    n_jobs: int = 1,
    checkpoint: str | os.PathLike[str] | None = None,
    fit_starts: int = 8,
    max_iter: int = 100,
    tol: float = 1e-4,
    prune: bool = True,
    cache: bool = True,
    random_state: int = 0,
) -> Structure:
    """Return the tensor network with the least size + penalty * squared error.

    Parameters
    ----------
    X : array or tensor, shape (I_1, ..., I_N)
        Without missing cells; 3 axes or more for a ring, 2 for the others. The
        weight of a layer becomes one by `as_layer_tensor`.
    method : str
        tnale: one variable at a time, all its neighbours. tnls: random neighbours
        of the best. tnga: a genetic search.
    template : str
        ring, train, or graph (a link between any two modes may exist).
    max_rank : int
        Of a link.
    penalty : float
        Weight of the squared relative error: one per cent of error counts as much
        as ``penalty / 100`` times the size of X.
    permute : bool
        Whether modes may change places in a ring or a train.
    n_starts : int
        Searches that share the fits (not tnga). The first begins with what the
        unfoldings allow, the others with ranks 2 in a random order.
    agree : int
        Starts that come to the best score, to a thousandth, before no other is made.
    max_fits : int
        Structures that may be fitted.
    initial_trips : int
        Of tnale: round trips of the initial phase, with a wide reach.
    n_jobs : int
        Processes that fit candidates side by side; changes no result.
    checkpoint : path | None
        A JSON file of the errors fitted so far. A run that finds it repeats what
        was done without fitting, and goes on from there.
    fit_starts, max_iter, tol
        Of each fit: competing random starts, sweeps, and the change of the
        relative error that ends them.
    prune : bool
        Whether structures that provably cannot win are left unfitted. Changes no
        result but the number of fits.
    cache : bool
        Whether a structure met again is not fitted again. Same.
    random_state : int
        Of orders, samples and fits.

    Returns
    -------
    Structure

    Raises
    ------
    EEGTensorError
        If X has too few axes or missing cells, or the checkpoint is of another
        problem.

    Notes
    -----
    A fit depends on the structure only: alternating least squares from random
    cores drawn for that structure, of which the best go on. A structure is ruled
    out by its size and by its unfoldings: cutting the modes in two, the singular
    values beyond the product of the ranks cut are lost.

    References
    ----------
    C. Li et al., "Alternating local enumeration (TnALE)", ICML, 2023; C. Li et al.,
    "Permutation search of tensor network structures via local sampling", ICML,
    2022; C. Li and Z. Sun, "Evolutionary topology search for tensor network
    decomposition", ICML, 2020.
    """
    check_option("method", method, METHODS)
    X, observed, total = as_tensor(X)
    if observed is not None:
        fail("X has missing cells", fix="complete it before the search")
    if total == 0.0:
        fail("X is zero everywhere", fix="give a tensor that has a structure")
    check_number("penalty", penalty, above=0.0)
    check_number("tol", tol)
    check_count("initial_trips", initial_trips, least=0)
    if not isinstance(random_state, (int, np.integer)) or random_state < 0:
        fail(
            f"random_state={random_state!r}",
            why="A search that is resumed has to draw the same numbers again",
            fix="give a whole number from 0 up",
        )
    # joblib's own message would come after the first fits.
    if check_count("n_jobs", n_jobs, least=-(2**31)) == 0:
        fail("n_jobs=0", fix="give 1 or more processes, or -1 for all cores")
    counts = (max_rank, n_starts, agree, max_fits, fit_starts, max_iter)
    for name, value in zip(_COUNTS, counts, strict=True):
        check_rank(value, name)
    form = Template(template, X.ndim, permutes=permute)
    fits = Fits(
        as_float64(X),
        form,
        float(penalty),
        int(random_state),
        {"n_starts": fit_starts, "max_iter": max_iter, "tol": tol, "floor": 1e-8},
        n_jobs=n_jobs,
        checkpoint=checkpoint,
        prune=prune and method != "tnga",
        cache=cache,
    )
    history: list[Visit] = []
    ends: list[float] = []
    searches = 1 if method == "tnga" else n_starts
    for k in range(searches):
        random = np.random.default_rng([int(random_state), k])
        # A start may use half of what the ones before it left, the last one all.
        left = max_fits - fits.n_fits
        fits.allowed = max_fits if k == searches - 1 else max_fits - left // 2
        if method == "tnga":
            walk = evolve(fits, max_rank, max_fits, random)
        else:
            draw = random_start if k else best_guess
            state = draw(form, max_rank, fits.least, random)
            if method == "tnls":
                walk = sample_locally(fits, state, k, max_rank, fits.allowed, random)
            else:
                walk = enumerate_locally(fits, state, k, max_rank, initial_trips)
        seen = _until_out_of_fits(walk)
        history += seen
        ends += [v.score for v in seen[-1:] if v.phase != "initial"]
        if sum(end <= 1.001 * min(ends) for end in ends) >= agree:
            break
    if fits.best is None:
        fail(
            f"No structure of ranks up to {max_rank} is small enough to be fitted",
            fix="lower max_rank, or search a ring or a train",
        )
    score, state = fits.best
    model = fits.model(state)
    scale = float(X.double().norm()) ** (1.0 / X.ndim)
    cores = [(G * scale).to(X) for G in model.cores]
    return Structure(
        template,
        *state,
        torch.from_numpy(form.table(state)),
        score,
        fits.size(state),
        model.rse,
        tuple(form.place(cores, state)),
        tuple(history),
        fits.n_fits,
    )


def _until_out_of_fits(walk: Iterator[Visit]) -> list[Visit]:
    seen = []
    try:
        for visit in walk:
            seen.append(visit)
    except OutOfFits:
        pass
    return seen


@bridged
def as_layer_tensor(
    W: Array, in_shape: Sequence[int], out_shape: Sequence[int]
) -> Array:
    """Return a layer's weight as a tensor to search the structure of.

    Parameters
    ----------
    W : array or tensor, shape (n_out, n_in, ...)
        Of a linear layer; of a convolution, kernel axes are kept behind.
    in_shape, out_shape : sequence of int
        Factors of n_in and n_out.

    Returns
    -------
    T : array or tensor, shape (*out_shape, *in_shape, ...)

    Raises
    ------
    EEGTensorError
        If the products of the factors are not the sizes of W.
    """
    if W.ndim < 2 or tuple(W.shape[:2]) != (math.prod(out_shape), math.prod(in_shape)):
        fail(
            f"W has shape {tuple(W.shape)}, out_shape={tuple(out_shape)} and "
            f"in_shape={tuple(in_shape)}",
            fix="give factors whose products are the first two sizes of W",
        )
    return W.reshape(*out_shape, *in_shape, *W.shape[2:])
