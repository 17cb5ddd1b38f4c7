"""Recentring that survives label shift: one quantity a domain, no labels.

Moving a target's mean to the identity is wrong where its classes are not
balanced: the mean lies nearer the frequent class. The functions here keep the
decoder as it is and look for a better centre, for many domains in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from eegtensor._check import check_lengths, check_option, fail, listing
from eegtensor.geometry import (
    congruence,
    expm,
    frechet_mean,
    inv_sqrtm,
    logm,
    sqrtm,
    upper_vector,
)

VARIANTS = ("bias", "geodesic")
# Inside the logarithms of the published objective.
_SMALL = 1e-5
# A fit that improves the objective by less than this has found nothing.
MIN_GAIN = 1e-3
MIN_TRIALS_PER_CLASS = 2
# Weights by class ask for more: a class seen by chance gets all its weight.
MIN_TRIALS_BALANCED = 4

Decide = Callable[[Tensor], Tensor]


class Centres(NamedTuple):
    """Where the trials of each domain are moved from.

    Attributes
    ----------
    centre : Tensor, shape (n_domains, n, n)
        X becomes ``centre^-1/2 X centre^-1/2``.
    variance : Tensor, shape (n_domains,)
        Mean squared distance of a domain's trials to its centre.
    gain : Tensor, shape (n_domains,)
        By how much the objective fell from plain recentring.
    action : tuple of str, one a domain
        What was done, or why plain recentring was kept.
    """

    centre: Tensor
    variance: Tensor
    gain: Tensor
    action: tuple[str, ...]


def information_objective(
    logits: Tensor, membership: Tensor, *, temperature: float = 2.0
) -> Tensor:
    """Return each domain's mean entropy minus the entropy of its mean.

    With p = softmax(logits / T) it is -mean sum p log(p + 1e-5) + sum m
    log(m + 1e-5), m = mean p: low where trials are decided and classes are
    used alike.

    Parameters
    ----------
    logits : Tensor, shape (n_trials, n_classes)
    membership : Tensor, shape (n_domains, n_trials)
        Weight of each trial in each domain; rows sum to one.
    temperature : float

    Returns
    -------
    loss : Tensor, shape (n_domains,)
    """
    p = torch.softmax(logits / temperature, dim=-1)
    conditional = -(p * (p + _SMALL).log()).sum(dim=-1)
    mean = membership @ p
    return membership @ conditional + (mean * (mean + _SMALL).log()).sum(dim=-1)


def maximise_information(
    X: ArrayLike | Tensor,
    decide: Decide,
    *,
    domains: ArrayLike | Tensor | None = None,
    variant: str = "bias",
    dispersion: Callable[[Tensor], Tensor] | None = None,
    temperature: float | None = None,
    steps: int = 50,
    lr: float = 0.01,
) -> Centres:
    """Return centres under which a frozen decoder is sure and uses all classes.

    "bias" moves the centre freely: B = R^1/2 exp(S) R^1/2 from S = 0. "geodesic"
    moves it along the way from the scaled identity through the mean R: with
    c = det(R)^(1/n), c (R / c)^t from t = 1, t in [0, 2]; unlike the published
    geodesic to I this does not depend on the unit. The best iterate is kept,
    the start, which is plain recentring, among them.

    Parameters
    ----------
    X : array or tensor, shape (n_trials, n, n)
        SPD features of unlabelled trials, before any recentring.
    decide : callable
        ``(n_trials, n (n + 1) / 2)`` recentred tangent vectors, float64 tensors
        as `eegtensor.geometry.upper_vector` gives them, to logits
        ``(n_trials, n_classes)``; see `linear_decision`.
    domains : array-like of int, shape (n_trials,) | None
        Domain of each trial, 0 .. n_domains - 1; one domain by default.
    variant : "bias" | "geodesic"
    dispersion : callable | None
        Each domain's variance about its centre to the factor of its tangent
        vectors; None is 1.
    temperature : float | None
        Of the objective. None is the mean difference between a trial's two
        largest logits, in each domain after plain recentring, over the number
        of classes but one: the scale of the logits then does not matter. The
        paper has 2, which two classes that are well apart have here, too.
    steps, lr : int, float
        Of Adam.

    Returns
    -------
    Centres
        Plain recentring where a domain has fewer than 2 trials a class on
        average, or the objective falls by less than 1e-3.

    Raises
    ------
    EEGTensorError
        If shapes do not fit, the variant is not known or the temperature is
        not above 0.

    References
    ----------
    S. Li et al., "SPDIM: source-free unsupervised conditional and label shift
    adaptation in EEG", ICLR 2025.
    """
    check_option("variant", variant, VARIANTS)
    if temperature is not None and not temperature > 0:
        fail(f"temperature={temperature!r}", fix="choose a number above 0, or None")
    X, codes, membership = _prepared(X, domains)
    mean = frechet_mean(X, segments=codes)
    place, parameter = _bias(mean) if variant == "bias" else _geodesic(mean)
    optimizer = torch.optim.Adam([parameter], lr=lr)
    best = torch.full((len(mean),), torch.inf, dtype=X.dtype, device=X.device)
    start, centre = best, mean
    with torch.enable_grad():
        for step in range(steps + 1):
            here = place(parameter)
            vectors, _ = _tangents(X, here, codes, membership, dispersion)
            logits = decide(vectors)
            if step == 0:
                heat = _temperatures(logits.detach(), membership, temperature)[codes]
            loss = information_objective(
                logits / heat[:, None], membership, temperature=1.0
            )
            value = loss.detach()
            start = value if step == 0 else start
            # The pair that belongs together: this centre and its own objective.
            better = value < best
            best = torch.where(better, value, best)
            centre = torch.where(better[:, None, None], here.detach(), centre)
            if step == steps:
                break
            # Of the parameter alone: a frozen decoder collects no gradient.
            (parameter.grad,) = torch.autograd.grad(loss.sum(), parameter)
            optimizer.step()
            if variant == "geodesic":
                with torch.no_grad():
                    parameter.clamp_(0.0, 2.0)
    gain = start - best
    enough = _enough(codes, len(mean), logits.shape[-1], MIN_TRIALS_PER_CLASS)
    moved = enough & (gain >= MIN_GAIN)
    centre = torch.where(moved[:, None, None], centre, mean)
    return Centres(
        centre,
        _tangents(X, centre, codes, membership, None)[1],
        torch.where(moved, gain, 0.0),
        _actions(f"spdim-{variant}", enough, moved, MIN_TRIALS_PER_CLASS),
    )


@torch.no_grad()
def balance_classes(
    X: ArrayLike | Tensor,
    decide: Decide,
    *,
    domains: ArrayLike | Tensor | None = None,
    prior: Sequence[float] | None = None,
    dispersion: Callable[[Tensor], Tensor] | None = None,
    rounds: int = 10,
) -> Centres:
    """Return means in which every class weighs what it weighed in the sources.

    Starting from plain recentring, a trial weighs sum_k p_k prior_k / mean p_k
    with the decoder's probabilities p, and the means are taken again.

    Parameters
    ----------
    X, decide, domains, dispersion
        As in `maximise_information`.
    prior : sequence of float, one a class | None
        Share of each class in the sources; alike by default.
    rounds : int
        Repetitions; 0 is plain recentring.

    Returns
    -------
    Centres
        Of gain 0: this is no descent. Plain recentring where a domain has
        fewer than 4 trials a class on average.

    Notes
    -----
    It helps where classes separate and does next to nothing where they
    overlap: mixed probabilities are balanced already.
    """
    X, codes, membership = _prepared(X, domains)
    mean = frechet_mean(X, segments=codes)
    centre, enough = mean, torch.ones(len(mean), dtype=torch.bool, device=X.device)
    for _ in range(rounds):
        vectors, _ = _tangents(X, centre, codes, membership, dispersion)
        p = torch.softmax(decide(vectors), dim=-1)
        enough = _enough(codes, len(mean), p.shape[-1], MIN_TRIALS_BALANCED)
        ratio = _prior(prior, p) / (membership @ p)
        weights = (p * ratio[codes]).sum(dim=-1)
        centre = frechet_mean(X, segments=codes, weights=weights, init=centre)
    centre = torch.where(enough[:, None, None], centre, mean)
    return Centres(
        centre,
        _tangents(X, centre, codes, membership, None)[1],
        torch.zeros(len(mean), dtype=X.dtype, device=X.device),
        _actions("balanced", enough, enough, MIN_TRIALS_BALANCED),
    )


def linear_decision(coef: ArrayLike, intercept: ArrayLike) -> Decide:
    """Return the logits of a linear classifier, such as scikit-learn's.

    Parameters
    ----------
    coef : array, shape (n_classes, n_features), or (1, n_features) for two classes
    intercept : array, shape (n_classes,) or (1,)
    """
    weight = torch.as_tensor(np.asarray(coef, dtype=np.float64))
    offset = torch.as_tensor(np.asarray(intercept, dtype=np.float64))

    def decide(vectors: Tensor) -> Tensor:
        logits = vectors @ weight.to(vectors).mT + offset.to(vectors)
        # One column is the log odds of the second class.
        return torch.nn.functional.pad(logits, (1, 0)) if len(weight) == 1 else logits

    return decide


def _prepared(X: Any, domains: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, codes and the weight of each trial in each domain's mean."""
    # A copy of arrays: torch warns at memory that it may not write into.
    X = (X.detach() if isinstance(X, Tensor) else torch.tensor(np.asarray(X))).double()
    if X.ndim != 3 or X.shape[-1] != X.shape[-2] or not len(X):
        fail(
            f"X has shape {tuple(X.shape)}",
            fix="give SPD features of shape (n_trials, n, n)",
        )
    if domains is None:
        codes = torch.zeros(len(X), dtype=torch.int64, device=X.device)
    else:
        codes = torch.as_tensor(domains, dtype=torch.int64, device=X.device)
        check_lengths(len(X), domains=codes)
    one_hot = torch.nn.functional.one_hot(codes).to(X).mT
    counts = one_hot.sum(dim=-1, keepdim=True)
    empty = torch.nonzero(counts[:, 0] == 0)[:, 0].tolist()
    if empty:
        fail(
            f"Domains {listing(empty)} have no trial",
            fix="number domains from 0 without gaps",
        )
    return X, codes, one_hot / counts


def _bias(mean: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return the centre as a function of a symmetric matrix, and zero to start at."""
    root = sqrtm(mean)

    def place(S: Tensor) -> Tensor:
        return congruence(root, expm(S))

    return place, torch.zeros_like(mean).requires_grad_()


def _geodesic(mean: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return the centre as a function of the step, and one to start at."""
    log = logm(mean)
    eye = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    # log c I: the step turns and stretches, the size of the matrices stays.
    size = log.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[:, None, None] * eye

    def place(t: Tensor) -> Tensor:
        return expm(size + t[:, None, None] * (log - size))

    start = torch.ones(len(mean), dtype=mean.dtype, device=mean.device)
    return place, start.requires_grad_()


def _tangents(
    X: Tensor,
    centre: Tensor,
    codes: Tensor,
    membership: Tensor,
    dispersion: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Return tangent vectors at the centres, scaled, and the variances there."""
    vectors = upper_vector(logm(congruence(inv_sqrtm(centre)[codes], X)))
    variance = membership @ (vectors**2).sum(dim=-1)
    if dispersion is not None:
        vectors = dispersion(variance)[codes, None] * vectors
    return vectors, variance


def _temperatures(
    logits: Tensor, membership: Tensor, temperature: float | None
) -> Tensor:
    """Return each domain's temperature, shape (n_domains,)."""
    if temperature is not None:
        return logits.new_full((len(membership),), temperature)
    first, second = logits.topk(2, dim=-1).values.unbind(dim=-1)
    margin = membership @ (first - second)
    # Far above it p is linear in the logits, and the objective rewards their
    # spread alone. Logits that are all alike have no scale, and nothing to gain.
    return torch.where(margin > 0, margin / (logits.shape[-1] - 1), 1.0)


def _prior(prior: Sequence[float] | None, p: Tensor) -> Tensor:
    n_classes = p.shape[-1]
    if prior is None:
        return p.new_full((n_classes,), 1.0 / n_classes)
    values = torch.as_tensor(np.asarray(prior, dtype=np.float64)).to(p)
    if values.shape != (n_classes,) or not bool(
        (values >= 0).all() & (values.sum() > 0)
    ):
        fail(f"prior={prior!r}", fix=f"give {n_classes} shares, none below 0")
    return values / values.sum()


def _enough(codes: Tensor, n_domains: int, n_classes: int, least: int) -> Tensor:
    counts = torch.bincount(codes, minlength=n_domains)
    return counts >= least * n_classes


def _actions(name: str, enough: Tensor, moved: Tensor, least: int) -> tuple[str, ...]:
    few = f"refit: fewer than {least} trials per class"
    vain = "refit: nothing to gain"
    return tuple(
        name if m else (vain if e else few)
        for e, m in zip(enough.tolist(), moved.tolist(), strict=True)
    )
