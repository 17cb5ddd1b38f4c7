"""The neural spectrum tokenizer of LaBraM: one code for a channel and second."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from eegtensor._check import check_option
from eegtensor.models._patch_tokenizer import FIXES, PatchTokenizer
from eegtensor.models._patches import (
    Size,
    TemporalFront,
    check_patch,
    own_generator,
)
from eegtensor.models.neurorvq import resized

SIZES = {
    "published": Size(200, 10, 12, 3, 64, 8192, 1),
    "small": Size(64, 4, 2, 1, 16, 256, 1),
}
_CHANNELS, _SECONDS = 129, 16


class VQNSP(PatchTokenizer):
    """Vector-quantised neural spectrum prediction (Jiang et al. 2024, LaBraM).

    Three convolutions in a patch, a transformer, one code of unit norm; a shallower
    transformer and two heads rebuild amplitude and phase of the patch's spectrum.

    Parameters
    ----------
    n_patch_times : int
        Samples of a patch, published for one second at 200 Hz.
    size : {"published", "small"}
        "small" trains in minutes on a processor: 2 blocks of width 64, 256 codes.
    fixes : sequence of str
        As in `NeuroRVQ`; () is the published network. "residual" codes length and
        direction; "spectrum" has NeuroRVQ's three heads, since a phase as a number
        has a jump where the circle has none; "channels" adds the row for other names
        (the class token has a row of its own in any case).
    n_codes, n_levels : int | None
        Other than the size's; published with one level.
    random_state : int | torch.Generator | None
    device : torch.device | str | None

    Attributes
    ----------
    n_slots, quantises, spectrum
        As in `NeuroRVQ`.

    Notes
    -----
    Written from tokenizers.md, section 2; trainable numbers as published, 7,522,640,
    and codes of 524,288 (the published 8,579,408 count a second copy of the codes
    and their counts). The published model standardises amplitude and phase by
    the sample it is to rebuild and keeps neither number, so its codes give no signal;
    here the training data's are kept, and they do.

    Examples
    --------
    >>> import torch
    >>> network = VQNSP(size="small", random_state=0).eval()
    >>> network.encode(torch.randn(1, 2, 400)).shape
    torch.Size([1, 2, 2, 1])
    """

    def __init__(
        self,
        n_patch_times: int = 200,
        *,
        size: str = "published",
        fixes: Sequence[str] = FIXES,
        n_codes: int | None = None,
        n_levels: int | None = None,
        random_state: int | torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        check_patch(n_patch_times)
        found = SIZES[check_option("size", size, tuple(SIZES))]
        found = resized(found, n_codes, n_levels)
        generator = own_generator(random_state)
        # Modules draw weights when they are made, all of which are drawn anew.
        with torch.random.fork_rng(devices=[]):
            super().__init__(
                [TemporalFront((15, 3, 3), strides=(8, 1, 1), local="norms" in fixes)],
                n_patch_times,
                found,
                fixes,
                kind="angle",
                transformer={
                    "n_places": _CHANNELS,
                    "n_seconds": _SECONDS,
                    "qk_norm": False,
                    "eps": 1e-6,
                    "first_place": 1,
                    "class_place": 0,
                    "right": False,
                },
                activation=nn.Tanh,
                generator=generator,
                device=device,
            )
