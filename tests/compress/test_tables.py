"""Names of recipes, and the table that compares them."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from eegtensor import EEGTensorError
from eegtensor.compress import Compressor, Int8, compress, latency, table
from eegtensor.compress.named import floats_of, parse_chain
from eegtensor.training import Batch


def test_recipes_are_read():
    chain = parse_chain("factorise(ratio=3.0, skip=('head',)) | int8 | store")
    assert [type(part).__name__ for part in chain] == ["Factorise", "Int8", "Store"]
    assert chain[0].ratio == 3.0 and chain[0].skip == ("head",)
    assert floats_of(chain) == "int8" and floats_of(chain[:1]) == "float32"
    assert parse_chain("") == []


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("int4", "compressor='int4'"),
        ("int8(bits=4)", "no option 'bits'"),
        ("int8(4)", "not understood"),
        ("int8 | ", None),
    ],
)
def test_mistakes_are_told(recipe, told):
    if told is None:
        assert len(parse_chain(recipe)) == 1
        return
    with pytest.raises(EEGTensorError, match=told.replace("(", r"\(")):
        parse_chain(recipe)


def test_the_network_given_stays_as_it_is(net, toy, tuner):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.train()
    compress(net, "binary(inputs='real') | store", tune=tuner(1), data=toy[0])
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert net.training
    assert isinstance(compress(net, Int8(min_size=1)), nn.Module)
    with pytest.raises(EEGTensorError, match="no way to compress"):
        compress(net, [nn.ReLU()])


def test_the_table(net, toy, tuner, score, tmp_path):
    recipes = ["int8(min_size=1)", "prune(keep=0.5) | store(floats='int8')"]
    calls = []
    options = {
        "score": lambda m: score(m, toy[1]) / 100,
        "example": toy[1].pick(torch.arange(16)),
        "data": toy[0],
        "n_runs": 3,
        "folder": tmp_path,
    }
    found = table(
        net,
        recipes,
        tune={recipes[1]: tuner(2)},
        made=lambda recipe, row: calls.append(recipe),
        **options,
    )
    assert found["recipe"].tolist() == ["as it is", *recipes]
    assert calls == ["", *recipes]
    assert found["score"][0] == pytest.approx(score(net, toy[1]) / 100)
    assert found["points"][0] == 0.0 and found["times_smaller"][0] == 1.0
    assert (found["bytes"][1:] < found["bytes"][0]).all()
    assert (found["milliseconds"] > 0).all()
    sizes = {path.stat().st_size for path in tmp_path.glob("*.safetensors")}
    assert sizes == set(found["bytes"])
    # Files that are there are not made again.
    again = table(net, recipes, **options)
    assert again["score"].tolist() == found["score"].tolist()
    assert again["seconds_to_make"][1:].isna().all()


def test_time_is_the_median_of_turns():
    class Slow(nn.Module):
        turns = 0

        def forward(self, x):
            type(self).turns += 1
            # One turn of ten is disturbed.
            time.sleep(0.2 if self.turns == 5 else 0.01)
            return x

    class Quick(nn.Module):
        def forward(self, x):
            return x

    found = latency(
        {"slow": Slow(), "quick": Quick()}, Batch(torch.ones(2, 2)), n_runs=9
    )
    assert 9.0 < found["slow"] < 100.0 and found["quick"] < found["slow"]
    assert Slow.turns == 11
    assert Compressor().callbacks() == []
