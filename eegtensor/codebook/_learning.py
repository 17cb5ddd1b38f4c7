"""How a codebook learns from a batch: sums of its vectors, and dead codes anew."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

from eegtensor.codebook.kmeans import kmeans, means
from eegtensor.codebook.lookup import directions, nearest_codes, prepare_codes, search

# Above so many codes, drawing vectors far apart one by one takes too long.
_MOST_SPREAD = 1024
# Vectors a code that the start is fitted on.
_VECTORS_A_CODE = 64
# A code is not dead before it falls below this share of an even use, whatever the
# threshold: small batches hold few vectors for each.
_DEAD_SHARE = 0.125
# Searches for vectors of unused codes, at most: each lowers the error, and few are
# needed.
_ROUNDS = 64
# Squared distances and norms below this share of their mean are rounding.
_NOTHING = 1e-8


def is_distributed() -> bool:
    """Whether this is one of several processes that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def batch_sums(
    rows: Tensor, ids: Tensor, n_codes: int, *, together: bool
) -> tuple[Tensor, Tensor]:
    """Return each code's number of vectors and their sum, over all processes.

    Parameters
    ----------
    rows : Tensor, shape (n, dim)
    ids : Tensor of int64, shape (n,)
    n_codes : int
    together : bool
        Whether to add what the other processes have.
    """
    n, dim = rows.shape
    # One table, hence one message: the last column counts.
    held = torch.cat([rows, rows.new_ones(n, 1)], dim=1)
    total = rows.new_zeros(n_codes, dim + 1).index_add_(0, ids, held)
    if together and is_distributed():
        dist.all_reduce(total)
    return total[:, dim], total[:, :dim]


def moved_codes(
    codes: Tensor, counts: Tensor, batch: tuple[Tensor, Tensor], decay: float
) -> tuple[Tensor, Tensor]:
    """Return codes and counts after one step of the running mean.

    N <- d N + (1 - d) n and c <- (d N c + (1 - d) sum x) / N (van den Oord et al.
    2017, appendix A.1): a code without vectors stays where it is.

    Parameters
    ----------
    codes : Tensor, shape (n_codes, dim)
    counts : Tensor, shape (n_codes,)
    batch : tuple of Tensor
        See `batch_sums`.
    decay : float
    """
    n, total = batch
    kept = decay * counts
    after = kept + (1 - decay) * n
    mean = (kept[:, None] * codes + (1 - decay) * total) / torch.where(
        after > 0, after, 1.0
    )[:, None]
    return torch.where((n > 0)[:, None], mean, codes), after


def turned_codes(codes: Tensor, batch: tuple[Tensor, Tensor], decay: float) -> Tensor:
    """Return codes of unit norm after one step towards the mean direction.

    c <- u(d c + (1 - d) u(mean x)), u of unit norm, for codes with vectors: the
    published rule of NeuroRVQ and LaBraM (tokenizers.md, section 1.4).
    """
    n, total = batch
    turned = directions(decay * codes + (1 - decay) * directions(total))
    return torch.where((n > 0)[:, None], turned, codes)


def revived(
    codes: Tensor,
    counts: Tensor,
    rows: Tensor,
    threshold: float,
    generator: torch.Generator,
    *,
    together: bool,
) -> tuple[Tensor, Tensor]:
    """Return codes and counts with vectors of the batch in the dead ones' places.

    A new code starts with an even share of the counts, so that it has time to
    gather vectors before it is judged again.
    """
    even = counts.mean()
    dead = counts < (_DEAD_SHARE * even).clamp_max(threshold)
    # Drawn for all codes: asking how many are dead would wait for the device.
    n, n_codes = len(rows), len(codes)
    if n >= n_codes:
        drawn = torch.randperm(n, generator=generator, device=rows.device)[:n_codes]
    else:
        drawn = torch.randint(n, (n_codes,), generator=generator, device=rows.device)
    new = rows[drawn].to(codes)
    if together and is_distributed():
        dist.broadcast(new, src=0)
    return (
        torch.where(dead[:, None], new, codes),
        torch.where(dead, even, counts),
    )


def fill_unused(
    codes: Tensor, rows: Tensor, *, cosine: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes of which vectors use all, each vector's code, and what was moved.

    A code without vectors takes the place of the worst coded one, never of one that
    a code has to itself. Vectors of fewer places than codes leave some unused.

    Parameters
    ----------
    codes : Tensor, shape (n_codes, dim)
    rows : Tensor, shape (n, dim)
        By angle, a zero vector is no code.
    cosine : bool

    Returns
    -------
    codes : Tensor, shape (n_codes, dim)
    ids : Tensor of int64, shape (n,)
    moved : Tensor of bool, shape (n_codes,)
    """
    codes = codes.clone()
    moved = torch.zeros(len(codes), dtype=torch.bool, device=codes.device)
    told = directions(rows) if cosine else rows
    size = rows.square().sum(dim=1)
    pointing = size > (_NOTHING if cosine else -1.0) * size.mean()
    scale = told.square().sum(dim=1).mean()
    for left in reversed(range(_ROUNDS)):
        ids = search(rows, prepare_codes(codes, cosine=cosine))
        counts = torch.bincount(ids, minlength=len(codes))
        empty = (counts == 0).nonzero()[:, 0]
        if not len(empty) or not left:
            break
        table = directions(codes) if cosine else codes
        far = (told - table[ids]).square().sum(dim=1)
        free = pointing & (counts[ids] > 1) & (far > _NOTHING * scale)
        far = torch.where(free, far, -1.0)
        # One of each code's vectors at a time: those next to it may be well coded
        # from then on.
        most = far.new_full((len(codes),), -1.0).scatter_reduce(0, ids, far, "amax")
        worst = ((far == most[ids]) & (far > 0)).nonzero()[:, 0]
        worst = worst[far[worst].argsort(descending=True, stable=True)][: len(empty)]
        if not len(worst):
            break
        codes[empty[: len(worst)]] = rows[worst]
        moved[empty[: len(worst)]] = True
    return codes, ids, moved


def first_codes(
    rows: Tensor,
    n_codes: int,
    start: str,
    *,
    cosine: bool,
    generator: torch.Generator,
    together: bool,
) -> tuple[Tensor, Tensor]:
    """Return codes fitted on the first batch, and how many vectors each has."""
    n = len(rows)
    shared = together and is_distributed()
    if shared and dist.get_rank() > 0:
        codes = rows.new_empty(n_codes, rows.shape[1])
    else:
        order = torch.randperm(n, generator=generator, device=rows.device)
        rows = rows[order[: _VECTORS_A_CODE * n_codes]]
        codes = rows[torch.arange(n_codes, device=rows.device) % len(rows)].clone()
        if start == "kmeans" and n_codes <= _MOST_SPREAD:
            seed = generator.initial_seed() % 2**31
            codes = kmeans(rows, n_codes, cosine=cosine, random_state=seed).codes
            if cosine:
                # Fitted by angle; in size, too, a code is the mean of its vectors.
                codes, _ = means(rows, nearest_codes(rows, codes, cosine=True), codes)
    counts = rows.new_full((n_codes,), n / n_codes)
    if shared:
        dist.broadcast(codes, src=0)
        dist.all_reduce(counts)
    return codes, counts
