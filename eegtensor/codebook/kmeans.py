"""k-means: the codes that lie best among vectors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.codebook.lookup import check_finite, directions, prepare_codes, search
from eegtensor.geometry._bridge import Array, bridged, floating

_TOL = 1e-3
# Vectors that each draw is chosen from: more cost time and fit EEG no better.
_TRIED = 3


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
    tol: float = _TOL,
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
    codes, _, counts, error, n_iter = lloyd(
        X, n_codes, max_iter=max_iter, tol=tol, cosine=cosine, random_state=random_state
    )
    return KMeans(codes, counts, error, n_iter)


def lloyd(
    X: Tensor,
    n_codes: int,
    *,
    max_iter: int,
    random_state: int,
    tol: float = _TOL,
    cosine: bool = False,
) -> tuple[Tensor, Tensor, Tensor, float, int]:
    """Return codes, each vector's code, counts, error and iterations; see `kmeans`."""
    if X.ndim != 2 or 0 in X.shape:
        fail(f"X has shape {tuple(X.shape)}", fix="give (n_vectors, dim) vectors")
    if n_codes < 1:
        fail(f"n_codes={n_codes!r}", fix="give at least one code")
    rows = floating(X.detach())
    check_finite(rows, "vectors", "restore or drop them first")
    everything = rows
    if cosine:
        rows = everything = directions(rows)
        pointing = rows.any(dim=1)
        # A zero vector has no direction; as a code it would win against wide angles.
        rows = rows[pointing] if bool(pointing.any()) else rows
    generator = torch.Generator(device=rows.device).manual_seed(random_state)
    codes = plus_plus(rows, n_codes, generator)
    error_before, n_iter = float("inf"), 0
    while n_iter < max_iter:
        n_iter += 1
        nearest = search(rows, prepare_codes(codes))
        last = codes
        codes, counts = means(rows, nearest, codes)
        if cosine:
            turned = directions(codes)
            codes = torch.where(turned.any(dim=1, keepdim=True), turned, last)
        far = (rows - codes[nearest]).square().sum(dim=1)
        error = float(far.mean())
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty):
            worst = far.topk(min(len(empty), len(far))).indices
            codes[empty[: len(worst)]] = rows[worst]
        elif error >= error_before * (1 - tol):
            break
        error_before = error
    nearest = search(everything, prepare_codes(codes))
    counts = torch.bincount(nearest, minlength=n_codes)
    error = float((everything - codes[nearest]).square().sum(dim=1).mean())
    return codes, nearest, counts, error, n_iter


def means(rows: Tensor, nearest: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return each code's mean vector (its old place if it has none) and count."""
    counts = torch.bincount(nearest, minlength=len(codes))
    total = torch.zeros_like(codes).index_add_(0, nearest, rows)
    mean = total / counts.clamp_min(1)[:, None].to(total)
    return torch.where((counts > 0)[:, None], mean, codes), counts


def plus_plus(rows: Tensor, n_codes: int, generator: torch.Generator) -> Tensor:
    """Return vectors drawn far from each other (greedy k-means++)."""
    n, device = len(rows), rows.device
    draws = torch.rand(
        n_codes, _TRIED, generator=generator, device=device, dtype=torch.float64
    )
    moved = rows - rows.mean(dim=0)
    # Vectors in columns: a thin product runs several times faster this way.
    columns = moved.T.contiguous()
    norms = moved.square().sum(dim=1)
    chosen = torch.empty(n_codes, dtype=torch.int64, device=device)
    chosen[0] = (draws[0, 0] * n).long()
    distance = (moved - moved[chosen[0]]).square().sum(dim=1)
    for code in range(1, n_codes):
        edges = distance.cumsum(dim=0, dtype=torch.float64)
        tried = torch.searchsorted(edges, draws[code] * edges[-1]).clamp_max_(n - 1)
        apart = torch.addmm(norms, moved[tried], columns, alpha=-2)
        apart.add_(norms[tried, None]).clamp_min_(0)
        closer = torch.minimum(distance, apart, out=apart)
        best = closer.sum(dim=1).argmin()
        distance = closer[best]
        chosen[code] = tried[best]
    return rows[chosen]
