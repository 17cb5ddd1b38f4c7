"""Samplers and scores of trials."""

from __future__ import annotations

from eegtensor.training.methods.method import Method

SAMPLERS: dict[str, Method] = {
    "domain-balanced": Method(
        "sampler",
        "Kobler et al., NeurIPS 2022",
        "1",
        ("domain",),
        "eegtensor.training.samplers:DomainBalancedSampler",
    ),
    "shuffle": Method(
        "sampler", "", "1", (), "eegtensor.training.samplers:ShuffleSampler"
    ),
}
