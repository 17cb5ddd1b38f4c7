"""Optimizers and schedules."""

from __future__ import annotations

from eegtensor.training.methods.method import Method

OPTIMIZERS: dict[str, Method] = {
    "riemannian-adam": Method(
        "optimizer",
        "Becigneul and Ganea, ICLR 2019",
        "1 + a QR per Stiefel leaf",
        (),
        "geoopt.optim:RiemannianAdam",
    ),
    "riemannian-sgd": Method(
        "optimizer",
        "Bonnabel, IEEE TAC 2013",
        "1 + a QR per Stiefel leaf",
        (),
        "geoopt.optim:RiemannianSGD",
    ),
    "adam": Method(
        "optimizer", "Kingma and Ba, ICLR 2015", "1", (), "torch.optim:Adam"
    ),
    "adamw": Method(
        "optimizer", "Loshchilov and Hutter, ICLR 2019", "1", (), "torch.optim:AdamW"
    ),
    "sgd": Method("optimizer", "", "1", (), "torch.optim:SGD"),
    "momentum-schedule": Method(
        "schedule",
        "Kobler et al., NeurIPS 2022",
        "1",
        ("running statistics with set_momentum",),
        "eegtensor.training:MomentumSchedule",
    ),
    "pnm": Method(
        "optimizer",
        "Xie et al., ICML 2021",
        "1 + a polar factor per Stiefel leaf",
        (),
        "eegtensor.training.optimizers.pnm:PNM",
    ),
    "adapnm": Method(
        "optimizer",
        "Xie et al., ICML 2021",
        "1 + a polar factor per Stiefel leaf",
        (),
        "eegtensor.training.optimizers.adapnm:AdaPNM",
    ),
    "spherical-motion": Method(
        "callback",
        "Wan et al., NeurIPS 2021",
        "1",
        (),
        "eegtensor.training.optimizers.sphericalmotion:SphericalMotion",
    ),
    "scale-lr": Method(
        "schedule",
        "Granziol et al., JMLR 2022",
        "1",
        (),
        "eegtensor.training.optimizers.scaling:scale_lr",
    ),
}
