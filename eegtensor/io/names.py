"""Who was recorded: subject, session, run and task from a recording's path."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from eegtensor._check import fail, listing

Names = str | Callable[[Path], Mapping[str, Any]] | None

UNKNOWN = "0"
_FIELDS = ("subject", "session", "run", "task")
_ENTITIES = {"sub": "subject", "ses": "session", "run": "run", "task": "task"}
_ENTITY = re.compile(r"(?:^|[/_])(sub|ses|run|task)-([A-Za-z0-9]+)")
_ENDINGS = re.compile(
    r"(?i)[-_](raw|eeg|ieeg|meg|epo|sss|tsss)$|[-_]raw[-_](sss|tsss)$"
)
_SUFFIX = re.compile(r"(?i)(\.fif\.gz|\.[a-z][a-z0-9]*)$")


class Label(NamedTuple):
    """Whose recording it is."""

    subject: str
    session: str = UNKNOWN
    run: str = UNKNOWN
    task: str = ""

    def __str__(self) -> str:
        """Return subject, session and run in words."""
        return f"subject {self.subject}, session {self.session}, run {self.run}"


def stem(path: Path) -> str:
    """Return a recording's name without its suffix."""
    return _SUFFIX.sub("", path.name) or path.name


def base_stem(path: Path) -> str:
    """Return `stem` without what only says that this is the recording ("_raw")."""
    return _ENDINGS.sub("", stem(path))


def label_of(path: Path, names: Names = None) -> Label:
    """Return whose recording this is.

    Parameters
    ----------
    path : Path
    names : str | callable | None
        None reads BIDS entities (``sub-01/ses-0/``, ``run-2``) anywhere in the
        path, the last one counting; without ``sub-`` the file's stem is the
        subject. A template such as ``"S{subject}_{session}.edf"`` is matched
        with the end of the path (``*`` stands for anything but a slash). A
        function gets the path and returns a dict.

    Returns
    -------
    label : Label
        Session and run are "0" where unknown.

    Raises
    ------
    EEGTensorError
        If the template does not fit the path, or the function returns
        something else than a dict with a subject.
    """
    if names is None:
        found = {_ENTITIES[k]: v for k, v in _ENTITY.findall(path.as_posix())}
    elif callable(names):
        found = _from_function(path, names)
    else:
        found = _from_template(path, names)
    # Without a name of its own every file would be one person's: leave-one-out lies.
    found.setdefault("subject", base_stem(path))
    return Label(**found)


def _from_function(
    path: Path, names: Callable[[Path], Mapping[str, Any]]
) -> dict[str, str]:
    found = names(path)
    if not isinstance(found, Mapping) or not set(found) <= set(_FIELDS):
        fail(
            f"names({str(path)!r}) returned {found!r}",
            fix=f"return a dict with some of the keys {listing(_FIELDS)}",
        )
    return {key: str(value) for key, value in found.items() if value is not None}


def _from_template(path: Path, template: str) -> dict[str, str]:
    pattern = ""
    seen: set[str] = set()
    for part in re.split(r"(\{[^{}]*\}|\*)", template):
        field = part[1:-1] if part.startswith("{") else None
        if part == "*":
            pattern += "[^/]*"
        elif field is None:
            pattern += re.escape(part)
        elif field not in _FIELDS:
            fail(
                f"names={template!r} has the unknown field {part}",
                fix="use " + listing("{" + name + "}" for name in _FIELDS),
            )
        elif field in seen:
            # BIDS repeats entities in folder and file: both must agree.
            pattern += f"(?P={field})"
        else:
            seen.add(field)
            # Lazy: "{subject}_{session}" splits "a_b_c" at the first underscore.
            pattern += f"(?P<{field}>[^/]+?)"
    whole = re.compile(f"(?:^|/){pattern}$")
    text = path.as_posix()
    bare = _SUFFIX.sub("", text)
    with_suffix = "." in template.rpartition("/")[2]
    # A template without suffix must not take the suffix into its last field.
    texts = (text, bare) if with_suffix else (bare, text)
    match = whole.search(texts[0]) or whole.search(texts[1])
    if match is None:
        fail(
            f"The path {path} does not fit names={template!r}",
            why="Subject and session would be unknown",
            fix="correct the template, choose files with include=, or give a "
            "function names(path) -> {'subject': ..., 'session': ...}",
        )
    return match.groupdict()
