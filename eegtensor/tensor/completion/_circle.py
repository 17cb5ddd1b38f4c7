"""Low rank over the windows of a tensor's modes, and lost cells, in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor.geometry.spectral import eigh
from eegtensor.tensor.completion import _toeplitz

# Levels of rank beyond the best held-out error after which none better is expected.
PATIENCE = 4
# Iterations at one rank at least.
FEWEST = 3


class State(NamedTuple):
    """Cells, factors of the windows, ranks, and how they came about (see `MDT`)."""

    Z: Tensor
    factors: tuple[Tensor, ...]
    ranks: tuple[int, ...]
    history: tuple[float, ...]
    changes: tuple[int, ...]
    error: float = float("nan")


class Circle:
    """A tensor with lost cells on a circle in each embedded mode."""

    def __init__(self, known: Tensor, seen: Tensor, windows: Sequence[int]) -> None:
        # Known cells are zero where lost.
        self.known, self.seen, self.lost = known, seen, (~seen).to(known)
        self.axes = [a for a, w in enumerate(windows) if w > 1]
        self.windows = [windows[a] for a in self.axes]
        self.sizes = [known.shape[a] for a in self.axes]
        others = [a for a, w in enumerate(windows) if w == 1]
        self.order = [*others, *self.axes]
        self.total = float(known.square().sum())

    def start(self, ranks: Sequence[int] | None) -> State:
        mean = self.known.sum() / self.seen.sum()
        Z = torch.where(self.seen, self.known, mean)
        sizes = tuple(ranks) if ranks is not None else (1,) * len(self.axes)
        whole = tuple(torch.eye(w).to(Z) for w in self.windows)
        return State(Z, whole, sizes, (), ())

    def run(
        self,
        state: State,
        fixed: Sequence[int] | None,
        max_iter: int,
        tol: float,
        noise: float,
        check: tuple[Tensor, Tensor] | None = None,
    ) -> State:
        """Iterate; where ranks are not fixed, return the state that checks best."""
        if self.total == 0.0 or not self.axes:
            return state
        Z, ranks, factors = state.Z, list(state.ranks), state.factors
        history: list[float] = []
        changes: list[int] = []
        best, waited, since = state, 0, 0
        while len(history) < max_iter:
            folded = Z.permute(self.order).reshape(-1, *self.sizes)
            spectrum = torch.fft.rfftn(folded, dim=tuple(range(1, folded.ndim)))
            lags = _toeplitz.lag_tensor(spectrum, self.sizes, self.windows)
            factors, kept, cut = sweep(lags, factors, ranks)
            filtered = spectrum * _toeplitz.gain(factors, self.sizes)
            model = self._unfold(torch.fft.irfftn(filtered, s=tuple(self.sizes)), Z)
            # Of a projection P: ||H(Z) - P H(Z)||^2 = ||H(Z)||^2 - ||P H(Z)||^2.
            energy = float(lags.flatten()[lags.numel() // 2])  # lag 0
            history.append((energy - kept) / self.total)
            Z = torch.addcmul(self.known, self.lost, model)
            since += 1
            now = history[-1]
            if since < FEWEST or history[-2] - now > tol * max(now, 1e-300):
                continue
            found = State(Z, factors, tuple(ranks), (), ())
            if check is not None:
                hidden, truth = check
                error = float((Z[hidden] - truth).norm() / truth.norm())
                if best is state or error < best.error:
                    best, waited = found._replace(error=error), 0
                elif (waited := waited + 1) >= PATIENCE:
                    break
            else:
                best = found
            full = [r >= w for r, w in zip(ranks, self.windows, strict=True)]
            last = fixed is not None or len(history) == max_iter
            if last or now <= noise or all(full):
                break
            grow = max(range(len(cut)), key=lambda n: -1.0 if full[n] else cut[n])
            ranks[grow], since = ranks[grow] + 1, 0
            changes.append(len(history))
        if check is None or best is state:
            best = State(Z, factors, tuple(ranks), (), ())
        return best._replace(history=tuple(history), changes=tuple(changes))

    def _unfold(self, folded: Tensor, like: Tensor) -> Tensor:
        shape = [like.shape[a] for a in self.order]
        return folded.view(shape).permute(
            [self.order.index(a) for a in range(like.ndim)]
        )


def sweep(
    lags: Tensor, factors: Sequence[Tensor], ranks: Sequence[int]
) -> tuple[tuple[Tensor, ...], float, list[float]]:
    """Return new factors, the energy in all of them, and what each alone cuts off.

    Each factor is the best given the others, one after another.

    Parameters
    ----------
    lags : Tensor, shape (2 w_1 - 1, ..., 2 w_k - 1)
        Circular autocorrelation.
    factors : sequence of Tensor, shape (w_n, R_n)
        From before.
    ranks : sequence of int
    """
    updated, cut, kept = list(factors), [], 0.0
    for n, rank in enumerate(ranks):
        found = lags
        for m in reversed(range(lags.ndim)):
            if m != n:
                weights = _toeplitz.self_lags(updated[m])
                found = torch.tensordot(found, weights, dims=([m], [0]))
        values, vectors = eigh(_toeplitz.toeplitz(found))
        updated[n] = vectors[:, -rank:].flip(-1)
        cut.append(float(values[:-rank].sum()))
        kept = float(values[-rank:].sum())
    # Every cell stands in as many windows as a window has cells.
    return tuple(updated), kept / math.prod(map(len, factors)), cut
