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
    "equity": Method(
        "sampler",
        "Shrivastava et al., ICCV workshops 2023",
        "1",
        (),
        "eegtensor.training.samplers:EquitySampler",
    ),
    "difficulty-band": Method(
        "sampler",
        "after source list 003, entry 3",
        "0.6 + a forward pass of all trials now and then",
        ("y",),
        "eegtensor.training.samplers:DifficultyBandSampler",
    ),
    "importance": Method(
        "sampler",
        "Lu et al., CVPR 2023",
        "1",
        ("y", "losses of trials"),
        "eegtensor.training.samplers:ImportanceSampler",
    ),
    "rs2": Method(
        "sampler",
        "Okanovic et al., ICLR 2024",
        "1; an epoch has fewer steps",
        (),
        "eegtensor.training.samplers:RS2Sampler",
    ),
    "el2n": Method(
        "score",
        "Paul et al., NeurIPS 2021",
        "a forward pass",
        ("y",),
        "eegtensor.training.scores:el2n",
    ),
    "grand": Method(
        "score",
        "Paul et al., NeurIPS 2021",
        "a gradient a trial",
        ("y",),
        "eegtensor.training.scores:grand",
    ),
    "data-inefficiency": Method(
        "score",
        "Ji and Zhu, NeurIPS 2020",
        "a forward pass",
        ("y",),
        "eegtensor.training.scores:data_inefficiency",
    ),
}
