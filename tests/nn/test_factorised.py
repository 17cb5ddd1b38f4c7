"""FactorizedLinear: the same numbers as the dense weight, in fewer operations."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from nn._networks import KINDS, SEMI, dense
from torch import nn

from eegtensor._check import EEGTensorError
from eegtensor.nn import FactorizedConv1d, FactorizedLinear, _orders, factorize_
from eegtensor.nn._contract import _linear, _Network, contract, dense_cost, plan
from eegtensor.nn._layout import choose_layout, make_layout
from eegtensor.nn._mode_shapes import balanced_shape
from eegtensor.nn._orders import copied


def layer(kind: str, **options: object) -> FactorizedLinear:
    settings = {"rank": 4, "in_shape": (4, 6), "out_shape": (2, 8), "t": 2}
    settings |= {"dtype": torch.float64, "generator": torch.Generator().manual_seed(1)}
    return FactorizedLinear(24, 16, kind, **(settings | options))  # type: ignore[arg-type]


def arrays(net: FactorizedLinear) -> list[np.ndarray]:
    return [core.detach().cpu().numpy() for core in net.cores]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [1, 2])
def test_weight_is_the_kronecker_reconstruction(kind: str, t: int) -> None:
    if kind in ("stt", "str"):
        net = layer(kind, t=t, rank=(4, 2, 6) if kind == "stt" else (2, 4, 6, 4))
    else:
        net = layer(kind, t=t)
    W = dense(kind, net.layout.modes, arrays(net)).reshape(24, 16).T
    np.testing.assert_allclose(net.weight.detach().numpy(), W, rtol=0, atol=1e-12)
    assert np.ptp(W) > 0.05


@pytest.mark.parametrize("kind", SEMI)
def test_t_of_one_is_the_plain_kind(kind: str) -> None:
    semi, plain = layer(kind, t=1), layer(SEMI[kind])
    assert semi.layout.shapes == plain.layout.shapes
    plain.load_state_dict(semi.state_dict())
    torch.testing.assert_close(semi.weight, plain.weight, rtol=0, atol=0)
    x = torch.randn(5, 24, dtype=torch.float64)
    torch.testing.assert_close(semi(x), plain(x), rtol=0, atol=0)


def test_semi_tensor_product_has_fewer_numbers() -> None:
    def numbers(kind: str) -> int:
        return choose_layout(kind, (16, 16, 16, 16), 16).n_parameters

    assert numbers("tt") / numbers("stt") >= 3.0
    assert numbers("tr") / numbers("str") == 4.0
    tucker = choose_layout("tucker", (16,) * 4, 8)
    semi = choose_layout("sttu", (16,) * 4, 8)
    assert tucker.n_parameters - 8**4 == 4 * (semi.n_parameters - 8**4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(24,), (1, 24), (7, 24), (3, 5, 24), (0, 24)])
def test_forward_is_x_times_the_weight(
    kind: str, shape: tuple[int, ...], device: str
) -> None:
    net = layer(kind).to(device)
    x = torch.randn(shape, dtype=torch.float64, device=device)
    y = torch.nn.functional.linear(x, net.weight, net.bias)
    torch.testing.assert_close(net(x), y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    net = FactorizedLinear(
        8, 4, kind, 2, in_shape=(2, 4), out_shape=(2, 2), dtype=torch.float64
    )
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    names = list(dict(net.named_parameters()))

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(net, state, (x,))

    assert torch.autograd.gradcheck(run, (x, *net.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_initial_weight_has_glorot_variance(kind: str) -> None:
    g = torch.Generator().manual_seed(0)
    shapes = {"in_shape": (8, 8), "out_shape": (4, 8), "generator": g}
    squares = [
        FactorizedLinear(64, 32, kind, 6, **shapes).weight.square().mean()  # type: ignore[arg-type]
        for _ in range(160)
    ]
    ratios = torch.stack(squares).detach() * (64 + 32) / 2
    uncertainty = float(ratios.std()) / len(ratios) ** 0.5
    assert uncertainty < 0.1
    assert abs(float(ratios.mean()) - 1.0) < 3.5 * uncertainty


@pytest.mark.parametrize("kind", ["tt", "tucker", "cp", "stt", "sttu"])
def test_a_weight_of_the_same_form_is_found_again(kind: str) -> None:
    planted = layer(kind, rank=2)
    linear = torch.nn.Linear(24, 16, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(planted.weight * 1e-6)
    options = {"in_shape": (4, 6), "out_shape": (2, 8)}
    net = FactorizedLinear.from_linear(linear, kind, 2, **options)  # type: ignore[arg-type]
    # Alternating least squares stops at a change of 1e-5; the others are exact.
    assert net.error < (1e-2 if kind == "cp" else 1e-6)
    lost = (net.weight - linear.weight).norm() / linear.weight.norm()
    assert float(lost.detach()) == pytest.approx(net.error, abs=1e-12)
    torch.testing.assert_close(net.bias, linear.bias)


@pytest.mark.parametrize(
    ("kind", "rank"),
    [
        ("tt", 16),
        ("tucker", 16),
        ("tr", (1, 4, 16, 4)),
        # Twice the ranks of the trains above, with the identities' letters moved.
        ("stt", (16, 16, 4)),
        ("str", (2, 8, 32, 8)),
        ("sttu", 16),
    ],
)
def test_enough_rank_loses_nothing(kind: str, rank: int | tuple[int, ...]) -> None:
    linear = torch.nn.Linear(16, 16, dtype=torch.float64).eval()
    modes = {"in_shape": (4, 4), "out_shape": (4, 4)}
    net = FactorizedLinear.from_linear(linear, kind, rank, **modes)  # type: ignore[arg-type]
    assert net.error < 1e-6
    assert not net.training


def test_zero_weight_and_one_that_is_not_finite() -> None:
    net = layer("tr")
    assert net.set_weight(torch.zeros(16, 24, dtype=torch.float64)) == 0.0
    assert not net.weight.any()
    with pytest.raises(EEGTensorError, match="diverged"):
        net.set_weight(torch.full((16, 24), torch.nan, dtype=torch.float64))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_share_is_kept_and_used(kind: str, share: float) -> None:
    layout = choose_layout(kind, (16, 16, 16, 16), share)
    assert layout.n_parameters <= share * 256**2
    assert layout.n_parameters >= 0.7 * share * 256**2


def test_balanced_shapes() -> None:
    wanted = {1: (1,), 4: (4,), 61: (61,), 62: (2, 31), 64: (8, 8), 256: (16, 16)}
    wanted |= {512: (8, 8, 8), 1000: (10, 10, 10), 40: (5, 8)}
    assert {n: balanced_shape(n) for n in wanted} == wanted


# -- planned contraction ------------------------------------------------------------


def brute_force(network: _Network) -> float:
    """Smallest cost over all orders of pairs."""

    def search(alive: tuple[int, ...]) -> float:
        if len(alive) == 1:
            return 0.0
        best = math.inf
        for a, b in itertools.combinations(alive, 2):
            rest = tuple(s for s in alive if s not in (a, b))
            best = min(best, network.cost(a, b) + search((*rest, a | b)))
        return best

    return search(tuple(1 << n for n in range(len(network.terms))))


def tree_joins(
    split: dict[int, tuple[int, int]], n_nodes: int
) -> list[tuple[int, int]]:
    found, left = [], [(1 << n_nodes) - 1]
    while left:
        nodes = left.pop()
        if nodes in split:
            found.append(split[nodes])
            left += split[nodes]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_plan_is_the_cheapest_of_all_orders(kind: str) -> None:
    layout = make_layout(
        kind, (6, 4, 8, 2), {"tt": (4, 8, 2), "stt": (4, 8, 2), "cp": (9,)}.get(
            kind, (2, 4, 6, 2)), 2
    )  # fmt: skip
    x = "Z" + "".join(layout.mode_terms[:2])
    out = "Z" + "".join(layout.mode_terms[2:])
    sizes = (*layout.sizes, ("Z", 100))
    network = _Network((x, *layout.terms), out, dict(sizes))
    made = plan((x, *layout.terms), out, sizes)
    tree = network.exact()
    assert sum(
        network.cost(a, b) for a, b in tree_joins(tree, len(layout.terms) + 1)
    ) == (pytest.approx(brute_force(network), rel=1e-12))
    # A greedy order is another order, with the same result.
    other = _linear(network, network.greedy())
    size = dict(sizes)
    tensors = [
        torch.randn([size[c] for c in term], dtype=torch.float64)
        for term in (x, *layout.terms)
    ]
    whole = torch.einsum(",".join((x, *layout.terms)) + "->" + out, *tensors)
    for how in (made, other):
        torch.testing.assert_close(contract(how, tensors), whole, rtol=0, atol=1e-9)


def test_a_large_batch_rebuilds_and_a_small_one_does_not() -> None:
    net = FactorizedLinear(256, 256, "tr", 24)
    weight = "".join(net.layout.mode_terms)

    def rebuilds(n: int) -> bool:
        made = [step.equation.split("->")[1] for step in net.plan(n).steps]
        return any(set(letters) == set(weight) for letters in made)

    # Bonds of 24^2 are wider than 256 features.
    assert rebuilds(100_000)
    assert not rebuilds(1)


def test_a_copy_is_counted_where_torch_makes_one() -> None:
    sizes = {"a": 2, "b": 3, "c": 4, "d": 5}
    x = torch.empty(2, 3, 4, 5)
    seen = set()
    for order in itertools.permutations("abcd"):
        for cut in range(1, 4):
            rows, columns = "".join(order[:cut]), "".join(order[cut:])
            cost = copied("abcd", rows, columns, lambda s: math.prod(map(sizes.get, s)))  # type: ignore[arg-type]
            n = math.prod(sizes[c] for c in rows)
            flat = x.permute(["abcd".index(c) for c in order]).reshape(n, -1)
            assert (cost == 0.0) == (flat.data_ptr() == x.data_ptr())
            seen.add(cost == 0.0)
    assert seen == {True, False}


@pytest.mark.parametrize("kind", ["stt", "str", "sttu"])
def test_axes_are_ordered_so_that_less_is_copied(kind: str) -> None:
    net = FactorizedLinear(256, 256, kind, 0.1)
    network = _Network(
        ("Z" + "".join(net.layout.mode_terms[:2]), *net.layout.terms),
        "Z" + "".join(net.layout.mode_terms[2:]),
        dict((*net.layout.sizes, ("Z", 64))),
    )
    arranged = _linear(network, network.exact())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_orders, "SWEEPS", 0)
        natural = _linear(network, network.exact())
    assert arranged.flops == natural.flops
    assert arranged.cost < 0.95 * natural.cost


@pytest.mark.parametrize("batch", [1, 64, 1024])
@pytest.mark.parametrize("kind", KINDS)
def test_no_plan_costs_more_than_to_rebuild_the_weight(kind: str, batch: int) -> None:
    layout = FactorizedLinear(256, 256, kind, 0.1).layout
    rebuilt = plan(layout.terms, "".join(layout.mode_terms), layout.sizes).cost
    cost = FactorizedLinear(256, 256, kind, 0.1).plan(batch).cost
    # The two ways differ in which of a few small copies they need.
    assert cost <= 1.02 * (rebuilt + dense_cost(batch, 256, 256))


def test_many_modes_are_planned_fast() -> None:
    net = FactorizedLinear(256, 256, "tt", 4, in_shape=[2] * 8, out_shape=[2] * 8)
    x = torch.randn(3, 256)
    torch.testing.assert_close(net(x), x @ net.weight.mT + net.bias)


# -- the kept weight ------------------------------------------------------------------


def wide() -> tuple[FactorizedLinear, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    net = FactorizedLinear(32, 32, "str", (8, 8, 8, 8), generator=g).eval()
    return net, torch.randn(4096, 32, generator=g)


@pytest.mark.parametrize(
    "change",
    [
        lambda core: core.mul_(2.0),
        lambda core: core.data.mul_(2.0),
        lambda core: core.detach().numpy().__imul__(2.0),
        lambda core: setattr(core, "data", 2.0 * core.data),
    ],
    ids=["in place", "data in place", "numpy", "new data"],
)
def test_the_kept_weight_is_never_stale(change: object) -> None:
    net, x = wide()
    with torch.no_grad():
        before = [net(x) for _ in range(3)][-1]
        assert net._kept is not None
        assert net._kept.weight is not None
        change(net.cores[1])  # type: ignore[operator]
        for _ in range(3):
            after = net(x)
            torch.testing.assert_close(after, x @ net.weight.mT + net.bias)
    assert (after - before).abs().max() > 0.1 * before.abs().max()


def test_the_kept_weight_is_only_for_use() -> None:
    net, x = wide()
    net(x), net(x)
    assert net._kept is None
    with torch.inference_mode():
        net(x), net(x)
    assert net._kept is not None
    assert net._kept.weight is not None
    # What it was made by does not show: gradients, copies, other numbers.
    net(x).sum().backward()
    assert all(core.grad is not None for core in net.cores)
    size = len(pickle.dumps(net))
    assert copy.deepcopy(net)._kept is None
    assert len(net.state_dict()) == 5
    with torch.no_grad():
        state = {name: 3.0 * p for name, p in net.named_parameters()}
        y = torch.func.functional_call(net, state, (x,))
        z = x @ (81.0 * net.weight.mT) + 3.0 * net.bias
        torch.testing.assert_close(y, z, rtol=0, atol=1e-5 * float(z.abs().max()))
        half = net.double()
        torch.testing.assert_close(
            half(x.double()), x.double() @ half.weight.mT + half.bias
        )
    assert net.train()._kept is None
    assert len(pickle.dumps(net)) < 2.1 * size


# -- as a module ----------------------------------------------------------------------


def test_copies_and_pickles_give_the_same() -> None:
    for kind in KINDS:
        net = layer(kind)
        x = torch.randn(3, 24, dtype=torch.float64)
        y = net(x)
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            torch.testing.assert_close(other(x), y, rtol=0, atol=0)


def test_the_seed_decides() -> None:
    a, b = layer("tr"), layer("tr")
    torch.testing.assert_close(a.weight, b.weight, rtol=0, atol=0)
    single = layer("tr", dtype=torch.float32)
    torch.testing.assert_close(single.weight.double(), a.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["tr", "sttu"])
def test_export_with_any_batch(kind: str) -> None:
    net = layer(kind, dtype=torch.float32)
    batch = torch.export.Dim("batch", min=2, max=4096)
    program = torch.export.export(
        net, (torch.randn(6, 24),), dynamic_shapes=({0: batch},)
    )
    for n in (2, 50):
        x = torch.randn(n, 24)
        torch.testing.assert_close(program.module()(x), net(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_gives_bfloat16(kind: str, device: str) -> None:
    net = layer(kind, dtype=torch.float32).to(device)
    x = torch.randn(9, 24, device=device)
    with torch.autocast(device, torch.bfloat16):
        y = net(x)
    assert y.dtype == torch.bfloat16
    error = (y.float() - net(x)).norm() / net(x).norm()
    assert float(error.detach()) < 0.03
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "ttt"}, "kind"),
        ({"rank": 0}, "rank=0"),
        ({"rank": -2}, "rank=-2"),
        ({"rank": 1.5}, "share such as"),
        ({"rank": (2, 2)}, "give 3 ranks"),
        ({"in_shape": (5, 5)}, "product 25"),
        ({"kind": "stt", "t": 5}, "multiples of 5"),
        ({"kind": "str", "t": 0}, "t=0"),
        ({"in_shape": [2, 2, 2, 3] + [1] * 16}, "fewer"),
    ],
)
def test_mistakes_are_explained(options: dict[str, object], words: str) -> None:
    with pytest.raises(EEGTensorError, match=words):
        layer(options.pop("kind", "tt"), **options)  # type: ignore[arg-type]
    with pytest.raises(EEGTensorError, match="24 features"):
        layer("tt")(torch.zeros(2, 23, dtype=torch.float64))


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("rank", ["a", None, 2.5, -1, 0, 1.0, float("nan"), True, [2, "a"], [2.5]]),
        ("t", ["a", None, 2.5, 0, True]),
        ("in_shape", ["a", 4, 2.5, [4.0, 4], [4, "a"], [4, 3]]),
        ("in_features", ["a", None, 2.5, -1, 0]),
        ("out_features", ["a", None, 2.5, -1, 0]),
    ],
)
def test_options_of_the_wrong_kind_are_named(option: str, values: list) -> None:
    given = {"in_features": 16, "out_features": 16, "kind": "stt", "rank": 4}
    for value in values:
        with pytest.raises(EEGTensorError, match=option):
            FactorizedLinear(**{**given, option: value})
            pytest.fail(f"{option}={value!r} was taken")


@pytest.mark.parametrize("option", ["kernel_size", "stride", "dilation", "padding"])
def test_options_of_a_convolution_are_named(option: str) -> None:
    given = {"in_channels": 16, "out_channels": 16, "kernel_size": 3, "rank": 2}
    for value in (None, 2.5, -1, True, [1, 1], [1.5]):
        with pytest.raises(EEGTensorError, match=option):
            FactorizedConv1d(**{**given, option: value})
            pytest.fail(f"{option}={value!r} was taken")


def test_options_of_a_network_are_named() -> None:
    model = nn.Sequential(nn.Linear(64, 64))
    for option, values in {
        "skip": (3, None, [1]),
        "min_size": ("a", None, -1, 2.5),
    }.items():
        for value in values:
            with pytest.raises(EEGTensorError, match=option):
                factorize_(model, 0.1, **{option: value})
                pytest.fail(f"{option}={value!r} was taken")
    assert isinstance(model[0], nn.Linear)
