"""Every kernel against the definition by enumeration, and the definition against the network
itself.
"""

import itertools

import numpy as np
import pytest
import torch
from conftest import assert_kernels_equal, kernel_deviation
from frozen_gates import Normed, differentiated_kernel, freeze, frozen_output
from tiny_networks import MANY_PATHS, NETWORKS, behind_shifts, make, samples

import npk
from npk.definition.paths import neural_path_feature, neural_path_value, path_kernel
from npk.definition.value_network import evaluate, gate_values, own_weights, random_weights
from npk.errors import ShapeError
from npk.gates.recording import record_gates
from npk.recursion.planning import plan

pytestmark = [
    # tiny networks have dead inputs
    pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]
ENUMERABLE = [name for name in NETWORKS if name not in MANY_PATHS]
# too many; ones
DIFFERENTIABLE = [
    name
    for name in ENUMERABLE
    if name not in ("conv dgn", "conv dlgn", "fc dlgn, ones", "fc dlgn-sf")
]
LARGE = ("conv residual with projection", "channel split and shuffle")  # of many coefficients
_cache: dict = {}


def case(name):
    """Network (behind its shifts), gate tables of 5 rows and 3 columns, recorded once a session."""
    if name not in _cache:
        rng = np.random.default_rng(len(name))
        net, shape = make(name, rng)
        X = samples(shape, 5, rng)
        table, left = record_gates(net, X), behind_shifts(name, net)
        given, seen = (torch.as_tensor(x) for x in (X, table.inputs))
        torch.testing.assert_close(left(seen), net(given))
        _cache[name] = left, table, table.take(slice(0, 3))
    return _cache[name]


def definition(table, cols, **options):
    return np.array(path_kernel(table, cols, **options))


@pytest.mark.parametrize("scale", [pytest.param("count", marks=pytest.mark.slow), "fan_in"])
@pytest.mark.parametrize("bias", ["ignore", "paths"])
@pytest.mark.parametrize("name", ENUMERABLE)
def test_kernel_is_the_definition(name, bias, scale):
    """With all variances 1 the Taylor coefficients below are the definition of every run."""
    _, table, cols = case(name)
    square = definition(table, table, scale=scale, bias=bias)
    diagonal = np.diagonal(square)
    for backend, dtype in itertools.product(("reference", "cpu"), ("float32", "float64")):
        kernel = npk.NeuralPathKernel(
            None, scale=scale, bias=bias, backend=backend, dtype=dtype, progress=False
        )
        actual = kernel(table)
        assert actual.dtype == dtype
        assert np.array_equal(actual, actual.T)
        assert_kernels_equal(actual, square, dtype, (diagonal, diagonal))
        assert_kernels_equal(kernel(table, cols), square[:, :3], dtype, (diagonal, diagonal[:3]))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "vgg16" else n for n in MANY_PATHS]
)
def test_backends_agree_where_paths_are_too_many(name):
    _, table, cols = case(name)
    exact = npk.kernel(table, cols, bias="paths", backend="reference", dtype="float64")
    assert np.abs(exact).max() > 0
    assert kernel_deviation(npk.kernel(table, cols, bias="paths", dtype="float64"), exact) < 1e-11
    assert kernel_deviation(npk.kernel(table, cols, bias="paths"), exact) < 1e-5


def test_too_many_paths_are_not_enumerated():
    _, table, cols = case("resnet110")
    with pytest.raises(ShapeError, match=r"paths to each output unit; enumeration stops at 2e\+06"):
        definition(table, cols)


@pytest.mark.parametrize("name", ENUMERABLE)
def test_path_sum_identity(name):
    """f(x) = <npf, npv>: the enumerated paths give the network's own output."""
    net, table, _ = case(name)
    weights, output = own_weights(net), net(torch.as_tensor(table.inputs)).detach().numpy()
    output = output.reshape(len(output), table.graph.output.channels, -1)
    for sample in range(2):
        for unit, position in ((0, 0), (-1, -1)):
            at = {"unit": unit % output.shape[1], "position": position % output.shape[2]}
            feature = neural_path_feature(table, sample, bias="paths", **at)
            value = sum(c * neural_path_value(table.graph, p, weights) for p, c in feature.items())
            assert value == pytest.approx(output[sample, unit, position], rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "vgg16" else n for n in NETWORKS]
)
def test_value_network_with_own_weights_is_the_network(name):
    net, table, _ = case(name)
    output = net(torch.as_tensor(table.inputs)).detach().numpy()
    np.testing.assert_allclose(
        evaluate(table, own_weights(net)).reshape(output.shape), output, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("bias", ["ignore", "paths"])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in DIFFERENTIABLE]
)
def test_kernel_is_the_inner_product_of_taylor_coefficients(name, bias):
    """Found from the torch module alone: what a misread graph cannot imitate."""
    net, _, cols = case(name)
    expected = differentiated_kernel(net, torch.as_tensor(cols.inputs), bias=bias)
    assert expected.max() > 0
    actual = npk.kernel(cols, scale="count", bias=bias, dtype="float64", progress=False)
    assert_kernels_equal(
        actual, expected, "float64", (np.diagonal(expected), np.diagonal(expected))
    )


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "vgg16" else n for n in NETWORKS]
)
def test_value_network_with_other_weights_is_the_frozen_network(name, rng):
    """Two polynomials in the weights that agree at a random point are equal."""
    net, table, _ = case(name)
    gates, _ = freeze(net, torch.as_tensor(table.inputs))
    weights = {
        key: w * torch.as_tensor(rng.uniform(0.5, 1.5, tuple(w.shape)))
        for key, w in own_weights(net).items()
    }
    expected = (
        frozen_output(net, torch.as_tensor(table.inputs), gates, weights, Normed).detach().numpy()
    )
    np.testing.assert_allclose(
        evaluate(table, weights).reshape(expected.shape), expected, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize(
    ("name", "bias"),
    [
        ("residual, gate after the sum", "ignore"),
        ("residual, gate after the sum", "paths"),
        ("max pool", "paths"),
        ("conv dgn", "ignore"),
        pytest.param("resnet110", "paths", marks=pytest.mark.slow),
        pytest.param("residual dlgn, gated skips", "paths", marks=pytest.mark.slow),
        pytest.param("vgg16", "ignore", marks=pytest.mark.slow),
    ],
)
def test_moment_identity(name, bias, rng):
    """E[f f'] = K over random weights with frozen gates: within 4.5 standard errors of 400 draws,
    every entry.
    """
    _, table, _ = case(name)
    draws = [
        evaluate(table, random_weights(table.graph, rng, bias=bias == "paths")).reshape(
            len(table), -1
        )
        for _ in range(400)
    ]
    # output units share one kernel
    outer = np.array([d[:, None, :] * d[None, :, :] for d in draws]).mean(-1)
    error = outer.std(0) / len(draws) ** 0.5
    deviation = np.abs(outer.mean(0) - npk.kernel(table, bias=bias, dtype="float64"))
    assert (deviation <= 4.5 * error + 1e-12).all(), (deviation / error).max()


def test_overlaps_are_exact_integers(rng):
    """A fully connected kernel is the input Gram times the overlaps, exactly where integers allow."""
    net = torch.nn.Sequential(
        torch.nn.Linear(3, 70),
        torch.nn.ReLU(),
        torch.nn.Linear(70, 65),
        torch.nn.ReLU(),
        torch.nn.Linear(65, 1),
    )
    X = rng.integers(-3, 4, (9, 3)).astype(np.float32)
    table = record_gates(net, X)
    expected = (X @ X.T).astype(np.int64)
    for gates in table:
        expected = expected * (gates[:, None] & gates[None]).sum(-1)
    actual = npk.kernel(table, scale="count", dtype="float64", bias="ignore")
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(
        npk.kernel(table, scale="count", dtype="float64", backend="reference", bias="ignore"),
        expected,
    )


def test_closed_form_of_ungated_residual_blocks():
    """No gate after the sum: K = first * prod(1 + H_k) * last, the sum over the 2^b sub-networks."""
    _, table, _ = case("residual, no gate after the sum")
    layers = [gate_values(table, node)[..., 0] for node in table.graph.gates]
    first, *blocks = [layer @ layer.T for layer in layers]
    expected = (table.inputs @ table.inputs.T) * first
    for block in blocks:
        expected = expected * (1 + block)
    assert_kernels_equal(
        npk.kernel(table, scale="count", dtype="float64", bias="ignore") / 3,
        expected / 3,
        "float64",
    )


def test_permuting_gates_of_a_dlgn_with_ones_changes_nothing(rng):
    net = npk.networks.build("fc", "dlgn", input_shape=(4,), classes=2, hidden=[5, 5, 5], seed=0)
    X = rng.standard_normal((6, 4))
    before = npk.kernel(net.double(), X, dtype="float64", bias="ignore")
    npk.networks.permute_gates(net, [2, 0, 1])
    np.testing.assert_allclose(
        npk.kernel(net, X, dtype="float64", bias="ignore"), before, rtol=1e-12
    )


@pytest.mark.parametrize("name", ["fc dgn, soft", "conv dgn"])
def test_soft_gates_can_be_made_hard(name, rng):
    net, table, _ = case(name)
    hard = record_gates(net, table.inputs, gates="hard")
    assert all(
        (h == (s > 0.5 * 1.1 if name == "conv dgn" else s > 0.5)).all()
        for h, s in zip(hard, table, strict=True)
    )
    assert_kernels_equal(
        npk.kernel(net, table.inputs, gates="hard", dtype="float64", bias="ignore"),
        npk.kernel(hard, dtype="float64", bias="ignore"),
        "float64",
    )


def test_value_input_can_be_chosen(rng):
    net = npk.networks.build(
        "fc", "dlgn", input_shape=(4,), classes=2, hidden=[5], gates="hard", seed=0
    ).double()
    X = rng.standard_normal((6, 4))
    overlap = npk.kernel(net, X, scale="count", dtype="float64", bias="ignore") / 4
    np.testing.assert_allclose(
        npk.kernel(net, X, scale="count", value_input="x", dtype="float64", bias="ignore"),
        overlap * (X @ X.T),
        rtol=1e-12,
    )


@pytest.fixture(scope="module")
def sixty():
    """Gate table of a network with sixty gate layers."""
    torch.manual_seed(0)
    layers = [layer for _ in range(60) for layer in (torch.nn.Linear(16, 16), torch.nn.ReLU())]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(16, 1)).double()
    for layer in net[::2]:
        layer.weight.data *= 3
    return record_gates(net, 0.5 + np.random.default_rng(0).random((5, 16)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sixty_layers_neither_overflow_nor_underflow_silently(dtype, sixty):
    cosine = npk.kernel(sixty, scale="cosine", dtype=dtype, bias="ignore")
    assert_kernels_equal(
        cosine,
        npk.kernel(sixty, scale="cosine", dtype="float64", backend="reference", bias="ignore"),
        dtype,
    )
    if dtype == "float32":
        with pytest.raises(npk.errors.ScaleError, match="outside the range of float32"):
            npk.kernel(sixty, scale="count", dtype=dtype, bias="ignore")
    else:
        expected = sixty.inputs @ sixty.inputs.T
        for gate in sixty:
            expected = expected * (gate[:, None] & gate[None]).sum(-1)
        np.testing.assert_allclose(
            npk.kernel(sixty, scale="count", dtype=dtype, bias="ignore"), expected, rtol=1e-11
        )


@pytest.mark.parametrize("where", [[0, 1, 2, 3, 4, 6, 7, 8]])
def test_dead_samples_do_not_set_the_range(where):
    """A black picture has no active path, and says nothing of how small the kernel of the others
    gets.
    """
    torch.manual_seed(0)
    layers = [
        layer for _ in range(40) for layer in (torch.nn.Linear(16, 16, bias=False), torch.nn.ReLU())
    ]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(16, 1))
    for layer in net[::2]:
        torch.nn.init.normal_(layer.weight)
        layer.weight.data -= 1.0 * layer.weight.data.mean()
    X = np.random.default_rng(1).standard_normal((9, 16)).astype(np.float32) * 1e-12
    X[where] = 0
    alive = np.setdiff1d(np.arange(9), where)
    expected = npk.kernel(
        net, X[alive], scale="cosine", dtype="float64", backend="reference", bias="ignore"
    )
    np.testing.assert_allclose(
        npk.kernel(net, X, scale="cosine", bias="ignore")[np.ix_(alive, alive)], expected, atol=1e-5
    )


def test_counts_beyond_float64_are_refused(rng):
    layers = [
        layer for _ in range(10) for layer in (torch.nn.Linear(64, 64, bias=False), torch.nn.ReLU())
    ]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(64, 1)).double()
    X = 1e150 * rng.random((2, 64))
    with pytest.raises(npk.errors.ScaleError, match='scale="count".*Use scale="cosine"'):
        npk.kernel(net, X, scale="count", dtype="float64", bias="ignore")
    assert npk.kernel(net, X, scale="cosine", dtype="float64", bias="ignore").min() > 0


def test_a_tie_is_off():
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    torch.nn.init.zeros_(net[0].bias)
    table = record_gates(net, np.zeros((1, 2), np.float32))
    assert not table[0].any()


def test_plan_prints_its_steps():
    _, table, _ = case("max pool")
    text = str(plan(table.graph, bias="ignore"))
    assert "masks a sample" in text
    assert "conv2d" in text
    assert str(table.graph).count("\n") == len(table.graph.nodes)
