"""Lists of pipelines that a benchmark compares as a whole."""

from __future__ import annotations

from eegtensor._check import check_option

# One network trained in many ways: what is named stands beside or in place of the
# published training. Losses of features and of smoothness stand beside cross entropy.
_BESIDE = ("multi-similarity", "hessian-alignment", "vat", "tnar", "pani")
_INSTEAD = (
    "comp-sum(tau=1.7)",
    "ldr",
    "aldr",
    "anyloss",
    "ensloss",
    "logit-adjusted",
    "z-loss",
    "subject-dro",
)
_OTHERS = {
    "perturbation": (
        "sam",
        "f-sam",
        "rwp",
        "arwp",
        "mrwp",
        "gradient-norm",
        "noisy-gradient",
        "advstyle",
    ),
    "averager": ("swa", "ema", "twa", "mehl-soup"),
    # As long as the steps of the others: momentum 0.9 is a factor of ten, and positive-
    # negative momentum one of 1 / sqrt(5) of a gradient that stays.
    "optimizer": (
        "riemannian-sgd(lr=0.01, momentum=0.9)",
        "pnm(lr=0.2)",
        "adapnm(lr=0.002)",
    ),
    "grad_transform": ("fngd", "dtnh", "udim"),
    "sampler": ("equity",),
    "head": ("grassmann", "simplex"),
}


def _training() -> list[str]:
    found = ["tsmnet"]
    found += [f"tsmnet(objective={name!r})" for name in _INSTEAD]
    found += [f"tsmnet(objective=('cross-entropy', {name!r}))" for name in _BESIDE]
    for parameter, names in _OTHERS.items():
        found += [f"tsmnet({parameter}={name!r})" for name in names]
    return found


SWEEPS = {"training": _training}


def sweep_pipelines(name: str) -> list[str]:
    """Return the pipelines of a sweep, as a benchmark takes them.

    Parameters
    ----------
    name : str
        "training": TSMNet as published, and with each training method that fits
        people with several sessions and needs nothing beside their trials.

    Raises
    ------
    EEGTensorError
        If no sweep has this name.
    """
    check_option("sweep", name, tuple(SWEEPS))
    return SWEEPS[name]()
