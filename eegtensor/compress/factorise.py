"""Tensor networks in place of large weights, for a wanted size of the whole."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from torch import nn

from eegtensor._check import check_number, fail
from eegtensor.compress._layers import count_numbers
from eegtensor.compress.compressor import Compressor
from eegtensor.nn.factorize import Factorization, factorize_
from eegtensor.training import Batch


def factorise(
    model: nn.Module,
    ratio: float = 9.0,
    *,
    kind: str = "tt",
    skip: Iterable[str] = (),
    min_size: int = 1024,
    t: int = 2,
    fixed: Iterable[str] = (),
) -> tuple[nn.Module, Factorization]:
    """Return a copy with so many times fewer numbers, and what became of its layers.

    Every large linear layer and convolution becomes a tensor network whose cores
    decompose its weight, all with the same share of their numbers, chosen such
    that the whole network has `ratio` times fewer. Fine-tune it afterwards. Weights
    on manifolds stay: a BiMap is small, and its frame is what is learned.

    Parameters
    ----------
    model : Module
        Trained; it stays as it is.
    ratio : float
        Of the whole network's numbers, at least.
    kind, skip, min_size, t
        See `eegtensor.nn.factorize_`.
    fixed : iterable of str
        Names of parameters that do not count, such as tables of a tokenizer.

    Returns
    -------
    model : Module
    layers : Factorization

    Raises
    ------
    EEGTensorError
        If the numbers outside of these layers alone are more.
    """
    check_number("ratio", ratio, above=1.0)
    skip = list(skip) if not isinstance(skip, str) else [skip]
    fixed = set(fixed)
    extra = sum(p.numel() for n, p in model.named_parameters() if n in fixed)
    trial = copy.deepcopy(model)
    # Which layers it will be, and what their biases and the others keep.
    found = factorize_(trial, 1.0 / ratio, kind, skip=skip, min_size=min_size, t=t)
    chosen = {layer.name for layer in found.layers if not layer.reason}
    large = sum(
        m.weight.numel()
        for name, m in model.named_modules()
        if name in chosen and isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))
    )
    whole = count_numbers(model) - extra
    share = (whole / ratio - (whole - large)) / max(large, 1)
    if not share > 0:
        fail(
            f"{type(model).__name__} cannot be {ratio:g} times smaller: of {whole} "
            f"numbers {whole - large} are outside of the layers to factorise",
            fix="ask for a smaller ratio, or lower min_size",
        )
    made = copy.deepcopy(model)
    return made, factorize_(made, share, kind, skip=skip, min_size=min_size, t=t)


class Factorise(Compressor):
    """Tensor networks in place of large weights; see `factorise`.

    Parameters
    ----------
    ratio, kind, skip, min_size, t, fixed
        See `factorise`.

    Attributes
    ----------
    layers_ : Factorization
    """

    def __init__(
        self,
        ratio: float = 9.0,
        kind: str = "tt",
        skip: tuple[str, ...] = (),
        min_size: int = 1024,
        t: int = 2,
        fixed: tuple[str, ...] = (),
    ) -> None:
        self.ratio, self.kind, self.skip = ratio, kind, skip
        self.min_size, self.t, self.fixed = min_size, t, fixed

    def prepare(self, model: nn.Module, data: Batch | None = None) -> nn.Module:
        """Return the factorised copy."""
        made, self.layers_ = factorise(
            model,
            self.ratio,
            kind=self.kind,
            skip=self.skip,
            min_size=self.min_size,
            t=self.t,
            fixed=self.fixed,
        )
        return made
