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
}
