"""A linear layer whose weight is a tensor network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, fail
from eegtensor.nn._contract import Plan, contract, dense_cost, plan
from eegtensor.nn._factorised import NOMINAL, FactorizedLayer, nominal
from eegtensor.nn._layout import BATCH, choose_layout
from eegtensor.nn._mode_shapes import check_shape


class FactorizedLinear(FactorizedLayer):
    """y = x W' + b with W as a tensor network; in place of `torch.nn.Linear`.

    The weight's axes are split into modes (256 into 16 x 16), the input's before
    the output's. The order in which input and cores are multiplied is planned for
    the size of the batch, and is to rebuild W first where that is cheaper.

    Parameters
    ----------
    in_features, out_features : int
    kind : "tt" | "tr" | "tucker" | "cp" | "stt" | "str" | "sttu"
        Tensor train, tensor ring, Tucker, CP; with s- (and -u) the semi-tensor
        product versions of the first three: a core counts as itself times an
        identity matrix (Kronecker), and has t^2 times fewer numbers.
    rank : int | float | sequence of int
        One rank for all; or, below 1, the share of the dense weight's numbers to
        have at most; or ranks one by one, as in `layout.ranks`.
    in_shape, out_shape : sequence of int | None
        Modes; their products are the features. None: balanced factors near 16.
    t : int
        Of the semi-tensor product kinds: size of the identities. A mode that t does
        not divide keeps its whole core. The first core of "stt" is always whole.
    bias : bool
    generator : torch.Generator | None
        Of the initial cores.
    device, dtype : of the cores.

    Attributes
    ----------
    weight : Tensor, shape (out_features, in_features)
        Rebuilt each time it is asked for.
    cores : nn.ParameterList
    bias : nn.Parameter, shape (out_features,) | None

    Raises
    ------
    EEGTensorError
        If shapes do not multiply to the features, or rank or t are not possible.

    References
    ----------
    A. Novikov et al., "Tensorizing neural networks", NeurIPS, 2015. W. Wang et al.,
    "Wide compression: tensor ring nets", CVPR, 2018. H. Zhao et al.,
    "Semi-tensor product-based tensor decomposition for neural network
    compression", 2021.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kind: str = "tt",
        rank: int | float | Sequence[int] = 0.1,
        *,
        in_shape: Sequence[int] | None = None,
        out_shape: Sequence[int] | None = None,
        t: int = 2,
        bias: bool = True,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_count("in_features", in_features)
        check_count("out_features", out_features)
        modes_in = check_shape("in_shape", in_shape, in_features)
        modes_out = check_shape("out_shape", out_shape, out_features)
        super().__init__(
            choose_layout(kind, (*modes_in, *modes_out), rank, t, cut=len(modes_in)),
            out_features,
            (in_features, out_features),
            bias=bias,
            generator=generator,
            device=device,
            dtype=dtype,
        )
        self.in_features, self.out_features = in_features, out_features
        self._n_in = len(modes_in)
        self._view = self.layout.view(0, self._n_in)
        self._out_view = self.layout.view(self._n_in, len(self.layout.modes))
        self._plans: dict[int, Plan] = {}
        self.plan(NOMINAL)

    @classmethod
    def from_linear(
        cls,
        layer: nn.Linear,
        kind: str = "tt",
        rank: int | float | Sequence[int] = 0.1,
        *,
        in_shape: Sequence[int] | None = None,
        out_shape: Sequence[int] | None = None,
        t: int = 2,
    ) -> Self:
        """Return a layer whose cores decompose the weight of a trained one.

        Parameters
        ----------
        layer : torch.nn.Linear
            It is left as it is.
        kind, rank, in_shape, out_shape, t
            As of the class.
        """
        out_features, in_features = layer.weight.shape
        new = cls(
            in_features,
            out_features,
            kind,
            rank,
            in_shape=in_shape,
            out_shape=out_shape,
            t=t,
            bias=layer.bias is not None,
            # Its numbers are replaced: the global generator is left alone.
            generator=torch.Generator().manual_seed(0),
            device=layer.weight.device,
            dtype=layer.weight.dtype,
        )
        new.set_weight(layer.weight)
        if new.bias is not None:
            with torch.no_grad():
                new.bias.copy_(layer.bias)
        return new.train(layer.training)

    @property
    def weight(self) -> Tensor:
        """The dense weight, shape (out_features, in_features)."""
        return self._modes_tensor().reshape(self.in_features, self.out_features).mT

    def set_weight(self, weight: Tensor) -> float:
        """Replace the cores by a decomposition of a dense weight.

        Parameters
        ----------
        weight : Tensor, shape (out_features, in_features)

        Returns
        -------
        error : float
            ||W - rebuilt W|| / ||W||.
        """
        if tuple(weight.shape) != (self.out_features, self.in_features):
            fail(
                f"weight has shape {tuple(weight.shape)}",
                fix=f"give one of shape {(self.out_features, self.in_features)}",
            )
        return self._decompose(weight.mT.reshape(self.layout.modes))

    def plan(self, n: int) -> Plan:
        """Return the order of contraction for n inputs."""
        size = nominal(n)
        if size not in self._plans:
            layout = self.layout
            x = BATCH + "".join(layout.mode_terms[: self._n_in])
            out = BATCH + "".join(layout.mode_terms[self._n_in :])
            sizes = (*layout.sizes, (BATCH, size))
            self._plans[size] = plan((x, *layout.terms), out, sizes)
        return self._plans[size]

    def forward(self, x: Tensor) -> Tensor:
        """Return y, shape (..., out_features).

        Parameters
        ----------
        x : Tensor, shape (..., in_features)
        """
        if x.shape[-1] != self.in_features:
            fail(
                f"x has shape {tuple(x.shape)}",
                fix=f"give inputs of {self.in_features} features on the last axis",
            )
        lead = x.shape[:-1]
        n = math.prod(lead)
        plan = self.plan(n)
        if plan.cost > dense_cost(nominal(n), self.in_features, self.out_features):
            weight = self._kept_weight(x)
            if weight is not None:
                return nn.functional.linear(x, weight, self.bias)
        y = contract(plan, [x.reshape(n, *self._view), *self.cores])
        if self.bias is not None:
            # The bias first: the sum then lies in memory as it does, and the result
            # is put in order in the same pass. It would bring an autocast output
            # back to float32.
            y = self.bias.to(y.dtype).view(self._out_view) + y
        return y.reshape(*lead, self.out_features)
