"""The table of training methods, from which the documentation is made."""

from __future__ import annotations

from typing import NamedTuple


class Method(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    kind : str
        "objective", "perturbation", "gradient transform", "averager",
        "sampler", "optimizer" or "schedule".
    paper : str
    cost : str
        Of one step, in units of a plain one.
    needs : tuple of str
        Parts of a batch or of a network without which it does not work.
    """

    kind: str
    paper: str
    cost: str
    needs: tuple[str, ...]


_TSMNET = "Kobler et al., NeurIPS 2022"

METHODS: dict[str, Method] = {
    "cross-entropy": Method("objective", "", "1", ("y",)),
    "riemannian-adam": Method(
        "optimizer", "Becigneul and Ganea, ICLR 2019", "1 + a QR per Stiefel leaf", ()
    ),
    "riemannian-sgd": Method(
        "optimizer", "Bonnabel, IEEE TAC 2013", "1 + a QR per Stiefel leaf", ()
    ),
    "domain-balanced": Method("sampler", _TSMNET, "1", ("domain",)),
    "momentum-schedule": Method(
        "schedule", _TSMNET, "1", ("running statistics with set_momentum",)
    ),
}
