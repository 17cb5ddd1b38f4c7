"""Averages of weights."""

from __future__ import annotations

from eegtensor.training.methods.method import Method

AVERAGERS: dict[str, Method] = {
    "swa": Method(
        "averager",
        "Izmailov et al., UAI 2018",
        "1",
        (),
        "eegtensor.training.averagers:SWA",
    ),
    "ema": Method(
        "averager",
        "Polyak and Juditsky, SIAM J. Control Optim. 1992",
        "1",
        (),
        "eegtensor.training.averagers:EMA",
    ),
    "twa": Method(
        "averager",
        "Li et al., ICLR 2023",
        "1, and 10 epochs at the end",
        (),
        "eegtensor.training.averagers:TWA",
    ),
    "mehl-soup": Method(
        "averager",
        "Li et al., ECCV 2024",
        "1, and 5 epochs at the end",
        (),
        "eegtensor.training.averagers:MEHLSoup",
    ),
    "trajectory": Method(
        "callback",
        "",
        "1",
        (),
        "eegtensor.training.averagers:Trajectory",
    ),
    "mode-ensemble": Method(
        "ensemble",
        "Fang et al., IJCV 2024",
        "1 a member",
        (),
        "eegtensor.training.averagers:ModeEnsemble",
    ),
}
