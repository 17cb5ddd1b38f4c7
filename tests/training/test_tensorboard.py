"""Logs for TensorBoard, read back by TensorBoard's own reader."""

from __future__ import annotations

import pytest
import torch

from eegtensor.training import (
    Batch,
    Checkpoint,
    CrossEntropy,
    ShuffleSampler,
    TensorBoardLog,
    make_optimizer,
    train,
)

accumulators = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="tensorboard is not installed, and no extra of the package brings it",
)


class Kill:
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, state):
        if state.epoch == self.epoch:
            raise KeyboardInterrupt


def run(epochs, *callbacks, checkpoint=None):
    g = torch.Generator().manual_seed(0)
    net = torch.nn.Linear(4, 2)
    with torch.no_grad():
        net.weight.copy_(torch.randn(2, 4, generator=g))
        net.bias.zero_()
    y = torch.randint(2, (24,), generator=g)
    data = Batch(torch.randn(24, 4, generator=g), y)
    return train(
        net,
        data,
        objective=CrossEntropy(),
        optimizer=make_optimizer(net, "sgd", lr=0.1, weight_decay=0.0),
        sampler=ShuffleSampler(len(data), batch_size=8),
        epochs=epochs,
        validation=data,
        callbacks=callbacks,
        checkpoint=checkpoint,
    )


def read(folder):
    found = accumulators.EventAccumulator(str(folder))
    found.Reload()
    return {
        name: [(e.step, e.value) for e in found.Scalars(name)]
        for name in found.Tags()["scalars"]
    }


def check(folder, history):
    found = read(folder)
    assert set(found) == {"train_loss", "valid_loss", "seconds"}
    for name, rows in found.items():
        assert [step for step, _ in rows] == history.column("epoch")
        assert [v for _, v in rows] == pytest.approx(history.column(name), rel=1e-6)


def test_scalars_are_those_of_the_history(tmp_path):
    check(tmp_path, run(3, TensorBoardLog(tmp_path)))


@pytest.mark.parametrize("same", [True, False])
def test_a_run_that_goes_on_writes_on(tmp_path, same):
    logs, checkpoint = tmp_path / "logs", Checkpoint(tmp_path / "run.safetensors")
    log = TensorBoardLog(logs)
    with pytest.raises(KeyboardInterrupt):
        # Killed after the log of epoch 3 and before its checkpoint.
        run(4, log, Kill(3), checkpoint=checkpoint)
    assert [step for step, _ in read(logs)["train_loss"]] == [1, 2, 3]
    log = log if same else TensorBoardLog(logs)
    check(logs, run(4, log, checkpoint=checkpoint))
