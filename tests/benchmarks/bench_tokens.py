"""Rate and distortion of the tokenizer on the project's yardstick, and its speed.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_tokens.py [--full]
        [--kind learned] [--sets A B] [--modes P S] [--rates 104] [--fill 0]

Sets, splits and metrics are those of `rate_distortion.py` (EEGTENSOR_YARDSTICK);
floors are section 7's "must". P codes channels, S components. CPU seconds of one
thread; speed is seconds of 32 channels encoded a CPU second. Use: share of codes
that occur on test, least over bands' first levels, and mean entropy of those. Level:
the largest share of held-out error that a used level leaves. Stable: share of first and
second levels that white noise 20 dB below the signal does not change.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray

from eegtensor.codebook import code_counts, code_usage
from eegtensor.tokens import EEGTokenizer
from eegtensor.tokens._band_kind import BandKind
from eegtensor.tokens.bandrvq import BandCodec

RATES = (13, 26, 52, 104, 208, 416)
# (set, mode, rate) -> NRMSE that section 7 asks for.
FLOORS = {
    ("A", "P", 104): 0.31,
    ("B", "P", 104): 0.41,
    ("A", "P", 416): 0.076,
    ("B", "P", 416): 0.11,
    ("A", "S", 104): 0.12,
    ("B", "S", 104): 0.24,
    ("A", "S", 52): 0.19,
    ("B", "S", 52): 0.33,
    ("A", "S", 13): 0.39,
    ("B", "S", 13): 0.55,
}


def yardstick() -> ModuleType:
    folder = Path(__file__).resolve().parents[3] / "shared" / "measure"
    path = Path(os.environ.get("EEGTENSOR_YARDSTICK", folder)) / "rate_distortion.py"
    spec = importlib.util.spec_from_file_location("rate_distortion", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def band_codes(ids: NDArray, bands: BandCodec) -> NDArray:
    """Return codes by band and level, (..., n_bands, n_levels)."""
    return ids[..., 1:].reshape(*ids.shape[:-1], -1, bands.n_levels)


def usage(ids: list[NDArray], bands: BandCodec) -> tuple[float, float, int]:
    """Return the least share and mean entropy of first levels, and codes never used.

    Of levels with 2000 tokens, and for those never used with 20,000.
    """
    codes = np.concatenate(
        [
            band_codes(i, bands).reshape(-1, len(bands.books), bands.n_levels)
            for i in ids
        ]
    )
    flat = torch.from_numpy(codes.reshape(len(codes), -1).astype(np.int64))
    counts = code_counts(flat, 256)
    found = code_usage(counts)
    first = torch.zeros(len(counts), dtype=torch.bool)
    first[:: bands.n_levels] = True
    often = first & (counts.sum(dim=1) >= 2000)
    dead = int((counts[counts.sum(dim=1) >= 20_000] == 0).sum())
    if not bool(often.any()):
        return float("nan"), float("nan"), dead
    return float(found.share[often].min()), float(found.entropy[often].mean()), dead


def unchanged(x: NDArray, made: EEGTokenizer) -> tuple[float, float]:
    """Return the share of codes that noise leaves as they are.

    Of first and second levels; of all codes but zeros, and of zeros, for "learned".
    """
    rng = np.random.default_rng(0)
    scale = x.std(axis=1)
    noisy = x + 0.1 * scale[:, None] * rng.standard_normal(x.shape)
    a, b = (made.encode(v, scale=scale).ids for v in (x, noisy))
    if not isinstance(made.codec_, BandKind):
        return float((a == b)[a > 0].mean()), float((a == b)[a == 0].mean())
    found = []
    for level in range(min(2, made.codec_.bands.n_levels)):
        old, new = (band_codes(v, made.codec_.bands)[..., level] for v in (a, b))
        found.append(float((old == new)[old >= 0].mean()))
    return found[0], found[-1]


def details(made: EEGTokenizer, train: list[NDArray], ids: list[NDArray]) -> str:
    """Return what only the codebooks have."""
    if not isinstance(made.codec_, BandKind):
        return ""
    bands = made.codec_.bands
    share, entropy, _ = usage(ids, bands)
    dead = usage([made.encode(x, sfreq=200.0).ids for x in train], bands)[2]
    left = bands.remaining
    kept = left[:, 1:] / left[:, :-1]
    worst = float(kept[kept < 1].max())
    return (
        f"{made.codec_.n_states} states x {bands.n_stated}, use {share:.2f} "
        f"{entropy:.2f} bit, dead {dead}, level {worst:.2f}, "
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", default="band-rvq")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--sets", nargs="+", default=["A", "B"])
    parser.add_argument("--modes", nargs="+", default=["P", "S"])
    parser.add_argument("--rates", nargs="+", type=int, default=[104])
    parser.add_argument("--fill", nargs="+", type=float, default=[0.0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure = yardstick()
    for name in options.sets:
        train, test = measure.load(name)
        for mode in options.modes:
            for rate in RATES if options.full else options.rates:
                made = EEGTokenizer(
                    options.kind, bits_per_second=rate, spatial=mode == "S"
                )
                start = time.process_time()
                made.fit(train, sfreq=200.0)
                fitted = time.process_time() - start
                start = time.process_time()
                tokens = [made.encode(x, sfreq=200.0) for x in test]
                spent = time.process_time() - start
                seconds = sum(x.size for x in test) / 200 / 32
                more = details(made, train, [t.ids for t in tokens])
                stable = unchanged(test[0], made)
                floor = FLOORS.get((name, mode, rate))
                for fill in options.fill:
                    rebuilt = [made.decode(t, fill=fill) for t in tokens]
                    m = measure.metrics(test, rebuilt)
                    bands = " ".join(f"{m[f'nmse_{b}']:.3f}" for b in measure.BANDS)
                    power = " ".join(f"{m[f'power_db_{b}']:.1f}" for b in measure.BANDS)
                    print(
                        f"{options.kind} {name} {mode} {rate:4d} fill {fill:g}: "
                        f"NRMSE {m['nrmse']:.3f} (asked {floor}), sent "
                        f"{np.mean([t.bits_per_second for t in tokens]):.1f} bit/s/ch, "
                        f"power {m['power_db']:.2f} dB ({power}), "
                        f"phase {m['phase_deg']:.1f} deg, nmse {bands}, "
                        f"{more}stable {stable[0]:.2f} {stable[1]:.2f}, "
                        f"fit {fitted:.1f} s, "
                        f"encode {seconds / spent:.0f} x real time",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
