"""Networks of one bit a weight: ReSTE and BiPer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_number, check_option
from eegtensor.compress._inputs import inputs_of
from eegtensor.compress._layers import (
    Shape,
    bias_of,
    find_layers,
    layers_of,
    replace_layers,
    tiny,
)
from eegtensor.compress.compressor import Compressor, terms_of
from eegtensor.compress.packed import PackedLayer, input_size, shifted
from eegtensor.compress.signs import periodic, quadratic_sign, reste, reste_power, sign
from eegtensor.training import Batch

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState

METHODS = ("reste", "biper")
INPUTS = ("sign", "scaled", "real")
SCALES = ("channel", "layer")


class BinaryLayer(nn.Module):
    """A layer that is trained to have binary weights; see `Binary`.

    Attributes
    ----------
    weight : Parameter
        Whose signs (ReSTE), or signs of sines (BiPer), are the weights.
    alpha : Parameter, shape (n_out,) | None
        BiPer's factors.
    shift : Parameter, shape (n_in,) | None
        Subtracted from inputs before their sign is taken.
    power : float
        ReSTE's o at the moment.
    binary : bool
        Whether BiPer is in its second stage.
    """

    def __init__(
        self,
        layer: nn.Module,
        method: str,
        inputs: str,
        scale: str,
        omega: float,
        shift: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.shape = Shape.of(layer)
        self.method, self.inputs, self.scale = method, inputs, scale
        self.omega, self.power, self.binary = omega, 1.0, True
        weight, bias = layer.weight, bias_of(layer)
        assert isinstance(weight, Tensor)
        weight = weight.detach().clone()
        self.bias = None if bias is None else nn.Parameter(bias)
        self.shift = None if shift is None else nn.Parameter(shift)
        self.alpha: nn.Parameter | None = None
        if method == "biper":
            # Within the sine's first half wave: its signs start as the weights'.
            end = 0.5 * math.pi / omega
            unit = 3.0 * weight.std().clamp_min(tiny(weight)) / end
            self.alpha = nn.Parameter(weight.abs().flatten(1).mean(dim=1))
            weight = (weight / unit).clamp(-end, end)
        self.weight = nn.Parameter(weight)

    def row_scale(self) -> Tensor:
        """Return the factor of each output's weights, shape (n_out,)."""
        if self.alpha is not None:
            return self.alpha
        sizes = self.weight.abs().flatten(1).mean(dim=1)
        return sizes if self.scale == "channel" else sizes.mean().expand_as(sizes)

    def signs(self) -> Tensor:
        """Return the weights without their factor, with a gradient."""
        if self.method == "biper":
            return periodic(self.weight, self.omega, binary=self.binary)
        spread = self.weight.detach().std().clamp_min(tiny(self.weight))
        return reste(self.weight / spread, self.power)

    @torch.no_grad()
    def set_stage(self, binary: bool) -> None:
        """Go to BiPer's first or second stage; weights stay as large as they are."""
        if self.alpha is not None and binary != self.binary:
            sizes = torch.sin(self.omega * self.weight).abs().flatten(1).mean(dim=1)
            factor = sizes.clamp_min(tiny(sizes))
            self.alpha.mul_(factor if binary else 1.0 / factor)
        self.binary = binary

    def get_extra_state(self) -> Tensor:
        """Return the stage: factors are of one of the two."""
        return torch.tensor(self.binary)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the stage."""
        self.binary = bool(state)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer makes of x."""
        weight = self.signs() * self.shape.row(self.row_scale())
        return self.shape.apply(self._entered(x), weight, self.bias)

    def _entered(self, x: Tensor) -> Tensor:
        if self.inputs == "real":
            return x
        linear = self.shape.kind == "linear"
        x = shifted(x, self.shift, linear=linear)
        size = input_size(x, linear=linear)
        # Only the gradient sees the division: a sign has no scale.
        near = x / size
        signs = (
            quadratic_sign(near) if self.method == "biper" else reste(near, self.power)
        )
        return signs * size if self.inputs == "scaled" else signs

    @torch.no_grad()
    def packed(self) -> PackedLayer:
        """Return the layer with one bit a weight."""
        new = PackedLayer(
            self.shape,
            "binary",
            1,
            bias=self.bias is not None,
            inputs=self.inputs,
            shift=0 if self.shift is None else len(self.shift),
        )
        waves: Tensor = self.weight
        if self.method == "biper":
            waves = torch.sin(self.omega * waves)
        numbers = {"scale": self.row_scale()}
        if self.shift is not None:
            numbers["shift"] = self.shift
        return new.fill((sign(waves) > 0).long(), self.bias, **numbers)


class Binary(Compressor):
    """One bit a weight, and one an activation: ReSTE or BiPer.

    "reste": weights are alpha sign(w), alpha = mean |w|; gradients as of `reste`, whose
    power goes from 1 to `o_end`. "biper": weights are alpha_k sin(omega w) in the first
    half of the epochs and alpha_k sign(sin(omega w)) in the second, alpha_k learned for
    each output k, and at the change multiplied by the mean of |sin(omega w)|. The first
    and the last layer stay in full precision.

    Estimators see weights and inputs divided by their spread, so that their limits
    mean the same in every layer and unit (as published, all weights of a trained
    network are below m = 0.1, where the gradient of ReSTE is one constant). BiPer's
    first weights lie in the sine's first half wave, with the signs of those they
    replace.

    The signs of what a ReLU makes are all alike. From inputs that are never negative
    their mean is subtracted first, one number an input channel that is learned from
    there (after ReActNet).

    Weights on manifolds stay as they are: of signs there is no frame, and no SPD
    matrix.

    Parameters
    ----------
    method : "reste" | "biper"
    inputs : "sign" | "scaled" | "real"
        What is made of what enters: its sign, as published, where a norm follows each
        layer; its sign times its mean absolute value (XNOR-Net), where none does; or
        nothing.
    scale : "channel" | "layer"
        Of ReSTE: one alpha an output, or one for the whole weight, as in its code.
    omega : float
        Of BiPer.
    o_end : float
        Of ReSTE.
    penalty : float
        Of BiPer: weight of ``mean(cos^2(omega w))``, which draws the sines to -1 and 1.
        The released code adds mean(sin^2) instead, which draws them to 0, where the
        sign is least sure.
    skip : tuple of str
    min_size : int
    keep_ends : bool

    References
    ----------
    X. Wu et al., ICCV 2023 (ReSTE); E. Vargas et al., CVPR 2024 (BiPer);
    M. Rastegari et al., "XNOR-Net", ECCV 2016; Z. Liu et al., "ReActNet", ECCV 2020.
    """

    def __init__(
        self,
        method: str = "reste",
        inputs: str = "sign",
        scale: str = "channel",
        omega: float = 20.0,
        o_end: float = 3.0,
        penalty: float = 0.0,
        skip: tuple[str, ...] = (),
        min_size: int = 256,
        keep_ends: bool = True,
    ) -> None:
        self.method = check_option("method", method, METHODS)
        self.inputs = check_option("inputs", inputs, INPUTS)
        self.scale = check_option("scale", scale, SCALES)
        self.omega = check_number("omega", omega, above=0.0)
        self.o_end = check_number("o_end", o_end, least=1.0)
        self.penalty = check_number("penalty", penalty, least=0.0)
        self.skip, self.min_size, self.keep_ends = skip, min_size, keep_ends
        self.needs_data = inputs != "real"

    def prepare(self, model: nn.Module, data: Batch | None = None) -> nn.Module:
        """Return the copy with layers to be trained."""
        made = super().prepare(model, data)
        found = find_layers(
            made, skip=self.skip, min_size=self.min_size, keep_ends=self.keep_ends
        )
        options = self.method, self.inputs, self.scale, self.omega
        shifts: dict[str, Tensor] = {}
        if self.inputs != "real":
            inputs = inputs_of(made, found, self.trials(data), most=1 << 18)
            shifts = {
                name: x.transpose(0, 1).flatten(1).mean(dim=1)
                for name, x in inputs.items()
                if bool((x >= 0).all())
            }
        return replace_layers(
            made,
            {
                name: BinaryLayer(layer, *options, shifts.get(name))
                for name, layer in found.items()
            },
        )

    def objective(self, objective: Any) -> Any:
        """Return the task's loss, and BiPer's penalty where it has a weight."""
        if self.method != "biper" or not self.penalty:
            return objective
        return [*terms_of(objective), (self.penalty, SurePeriods())]

    def callbacks(self) -> list[Any]:
        """Return the schedule of the estimator."""
        return [self]

    def on_epoch_start(self, state: TrainState) -> None:
        """Set ReSTE's power and BiPer's stage for an epoch of `train`."""
        power = reste_power(state.epoch, state.n_epochs, self.o_end)
        for layer in layers_of(state.model, BinaryLayer).values():
            layer.power = power
            layer.set_stage(2 * (state.epoch - 1) >= state.n_epochs)

    def finish(self, model: nn.Module, data: Batch | None = None) -> nn.Module:
        """Return the network with one bit a weight."""
        found = layers_of(model, BinaryLayer)
        for layer in found.values():
            layer.set_stage(True)
        packed = {name: layer.packed() for name, layer in found.items()}
        return replace_layers(model, packed).eval()


class SurePeriods:
    """The mean of cos^2(omega w) over BiPer's layers, from 0 (sure) to 1."""

    per_trial = False
    training_only = True

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Any, context: StepContext
    ) -> Tensor:
        """Return the mean over layers, a scalar."""
        means = [
            torch.cos(layer.omega * layer.weight).square().mean()
            for layer in layers_of(model, BinaryLayer).values()
        ]
        return torch.stack(means).mean()
