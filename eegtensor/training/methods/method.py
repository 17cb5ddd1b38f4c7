"""One line of the table of methods."""

from __future__ import annotations

from typing import NamedTuple


class Method(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    kind : str
        "objective", "perturbation", "gradient transform", "averager", "sampler",
        "optimizer", "schedule", "head", "callback", "recipe", "calibration" (of a
        trained network to a new person), "ensemble" (of trained states) or "score".
    paper : str
    cost : str
        Of one step, in units of a plain one.
    needs : tuple of str
        Parts of a batch or of a network without which it does not work: "y",
        "domain", "index", "unlabelled" (trials of unknown class), "two classes",
        "features" (of the network, before its head), "linear head", "raw trials"
        (no front computed beforehand), "losses of trials".
    source : str
        "module:name" of the class or function.
    """

    kind: str
    paper: str
    cost: str
    needs: tuple[str, ...]
    source: str = ""
