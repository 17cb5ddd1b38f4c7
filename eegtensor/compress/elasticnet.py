"""Training and shrinking of networks with elastic numbers of bits."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_count, check_number, fail
from eegtensor.compress._inputs import inputs_of
from eegtensor.compress._layers import find_layers, layers_of, replace_layers
from eegtensor.compress.compressor import Compressor, terms_of
from eegtensor.compress.elastic import ElasticLayer, Form, set_form
from eegtensor.training import (
    Batch,
    StatisticsGuard,
    WeightedSum,
    refit_statistics,
)
from eegtensor.training.objectives import WeightShape
from eegtensor.training.objectives._shared import features_kept

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext


def random_forms(
    names: Sequence[str], bits: Sequence[int], draws: random.Random
) -> dict[str, Form]:
    """Return a form for each layer, drawn evenly from all that there are."""
    return {
        name: Form(
            draws.choice(bits), draws.choice(bits), *draws.choices((True, False), k=2)
        )
        for name in names
    }


class GroupProgressive:
    """Losses of smaller forms of a network, each taught by the one before it.

    The step's own pass is that of the largest form. Then come `n_forms` - 2 forms drawn
    at random and the smallest one; each adds ``(1 - soft) L + soft KL(p before || p)``,
    L the task's loss. Only logits are taught; networks with other outputs have L.

    Their passes see statistics as they were, and move none.

    Parameters
    ----------
    objective : Objective | sequence of Objective
        Of the task.
    bits : sequence of int
    n_forms : int
        With the largest and the smallest.
    soft : float

    References
    ----------
    K. Xu et al., "EQ-Net: elastic quantization neural networks", ICCV 2023,
    algorithm 1.
    """

    per_trial = False
    training_only = True

    def __init__(
        self,
        objective: Any,
        bits: Sequence[int] = (2, 4, 8),
        n_forms: int = 4,
        soft: float = 0.5,
    ) -> None:
        self.task = WeightedSum(objective)
        self.bits, self.n_forms, self.soft = tuple(bits), n_forms, soft

    def forms(self, model: nn.Module, context: StepContext) -> list[Any]:
        """Return the forms of a step after the largest."""
        names = list(layers_of(model, ElasticLayer))
        seed = 0 if context.generator is None else context.generator.initial_seed()
        draws = random.Random(seed * 1_000_003 + context.step)
        least = min(self.bits)
        found: list[Any] = [
            random_forms(names, self.bits, draws) for _ in range(self.n_forms - 2)
        ]
        return [*found, Form(least, least, per_channel=False)]

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Any, context: StepContext
    ) -> Tensor:
        """Return the sum of the other forms' losses, a scalar."""
        largest = {n: m.form for n, m in layers_of(model, ElasticLayer).items()}
        taught = isinstance(outputs, Tensor) and outputs.ndim == 2
        before = outputs.detach() if taught else None
        losses = context.trial_losses
        total: Tensor | None = None
        try:
            with features_kept(context):
                for form in self.forms(model, context):
                    set_form(model, form)
                    with StatisticsGuard(model, "transient"):
                        now = context.network(batch)
                    loss = self.task(batch, now, context)
                    if before is not None:
                        told = F.kl_div(
                            now.log_softmax(1),
                            before.log_softmax(1),
                            reduction="batchmean",
                            log_target=True,
                        )
                        loss = (1.0 - self.soft) * loss + self.soft * told
                        before = now.detach()
                    total = loss if total is None else total + loss
        finally:
            set_form(model, largest)
            context.trial_losses = losses
        assert total is not None
        return total


class Elastic(Compressor):
    """Weights and activations of any number of bits, learned at once (EQ-Net).

    Every layer has learned scales for each number of bits, with and without an offset,
    one or one for each output; each step trains the largest form and smaller ones
    (`GroupProgressive`), with weights drawn to a shape that is easily rounded
    (`WeightShape`). `finish` keeps one form, and fits running statistics anew to the
    trials: those of training are the largest form's. Weights on manifolds stay.

    Parameters
    ----------
    bits : tuple of int
        2 to 8.
    final : int | tuple of (int, int)
        Bits of the network that is kept, of weights and activations; 32 activations
        are not rounded.
    n_forms : int
        Passes of a step.
    soft : float
    kurtosis, skewness : float
        Weights of the two parts of `WeightShape`.
    skip : tuple of str
    min_size : int
    keep_ends : bool
        Whether the first and last layer stay in full precision.

    References
    ----------
    K. Xu et al., "EQ-Net: elastic quantization neural networks", ICCV 2023; weights of
    its regularisers are not in the paper's text as far as we know: 1 is ours.
    """

    needs_data = True

    def __init__(
        self,
        bits: tuple[int, ...] = (2, 4, 8),
        final: int | tuple[int, int] = 4,
        n_forms: int = 4,
        soft: float = 0.5,
        kurtosis: float = 1.0,
        skewness: float = 1.0,
        skip: tuple[str, ...] = (),
        min_size: int = 256,
        keep_ends: bool = True,
    ) -> None:
        for b in bits:
            if check_count("bits", b, least=2) > 8:
                fail(f"bits={bits}", fix="give numbers from 2 to 8")
        pair = final if isinstance(final, tuple) else (final, final)
        if pair[0] not in bits or (pair[1] not in bits and pair[1] < 32):
            fail(f"final={final} is not among bits={bits}", fix="give one of them")
        self.bits, self.final = tuple(sorted(bits)), pair
        self.n_forms = check_count("n_forms", n_forms, least=2)
        self.soft = check_number("soft", soft, least=0.0)
        self.kurtosis = check_number("kurtosis", kurtosis, least=0.0)
        self.skewness = check_number("skewness", skewness, least=0.0)
        self.skip, self.min_size, self.keep_ends = skip, min_size, keep_ends

    def prepare(self, model: nn.Module, data: Batch | None = None) -> nn.Module:
        """Return the copy with elastic layers, in their largest form."""
        made = super().prepare(model, data)
        layers = find_layers(
            made, skip=self.skip, min_size=self.min_size, keep_ends=self.keep_ends
        )
        inputs = inputs_of(made, layers, self.trials(data), most=1 << 16)
        return replace_layers(
            made,
            {
                name: ElasticLayer(layer, self.bits, inputs.get(name))
                for name, layer in layers.items()
            },
        )

    def objective(self, objective: Any) -> Any:
        """Return the task's loss, the smaller forms' and that of the weights' shape."""
        terms = terms_of(objective)
        shape = WeightShape(kurtosis=self.kurtosis, skewness=self.skewness)
        smaller = GroupProgressive(terms, self.bits, self.n_forms, self.soft)
        return [*terms, smaller, shape]

    def finish(self, model: nn.Module, data: Batch | None = None) -> nn.Module:
        """Return the network in its final form, packed."""
        found = layers_of(model, ElasticLayer)
        set_form(model, Form(*self.final))
        model = replace_layers(model, {n: m.packed() for n, m in found.items()})
        if data is not None:
            refit_statistics(model, data)
        return model.eval()


@torch.no_grad()
def search_forms(
    model: nn.Module,
    score: Callable[[nn.Module], float],
    *,
    mean_bits: float = 4.0,
    n_tries: int = 64,
    random_state: int = 0,
) -> tuple[dict[str, Form], float]:
    """Return the best forms found for a mean number of bits, and their score.

    An evolution without a predictor of scores: half of the tries are drawn at random,
    the other half change a layer of one of the best.

    Parameters
    ----------
    model : Module
        Of `Elastic.prepare`, trained; it is left in the best forms.
    score : callable
        The higher, the better.
    mean_bits : float
        Of all weights, at most.
    n_tries : int
    random_state : int
    """
    layers = layers_of(model, ElasticLayer)
    if not layers:
        fail("The model has no elastic layers", fix="prepare it by Elastic")
    bits = next(iter(layers.values())).bits
    sizes = {name: m.weight.numel() for name, m in layers.items()}
    draws = random.Random(random_state)
    least = Form(min(bits), max(bits))
    tried: list[tuple[float, dict[str, Form]]] = []
    for k in range(check_count("n_tries", n_tries)):
        if k == 0:
            forms = dict.fromkeys(layers, least)
        elif k < n_tries // 2:
            forms = random_forms(list(layers), bits, draws)
        else:
            parent = draws.choice(sorted(tried, key=_first)[-8:])[1]
            name = draws.choice(list(layers))
            forms = parent | random_forms([name], bits, draws)
        # Weights of large layers pay for those that are too many.
        order = sorted(layers, key=lambda n: draws.random() * sizes[n])
        while order and _mean_bits(forms, sizes) > mean_bits:
            name = order.pop()
            forms[name] = forms[name]._replace(weight_bits=min(bits))
        set_form(model, forms)
        tried.append((float(score(model)), forms))
    best = max(tried, key=_first)
    set_form(model, best[1])
    return best[1], best[0]


def _first(pair: tuple[float, Any]) -> float:
    return pair[0]


def _mean_bits(forms: dict[str, Form], sizes: dict[str, int]) -> float:
    bits = sum(forms[name].weight_bits * n for name, n in sizes.items())
    return bits / sum(sizes.values())
