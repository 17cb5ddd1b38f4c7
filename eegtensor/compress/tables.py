"""Accuracy, size and time of a network before and after compression."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch import nn

from eegtensor._check import check_count
from eegtensor.compress._layers import count_numbers
from eegtensor.compress.compressor import Tune
from eegtensor.compress.named import compress, floats_of, parse_chain
from eegtensor.compress.saving import load, save
from eegtensor.training import Batch, Network, device_of

COLUMNS = (
    "recipe",
    "score",
    "points",
    "numbers",
    "bytes",
    "times_smaller",
    "milliseconds",
    "times_faster",
    "seconds_to_make",
)


def latency(
    models: Mapping[str, nn.Module], example: Batch, *, n_runs: int = 20
) -> dict[str, float]:
    """Return median milliseconds of a forward pass, all networks taking turns.

    Whatever else the machine does meets all of them alike. Threads are as torch has
    them (`torch.set_num_threads`).

    Parameters
    ----------
    models : mapping of str to Module
    example : Batch
        What they read.
    n_runs : int
        Turns, after two that do not count.
    """
    check_count("n_runs", n_runs)
    found: dict[str, list[float]] = {name: [] for name in models}
    networks = {name: Network(model.eval()) for name, model in models.items()}
    with torch.inference_mode(False), torch.no_grad():
        for turn in range(-2, n_runs):
            for name, network in networks.items():
                batch = example.to(device_of(network.model))
                start = time.perf_counter()
                network(batch)
                if batch.device.type == "cuda":
                    torch.cuda.synchronize()
                if turn >= 0:
                    found[name].append(time.perf_counter() - start)
    return {name: 1e3 * median(times) for name, times in found.items()}


def table(
    model: nn.Module,
    recipes: Sequence[str],
    *,
    score: Callable[[nn.Module], float],
    example: Batch,
    tune: Tune | Mapping[str, Tune] | None = None,
    data: Batch | None = None,
    leave: Sequence[str] = (),
    n_runs: int = 20,
    folder: Path | None = None,
    made: Callable[[str, Any], None] | None = None,
) -> pd.DataFrame:
    """Return accuracy, bytes on the disk and time of a network and of smaller ones.

    Every network is written and read again before it is scored: the numbers are those
    of the file.

    Parameters
    ----------
    model : Module
        Trained; it stays as it is.
    recipes : sequence of str
        See `compress`, such as ``"factorise(ratio=9.0)"`` or ``"binary | int8"``.
    score : callable
        Of a network; the higher, the better, from 0 to 1.
    example : Batch
        What a pass reads, for its time.
    tune : callable | mapping of str to callable | None
        Fine-tuning, see `FineTune`, of all recipes or of each by its name; without it
        nothing is trained.
    data : Batch | None
        Trials for compressors that look at them.
    leave : sequence of str
        Numbers that no file has; see `save`.
    n_runs : int
        Of the time.
    folder : Path | None
        Where files go, named by their recipe; one that is there is not made again.
        None for a folder that is gone afterwards.
    made : callable | None
        Called with each recipe and its row.

    Returns
    -------
    table : DataFrame
        Columns `recipe`, `score`, `points` (score in points of a hundred, less that of
        the network as it is), `numbers` (parameters and codes), `bytes`,
        `times_smaller`, `milliseconds` (median, taking turns), `times_faster`,
        `seconds_to_make` (CPU, with fine-tuning; NaN where the file was there).
    """
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch if folder is None else folder)
        place.mkdir(parents=True, exist_ok=True)
        networks: dict[str, nn.Module] = {}
        rows: list[dict[str, Any]] = []
        for recipe in ("", *recipes):
            path, seconds = place / (_file(recipe) + ".safetensors"), float("nan")
            if recipe and path.exists():
                pass
            else:
                start, chain = time.process_time(), parse_chain(recipe)
                own = tune.get(recipe) if isinstance(tune, Mapping) else tune
                small = compress(model, chain, tune=own, data=data)
                seconds = time.process_time() - start
                save(small, path, floats=floats_of(chain), leave=leave)
            networks[recipe] = load(path, copy.deepcopy(model))
            row = {
                "recipe": recipe or "as it is",
                "score": float(score(networks[recipe])),
                "numbers": count_numbers(networks[recipe])
                + sum(b.numel() for b in networks[recipe].buffers()),
                "bytes": path.stat().st_size,
                "seconds_to_make": seconds,
            }
            rows.append(row)
            if made is not None:
                made(recipe, row)
        times = latency(networks, example, n_runs=n_runs)
    for row, recipe in zip(rows, networks, strict=True):
        row["milliseconds"] = times[recipe]
        row["points"] = 100.0 * (row["score"] - rows[0]["score"])
        row["times_smaller"] = rows[0]["bytes"] / row["bytes"]
        row["times_faster"] = times[""] / times[recipe]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _file(recipe: str) -> str:
    kept = "".join(c if c.isalnum() or c in ".-" else "_" for c in recipe)
    return kept or "as_it_is"
