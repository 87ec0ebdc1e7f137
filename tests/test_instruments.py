"""Tangent kernels, depths and lesions are transforms of the recursion: against enumeration of paths
with the layers that they pass, against differentiation by torch, and on every backend.
"""

import functools

import numpy as np
import pytest
import torch
from conftest import kernel_deviation
from emu.fibers import compiler_is_missing
from emu.launcher import EmulatedLauncher
from frozen_gates import coefficients, fan_in, freeze, frozen_output
from tiny_networks import MANY_PATHS, NETWORKS, behind_shifts, make, samples
from torch import nn

import npk
from npk.backends.cpu import CpuBackend
from npk.backends.cuda import CudaBackend
from npk.backends.exponents import find_exponents
from npk.backends.product import as_product
from npk.backends.reference import evaluate
from npk.definition.paths import kernel_by_layers, parameter_variances
from npk.errors import OptionError, UnsupportedGraphError
from npk.gates.table import GateTable
from npk.graph.node import module_of
from npk.graph.parts import blocks_of, last_layers_of, layers_of, without_block
from npk.recursion.degrees import depths
from npk.recursion.instruments import (
    FORMS,
    Depth,
    Depths,
    Passing,
    Paths,
    Tangent,
    Weighted,
    Without,
    instrument_of,
)
from npk.recursion.planning import plan
from npk.recursion.steps import Field

pytestmark = [
    # tiny networks have dead inputs
    pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]
EXACT = 1e-12
ENUMERABLE = [name for name in NETWORKS if name not in MANY_PATHS]
SKIPS = [
    "residual, no gate after the sum",
    "residual, gate after the sum",
    "conv residual with projection",
    "residual dnn, ungated skips",
    "option-A shortcut",
    "dense block",
]


@functools.cache
def recorded(name, n=3):
    rng = np.random.default_rng(len(name))
    net, shape = make(name, rng)
    return behind_shifts(name, net), npk.record_gates(net, samples(shape, n, rng))


def planned(name, bias="ignore", **options):
    """The recursion; with biases of several layers there is none."""
    try:
        return plan(recorded(name)[1].graph, bias=bias, merged=False, **options)
    except UnsupportedGraphError:
        pytest.skip("a bias of two layers")


def value(recursion, table):
    exponents = find_exponents(recursion, table)
    return np.ldexp(evaluate(recursion, table, table, exponents), int(exponents[-1]))


def many(names):
    """Names for tests, the large network for the slow ones."""
    return [pytest.param(n, marks=pytest.mark.slow) if n == "vgg16" else n for n in names]


def quick(recursion, table):
    """The same by the CPU backend."""
    exponents, backend = find_exponents(recursion, table), CpuBackend(recursion, table, "float64")
    side = backend.side(table)
    return np.ldexp(backend.tile(side, side, exponents), int(exponents[-1]))


def close(actual, expected, tolerance=EXACT):
    """Relative to the largest entry."""
    size = np.abs(expected).max()
    assert np.abs(np.asarray(actual) - expected).max() <= tolerance * size


# the definition


def weigh(parts, factor):
    """Sum over sequences of layers of their share times a factor."""
    some = next(iter(parts.values()))
    return sum((factor(layers) * share for layers, share in parts.items()), np.zeros_like(some))


@pytest.mark.parametrize("bias", ["ignore", "paths"])
@pytest.mark.parametrize("name", ENUMERABLE)
def test_instruments_are_sums_over_paths_and_their_layers(name, bias, rng):
    recursion, (_, table) = planned(name, bias=bias), recorded(name)
    graph, parts = table.graph, kernel_by_layers(table, table, bias=bias)
    width = {
        node.name: 1 / parameter_variances(graph)[vars(node.operator)["weight"]]
        for node in layers_of(graph)
    }
    expected = {
        Tangent(): weigh(parts, len),
        Tangent("standard"): weigh(parts, lambda layers: sum(width[layer] for layer in layers)),
    }
    known = depths(recursion)
    for depth in known:
        expected[Depth(depth)] = weigh(parts, lambda layers, d=depth: len(layers) == d)
    if len({vars(node.operator)["weight"] for node in layers_of(graph)}) == len(layers_of(graph)):
        factors = {node.name: float(rng.uniform(0.2, 2)) for node in layers_of(graph)}
        product = lambda layers: np.prod([factors[layer] for layer in layers])  # noqa: E731
        expected[Weighted(factors)] = weigh(parts, product)
    for instrument, wanted in expected.items():
        close(value(instrument.applied(graph, recursion), table), wanted)
    assert {len(layers) for layers in parts} <= set(known)
    close(value(recursion, table), weigh(parts, lambda _: 1))
    together = value(Depths().applied(graph, recursion), table)
    close(together.reshape(len(known), 3, 3), [expected[Depth(depth)] for depth in known])


@pytest.mark.parametrize("bias", ["ignore", "paths"])
@pytest.mark.parametrize("name", many(MANY_PATHS))
def test_depths_add_up_to_the_kernel_and_to_the_tangent_kernel(name, bias):
    recursion, (_, table) = planned(name, bias=bias), recorded(name)
    parts = quick(Depths().applied(table.graph, recursion), table)
    known = depths(recursion)
    parts = parts if len(known) > 1 else parts[None]
    close(parts.sum(0), quick(recursion, table))
    slopes = quick(Tangent().applied(table.graph, recursion), table)
    close(np.tensordot(known, parts, 1), slopes)


def test_depths_of_a_plain_network(rng):
    """d layers: the tangent kernel is d times the kernel, and no path is shorter."""
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    X = rng.standard_normal((5, 4))
    options = {"bias": "ignore", "dtype": "float64", "progress": False}
    kernel = functools.partial(npk.kernel, net.eval(), X, **options)
    K = kernel()
    np.testing.assert_allclose(kernel(of="tangent"), 3 * K, rtol=EXACT)
    np.testing.assert_allclose(kernel(of=npk.Depth(3)), K, rtol=EXACT)
    np.testing.assert_allclose(kernel(of="tangent=standard"), (4 + 6 + 5) * K, rtol=EXACT)
    with pytest.raises(OptionError, match=r"depth=2, but no path .* passes 2 layers.* one of 3\."):
        kernel(of="depth=2")


def test_a_bias_begins_with_its_layer(rng):
    """Two layers: a path from the input passes both, one from the first bias too, one from the last
    bias passes that alone.
    """
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double().eval()
    X = rng.standard_normal((4, 3))
    of = lambda what: npk.kernel(  # noqa: E731
        net, X, of=what, scale="count", bias="paths", dtype="float64", progress=False
    )
    on = npk.record_gates(net, X)[0].astype(float)
    np.testing.assert_allclose(of("depth=1"), np.ones((4, 4)), rtol=EXACT)
    np.testing.assert_allclose(of("depth=2"), (X @ X.T + 1) * (on @ on.T), rtol=EXACT, atol=EXACT)


# torch alone


def layer_names(net):
    """Parameters of linear and convolutional modules."""
    kinds = nn.Linear | nn.modules.conv._ConvNd
    modules = [(name, module) for name, module in net.named_modules() if isinstance(module, kinds)]
    return [f"{n}.{p}".lstrip(".") for n, module in modules for p, _ in module.named_parameters()]


TORCH = [
    "fully connected",
    "residual, no gate after the sum",
    "residual, gate after the sum",
    "comparison and sigmoid",
    "conv circular, global pool",
    "conv stride 2, circular",
    "max pool, overlapping and padded",
    "average pool, then gate",
    "batch norm",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "conv residual with projection",
            "depthwise, then pointwise",
            "transposed, even kernel",
        )
    ),
]


@pytest.mark.parametrize("bias", ["ignore", "paths"])
@pytest.mark.parametrize("name", TORCH)
def test_tangent_is_the_slope_of_the_kernel_that_torch_finds(name, bias, rng):
    """Every layer's weights have variance s; the kernel is that of the torch module's Taylor
    coefficients (torch.func), and autograd differentiates a random combination of its entries by s.
    """
    net, table = recorded(name)
    s = torch.ones((), dtype=torch.float64, requires_grad=True)
    sizes = dict.fromkeys(layer_names(net), s.sqrt())
    found = coefficients(net, torch.as_tensor(table.inputs), bias=bias, sizes=sizes)
    kernel = torch.einsum("pnu,pmu->nm", found, found) / found.shape[2]
    some = torch.as_tensor(rng.uniform(0.5, 1.5, tuple(kernel.shape)))
    (slope,) = torch.autograd.grad((some * kernel).sum(), s)
    options = {"scale": "count", "bias": bias, "dtype": "float64", "progress": False}
    slopes = npk.kernel(table, of="tangent", **options)
    assert float((some.numpy() * slopes).sum()) == pytest.approx(float(slope), rel=1e-11)
    assert np.diagonal(slopes).max() > 0


@pytest.mark.parametrize("width", [8, 64, 1024])
@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
def test_parametrizations_at_every_width(width, parametrization, rng):
    """The mean over random networks of what autograd gives for the torch module, in standard errors."""
    torch.manual_seed(width)
    net = nn.Sequential(
        nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 1)
    ).double()
    x = torch.as_tensor(rng.standard_normal((2, 5)))
    gates, _ = freeze(net.eval(), x)
    shapes = {n: w for n, w in net.named_parameters() if n.endswith("weight")}
    zeros = {n: torch.zeros_like(w) for n, w in net.named_parameters() if n.endswith("bias")}
    spread = {n: fan_in(net.get_submodule(n[:1]), w) ** -0.5 for n, w in shapes.items()}
    scale = spread if parametrization == "ntk" else dict.fromkeys(spread, 1.0)

    def product(weights):
        slopes = torch.func.jacrev(lambda w: frozen_output(net, x, gates, {**w, **zeros}))(weights)
        return sum(scale[n] ** 2 * slopes[n].flatten(1).prod(0).sum() for n in shapes)

    draws = []
    for _ in range(200):
        signs = {n: 2.0 * torch.randint(0, 2, w.shape).double() - 1 for n, w in shapes.items()}
        draws.append(float(product({n: spread[n] * sign for n, sign in signs.items()})))
    of = Tangent(parametrization)
    options = {"of": of, "bias": "ignore", "dtype": "float64", "progress": False}
    exact = npk.kernel(net, x.numpy(), **options)[0, 1]
    assert abs(np.mean(draws) - exact) < 4.5 * np.std(draws) / len(draws) ** 0.5


# backends


@pytest.mark.parametrize(
    "name",
    [n for n in NETWORKS if n != "vgg16"],  # its reference takes minutes
)
def test_the_cpu_gives_what_the_reference_gives(name):
    recursion, (_, table) = planned(name, bias="ignore"), recorded(name)
    for instrument in (Tangent(), Depths()):
        other = instrument.applied(table.graph, recursion)
        exponents = find_exponents(other, table)
        backend = CpuBackend(other, table, "float64")
        side = backend.side(table)
        tile = backend.tile(side, side, exponents)
        expected = evaluate(other, table, table, exponents)
        assert tile.shape == expected.shape
        close(tile, expected)


@pytest.mark.skipif(compiler_is_missing(), reason="the emulator by C++ needs g++")
@pytest.mark.parametrize("name", ["fully connected", *SKIPS[1:4]])
def test_the_emulated_device_gives_what_the_reference_gives(name):
    table = recorded(name, 6)[1]
    recursion = plan(table.graph, bias="paths", merged=False)
    for instrument in (Tangent(), Depths()):
        other = instrument.applied(table.graph, recursion)
        exponents, cols = find_exponents(other, table), table.take(slice(0, 2))
        backend = CudaBackend(other, table, "float64", EmulatedLauncher("fast"))
        tile = backend.tile(backend.side(table), backend.side(cols), exponents)
        close(tile, evaluate(other, table, cols, exponents))


@pytest.mark.skipif(compiler_is_missing(), reason="the emulator by C++ needs g++")
def test_stages_on_the_chip_take_what_they_are_right_for(monkeypatch):
    """With masks in bits, as wide layers have them: convolutions, and a stream with gates."""
    monkeypatch.setattr("npk.backends.layout._NARROW", 0)
    net = npk.networks.build(
        "residual", input_shape=(1, 4, 4), classes=2, widths=[3, 3], skip="gated", seed=0
    )
    rng, runners = np.random.default_rng(0), set()
    skips = npk.record_gates(net.double().eval(), rng.standard_normal((5, 1, 4, 4)))
    for table in (skips, recorded("conv circular, global pool", 5)[1]):
        recursion = plan(table.graph, bias="ignore")
        for instrument in (Paths(), Tangent(), Tangent("standard"), Depth(depths(recursion)[-1])):
            other = instrument.applied(table.graph, recursion)
            exponents, side = find_exponents(other, table), table.take(slice(0, 3))
            backend = CudaBackend(other, table, "float32", EmulatedLauncher("fast"))
            runners.add(type(backend.runner).__name__)
            tile = backend.tile(backend.side(table), backend.side(side), exponents)
            close(tile, evaluate(other, table, side, exponents), 1e-5)
    assert "StageRunner" in runners


def test_a_plain_network_stays_a_product_with_one_copy_of_each_layer(rng):
    """What all paths pass equally often is no second recursion."""
    dense = nn.Sequential(
        nn.Linear(4, 70), nn.ReLU(), nn.Linear(70, 70), nn.ReLU(), nn.Linear(70, 2)
    )
    recursion = plan(npk.trace(dense.eval(), (4,)), bias="ignore")
    made = Tangent().applied(npk.trace(dense, (4,)), recursion)
    product, before = as_product(made), as_product(recursion)
    assert product is not None
    assert np.prod(product.factors) == pytest.approx(3 * np.prod(before.factors))
    name = "conv circular, global pool"
    assert len(Tangent().applied(recorded(name)[1].graph, planned(name)).steps) == len(
        planned(name).steps
    )


def test_a_skip_is_no_product():
    recursion, graph = (
        planned("residual, gate after the sum"),
        recorded("residual, gate after the sum")[1].graph,
    )
    for instrument in (Tangent(), Depth(3), Depths()):
        assert as_product(instrument.applied(graph, recursion)) is None


# parts of a network


@pytest.mark.parametrize("name", SKIPS[:4])
def test_without_a_block(name):
    """The kernel of the graph in which the addition shows its shorter branch; and what passes the
    block, by its last layers.
    """
    _, table = recorded(name)
    graph, recursion = table.graph, planned(name)
    sets = tuple(last_layers_of(graph, k + 1) for k in range(len(blocks_of(graph))))
    whole, *passing = value(Passing(sets).applied(graph, recursion), table)
    close(whole, value(recursion, table))
    for k, share in enumerate(passing, 1):
        left = GateTable(without_block(graph, k), table.inputs, table.entries)
        parts = kernel_by_layers(left, left, bias="ignore")
        wanted = weigh(parts, lambda _: 1)
        options = {"bias": "ignore", "dtype": "float64", "progress": False}
        close(npk.kernel(table, of=Without(block=k), **options), wanted)
        close(whole - share, wanted)


def test_blocks_whose_paths_cannot_be_told_by_a_layer():
    class Shared(nn.Module):
        """What the block adds is a multiple of what it is added to, through a layer of both."""

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return x + self.b(torch.relu(self.a(x)))

    graph = npk.trace(Shared().eval(), (3,))
    assert last_layers_of(graph, 1) == {layers_of(graph)[1].name}
    with pytest.raises(OptionError, match=r"block=2, but the network has blocks 1 to 1\."):
        last_layers_of(graph, 2)


@pytest.mark.parametrize("bias", ["ignore", "paths"])
@pytest.mark.parametrize("name", SKIPS)
def test_without_a_layer(name, bias):
    _, table = recorded(name)
    parts = kernel_by_layers(table, table, bias=bias)
    for node in layers_of(table.graph):
        of = Without(layer=module_of(node))
        wanted = weigh(parts, lambda layers, own=node.name: own not in layers)
        if not any(node.name not in layers for layers in parts):
            with pytest.raises(OptionError, match="every path of this network passes"):
                npk.kernel(table, of=of, bias=bias, progress=False)
        else:
            options = {"bias": bias, "dtype": "float64", "progress": False}
            close(npk.kernel(table, of=of, **options), wanted)


def test_without_gates_of_a_layer(rng):
    """Ones in their place: a table with all of them on, where the network has no other gates there."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    table = npk.record_gates(net.double().eval(), rng.standard_normal((5, 3)))
    first, second = (layer.astype(float) for layer in table)
    x = table.inputs @ table.inputs.T
    options = {"scale": "count", "bias": "ignore", "dtype": "float64", "progress": False}
    of = lambda what: npk.kernel(table, of=what, **options)  # noqa: E731
    names = table.names
    close(of(Without(gates=names[0])), 4 * x * (second @ second.T))
    close(of(f"without=gates:{names[1]}"), 5 * x * (first @ first.T))


def test_parts_that_are_not_there():
    table = recorded("max pool")[1]
    kernel = functools.partial(npk.kernel, table, progress=False)
    with pytest.raises(OptionError, match=r"there is no layer 'stem'. Choose one of 0, 3"):
        kernel(of=Without(layer="stem"))
    with pytest.raises(OptionError, match=r"there is no gate layer 'stem'. Choose one of 1, 2, 4"):
        kernel(of=Without(gates="stem"))
    with pytest.raises(OptionError, match=r"'2' is a max pool, whose choice has no ones"):
        kernel(of=Without(gates="2"))
    with pytest.raises(OptionError, match=r"block=1, but the network has no block"):
        kernel(of=Without(block=1))
    twice = recorded("one layer on two branches, side by side")[1]
    names = [module_of(node) for node in layers_of(twice.graph)]
    shared = next(name for name in names if names.count(name) == 2)
    with pytest.raises(OptionError, match=rf"2 layers have the name '{shared}'. Choose one of "):
        npk.kernel(twice, of=Weighted({shared: 2.0}), progress=False)


def test_the_mean_over_output_units_is_no_layer():
    name = "gated output with positions"
    last = [step for step in planned(name).steps if isinstance(step, Field)][-1]
    assert not last.layer
    assert depths(planned(name)) == (2,)


# what names them

INSTRUMENTS = {
    "paths": Paths(),
    "tangent": Tangent(),
    "tangent=standard": Tangent("standard"),
    "depth=8": Depth(8),
    "without=layer:body.0": Without(layer="body.0"),
    "without=gates:relu:2": Without(gates="relu:2"),
    "without=block:3": Without(block=3),
    'weighted={"a": 0.5, "b": 2.0}': Weighted({"b": 2, "a": 0.5}),
}


@pytest.mark.parametrize("text", INSTRUMENTS)
def test_an_instrument_is_the_same_again_of_its_text(text):
    instrument = INSTRUMENTS[text]
    assert instrument.text == text
    assert instrument_of(text) == instrument_of(instrument) == instrument
    assert hash(instrument_of(text)) == hash(instrument)


def test_every_form_that_is_told_is_read():
    assert [instrument_of(form).text for form in FORMS] == list(FORMS)


WRONG = {
    "bogus": r"of='bogus' is not known. Choose one of paths, tangent, tangent=standard, depth=8",
    "depths": "of='depths' is not known",
    "tangent=fan": "parametrization='fan' is not known. Choose ntk or standard",
    "depth=": "of='depth=' has no number of layers. Write for instance depth=8",
    "depth=-1": "of='depth=-1' has no number",
    "without=3": "of='without=3' does not say what to leave out. Write without=layer:NAME",
    "without=block:three": "of='without=block:three' has no number of a block",
    "weighted=2": r"of='weighted=2' has no factors of layers. Write for instance weighted=\{",
    'weighted={"a": -1}': "factors of layers are numbers from 0 on",
    "weighted={}": "one at least is given",
    'weighted={"a": "much"}': "gives no factor a layer",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_instrument_is_refused(text):
    with pytest.raises(OptionError, match=WRONG[text]):
        npk.NeuralPathKernel(None, of=text)


@pytest.mark.parametrize("given", [Depths(), Passing(()), 3, None, ["tangent"]])
def test_what_gives_several_kernels_is_no_option(given):
    with pytest.raises(OptionError, match="is not known. Choose one of paths, tangent"):
        npk.NeuralPathKernel(None, of=given)


@pytest.mark.parametrize("layers", [-1, True, 2.0, "8", 1 << 20])
def test_what_is_no_depth_is_refused(layers):
    with pytest.raises(OptionError, match="is no number of layers. Give a whole number"):
        npk.Depth(layers)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "Without was given nothing. Give one of layer=, gates= and block="),
        ({"layer": "a", "block": 1}, "Without was given layer, block"),
        ({"layer": ""}, "layer='' is no name of a part"),
        ({"gates": 3}, "gates=3 is no name of a part"),
        ({"block": "a"}, "block='a' is no number of a part"),
        ({"block": True}, "block=True is no number"),
    ],
)
def test_what_cannot_be_left_out_is_refused(given, why):
    with pytest.raises(OptionError, match=why):
        Without(**given)


# where they are options


def test_a_store_says_what_it_is_of(tmp_path, rng):
    name, out = "residual, gate after the sum", tmp_path / "K"
    table = recorded(name)[1]
    gram = npk.kernel(table, of="tangent", out=out, progress=False)
    np.testing.assert_array_equal(np.asarray(gram), npk.kernel(table, of="tangent", progress=False))
    assert gram.about["of"] == "tangent"
    assert npk.kernel(table, of=Tangent(), out=out, progress=False).complete
    with pytest.raises(npk.errors.StoreError, match="of is 'tangent' there and 'depth=3' here"):
        npk.kernel(table, of=npk.Depth(3), out=out, progress=False)
    from npk.gram.verification import examine
    from npk.progress import Silent

    assert examine(out, Silent()).content == "3 x 3 float32 of tangent, 1 tiles"


def test_a_worker_knows_it_from_the_store(tmp_path):
    from npk.gram.engine import Engine
    from npk.gram.options import KernelOptions, Promise
    from npk.gram.work import Work
    from npk.progress import Silent

    table = recorded("residual, gate after the sum")[1]
    gram = npk.kernel(table, of=npk.Depth(3), out=tmp_path / "K", dtype="float64", progress=False)
    options = KernelOptions(of=gram.about["of"], dtype="float64")
    work = Work.of(Engine(options, Promise(), Silent()), gram.store)
    np.testing.assert_array_equal(work.compute(next(iter(gram.store.plan))), np.asarray(gram))


def test_an_engine_that_holds_more_beside_asks_the_same():
    from npk.gram.engine import Engine
    from npk.gram.options import KernelOptions, Promise
    from npk.progress import Silent

    engine = Engine(KernelOptions(), Promise(), Silent(), Depths())
    assert engine.holding(10).instrument == Depths()


@pytest.mark.parametrize("scale", ["fan_in", "cosine"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scales_and_types_of_numbers(scale, dtype):
    table = recorded("residual, gate after the sum", 6)[1]
    options = {"scale": scale, "of": "tangent", "bias": "paths", "progress": False}
    exact = npk.kernel(table, backend="reference", dtype="float64", **options)
    assert kernel_deviation(npk.kernel(table, dtype=dtype, **options), exact) < (
        1e-5 if dtype == "float32" else 1e-11
    )


def test_estimators_take_it(rng):
    """Of a plain network's tangent kernel the cosine is that of its kernel; of a residual one not."""
    net, X, y = (
        recorded("residual, gate after the sum")[0],
        rng.standard_normal((12, 3)),
        np.arange(12) % 2,
    )
    K = npk.kernel(net, X, scale="cosine", of="tangent", dtype="float64", progress=False)
    machine = npk.NPKRidge(net, alpha=0.1, dtype="float64", of="tangent").fit(X, y.astype(float))
    wanted = np.linalg.solve(K + 0.1 * np.mean(np.diag(K)) * np.eye(12), y.astype(float))
    np.testing.assert_allclose(machine.dual_coef_, wanted, rtol=1e-7)
    assert npk.NPKSVC(net, of=npk.Depth(3)).get_params()["of"] == npk.Depth(3)
    with pytest.raises(OptionError, match="of='bogus' is not known"):
        npk.NPKRidgeClassifier(net, of="bogus").fit(X, y)
