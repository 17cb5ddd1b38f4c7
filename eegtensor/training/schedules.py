"""Momenta of running statistics over the epochs."""

from __future__ import annotations

from eegtensor._check import check_option, fail
from eegtensor.geometry.normalization import Momenta

# Epochs at the end with constant momenta, as published for runs of 50.
_SETTLED = 10


def momentum_schedule(
    epoch: int,
    n_epochs: int,
    *,
    batch_size: float = 50,
    domain_batch_size: float = 10,
    tau0: float = 0.85,
    compat: str | None = None,
) -> Momenta:
    """Return the momenta of an epoch, as published for TSMNet.

    With K = n_epochs - 10, w = max(K - epoch, 0) / (K - 1) and
    r = domain_batch_size / batch_size::

        eta = 1 - r^w + r        tau = tau0^(r (1 - w) + w)

    The weight of a new batch falls from 1 to r in training, and from 1 - tau0
    to 1 - tau0^r in evaluation.

    Parameters
    ----------
    epoch : int
        Counted from 1.
    n_epochs : int
        Epochs of the whole run. Runs of 11 epochs or fewer, for which the rule
        is not defined, settle over their last fifth.
    batch_size, domain_batch_size : float
        Trials of a batch, and of a domain in it.
    tau0 : float
        What evaluation statistics keep of themselves in the first epoch.
    compat : "tsmnet2022" | None
        The authors' code hands tau to a layer that wants 1 - tau; this does so
        too.

    Returns
    -------
    momenta : Momenta (eta, eta_test)

    References
    ----------
    Kobler, Hirayama, Zhao and Kawanabe, SPD domain-specific batch normalization
    to crack interpretable unsupervised domain adaptation in EEG, NeurIPS 2022.
    """
    check_option("compat", compat, (None, "tsmnet2022"))
    if not 1 <= epoch:
        fail(f"epoch={epoch}", fix="count epochs from 1")
    if not 0 < domain_batch_size <= batch_size:
        fail(
            f"domain_batch_size={domain_batch_size} for batch_size={batch_size}",
            fix="give the trials of one domain in a batch, at most the whole batch",
        )
    settled = _SETTLED if n_epochs > _SETTLED + 1 else n_epochs // 5
    # At least 2: a rule for one epoch would be 0 / 0.
    last = max(n_epochs - settled, 2)
    w = max(last - epoch, 0) / (last - 1)
    ratio = domain_batch_size / batch_size
    eta = 1.0 - ratio**w + ratio
    tau = tau0 ** (ratio * (1.0 - w) + w)
    return Momenta(eta, tau if compat == "tsmnet2022" else 1.0 - tau)
