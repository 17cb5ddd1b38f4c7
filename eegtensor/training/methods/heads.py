"""Heads that are fitted in closed form, and ways to decode."""

from __future__ import annotations

from eegtensor.training.methods.method import Method

HEADS: dict[str, Method] = {
    "grassmann": Method(
        "head",
        "Wang et al., ICCV 2023",
        "1 + a QR per class",
        (),
        "eegtensor.nn:GrassmannHead",
    ),
    "equiangular": Method(
        "head",
        "Shen et al., CVPR 2023",
        "1",
        (),
        "eegtensor.nn:EquiangularHead",
    ),
    "gda": Method(
        "head",
        "Wang et al., ICLR 2024",
        "one solve",
        ("features", "y"),
        "eegtensor.transfer:GaussianDiscriminant",
    ),
    "naive-bayes": Method(
        "head",
        "Zheng et al., ICML 2023",
        "one pass",
        ("features", "y"),
        "eegtensor.transfer:SharedNaiveBayes",
    ),
    "probe-chooser": Method(
        "head",
        "Zheng et al., ICML 2023",
        "a fit of each candidate a fold",
        ("features", "y"),
        "eegtensor.transfer:ProbeChooser",
    ),
    "boosted": Method(
        "head",
        "Emami and Martinez-Munoz, IEEE Access 2023",
        "a small fit a unit",
        ("features", "y"),
        "eegtensor.transfer:BoostedHead",
    ),
    "loki-decoding": Method(
        "head",
        "Roberts et al., NeurIPS 2023",
        "a product with the distances",
        ("class probabilities",),
        "eegtensor.transfer:LokiClassifier",
    ),
}
