"""Maps of gradients, one file each."""

from eegtensor.training.transforms.calibrate import calibrate_in_subspace
from eegtensor.training.transforms.dldr import DLDR
from eegtensor.training.transforms.dtnh import DTNH
from eegtensor.training.transforms.fngd import FNGD
from eegtensor.training.transforms.pbfgs import Minimum, bfgs
from eegtensor.training.transforms.sara import SaRA
from eegtensor.training.transforms.udim import UDIM

__all__ = [
    "DLDR",
    "DTNH",
    "FNGD",
    "UDIM",
    "Minimum",
    "SaRA",
    "bfgs",
    "calibrate_in_subspace",
]
