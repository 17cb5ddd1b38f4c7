"""The original TSMNet with SPDDSMBN, trained and scored as its authors published.

A referee, no part of the package: it wants a checkout of rkobler/TSMNet (path in
the environment variable ``EEGTENSOR_TSMNET``) and drives the authors' network,
norm, momentum scheduler and manifolds with a training loop of its own, in place
of skorch, hydra and moabb. Nothing in the checkout is changed; where skorch is
not installed a stand-in for the two names that ``spdnets`` imports is registered.

Run it over the shared data (one JSON line per fold; folds in the file are skipped)::

    EEGTENSOR_TSMNET=/path/TSMNet python tests/benchmarks/_original_tsmnet.py \
        --data ../shared/data --out original.jsonl --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _peers import authors_optimizer, load_spdnets
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedShuffleSplit

# Of the authors' conf/mims-nnets.yaml and conf/nnet/tsmnet*.yaml.
EPOCHS, BATCH, DOMAINS_PER_BATCH, TAU0 = 50, 50, 5, 0.85

# How each set is read, and how many groups of people are left out in turn
# (None: every person alone).
SETS: dict[str, tuple[dict[str, Any], int | None]] = {
    "ssvep_exo": (
        {"band": (5.0, 45.0), "tmin": 1.0, "tmax": 5.0, "sfreq": 128.0}
        | {"on_bad": "warn"},
        None,
    ),
    "bnci_iv_2b": ({"band": (4.0, 36.0), "tmin": 0.5, "tmax": 3.5}, None),
    "eegmat": ({"band": (4.0, 36.0), "tmin": 0.0, "tmax": 4.0}, 6),
}


def batches(domain: torch.Tensor) -> Iterator[torch.Tensor]:
    """Indices of one epoch's batches: 10 random trials of each of 5 random domains.

    Not stratified by class: the authors' loader hands its sampler the domains in
    place of the labels. What does not fill a last batch is left out.
    """
    codes = domain.unique()
    n_domains = min(DOMAINS_PER_BATCH, len(codes))
    size = max(round(BATCH / n_domains), 2)
    groups: list[list[torch.Tensor]] = []
    for code in codes:
        index = torch.nonzero(domain == code).flatten()
        index = index[torch.randperm(len(index))]
        groups.append([g for g in index.split(size) if len(g) == size])
    while True:
        left = [g for g in groups if g]
        if len(left) < n_domains:
            return
        chosen = torch.randperm(len(left))[:n_domains].tolist()
        yield torch.cat([left[i].pop() for i in chosen])


def fit_predict(
    X: np.ndarray,
    y: np.ndarray,
    domain: np.ndarray,
    train: np.ndarray,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    checkout: str | Path | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Train on `train`, refit every domain without labels, predict every trial.

    Parameters
    ----------
    X : array (n_trials, n_channels, n_times)
        Volts; the network gets microvolts in float32.
    y, domain : int arrays (n_trials,)
        Classes 0 .. K-1, and domain codes. A domain lies wholly in or out of
        `train`.
    train : bool array (n_trials,)
        The source trials; a fifth of them, stratified by class and domain,
        choose the epoch.
    seed : int
        Of torch's generator and of the validation split.

    Returns
    -------
    predicted : int array (n_trials,)
    info : dict
        Epoch kept, validation loss per epoch, number of steps, CPU seconds of
        training (validation included) and of refit and prediction.
    """
    original = load_spdnets(checkout)
    torch.manual_seed(seed)
    x = torch.from_numpy(np.asarray(X * 1e6, dtype=np.float32))
    labels, domains = (
        torch.from_numpy(np.asarray(a, dtype=np.int64)) for a in (y, domain)
    )
    n_classes = int(labels.max()) + 1

    source = np.flatnonzero(train)
    strata = (labels + domains * n_classes).numpy()[source]
    split = StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=seed)
    fit, valid = (source[i] for i in next(split.split(strata, strata)))

    model = original.tsmnet.TSMNet(
        temporal_filters=4,
        spatial_filters=40,
        subspacedims=20,
        bnorm="spddsbn",
        bnorm_dispersion="SCALAR",
        domains=domains.unique(),
        nclasses=n_classes,
        nchannels=x.shape[1],
        nsamples=x.shape[2],
        device=torch.device("cpu"),
    )
    optimizer = authors_optimizer(model)
    # Their scheduler as it is, with tau where the layer wants 1 - tau.
    scheduler = original.batchnorm.MomentumBatchNormScheduler(
        epochs=EPOCHS - 10, bs=BATCH / DOMAINS_PER_BATCH, bs0=BATCH, tau0=TAU0
    ).initialize()
    net = types.SimpleNamespace(module_=model)
    scheduler.on_train_begin(net)

    best, kept, state, steps = float("inf"), -1, model.state_dict(), 0
    losses = []
    start = time.process_time()
    for epoch in range(epochs):
        scheduler.on_epoch_begin(net)
        model.train()
        for batch in batches(domains[fit]):
            index = fit[batch]
            optimizer.zero_grad()
            loss = model.lossfn(model(x[index], domains[index])[0], labels[index])
            loss.backward()
            optimizer.step()
            steps += 1
        model.eval()
        with torch.no_grad():
            logits = model(x[valid], domains[valid])[0]
            losses.append(float(model.lossfn(logits, labels[valid])))
        if losses[-1] < best:
            best, kept = losses[-1], epoch
            state = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    trained = time.process_time()

    predicted = np.empty(len(y), dtype=np.int64)
    with torch.no_grad():
        for code in domains.unique():
            index = torch.nonzero(domains == code).flatten()
            model.domainadapt_finetune(x[index], None, domains[index], None)
            predicted[index] = model(x[index], domains[index])[0].argmax(1).numpy()
    return predicted, {
        "epoch": kept + 1,
        "valid_loss": [round(v, 5) for v in losses],
        "steps": steps,
        "seconds_fit": round(trained - start, 2),
        "seconds_predict": round(time.process_time() - trained, 2),
    }


def read_set(name: str, data: Path) -> dict[str, np.ndarray]:
    """X (volts), y, subject, session of one set, from `data`/name or its .npz."""
    if (data / f"{name}.npz").is_file():
        return dict(np.load(data / f"{name}.npz", allow_pickle=False))
    from eegtensor import read_trials

    trials = read_trials(data / name, **SETS[name][0])
    meta = trials.metadata
    return {
        "X": np.asarray(trials.X, dtype=np.float32),
        "y": np.asarray(trials.y).astype(str),
        "subject": meta["subject"].to_numpy().astype(str),
        "session": meta["session"].to_numpy().astype(str),
    }


def run(name: str, seed: int, data: Path, out: Path, first: bool = False) -> None:
    """Score the folds of one set that `out` lacks, and append a line for each."""
    text = out.read_text().splitlines() if out.exists() else []
    done = [json.loads(line) for line in text]
    seen = {(r["dataset"], r["seed"], tuple(r["left_out"])) for r in done}
    trials = read_set(name, data)
    people, person = np.unique(trials["subject"], return_inverse=True)
    session = np.unique(trials["session"], return_inverse=True)[1]
    y = np.unique(trials["y"], return_inverse=True)[1]
    for group in np.array_split(people, SETS[name][1] or len(people)):
        if (name, seed, tuple(group.tolist())) in seen:
            continue
        train = ~np.isin(trials["subject"], group)
        predicted, info = fit_predict(
            trials["X"], y, session + 1000 * person, train, seed=seed
        )
        row: dict[str, Any] = {"dataset": name, "seed": seed}
        row["left_out"] = group.tolist()
        row["scores"] = {
            str(p): balanced_accuracy_score(y[mask], predicted[mask])
            for p in group
            for mask in [trials["subject"] == p]
        }
        row["score_source"] = balanced_accuracy_score(y[train], predicted[train])
        with out.open("a") as file:
            file.write(json.dumps(row | info) + "\n")
        scores = {p: round(s, 3) for p, s in row["scores"].items()}
        print(name, seed, scores, info["seconds_fit"], "s of CPU", flush=True)
        if first:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--first", action="store_true", help="one fold of each only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for seed in args.seeds:
        for name in args.sets:
            run(name, seed, args.data, args.out, args.first)


if __name__ == "__main__":
    main()
