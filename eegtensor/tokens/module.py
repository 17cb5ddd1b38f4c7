"""A token classifier as a torch module that takes signals, as braindecode's do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from eegtensor._check import fail
from eegtensor.features._base import check_fitted
from eegtensor.models.tokenclassifier import TokenClassifierNetwork
from eegtensor.tokens._codevectors import mixes
from eegtensor.tokens.pretrain import MaskedTokenModel
from eegtensor.tokens.tokenizer import EEGTokenizer


class TokenNet(nn.Module):
    """Signals to tokens to logits, with the arguments of braindecode's models.

    The tokens are made on the CPU and have no gradient; what is trained is the
    network that reads them. Each trial is scaled by itself, channel by channel:
    the result of a trial does not depend on others of its batch.

    Parameters
    ----------
    n_chans, n_outputs, n_times : int | None
        `n_chans` may come of `chs_info`.
    sfreq : float | None
        Hertz; None for the tokenizer's.
    chs_info : sequence of dict | None
        Of ``info["chs"]``: names of channels tell where they are.
    tokenizer : EEGTokenizer or path
        Fitted.
    model : MaskedTokenModel, path or None
        Whose network is trained further; None starts from random weights, of the
        default size.
    pool : "units" | "mean"
        See `TokenClassifier`.
    random_state : int | None

    Attributes
    ----------
    network : TokenClassifierNetwork
    """

    def __init__(
        self,
        n_chans: int | None = None,
        n_outputs: int | None = None,
        n_times: int | None = None,
        *,
        sfreq: float | None = None,
        chs_info: Sequence[dict[str, Any]] | None = None,
        tokenizer: EEGTokenizer | str | os.PathLike[str],
        model: MaskedTokenModel | str | os.PathLike[str] | None = None,
        pool: str = "units",
        random_state: int | None = 0,
    ) -> None:
        super().__init__()
        if chs_info is not None:
            n_chans = len(chs_info) if n_chans is None else n_chans
        if n_chans is None or n_outputs is None or n_times is None:
            fail(
                f"n_chans={n_chans}, n_outputs={n_outputs}, n_times={n_times}",
                fix="give all three; chs_info can stand for n_chans",
            )
        if chs_info is not None and len(chs_info) != n_chans:
            fail(f"{len(chs_info)} entries of chs_info for {n_chans} channels")
        names = () if chs_info is None else tuple(ch["ch_name"] for ch in chs_info)
        loaded = tokenizer
        if isinstance(loaded, (str, os.PathLike)):
            loaded = EEGTokenizer.load(loaded)
        if isinstance(model, (str, os.PathLike)):
            model = MaskedTokenModel.load(model, device="cpu")
        check_fitted(loaded, "codec_")
        if model is not None:
            check_fitted(model, "network_")
        self.n_chans, self.n_outputs, self.n_times = n_chans, n_outputs, n_times
        self.sfreq = loaded.sfreq_ if sfreq is None else float(sfreq)
        self.chs_info = chs_info
        self.tokenizer, self._names = loaded, names
        if model is None:
            blank = self._tokens(np.zeros((1, n_chans, n_times)))
            model = MaskedTokenModel(
                units="components" if mixes(loaded) else "channels"
            ).start(blank, tokenizer=loaded, random_state=random_state)
        self._model = model
        encoder = model.network(random_state=random_state)
        encoder.load_state_dict(model.network_.state_dict())
        self.network = TokenClassifierNetwork(
            encoder, n_outputs, n_chans, pool=pool, random_state=random_state
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits.

        Parameters
        ----------
        x : Tensor, shape (batch, n_chans, n_times), volts

        Returns
        -------
        logits : Tensor, shape (batch, n_outputs)
        """
        if x.shape[1:] != (self.n_chans, self.n_times):
            fail(
                f"x has shape {tuple(x.shape)}",
                fix=f"give (batch, {self.n_chans}, {self.n_times})",
            )
        signals = x.detach().cpu().double().numpy()
        windows = self._model.windows(self._tokens(signals))
        device = self.network.head.weight.device
        logits: Tensor = self.network({k: v.to(device) for k, v in windows.items()})
        return logits

    def _tokens(self, X: Any) -> Any:
        spread = X.std(axis=2, keepdims=True)
        centred = X - X.mean(axis=2, keepdims=True)
        scaled = centred / np.where(spread > 0, spread, 1.0)
        return self.tokenizer.encode(
            scaled, scale=1.0, sfreq=self.sfreq, ch_names=self._names or None
        )
