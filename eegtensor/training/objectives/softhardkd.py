"""A teacher's opinion as far as the teacher can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eegtensor._check import check_number, fail
from eegtensor.training.batch import Batch
from eegtensor.training.objectives._shared import known_labels
from eegtensor.training.objectives._teachers import Teacher, Teachers, trained_teachers

if TYPE_CHECKING:
    from eegtensor.training.protocols import StepContext, TrainState
    from eegtensor.training.registry import Setup


def teacher_share(
    logits: Tensor, y: Tensor, domain: Tensor | None = None, *, n_domains: int = 1
) -> Tensor:
    """Return rho = clip(2 accuracy - 1, 0, 1) of a teacher, in each domain.

    Parameters
    ----------
    logits : Tensor, shape (n_trials, n_classes)
        Of the teacher, on trials it has not learned from.
    y : Tensor of int64, shape (n_trials,)
    domain : Tensor of int64, shape (n_trials,) | None
    n_domains : int

    Returns
    -------
    rho : Tensor, shape (n_domains,)
        In domains without labelled trials that of all trials together.
    """
    known = y >= 0
    if not bool(known.any()):
        fail("No trial has a label", fix="give labelled trials, or a number for rho")
    hit = (logits.argmax(1) == y)[known].double()
    codes = torch.zeros_like(y) if domain is None else domain
    codes = codes[known]
    inside = codes >= 0
    n = max(n_domains, int(codes.max()) + 1)
    count = torch.bincount(codes[inside], minlength=n)
    hits = torch.bincount(codes[inside], weights=hit[inside], minlength=n)
    accuracy = torch.where(count > 0, hits / count.clamp_min(1), hit.mean())
    return (2.0 * accuracy - 1.0).clamp(0.0, 1.0)


class SoftHardKD:
    """Distillation whose target is rho times the teacher, 1 - rho times the label.

    Where the teacher's first choice is not the label, the label alone counts; of
    trials of unknown class the teacher alone, rho times. Where trials are only
    evaluated the loss is the cross-entropy of their labels.

    Parameters
    ----------
    teacher : Module | sequence of Module | Tensor, shape (n_trials, n_classes)
        Trained networks, or a table of logits. By name, ``teachers`` copies of the
        network itself are trained first, from its start.
    rho : float | Tensor, shape (n_domains,) | None
        Share of the teacher; None: 0.5. By name, None is `teacher_share` on the
        validation trials of the run where it has some with labels.
    temperature : float
        Of the teacher's probabilities and, in that part of the loss, the student's.

    References
    ----------
    G. Ji and Z. Zhu, "Knowledge distillation in wide neural networks: risk bound,
    data efficiency and imperfect teacher", NeurIPS 2020, section 6. The rule for rho
    is ours.
    """

    per_trial = True

    def __init__(
        self,
        teacher: Teacher,
        rho: float | Tensor | None = None,
        *,
        temperature: float = 1.0,
    ) -> None:
        self.teachers = Teachers(teacher)
        self.temperature = check_number("temperature", temperature, above=0.0)
        found = torch.as_tensor(0.5 if rho is None else rho, dtype=torch.float64)
        if found.ndim > 1 or not bool(((found >= 0) & (found <= 1)).all()):
            fail(f"rho={rho}", fix="give a share from 0 to 1, or one a domain")
        self.rho = found

    @classmethod
    def for_run(
        cls,
        setup: Setup,
        teachers: int = 1,
        rho: float | None = None,
        **options: Any,
    ) -> SoftHardKD:
        """Return one that learns from copies of the network, trained first."""
        found = trained_teachers(setup, teachers)
        valid = setup.validation
        share: float | Tensor | None = rho
        known = valid is not None and valid.y is not None and bool((valid.y >= 0).any())
        if rho is None and known:
            assert valid is not None and valid.y is not None
            logits = Teachers(found).logits(valid).cpu()
            domain = valid.domain
            if domain is None or setup.data.domain is None:
                share = teacher_share(logits, valid.y.cpu())
            else:
                n = int(torch.stack([domain.max(), setup.data.domain.max()]).max()) + 1
                share = teacher_share(logits, valid.y.cpu(), domain.cpu(), n_domains=n)
        return cls(found, share, **options)

    def on_train_start(self, state: TrainState) -> None:
        """Move the teachers to where the run is."""
        self.teachers.to(state.device)
        self.rho = self.rho.to(state.device)

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Tensor, context: StepContext
    ) -> Tensor:
        """Return the loss of each trial, shape (n_trials,)."""
        y, known = known_labels(batch, "SoftHardKD")
        hard = F.cross_entropy(outputs, y, reduction="none") * known
        if not model.training:
            return hard
        logits = self.teachers.logits(batch).to(outputs.dtype)
        T = self.temperature
        soft = -((logits / T).softmax(1) * (outputs / T).log_softmax(1)).sum(1) * T**2
        rho = self._share(batch).to(outputs.dtype)
        rho = torch.where(known & (logits.argmax(1) != y), 0.0, rho)
        return rho * soft + (1.0 - rho) * hard

    def _share(self, batch: Batch) -> Tensor:
        """Return the teacher's share of each trial."""
        if self.rho.numel() == 1:
            return self.rho.reshape(1).expand(len(batch))
        if batch.domain is None:
            fail("rho is given by domain, and trials have none", fix="give one number")
        # A domain that is not in the table is trusted as the mean one.
        inside = (batch.domain >= 0) & (batch.domain < len(self.rho))
        of_domain = self.rho[batch.domain.clamp(0, len(self.rho) - 1)]
        return torch.where(inside, of_domain, self.rho.mean())
