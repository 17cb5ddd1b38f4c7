"""A network that makes the weights of a small network for each person or task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from eegtensor._check import check_count, fail
from eegtensor.training.batch import Batch


class HyperNetwork(nn.Module):
    """Weights of a target network, layer by layer, from an embedding of a task.

    A recurrent cell goes over the target's weights in their order, so that each
    depends on those before it; its state is decoded in pieces of `n_piece` numbers by
    one linear map. Only embeddings are of a task, so many tasks cost little.

    Parameters
    ----------
    target : torch.nn.Module
        Small, with Euclidean parameters; used as a template and not trained.
    n_tasks : int
    n_embedding, n_hidden, n_piece : int
    random_state : int

    Attributes
    ----------
    embeddings : Parameter, shape (n_tasks, n_embedding)

    References
    ----------
    "Dependency-preserving hypernetworks for continual learning" (source list 004,
    entry 59; from its abstract); J. von Oswald et al., "Continual learning with
    hypernetworks", ICLR 2020, eq. 2 (the penalty).
    """

    def __init__(
        self,
        target: nn.Module,
        n_tasks: int,
        n_embedding: int = 8,
        n_hidden: int = 32,
        n_piece: int = 64,
        random_state: int = 0,
    ) -> None:
        super().__init__()
        check_count("n_tasks", n_tasks)
        self.shapes = {n: tuple(p.shape) for n, p in target.named_parameters()}
        if not self.shapes:
            fail("The target has no parameters", fix="give a layer with weights")
        counts = {name: p.numel() for name, p in target.named_parameters()}
        # In a list: its parameters are a template, and not to be trained or saved.
        self._target = [target]
        pieces = [(n, k) for n, c in counts.items() for k in range(-(-c // n_piece))]
        self.pieces, self.n_piece = pieces, n_piece
        with torch.random.fork_rng([]):
            torch.manual_seed(random_state)
            self.embeddings = nn.Parameter(torch.randn(n_tasks, n_embedding))
            self.places = nn.Parameter(0.1 * torch.randn(len(pieces), n_hidden))
            self.start = nn.Linear(n_embedding, n_hidden)
            self.cell = nn.GRUCell(n_hidden, n_hidden)
            self.decode = nn.Linear(n_hidden, n_piece)
        # As large as weights are when layers are made.
        scales = [max(float(p.std(correction=0)), 1e-2) for p in target.parameters()]
        self.scales = dict(zip(self.shapes, scales, strict=True))

    def weights(self, task: int, embedding: Tensor | None = None) -> dict[str, Tensor]:
        """Return the target's weights for a task by name, with their graph."""
        e = self.embeddings[task] if embedding is None else embedding
        state = torch.tanh(self.start(e))[None]
        rows = []
        for place in self.places:
            state = self.cell(place[None], state)
            rows.append(self.decode(state)[0])
        made: dict[str, list[Tensor]] = {}
        for (name, _), row in zip(self.pieces, rows, strict=True):
            made.setdefault(name, []).append(row)
        found = {}
        for name, parts in made.items():
            shape = self.shapes[name]
            flat = torch.cat(parts)[: max(torch.Size(shape).numel(), 1)]
            found[name] = self.scales[name] * flat.view(shape)
        return found

    def forward(self, x: Any, domain: Tensor) -> Tensor:
        """Return the target's outputs, trial by trial with its domain's weights.

        Parameters
        ----------
        x : Tensor, shape (n_trials, ...)
        domain : Tensor of int64, shape (n_trials,)
            Tasks.
        """
        outputs: Tensor | None = None
        for task in domain.unique().tolist():
            rows = (domain == task).nonzero()[:, 0]
            y = functional_call(self._target[0], self.weights(task), (x[rows],))
            if outputs is None:
                outputs = y.new_zeros(len(x), *y.shape[1:])
            outputs = outputs.index_copy(0, rows, y)
        assert outputs is not None
        return outputs


class OutputDrift:
    """Penalty on changes of the weights that a hypernetwork makes for old tasks.

    mean over old tasks s of ``|h(e_s; Theta) - h(e_s; Theta*)|^2``, Theta* being the
    hypernetwork when the penalty was made: no trial of old tasks is asked for.

    Parameters
    ----------
    hypernetwork : HyperNetwork
    tasks : sequence of int
        Old ones. Their embeddings are remembered, too, and may not drift.
    """

    per_trial = False
    training_only = True

    def __init__(self, hypernetwork: HyperNetwork, tasks: Sequence[int]) -> None:
        if not len(tasks):
            fail("There are no old tasks", fix="leave the penalty out of the first one")
        with torch.no_grad():
            self.before: Mapping[int, dict[str, Tensor]] = {
                int(s): hypernetwork.weights(int(s)) for s in tasks
            }

    def __call__(
        self, model: nn.Module, batch: Batch, outputs: Any, context: Any
    ) -> Tensor:
        """Return the penalty, a scalar."""
        assert isinstance(model, HyperNetwork)
        terms = [
            (made - kept[name]).square().sum()
            for task, kept in self.before.items()
            for name, made in model.weights(task).items()
        ]
        return torch.stack(terms).sum() / len(self.before)
