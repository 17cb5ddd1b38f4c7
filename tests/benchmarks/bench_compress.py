"""A masked token model of 1.5 million numbers made smaller: what is lost, what is won.

Trained on 12 people of EEGMAT, scored on 2 others: the share of masked codes (256 in
each slot) that are told, and the nats that are told of each beyond the codes' shares.
The table of code vectors is the tokenizer's and in no file. CPU milliseconds of a
forward pass of 8 windows, one thread, networks taking turns::

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_compress.py \
        --data ../shared/data/eegmat --cache FOLDER

The model and what recipes make of it are kept in the folder, and not made again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eegtensor import compress
from eegtensor.tokens import EEGTokenizer
from eegtensor.tokens._objective import MaskedCrossEntropy
from eegtensor.tokens._scores import evaluate, masked_batch
from eegtensor.tokens._windows import as_sequences, joined
from eegtensor.tokens.masking import MaskTokens
from eegtensor.tokens.pretrain import MaskedTokenModel
from eegtensor.training import Batch
from eegtensor.training.files import read_state, write_state

PAIRS = "pairs=(('blocks.*.mlp.1', 'blocks.*.last'),)"
# Near the identity, which has no low rank: what copies neighbours, what tells codes.
SKIP = "fixed=('table',), skip=('blocks.*.across_units.*', 'codes', 'teller.last')"
# Recipe -> epochs of fine-tuning.
RECIPES = {
    "int8": 0,
    "int8(activations='static')": 0,
    "codebooks(bits=3, epochs=4) | store(floats='int8')": 0,
    f"factorise(ratio=2.75, {SKIP}) | store(floats='int8')": 1,
    f"prune(keep=0.5, {PAIRS}) | int8": 1,
    "binary(inputs='real')": 1,
    "binary(inputs='real', skip=('codes', 'teller.last'))": 1,
    "elastic(bits=(2, 3, 8), final=(3, 8)) | store(floats='int8')": 1,
}
N_PEOPLE, N_TRAINED = 14, 12


def recordings(folder: Path) -> tuple[list[np.ndarray], float, list[str]]:
    found = []
    for file in sorted(folder.glob("*.npz"))[:N_PEOPLE]:
        data = np.load(file, allow_pickle=False)
        found.append((data["X"] * data["scale"]).astype(np.float64))
    return found, float(data["sfreq"]), data["ch_names"].tolist()


def learned(
    folder: Path, cache: Path
) -> tuple[MaskedTokenModel, dict[str, Any], dict[str, Any]]:
    """Return the model, the windows it learned from and those of others."""
    model_file, windows = cache / "model", cache / "windows"
    if not (model_file.exists() and windows.exists()):
        X, sfreq, names = recordings(folder)
        start = time.process_time()
        tokenizer = EEGTokenizer(n_states=256)
        tokenizer.fit(X[:N_TRAINED], sfreq=sfreq, ch_names=names)
        tokens = [tokenizer.encode(x) for x in X]
        if not model_file.exists():
            model = MaskedTokenModel(
                width=192, depth=2, n_frames=4, epochs=12, batch_size=8, lr=1e-3
            )
            model.fit(tokens[:N_TRAINED], tokenizer=tokenizer).save(model_file)
        model = MaskedTokenModel.load(model_file, device="cpu")
        parts = [as_sequences(model.windows(item)) for item in tokens]
        content = {
            "own": joined(parts[:N_TRAINED]),
            "others": joined(parts[N_TRAINED:]),
        }
        write_state(windows, content, "windows")
        print(f"trained in {time.process_time() - start:.0f} CPU s", flush=True)
    model = MaskedTokenModel.load(model_file, device="cpu")
    found = read_state(windows, "windows", what="windows", fix="remove the file")
    # Vectors of units beyond those that there are, never read: in no count at all.
    n_units = 1 + int(found["own"]["index"].max())
    network = model.network_
    network.index = torch.nn.Parameter(network.index[: 1 + n_units].detach().clone())
    return model, found["own"], found["others"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/eegmat"))
    cache = Path(tempfile.gettempdir()) / "bench_compress"
    parser.add_argument("--cache", type=Path, default=cache, help="models made")
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.cache.mkdir(parents=True, exist_ok=True)
    model, x, unseen = learned(args.data, args.cache)
    test = masked_batch(unseen, "random", model.mask_ratio, 0)
    nats = []

    def score(network: Any) -> float:
        found = evaluate(network, test, model.shares_)
        nats.append(found.unigram_cross_entropy - found.cross_entropy)
        return found.accuracy

    def tuned(epochs: int) -> compress.FineTune:
        return compress.FineTune(
            Batch(x),
            MaskedCrossEntropy(),
            epochs=epochs,
            batch_size=8,
            lr=1e-3,
            perturbation=MaskTokens(model.mask, model.mask_ratio, epochs),
        )

    def made(recipe: str, row: dict[str, Any]) -> None:
        told = f"{row['score']:.4f} {nats[-1]:.3f} nats {row['bytes']:9d} bytes"
        print(f"{told} {row['seconds_to_make']:6.0f} s  {row['recipe']}", flush=True)

    table = compress.table(
        model.network_,
        args.recipes,
        score=score,
        example=test.pick(torch.arange(8)),
        tune={recipe: tuned(n) for recipe, n in RECIPES.items() if n},
        # As they are trained: half of the tokens are masked.
        data=masked_batch(x, "random", model.mask_ratio, 1),
        leave=["table"],
        folder=args.cache,
        made=made,
    )
    table.insert(2, "nats_kept", np.asarray(nats) / nats[0])
    print(table.to_string(float_format="{:.4g}".format))


if __name__ == "__main__":
    main()
