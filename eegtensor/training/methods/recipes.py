"""Runs that are more than one plain loop, and callbacks."""

from __future__ import annotations

from eegtensor.training.methods.method import Method

RECIPES: dict[str, Method] = {
    "m3s": Method(
        "recipe",
        "Sun et al., AAAI 2020",
        "1",
        ("y", "unlabelled"),
        "eegtensor.training.recipes:SelfTraining",
    ),
    "augment": Method(
        "perturbation",
        "",
        "1",
        ("raw trials",),
        "eegtensor.training.recipes:Augment",
    ),
    "augmentation-search": Method(
        "recipe",
        "Xu et al., MICCAI 2020",
        "7 and 2 forward passes",
        ("y", "raw trials"),
        "eegtensor.training.recipes:search_augmentation",
    ),
    "condensation": Method(
        "recipe",
        "Lee et al., ICML 2022",
        "1000 short runs",
        ("y",),
        "eegtensor.training.recipes:condense",
    ),
    "hypergradients": Method(
        "recipe",
        "Shen et al., NeurIPS 2024",
        "1 + a gradient a direction",
        (),
        "eegtensor.training.recipes:forward_hypergradient",
    ),
    "module-to-module": Method(
        "recipe",
        "Lo et al., arXiv 2402.16918; Ni et al., arXiv 2212.04129",
        "1 + a forward pass",
        ("y",),
        "eegtensor.training.recipes:assemble",
    ),
    "multi-fidelity": Method(
        "recipe",
        "after source list 003, entry 11",
        "1",
        ("y", "domain", "features"),
        "eegtensor.training.recipes:MultiFidelity",
    ),
    "free": Method(
        "recipe",
        "Shafahi et al., NeurIPS 2019",
        "1",
        ("y", "raw trials"),
        "eegtensor.training.recipes:FreeAdversarial",
    ),
    "rift": Method(
        "recipe",
        "Zhu et al., ICCV 2023",
        "10 epochs for each weight, and 20",
        ("y", "raw trials"),
        "eegtensor.training.recipes:rift",
    ),
    "afa": Method(
        "recipe",
        "source list 001, entry 44",
        "2 + n_steps passes of all trials",
        ("y", "raw trials"),
        "eegtensor.training.recipes:align_features",
    ),
    "self-fitting": Method(
        "callback",
        "source list 001, entry 14",
        "11 gradients of the probe an epoch",
        ("y", "raw trials"),
        "eegtensor.training.monitors:SelfFitting",
    ),
    "sfron": Method(
        "recipe",
        "Huang et al., NeurIPS 2024",
        "1.2 and two passes of all trials",
        ("y", "domain"),
        "eegtensor.training.recipes:SFRon",
    ),
    "natmu": Method(
        "recipe",
        "He et al., arXiv 2405.15495",
        "1",
        ("y", "domain", "raw trials"),
        "eegtensor.training.recipes:NatMU",
    ),
    "ug-clu": Method(
        "recipe",
        "arXiv 2505.15178",
        "1.4 and two passes of all trials",
        ("y", "domain"),
        "eegtensor.training.recipes:UGCLU",
    ),
    "online-stream": Method(
        "recipe",
        "Huang et al., TMLR 2024",
        "1",
        ("y",),
        "eegtensor.training.recipes:OnlineStream",
    ),
}
