"""NeuroRVQ: patches at four time scales, each coded by levels of codebooks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from eegtensor._check import check_option, fail
from eegtensor.models._electrodes import NAMES
from eegtensor.models._patch_tokenizer import FIXES, PatchTokenizer
from eegtensor.models._patches import (
    Size,
    TemporalFront,
    check_patch,
    own_generator,
)

SIZES = {
    "published": Size(200, 10, 12, 3, 128, 8192, 8),
    "small": Size(64, 4, 2, 1, 16, 256, 8),
}
# Samples of the two convolutions of each branch.
_KERNELS = ((21, 9), (15, 7), (9, 5), (5, 3))
_SECONDS = 256


def resized(size: Size, n_codes: int | None, n_levels: int | None) -> Size:
    """Return a size with other numbers of codes and levels where they are given."""
    for name, given in (("n_codes", n_codes), ("n_levels", n_levels)):
        if given is None:
            continue
        if given < 1:
            fail(f"{name}={given!r}", fix="give at least one, or None for the size's")
        size = size._replace(**{name: given})
    return size


class NeuroRVQ(PatchTokenizer):
    """Multi-scale residual tokenizer of EEG patches (Barmpas et al. 2025).

    Every patch goes through four pairs of convolutions, a transformer that the four
    branches share, and a residual quantiser a branch; a shallower transformer and
    three heads rebuild log-amplitude, cosine and sine of its spectrum.

    Parameters
    ----------
    n_patch_times : int
        Samples of a patch, published for one second at 200 Hz.
    size : {"published", "small"}
        "small" trains in minutes on a processor: 2 blocks of width 64, 256 codes.
    fixes : sequence of str
        () is the published network. "residual": what was coded is taken off, in length
        and direction, instead of a unit vector. "revival": codes that no vector uses
        move to vectors; after `EEGTokenizer.fit` none is left. "spectrum": the one-
        sided spectrum up to 45 Hz with a mean and deviation a bin, instead of all 200
        bins alike. "norms": group norms have the statistics of a patch, not of the
        sample, and a vector times the patch's log-amplitude gives back what they take
        away. "alone": in the encoder a patch attends to its own four branches, not to
        other patches; with "norms", a patch has the same ids alone and among others.
        "channels": channels of unlisted names share a row of the table (an error
        otherwise), and the class token no longer has the row of A1.
        `EEGTokenizer` has one more for its training, "warmup".
    n_codes, n_levels : int | None
        Other than the size's.
    random_state : int | torch.Generator | None
    device : torch.device | str | None

    Attributes
    ----------
    n_slots : int
        Ids of a patch: 4 n_levels.
    quantises : bool
        Whether latents are quantised; False while the network warms up.
    spectrum : torch.nn.Module
        The decoder's targets; `spectrum.fit(patches)` before training.

    Notes
    -----
    Written from tokenizers.md, section 1; weights and code of the authors are not
    used. Trainable numbers are theirs, 8,355,440 as published; of the 67.4 M in
    their quantisers, the 33.8 M that nothing reads are not kept. The list of channel
    names is our own 104 names.

    Examples
    --------
    >>> import torch
    >>> network = NeuroRVQ(size="small", n_levels=3, random_state=0).eval()
    >>> ids = network.encode(torch.randn(1, 2, 400), ["Cz", "Pz"])
    >>> ids.shape, network.decode(ids, ["Cz", "Pz"]).shape
    (torch.Size([1, 2, 2, 12]), torch.Size([1, 2, 400]))
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
                [
                    TemporalFront(pair, pools=(2, 4), local="norms" in fixes)
                    for pair in _KERNELS
                ],
                n_patch_times,
                found,
                fixes,
                kind="circle",
                transformer={
                    "n_places": len(NAMES) + 1,
                    "n_seconds": _SECONDS,
                    "qk_norm": True,
                    "eps": 1e-5,
                    "first_place": 0,
                    "class_place": None if "channels" in fixes else 0,
                    "right": True,
                },
                activation=nn.GELU,
                generator=generator,
                device=device,
            )
