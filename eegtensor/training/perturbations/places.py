"""Where trials can be perturbed: as they come, as SPD matrices, as features."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.geometry import expm, logm, sqrtm_pair
from eegtensor.geometry.spectral import symmetrize
from eegtensor.training.batch import Batch
from eegtensor.training.network import Network, inner_module
from eegtensor.training.perturbations.scales import channel_scale
from eegtensor.training.statistics import StatisticsGuard, evaluating

PLACES = ("auto", "input", "spd")


def place_of(network: Network, name: str) -> str:
    """Return "input" or "spd"; "auto" is "spd" where a network makes SPD matrices.

    Raises
    ------
    EEGTensorError
        If there is no such place in the network.
    """
    check_option("at", name, PLACES)
    inner = inner_module(network.model)
    has_matrices = all(hasattr(inner, part) for part in ("spd", "tail", "head"))
    if name == "spd" and not has_matrices:
        fail(
            f"at='spd', but {type(inner).__name__} makes no SPD matrices of trials",
            fix="set at='input'",
        )
    return name if name != "auto" else ("spd" if has_matrices else "input")


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside, passes use evaluation statistics, no dropout, and move nothing.

    A search for the worst perturbation compares passes with one another: what
    differs between them must be the perturbation alone.
    """
    with StatisticsGuard(model, "eval"), evaluating(model):
        yield


class Trials:
    """The trials of a batch where they are perturbed, and the way from there on.

    Displacements have the shape of `values`. At the input they are in standard
    deviations of each channel over the trials and times of the batch. Of SPD
    matrices they are symmetric, in the tangent space at the arithmetic mean M of
    the trial's domain in the batch: ``S = M^1/2 exp(V) M^1/2`` moves to
    ``M^1/2 exp(V + d) M^1/2``. Neither depends on the unit, and of matrices
    nothing on a mixing of the channels.

    Parameters
    ----------
    network : Network
    batch : Batch
    at : "auto" | "input" | "spd"

    Attributes
    ----------
    values : Tensor, shape (n_trials, ...)
        Without a graph.
    at : "input" | "spd"

    Raises
    ------
    EEGTensorError
        If there is no such place, or inputs are more than one tensor.
    """

    def __init__(self, network: Network, batch: Batch, at: str = "auto") -> None:
        self.network, self.batch = network, batch
        self.at = place_of(network, at)
        self.inner = _inner(network)
        if not isinstance(batch.x, Tensor):
            fail(
                "Trials of more than one array cannot be perturbed",
                fix="choose a network that takes one tensor",
            )
        if self.at == "input":
            self.values = batch.x.detach()
            self._scale = channel_scale(self.values)
        else:
            matrices = symmetrize(self.inner.spd(batch.x)).double()
            root, inverse = sqrtm_pair(self._means(matrices.detach()))
            self._root = root
            self._tangents = logm(symmetrize(inverse @ matrices @ inverse))
            self.values = self._tangents.detach()

    def _means(self, matrices: Tensor) -> Tensor:
        """Return the mean matrix of each trial's domain, of all if it is alone."""
        whole = matrices.mean(0, keepdim=True).expand_as(matrices)
        domain = self.batch.domain
        if domain is None or self.inner.ignores_domains:
            return whole
        same = (domain[:, None] == domain).to(matrices)
        count = same.sum(1).view(-1, *[1] * (matrices.ndim - 1))
        own = torch.tensordot(same, matrices, dims=1) / count
        return torch.where(count > 1, own, whole)

    def logits(
        self, displacement: Tensor | None = None, *, search: bool = False
    ) -> Tensor:
        """Return the network's outputs for the trials moved by a displacement.

        Parameters
        ----------
        displacement : Tensor | None
        search : bool
            Whether gradients with respect to the displacement are all that is wanted.
        """
        if self.at == "input" or displacement is None:
            outputs: Tensor = self.network(self._moved(displacement))
            return outputs
        return self.features_and_logits(displacement, search=search)[1]

    def features_and_logits(
        self, displacement: Tensor | None = None, *, search: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return what enters the head and what leaves it, as `logits` does."""
        if self.at == "input" or displacement is None:
            kept: list[Tensor] = []
            handle = self.network.head.register_forward_pre_hook(
                lambda module, args: kept.append(args[0].flatten(1))
            )
            try:
                outputs = self.network(self._moved(displacement))
            finally:
                handle.remove()
            return kept[-1], outputs
        tangents = self.values if search else self._tangents
        moved = self._root @ expm(symmetrize(tangents + displacement)) @ self._root
        # The tail alone sees the moved matrices: what comes before is not run twice.
        domain = None if self.inner.ignores_domains else self.batch.domain
        features = self.inner.embed(self.inner.tail(symmetrize(moved), domain))
        head = self.inner.head
        weight = next(itertools.chain(head.parameters(), head.buffers()))
        features = features.to(weight.dtype)
        return features, head(features)

    def _moved(self, displacement: Tensor | None) -> Batch:
        """Return the batch with its inputs moved."""
        if displacement is None:
            return self.batch
        return replace(self.batch, x=self.batch.x + displacement * self._scale)

    def noise(self, generator: torch.Generator | None) -> Tensor:
        """Return standard normal displacements."""
        d = torch.randn(
            self.values.shape,
            dtype=self.values.dtype,
            device=self.values.device,
            generator=generator,
        )
        return d if self.at == "input" else symmetrize(d)

    def coordinates(self) -> Tensor:
        """Return trials as float64 vectors whose differences are displacements."""
        if self.at == "spd":
            return self.values.flatten(1)
        scale = torch.where(self._scale == 0, 1.0, self._scale)
        return (self.values / scale).flatten(1).double()

    def usual_distance(self) -> Tensor:
        """Return the median distance of a trial to the nearest other, a scalar.

        Of signals, where every pair is far apart by noise, a tenth of the length
        of a trial instead, 0.1 sqrt(n_channels n_times) standard deviations.
        """
        if self.at == "input" and self.values.ndim > 2:
            size = 0.1 * self.values[0].numel() ** 0.5
            return torch.tensor(size, dtype=torch.float64, device=self.values.device)
        V = self.coordinates()
        if len(V) < 2:
            return V.new_zeros(())
        distance = torch.cdist(V, V)
        own = torch.eye(len(V), dtype=torch.bool, device=V.device)
        return distance.masked_fill(own, torch.inf).amin(1).median()


def _inner(network: Network) -> Any:
    return inner_module(network.model)
