"""Curves over budgets, and tables from decoder to decoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.trust.attacks import (
    FGSM,
    PGD,
    momentum_fgsm,
    robustness_curve,
    transfer_report,
    variance_reduced,
)


def test_a_curve_falls_and_says_each_size(decoders):
    X, y = decoders.test
    pipeline = decoders.get("tangent-space", "riemann")
    table = robustness_curve(
        pipeline, X, y, eps=(0.02, 0.2), attack=PGD(n_steps=5), **decoders.new
    )
    assert list(table.columns) == ["eps", "accuracy", "linf", "l2", "snr_db"]
    assert table.accuracy[0] == (pipeline.predict(X, **decoders.new) == y).mean()
    assert table.accuracy.is_monotonic_decreasing
    np.testing.assert_allclose(table.linf, table.eps, rtol=1e-6)
    assert table.snr_db.is_monotonic_decreasing


def test_a_report_holds_the_accuracy_of_every_target_under_every_source(decoders):
    X, y = decoders.test
    known = {
        "mdm": decoders.get("mdm", "riemann"),
        "lr": decoders.get("tangent-space", "riemann"),
        "csp": decoders.get("fbcsp-dss-lda"),
    }
    attack = FGSM(0.1)
    table = transfer_report(
        known, X, y, attack=attack, sources=["mdm", "lr"], **decoders.new
    )
    assert list(table.index) == ["none", "mdm", "lr"]
    assert list(table.columns) == ["mdm", "lr", "csp", "linf", "l2", "snr_db"]
    for source in ("mdm", "lr"):
        moved = attack.perturb(known[source], X, y, **decoders.new)
        for target, decoder in known.items():
            wanted = (decoder.predict(moved.X, **decoders.new) == y).mean()
            assert table.loc[source, target] == wanted
        assert table.loc[source, "l2"] == moved.budget.l2.mean()
    # The diagonal is the white box.
    assert table.loc["lr", "lr"] < table.loc["none", "lr"]
    with pytest.raises(EEGTensorError, match="'svm'"):
        transfer_report(known, X, y, sources=["svm"], **decoders.new)


def test_averaged_gradients_carry_over_no_worse_than_plain_ones(power_pair):
    # 003-50 on TOY-SPD. At the sigma .05 of the specification the two are alike,
    # its 15 / 255 of a picture's range is some .2 of a standard deviation.
    first, second, x, y = power_pair
    wins = {0.0: 0, 0.05: 0, 0.2: 0}
    for eps in (0.02, 0.05, 0.1):
        for source, target in ((first, second), (second, first)):
            for sigma in wins:
                moved = (
                    variance_reduced(
                        source,
                        x,
                        y,
                        eps=eps,
                        sigma=sigma,
                        generator=torch.Generator().manual_seed(0),
                    )
                    if sigma
                    else momentum_fgsm(source, x, y, eps=eps, decay=0.0)
                )
                wins[sigma] += int((target(moved).argmax(1) != y).sum())
    assert wins[0.2] >= wins[0.0]
    assert wins[0.05] >= wins[0.0] - 3
