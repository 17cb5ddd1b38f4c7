"""Random starts side by side, each held back as long as its error is large."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Ridge of a start, in units of its squared relative error. Without it most starts
# of a large ring hang where cores grow and cancel; much more holds them at zero.
_DAMPING = 0.7


class Damped(NamedTuple):
    """The start that won.

    Attributes
    ----------
    cores : list of Tensor
        Without the axis of the starts.
    error : float
        Squared relative error.
    n_iter : int
        Its sweeps.
    """

    cores: list[Tensor]
    error: float
    n_iter: int


def descend(
    sweep: Callable[[list[Tensor], Tensor], Tensor],
    cores: list[Tensor],
    *,
    at_once: int,
    max_iter: int,
    tol: float,
    floor: float,
) -> Damped:
    """Sweep from several starts; the best quarter goes on for twice as many sweeps.

    Parameters
    ----------
    sweep : callable
        ``(cores, damping) -> squared relative errors``, one of each start; replaces
        the cores in the list. The damping is a ridge on each start's normal
        equations, relative to their mean diagonal.
    cores : list of Tensor, shape (starts, ...)
    at_once : int
        Starts in one batch.
    max_iter : int
        Sweeps of the winner.
    tol : float
        A round ends when no start lowers its relative error by more, twice in turn.
    floor : float
        Squared relative error that ends everything.

    Returns
    -------
    Damped

    Notes
    -----
    A ridge proportional to the squared error vanishes at a solution, as in the
    Levenberg-Marquardt method; J.-Y. Fan and Y.-X. Yuan, "On the quadratic
    convergence of the Levenberg-Marquardt method without nonsingularity
    assumption", Computing, 2005.
    """
    errors = torch.ones_like(cores[0][:, 0, 0])
    done, length = 0, max(5, max_iter // 10)
    while done < max_iter:
        length = min(length, max_iter - done)
        after, swept = [], 0
        parts = zip(*(A.split(at_once) for A in cores), strict=True)
        for part, error in zip(parts, errors.split(at_once), strict=True):
            own = list(part)
            ended, n_iter = _round(sweep, own, error, length, tol, floor)
            after.append((own, ended))
            swept = max(swept, n_iter)
        done += swept
        errors = torch.cat([error for _, error in after])
        cores = [torch.cat(own) for own in zip(*(own for own, _ in after), strict=True)]
        if len(errors) == 1 or float(errors.min()) <= floor:
            break
        kept = errors.argsort()[: (len(errors) + 3) // 4]
        errors, cores = errors[kept], [A[kept] for A in cores]
        length *= 2
    best = int(errors.argmin())
    return Damped([A[best] for A in cores], float(errors[best]), done)


def _round(
    sweep: Callable[[list[Tensor], Tensor], Tensor],
    cores: list[Tensor],
    errors: Tensor,
    length: int,
    tol: float,
    floor: float,
) -> tuple[Tensor, int]:
    still = n_iter = 0
    while n_iter < length:
        n_iter += 1
        before = errors
        errors = sweep(cores, _DAMPING * before)
        if float(errors.min()) <= floor:
            break
        gain = float((before.sqrt() - errors.sqrt()).max())
        still = still + 1 if gain < tol else 0
        if still == 2:
            break
    return errors, n_iter
