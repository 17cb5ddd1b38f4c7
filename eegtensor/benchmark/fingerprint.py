"""Content keys of estimators: class, source where it is the user's, parameters."""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib.metadata
import inspect
import json
import platform
import sys
import sysconfig
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

PACKAGES = ("numpy", "scipy", "scikit-learn", "mne", "pyriemann", "torch")


class Fingerprint(NamedTuple):
    """A key, or None and what could not be hashed."""

    key: str | None
    problem: str = ""


class _Unhashable(Exception):
    """A value without a content hash; the message names it."""


def fingerprint(estimator: Any) -> Fingerprint:
    """Return a key of an estimator's class, code and parameters, at all depths.

    Plain values, arrays, dtypes, classes, random generators and nested
    estimators are hashed by content. Functions and other objects are not: the
    result then has no key and names the parameter. Classes outside installed
    packages bring the source of their modules, and of the user's modules that
    these name, so that an edited class has another key.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        _feed(digest, estimator, "")
    except _Unhashable as error:
        return Fingerprint(None, str(error))
    return Fingerprint(digest.hexdigest())


def key_of(parts: dict[str, Any]) -> str:
    """Return the hash of a JSON-able dict."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


@functools.cache
def versions() -> dict[str, str]:
    """Return versions of Python, eegtensor and what it computes with."""
    found = {"python": platform.python_version()}
    for name in ("eegtensor", *PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            from eegtensor._version import __version__

            found[name] = __version__ if name == "eegtensor" else "absent"
    return found


@functools.cache
def package_source() -> str:
    """Return a hash of eegtensor's own source, which may change within a version."""
    digest = hashlib.blake2b(digest_size=16)
    root = Path(__file__).resolve().parent.parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _feed(digest: Any, value: Any, name: str) -> None:
    """Add a value to a hash; every value is preceded by its type and size."""
    if isinstance(value, enum.Enum):
        _feed_class(digest, type(value), name)
        _feed(digest, value.name, name)
    # The type's name counts: 1, 1.0 and True are equal, yet may act differently.
    elif value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        text = f"{type(value).__name__}:{value!r};"
        digest.update(f"{len(text)}:".encode() + text.encode())
    elif isinstance(value, (np.ndarray, np.generic)):
        _feed_array(digest, np.asarray(value), name)
    elif isinstance(value, np.dtype):
        digest.update(f"dtype:{value.str};".encode())
    elif isinstance(value, type):
        _feed_class(digest, value, name)
    elif isinstance(value, (list, tuple)):
        digest.update(f"{type(value).__name__}:{len(value)};".encode())
        for i, item in enumerate(value):
            _feed(digest, item, f"{name}[{i}]")
    elif isinstance(value, dict):
        digest.update(f"dict:{len(value)};".encode())
        for key, item in value.items():
            _feed(digest, key, f"{name} key")
            _feed(digest, item, f"{name}[{key!r}]")
    elif isinstance(value, (set, frozenset)):
        digest.update(f"set:{len(value)};".encode())
        for item in sorted(value, key=repr):
            _feed(digest, item, name)
    elif isinstance(value, (slice, range)):
        _feed(digest, (value.start, value.stop, value.step), name)
    elif isinstance(value, np.random.RandomState):
        _feed(digest, dict(value.get_state(legacy=False)), name)
    elif isinstance(value, np.random.Generator):
        _feed(digest, dict(value.bit_generator.state), name)
    elif hasattr(value, "get_params") and not isinstance(value, FunctionType):
        _feed_class(digest, type(value), name)
        # set_fit_request and its like are no parameters, yet choose what fit gets.
        request = repr(getattr(value, "_metadata_request", None))
        digest.update(f"request:{len(request)}:{request};".encode())
        for key, item in sorted(value.get_params(deep=False).items()):
            _feed(digest, key, name)
            _feed(digest, item, f"{name}__{key}" if name else key)
    else:
        raise _Unhashable(f"{name or 'estimator'} is a {type(value).__name__}")


def _feed_array(digest: Any, array: np.ndarray, name: str) -> None:
    if array.dtype.hasobject:
        digest.update(f"objects:{array.shape};".encode())
        _feed(digest, array.ravel().tolist(), name)
        return
    digest.update(f"array:{array.dtype.str}:{array.shape};".encode())
    digest.update(np.ascontiguousarray(array).tobytes())


def _feed_class(digest: Any, cls: type, name: str) -> None:
    digest.update(f"class:{cls.__module__}.{cls.__qualname__};".encode())
    for base in cls.__mro__:
        module = sys.modules.get(base.__module__)
        if module is None:
            raise _Unhashable(f"{name or 'estimator'} is of class {base.__qualname__}")
        if _is_users(module):
            for text in _sources(module, set(), name, base):
                digest.update(f"source:{len(text)};".encode() + text.encode())
        else:
            digest.update(f"version:{_version(module.__name__)};".encode())


def _sources(module: ModuleType, seen: set[str], name: str, cls: type) -> list[str]:
    """Return the text of a user's module and of the user's modules it refers to.

    Of installed modules that it refers to, the version.
    """
    if module.__name__ in seen:
        return []
    seen.add(module.__name__)
    try:
        # The file, not inspect's line cache: an edit on disk must change the key.
        path = inspect.getsourcefile(module)
        texts = [Path(path or "").read_text(encoding="utf-8")]
    except (OSError, TypeError, ValueError) as error:
        what = f"the source of {cls.__qualname__}"
        raise _Unhashable(
            f"{name or 'estimator'}: {what} (module {module.__name__}) cannot be read; "
            "define it in a .py file"
        ) from error
    for value in list(vars(module).values()):
        owner = value if isinstance(value, ModuleType) else _owner(value)
        if owner is module:
            # What is loaded may be older than the file: both are in the key.
            texts += [_code(function.__code__) for function in _functions(value)]
        elif owner is not None and _is_users(owner):
            texts += _sources(owner, seen, name, cls)
        elif owner is not None:
            texts.append(f"{owner.__name__} {_version(owner.__name__)}")
    return texts


def _owner(value: Any) -> ModuleType | None:
    name = getattr(value, "__module__", None)
    return sys.modules.get(name) if isinstance(name, str) else None


def _functions(value: Any) -> list[FunctionType]:
    members = list(vars(value).values()) if isinstance(value, type) else [value]
    members = [getattr(member, "__func__", member) for member in members]
    return [member for member in members if isinstance(member, FunctionType)]


def _code(code: CodeType) -> str:
    # Sets of constants are ordered by hashes, which differ between processes.
    constants = [
        _code(c)
        if isinstance(c, CodeType)
        else sorted(map(repr, c))
        if isinstance(c, frozenset)
        else c
        for c in code.co_consts
    ]
    return repr((code.co_code, code.co_names, constants))


@functools.cache
def _installed_folders() -> tuple[str, ...]:
    folders = {sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib")}
    # A virtual environment's standard library lies with its base Python.
    folders |= {str(Path(json.__file__).parent.parent)}
    return tuple(sorted({str(Path(folder).resolve()) for folder in folders}))


def _is_users(module: ModuleType) -> bool:
    """Return whether a module's code is neither installed nor eegtensor's."""
    top = module.__name__.partition(".")[0]
    if top == "eegtensor" or top in sys.builtin_module_names:
        return False
    file = getattr(module, "__file__", None)
    if file is None:
        return module.__name__ == "__main__"
    path = Path(file).resolve()
    if {"site-packages", "dist-packages"} & set(path.parts):
        return False
    return not any(path.is_relative_to(folder) for folder in _installed_folders())


@functools.cache
def _version(module: str) -> str:
    """Return the version of the package that an installed module belongs to."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return platform.python_version()
    if top == "eegtensor":
        return package_source()
    found = getattr(sys.modules.get(top), "__version__", None)
    if isinstance(found, str):
        return found
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


# Now rather than at the first run: what is loaded must not be filed under source
# that was edited since, as in a notebook that stays open.
package_source()
