"""Tokenising files: recordings in; tokens, a table and pictures out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from eegtensor._check import EEGTensorError, fail, listing
from eegtensor.tokens._files import open_file
from eegtensor.tokens._prepared import prepared_pair
from eegtensor.tokens._signals import Signals, read_signals, scale_of
from eegtensor.tokens._storing import save_tokens
from eegtensor.tokens.evaluate import BANDS, distortion
from eegtensor.tokens.tokenizer import EEGTokenizer
from eegtensor.tokens.tokens import Tokens

if TYPE_CHECKING:
    import pandas as pd

_ENDING = ".tokens.safetensors"


class Tokenization(NamedTuple):
    """What was tokenised, and where the results are.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a file: where its tokens are, seconds, channels, tokens sent, share
        of the codes that occur, bits a second and channel, errors over all and by
        band (see `Distortion`).
    failed : dict of str to str
        By file: what is wrong with it and what to do.
    tokenizer : EEGTokenizer
    fitted : bool
        Whether it was fitted on these files.
    out : Path
        Folder of tokens (`load_tokens`), pictures, ``tokens.csv`` and
        ``tokenizer.safetensors``.
    """

    table: pd.DataFrame
    failed: dict[str, str]
    tokenizer: EEGTokenizer
    fitted: bool
    out: Path

    def __str__(self) -> str:
        """Return the table and what it is of, as text."""
        made = self.tokenizer
        how = "spatial, " if made.spatial else ""
        text = f"{made.kind}, {how}at most {made.bits_per_second_:.0f} bit/s/channel"
        lines = [
            f"{text}, fitted on these files: they show less error than new ones will"
            if self.fitted
            else text
        ]
        for row in self.table.to_dict("records"):
            lines.append(
                f"{row['file']}: {row['channels']} channels, {row['seconds']:.0f} s, "
                f"{row['tokens']} tokens, {row['bits_per_second']:.1f} "
                f"bit/s/channel, NRMSE {row['nrmse']:.3f}"
            )
        bands = self.table.mean(numeric_only=True)
        lines.append("By band      error/energy   power, dB   phase, degrees")
        lines += [
            f"  {band:10} {bands[f'nmse_{band}']:12.3f} "
            f"{bands[f'power_db_{band}']:11.2f} {bands[f'phase_deg_{band}']:16.1f}"
            for band in BANDS
        ]
        lines.append(f"Wrote {self.out}: tokens, tokens.csv and a picture of each file")
        return "\n".join(lines)


def tokenize_files(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    tokenizer: EEGTokenizer | str | os.PathLike[str] | None = None,
    kind: str = "band-rvq",
    bits_per_second: float = 104,
    spatial: bool = False,
    random_state: int = 0,
) -> Tokenization:
    """Tokenise continuous recordings, and write tokens, a table and pictures.

    Parameters
    ----------
    files : path or list of paths
        Files and folders that hold recordings.
    out : path
        A folder.
    tokenizer : EEGTokenizer | path | None
        Fitted, or where one was saved; None fits one on the files.
    kind, bits_per_second, spatial, random_state
        Of the one that is fitted, see `EEGTokenizer`.

    Returns
    -------
    Tokenization
        A file that cannot be used stands in `failed`; the others go on.

    Raises
    ------
    EEGTensorError
        If no file can be tokenised, the tokenizer cannot be read, or the fit fails.
    """
    import pandas as pd

    if isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = EEGTokenizer.load(tokenizer)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        fail(f"{folder} is a file", fix="name a folder for the results")
    failed: dict[str, str] = {}
    given = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    recordings: Any = _readable(_found(given, failed), failed)
    fitted = tokenizer is None
    if tokenizer is None:
        recordings = list(recordings)
        if not recordings:
            _fail_all(failed)
        tokenizer = EEGTokenizer(
            kind,
            bits_per_second=bits_per_second,
            spatial=spatial,
            random_state=random_state,
        ).fit([raw for _, raw in recordings])
    # Only now, so that a mistake before leaves no empty folder.
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(
            f"{folder} cannot be made: {error.strerror}",
            fix="name another folder for the results",
            cause=error,
        )
    rows: list[dict[str, Any]] = []
    taken: set[str] = set()
    for path, raw in recordings:
        try:
            name = _free_name(path, taken)
            rows.append(_one_file(tokenizer, path, raw, folder / name))
        except EEGTensorError as error:
            failed[str(path)] = _of_file(path, error)
    if not rows:
        _fail_all(failed)
    table = pd.DataFrame(rows)
    table.to_csv(folder / "tokens.csv", index=False, float_format="%.6g")
    tokenizer.save(folder / "tokenizer.safetensors")
    return Tokenization(table, failed, tokenizer, fitted, folder)


def _found(
    given: Sequence[str | os.PathLike[str]], failed: dict[str, str]
) -> Iterator[Path]:
    """Yield the recordings that paths stand for, each once."""
    from eegtensor.io.discover import find_recordings

    seen = set()
    for item in given:
        try:
            paths = find_recordings([item])[0]
        except EEGTensorError as error:
            failed[str(item)] = _of_file(item, error)
            continue
        for path in paths:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _readable(
    paths: Iterator[Path], failed: dict[str, str]
) -> Iterator[tuple[Path, Any]]:
    """Yield the recordings that can be tokenised: one that cannot spoils no fit."""
    for path in paths:
        try:
            raw = open_file(path)
            scale_of(read_signals(raw, None))
        except EEGTensorError as error:
            failed[str(path)] = _of_file(path, error)
            continue
        yield path, raw


def _one_file(tokenizer: Any, path: Path, raw: Any, base: Path) -> dict[str, Any]:
    from eegtensor.tokens.plots import draw_reconstruction

    signals: Signals = read_signals(raw, None)
    tokens = tokenizer.encode(raw)
    rebuilt = tokenizer.decode(tokens)
    x, y = prepared_pair(signals.X[0], rebuilt, signals.sfreq)
    found = distortion([x], [y])._replace(bits_per_second=tokens.bits_per_second)
    save_tokens(tokens, base.with_name(base.name + _ENDING))
    picture = draw_reconstruction(x, y, signals.ch_names, found)
    picture.savefig(base.with_name(base.name + ".png"), dpi=110)
    return {
        "file": str(path),
        "tokens_file": base.name + _ENDING,
        "seconds": raw.n_times / signals.sfreq,
        "channels": len(signals.ch_names),
        **_counts(tokens),
        **found.row(),
    }


def _counts(tokens: Tokens) -> dict[str, Any]:
    """Return how many tokens were sent, and the share of the codes that occur."""
    ids = np.asarray(tokens.ids).reshape(-1, len(tokens.alphabet))
    used = sum(len(np.unique(slot[slot >= 0])) for slot in ids.T)
    asked = tokens.alphabet[(ids >= 0).any(axis=0)].sum()
    return {
        "tokens": int((ids >= 0).sum()),
        "codes_used": float(used / max(asked, 1)),
    }


def _free_name(path: Path, taken: set[str]) -> str:
    """Return a file's name without its ending, numbered where another has it."""
    stem = path.name.removesuffix(".gz")
    stem = stem.rpartition(".")[0] or stem
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    taken.add(name)
    return name


def _of_file(path: str | os.PathLike[str], error: Exception) -> str:
    """Return an error's words, that of which file among them."""
    text = str(error)
    return text if str(path) in text else f"{path}: {text}"


def _fail_all(failed: dict[str, str]) -> NoReturn:
    fail(
        "No file could be tokenised: " + " ".join(failed.values()),
        fix="mend or leave out " + listing(failed, 4),
    )
