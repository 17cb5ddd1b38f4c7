"""What is computed once for each trial, remembered by the trial's content.

Leave-one-subject-out asks for the same trials' lagged covariances in every
fold. Keys are digests of the samples, so that nothing has to be passed around,
and neither the order of trials nor their grouping matters.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# Statistics of some 10,000 trials of 22 channels.
LIMIT_BYTES = 512 << 20
_BLOCK = 256

_rows: OrderedDict[tuple[str, bytes], Tensor] = OrderedDict()
# Folds may run in threads of one process.
_lock = threading.Lock()


def digests(X: NDArray) -> list[bytes]:
    """Return a digest of every trial's samples, shape and dtype."""
    start = hashlib.blake2b(digest_size=16)
    start.update(repr((X.shape[1:], X.dtype.str)).encode())
    found = []
    for trial in X:
        digest = start.copy()
        digest.update(np.ascontiguousarray(trial).data)
        found.append(digest.digest())
    return found


def described(module: nn.Module) -> str:
    """Return what a module without learned parts computes: its plain attributes."""
    dtype = next((p.dtype for p in module.parameters()), None)
    parts = [
        (type(part).__name__, sorted(k for k in vars(part).items() if _is_plain(*k)))
        for part in module.modules()
    ]
    return repr((dtype, parts))


def _is_plain(name: str, value: object) -> bool:
    return (
        name != "training"
        and not name.startswith("_")
        and isinstance(value, (bool, int, float, str))
    )


def remembered(
    kind: str,
    X: NDArray,
    order: NDArray,
    compute: Callable[[NDArray], Tensor],
) -> Tensor:
    """Return one row a trial, from memory where it is known.

    Parameters
    ----------
    kind : str
        What `compute` does; rows of different kinds never mix.
    X : ndarray, shape (n_trials, ...)
    order : ndarray of int
        Trials wanted.
    compute : callable
        Trials ``(k, ...)`` to rows ``(k, n)``, on the CPU and without gradient;
        called on blocks.

    Returns
    -------
    rows : Tensor, shape (len(order), n)
    """
    keys = digests(X)
    wanted = [(kind, keys[i]) for i in order]
    with _lock:
        known = {key: _rows[key] for key in wanted if key in _rows}
    missing = np.asarray(
        [i for i, k in zip(order, wanted, strict=True) if k not in known]
    )
    for block in np.array_split(missing, -(-len(missing) // _BLOCK) or 1):
        if not len(block):
            continue
        # Copies of each row: a view would keep its whole block in memory.
        fresh = [row.clone() for row in compute(X[block])]
        known |= {(kind, keys[i]): row for i, row in zip(block, fresh, strict=True)}
    _remember(known)
    return torch.stack([known[key] for key in wanted])


def _remember(rows: dict[tuple[str, bytes], Tensor]) -> None:
    """Keep rows, the ones used last longest, within the limit."""
    with _lock:
        for key, row in rows.items():
            _rows[key] = row
            _rows.move_to_end(key)
        total = sum(row.nbytes for row in _rows.values())
        while total > LIMIT_BYTES:
            total -= _rows.popitem(last=False)[1].nbytes


def forget_trials() -> None:
    """Empty the memory."""
    with _lock:
        _rows.clear()
