"""Take noise away: by patches that resemble each other, by trials that repeat.

`denoise_nonlocal` needs no events; `fit_paired` learns from trials of a condition
what they share, and takes everything else away.
"""

from eegtensor.tensor.denoising._lowrank import shrink_singular
from eegtensor.tensor.denoising._network import PairedNetwork
from eegtensor.tensor.denoising._noise import noise_level
from eegtensor.tensor.denoising._unshared import noise_spectrum
from eegtensor.tensor.denoising.nonlocal_lowrank import Denoised, denoise_nonlocal
from eegtensor.tensor.denoising.paired import (
    PairedDenoised,
    apply_paired,
    denoise_paired,
    fit_paired,
)

__all__ = [
    "Denoised",
    "PairedDenoised",
    "PairedNetwork",
    "apply_paired",
    "denoise_nonlocal",
    "denoise_paired",
    "fit_paired",
    "noise_level",
    "noise_spectrum",
    "shrink_singular",
]
