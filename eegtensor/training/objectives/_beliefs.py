"""Belief propagation on binary labels with known counts of bags."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Log odds beyond which a label is as good as certain.
_CERTAIN = 30.0
# Messages that move less than this no longer matter.
_SETTLED = 1e-9


def bag_beliefs(
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
    - sum_pairs weight (y_i - y_j)^2). A bag is one factor of all its labels, whose
    messages are exact whatever its size: those of its pairs would be a graph full
    of loops, on which messages of strong bags do not settle. Exact where the graph
    of bags and pairs has no loop. An iteration takes time in the square of the
    largest bag.

    Parameters
    ----------
    bag : Tensor of int64, shape (n,)
    count, strength : Tensor, shape (n_bags,)
    pairs : Tensor of int64, shape (2, n_pairs)
        Each once.
    weights : Tensor, shape (n_pairs,)
    n_iterations : int
        At most: it ends where messages settle.
    damping : float
        Share of the old message in a new one.

    Returns
    -------
    p : Tensor, shape (n,), float64
        Probability that y = 1.
    """
    place, there = _places(bag, len(count))
    total = torch.arange(there.shape[1] + 1, device=bag.device)
    energy = -strength.double()[:, None] * (total - count.double()[:, None]).square()
    # A message for each direction; the second half runs back along the first.
    source, to = torch.cat([pairs[0], pairs[1]]), torch.cat([pairs[1], pairs[0]])
    coupling = (torch.cat([weights, weights]).double() / 2).tanh()
    # Messages are log odds, of pairs to a label and of the label's bag to it.
    u = torch.zeros_like(coupling)
    sent = coupling.new_zeros(len(bag))
    for _ in range(n_iterations):
        field = coupling.new_zeros(len(bag)).index_add(0, to, u)
        odds = there.new_full(there.shape, -torch.inf, dtype=torch.float64)
        odds = odds.masked_scatter(there, field[place].clamp(-_CERTAIN, _CERTAIN))
        new = torch.empty_like(sent)
        new[place] = _count_messages(odds, energy)[there].clamp(-_CERTAIN, _CERTAIN)
        moved = (new - sent).abs().max()
        sent = damping * sent + (1.0 - damping) * new
        back = u.roll(len(pairs[0]))
        half = (field + sent)[source] - back
        passed = (coupling * (half / 2).tanh()).clamp(-1 + 1e-15, 1 - 1e-15)
        passed = 2.0 * passed.atanh()
        if len(passed):
            moved = torch.maximum(moved, (passed - u).abs().max())
        u = damping * u + (1.0 - damping) * passed
        if moved < _SETTLED:
            break
    return torch.sigmoid(sent.index_add(0, to, u))


def _places(bag: Tensor, n_bags: int) -> tuple[Tensor, Tensor]:
    """Return trials in the order of their bags, and where a table of bags has some."""
    size = torch.bincount(bag, minlength=n_bags)
    within = torch.arange(int(size.max()), device=bag.device)
    return bag.argsort(stable=True), within[None, :] < size[:, None]


def _count_messages(odds: Tensor, energy: Tensor) -> Tensor:
    """Return what a factor of the number of ones says of each label, in log odds.

    Parameters
    ----------
    odds : Tensor, shape (n_bags, n)
        Log odds of each label without this factor; -inf where there is none.
    energy : Tensor, shape (n_bags, n + 1)
        Logarithm of the factor at each number of ones.

    Returns
    -------
    message : Tensor, shape (n_bags, n)
    """
    yes, no = F.logsigmoid(odds), F.logsigmoid(-odds)
    n = odds.shape[1]
    # Numbers of ones among the labels before, and the factor summed over those behind.
    before = [torch.full_like(energy, -torch.inf)]
    before[0][:, 0] = 0.0
    for k in range(n - 1):
        one_more = F.pad(before[k][:, :-1], (1, 0), value=-torch.inf)
        before.append(
            torch.logaddexp(before[k] + no[:, k, None], one_more + yes[:, k, None])
        )
    message = torch.empty_like(odds)
    behind = energy
    for k in range(n - 1, -1, -1):
        if_one = F.pad(behind[:, 1:], (0, 1), value=-torch.inf)
        message[:, k] = (before[k] + if_one).logsumexp(1) - (
            before[k] + behind
        ).logsumexp(1)
        behind = torch.logaddexp(behind + no[:, k, None], if_one + yes[:, k, None])
    return message


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
