"""Optional packages: imported when needed, explained when absent or broken."""

from __future__ import annotations

import importlib
from types import ModuleType

from eegtensor._check import EEGTensorError, fail


class MissingPackageError(EEGTensorError, ImportError):
    """An optional package is absent or cannot be loaded."""


def need(name: str, purpose: str, *, extra: str | None = None) -> ModuleType:
    """Import and return an optional package.

    Parameters
    ----------
    name : str
        Module to import, for example ``"moabb"``.
    purpose : str
        What it is needed for, as in "running MOABB evaluations".
    extra : str | None
        The extra of eegtensor that installs it.

    Raises
    ------
    MissingPackageError
        If the import fails; the message names the command that mends it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        package = f"eegtensor[{extra}]" if extra else name
        fail(
            f"{purpose[0].upper() + purpose[1:]} needs the package {name!r}, "
            f"and {missing!r} is not installed",
            fix=f"pip install '{package}' -c constraints.txt",
            error=MissingPackageError,
            cause=error,
        )
    except (ImportError, OSError) as error:
        # torchaudio raises OSError when its compiled part and torch differ; other
        # packages an ImportError, though nothing is missing.
        fail(
            f"{purpose[0].upper() + purpose[1:]} needs the package {name!r}, "
            f"which is installed but does not load: {first_line(error)}",
            fix="run `eegtensor doctor`, which names the mismatch and its mend",
            error=MissingPackageError,
            cause=error,
        )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its name where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
