"""What a user sees first: names, their documentation, the cost of the import."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import eegtensor

PACKAGES = [
    "eegtensor",
    *(
        f"eegtensor.{m.name}"
        for m in pkgutil.iter_modules(eegtensor.__path__)
        if not m.name.startswith("_")
    ),
]


def test_import_is_light_and_quick() -> None:
    code = (
        "import sys, time; t = time.process_time(); import eegtensor; "
        "t = time.process_time() - t; "
        "print(t, sorted({'torch', 'mne', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    times = []
    for _ in range(3):
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        seconds, heavy = out.split(maxsplit=1)
        assert heavy.strip() == "[]"
        times.append(float(seconds))
    # CPU seconds, best of three: 0.13 here, and the design's limit is 0.3.
    assert min(times) < 0.3


@pytest.mark.parametrize("name", PACKAGES)
def test_all_names_are_importable_and_documented(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    for public in getattr(module, "__all__", []):
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{name}.{public} has no docstring"
        if inspect.isclass(value) and value.__module__.startswith("eegtensor"):
            for method, function in vars(value).items():
                if method.startswith("_") or not inspect.isfunction(function):
                    continue
                doc = inspect.getdoc(getattr(value, method))
                assert doc, f"{name}.{public}.{method} has no docstring"


def test_dir_lists_the_lazy_names() -> None:
    assert {"Trials", "read_trials", "benchmark", "PIPELINES"} <= set(dir(eegtensor))


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        eegtensor.nothing  # noqa: B018


def test_benchmark_is_a_function_however_it_was_imported() -> None:
    importlib.import_module("eegtensor.benchmark")
    assert callable(eegtensor.benchmark)
