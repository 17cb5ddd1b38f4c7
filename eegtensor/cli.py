"""The command line: demo, info, convert, restore, tokenize, benchmark, doctor."""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import os
import shlex
import sys
import tomllib
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from eegtensor._check import EEGTensorError, EEGTensorWarning, fail
from eegtensor._reading import READING, add_reading, read_as_said
from eegtensor._tokenize import add_tokenize, tokenize
from eegtensor._version import __version__

_PROTOCOLS = (
    "leave-one-subject-out, leave-one-session-out, within-session, "
    "K-subjects-out, cross-dataset"
)
_MODES = (
    "none, none-trialwise, online, 20%%, 50%%, 20%%-random, full, labelled-K "
    "(K trials a class join the source), calibrate-K (they calibrate the fitted "
    "decoder: tsmnet(calibration=30))"
)


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes sound like the package's."""

    def error(self, message: str) -> NoReturn:
        raise EEGTensorError(f"{message}. What to do: see `{self.prog} --help`.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    argv : sequence of str | None
        Arguments; by default those of the process.

    Returns
    -------
    int
        0 when all went well, 1 when `doctor` found a problem or `tokenize` had to
        leave files out, 2 for a user's mistake, 130 when interrupted.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _build_parser().parse_args(given)
        _speak(options.verbose)
        options.command_line = shlex.join(["eegtensor", *given])
        return options.run(options)
    except EEGTensorError as error:
        print(f"eegtensor: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("eegtensor: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has left, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="eegtensor",
        description="From EEG recordings of many people to decoders that work on "
        "people they have never seen.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_Parser
    )
    _add_demo(commands)
    _add_info(commands)
    _add_convert(commands)
    _add_restore(commands)
    _add_tokenize(commands)
    _add_benchmark(commands)
    _add_doctor(commands)
    return parser


def _command(commands: Any, name: str, run: Any, summary: str, **text: Any) -> Any:
    parser = commands.add_parser(name, help=summary, description=summary, **text)
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")
    parser.set_defaults(run=run)
    return parser


def _add_demo(commands: Any) -> None:
    parser = _command(
        commands,
        "demo",
        _demo,
        "Simulate people, compare two decoders with and without adaptation.",
    )
    parser.add_argument("--out", default="eegtensor-demo", help="folder of the results")
    parser.add_argument("--seed", type=int, default=0, help="random seed")


def _add_info(commands: Any) -> None:
    parser = _command(
        commands, "info", _info, "Say what recordings hold and what is wrong with them."
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a recording")
    parser.add_argument("--json", action="store_true", help="print JSON, one per line")


def _add_convert(commands: Any) -> None:
    parser = _command(
        commands, "convert", _convert, "Cut recordings into a memory-mapped store."
    )
    parser.add_argument("src", nargs="+", metavar="SRC", help="files or folders")
    parser.add_argument("store", metavar="STORE", help="folder of the store")
    add_reading(parser)


def _add_restore(commands: Any) -> None:
    parser = _command(
        commands,
        "restore",
        _restore,
        "Restore what a recording has lost: bad channels, bad segments, NaN.",
    )
    parser.add_argument("file", metavar="FILE", help="a continuous recording")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="the restored one, .fif or .edf"
    )
    parser.add_argument(
        "--bads", nargs="+", default=[], metavar="CH", help="further bad channels"
    )
    parser.add_argument(
        "--segments",
        metavar="FILE",
        help="bad segments: a table with columns onset, duration (seconds) and "
        "channel (empty: all), or annotations as MNE writes them",
    )
    parser.add_argument("--method", default="auto", help="auto (default) or a method")
    parser.add_argument(
        "--max-gap",
        type=float,
        default=1.0,
        metavar="S",
        help="stretches that all channels lost longer than this stay; default 1",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed; default 0")


def _add_tokenize(commands: Any) -> None:
    parser = _command(
        commands,
        "tokenize",
        tokenize,
        "Turn recordings into tokens; say what is lost, band by band.",
    )
    add_tokenize(parser)


def _add_benchmark(commands: Any) -> None:
    parser = _command(
        commands,
        "benchmark",
        _benchmark,
        "Score decoders on people they have not seen.",
        epilog="Every option may stand in the file of --config under its name, as "
        'pipelines = ["mdm"]; an option given here wins. Interrupted runs resume '
        "when the same command is given again.",
    )
    parser.add_argument("src", nargs="*", metavar="SRC", help="files, folders, a store")
    parser.add_argument("--config", metavar="FILE.toml", help="options from a file")
    parser.add_argument("--out", metavar="DIR", help="scores, report, configuration")
    group = parser.add_argument_group("what is compared")
    group.add_argument(
        "--pipelines",
        type=_words,
        metavar="A,B",
        help="names, as "
        "mdm+euclidean or tangent-space(C=1.0); default "
        "mdm,tangent-space; `--pipelines list` shows all",
    )
    group.add_argument(
        "--sweep",
        metavar="NAME",
        help="a list of pipelines: training (TSMNet with every training method)",
    )
    group.add_argument(
        "--trust",
        metavar="PIPELINE",
        help="a trust card of it in the report: attacks, calibration, rejection, "
        "certificate, forgetting",
    )
    group.add_argument("--protocol", help=f"{_PROTOCOLS}; default the first")
    group.add_argument(
        "--adapt",
        type=_words,
        metavar="A,B",
        help=f"what adaptation sees of a new person: {_MODES}; default none,full",
    )
    group.add_argument(
        "--test",
        metavar="SRC",
        help="train on the first SRC, test on this other dataset over the channels "
        "both have",
    )
    group.add_argument("--seed", type=int, help="random seed; default 0")
    group.add_argument("--n-jobs", type=int, metavar="N", help="processes; default 1")
    group.add_argument(
        "--cache", metavar="DIR", help="finished folds; default OUT/cache"
    )
    group.add_argument(
        "--no-report", action="store_true", default=None, help="write no report.html"
    )
    add_reading(parser)


def _add_doctor(commands: Any) -> None:
    _command(commands, "doctor", _doctor, "Check the installation; print the mends.")


def _words(text: str) -> list[str]:
    """Split at commas that stand outside brackets."""
    words, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            words.append("")
        else:
            words[-1] += character
    return [word.strip() for word in words if word.strip()]


def _speak(verbose: bool) -> None:
    """Send log lines and warnings to stderr in one voice."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("eegtensor: %(message)s"))
    logger = logging.getLogger("eegtensor")
    # In place of the last call's handler: its stderr may be closed by now.
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if verbose else logging.WARNING)

    def show(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, EEGTensorWarning):
            print(f"eegtensor: warning: {message}", file=sys.stderr)
        else:
            logger.info("%s: %s", category.__name__, message)

    warnings.showwarning = show
    warnings.simplefilter("always", EEGTensorWarning)


def _demo(options: argparse.Namespace) -> int:
    from eegtensor.demo import run_demo

    out = _folder(options.out)
    results = run_demo(random_state=options.seed)
    _show(results, out)
    return _finish(results, out, report=True)


def _folder(path: str | Path) -> Path:
    """Return the folder, made now: an hour's work must not end at a wrong name."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(
            f"{folder} cannot be made: {error.strerror}",
            fix="name a folder for the results with --out",
        )
    return folder


def _show(results: Any, out: Path) -> None:
    results.save(out)
    print(results)


def _finish(results: Any, out: Path, *, report: bool, trust: Any = None) -> int:
    print(f"\nscores        {out / 'scores.csv'}")
    if report:
        print(f"report        {results.report(out / 'report.html', trust=trust)}")
    if trust is not None:
        print(f"trust card    {trust.save(out / 'trust.json')}")
    print(f"configuration {out / 'config.json'}")
    return 0


def _info(options: argparse.Namespace) -> int:
    from eegtensor.io import RecordingError, recording_info

    failed = 0
    for i, file in enumerate(options.files):
        try:
            info = recording_info(file)
        except RecordingError as error:
            print(f"eegtensor: error: {error}", file=sys.stderr)
            failed += 1
            continue
        if options.json:
            print(json.dumps(asdict(info), default=_plain))
        else:
            print(("\n" if i else "") + str(info))
    return 2 if failed else 0


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _convert(options: argparse.Namespace) -> int:
    trials = read_as_said(options.src, vars(options), store=options.store)
    size = Path(trials.X.filename).stat().st_size / 2**20  # type: ignore[attr-defined]
    print(f"{trials!r}\n{options.store}: {size:.1f} MB, digest {trials.digest}")
    return 0


def _restore(options: argparse.Namespace) -> int:
    from eegtensor.restore import restore_recording

    done = restore_recording(
        options.file,
        options.out,
        bads=options.bads,
        segments=options.segments,
        method=options.method,
        max_gap=options.max_gap,
        random_state=options.seed,
    )
    print(done)
    return 0


def _benchmark(options: argparse.Namespace) -> int:
    given = _with_config(vars(options))
    if given["pipelines"] == ["list"]:
        return _list_pipelines()
    if not given["src"]:
        fail("No recordings were named", fix="give SRC, or src in the --config file")
    if not given["out"]:
        fail("No folder for the results", fix="give --out DIR")
    out = Path(given["out"])
    from eegtensor.benchmark import benchmark

    pipelines = given["pipelines"] or ["mdm", "tangent-space"]
    if given["sweep"]:
        from eegtensor.benchmark.sweep import sweep_pipelines

        # Beside those named, which are what the sweep is compared with.
        named = given["pipelines"] or []
        pipelines = [*named, *sweep_pipelines(given["sweep"])]
    trials = read_as_said(given["src"], given)
    test = None if given["test"] is None else read_as_said([given["test"]], given)
    # After reading, so that a mistake there leaves no empty folder.
    _folder(out)
    cache = given["cache"] or out / "cache"
    try:
        results = benchmark(
            trials,
            pipelines,
            protocol=given["protocol"] or "leave-one-subject-out",
            adapt=given["adapt"] or ["none", "full"],
            random_state=0 if given["seed"] is None else given["seed"],
            n_jobs=given["n_jobs"] or 1,
            cache=cache,
            test=test,
            command=options.command_line,
        )
        results.config["options"] = {k: given[k] for k in (*READING, "src", "card")}
        # Scores are safe, and seen, before a trust card takes its time.
        _show(results, out)
        card = None
        if given["trust"]:
            from eegtensor.benchmark import trust_card

            seed = given["seed"] or 0
            card = trust_card(trials, given["trust"], random_state=seed, cache=cache)
    except KeyboardInterrupt:
        print(
            f"eegtensor: interrupted; finished folds are in {cache}, the same command "
            "goes on from there",
            file=sys.stderr,
        )
        return 130
    return _finish(results, out, report=not given["no_report"], trust=card)


def _list_pipelines() -> int:
    from eegtensor.pipelines import PIPELINES

    for name, spec in PIPELINES.items():
        takes = ", ".join(spec.parameters)
        print(f"{name:20} {spec.summary}\n{'':20} parameters: {takes}")
    return 0


def _with_config(given: dict[str, Any]) -> dict[str, Any]:
    """Fill what was not given on the command line from the --config file."""
    if not given["config"]:
        return given
    path = Path(given["config"])
    try:
        stored = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}", fix="name a TOML file")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        fail(f"{path} is not TOML: {error}", fix="see https://toml.io")
    merged = dict(given)
    known = set(given) - {"config", "run", "command_line", "verbose"}
    for key, value in stored.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else ", ".join(sorted(known))
            fail(f"{path} has the unknown option {key!r}", fix=f"check it: {hint}")
        if name in ("pipelines", "adapt") and isinstance(value, str):
            value = _words(value)
        if name == "src" and isinstance(value, str):
            value = [value]
        if merged[name] in (None, []):
            merged[name] = value
    return merged


def _doctor(options: argparse.Namespace) -> int:
    from eegtensor.doctor import diagnose

    print(f"eegtensor     {__version__}")
    problems = []
    for finding in diagnose():
        print(f"{finding.name:13} {finding.state}")
        if finding.problem:
            problems.append(finding)
    for finding in problems:
        print(f"\nproblem: {finding.problem}\n    fix: {finding.fix}")
    if not problems:
        print("\nAll fits together.")
    return 1 if problems else 0
