from __future__ import annotations

import csv
import math

import pytest
import torch

from eegtensor import EEGTensorError
from eegtensor.training import (
    METHODS,
    BestWeights,
    CrossEntropy,
    CSVLog,
    EarlyStopping,
    History,
    MomentumSchedule,
    Progress,
    ShuffleSampler,
    make_optimizer,
    momentum_schedule,
    train,
)


@pytest.fixture
def fit(toy, trials):
    """Return a function that trains with scripted validation losses."""
    data = trials(40)

    def run(losses, *callbacks, epochs=None):
        net, kept = toy(), []
        values = iter(losses)

        def validation(model):
            state = model.state_dict()
            kept.append({name: v.detach().clone() for name, v in state.items()})
            return {"valid_loss": next(values)}

        history = train(
            net,
            data,
            objective=CrossEntropy(),
            optimizer=make_optimizer(net, lr=0.05),
            sampler=ShuffleSampler(40),
            epochs=len(losses) if epochs is None else epochs,
            validation=validation,
            callbacks=callbacks,
        )
        return net, kept, history

    return run


def test_best_weights_come_back_bit_for_bit(fit, equal):
    best = BestWeights()
    net, kept, history = fit([3.0, 1.0, 2.0, 1.0, 5.0], best)
    assert (best.best, best.best_epoch, len(history)) == (1.0, 2, 5)
    assert equal(net.state_dict(), kept[1])
    assert int(net.norm.seen) == 2, "running statistics too"
    assert not equal(kept[1], kept[4])


def test_an_earlier_run_is_forgotten(fit, equal):
    best = BestWeights()
    fit([0.5, 1.0], best)
    net, kept, _ = fit([3.0, 2.0, 4.0], best)
    assert (best.best, best.best_epoch) == (2.0, 2)
    assert equal(net.state_dict(), kept[1])


def test_early_stopping(fit, equal):
    stop = EarlyStopping(patience=2)
    net, kept, history = fit([3.0, 1.0, 2.0, 1.5, 0.0], stop)
    assert len(history) == 4 and stop.best_epoch == 2
    assert equal(net.state_dict(), kept[1])


def test_largest_is_best_and_nan_never(fit, equal):
    nan = math.nan
    net, kept, _ = fit([nan, 1.0, nan, 4.0, 2.0], BestWeights(mode="max"))
    assert equal(net.state_dict(), kept[3])
    net, kept, history = fit([nan] * 5, EarlyStopping(patience=3))
    assert len(history) == 3 and equal(net.state_dict(), kept[2])


def test_a_monitor_that_is_not_measured(fit):
    with pytest.raises(
        EEGTensorError, match=r"No epoch measured 'kappa'; measured are"
    ):
        fit([1.0], BestWeights("kappa"))
    with pytest.raises(EEGTensorError, match="mode='least'"):
        BestWeights(mode="least")
    with pytest.raises(EEGTensorError, match="patience=0"):
        EarlyStopping(patience=0)


def test_momenta_follow_the_schedule(fit):
    seen = []

    class Look:
        def on_step_end(self, state):
            seen.append((state.model.norm.eta, state.model.norm.eta_test))

    fit([0.0] * 5, MomentumSchedule(tau0=0.5), Look())
    assert seen == [momentum_schedule(k, 5, tau0=0.5) for k in range(1, 6)]
    with pytest.raises(EEGTensorError, match="compat"):
        MomentumSchedule(compat="tsmnet")


def test_log_and_progress(fit, tmp_path, capsys):
    path = tmp_path / "log.csv"
    _, _, history = fit([2.0, 1.0], CSVLog(path), Progress("toy"))
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["valid_loss"]) for r in rows] == [2.0, 1.0]
    assert [float(r["train_loss"]) for r in rows] == history.column("train_loss")
    assert list(tmp_path.iterdir()) == [path]
    shown = capsys.readouterr().err
    assert "toy: 100%" in shown and "valid_loss=1" in shown


def test_history_is_a_sequence_of_rows():
    history = History([{"epoch": 1, "a": 2.0}, {"epoch": 2, "b": 3.0}])
    assert len(history) == 2 and history[-1]["b"] == 3.0
    assert [row["epoch"] for row in history] == [1, 2]
    assert history.column("a")[0] == 2.0 and math.isnan(history.column("a")[1])
    assert "2 epochs: epoch, a, b" in repr(history)


def test_every_optimizer_of_the_table_can_be_made():
    optimizers = [name for name, m in METHODS.items() if m.kind == "optimizer"]
    for name in optimizers:
        make_optimizer(torch.nn.Linear(1, 1), name)
