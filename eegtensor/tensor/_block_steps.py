"""Steps of a block term decomposition, and where it begins: a CP model in groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eegtensor.tensor._alternate import normal_matrix, solve
from eegtensor.tensor._momentum import compete
from eegtensor.tensor._shapes import normal
from eegtensor.tensor.cp import cp
from eegtensor.tensor.kernels import squared_norm, sweep_modes
from eegtensor.tensor.tucker import start_factors


def step_of(X: Tensor, total: float, ridge: float) -> Any:
    """Return one sweep over [c, A, B]: that of CP with c repeated L times."""

    def step(state: list[Tensor]) -> tuple[list[Tensor], float]:
        c, A, B = orthonormal(*state)
        if total == 0.0:
            return [torch.zeros_like(c), A, B], 0.0
        K, R = c.shape
        L = A.shape[2]
        factors = [c.repeat_interleave(L, dim=1), A.flatten(1), B.flatten(1)]
        grams = [U.double().mT @ U.double() for U in factors]
        inner = {}

        def update(n: int, M: Tensor) -> Tensor:
            M, V = M.double(), normal_matrix(grams, n)
            if n == 0:
                M = M.reshape(K, R, L).sum(dim=2)
                V = V.reshape(R, L, R, L).sum(dim=(1, 3))
            U = solve(V, M, ridge)
            inner["product"] = (M * U).sum()
            if n == 0:
                U = U.repeat_interleave(L, dim=1)
            grams[n] = U.mT @ U
            return U.to(X.dtype)

        sweep_modes(X, factors, update)
        modelled = normal_matrix(grams, -1).sum()
        error = float((total - 2.0 * inner["product"] + modelled) / total)
        c, A, B = factors
        shape = (-1, R, L)
        return [c[:, ::L], A.reshape(shape), B.reshape(shape)], max(error, 0.0)

    return step


def orthonormal(c: Tensor, A: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same terms with orthonormal A_r, and c_r and B_r of equal norm."""
    Q, S = torch.linalg.qr(A.movedim(1, 0))
    # The sign that makes Q a continuous function of A.
    sign = torch.where(S.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0).to(S)
    A = (Q * sign[:, None, :]).movedim(0, 1)
    B = torch.einsum("jrm,rlm->jrl", B, sign[:, :, None] * S)
    sizes = c.norm(dim=0), B.norm(dim=(0, 2))
    ratio = torch.where(
        (sizes[0] > 0) & (sizes[1] > 0), sizes[1] / sizes[0], torch.ones_like(sizes[0])
    ).sqrt()
    return c * ratio, A.contiguous(), B / ratio[:, None]


def begin(
    X: Tensor,
    R: int,
    L: int,
    n_init: int,
    ridge: float,
    max_iter: int,
    tol: float,
    random: Any,
) -> tuple[list[Tensor], tuple[float, ...]]:
    """Return the best of several starts on a compressed tensor, in full size."""
    sizes = [min(s, 2 * R * (L if n else 1)) for n, s in enumerate(X.shape)]
    basis, core = start_factors(X, sizes)
    core = core.double().contiguous()
    starts = []
    for start in range(n_init):
        if start % 2 == 0:
            starts.append(_clustered(core, R, L, start, random))
        else:
            drawn = [(sizes[0], R), (sizes[1], R, L), (sizes[2], R, L)]
            starts.append([normal(shape, random).to(core) for shape in drawn])
    step = step_of(core, squared_norm(core), ridge)
    state, *_, fits = compete(step, starts, max_iter=max_iter, tol=tol)
    full = [
        torch.tensordot(U.double(), S, dims=([1], [0])).to(X.dtype)
        for U, S in zip(basis, state, strict=True)
    ]
    return full, fits


def _clustered(core: Tensor, R: int, L: int, start: int, random: Any) -> list[Tensor]:
    """Return a start: CP components, L by L those most alike along the first mode."""
    model = cp(
        core,
        R * L,
        n_init=1,
        compress=None,
        max_iter=30,
        random_state=random,
    )
    if start > 0:
        noise = [0.3 * U.std() * normal(U.shape, random).to(U) for U in model.factors]
        model = model._replace(
            factors=tuple(U + E for U, E in zip(model.factors, noise, strict=True))
        )
    c, A, B = model.factors
    cosines = torch.nn.functional.normalize(c, dim=0)
    alike = (cosines.mT @ cosines).tolist()
    left, order = list(range(R * L)), []
    while left:
        # Components come by falling weight: the largest one left leads a group.
        leader = left[0]
        group = sorted(left, key=lambda k: -abs(alike[leader][k]))[:L]
        order += group
        left = [k for k in left if k not in group]
    c = (c * model.weights)[:, order].reshape(len(c), R, L)
    sign = torch.where((c * c[:, :, :1]).sum(dim=0) < 0, -1.0, 1.0).to(c)
    size = (c * sign).norm(dim=0)
    common = torch.nn.functional.normalize((c * sign).sum(dim=2), dim=0)
    A, B = (U[:, order].reshape(-1, R, L) for U in (A, B))
    return [common, A * sign, B * size]
