"""Few good and many poor recordings in one network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eegtensor._check import check_count, fail
from eegtensor.training.batch import Batch
from eegtensor.training.network import Network, inner_module


class MultiFidelity(nn.Module):
    """A shared network, and for each quality of recording a correction of its logits.

    Trials of recordings of quality 0, the poorest, get the logits f(h) of the shared
    network's head; those of quality q get

        scale_q f(h) + W_q (h + e_q) + b_q

    with the embedding e_q of the quality; corrections start at zero, scales at one.
    The many poor trials teach the features, the few good ones a small correction;
    give these larger weights (`Batch.weight`).

    It helps where the probability of the classes given the features differs between
    qualities, as by a bias to one class, and by no more than a correction can say.
    Where it does not differ all trials as one are the better estimate: the
    correction has 1 + n_features (n_outputs + 1) + n_outputs numbers that few good
    trials must find for nothing (of simulated trials .71 against .56 for all as one
    with a bias, .81 against .82 without). Where classes lie along other directions
    (.61) neither is better than the good trials alone (.68).

    Parameters
    ----------
    network : Module
        Ours or any with a head.
    n_features, n_outputs : int
    quality : sequence of int
        Of each domain, by its code: 0 for consumer or dry electrodes, 1 for a
        laboratory, and so on.
    unseen : int | None
        Quality of domains that are not in the list; the best by default.

    References
    ----------
    After "FilDeep" (source list 003, entry 11), which is of solids: shared encoder
    and fidelity embedding from there. The linear link of qualities is that of M. C.
    Kennedy and A. O'Hagan, "Predicting the output from a complex computer code when
    fast approximations are available", Biometrika 87, 2000, eq. 1.
    """

    def __init__(
        self,
        network: nn.Module,
        n_features: int,
        n_outputs: int,
        quality: Sequence[int],
        *,
        unseen: int | None = None,
    ) -> None:
        super().__init__()
        codes = torch.as_tensor(list(quality), dtype=torch.int64)
        if codes.numel() == 0 or int(codes.min()) < 0:
            fail(f"quality={list(quality)}", fix="give 0 or more for each domain")
        best = int(codes.max())
        unseen = best if unseen is None else check_count("unseen", unseen, least=0)
        if unseen > best:
            fail(f"unseen={unseen}", fix=f"give a quality that occurs, 0 to {best}")
        self.network = network
        self.register_buffer("quality", torch.cat([codes, torch.tensor([unseen])]))
        self.embedding = nn.Parameter(torch.zeros(best, n_features))
        self.scale = nn.Parameter(torch.ones(best))
        self.weight = nn.Parameter(torch.zeros(best, n_outputs, n_features))
        self.bias = nn.Parameter(torch.zeros(best, n_outputs))

    def forward(self, x: Any, domain: Tensor | None = None) -> Tensor:
        """Return logits, shape (n_trials, n_outputs)."""
        inner = Network(self.network, keeps_features=True)
        logits = inner(Batch(x, domain=domain))
        h, inner.features = inner.features, None
        assert h is not None
        table = self.get_buffer("quality")
        if domain is None:
            q = table[-1:].expand(len(h))
        else:
            known = (domain >= 0) & (domain < len(table) - 1)
            q = table[torch.where(known, domain, len(table) - 1)]
        if not len(self.scale):
            return logits
        level = (q - 1).clamp_min(0)
        shifted = (h + self.embedding[level]).to(self.weight.dtype)
        moved = torch.einsum("nof,nf->no", self.weight[level], shifted)
        moved = self.scale[level, None] * logits + moved + self.bias[level]
        return torch.where((q == 0)[:, None], logits, moved.to(logits.dtype))

    @property
    def head(self) -> nn.Module:
        """The shared network's head."""
        return Network(self.network).head

    def fit_statistics(self, x: Any, domain: Tensor | None = None) -> None:
        """Fit the shared network's statistics, where it has some of domains."""
        inner: Any = inner_module(self.network)
        if hasattr(inner, "fit_statistics"):
            inner.fit_statistics(x, domain)
