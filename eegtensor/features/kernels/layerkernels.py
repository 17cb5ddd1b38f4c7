"""Neural tangent kernels of any network, layer by layer."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor, nn

from eegtensor._check import fail

# Bytes of the Jacobians of a block of trials.
_BLOCK = 1 << 26


def trial_jacobians(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return each parameter's Jacobian, (n_trials, n_outputs, n_numbers), by name.

    The network is in evaluation mode meanwhile, and nothing moves.

    Parameters
    ----------
    net : torch.nn.Module
        From (n_trials, ...) to (n_trials, n_outputs).
    x : Tensor, shape (n_trials, ...)
    """
    # geoopt takes a second to import, and only this needs it.
    from eegtensor.training.statistics import evaluating

    own = {n: p.detach() for n, p in net.named_parameters() if p.requires_grad}
    rest = {n: p.detach() for n, p in net.named_parameters() if not p.requires_grad}
    rest.update({n: b.detach() for n, b in net.named_buffers()})

    def one(values: dict[str, Tensor], row: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(net, {**rest, **values}, (row[None],))
        return out[0].reshape(-1)

    with evaluating(net):
        J = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0))(own, x)
    return {name: j.flatten(2).detach() for name, j in J.items()}


def layer_kernels(
    net: nn.Module, X: Tensor, Z: Tensor | None = None
) -> dict[str, Tensor]:
    """Return the neural tangent kernel of each layer: products of its gradients.

    K_l(x, z) = sum_k <d f_k(x) / d w_l, d f_k(z) / d w_l>; they add up to the whole
    network's kernel. A layer is a module with parameters of its own.

    Parameters
    ----------
    net : torch.nn.Module
        From (n, ...) to (n, n_outputs); read in evaluation mode.
    X : Tensor, shape (n, ...)
    Z : Tensor, shape (m, ...) | None
        None is X.

    Returns
    -------
    kernels : dict of str to Tensor, shape (n, m)
        By the name of the layer.

    Raises
    ------
    EEGTensorError
        If no parameter asks for gradients.

    References
    ----------
    A. Jacot, F. Gabriel and C. Hongler, "Neural tangent kernel", NeurIPS, 2018.
    """
    from eegtensor.training.statistics import evaluating

    size = sum(p.numel() for p in net.parameters() if p.requires_grad)
    if not size:
        fail("No parameter of the network asks for gradients")
    with evaluating(net), torch.no_grad():
        width = net(X[:1]).numel()
    step = max(1, _BLOCK // (8 * size * width))
    right = X if Z is None else Z
    rows: list[dict[str, Tensor]] = []
    for a in X.split(step):
        one = trial_jacobians(net, a)
        columns: list[dict[str, Tensor]] = []
        for b in right.split(step):
            two = trial_jacobians(net, b)
            block: dict[str, Tensor] = {}
            for name, j in one.items():
                layer = name.rpartition(".")[0]
                K = j.flatten(1) @ two[name].flatten(1).mT
                block[layer] = block[layer] + K if layer in block else K
            columns.append(block)
        rows.append({k: torch.cat([c[k] for c in columns], dim=1) for k in columns[0]})
    return {k: torch.cat([r[k] for r in rows]) for k in rows[0]}


def alignment_weights(kernels: list[NDArray], T: NDArray) -> NDArray:
    """Return nonnegative weights of kernels that add up nearest to T T', centred.

    The kernels are taken at trace n; the weights, sum one, are for those.
    """
    n = len(T)
    H = np.eye(n) - 1.0 / n
    wanted = (H @ T @ T.T @ H).ravel()
    columns = [(H @ K @ H).ravel() * n / np.trace(K) for K in kernels]
    w, _ = nnls(np.stack(columns, axis=1), wanted)
    if not w.sum() > 0:
        return np.full(len(kernels), 1.0 / len(kernels))
    found: NDArray = w / w.sum()
    return found
