"""The linear front of TSMNet: temporal and spatial filters, then covariance."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_option, fail
from eegtensor.nn._initial import fill_uniform
from eegtensor.nn._lag import (
    convolved_covariance,
    edge_map,
    lag_covariance,
    lag_statistics,
    n_statistics,
)
from eegtensor.nn._precision import (
    check_finite_trials,
    check_trial_shape,
    full_precision,
)

PATHS = ("conv", "lag")


class LinearFront(nn.Module):
    """Covariances of trials after temporal and spatial filters, by either path.

    As published: `n_temporal` filters of `kernel` samples on every channel, the
    trial padded by reflection to keep its length, then `n_spatial` filters over
    all of their outputs, then the covariance over time (divided by n_times).

    All of it is linear up to the covariance, which depends on a trial only
    through its lagged covariances and its ends. The path ``"lag"`` takes these
    (`statistics`, once a trial) and never filters: the same numbers, an order
    faster. Perturbations of the input, and augmentation anew every epoch, are
    for ``"conv"``. Parameters and state_dict are those of both.

    Parameters
    ----------
    n_chans, n_times : int
    n_temporal, kernel, n_spatial : int
        `kernel` is odd.
    path : "conv" | "lag"
        May be set anew at any time.
    generator : torch.Generator | None
        Of the initial weights.
    dtype, device : of the weights and of what is computed.

    Notes
    -----
    Biases cancel in a covariance. They are kept, for parity with the published
    parameters, but not trained.
    """

    # What leaves for a trial depends on no other trial.
    trialwise = True
    edges: Tensor

    def __init__(
        self,
        n_chans: int,
        n_times: int,
        *,
        n_temporal: int = 4,
        kernel: int = 25,
        n_spatial: int = 40,
        path: str = "conv",
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(n_chans, n_times, n_temporal, kernel, n_spatial)
        where: Any = {"dtype": dtype, "device": device}
        self.n_chans, self.n_times, self.kernel = n_chans, n_times, kernel
        self.n_spatial = n_spatial
        self.temporal = nn.Conv2d(1, n_temporal, (1, kernel), **where)
        self.spatial = nn.Conv2d(n_temporal, n_spatial, (n_chans, 1), **where)
        for layer in (self.temporal, self.spatial):
            fan_in = layer.weight[0].numel()
            fill_uniform(layer.weight, layer.bias, fan_in=fan_in, generator=generator)
            assert layer.bias is not None
            # Their gradient is rounding, which Adam would blow up to whole steps.
            layer.bias.requires_grad_(False)
        # Made of the length of the kernel alone: nothing to save.
        edges = edge_map(kernel).to(self.spatial.weight)
        self.register_buffer("edges", edges, persistent=False)
        self.path = path

    @property
    def path(self) -> str:
        """Which path trials take, "conv" or "lag"."""
        return self._path

    @path.setter
    def path(self, path: str) -> None:
        self._path: str = check_option("front", path, PATHS)

    @property
    def n_statistics(self) -> int:
        """Length of one trial's statistics."""
        return n_statistics(self.n_chans, self.kernel)

    def statistics(self, x: Tensor) -> Tensor:
        """Return what the lag path needs of each trial.

        Parameters
        ----------
        x : Tensor, shape (batch, n_chans, n_times), volts

        Returns
        -------
        statistics : Tensor, shape (batch, n_statistics)
            Summed in float64, kept in the dtype of the weights.
        """
        check_trial_shape(x, self.n_chans, self.n_times)
        with full_precision(x):
            return lag_statistics(x.to(self.spatial.weight.dtype), self.kernel)

    def forward(self, x: Tensor, projection: Tensor | None = None) -> Tensor:
        """Return covariances of filtered trials.

        Parameters
        ----------
        x : Tensor, shape (batch, n_chans, n_times) or (batch, n_statistics)
            Trials, or with the lag path their `statistics`.
        projection : Tensor, shape (n_spatial, n) | None
            W of a BiMap that follows: W' S W is returned in place of S. Spatial
            filters and W are both linear, so that their product is one filter.

        Returns
        -------
        S : Tensor, shape (batch, n_spatial, n_spatial) or (batch, n, n)
        """
        weight = self.spatial.weight
        if x.ndim == 2:
            self._check_statistics(x)
        else:
            check_trial_shape(x, self.n_chans, self.n_times)
        with full_precision(x):
            x = x.to(weight.dtype)
            temporal, spatial = self.temporal.weight[:, 0, 0], weight[..., 0]
            if projection is not None:
                # In the wider dtype: only the product is rounded to that of the front.
                wide = spatial.flatten(1).to(projection.dtype)
                spatial = (projection.mT @ wide).to(weight.dtype)
                spatial = spatial.view(-1, len(temporal), self.n_chans)
            if self.path == "conv":
                S = convolved_covariance(x, temporal, spatial)
            else:
                if x.ndim == 3:
                    x = lag_statistics(x, self.kernel)
                S = lag_covariance(x, temporal, spatial, self.edges, self.n_times)
        check_finite_trials(S)
        return S

    def _check_statistics(self, x: Tensor) -> None:
        if self.path == "conv":
            fail(
                f"x has shape {tuple(x.shape)}: two axes are the statistics of trials, "
                "and front='conv' filters trials themselves",
                fix="give trials (batch, n_chans, n_times), or set front='lag'",
            )
        if x.shape[1] != self.n_statistics:
            fail(
                f"x has shape {tuple(x.shape)}; statistics of {self.n_chans} channels "
                f"and {self.kernel} lags have {self.n_statistics} entries",
                fix="take them from this network's front.statistics(x)",
            )

    def extra_repr(self) -> str:
        """Return the sizes, for printing."""
        return f"{self.n_chans}, {self.n_times}, path={self.path!r}"


def _check_sizes(
    n_chans: int, n_times: int, n_temporal: int, kernel: int, n_spatial: int
) -> None:
    sizes = {
        "n_chans": n_chans,
        "n_times": n_times,
        "n_temporal": n_temporal,
        "n_spatial": n_spatial,
    }
    for name, value in sizes.items():
        if not isinstance(value, Integral) or value < 1:
            fail(f"{name}={value!r}", fix="give a positive integer")
    if not isinstance(kernel, Integral) or kernel < 1 or kernel % 2 == 0:
        fail(
            f"The temporal kernel has {kernel!r} samples",
            why="Only an odd number can be centred on a sample",
            fix="choose an odd positive integer",
        )
    if n_times <= kernel // 2:
        fail(
            f"Trials of {n_times} samples are too short for a temporal kernel of "
            f"{kernel}",
            why=f"They are padded by reflecting {kernel // 2} samples at either end",
            fix=f"choose a kernel of at most {2 * n_times - 1} samples",
        )
