"""TLEG: blocks of any number from two that are learned."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from eegtensor._check import check_count, fail
from eegtensor.training.adapters import is_manifold_parameter


class LinearBlocks(nn.Module):
    """As many equal blocks as asked for, all from two: ``A + (l - 1) / L B``.

    Block l of L has the weights theta_l = theta_A + (l - 1) / L theta_B. What is
    learned, or stored, are A and B, whatever the depth. It stands in the place of a
    `ModuleList`: it has a length and yields blocks to be called.

    Parameters
    ----------
    blocks : ModuleList
        Of equal kind and size; A and B start at the least squares of their weights.
        They stay as they are.
    depth : int | None
        L; as many as there are.

    Raises
    ------
    EEGTensorError
        If blocks are not alike, have running statistics, or weights on manifolds: A + B
        would not be on them.

    References
    ----------
    S. Xia et al., "Transformer as linear expansion of learngene", AAAI 2024, eq. 1.
    """

    def __init__(self, blocks: nn.ModuleList, depth: int | None = None) -> None:
        super().__init__()
        named = _alike(blocks)
        self.depth = len(blocks) if depth is None else check_count("depth", depth)
        n = len(blocks)
        design = torch.ones(n, 2, dtype=torch.float64)
        design[:, 1] = torch.arange(n) / n
        # One block says nothing of B: its least squares is the shortest, 0.
        solve = torch.linalg.pinv(design[:, : 1 if n == 1 else 2])
        self.a, self.b = nn.ParameterDict(), nn.ParameterDict()
        for name, weights in named.items():
            stack = torch.stack(weights).detach()
            found = torch.tensordot(solve, stack.double().cpu(), dims=1).to(stack)
            key = name.replace(".", ":")
            self.a[key] = nn.Parameter(found[0])
            second = torch.zeros_like(found[0]) if n == 1 else found[1]
            self.b[key] = nn.Parameter(second)
        # Not a module of this one: its own weights are never used.
        self._template = (copy.deepcopy(blocks[0]),)

    def weights(self, place: int) -> dict[str, Tensor]:
        """Return the weights of a block, counted from 0, with their graph."""
        share = place / self.depth
        return {
            key.replace(":", "."): a + share * self.b[key] for key, a in self.a.items()
        }

    def __len__(self) -> int:
        return self.depth

    def __iter__(self) -> Iterator[Any]:
        return (self[k] for k in range(self.depth))

    def __getitem__(self, place: int) -> Any:
        if not 0 <= place < self.depth:
            raise IndexError(place)
        return _Block(self, place)

    def call(self, place: int, *args: Any, **kwargs: Any) -> Any:
        """Return what a block makes of its inputs."""
        return functional_call(self._template[0], self.weights(place), args, kwargs)

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what all blocks make of x, one after the other."""
        for place in range(self.depth):
            x = self.call(place, x, *args, **kwargs)
        return x

    def train(self, mode: bool = True) -> Self:
        """Set the mode, of the blocks too."""
        super().train(mode)
        self._template[0].train(mode)
        return self

    @torch.no_grad()
    def expanded(self, depth: int | None = None) -> nn.ModuleList:
        """Return so many blocks of their own, to be fine-tuned.

        Parameters
        ----------
        depth : int | None
        """
        other = copy.copy(self)
        other.__dict__["depth"] = self.depth if depth is None else depth
        check_count("depth", other.depth)
        blocks = []
        for place in range(other.depth):
            block = copy.deepcopy(self._template[0])
            block.load_state_dict(other.weights(place))
            first = next(iter(self.a.values()))
            blocks.append(block.to(first.device))
        return nn.ModuleList(blocks)


class _Block:
    """One block of `LinearBlocks`, to be called."""

    def __init__(self, blocks: LinearBlocks, place: int) -> None:
        self.blocks, self.place = blocks, place

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.blocks.call(self.place, *args, **kwargs)


def _alike(blocks: nn.ModuleList) -> dict[str, list[Tensor]]:
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        fail(
            f"The blocks are a {type(blocks).__name__}",
            fix="give a ModuleList of at least one block",
        )
    named = [dict(block.named_parameters()) for block in blocks]
    for other, block in zip(named, blocks, strict=True):
        same = {n: p.shape for n, p in other.items()} == {
            n: p.shape for n, p in named[0].items()
        }
        if not same or type(block) is not type(blocks[0]):
            fail("The blocks are not alike", fix="give equal ones")
        if any(is_manifold_parameter(p) for p in other.values()):
            fail(
                "The blocks have weights on a manifold",
                why="A sum of two points is not on it",
                fix="leave these blocks as they are",
            )
        if any(True for _ in block.buffers()):
            fail(
                "The blocks have running statistics",
                why="Blocks of other depths have seen no trials",
                fix="use blocks with layer norms",
            )
    return {name: [part[name] for part in named] for name in named[0]}


def tie_blocks(model: nn.Module, name: str, depth: int | None = None) -> nn.Module:
    """Return a copy whose blocks are all made from two (an auxiliary network).

    Train it, with the model as a teacher where there is one, then `expand_blocks`.

    Parameters
    ----------
    model : Module
    name : str
        Of its `ModuleList` of blocks.
    depth : int | None
    """
    made = copy.deepcopy(model)
    blocks = made.get_submodule(name)
    assert isinstance(blocks, nn.Module)
    tied = LinearBlocks(blocks, depth)  # type: ignore[arg-type]
    tied.train(model.training)
    return _put(made, name, tied)


def expand_blocks(model: nn.Module, name: str, depth: int) -> nn.Module:
    """Return a copy with so many blocks of their own, from a network of `tie_blocks`.

    Parameters
    ----------
    model : Module
    name : str
    depth : int
    """
    blocks = model.get_submodule(name)
    if not isinstance(blocks, LinearBlocks):
        fail(f"{name!r} is a {type(blocks).__name__}", fix="tie its blocks first")
    expanded = blocks.expanded(depth).train(model.training)
    return _put(copy.deepcopy(model), name, expanded)


def _put(model: nn.Module, name: str, part: nn.Module) -> nn.Module:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, part)
    return model
