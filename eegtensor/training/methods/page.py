"""The page of training methods for the documentation.

``python -m eegtensor.training.methods.page`` prints it; a test holds
``docs/training_methods.md`` to it.
"""

from __future__ import annotations

import inspect

from eegtensor.training.methods import METHODS
from eegtensor.training.registry import load

_TITLES = {
    "objective": "Objectives",
    "perturbation": "Perturbations of inputs, features and weights",
    "averager": "Averages of weights",
    "gradient transform": "Maps of gradients",
    "optimizer": "Optimizers",
    "schedule": "Schedules",
    "sampler": "Samplers",
    "score": "Scores of trials",
    "callback": "Monitors",
    "recipe": "Recipes: runs that are more than one plain loop",
    "calibration": "Calibration to a new person",
    "ensemble": "Ensembles of trained states",
    "head": "Heads and decoding",
}
_INTRODUCTION = """\
# Training methods

Made from `eegtensor.training.METHODS` by
`python -m eegtensor.training.methods.page > docs/training_methods.md`.

Objectives, perturbations, averages, maps of gradients, optimizers and samplers are
named in the parameters of a classifier, with options as in a call; objectives may have
weights and stand in a tuple:

```python
TSMNetClassifier(
    objective=("cross-entropy", "0.3 * vat(eps=1.0)"),
    perturbation="f-sam(rho=0.1)",
    averager="swa",
)
```

The cost is that of one step, in plain steps.
"""


def methods_page() -> str:
    """Return the page in Markdown."""
    parts = [_INTRODUCTION]
    for kind, title in _TITLES.items():
        lines = [_line(name) for name, m in METHODS.items() if m.kind == kind]
        if lines:
            head = "| name | what it is | paper | cost | needs |\n|---|---|---|---|---|"
            parts.append("\n".join([f"## {title}\n", head, *lines]) + "\n")
    return "\n".join(parts)


def _line(name: str) -> str:
    method, found = METHODS[name], load(name)
    summary = (inspect.getdoc(found) or "").split("\n\n")[0].replace("\n", " ")
    cells = (_call(name), summary, method.paper, method.cost, ", ".join(method.needs))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _call(name: str) -> str:
    """Return the name with the options that can be written behind it."""
    try:
        parameters = inspect.signature(load(name)).parameters.values()
    except ValueError:
        return f"`{name}`"
    plain = [
        f"{p.name}={p.default!r}"
        for p in parameters
        if isinstance(p.default, (str, int, float, bool, tuple, type(None)))
    ]
    return f"`{name}({', '.join(plain)})`" if plain else f"`{name}`"


if __name__ == "__main__":
    print(methods_page(), end="")
