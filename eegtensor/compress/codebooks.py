"""Weights of two to four bits by codebooks that rebuild what layers make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, check_number
from eegtensor.compress._inputs import inputs_of
from eegtensor.compress._layers import (
    Shape,
    bias_of,
    find_layers,
    layers_of,
    replace_layers,
    tiny,
)
from eegtensor.compress.codeweights import CodebookLayer, OneCodeAStep
from eegtensor.compress.compressor import Compressor
from eegtensor.training import Batch, BestWeights, ShuffleSampler, make_optimizer, train

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


class RelativeSquares:
    """Squares of what is missed of targets, over the mean square of all targets.

    Parameters
    ----------
    power : float
        That mean square.
    """

    per_trial = True

    def __init__(self, power: float) -> None:
        self.power = power

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return one number a row, shape (n,)."""
        assert batch.y is not None
        return (outputs - batch.y).flatten(1).square().mean(dim=1) / self.power


def rebuild_layer(
    layer: nn.Module,
    new: CodebookLayer,
    inputs: Tensor,
    *,
    epochs: int = 20,
    batch_size: int = 64,
    lr: float = 0.02,
    random_state: int = 0,
) -> tuple[float, float]:
    """Learn codes and tables such that a layer does what the one it replaces does.

    Minimises ``||W x - W^ x||^2`` over what enters, by `train`; the best epoch is kept,
    the start among them, so that the error never grows.

    Parameters
    ----------
    layer : Linear | Conv1d | Conv2d
    new : CodebookLayer
        Is changed.
    inputs : Tensor, shape (n, ...)
    epochs, batch_size : int
    lr : float
        Of positions, in codes; of tables, in their spread.
    random_state : int

    Returns
    -------
    before, after : float
        ``||W x - W^ x|| / ||W x||``.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    with torch.no_grad():
        y = Shape.of(layer).apply(inputs, weight, bias_of(layer))
        plain = Shape.of(layer).apply(inputs, weight, None)
    power = max(float(plain.square().mean()), tiny(plain))
    loss = RelativeSquares(power)

    def error(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            wrong = (model(inputs) - y).square().mean()
        return {"valid_loss": float(wrong) / power}

    before = error(new)["valid_loss"]
    spread = float(new.table.detach().std().clamp_min(tiny(y)))
    optimizer = make_optimizer(new, "adam", lr=lr, weight_decay=0.0)
    optimizer.param_groups.clear()
    optimizer.add_param_group({"params": [new.position], "lr": lr})
    optimizer.add_param_group({"params": [new.table], "lr": lr * spread})
    if new.bias is not None:
        new.bias.requires_grad_(False)
    start = {name: value.clone() for name, value in new.state_dict().items()}
    history = train(
        new,
        Batch(inputs, y),
        objective=loss,
        optimizer=optimizer,
        sampler=ShuffleSampler(
            len(inputs), batch_size=batch_size, random_state=random_state
        ),
        epochs=epochs,
        validation=error,
        callbacks=[OneCodeAStep(), BestWeights()],
        random_state=random_state,
    )
    after = min(history.column("valid_loss"))
    if not after < before:
        new.load_state_dict(start)
        after = before
    if new.bias is not None:
        new.bias.requires_grad_(True)
    return before**0.5, after**0.5


class Codebooks(Compressor):
    """Two to four bits a weight: codes of small tables, learned layer by layer (JLCM).

    Tables start by k-means of weights; then codes and tables of each layer are learned
    such that it makes of unlabelled trials what it made before (`rebuild_layer`).
    Layers that are not used when the network reads trials keep k-means. A file holds
    `bits` a weight, a table a group, and a byte an output for its group: less than the
    order of the outputs would take. Weights on manifolds stay.

    Parameters
    ----------
    bits : int
    n_groups : int
        Tables of a layer.
    epochs : int
        Of each layer; 0 keeps k-means. There is no fine-tuning of the whole beyond.
    lr : float
    n_trials : int
        256 to 1024.
    skip : tuple of str
    min_size : int
    random_state : int

    Attributes
    ----------
    errors_ : dict of (float, float)
        By layer, what k-means and what learning misses of its outputs.

    References
    ----------
    Source list 004, entry 54 (jointly learnable codebooks and mappings); C is found as
    in S. Lloyd, IEEE Trans. Inf. Theory 1982.
    """

    tunes = False
    needs_data = True

    def __init__(
        self,
        bits: int = 2,
        n_groups: int = 4,
        epochs: int = 20,
        lr: float = 0.02,
        n_trials: int = 256,
        skip: tuple[str, ...] = (),
        min_size: int = 1024,
        random_state: int = 0,
    ) -> None:
        self.bits, self.n_groups = bits, n_groups
        self.epochs = check_count("epochs", epochs, least=0)
        self.lr = check_number("lr", lr, above=0.0)
        self.n_trials, self.skip, self.min_size = n_trials, skip, min_size
        self.random_state = random_state

    def prepare(self, model: nn.Module, data: Batch | None = None) -> nn.Module:
        """Return the copy with codebook layers, learned."""
        made = super().prepare(model, data)
        layers = find_layers(made, skip=self.skip, min_size=self.min_size)
        inputs: dict[str, Tensor] = {}
        if self.epochs:
            trials = self.trials(data)
            inputs = inputs_of(
                made, layers, trials, n_trials=self.n_trials, most=1 << 19
            )
        self.errors_: dict[str, tuple[float, float]] = {}
        new: dict[str, nn.Module] = {}
        for name, layer in layers.items():
            coded = CodebookLayer(layer, self.bits, self.n_groups, self.random_state)
            if name in inputs:
                self.errors_[name] = rebuild_layer(
                    layer,
                    coded,
                    inputs[name],
                    epochs=self.epochs,
                    lr=self.lr,
                    random_state=self.random_state,
                )
            new[name] = coded
        return replace_layers(made, new)

    def callbacks(self) -> list[Any]:
        """Return what holds the rule of one code a step, where it is fine-tuned."""
        return [OneCodeAStep()]

    def finish(self, model: nn.Module, data: Batch | None = None) -> nn.Module:
        """Return the network with so many bits a weight."""
        found = layers_of(model, CodebookLayer)
        return replace_layers(model, {n: m.packed() for n, m in found.items()}).eval()
