"""The network as a module of signals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokens._given import Given

from eegtensor._check import EEGTensorError
from eegtensor.tokens.module import TokenNet


def test_a_module_takes_signals(given: Given, tmp_path: Path) -> None:
    info = given.trials.info
    x = torch.from_numpy(np.asarray(given.trials.X[:6]))
    options: dict[str, Any] = {
        "n_outputs": 2,
        "n_times": x.shape[2],
        "sfreq": info["sfreq"],
        "chs_info": info["chs"],
        "tokenizer": given.tokenizer,
    }
    net = TokenNet(**options, model=given.model).eval()
    logits = net(x)
    assert logits.shape == (6, 2)
    torch.testing.assert_close(net(1e6 * x), logits)
    # Each trial by itself, whatever else is in the batch.
    torch.testing.assert_close(net(x[2:3]), logits[2:3], rtol=1e-4, atol=1e-5)
    logits.sum().backward()
    assert net.network.encoder.place.weight.grad is not None
    given.tokenizer.save(tmp_path / "t")
    blank = TokenNet(**options | {"tokenizer": tmp_path / "t"}, pool="mean").eval()
    assert blank(x).shape == (6, 2)
    assert blank.network.norm.n_features == 64
    again = TokenNet(**options, model=given.model).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x), logits)
    with pytest.raises(EEGTensorError, match="give all three"):
        TokenNet(n_outputs=2, tokenizer=given.tokenizer)
    with pytest.raises(EEGTensorError, match="x has shape"):
        net(x[:, :3])
