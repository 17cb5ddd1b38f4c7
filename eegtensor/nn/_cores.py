"""Cores of a tensor network: drawn, or decomposed from the tensor they replace."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from eegtensor.geometry._bridge import Array
from eegtensor.nn._contract import contract, plan
from eegtensor.nn._initial import gaussian
from eegtensor.nn._layout import PLAIN, Layout
from eegtensor.tensor.cp import cp
from eegtensor.tensor.ring import balance, tensor_ring
from eegtensor.tensor.train import tensor_train
from eegtensor.tensor.tucker import tucker


def draw(
    layout: Layout, variance: float, generator: torch.Generator | None
) -> list[Tensor]:
    """Return normal cores whose tensor has entries of the given variance.

    An entry is a sum of P products of M independent numbers, so its variance is
    P s^(2 M) where s^2 is theirs.
    """
    s = (variance / layout.n_paths) ** (0.5 / len(layout.terms))
    return [s * gaussian(*shape, generator=generator) for shape in layout.shapes]


def rebuild(layout: Layout, cores: Sequence[Tensor]) -> Tensor:
    """Return the tensor that cores stand for, shape `layout.modes`."""
    out = "".join(layout.mode_terms)
    whole = contract(plan(layout.terms, out, layout.sizes), cores)
    return whole.reshape(layout.modes)


def decompose(layout: Layout, X: Tensor) -> list[Tensor]:
    """Return cores that approximate a tensor, float64.

    With the identities' letters moved to the cores that carry them, a semi-tensor
    product network is a plain one of ranks t times smaller: it is decomposed so.

    Parameters
    ----------
    X : Tensor, shape `layout.modes`
    """
    size = dict(layout.sizes)
    letters = "".join(layout.mode_terms)
    X = X.detach().double().reshape([size[c] for c in letters])
    base = PLAIN.get(layout.kind, layout.kind)
    if base == "tucker":
        return _tucker(layout, X, letters)
    if base == "cp":
        model = cp(X, layout.ranks[0])
        weights = torch.as_tensor(model.weights) ** (1.0 / X.ndim)
        return [torch.as_tensor(U) * weights for U in model.factors]
    return _chain(layout, X, letters, ring=base == "tr")


def _tucker(layout: Layout, X: Tensor, letters: str) -> list[Tensor]:
    shapes = layout.shapes
    ranks = iter(shape[1] for shape in shapes[1:])
    # A mode's own letter comes first, an identity's second: that one stays whole.
    own = {term[0] for term in layout.mode_terms}
    model = tucker(X, [next(ranks) if c in own else None for c in letters])
    factors = [U for U in model.factors if U is not None]
    return [
        _padded(core, shape)
        for core, shape in zip([model.core, *factors], shapes, strict=True)
    ]


def _chain(layout: Layout, X: Tensor, letters: str, ring: bool) -> list[Tensor]:
    size = dict(layout.sizes)
    free = set(letters)
    groups = ["".join(c for c in term if c in free) for term in layout.terms]
    X = X.permute([letters.index(c) for c in "".join(groups)])
    X = X.reshape([math.prod(size[c] for c in group) for group in groups])
    if ring:
        ranks = [shape[0] for shape in layout.shapes]
        cores = [torch.as_tensor(G) for G in tensor_ring(X, ranks).cores]
    else:
        ranks = [shape[0] for shape in layout.shapes[1:]]
        cores = [torch.as_tensor(G) for G in tensor_train(X, ranks).cores]
        balance(cores)
    out = []
    for n, (term, shape) in enumerate(zip(layout.terms, layout.shapes, strict=True)):
        core = cores[n]
        a, _, b = core.shape
        core = core.reshape(a, *(size[c] for c in groups[n]), b)
        if not ring and n == 0:
            core = core[0]
        if not ring and n == len(cores) - 1:
            core = core.squeeze(core.ndim - 1)
        assert core.ndim == len(term)
        out.append(_padded(core, shape))
    return out


def _padded(core: Array, shape: tuple[int, ...]) -> Tensor:
    """Return a core with zeros where the tensor's own rank was smaller."""
    core = torch.as_tensor(core)
    if tuple(core.shape) == shape:
        return core
    whole = core.new_zeros(shape)
    whole[tuple(slice(n) for n in core.shape)] = core
    return whole
