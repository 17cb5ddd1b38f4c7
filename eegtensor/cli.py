"""The command line: demo, info, convert, benchmark, doctor."""

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
from eegtensor._version import __version__

_PROTOCOLS = (
    "leave-one-subject-out, leave-one-session-out, within-session, "
    "K-subjects-out, cross-dataset"
)
_MODES = (
    "none, none-trialwise, online, 20%%, 50%%, 20%%-random, full, labelled-K "
    "(K trials a class)"
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
        0 when all went well, 1 when `doctor` found a problem, 2 for a user's
        mistake, 130 when interrupted.
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
    _add_reading(parser)


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
    _add_reading(parser)


def _add_doctor(commands: Any) -> None:
    _command(commands, "doctor", _doctor, "Check the installation; print the mends.")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how recordings are read")
    group.add_argument(
        "--tmin", type=float, metavar="S", help="window start, seconds from the event"
    )
    group.add_argument("--tmax", type=float, metavar="S", help="window end, excluded")
    group.add_argument(
        "--band", type=float, nargs=2, metavar=("LOW", "HIGH"), help="band-pass, hertz"
    )
    group.add_argument(
        "--bands",
        type=float,
        nargs="+",
        metavar="HZ",
        help="filter bank, LOW HIGH LOW HIGH ...; stacked on the channels",
    )
    group.add_argument("--sfreq", type=float, metavar="HZ", help="rate to resample to")
    group.add_argument(
        "--events",
        nargs="+",
        metavar="NAME[=CODE]",
        help="classes and the codes or annotations they stand for, as left=1 right=2",
    )
    group.add_argument("--picks", nargs="+", metavar="CH", help="channels or types")
    group.add_argument(
        "--reference", nargs="+", metavar="CH", help="average, or channels"
    )
    group.add_argument("--channels", help="intersection (default) or interpolate")
    group.add_argument(
        "--include", nargs="+", metavar="GLOB", help="recordings to take"
    )
    group.add_argument(
        "--names",
        metavar="TEMPLATE",
        help="where subject and session "
        "stand in the file name, as S{subject}_{session}.edf",
    )
    group.add_argument(
        "--on-bad",
        help="raise (default), drop or warn, at recordings "
        "that are damaged or implausible",
    )
    group.add_argument("--scale", type=float, help="volts per stored unit; default 1")
    group.add_argument(
        "--card",
        metavar="NAME",
        help="take window, band and events of "
        "this dataset card; a folder named as a card's takes that card's "
        "when no window is given",
    )


_READING = (
    "tmin", "tmax", "band", "bands", "sfreq", "events", "picks", "reference",
    "channels", "include", "names", "on_bad", "scale",
)  # fmt: skip


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
    return _finish(run_demo(random_state=options.seed), out, report=True)


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


def _finish(results: Any, out: Path, *, report: bool) -> int:
    results.save(out)
    print(results)
    print(f"\nscores        {out / 'scores.csv'}")
    if report:
        print(f"report        {results.report(out / 'report.html')}")
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
    trials = _read(options.src, vars(options), store=options.store)
    size = Path(trials.X.filename).stat().st_size / 2**20  # type: ignore[attr-defined]
    print(f"{trials!r}\n{options.store}: {size:.1f} MB, digest {trials.digest}")
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

    trials = _read(given["src"], given)
    test = None if given["test"] is None else _read([given["test"]], given)
    # After reading, so that a mistake there leaves no empty folder.
    _folder(out)
    cache = given["cache"] or out / "cache"
    try:
        results = benchmark(
            trials,
            given["pipelines"] or ["mdm", "tangent-space"],
            protocol=given["protocol"] or "leave-one-subject-out",
            adapt=given["adapt"] or ["none", "full"],
            random_state=0 if given["seed"] is None else given["seed"],
            n_jobs=given["n_jobs"] or 1,
            cache=cache,
            test=test,
            command=options.command_line,
        )
    except KeyboardInterrupt:
        print(
            f"eegtensor: interrupted; finished folds are in {cache}, the same command "
            "goes on from there",
            file=sys.stderr,
        )
        return 130
    results.config["options"] = {k: given[k] for k in (*_READING, "src", "card")}
    return _finish(results, out, report=not given["no_report"])


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


def _read(src: Sequence[str], given: dict[str, Any], store: str | None = None) -> Any:
    """Read trials as the options say, as a dataset card does, or from a store."""
    from eegtensor.io import open_card, read_trials
    from eegtensor.store import is_store
    from eegtensor.trials import Trials

    settings = {k: given[k] for k in _READING if given.get(k) is not None}
    if "bands" in settings:
        settings["bands"] = _pairs(settings["bands"])
    if "events" in settings:
        settings["events"] = _events(settings["events"])
    if settings.get("reference") == ["average"]:
        settings["reference"] = "average"
    paths = list(src) if len(src) > 1 else src[0]
    if store is None and not settings and len(src) == 1 and is_store(src[0]):
        if given.get("card"):
            fail(f"{src[0]} is a store, cut already", fix="leave --card out")
        return Trials.load(src[0])
    if store is not None:
        settings["store"] = store
    settings["progress"] = sys.stderr.isatty()
    card = given.get("card")
    if card is None and not {"tmin", "tmax"} & set(settings) and len(src) == 1:
        card = _card_of_folder(src[0])
        if card is not None:
            print(f"eegtensor: reading as the card {card!r} says", file=sys.stderr)
            # Only a card that was asked for may lower the guard.
            settings.setdefault("on_bad", "raise")
    if card is not None:
        if len(src) > 1:
            fail("--card goes with one SRC", fix="name the dataset's folder")
        return open_card(card, src[0], **settings)
    missing = [name for name in ("tmin", "tmax") if name not in settings]
    if missing:
        fail(
            f"No {' and '.join('--' + name for name in missing)} given",
            why="A trial is a window around its event",
            fix="give --tmin and --tmax in seconds, or --card NAME",
        )
    return read_trials(paths, **settings)


def _card_of_folder(src: str) -> str | None:
    """Return the card whose local folder has the source's name, if any."""
    from eegtensor.io.cards import list_cards, load_card

    if not Path(src).is_dir():
        return None
    folder = Path(src).resolve().name
    for name in list_cards()["name"]:
        if load_card(name).folder == folder:
            return str(name)
    return None


def _pairs(values: Sequence[Any]) -> list[tuple[float, float]]:
    """Return bands from LOW HIGH LOW HIGH ... or, of a TOML file, pairs."""
    if not isinstance(values, (list, tuple)):
        fail(f"bands={values!r}", fix="give LOW HIGH for every band")
    if values and isinstance(values[0], (list, tuple)):
        return [(float(low), float(high)) for low, high in values]
    if len(values) % 2:
        fail(f"--bands has {len(values)} numbers", fix="give LOW HIGH for every band")
    return [(values[i], values[i + 1]) for i in range(0, len(values), 2)]


def _events(values: Any) -> Any:
    """Return read_trials' `events` from NAME=CODE|CODE or NAME words or a dict."""
    if isinstance(values, dict):
        return values
    if isinstance(values, str):
        # In a TOML file one word may stand without brackets.
        values = values.split()
    if not any("=" in word for word in values):
        return list(values)
    events: dict[str, Any] = {}
    for word in values:
        name, _, codes = word.partition("=")
        found = [int(c) if c.lstrip("-").isdigit() else c for c in codes.split("|")]
        if not name or codes == "":
            fail(f"--events {word!r} is not NAME=CODE", fix="write left=1 right=2")
        events[name] = found[0] if len(found) == 1 else found
    return events


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
