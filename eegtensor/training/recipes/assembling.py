"""Deep networks whose stages were trained alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from eegtensor._check import fail
from eegtensor.training.batch import Batch
from eegtensor.training.recipes.stagekd import StageKD
from eegtensor.training.recipes.stages import Fitted, Stages, fitted, hybrid
from eegtensor.training.refit import refit_statistics

Train = Callable[[nn.Module, Any], object]


def assemble(
    meta: Sequence[nn.Module],
    targets: Sequence[nn.Module],
    data: Batch,
    train_stage: Train,
    *,
    teachers: Sequence[nn.Module] | None = None,
    alpha: float = 0.5,
    temperature: float = 1.0,
    random_state: int = 0,
) -> Stages:
    """Return a deep network, each of whose stages was trained alone.

    Stage i is trained in the chain `hybrid(meta, i, targets[i])`, so one deep stage
    is in memory at a time, and stages may be trained at different sites. With
    `teachers`, hybrids of the teacher's stages teach those of the targets. Where a
    module's features have another width than the next stage takes, linear layers
    are put around it and trained with it. Train the result a few epochs more.

    Parameters
    ----------
    meta : sequence of Module
        Stages of a shallow network, trained end to end; the last one is the head.
    targets : sequence of Module
        One a stage, such as several layers in the place of one. Trained in place.
    data : Batch
    train_stage : callable
        ``train_stage(model, objective)`` trains a chain; `objective` is None without
        teachers, then take the cross-entropy.
    teachers : sequence of Module | None
        One a stage, of a trained network.
        They are used as they are, and are the same afterwards.
    alpha, temperature : float
        See `StageKD`.
    random_state : int
        Of the linear layers.

    References
    ----------
    Z. Ni et al., "Deep model assembling", arXiv 2212.04129; K. M. Lo et al., "m2mKD:
    module-to-module knowledge distillation for modular transformers", arXiv
    2402.16918.
    """
    for name, stages in (("targets", targets), ("teachers", teachers)):
        if stages is not None and len(stages) != len(meta):
            fail(
                f"{len(stages)} {name} for {len(meta)} stages",
                fix="give one a stage; the meta stage itself where nothing changes",
            )
    done = []
    for place, target in enumerate(targets):
        seed = [random_state, place]
        own = fitted(meta, place, target, data, random_state=[*seed, 0])
        chain = hybrid(meta, place, own)
        objective = None
        if teachers is not None:
            teacher = copy.deepcopy(teachers[place])
            teacher = fitted(meta, place, teacher, data, random_state=[*seed, 1])
            taught = hybrid(meta, place, teacher)
            if isinstance(teacher, Fitted):
                # Its linear layers are new: they learn before it teaches.
                teacher.module.requires_grad_(False)
                train_stage(taught, None)
            refit_statistics(taught, data)
            objective = StageKD(taught.requires_grad_(False), alpha, temperature)
        train_stage(chain, objective)
        done.append(chain.stages[place])
    whole = Stages([stage.requires_grad_(True) for stage in done])
    refit_statistics(whole, data)
    return whole
