"""Several trained states of a network as one: the mean of their outputs."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.training.batch import Batch
from eegtensor.training.network import inner_module
from eegtensor.training.refit import refit_statistics


class ModeEnsemble(nn.Module):
    """Networks whose logits are averaged: runs from several seeds, or of one run.

    Parameters
    ----------
    members : sequence of torch.nn.Module
        Networks of the same kind; they are kept, not copied.

    Raises
    ------
    EEGTensorError
        If there are none.

    References
    ----------
    K. Fang, Q. Tao, X. Huang and J. Yang, "Revisiting deep ensemble for
    out-of-distribution detection: a loss landscape perspective", IJCV 2024.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not len(members):
            fail("An ensemble has no members", fix="give at least one network")
        self.members = nn.ModuleList(members)
        self._takes_domain = (
            "domain" in inspect.signature(inner_module(members[0]).forward).parameters
        )

    @classmethod
    def of_states(
        cls,
        model: nn.Module,
        states: Sequence[Mapping[str, Any]],
        data: Batch | None = None,
    ) -> ModeEnsemble:
        """Return an ensemble of copies of a network.

        Parameters
        ----------
        model : torch.nn.Module
        states : sequence of mapping
            A state_dict each, or trainable parameters alone, as averagers keep.
        data : Batch | None
            Trials to fit the statistics of each member to; needed where states
            have none.
        """
        members = []
        for state in states:
            member = copy.deepcopy(model)
            missing = member.load_state_dict(dict(state), strict=False)
            if missing.unexpected_keys:
                fail(
                    f"The network has no {missing.unexpected_keys[0]!r}",
                    fix="give states of this kind of network",
                )
            if data is not None:
                refit_statistics(member, data)
            members.append(member.eval())
        return cls(members)

    def each(self, x: Any, domain: Tensor | None = None) -> Tensor:
        """Return the outputs of each member, shape (n_members, n_trials, ...)."""
        if domain is not None and self._takes_domain:
            return torch.stack([member(x, domain=domain) for member in self.members])
        return torch.stack([member(x) for member in self.members])

    def forward(self, x: Any, domain: Tensor | None = None) -> Tensor:
        """Return the mean outputs, shape (n_trials, ...)."""
        return self.each(x, domain).mean(dim=0)

    def spread(self, x: Any, domain: Tensor | None = None) -> Tensor:
        """Return the standard deviation of outputs over members, at least two."""
        if len(self.members) < 2:
            fail("An ensemble of one member has no spread", fix="give two or more")
        return self.each(x, domain).std(dim=0)

    def fit_statistics(self, x: Any, domain: Tensor | None = None) -> None:
        """Fit the statistics of every member that has some by domain."""
        for member in self.members:
            if hasattr(member, "fit_statistics"):
                member.fit_statistics(x, domain)  # type: ignore[operator]
