"""MaskedTokenModel: learn what EEG is like from tokens without labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from eegtensor._check import check_option, fail
from eegtensor.features._base import check_fitted
from eegtensor.tokens import _scores
from eegtensor.tokens._codevectors import mixes
from eegtensor.tokens._drawing import draw_tokens
from eegtensor.tokens._objective import MaskedCrossEntropy, MaskedScores
from eegtensor.tokens._positions import UNITS, as_coordinates
from eegtensor.tokens._tokenmodel import TokenModel, as_list
from eegtensor.tokens._windows import as_sequences, joined
from eegtensor.tokens.masking import MASKS, MaskTokens, Teacher
from eegtensor.tokens.tokens import Tokens
from eegtensor.training import (
    Batch,
    BestWeights,
    Checkpoint,
    History,
    Progress,
    ShuffleSampler,
    Workers,
    make_optimizer,
    train,
)
from eegtensor.training.seeds import as_seed


class MaskedTokenModel(TokenModel):
    """A transformer that fills in masked tokens; trained without labels.

    Tokens of several recordings, with different channels and lengths, are cut
    into windows and trained on together. Where an electrode lies is told by its
    coordinates, so that caps never seen can follow.

    Parameters
    ----------
    width, depth, n_heads : int
        Of the transformer.
    n_frames : int
        Longest window, in frames of the tokenizer.
    mask : "random" | "block" | "channel" | "hard"
        Which tokens are masked; see `draw_mask`. "hard" goes from random ones to
        those that a slow copy of the network finds hardest (hard patches mining).
    mask_ratio : float
        Share of a window's tokens.
    epochs, batch_size : int
    lr, weight_decay : float
        Of AdamW.
    dropout : float
    validation_fraction : float
        Share of the windows that are not trained on; the weights of the epoch
        that tells their masked tokens best are kept. 0 keeps the last epoch's.
    units : "channels" | "components"
        What the tokenizer coded; components have numbers in place of places.
    precision : "float32" | "bfloat16"
        Of products in training and use.
    checkpoint : path-like | None
        File of the run's state; a run that was stopped goes on from it, to the
        same bits.
    device : str
        "auto" is the GPU where there is one.
    random_state : int | None
    verbose : bool
        Whether to show a bar of epochs.

    Attributes
    ----------
    network_ : MaskedTokenNetwork
    alphabet_ : ndarray of int, shape (n_slots,)
    made_by_ : str | None
        `name_` of the tokenizer, see `Tokens`; tokens of others are refused.
    history_ : History
    scores_ : MaskedScores | None
        Of the validation windows, with the weights that were kept.

    Notes
    -----
    In a script that `torchrun` started, after ``init_process_group``, all processes
    train one model together, each on its part of every batch.

    References
    ----------
    Jiang, Zhao and Lu, "Large brain model for learning generic representations
    with tremendous EEG data in BCI", ICLR, 2024; Wang et al., "Hard patches
    mining for masked image modeling", CVPR, 2023.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 3,
        n_heads: int = 4,
        n_frames: int = 8,
        mask: str = "random",
        mask_ratio: float = 0.5,
        epochs: int = 30,
        batch_size: int = 16,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        dropout: float = 0.1,
        validation_fraction: float = 0.1,
        units: str = "channels",
        precision: str = "float32",
        checkpoint: str | os.PathLike[str] | None = None,
        device: str = "auto",
        random_state: int | None = 0,
        verbose: bool = False,
    ) -> None:
        self.width = width
        self.depth = depth
        self.n_heads = n_heads
        self.n_frames = n_frames
        self.mask = mask
        self.mask_ratio = mask_ratio
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.validation_fraction = validation_fraction
        self.units = units
        self.precision = precision
        self.checkpoint = checkpoint
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        tokens: Tokens | Sequence[Tokens],
        y: object = None,
        *,
        tokenizer: Any = None,
        coordinates: Mapping[str, ArrayLike] | None = None,
    ) -> Self:
        """Train on tokens of one tokenizer.

        Parameters
        ----------
        tokens : Tokens or list of Tokens
        y : object
            Not used.
        tokenizer : EEGTokenizer | None
            That gave the tokens: codes enter as what they stand for. Without it,
            or where it does not say, which codes are alike has to be learned, and
            minutes of tokens tell little.
        coordinates : mapping of str to array, shape (3,) | None
            Places of channels in metres of MNE's head frame, where their names
            are not of the 10-05 system. They are remembered.

        Raises
        ------
        EEGTensorError
            If tokens are of different tokenizers, or there are too few windows.
        """
        check_option("mask", self.mask, MASKS)
        check_option("units", self.units, UNITS)
        if self.units == "channels" and mixes(tokenizer):
            fail(
                "units='channels', but the tokenizer codes components",
                why="They have no place on the head",
                fix="give MaskedTokenModel(units='components')",
            )
        if self.n_frames < 1:
            fail(f"n_frames={self.n_frames!r}", fix="give at least one")
        many = as_list(tokens)
        self._know(many, tokenizer)
        self.coordinates_ = as_coordinates(coordinates)
        x = joined([as_sequences(self.windows(item)) for item in many])
        seed = as_seed(self.random_state)
        held = _held_out(len(x["ids"]), self.validation_fraction, seed)
        own = {k: v[~held] for k, v in x.items()}
        self._begin(own, tokenizer, seed)
        self._train(own, {k: v[held] for k, v in x.items()}, seed)
        return self

    def _train(
        self, own: dict[str, Tensor], held: dict[str, Tensor], seed: int
    ) -> None:
        callbacks: list[Any] = []
        hard = self.mask == "hard"
        teacher = Teacher(self.network_) if hard else None
        if teacher is not None:
            callbacks.append(teacher)
        validation = None
        if len(held["ids"]):
            kind = "random" if hard else self.mask
            valid = _scores.masked_batch(held, kind, self.mask_ratio, seed)

            def validation(model: Any) -> dict[str, float]:
                scores = _scores.evaluate(model, valid, self.shares_)
                return {
                    "valid_loss": scores.cross_entropy,
                    "valid_accuracy": scores.accuracy,
                }

            callbacks.append(BestWeights())
        if self.verbose:
            callbacks.append(Progress(type(self).__name__))
        self.history_: History = train(
            self.network_,
            Batch(own),
            objective=MaskedCrossEntropy(ranking=1.0 if hard else 0.0),
            optimizer=make_optimizer(
                self.network_, "adamw", lr=self.lr, weight_decay=self.weight_decay
            ),
            sampler=ShuffleSampler(
                len(own["ids"]), batch_size=self.batch_size, random_state=seed
            ),
            epochs=self.epochs,
            validation=validation,
            callbacks=callbacks,
            perturbation=MaskTokens(
                self.mask, self.mask_ratio, self.epochs, teacher=teacher
            ),
            workers=Workers.running(),
            checkpoint=None if self.checkpoint is None else Checkpoint(self.checkpoint),
            random_state=seed,
        )
        self.scores_: MaskedScores | None = None
        if validation is not None:
            self.scores_ = _scores.evaluate(self.network_, valid, self.shares_)

    def sample(
        self,
        tokens: Tokens,
        mask: ArrayLike | None = None,
        *,
        n_future: int = 0,
        temperature: float = 1.0,
        n_steps: int = 4,
        random_state: int = 0,
    ) -> Tokens:
        """Return tokens of which some are drawn anew, or that go on.

        Parameters
        ----------
        tokens : Tokens
        mask : array of bool, shape ([n_trials,] n_units, n_frames) | None
            Which tokens to draw; the others are kept and read.
        n_future : int
            Frames to draw after the last one, each from the frames before it.
        temperature : float
            Below one the likely codes become likelier.
        n_steps : int
            Into how many parts the masked tokens of a window are drawn: later
            ones read those drawn before.
        random_state : int

        Returns
        -------
        tokens : Tokens
            To be decoded by their tokenizer.

        Notes
        -----
        Slots of a token are drawn each by itself. Where half of a window is known,
        powers of bands are within about 1 dB of those of true tokens, decoded; where
        nothing is, within 3 dB (a network trained on minutes of one person).
        """
        check_fitted(self, "network_")
        return draw_tokens(
            self.network_,
            tokens,
            self._places(tokens),
            mask,
            n_future=n_future,
            n_frames=self.n_frames,
            temperature=temperature,
            n_steps=n_steps,
            random_state=random_state,
        )


def _held_out(n: int, fraction: float, seed: int) -> Tensor:
    """Return which windows are not trained on."""
    if not 0 <= fraction < 1:
        fail(f"validation_fraction={fraction!r}", fix="give a share from 0 to 1")
    held = torch.zeros(n, dtype=torch.bool)
    count = round(n * fraction)
    if fraction and (count < 1 or count >= n):
        fail(
            f"{n} windows, of which {count} would be for validation",
            fix="give more tokens or smaller n_frames, or validation_fraction=0",
        )
    drawn = np.random.default_rng([seed, 1]).permutation(n)[:count]
    held[torch.from_numpy(drawn)] = True
    return held
