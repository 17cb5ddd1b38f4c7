"""The options of `eegtensor tokenize`, and what it does with them."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from eegtensor._check import fail


def add_tokenize(parser: Any) -> None:
    """Add the options of the command to its parser."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file or a folder")
    parser.add_argument("--out", required=True, metavar="DIR", help="results")
    group = parser.add_argument_group("which tokenizer")
    group.add_argument(
        "--tokenizer",
        metavar="FILE.safetensors",
        help="a saved one; by default one is fitted on the files given",
    )
    group.add_argument(
        "--fit",
        metavar="KIND",
        help="band-rvq (default), learned, neurorvq or labram: what is fitted",
    )
    group.add_argument(
        "--bits", type=float, metavar="B", help="bits a second and channel; default 104"
    )
    group.add_argument(
        "--spatial",
        action="store_true",
        help="code principal components of the channels, which must be the same in "
        "all files",
    )
    group.add_argument("--seed", type=int, default=0, help="random seed; default 0")


def tokenize(options: argparse.Namespace) -> int:
    """Run the command; 1 where some files could not be tokenised."""
    from eegtensor.tokens.tokenize import tokenize_files

    fits = options.fit is not None or options.bits is not None or options.spatial
    if options.tokenizer is not None and fits:
        fail(
            "--tokenizer beside --fit, --bits or --spatial",
            why="A saved tokenizer has its kind and rate",
            fix="leave one side out",
        )
    done = tokenize_files(
        options.files,
        options.out,
        tokenizer=options.tokenizer,
        kind=options.fit or "band-rvq",
        bits_per_second=104 if options.bits is None else options.bits,
        spatial=options.spatial,
        random_state=options.seed,
    )
    print(done)
    for words in done.failed.values():
        print(f"eegtensor: error: {words}", file=sys.stderr)
    return 1 if done.failed else 0
