"""Channels that a network does without are taken out of it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_number, fail, listing
from eegtensor.compress._layers import find_layers, layers_of, replace_layers
from eegtensor.compress.compressor import Compressor, terms_of
from eegtensor.compress.gates import Gate, Gated, GateWatch, PolarisedSize
from eegtensor.training import (
    Batch,
    Network,
    device_of,
    evaluating,
    refit_statistics,
)
from eegtensor.training.network import chunks

# Between two layers, what keeps channels apart.
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_APART = (
    *_NORMS,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.Hardswish,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.AlphaDropout,
    nn.Identity,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
)


def find_pairs(
    model: nn.Module, pairs: Sequence[tuple[str, str]] = ()
) -> dict[str, tuple[str, list[str]]]:
    """Return which layers make channels for which others, and norms between them.

    Found are two layers in one `torch.nn.Sequential` with nothing between that mixes
    channels (batch norms, activations, dropout, pooling).

    Parameters
    ----------
    model : Module
    pairs : sequence of (str, str)
        More: names of the layer that makes channels and of the one that takes them,
        with nothing between that mixes channels or has a statistic. With * each first
        is paired with the second of the same rest: ("blocks.*.mlp.1", "blocks.*.last").

    Returns
    -------
    found : dict
        By the taking layer, the name of the making one and of the norms between.
    """
    layers = find_layers(model)
    found: dict[str, tuple[str, list[str]]] = {}
    for name, chain in model.named_modules():
        # A subclass with a way of its own is no chain.
        if getattr(type(chain), "forward", None) is not nn.Sequential.forward:
            continue
        maker, norms = "", list[str]()
        for key, part in chain.named_children():
            own = f"{name}.{key}" if name else key
            if own in layers:
                if maker and _fits(layers[maker], part):
                    found[own] = (maker, norms)
                maker, norms = own, []
            elif isinstance(part, _NORMS):
                norms = [*norms, own]
            elif not isinstance(part, _APART):
                maker = ""
    for first, second in pairs:
        makers = [n for n in layers if fnmatchcase(n, first)]
        takers = [n for n in layers if fnmatchcase(n, second)]
        if not makers or len(makers) != len(takers):
            fail(
                f"pairs: {first!r} is {len(makers)} layers, {second!r} {len(takers)}",
                fix=f"give names among {listing(layers, limit=40)}",
            )
        for maker, taker in zip(makers, takers, strict=True):
            if not _fits(layers[maker], layers[taker]):
                fail(
                    f"{taker!r} does not take what {maker!r} makes",
                    fix="give layers of one group whose channels are as many",
                )
            found[taker] = (maker, [])
    return found


def _fits(maker: Any, taker: Any) -> bool:
    same = isinstance(maker, nn.Linear) == isinstance(taker, nn.Linear)
    groups = getattr(maker, "groups", 1) == getattr(taker, "groups", 1) == 1
    return bool(same and groups and maker.weight.shape[0] == taker.weight.shape[1])


class Prune(Compressor):
    """Channels that all trials close are taken out: consensus by polarised gates.

    Each pair of layers with nothing between that mixes channels (`find_pairs`) gets a
    gate in front of the second. They are trained with the network (`PolarisedSize`);
    then channels that are open for less than half of the trials go, with the norms'
    numbers between, and gates with them; statistics are fitted anew. Where all trials
    agree, the pruned network does what the gated one did. Layers with weights on
    manifolds get no gate: a BiMap with fewer columns is a smaller frame, to be chosen
    by its own size.

    Parameters
    ----------
    keep : float
        Share of the numbers of gated channels that is kept.
    pairs : tuple of (str, str)
        See `find_pairs`.
    polarise, size : float
        Weights of `PolarisedSize`.
    refit : bool
        Whether running statistics are fitted anew.
    random_state : int

    Attributes
    ----------
    kept_ : dict of Tensor of bool
        By taking layer, which of its channels stay.
    shares_ : dict of Tensor
        For which share of the trials they were open.
    """

    needs_data = True

    def __init__(
        self,
        keep: float = 0.5,
        pairs: tuple[tuple[str, str], ...] = (),
        polarise: float = 1.0,
        size: float = 4.0,
        refit: bool = True,
        random_state: int = 0,
    ) -> None:
        self.keep = check_number("keep", keep, above=0.0)
        self.pairs, self.polarise, self.size = pairs, polarise, size
        self.refit, self.random_state = refit, random_state

    def prepare(self, model: nn.Module, data: Batch | None = None) -> nn.Module:
        """Return the copy with gates, all of them open."""
        made = super().prepare(model, data)
        found = find_pairs(made, self.pairs)
        if not found:
            fail(
                f"{type(model).__name__} has no two layers with nothing between that "
                "mixes channels",
                fix="name them by pairs=(('first', 'second'),)",
            )
        new: dict[str, nn.Module] = {}
        for k, (taker, (maker, _)) in enumerate(found.items()):
            layer, source = made.get_submodule(taker), made.get_submodule(maker)
            weight, before = layer.weight, source.weight
            assert isinstance(weight, Tensor) and isinstance(before, Tensor)
            gate = Gate(
                weight.shape[1],
                -1 if isinstance(layer, nn.Linear) else 1,
                seed=self.random_state + k,
                like=weight.detach(),
            )
            cost = before[0].numel() + weight[:, 0].numel()
            new[taker] = Gated(gate, layer, float(cost))
        self._found = found
        return replace_layers(made, new)

    def objective(self, objective: Any) -> Any:
        """Return the task's loss and that of the gates."""
        gates = PolarisedSize(self.keep, self.polarise, self.size)
        return [*terms_of(objective), gates]

    def callbacks(self) -> list[Any]:
        """Return what forgets the gates' last pass."""
        return [GateWatch()]

    def finish(self, model: nn.Module, data: Batch | None = None) -> nn.Module:
        """Return the network without gates and closed channels."""
        trials = self.trials(data)
        self.shares_ = open_shares(model, trials)
        self.kept_ = {}
        for name, share in self.shares_.items():
            kept = share >= 0.5
            # A layer of no channels would end the network.
            kept[share.argmax()] = True
            self.kept_[name] = kept
        for taker, kept in self.kept_.items():
            maker, norms = self._found[taker]
            gated = model.get_submodule(taker)
            assert isinstance(gated, Gated)
            replace_layers(model, {taker: gated.layer})
            keep_channels(gated.layer, kept, axis=1)
            # It may be gated itself, if its turn has not come.
            source = model.get_submodule(maker)
            source = source.layer if isinstance(source, Gated) else source
            keep_channels(source, kept, axis=0)
            for norm in norms:
                keep_channels(model.get_submodule(norm), kept, axis=0)
        if self.refit:
            refit_statistics(model, trials)
        return model.eval()


@torch.no_grad()
def open_shares(
    model: nn.Module, data: Batch, *, batch_size: int = 256
) -> dict[str, Tensor]:
    """Return for which share of trials each gate's channels are open."""
    gates = layers_of(model, Gated)
    total = {name: 0.0 * gated.gate.bias.detach() for name, gated in gates.items()}
    network, place = Network(model), device_of(model)
    with evaluating(model):
        for part in chunks(data, batch_size):
            network(part.to(place))
            for name, gated in gates.items():
                if gated.gate.open is not None:
                    total[name] = total[name] + gated.gate.open.sum(dim=0)
                    gated.gate.open = None
    return {name: count / len(data) for name, count in total.items()}


@torch.no_grad()
def keep_channels(layer: nn.Module, kept: Tensor, *, axis: int) -> None:
    """Cut a layer's outputs (axis 0) or inputs (axis 1) down to some, in place."""
    index = kept.nonzero()[:, 0]
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(layer, name, None)
        if value is None or (axis == 1 and name != "weight"):
            continue
        cut = value.detach().index_select(axis, index.to(value.device))
        if isinstance(value, nn.Parameter):
            cut = nn.Parameter(cut, requires_grad=value.requires_grad)
        setattr(layer, name, cut)
    sizes = ("out_features", "out_channels", "num_features")
    if axis == 1:
        sizes = ("in_features", "in_channels", "")
    for name in sizes:
        if hasattr(layer, name):
            setattr(layer, name, len(index))
