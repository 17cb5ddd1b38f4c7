"""Bilinear maps between SPD matrices of different sizes."""

from __future__ import annotations

import geoopt
import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.geometry.spectral import congruence
from eegtensor.nn._initial import gaussian
from eegtensor.nn._precision import full_precision


def haar_stiefel(
    *shape: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return matrices (..., n, k) with orthonormal columns, uniform over all such.

    The Q of a Gaussian matrix, its columns signed so that R has a positive
    diagonal: without the signs Q would follow LAPACK's habits (Mezzadri, How to
    generate random matrices from the classical compact groups, 2007).
    """
    Q, R = torch.linalg.qr(gaussian(*shape, generator=generator))
    signs = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
    Q = Q * signs.to(Q)[..., None, :]
    return Q.to(dtype=dtype or torch.get_default_dtype(), device=device)


def stiefel_parameter(W: Tensor) -> nn.Parameter:
    """Return W (..., n, k) as a parameter that optimizers keep orthonormal."""
    # Not geoopt's canonical Stiefel: its retraction is not of first order.
    return geoopt.ManifoldParameter(W, manifold=geoopt.EuclideanStiefel())


class BiMap(nn.Module):
    """Z = W' S W with orthonormal columns of W (Huang and Van Gool, 2017).

    Parameters
    ----------
    n_in, n_out : int
        Sizes of S and of Z; ``n_out <= n_in``.
    n_maps : int | None
        Several maps side by side: S is then (..., n_maps, n_in, n_in).
    generator : torch.Generator | None
        Of the initial W, which is uniform over the Stiefel manifold.
    dtype, device : of W.

    Attributes
    ----------
    weight : geoopt.ManifoldParameter, shape (n_in, n_out) or (n_maps, n_in, n_out)
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        n_maps: int | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= n_out <= n_in:
            fail(
                f"A BiMap from {n_in} to {n_out} dimensions",
                why="More columns than rows cannot be orthonormal",
                fix=f"choose n_out between 1 and {n_in}",
            )
        shape = (n_in, n_out) if n_maps is None else (n_maps, n_in, n_out)
        W = haar_stiefel(*shape, generator=generator, dtype=dtype, device=device)
        self.weight = stiefel_parameter(W)

    def forward(self, S: Tensor) -> Tensor:
        """Return Z, shape (..., n_out, n_out), exactly symmetric.

        Parameters
        ----------
        S : Tensor, shape (..., n_in, n_in)
        """
        W = self.weight
        if S.shape[-W.ndim :] != (*W.shape[:-1], W.shape[-2]):
            wanted = ", ".join(map(str, (*W.shape[:-1], W.shape[-2])))
            fail(
                f"S has shape {tuple(S.shape)}",
                fix=f"give SPD matrices of shape (..., {wanted})",
            )
        with full_precision(S):
            Z: Tensor = congruence(W.mT, S.to(W.dtype))
        return Z

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        return ", ".join(map(str, self.weight.shape))
