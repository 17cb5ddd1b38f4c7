"""Attacks on decoders: how much of them a small perturbation takes away.

Sizes are in standard deviations of each channel over the trials given; every result
has a `Budget` with l_inf, l2 and the ratio of signal to perturbation in dB.
"""

from eegtensor.trust.attacks.attack import Attack, Attacked, GradientAttack
from eegtensor.trust.attacks.budget import Budget, measure
from eegtensor.trust.attacks.momentum import MomentumFGSM, momentum_fgsm
from eegtensor.trust.attacks.pgd import FGSM, PGD, fgsm, pgd
from eegtensor.trust.attacks.reports import robustness_curve, transfer_report
from eegtensor.trust.attacks.riemannian import Riemannian, riemannian
from eegtensor.trust.attacks.square import Searched, Square, square
from eegtensor.trust.attacks.universal import universal
from eegtensor.trust.attacks.variancereduced import (
    VarianceReducedFGSM,
    variance_reduced,
)
from eegtensor.trust.attacks.views import view_of
from eegtensor.trust.attacks.waveform import (
    Universal,
    Waveform,
    dominance,
    fooling_rate,
)

__all__ = [
    "FGSM",
    "PGD",
    "Attack",
    "Attacked",
    "Budget",
    "GradientAttack",
    "MomentumFGSM",
    "Riemannian",
    "Searched",
    "Square",
    "Universal",
    "VarianceReducedFGSM",
    "Waveform",
    "dominance",
    "fgsm",
    "fooling_rate",
    "measure",
    "momentum_fgsm",
    "pgd",
    "riemannian",
    "robustness_curve",
    "square",
    "transfer_report",
    "universal",
    "variance_reduced",
    "view_of",
]
