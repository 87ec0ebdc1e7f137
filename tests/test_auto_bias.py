"""``bias="auto"``: paths where a network has biases, the papers' definition where it has none; said
wherever a kernel is.
"""

import json

import numpy as np
import pytest
import torch
from conftest import assert_kernels_equal
from sklearn.base import clone
from tiny_networks import MANY_PATHS, NETWORKS, make, samples
from torch import nn

import npk
from npk.choices import bias_choice
from npk.definition.paths import path_kernel
from npk.errors import OptionError, StoreError, UnsupportedGraphError
from npk.gram.options import KernelOptions
from npk.graph.biases import settled_bias
from npk.recursion.planning import plan

pytestmark = [
    pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]


class _Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.scale = nn.Linear(3, 2, bias=False), nn.Parameter(torch.tensor([1.0, 2]))

    def forward(self, x):
        return 3 * self.scale * self.inner(x)


class _Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 2, bias=False)

    def forward(self, x):
        return self.inner(x) + 1


class _Gated(nn.Module):
    """Gates with biases, values without."""

    def __init__(self):
        super().__init__()
        self.gate, self.value = nn.Linear(3, 4), nn.Linear(3, 4, bias=False)
        self.head = nn.Linear(4, 2, bias=False)

    def forward(self, x):
        return self.head(torch.sigmoid(self.gate(x)) * self.value(x))


# without biases, shifts and constants
BARE = {
    "one linear layer": lambda: nn.Linear(3, 2, bias=False),
    "leaky": lambda: nn.Sequential(
        nn.Linear(3, 4, bias=False), nn.LeakyReLU(0.2), nn.Linear(4, 2, bias=False)
    ),
    "scaled": _Scaled,
    "gated": lambda: npk.networks.build(
        "fc", "dlgn", input_shape=(3,), classes=2, hidden=[4, 3], bias=False, seed=1
    ),
    "biases of gates alone": _Gated,
}
# what makes a network one with constants
CONSTANTS = {
    "linear": lambda: nn.Linear(3, 2),
    "batch norm": lambda: nn.Sequential(nn.Linear(3, 2, bias=False), nn.BatchNorm1d(2)),
    "batch norm without parameters": lambda: nn.Sequential(
        nn.Linear(3, 2, bias=False), nn.BatchNorm1d(2, affine=False)
    ),
    "a number": _Shifted,
    "a gate that saturates": lambda: nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU6()),
}


class _SharedBias(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.bias = self.first.bias

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def seeded(maker, seed=0):
    torch.manual_seed(seed)
    return maker().eval()


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in MANY_PATHS])
def test_auto_is_the_definition_of_what_the_network_has(name):
    """Of the whole catalogue: with the paths of biases where there are any, by enumeration."""
    rng = np.random.default_rng(len(name))
    net, shape = make(name, rng)
    table = npk.record_gates(net, samples(shape, 2, rng))
    taken = settled_bias("auto", table.graph)
    begins = any(
        node.operator.bias_name(node.name) or getattr(node.operator, "levels", ())
        for node in table.graph.nodes
    )
    assert taken == ("paths" if begins else "ignore")
    with_biases, without = (
        np.array(path_kernel(table, table, bias=bias)) for bias in ("paths", "ignore")
    )
    assert begins or (with_biases == without).all()
    K = npk.kernel(table, backend="reference", dtype="float64", progress=False)
    sizes = np.diagonal(with_biases)
    assert_kernels_equal(K, with_biases, "float64", (sizes, sizes))


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_without_biases_is_as_before_to_the_bit(name, dtype, rng):
    net, X = seeded(BARE[name]), rng.standard_normal((6, 3))
    table = npk.record_gates(net, X)
    assert settled_bias("auto", table.graph) == "ignore"
    assert str(plan(table.graph)) == str(plan(table.graph, bias="ignore"))
    auto, ignored = (
        npk.kernel(net, X, bias=bias, dtype=dtype, progress=False) for bias in ("auto", "ignore")
    )
    assert auto.tobytes() == ignored.tobytes()


@pytest.mark.parametrize("name", CONSTANTS)
def test_every_constant_starts_paths(name, rng):
    net, X = seeded(CONSTANTS[name]), 30 * rng.standard_normal((4, 3))
    auto, paths, ignored = (
        npk.kernel(net, X, bias=bias, progress=False) for bias in ("auto", "paths", "ignore")
    )
    assert auto.tobytes() == paths.tobytes()
    assert (auto != ignored).any()


def test_no_other_word_is_taken(rng):
    net = seeded(CONSTANTS["linear"])
    for call in (
        lambda: KernelOptions(bias="some"),
        lambda: plan(npk.trace(net, (3,)), bias="some"),
        lambda: path_kernel(*2 * [npk.record_gates(net, rng.random((2, 3)))], bias="some"),
    ):
        with pytest.raises(OptionError, match=r"bias='some' .* auto, ignore, paths"):
            call()


@pytest.mark.parametrize("bias", ["auto", "paths"])
def test_a_shared_bias_is_refused_with_the_remedy(bias, rng):
    net, X = seeded(_SharedBias), rng.standard_normal((3, 3))
    with pytest.raises(UnsupportedGraphError, match=r'share the bias .* bias="ignore"'):
        npk.kernel(net, X, bias=bias, progress=False)
    assert np.isfinite(npk.kernel(net, X, bias="ignore", progress=False)).all()


@pytest.mark.parametrize(("maker", "taken"), [("linear", "paths"), ("leaky", "ignore")])
def test_a_store_is_of_what_was_taken(maker, taken, rng, tmp_path):
    """A store that was begun in so many words is gone on with, and says what it is of."""
    net, X = seeded({**CONSTANTS, **BARE}[maker]), rng.standard_normal((6, 3))
    first = npk.kernel(net, X[:4], bias=taken, out=tmp_path / "K.zarr", progress=False)
    grown = npk.kernel(net, X, out=tmp_path / "K.zarr", progress=False)
    assert first.about["bias"] == grown.about["bias"] == taken
    np.testing.assert_array_equal(np.asarray(grown), npk.kernel(net, X, progress=False))
    other = {"paths": "ignore", "ignore": "paths"}[taken]
    with pytest.raises(StoreError, match=f"bias is '{taken}' there and '{other}' here"):
        npk.kernel(net, X, bias=other, out=tmp_path / "K.zarr", progress=False)


@pytest.mark.parametrize(("maker", "taken"), [("linear", "paths"), ("leaky", "ignore")])
def test_machines_say_what_was_taken(maker, taken, rng):
    X, y = rng.standard_normal((12, 3)), np.arange(12) % 2
    net = seeded({**CONSTANTS, **BARE}[maker])
    for machine in (npk.NPKRidge, npk.NPKRidgeClassifier, npk.NPKSVC):
        fitted = machine(net).fit(X, y)
        assert (fitted.bias, fitted.bias_) == ("auto", taken)
        same = clone(fitted).set_params(bias=taken).fit(X, y)
        np.testing.assert_array_equal(fitted.predict(X), same.predict(X))


@pytest.mark.parametrize("value_input", ["x", "ones"])
@pytest.mark.parametrize("bias", ["auto", "ignore"])
@pytest.mark.parametrize("check", ["duality", "ensemble", "tangent"])
def test_checks_hold_for_both_and_say_which(check, bias, value_input, rng):
    """A residual network with biases, batch norms with and without parameters, and a ReLU6."""
    net, X = seeded(_Residual), 2 * rng.standard_normal((4, 3))
    with torch.no_grad():
        for norm in (net.norm, net.bare):
            norm.running_mean.uniform_(-1, 1)
    test = getattr(npk, f"check_{check}")
    found = test(net, X, bias=bias, value_input=value_input)
    words = {"auto": "biases start paths", "ignore": "no paths from biases"}[bias]
    assert found.passed, found.statement
    assert found.statement.endswith(words)
    if check == "duality":
        assert found.details.moment != "deviates"


class _Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.first = nn.Linear(3, 6), nn.Linear(6, 6)
        self.second, self.head = nn.Linear(6, 6, bias=False), nn.Linear(6, 2)
        self.norm, self.bare = nn.BatchNorm1d(6), nn.BatchNorm1d(6, affine=False)
        self.saturates = nn.ReLU6()

    def forward(self, x):
        h = torch.relu(self.stem(x))
        h = h + self.norm(torch.relu(self.first(h)))
        h = self.saturates(h + self.bare(self.second(h)))
        return self.head(h)


@pytest.mark.parametrize("bias", ["auto", "ignore"])
def test_shares_of_blocks_count_what_starts_in_them(bias, rng):
    """What a lesion predicts is the share of the kernel that passes the block, biases included."""
    net, X = seeded(_Residual), rng.standard_normal((3, 3))
    blocks = npk.check_ensemble(net, X, bias=bias).details.shares.blocks
    options = {"bias": bias, "dtype": "float64", "progress": False}
    whole = np.diagonal(npk.kernel(net, X, **options))
    for number, share in enumerate(blocks, 1):
        less = np.diagonal(npk.kernel(net, X, of=npk.Without(block=number), **options))
        assert share == pytest.approx(np.mean(1 - less / whole), rel=1e-9)
    table = npk.lesions(net, X, bias=bias)
    assert bias_choice(table.bias) in str(table)


@pytest.mark.parametrize(
    "name", ["conv circular, global pool", "conv stride 2, circular", "max pool"]
)
def test_invariance_is_promised_with_biases_too(name, rng):
    net, shape = make(name, rng)
    for bias in ("auto", "ignore"):
        found = npk.check_invariance(net, samples(shape, 3, rng), bias=bias)
        assert found.passed, found.statement


def test_a_depth_spectrum_says_what_was_taken(rng):
    for name, taken in (("linear", "paths"), ("leaky", "ignore")):
        net = seeded({**CONSTANTS, **BARE}[name])
        found = npk.depth_spectrum(net, rng.standard_normal((3, 3)))
        assert found.bias == taken
        assert bias_choice(taken) in str(found)
        assert json.loads(found.to_json())["bias"] == taken


def test_words_say_how_to_get_the_other():
    assert bias_choice("paths") == 'biases start paths (bias="ignore" leaves these out)'
    assert bias_choice("ignore", "--bias {}") == (
        "no paths from biases (--bias paths takes those that a network has)"
    )
