"""Maps of gradients."""

from __future__ import annotations

from eegtensor.training.methods.method import Method

TRANSFORMS: dict[str, Method] = {
    "dtnh": Method(
        "gradient transform",
        "Wan et al., ICDM 2019",
        "1",
        (),
        "eegtensor.training.transforms:DTNH",
    ),
    "udim": Method(
        "gradient transform",
        "Shin et al., ICLR 2024",
        "4",
        ("y", "linear head"),
        "eegtensor.training.transforms:UDIM",
    ),
    "dldr": Method(
        "gradient transform",
        "Li et al., IEEE TPAMI 2023",
        "1 + 2 products with the directions",
        (),
        "eegtensor.training.transforms:DLDR",
    ),
    "fngd": Method(
        "gradient transform",
        "Ou et al., arXiv 2403.03473",
        "2; later 1 + a pass of each layer",
        ("index",),
        "eegtensor.training.transforms:FNGD",
    ),
    "subspace-calibration": Method(
        "calibration",
        "Li et al., IEEE TPAMI 2023",
        "1 + a forward pass or two",
        ("y",),
        "eegtensor.training.transforms:calibrate_in_subspace",
    ),
    "sara": Method(
        "gradient transform",
        "Hu et al., ICLR 2025",
        "1 + an SVD of one matrix",
        (),
        "eegtensor.training.transforms:SaRA",
    ),
}
