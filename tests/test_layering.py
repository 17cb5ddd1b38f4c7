"""A module imports only from entries above it in the house's list."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "eegtensor"
ORDER = [
    "_version",
    "_check",
    "_literals",
    "_optional",
    "domains",
    "store",
    "trials",
    "_headmodel",
    "simulate",
    "io",
    "geometry",
    "tensor",
    "codebook",
    "nn",
    "models",
    "training",
    "features",
    "transfer",
    "tokens",
    "trust",
    "lifelong",
    "compress",
    "stream",
    "pipeline",
    "_builders",
    "auto",
    "pipelines",
    "benchmark",
    "integrations",
    "demo",
    "doctor",
    "_restored",
    "_segments",
    "restore",
    "_reading",
    "_tokenize",
    "cli",
]
# These import with torch, numpy, scipy and geoopt alone: a GPU box may have no more.
LIGHT = {
    "geometry",
    "tensor",
    "codebook",
    "nn",
    "models",
    "training",
    "domains",
    "_check",
    "_optional",
}
LIGHT_ALLOWED = {"numpy", "scipy", "torch", "geoopt", "eegtensor"}


def modules() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p.parent.name != "_cards"]


def entry(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Dotted names that a file imports, from eegtensor or elsewhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def internal(path: Path) -> set[str]:
    """Entries of the package that a file imports."""
    names = {n.split(".")[1] for n in imported(path) if n.startswith("eegtensor.")}
    files = {entry(p) for p in modules()}
    return names & (files | set(ORDER))


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_up(path: Path) -> None:
    here = entry(path)
    if here in ("__init__", "__main__"):
        return
    assert here in ORDER, f"{here} is not in the list of the house"
    allowed = set(ORDER[: ORDER.index(here) + 1])
    wrong = internal(path) - allowed
    assert not wrong, f"{path.name} imports {wrong}, which stand below it"


@pytest.mark.parametrize(
    "path",
    [p for p in modules() if entry(p) in LIGHT],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_light_entries_need_little(path: Path) -> None:
    import sys

    roots = {name.split(".")[0] for name in imported(path, top_level_only=True)}
    heavy = roots - LIGHT_ALLOWED - set(sys.stdlib_module_names) - {""}
    assert not heavy, f"{path.name} imports {heavy}"


def test_the_check_sees_a_wrong_import(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from eegtensor.benchmark import benchmark\n")
    assert "benchmark" in internal(bad)


def test_no_file_is_too_long() -> None:
    long = {
        str(p.relative_to(PACKAGE)): n
        for p in modules()
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not long
