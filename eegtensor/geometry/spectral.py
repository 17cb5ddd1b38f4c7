"""Functions of symmetric matrices through one eigendecomposition.

The only place of the package that decomposes symmetric matrices. Thresholds
are relative to each matrix, so that V^2 and uV^2 give the same result.
Derivatives are exact (Daleckii and Krein), first and second, also where
eigenvalues repeat; matrices near the identity keep their digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from eegtensor._check import fail, listing
from eegtensor.geometry._batched_eigh import eigh as _eigh
from eegtensor.geometry._batched_eigh import eigvalsh as _eigvalsh
from eegtensor.geometry._batched_eigh import logarithm as _logarithm
from eegtensor.geometry._bridge import Array, bridged, floating
from eegtensor.geometry._eager import needs_gradient, refuse_tangents, times
from eegtensor.geometry._scalar import (
    EXP,
    IDENTITY,
    INV_SQRT,
    LOG,
    SQRT,
    ScalarFunction,
    power,
    second_differences,
)


def _eager_cpu(X: Tensor) -> bool:
    """Whether a look at the values costs nothing: neither traced nor on a GPU."""
    return X.device.type == "cpu" and not torch.compiler.is_compiling()


@bridged
def symmetrize(X: Array) -> Array:
    """Return the symmetric part (X + X') / 2, shape (..., n, n)."""
    return 0.5 * (X + X.mT)


@bridged
def eigh(X: Array) -> tuple[Array, Array]:
    """Return eigenvalues (..., n), ascending, and eigenvectors (..., n, n).

    No gradient flows through them: it does not exist where eigenvalues repeat.
    """
    with torch.no_grad():
        X = floating(X)
        values, vectors = _solve(_eigh, X, X)
        _check_values(values, X)
        return values, vectors


@bridged
def eigvalsh(X: Array) -> Array:
    """Return the eigenvalues alone, ascending, shape (..., n); without gradient."""
    with torch.no_grad():
        X = floating(X)
        values = _solve(_eigvalsh, X, X)
        _check_values(values, X)
        return values


def _solve(solver: Callable[[Tensor], Any], A: Tensor, X: Tensor) -> Any:
    if torch.compiler.is_compiling():
        return solver(A)
    try:
        return solver(A)
    except torch.linalg.LinAlgError:  # LAPACK's answer to NaN
        _refuse(X)


def _check_values(values: Tensor, X: Tensor, *, positive: bool = False) -> None:
    """Refuse X by its eigenvalues, ascending, or by the largest of each matrix."""
    # On a GPU a look at the values would stop it: NaN goes through there.
    if not _eager_cpu(X) or not values.numel():
        return
    # NaN fills all values of a matrix, so that the largest tells.
    low, high = (float(end) for end in values[..., -1].aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        _refuse(X)
    if positive and low <= 0.0:
        fail(
            "A matrix has no positive eigenvalue",
            why="It is no covariance matrix: zero (a constant trial) or negative",
            fix="drop constant trials and check where the matrices come from",
        )


def _refuse(X: Tensor) -> NoReturn:
    bad = (~torch.isfinite(X).all(dim=-1).all(dim=-1)).flatten().nonzero()[:, 0]
    fail(
        f"Matrices {listing(bad.tolist())} hold NaN or infinity"
        if len(bad)
        else "The eigenvalues of a matrix were not found",
        why="Without eigenvalues it has no logarithm, root or distance",
        fix="drop these trials",
    )


@bridged
def from_eig(values: Array, vectors: Array) -> Array:
    """Return U diag(values) U', shape (..., n, n)."""
    return times(vectors * values[..., None, :], vectors.mT)


def rounding_floor(values: Tensor) -> Tensor:
    """Return what rounding may make of a zero eigenvalue, shape (..., 1).

    The error of an eigenvalue is some machine epsilons of the largest one and
    grows with the square root of the size.
    """
    return _rounding(values.shape[-1], values.dtype) * values[..., -1:]


def _rounding(n: int, dtype: torch.dtype) -> float:
    return 2.0 * math.sqrt(n) * torch.finfo(dtype).eps


@bridged
def positive(values: Array) -> Array:
    """Raise eigenvalues, ascending, to at least rounding of the largest one."""
    _check_values(values, values, positive=True)
    return torch.maximum(values, rounding_floor(values))


class _Eig(NamedTuple):
    """One decomposition, as forward and both backward passes use it.

    Attributes
    ----------
    raw : Tensor, shape (..., n)
        Eigenvalues up to a common shift; differences are exact in them.
    s : Tensor, shape (..., n)
        Eigenvalues, raised to the floor.
    vectors : Tensor, shape (..., n, n)
    raised : Tensor of bool, shape (..., n)
    """

    raw: Tensor
    s: Tensor
    vectors: Tensor
    raised: Tensor


def _decompose(X: Tensor, f: ScalarFunction, floor: float | None) -> tuple[_Eig, Any]:
    shift = None
    A = X
    if f.log:
        # I + E loses the digits of E in its eigenvalues; E has them all.
        width = 0.5 / X.shape[-1]
        if not _eager_cpu(X) or _diagonal_near(X, width):
            eye = torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
            near = (X - eye).abs().amax(dim=(-1, -2)) < width
            shift = near.to(X.dtype)[..., None]
            A = X - shift[..., None] * eye
    raw, vectors = _solve(_eigh, A, X)
    s = raw if shift is None else raw + shift
    _check_values(s, X, positive=f.positive and floor is None)
    if floor is not None:
        low = floor * s.mean(dim=-1, keepdim=True)
    elif f.positive:
        low = rounding_floor(s)
    else:
        return _Eig(raw, s, vectors, torch.zeros_like(s, dtype=torch.bool)), shift
    raised = s <= low
    return _Eig(raw, torch.where(raised, low, s), vectors, raised), shift


def _diagonal_near(X: Tensor, width: float) -> bool:
    """Whether a matrix has a diagonal of ones up to `width`: a quick look."""
    far = (X.detach().diagonal(dim1=-2, dim2=-1) - 1.0).abs().amax(dim=-1)
    return far.numel() > 0 and float(far.amin()) < width


def _values(f: ScalarFunction, eig: _Eig, shift: Tensor | None) -> Tensor:
    if shift is None:
        return f.value(eig.s)
    near = shift > 0
    return torch.where(
        near, torch.log1p(torch.where(near, eig.raw, 0.0)), f.value(eig.s)
    )


def _differences(f: ScalarFunction, eig: _Eig) -> Tensor:
    """Return K_ij of f after raising, shape (..., n, n)."""
    a, b = eig.s[..., :, None], eig.s[..., None, :]
    true = eig.raw[..., :, None] - eig.raw[..., None, :]
    if _eager_cpu(eig.s) and not bool(eig.raised.any()):
        return f.divided(a, b, true)
    touched = eig.raised[..., :, None] | eig.raised[..., None, :]
    K = f.divided(a, b, torch.where(touched, a - b, true))
    both = eig.raised[..., :, None] & eig.raised[..., None, :]
    slope = torch.where(both, 0.0, (a - b) / torch.where(true == 0, 1.0, true))
    return torch.where(touched, K * slope, K)


def _floor_slope(eig: _Eig, floor: float | None) -> Tensor:
    """Return d floor / dX in the eigenbasis, where it is diagonal: (..., n)."""
    slope = torch.zeros_like(eig.s)
    if floor is not None:
        return slope + floor / eig.s.shape[-1]
    slope[..., -1] = _rounding(eig.s.shape[-1], eig.s.dtype)
    return slope


def _rotate(G: Tensor, U: Tensor) -> Tensor:
    return times(times(U.mT, 0.5 * (G + G.mT)), U)


def _diagonal_sum(G: Tensor, weight: Tensor) -> Tensor:
    return (G.diagonal(dim1=-2, dim2=-1) * weight).sum(dim=-1, keepdim=True)


class _Plan(NamedTuple):
    """What a spectral function is made of, besides the matrix."""

    functions: tuple[ScalarFunction, ...]
    floor: float | None
    parameter: Tensor | None
    known: tuple[_Eig, Tensor | None] | None = None


class _Spectral(torch.autograd.Function):
    """U f(s) U' for one or more f that share one decomposition."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, parameter: Tensor | None, plan: _Plan) -> Any:
        known = plan.known or _decompose(X, plan.functions[0], plan.floor)
        eig, shift = known
        out = tuple(
            from_eig(_values(f, eig, shift), eig.vectors) for f in plan.functions
        )
        ctx.plan = plan
        ctx.save_for_backward(X, parameter, *eig, *(() if shift is None else (shift,)))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        X, parameter, *rest = ctx.saved_tensors
        eig, plan = _Eig(*rest[:4]), ctx.plan
        pairs = [
            (f, G) for f, G in zip(plan.functions, grads, strict=True) if G is not None
        ]
        if not pairs:
            return None, None, None
        if parameter is not None and parameter.requires_grad:
            return (*_power_backward(X, parameter, eig, plan, pairs[0][1]), None)
        if torch.is_grad_enabled():
            parts = [_Derivative.apply(G, X, eig, f, plan.floor) for f, G in pairs]
            return sum(parts[1:], parts[0]), None, None
        inner: Tensor | None = None
        for f, G in pairs:
            part = _adjoint(_rotate(G, eig.vectors), eig, f, plan.floor)
            inner = part if inner is None else inner + part
        assert inner is not None
        return times(times(eig.vectors, inner), eig.vectors.mT), None, None


def _adjoint(G: Tensor, eig: _Eig, f: ScalarFunction, floor: float | None) -> Tensor:
    """Return the gradient in the eigenbasis from the rotated cotangent."""
    inner = _differences(f, eig) * G
    if _eager_cpu(G) and not bool(eig.raised.any()):
        return inner
    # Raised eigenvalues follow the floor, and the floor follows the matrix.
    along = _diagonal_sum(G, eig.raised * f.derivative(eig.s))
    return inner + torch.diag_embed(along * _floor_slope(eig, floor))


def _power_backward(
    X: Tensor, p: Tensor, eig: _Eig, plan: _Plan, G: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    if torch.is_grad_enabled():
        # Second derivatives that mix X and p: X^p = exp(p log X) has them.
        again = expm(p[..., None, None] * logm(X))
        first, second = torch.autograd.grad(
            again, (X, p), G, create_graph=True, allow_unused=True
        )
        return first, second
    rotated = _rotate(G, eig.vectors)
    f = plan.functions[0]
    inner = _adjoint(rotated, eig, f, plan.floor)
    by_power = _diagonal_sum(rotated, f.value(eig.s) * eig.s.log())[..., 0]
    return eig.vectors @ inner @ eig.vectors.mT, by_power.sum_to_size(p.shape)


class _Derivative(torch.autograd.Function):
    """The gradient of `_Spectral`, itself differentiable."""

    @staticmethod
    def forward(
        ctx: Any,
        G: Tensor,
        X: Tensor,
        eig: _Eig,
        f: ScalarFunction,
        floor: float | None,
    ) -> Tensor:
        ctx.f, ctx.floor, ctx.eig = f, floor, eig
        ctx.save_for_backward(G)
        U = eig.vectors
        return U @ _adjoint(_rotate(G, U), eig, f, floor) @ U.mT

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, H: Tensor) -> Any:
        (G,) = ctx.saved_tensors
        f, eig = ctx.f, ctx.eig
        U = eig.vectors
        g, h = _rotate(G, U), _rotate(H, U)
        K = _differences(f, eig)
        raised = eig.raised.to(K.dtype)
        slope = _floor_slope(eig, ctx.floor) * raised.any(dim=-1, keepdim=True)
        tau = raised * f.derivative(eig.s)
        moved = _diagonal_sum(h, slope)
        by_G = K * h + torch.diag_embed(tau * moved)
        second = second_differences(f, eig.s, eig.raw, eig.raised, K)
        by_X = torch.einsum("...ikj,...ik,...kj->...ij", second, g, h)
        by_X = by_X + by_X.mT
        # How raised eigenspaces turn, and how the floor bends, with the matrix.
        jump = raised[..., :, None] - raised[..., None, :]
        gap = eig.raw[..., :, None] - eig.raw[..., None, :]
        turn = jump / torch.where(jump == 0, 1.0, gap)
        height = (tau.sum(-1) / raised.sum(-1).clamp_min(1.0))[..., None]
        bend = _diagonal_sum(g, raised * f.second(eig.s)) * moved
        crossed = height * (h * turn * g).sum(dim=(-1, -2))[..., None]
        by_X = by_X + torch.diag_embed((crossed + bend) * slope)
        by_X = by_X + (height * moved)[..., None] * turn * g
        return U @ by_G @ U.mT, U @ by_X @ U.mT, None, None, None


def spectral(
    X: Tensor,
    *functions: ScalarFunction,
    floor: float | None = None,
    parameter: Tensor | None = None,
) -> Any:
    """Return f(X) for every function given, from one eigendecomposition.

    Parameters
    ----------
    X : Tensor, shape (..., n, n), exactly symmetric
        One triangle is read.
    *functions : ScalarFunction
    floor : float | None
        Eigenvalues are raised to this multiple of their mean; by default to
        rounding of the largest one, where a function needs positive numbers.
    parameter : Tensor | None
        The power of `power`, where a gradient with respect to it is wanted.

    Returns
    -------
    F : Tensor, shape (..., n, n), or a tuple of them for several functions
    """
    if needs_gradient(X, parameter) and not torch.compiler.is_compiling():
        plan = _Plan(functions, floor, parameter)
        out = _Spectral.apply(X, parameter, plan)  # type: ignore[no-untyped-call]
        return out[0] if len(functions) == 1 else out
    known = functions == (LOG,) and floor is None
    if known and (compiled := compiled_logarithm(X)) is not None:
        return compiled
    eig, shift = _decompose(X, functions[0], floor)
    out = tuple(from_eig(_values(f, eig, shift), eig.vectors) for f in functions)
    return out[0] if len(functions) == 1 else out


def compiled_logarithm(
    X: Tensor, V: Tensor | None = None, slot: Tensor | None = None
) -> Tensor | None:
    """Return log(V X V') without gradient, or None where nothing compiled does it.

    V, by default I, has shape (K, n, n), and `slot` says which one is each matrix's.
    """
    found = _logarithm(X, _rounding(X.shape[-1], X.dtype), V, slot)
    if found is not None:
        _check_values(found[0], X, positive=True)
    return None if found is None else found[1]


def with_derivatives(f: ScalarFunction, X: Tensor, *tangents: Tensor) -> Any:
    """Return f(X) and its derivatives along tangents, from one decomposition.

    Parameters
    ----------
    f : ScalarFunction
    X : Tensor, shape (..., n, n), exactly symmetric
    *tangents : Tensor, shape (..., n, n)
        They broadcast against X.

    Returns
    -------
    F, D1, D2, ... : Tensor, shape (..., n, n)
        Differentiable: F twice, the others once.
    """
    with torch.no_grad():
        known = _decompose(X, f, None)
    if torch.compiler.is_compiling():
        eig, shift = known
        U = eig.vectors
        value = from_eig(_values(f, eig, shift), U)
        turned = (_adjoint(_rotate(V, U), eig, f, None) for V in tangents)
        return (value, *(U @ inner @ U.mT for inner in turned))
    plan = _Plan((f,), None, None, known)
    (value,) = _Spectral.apply(X, None, plan)  # type: ignore[no-untyped-call]
    along = (
        _Derivative.apply(V, X, known[0], f, None)  # type: ignore[no-untyped-call]
        for V in tangents
    )
    return (value, *along)


@bridged
def logm(X: Array) -> Array:
    """Return the matrix logarithm of SPD matrices, shape (..., n, n)."""
    return spectral(symmetrize(floating(X)), LOG)


@bridged
def sqrtm(X: Array) -> Array:
    """Return the symmetric square root of SPD matrices, shape (..., n, n)."""
    return spectral(symmetrize(floating(X)), SQRT)


@bridged
def inv_sqrtm(X: Array) -> Array:
    """Return the inverse symmetric square root, shape (..., n, n)."""
    return spectral(symmetrize(floating(X)), INV_SQRT)


@bridged
def powm(X: Array, p: float | Array) -> Array:
    """Return X^p of SPD matrices, shape (..., n, n).

    Parameters
    ----------
    X : array or tensor, shape (..., n, n)
    p : float | array or tensor, shape (...)
        One power, or one for each matrix. Gradients flow to a tensor.
    """
    X = symmetrize(floating(X))
    if not isinstance(p, Tensor):
        return spectral(X, power(float(p)))
    refuse_tangents(p := p.to(X.dtype))
    return spectral(X, power(p.detach()[..., None]), parameter=p)


@bridged
def expm(X: Array) -> Array:
    """Return the exponential of symmetric matrices, shape (..., n, n)."""
    return spectral(symmetrize(floating(X)), EXP)


@bridged
def sqrtm_pair(X: Array) -> tuple[Array, Array]:
    """Return X^(1/2) and X^(-1/2), both (..., n, n), from one eigendecomposition."""
    root, inverse = spectral(symmetrize(floating(X)), SQRT, INV_SQRT)
    return root, inverse


@bridged
def rectify(X: Array, threshold: float) -> Array:
    """Raise eigenvalues to `threshold` times their mean, shape (..., n, n).

    The ReEig layer of Huang and Van Gool (2017), with a threshold relative to
    the matrix, so that units do not matter.
    """
    return spectral(symmetrize(floating(X)), IDENTITY, floor=threshold)


@bridged
def congruence(W: Array, X: Array) -> Array:
    """Return the symmetric W X W', shape (..., n, n); W and X broadcast."""
    # eigh reads one triangle only: rounding must not differ between the two.
    return symmetrize(W @ X @ W.mT)
