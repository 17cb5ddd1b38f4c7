"""Belief propagation on binary labels with known counts of bags."""

from __future__ import annotations

import torch
from torch import Tensor


def ising_beliefs(
    bag: Tensor,
    count: Tensor,
    strength: Tensor,
    pairs: Tensor,
    weights: Tensor,
    *,
    n_iterations: int = 50,
    damping: float = 0.5,
) -> Tensor:
    """Return marginals of binary labels, by sum-product belief propagation.

    P(y) is proportional to exp(-sum_b strength_b (sum of y in b - count_b)^2
    - sum_pairs weight (y_i - y_j)^2). Exact where the graph of bags and pairs has no
    loop.

    Parameters
    ----------
    bag : Tensor of int64, shape (n,)
    count, strength : Tensor, shape (n_bags,)
    pairs : Tensor of int64, shape (2, n_pairs)
        Each once.
    weights : Tensor, shape (n_pairs,)
    n_iterations : int
    damping : float
        Share of the old message in a new one.

    Returns
    -------
    p : Tensor, shape (n,), float64
        Probability that y = 1.
    """
    n = len(bag)
    same = torch.triu(bag[:, None] == bag[None, :], 1).nonzero().mT
    # In spins s = 2 y - 1: J_ij s_i s_j + h_i s_i.
    J = torch.cat([-strength[bag[same[0]]] / 2, weights.double() / 2])
    i, j, J = _merged(torch.cat([same, pairs], dim=1), J, n)
    size = torch.bincount(bag, minlength=len(count)).double()
    h = (-strength * (size / 2 - count))[bag]
    # A message for each direction; the second half runs back along the first.
    source, to = torch.cat([i, j]), torch.cat([j, i])
    coupling = torch.cat([J, J]).tanh()
    u = torch.zeros_like(coupling)
    for _ in range(n_iterations):
        field = h.index_add(0, to, u)
        back = u.roll(len(i))
        sent = (coupling * (field[source] - back).tanh()).clamp(-1 + 1e-15, 1 - 1e-15)
        u = damping * u + (1.0 - damping) * sent.atanh()
    return torch.sigmoid(2.0 * h.index_add(0, to, u))


def nearest_pairs(f: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return pairs of neighbours, each once, and their positive cosines.

    Parameters
    ----------
    f : Tensor, shape (n, n_features)
        Unit vectors.
    k : int
        Neighbours of each.

    Returns
    -------
    pairs : Tensor of int64, shape (2, n_pairs)
    weights : Tensor, shape (n_pairs,)
    """
    cosine = f @ f.mT
    cosine.fill_diagonal_(-torch.inf)
    values, places = cosine.topk(k, dim=1)
    i = torch.arange(len(f), device=f.device)[:, None].expand_as(places)
    # At right angles or further apart a neighbour says nothing.
    near = values > 0
    ordered = torch.stack([torch.minimum(i, places), torch.maximum(i, places)])
    pairs = ordered[:, near].unique(dim=1)
    return pairs, cosine[pairs[0], pairs[1]]


def _merged(pairs: Tensor, J: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return each pair once, with the sum of its couplings."""
    low, high = pairs.amin(dim=0), pairs.amax(dim=0)
    key, place = (low * n + high).unique(return_inverse=True)
    total = J.new_zeros(len(key)).index_add_(0, place, J)
    return key // n, key % n, total
