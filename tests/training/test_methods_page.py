"""The page of methods says what the table says."""

from __future__ import annotations

from pathlib import Path

from eegtensor.training import METHODS
from eegtensor.training.methods.page import _TITLES, methods_page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training_methods.md"


def test_the_page_is_that_of_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == methods_page(), (
        "run python -m eegtensor.training.methods.page > docs/training_methods.md"
    )


def test_every_method_is_on_it_and_says_what_it_is() -> None:
    page = methods_page()
    assert {method.kind for method in METHODS.values()} <= set(_TITLES)
    for name in METHODS:
        (line,) = [
            x for x in page.splitlines() if x.startswith((f"| `{name}`", f"| `{name}("))
        ]
        assert len(line.split(" | ")[1]) > 10, name
