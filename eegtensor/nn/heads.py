"""Classifiers at the end of a network: features to logits."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.nn._initial import fill_uniform, gaussian
from eegtensor.nn.bimap import haar_stiefel, stiefel_parameter

HEADS = ("linear", "grassmann", "simplex", "orthogonal")


def make_head(
    head: str,
    n_features: int,
    n_outputs: int,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> nn.Module:
    """Return a head by name.

    Parameters
    ----------
    head : "linear" | "grassmann" | "simplex" | "orthogonal"
    n_features, n_outputs : int
    generator : torch.Generator | None
        Of the initial weights, or of the fixed vectors.
    dtype, device : of the weights.
    """
    where: Any = {"dtype": dtype, "device": device}
    check_option("head", head, HEADS)
    if head == "linear":
        linear = nn.Linear(n_features, n_outputs, **where)
        fill_uniform(linear.weight, linear.bias, fan_in=n_features, generator=generator)
        return linear
    if head == "grassmann":
        return GrassmannHead(n_features, n_outputs, generator=generator, **where)
    return EquiangularHead(
        n_features, n_outputs, vectors=head, generator=generator, **where
    )


class GrassmannHead(nn.Module):
    """A class is a subspace: its logit is the length of the projection onto it.

    For features h, logit_c = scale ||S_c' h|| / ||h|| with orthonormal columns
    of S_c; only the span of S_c matters. Classes may have several modes, and
    their opposites: the sign of h does not count.

    Parameters
    ----------
    n_features, n_outputs : int
    n_dims : int
        Dimension of each class's subspace.
    scale : float
    generator : torch.Generator | None
    dtype, device : of the weights.

    References
    ----------
    H. Wang, Z. Li and W. Zhang, "Get the best of both worlds: improving accuracy and
    transferability by Grassmann class representation", ICCV 2023.
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        *,
        n_dims: int = 2,
        scale: float = 25.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= n_dims <= n_features:
            fail(
                f"Subspaces of {n_dims} dimensions of {n_features} features",
                fix=f"choose n_dims between 1 and {n_features}",
            )
        self.scale = scale
        S = haar_stiefel(
            n_outputs,
            n_features,
            n_dims,
            generator=generator,
            dtype=dtype,
            device=device,
        )
        self.weight = stiefel_parameter(S)

    def forward(self, h: Tensor) -> Tensor:
        """Return logits (batch, n_outputs) of features (batch, n_features)."""
        # Directions alone count: the length of h speaks for no class.
        unit = F.normalize(h.to(self.weight.dtype), dim=-1)
        projected = torch.einsum("bf,cfk->bck", unit, self.weight)
        # The root of zero has no gradient.
        tiny = torch.finfo(unit.dtype).eps ** 2
        return self.scale * (projected.square().sum(dim=-1) + tiny).sqrt()

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        classes, features, dims = self.weight.shape
        return f"{features}, {classes}, n_dims={dims}"


class EquiangularHead(nn.Module):
    """Classes are fixed unit vectors at equal angles; nothing is trained.

    logit_c = <h, v_c> / (||h|| temperature). No class can claim more room than
    another, whatever the number of its trials.

    Parameters
    ----------
    n_features, n_outputs : int
    vectors : "simplex" | "orthogonal"
        A simplex (cosines -1 / (n_outputs - 1), as far apart as can be), or
        orthogonal vectors, to which classes can be added: with a generator of
        the same seed the first ones stay.
    temperature : float
    generator : torch.Generator | None
        Of the vectors' common rotation.
    dtype, device : of the vectors.

    References
    ----------
    Shen, Sun and Wei, "Equiangular basis vectors", CVPR 2023. Papyan, Han and
    Donoho, "Prevalence of neural collapse ...", PNAS 2020 (simplex).
    """

    vectors: Tensor

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        *,
        vectors: str = "simplex",
        temperature: float = 0.07,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_option("vectors", vectors, ("simplex", "orthogonal"))
        least = n_outputs - 1 if vectors == "simplex" else n_outputs
        if n_outputs < 2 or n_features < least:
            fail(
                f"{n_outputs} {vectors} vectors in {n_features} dimensions",
                why="A set at equal angles does not exist",
                fix=f"use at least 2 classes and {max(least, 1)} features",
            )
        self.temperature = temperature
        # All of the rotation is drawn, so that more classes do not change the first.
        G = gaussian(n_features, n_features, generator=generator)
        basis = torch.linalg.qr(G.mT[:, :least])[0].mT
        if vectors == "simplex":
            basis = _simplex(n_outputs).to(basis) @ basis
        dtype = dtype or torch.get_default_dtype()
        self.register_buffer("vectors", basis.to(dtype=dtype, device=device))

    def forward(self, h: Tensor) -> Tensor:
        """Return logits (batch, n_outputs) of features (batch, n_features)."""
        unit = F.normalize(h.to(self.vectors.dtype), dim=-1)
        return unit @ self.vectors.mT / self.temperature

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        n_outputs, n_features = self.vectors.shape
        return f"{n_features}, {n_outputs}"


def _simplex(n: int) -> Tensor:
    """Return n unit vectors of n - 1 dimensions at equal angles, as rows."""
    # Helmert's contrasts: an orthonormal basis of what sums to zero.
    steps = torch.arange(1, n, dtype=torch.float64)
    basis = torch.tril(torch.ones(n, n, dtype=torch.float64)).mT[:, : n - 1]
    basis = basis - torch.diag(steps, -1)[:, : n - 1]
    basis = basis / (steps * (steps + 1.0)).sqrt()
    return math.sqrt(n / (n - 1)) * basis
