"""Perturbations of inputs, features and weights."""

from __future__ import annotations

from eegtensor.training.methods.method import Method

PERTURBATIONS: dict[str, Method] = {
    "sam": Method(
        "perturbation",
        "Foret et al., ICLR 2021",
        "2",
        (),
        "eegtensor.training.perturbations:SAM",
    ),
    "f-sam": Method(
        "perturbation",
        "Li et al., CVPR 2024",
        "2",
        (),
        "eegtensor.training.perturbations:FSAM",
    ),
    "rwp": Method(
        "perturbation",
        "Li et al., 2022 (T-NNLS)",
        "2",
        (),
        "eegtensor.training.perturbations:RWP",
    ),
    "arwp": Method(
        "perturbation",
        "Li et al., TMLR 2024",
        "1 + noise of every weight",
        (),
        "eegtensor.training.perturbations:ARWP",
    ),
    "mrwp": Method(
        "perturbation",
        "Li et al., TMLR 2024",
        "2",
        (),
        "eegtensor.training.perturbations:MRWP",
    ),
    "gradient-norm": Method(
        "perturbation",
        "Zhao et al., ICML 2022; Dao et al., NeurIPS 2024",
        "2",
        (),
        "eegtensor.training.perturbations:GradientNorm",
    ),
    "noisy-gradient": Method(
        "perturbation",
        "Wu et al., ICML 2020",
        "1",
        ("losses of trials",),
        "eegtensor.training.perturbations:NoisyGradient",
    ),
    "advstyle": Method(
        "perturbation",
        "Zhang et al., arXiv 2301.12643",
        "1 + a forward pass",
        (),
        "eegtensor.training.perturbations:AdvStyle",
    ),
    "pani-mixup": Method(
        "perturbation",
        "Sun et al., ACML 2023",
        "1 + distances of patches",
        ("y", "raw trials"),
        "eegtensor.training.perturbations:PaniMixUp",
    ),
    "pgd": Method(
        "perturbation",
        "Madry et al., ICLR 2018",
        "1 + n_steps",
        ("raw trials",),
        "eegtensor.training.perturbations:PGD",
    ),
    "fast": Method(
        "perturbation",
        "Wong et al., ICLR 2020",
        "2",
        ("y", "raw trials"),
        "eegtensor.training.perturbations:Fast",
    ),
    "amata": Method(
        "perturbation",
        "Ye et al., AAAI 2021",
        "1 + k_min to k_max",
        ("raw trials",),
        "eegtensor.training.perturbations:Amata",
    ),
    "yopo": Method(
        "perturbation",
        "Zhang et al., NeurIPS 2019",
        "m + m n of the first layer",
        ("raw trials",),
        "eegtensor.training.perturbations:YOPO",
    ),
    "sub-at": Method(
        "perturbation",
        "Li et al., CVPR 2022",
        "2 + 2 products with the directions",
        ("y", "raw trials"),
        "eegtensor.training.recipes:SubAT",
    ),
}
