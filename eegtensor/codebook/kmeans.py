"""k-means: the codes that lie best among vectors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.codebook.lookup import prepare_codes, search
from eegtensor.geometry._bridge import Array, bridged, floating

# Candidates that each draw of k-means++ is chosen from are 2 + log(n_codes).
_FEWEST_CANDIDATES = 2


class KMeans(NamedTuple):
    """A codebook and how it fits.

    Attributes
    ----------
    codes : array, shape (n_codes, dim)
    counts : array of int64, shape (n_codes,)
        Vectors nearest to each code; none is empty while there are vectors enough.
    error : float
        Mean squared distance from a vector to its code.
    n_iter : int
    """

    codes: Array
    counts: Array
    error: float
    n_iter: int


@bridged
def kmeans(
    X: Array,
    n_codes: int,
    *,
    max_iter: int = 20,
    tol: float = 1e-3,
    cosine: bool = False,
    random_state: int = 0,
) -> KMeans:
    """Fit a codebook by Lloyd's algorithm from a k-means++ start.

    Parameters
    ----------
    X : array, shape (n_vectors, dim)
    n_codes : int
    max_iter : int
    tol : float
        Stops when the error falls by less than this share of itself.
    cosine : bool
        Spherical k-means: codes have unit norm and the nearest in angle counts.
    random_state : int

    Returns
    -------
    KMeans
        With fewer different vectors than codes, the codes left over repeat them.

    Raises
    ------
    EEGTensorError
        If there are no vectors, or values that are not finite.

    Notes
    -----
    A code that loses its last vector takes the place of the vector that is worst
    coded, so that none is dead at the end (Lloyd 1982; Arthur and Vassilvitskii
    2007).
    """
    if X.ndim != 2 or 0 in X.shape:
        fail(f"X has shape {tuple(X.shape)}", fix="give (n_vectors, dim) vectors")
    if n_codes < 1:
        fail(f"n_codes={n_codes!r}", fix="give at least one code")
    rows = floating(X.detach())
    if not bool(rows.isfinite().all()):
        bad = (~rows.isfinite().all(dim=1)).nonzero()[:, 0]
        fail(
            f"{len(bad)} of {len(rows)} vectors are not finite, "
            f"the first is {int(bad[0])}",
            fix="restore or drop them first",
        )
    if cosine:
        rows = torch.nn.functional.normalize(rows, dim=1)
    generator = torch.Generator(device=rows.device).manual_seed(random_state)
    codes = plus_plus(rows, n_codes, generator)
    before, n_iter = float("inf"), 0
    while n_iter < max_iter:
        n_iter += 1
        nearest = search(rows, prepare_codes(codes))
        codes, counts = means(rows, nearest, codes)
        if cosine:
            codes = torch.nn.functional.normalize(codes, dim=1)
        far = (rows - codes[nearest]).square().sum(dim=1)
        error = float(far.mean())
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            worst = far.topk(min(len(empty), len(far))).indices
            codes[empty[: len(worst)]] = rows[worst]
        elif error >= before * (1 - tol):
            break
        before = error
    nearest = search(rows, prepare_codes(codes))
    counts = torch.bincount(nearest, minlength=n_codes)
    error = float((rows - codes[nearest]).square().sum(dim=1).mean())
    return KMeans(codes, counts, error, n_iter)


def means(rows: Tensor, nearest: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return each code's mean vector (its old place if it has none) and count."""
    counts = torch.bincount(nearest, minlength=len(codes))
    total = torch.zeros_like(codes).index_add_(0, nearest, rows)
    mean = total / counts.clamp_min(1)[:, None].to(total)
    return torch.where((counts > 0)[:, None], mean, codes), counts


def plus_plus(rows: Tensor, n_codes: int, generator: torch.Generator) -> Tensor:
    """Return vectors drawn far from each other (greedy k-means++)."""
    n, device = len(rows), rows.device
    first = torch.randint(n, (1,), generator=generator, device=device)
    chosen = [first]
    distance = (rows - rows[first]).square().sum(dim=1)
    candidates = _FEWEST_CANDIDATES + int(torch.tensor(float(n_codes)).log())
    norms = rows.square().sum(dim=1)
    for _ in range(n_codes - 1):
        # Where every vector has a code already, any will do.
        weights = torch.where(distance.sum() > 0, distance, torch.ones_like(distance))
        edges = weights.double().cumsum(dim=0)
        draws = torch.rand(
            candidates, generator=generator, device=device, dtype=torch.float64
        )
        tried = torch.searchsorted(edges, draws * edges[-1]).clamp_max(n - 1)
        apart = norms[:, None] + norms[tried] - 2 * rows @ rows[tried].T
        closer = torch.minimum(distance[:, None], apart.clamp_min(0))
        best = closer.sum(dim=0).argmin()
        distance = closer[:, best]
        chosen.append(tried[best : best + 1])
    return rows[torch.cat(chosen)].clone()
