"""Options written as in a call, read without running anything."""

from __future__ import annotations

import ast
from typing import Any


def keyword_literals(text: str) -> dict[str, Any]:
    """Return the options of ``"(name=value, ...)"``; values are Python literals.

    Raises
    ------
    ValueError
        If the text is anything else.
    """
    try:
        call = ast.parse(f"f{text}", mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{text!r} is no list of options") from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError("not one call")
    # Without a name it would be a value alone, or a dict of options.
    if call.args or not all(k.arg for k in call.keywords):
        raise ValueError("a value has no name")
    try:
        return {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (ValueError, TypeError, SyntaxError) as error:
        raise ValueError("a value is no literal") from error
