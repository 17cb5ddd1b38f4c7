"""A run killed at any step and taken up again gives the bits of one that was not."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load, save, save_file

from eegtensor import EEGTensorError
from eegtensor.training import (
    Checkpoint,
    CrossEntropy,
    DomainBalancedSampler,
    EarlyStopping,
    MomentumSchedule,
    ShuffleSampler,
    make_optimizer,
    train,
)
from eegtensor.training.packing import pack, unpack


class Kill(Exception):
    pass


class KillAt:
    def __init__(self, step):
        self.step = step

    def on_step_end(self, state):
        if state.step == self.step:
            raise Kill


@pytest.fixture
def run(toy, trials, device):
    """Return a function that trains the small network and returns all it leaves."""
    data = trials(device=device)
    valid = trials(60, seed=1, device=device)

    def start(
        path=None,
        *,
        kill=None,
        epochs=6,
        patience=2,
        name="riemannian-adam",
        toy=toy,
        **changes,
    ):
        net = toy().to(device)
        stop = EarlyStopping(patience=patience)
        callbacks = [MomentumSchedule(), stop]
        options = {
            "objective": CrossEntropy(),
            "optimizer": make_optimizer(net, name, lr=0.05),
            "sampler": DomainBalancedSampler(
                data.domain.cpu(), data.y.cpu(), batch_size=20
            ),
            "validation": valid,
            "callbacks": callbacks if kill is None else [*callbacks, KillAt(kill)],
            "checkpoint": None if path is None else Checkpoint(path),
            "epochs": epochs,
        }
        options |= changes
        history = train(net, data, **options)
        rows = [{k: v for k, v in r.items() if k != "seconds"} for r in history]
        return (
            net.state_dict(),
            options["optimizer"].state_dict(),
            rows,
            stop.best_epoch,
        )

    return start


def assert_same(a, b):
    assert pack(a)[0] == pack(b)[0]
    for x, y in zip(pack(a)[1].values(), pack(b)[1].values(), strict=True):
        assert torch.equal(x, y)


# Eight steps an epoch: killed within the first, second, fourth and sixth epoch.
@pytest.mark.parametrize("kill", [3, 12, 32, 47])
@pytest.mark.parametrize("patience", [1, 9])
def test_resume_is_exact(run, tmp_path, kill, patience):
    path = tmp_path / "deep" / "run.ckpt"
    whole = run(patience=patience)
    try:
        run(path, kill=kill, patience=patience)
    except Kill:
        assert path.exists() == (kill > 8)
    assert_same(run(path, patience=patience), whole)
    # And a third time, when the run is over.
    assert_same(run(path, patience=patience), whole)
    assert [p.name for p in path.parent.iterdir()] == ["run.ckpt"], "nothing else stays"


def test_without_a_checkpoint_the_result_differs(run, tmp_path):
    """The comparison above can fail."""
    with pytest.raises(AssertionError):
        assert_same(run(), run(epochs=5))
    with pytest.raises(AssertionError):
        assert_same(run(), run(random_state=1))


class Noise:
    """Moves inputs at random, by the generator that plugs get."""

    where, extra_gradients = "input", 0

    def sample(self, context):
        x, g = context.batch.x, context.generator
        noise = torch.randn(x.shape, generator=g, device=x.device)
        self.batch = replace(context.batch, x=x + noise)
        return self

    def apply(self):
        return self.batch

    def revert(self):
        pass


def test_random_numbers_of_plugs_come_back(run, tmp_path):
    path = tmp_path / "run.ckpt"
    whole = run(perturbation=Noise(), patience=9)
    with pytest.raises(Kill):
        run(path, kill=20, perturbation=Noise(), patience=9)
    assert_same(run(path, perturbation=Noise(), patience=9), whole)


def test_momentum_buffers_come_back(run, tmp_path):
    path = tmp_path / "run.ckpt"
    options = {"name": "riemannian-sgd", "patience": 9}
    whole = run(**options)
    with pytest.raises(Kill):
        run(path, kill=20, **options)
    assert_same(run(path, **options), whole)


def test_a_run_without_a_seed_goes_on_with_its_own(run, tmp_path):
    path = tmp_path / "run.ckpt"
    with pytest.raises(Kill):
        run(path, random_state=None, kill=20)
    whole = run(random_state=header(path)["seed"])
    assert_same(run(path, random_state=None), whole)


def test_a_sampler_without_a_seed_keeps_it():
    one, other = (ShuffleSampler(50, random_state=None) for _ in range(2))
    assert one.seed != other.seed
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.indices(1)[0], other.indices(1)[0])


def test_a_longer_run_goes_on(run, tmp_path):
    path = tmp_path / "run.ckpt"
    short = run(path, epochs=2, patience=9)
    longer = run(path, epochs=4, patience=9)
    assert longer[2][:2] == short[2] and len(longer[2]) == 4


def test_files_every_few_epochs_and_at_the_end(run, tmp_path):
    path = tmp_path / "run.ckpt"
    with pytest.raises(Kill):
        run(path, kill=30, patience=9, checkpoint=Checkpoint(path, every=2))
    whole = run(patience=9)
    resumed = run(path, patience=9, checkpoint=Checkpoint(path, every=5))
    assert_same(resumed, whole)
    assert header(path)["epoch"] == 6


def header(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["state"])


def test_no_code_in_the_file(run, tmp_path):
    path = tmp_path / "run.ckpt"
    run(path, epochs=1)
    state = header(path)
    assert state["epoch"] == 1 and state["seed"] == 0
    assert set(state["parts"]) == {"model", "optimizer", "sampler", "callback 1"}
    assert b"torch" not in path.read_bytes()


def test_files_of_other_runs_are_refused(run, tmp_path, toy):
    path = tmp_path / "run.ckpt"
    run(path, epochs=1)
    with pytest.raises(EEGTensorError, match="has seed 0, this run 1"):
        run(path, random_state=1)
    with pytest.raises(EEGTensorError, match=r"callback 1 \(EarlyStopping\), this run"):
        run(path, callbacks=[])
    with pytest.raises(
        EEGTensorError, match=r"optimizer \(RiemannianAdam\).*this run.*\(RiemannianSGD"
    ):
        run(path, name="riemannian-sgd")
    with pytest.raises(EEGTensorError, match="does not fit the model of this run"):
        run(path, toy=partial(toy, n_domains=5))
    run(path, random_state=1, epochs=1, checkpoint=Checkpoint(path, resume=False))
    assert header(path)["seed"] == 1
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EEGTensorError, match="no whole checkpoint"):
        run(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(EEGTensorError, match="is of format None"):
        run(path)


def test_packing_returns_what_it_got():
    shared = torch.eye(3)
    value = {
        "a": [1, 2.5, None, True, "text", (1, (2,))],
        3: {"$odd": math.inf, ("x", 1): torch.arange(3)},
        "views": [shared[:, 1], torch.zeros(0, 4), torch.tensor(7), shared, shared],
        "half": torch.tensor([1.0, math.nan], dtype=torch.bfloat16),
        "array": np.arange(6, dtype=np.int16).reshape(2, 3).T,
        "number": np.float32(0.1),
        "empty": {},
    }
    tree, tensors = pack(value)
    back = unpack(json.loads(json.dumps(tree)), load(save(tensors)))
    assert back["a"] == value["a"] and back["empty"] == {}
    assert back[3]["$odd"] == math.inf and torch.equal(back[3]["x", 1], torch.arange(3))
    assert [v.shape for v in back["views"]] == [(3,), (0, 4), (), (3, 3), (3, 3)]
    assert back["half"].dtype == torch.bfloat16 and back["half"].isnan().tolist() == [
        False,
        True,
    ]
    np.testing.assert_array_equal(back["array"], value["array"])
    assert back["number"] == float(np.float32(0.1))
    with pytest.raises(EEGTensorError, match=r"state\['f'\]\[0\], which is a function"):
        pack({"f": [assert_same]})
