"""What this machine has, what does not fit together, and the exact mend."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from eegtensor._optional import first_line

CORE = (
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "mne",
    "pyriemann",
    "torch",
    "geoopt",
    "safetensors",
)
OPTIONAL = {
    "braindecode": "braindecode",
    "moabb": "moabb",
    "pyarrow": "parquet",
    "antio": "formats",
    "curryreader": "formats",
    "mffpy": "formats",
    "neo": "formats",
    "edfio": "formats",
}


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes
    ----------
    name, state : str
    problem : str | None
        What is wrong, if anything.
    fix : str | None
        The command or step that mends it.
    """

    name: str
    state: str
    problem: str | None = None
    fix: str | None = None


def diagnose() -> list[Finding]:
    """Return versions, threads, GPU and pairings, each with its problem if any."""
    findings = [
        Finding("python", f"{platform.python_version()} on {platform.platform()}")
    ]
    findings += [_core(name) for name in CORE]
    findings += [_optional(name, extra) for name, extra in OPTIONAL.items()]
    findings += [_torchaudio(), _gpu(), _threads()]
    return findings


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _core(name: str) -> Finding:
    version = _version(name)
    if version is None:
        fix = "pip install eegtensor -c constraints.txt"
        return Finding(name, "missing", f"{name} is needed and not installed", fix)
    return Finding(name, version)


def _optional(name: str, extra: str) -> Finding:
    version = _version(name)
    if version is None:
        return Finding(name, f"not installed (optional: eegtensor[{extra}])")
    return Finding(name, version)


def _torchaudio() -> Finding:
    """Say whether torchaudio, which braindecode imports, loads beside this torch."""
    version = _version("torchaudio")
    if version is None:
        return Finding("torchaudio", "not installed (optional: eegtensor[braindecode])")
    try:
        importlib.import_module("torchaudio")
    except Exception as error:  # a mismatched torch fails in any way it likes
        try:
            import torch
        except (ImportError, OSError):
            return Finding("torchaudio", f"{version}, not tried: torch does not load")
        package = importlib.metadata.distribution("torchaudio")
        folder = Path(str(package.locate_file("torchaudio"))) / "lib"
        if torch.version.cuda is None:
            problem = (
                f"torchaudio {version} holds a library compiled for CUDA; torch "
                f"{torch.__version__} has none, so it cannot load"
            )
            fix = f"rm {folder}/_torchaudio*.so (torchaudio then skips it)"
        else:
            problem = (
                f"torchaudio {version} does not match torch {torch.__version__} "
                f"(CUDA {torch.version.cuda}): {first_line(error)}"
            )
            fix = "install a pair of one release, as torch==2.11.0 torchaudio==2.11.0"
        return Finding("torchaudio", version, problem, fix)
    return Finding("torchaudio", f"{version}, loads")


def _gpu() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding(
            "gpu", "unknown", f"torch does not load: {error}", "reinstall it"
        )
    if not torch.cuda.is_available():
        return Finding("gpu", "none that torch can use")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("gpu", ", ".join(names))


def _threads() -> Finding:
    from threadpoolctl import threadpool_info

    # The cores this process may use; macOS and Windows cannot say.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    cores = cores or os.cpu_count() or 1
    # threadpoolctl sees only the libraries that are loaded.
    importlib.import_module("numpy")
    pools = [f"{p['internal_api']} {p['num_threads']}" for p in threadpool_info()]
    return Finding("threads", f"{cores} cores; {', '.join(pools) or 'no pools'}")
