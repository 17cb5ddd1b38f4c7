"""A layer whose ranks were searched for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from eegtensor._check import check_option, fail
from eegtensor.nn._mode_shapes import check_shape
from eegtensor.nn.factorised import FactorizedLinear
from eegtensor.tensor.structure import Structure, as_layer_tensor, search_structure

TEMPLATES = {"tr": "ring", "tt": "train"}


class SearchedLayer(NamedTuple):
    """A factorised layer and the search that chose its ranks.

    Attributes
    ----------
    layer : FactorizedLinear
    structure : Structure
        With the size, the squared error and the table of the search.
    """

    layer: FactorizedLinear
    structure: Structure


def search_linear(
    layer: nn.Linear,
    kind: str = "tr",
    *,
    in_shape: Sequence[int] | None = None,
    out_shape: Sequence[int] | None = None,
    penalty: float = 200.0,
    max_rank: int = 7,
    **options: Any,
) -> SearchedLayer:
    """Return a layer factorised with the ranks that weigh size against error best.

    Where `FactorizedLinear.from_linear` gives every bond the rank that a share of
    the numbers allows, here each bond has the rank that the trained weight asks
    for.

    Parameters
    ----------
    layer : torch.nn.Linear
        Trained. It is left as it is.
    kind : "tr" | "tt"
        Tensor ring or tensor train.
    in_shape, out_shape : sequence of int | None
        Modes, as of `FactorizedLinear`.
    penalty : float
        Weight of the squared relative error beside the share of numbers kept.
    max_rank : int
    **options
        Of `eegtensor.tensor.search_structure`: method, n_starts, max_fits, n_jobs,
        checkpoint, random_state. Modes keep their places.

    Returns
    -------
    SearchedLayer

    Raises
    ------
    EEGTensorError
        If the weight holds values that are not finite, or shapes do not fit.
    """
    check_option("kind", kind, tuple(TEMPLATES))
    for name in ("template", "permute"):
        if name in options:
            fail(f"{name} is not a choice here", fix=f"leave {name} out")
    out_features, in_features = layer.weight.shape
    modes_in = check_shape("in_shape", in_shape, in_features)
    modes_out = check_shape("out_shape", out_shape, out_features)
    found = search_structure(
        # Input modes first, as in the layer.
        as_layer_tensor(layer.weight.detach().mT, modes_out, modes_in),
        template=TEMPLATES[kind],
        permute=False,
        penalty=penalty,
        max_rank=max_rank,
        **options,
    )
    new = FactorizedLinear(
        in_features,
        out_features,
        kind,
        found.ranks,
        in_shape=modes_in,
        out_shape=modes_out,
        bias=layer.bias is not None,
        generator=torch.Generator().manual_seed(0),
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
    with torch.no_grad():
        for core, fitted in zip(new.cores, found.cores, strict=True):
            core.copy_(fitted.reshape(core.shape))
        if new.bias is not None:
            new.bias.copy_(layer.bias)
    return SearchedLayer(new.train(layer.training), found)
