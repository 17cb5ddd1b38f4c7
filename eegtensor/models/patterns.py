"""What a network with a linear front looks at: from tangent space to sensors."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from eegtensor._check import fail
from eegtensor.geometry._bridge import Array, bridged
from eegtensor.geometry.spectral import (
    congruence,
    eigh,
    inv_sqrtm,
    logm,
    rectify,
    symmetrize,
)
from eegtensor.nn import LinearFront
from eegtensor.nn._lag import lag_covariance

# Numbers of float64 in the covariances of filtered channels held at once.
_BLOCK = 2**23
# Part of the mean eigenvalue below which sensors have no power of their own.
_FLOOR = 1e-6


class ClassPatterns(NamedTuple):
    """How the covariance of sensors changes as a network's decision rises.

    The sensors are seen through the network's temporal filters, each filter's
    output scaled to equal power and weighted by its share in the latent
    sources: neither gains of people nor scales of filters matter.

    Attributes
    ----------
    matrices : array or tensor, shape (n_contrasts, n_chans, n_chans)
        Symmetric, of either sign; for a rise by one standard deviation. One
        contrast for two classes, the second over the first; else one a class,
        over the mean of the others. Without signs or axes of latent sources, so
        that the mean over networks is one.
    covariance : array or tensor, shape (n_chans, n_chans)
        Mean covariance of the sensors; the mean of its diagonal is 1.
    """

    matrices: Array
    covariance: Array


class Sources(NamedTuple):
    """Sources whose power rises or falls, those of the largest change first.

    Attributes
    ----------
    change : array or tensor, shape (..., n)
        Change of power over power.
    filters, topographies : array or tensor, shape (..., n_chans, n)
        As columns: how a source is seen by the sensors, and reaches them. Each
        source has unit power.
    """

    change: Array
    filters: Array
    topographies: Array


def class_patterns(net: Any, x: Tensor, domain: Tensor) -> ClassPatterns:
    """Return what a network's decisions say about the sensors.

    The network makes latent sources u = B y of filtered channels y. For each
    domain, whitened by its mean R_d of u u', tangent vectors t = log(R_d^{-1/2}
    u u' R_d^{-1/2}) covary with the decision c [1]_; a source reaches the
    filtered channels as its covariance with them says, and so does its change:

        A = Cov(t, c) / sd(c),   M_d = E_d[y y'] B' R_d^{-1/2},   P = mean_d M_d A M_d'

    with covariances within domains, and P summed over temporal filters. For
    linear heads Cov(t, c) is Cov(t) w, w being the contrast of weights.

    Parameters
    ----------
    net : torch.nn.Module
        In evaluation mode, with ``front``, a `LinearFront`, ``bimap`` and ``tail``,
        such as `TSMNet`.
    x : Tensor, shape (n_trials, n_chans, n_times) or (n_trials, n_statistics)
        Trials in volts; with the lag path also ``net.front.statistics`` of them.
        No labels are needed.
    domain : Tensor of int64, shape (n_trials,)
        As for the network; trials of code -1 count as one domain.

    Returns
    -------
    ClassPatterns
        Of float64 tensors.

    Raises
    ------
    EEGTensorError
        If the network has no linear front or is in training mode, or its
        decision is the same for all trials of each domain.

    References
    ----------
    .. [1] Haufe et al., On the interpretation of weight vectors of linear models
       in multivariate neuroimaging, NeuroImage 87, 2014.
    .. [2] Kobler et al., SPD domain-specific batch normalization to crack
       interpretable unsupervised domain adaptation in EEG, NeurIPS 2022, whose
       patterns are the columns of M_d times the eigenvectors of A.
    """
    front = getattr(net, "front", None)
    if not isinstance(front, LinearFront):
        fail(
            f"{type(net).__name__} has no linear front",
            why="Patterns lead from latent sources back through linear filters",
            fix="use TSMNet",
        )
    if net.training:
        fail(
            "The network is in training mode",
            why="Looking at trials would move its statistics",
            fix="call net.eval() first",
        )
    if domain.shape != x.shape[:1]:
        fail(
            f"domain has shape {tuple(domain.shape)} for {len(x)} trials",
            fix="give one int64 code per trial, of net.norm.encode(names)",
        )
    with torch.no_grad():
        B = _latent_filters(net, front)
        member = (domain == torch.unique(domain)[:, None]).to(B)
        share = member / member.sum(dim=1, keepdim=True)
        decision, S, own, cross = _pass(net, front, B, x, domain, share)

        def average(V: Tensor) -> Tensor:
            return (share @ V.flatten(1)).view(len(share), *V.shape[1:])

        S = rectify(S, getattr(net.tail, "threshold", 1e-4))
        # The arithmetic mean, by which M is the regression of channels on sources.
        root = inv_sqrtm(average(S))
        slot = member.argmax(dim=0)
        tangent = logm(congruence(root[slot], S))
        decision = decision - average(decision)[slot]
        spread = decision.square().mean(dim=0).sqrt()
        if not bool((spread > 0).all()):
            fail(
                "The network decides the same for all trials of a domain",
                why="Without differences there is nothing that they go with",
                fix="give at least two trials of a domain, and a trained network",
            )
        A = torch.einsum("ik,iab->kab", decision / (len(x) * spread), tangent)
        weight = _filter_weights(B, own, root)
        M = cross @ root[:, None] * weight.sqrt()[..., None, None]
        P = torch.einsum("dfcn,knm,dfem->kce", M, A, M) / len(M)
        C = torch.einsum("df,dfce->ce", weight, own) / len(M)
    return ClassPatterns(symmetrize(P), symmetrize(C))


@bridged
def sources(matrix: Array, covariance: Array) -> Sources:
    """Return the sources whose power a symmetric change of covariance concerns.

    Solves P v = change C v; v is a spatial filter and C v its topography.

    Parameters
    ----------
    matrix : array or tensor, shape (..., n_chans, n_chans)
        The change P.
    covariance : array or tensor, shape (n_chans, n_chans)
        C, of any rank (average reference, interpolated channels).
    """
    C = rectify(covariance, _FLOOR)
    whitener = inv_sqrtm(C)
    change, vectors = eigh(congruence(whitener, matrix))
    order = change.abs().argsort(dim=-1, descending=True)
    change = change.gather(-1, order)
    vectors = vectors.gather(-1, order[..., None, :].expand_as(vectors))
    filters = whitener @ vectors
    return Sources(change, filters, C @ filters)


def _latent_filters(net: Any, front: LinearFront) -> Tensor:
    """Return B, shape (n_latent, n_filters * n_chans), float64."""
    spatial = front.spatial.weight[..., 0].flatten(1).double()
    bimap = getattr(net, "bimap", None)
    return spatial if bimap is None else bimap.weight.double().mT @ spatial


def _pass(
    net: Any, front: LinearFront, B: Tensor, x: Tensor, domain: Tensor, share: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what one pass over all trials gathers.

    Returns
    -------
    decision : Tensor, shape (n_trials, n_contrasts)
    S : Tensor, shape (n_trials, n, n)
        Covariances of latent sources.
    own : Tensor, shape (n_domains, n_filters, n_chans, n_chans)
        Mean covariances of each filter's channels.
    cross : Tensor, shape (n_domains, n_filters, n_chans, n)
        Mean covariances of filtered channels with latent sources.
    """
    n_filters, n_chans = len(front.temporal.weight), front.n_chans
    temporal = front.temporal.weight[:, 0, 0].double()
    every = torch.eye(n_filters * n_chans, dtype=B.dtype, device=B.device)
    every = every.view(-1, n_filters, n_chans)
    step = max(1, _BLOCK // (n_filters * every[..., 0].numel() * n_chans))
    decisions, matrices = [], []
    own = B.new_zeros(len(share), n_filters * n_chans**2)
    cross = B.new_zeros(len(share), n_filters * n_chans * len(B))
    for rows in torch.arange(len(x), device=x.device).split(step):
        decisions.append(_contrasts(net(x[rows], domain[rows]).double()))
        lags = x[rows] if x.ndim == 2 else front.statistics(x[rows])
        # Every filtered channel for itself, in place of their sums over space.
        Y = lag_covariance(
            lags.double(), temporal, every, front.edges.double(), front.n_times
        )
        with_sources = Y @ B.mT
        matrices.append(symmetrize(B @ with_sources))
        blocks = Y.view(-1, n_filters, n_chans, n_filters, n_chans)
        blocks = blocks.diagonal(dim1=1, dim2=3).movedim(-1, 1)
        own += share[:, rows] @ blocks.flatten(1)
        cross += share[:, rows] @ with_sources.flatten(1)
    return (
        torch.cat(decisions),
        torch.cat(matrices),
        own.view(-1, n_filters, n_chans, n_chans),
        cross.view(-1, n_filters, n_chans, len(B)),
    )


def _contrasts(logits: Tensor) -> Tensor:
    """Return each class over the mean of the others; one column for two classes."""
    n = logits.shape[1]
    if n == 1:
        return logits
    if n == 2:
        return logits[:, 1:] - logits[:, :1]
    return (logits - logits.mean(dim=1, keepdim=True)) * (n / (n - 1))


def _filter_weights(B: Tensor, own: Tensor, root: Tensor) -> Tensor:
    """Return the weight of each temporal filter's channels, (n_domains, n_filters).

    The filter's part of the whitened sources' variance over the mean power of
    its channels: the same whatever scale the filter has.
    """
    n_filters, n_chans = own.shape[1:3]
    whitened = root @ B
    whitened = whitened.view(len(root), -1, n_filters, n_chans)
    part = torch.einsum("dnfc,dfce,dnfe->df", whitened, own, whitened)
    power = own.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    part = part / part.sum(dim=1, keepdim=True)
    return part / power.clamp_min(torch.finfo(power.dtype).tiny)
