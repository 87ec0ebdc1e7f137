"""Samples, gates and weights of very different size: the promised accuracy, or a count of what the
numbers cannot hold.

The oracle is the sum over paths, added up in fractions, which neither underflow nor round.
"""

import itertools
import math
import warnings
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from test_backends import dense_table
from tiny_networks import make, samples
from torch import nn

import npk
from npk.backends.exponents import find_exponents
from npk.backends.ranges import Ranges
from npk.definition.paths import _features, parameter_variances, path_kernel
from npk.errors import KernelWarning, ScaleError
from npk.gates.device_table import DeviceGates, DeviceLayer
from npk.gates.recording import record_gates
from npk.gates.table import GateTable
from npk.gram.matrix import put
from npk.gram.tiles import TilePlan
from npk.gram.work import Work
from npk.recursion.balance import balance_of
from npk.recursion.planning import plan

# counts are compared where they matter
pytestmark = pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning")

PROMISED = {"float32": 1e-5, "float64": 1e-11}
MANY_PATHS = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("conv dgn", "residual dlgn, gated skips")
]
NAMES = [
    "fully connected",
    "max pool",
    "residual, gate after the sum",
    "fc dgn, soft",
    "leaky",
    *MANY_PATHS,
]
_tables: dict = {}


def recorded(name):
    """Gates of eight samples, recorded once a session."""
    if name not in _tables:
        rng = np.random.default_rng(len(name))
        net, shape = make(name, rng)
        _tables[name] = record_gates(net, samples(shape, 8, rng))
    return _tables[name]


def wild(table, rng, *, sizes, inside, gates):
    """Samples times powers of ten, their elements too, and soft gates that are nearly 0."""
    n = len(table)
    tens = lambda most, shape: 10.0 ** rng.uniform(-most, most, shape)  # noqa: E731
    inputs = (
        table.inputs
        * tens(sizes, (n, *[1] * (table.inputs.ndim - 1)))
        * tens(inside, table.inputs.shape)
    )
    entries = {
        name: replace(entry, data=entry.data * 10.0 ** rng.uniform(-gates, 0, entry.data.shape))
        if entry.kind == "soft"
        else entry
        for name, entry in table.entries.items()
    }
    return GateTable(table.graph, inputs, entries)


def exact_kernel(table, **options):
    """The sum over paths, in fractions: on the scale "fan_in", or "count"."""
    variance = parameter_variances(table.graph) if options.get("scale") != "count" else {}
    weight = lambda path: math.prod(  # noqa: E731
        (Fraction(variance.get(step[0], 1.0)) for step in path), start=Fraction(1)
    )
    features = [
        _features(table, i, options.get("bias", "ignore"), options.get("value_input", "auto"))
        for i in range(len(table))
    ]
    units = [
        [{path: Fraction(float(value)) for path, value in x[unit].items()} for unit in x]
        for x in features
    ]
    inner = lambda a, b: sum(  # noqa: E731
        (value * b[path] * weight(path) for path, value in a.items() if path in b), Fraction(0)
    )
    return [
        [sum((inner(a, b) for a, b in zip(x, y, strict=True)), Fraction(0)) / len(x) for y in units]
        for x in units
    ]


def exact_cosines(table, **options):
    K = exact_kernel(table, **options)
    n = len(K)
    shares = [
        [K[i][j] ** 2 / (K[i][i] * K[j][j]) if K[i][i] * K[j][j] else Fraction(0) for j in range(n)]
        for i in range(n)
    ]
    return np.array(
        [[math.copysign(math.sqrt(shares[i][j]), K[i][j]) for j in range(n)] for i in range(n)]
    )


def computed(*tables, **options):
    """The kernel, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return npk.kernel(*tables, progress=False, **{"bias": "ignore", **options}), [
            str(w.message) for w in said if w.category is KernelWarning
        ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", ["ignore", "paths"])
@pytest.mark.parametrize("name", NAMES)
def test_cosines_are_exact_whatever_the_sizes(name, bias, dtype):
    table = wild(recorded(name), np.random.default_rng(3), sizes=100, inside=0, gates=30)
    expected = exact_cosines(table, bias=bias)
    dead = int((np.diagonal(expected) == 0).sum())
    for backend in ("cpu", "reference") if name in ("max pool", "fc dgn, soft") else ("cpu",):
        K, said = computed(table, scale="cosine", bias=bias, dtype=dtype, backend=backend)
        assert np.abs(K - expected).max() < PROMISED[dtype]
        assert said == ([f"{dead} of 8 samples have no active path: K(x, x) = 0."] if dead else [])
        assert np.array_equal(K, K.T)


@pytest.mark.parametrize("name", ["max pool", "residual, gate after the sum", *MANY_PATHS])
def test_elements_of_one_sample_may_be_far_apart(name):
    table = wild(recorded(name), np.random.default_rng(4), sizes=20, inside=30, gates=30)
    for dtype in ("float32", "float64"):
        K, said = computed(table, scale="cosine", dtype=dtype)
        assert np.abs(K - exact_cosines(table)).max() < PROMISED[dtype]
        assert not [text for text in said if "too far apart" in text]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_entries_below_the_range_are_counted_and_the_others_exact(dtype, rng):
    table = dense_table(6, 10, rng)
    size = {"float32": 1e-22, "float64": 1e-160}[dtype]
    small = GateTable(
        table.graph, table.inputs * np.where(np.arange(10) < 7, 1.0, size)[:, None], table.entries
    )
    exact = exact_kernel(small, scale="count")
    K, said = computed(small, scale="count", dtype=dtype)
    roots = [math.sqrt(exact[i][i] / exact[7][7]) if i >= 7 else math.inf for i in range(10)]
    (text,) = said
    assert text.startswith(
        f"9 of 100 entries between live samples are below the range of {dtype}: "
        f"they came out as 0, or rounded."
    )
    for i, j in itertools.product(range(10), range(10)):
        if min(roots[i], roots[j]) == math.inf or (i < 7) != (j < 7):
            assert (
                abs(Fraction(float(K[i, j])) - exact[i][j]) ** 2
                <= Fraction(PROMISED[dtype]) ** 2 * exact[i][i] * exact[j][j]
            )


def test_a_kernel_that_is_too_small_or_too_large_as_a_whole_is_refused(rng):
    table = dense_table(6, 10, rng)
    for size in (1e-30, 1e30):
        with pytest.raises(ScaleError, match="outside the range of float32"):
            npk.kernel(
                GateTable(table.graph, table.inputs * size, table.entries),
                progress=False,
                bias="ignore",
            )
    for size in (1e-170, 1e170):
        with pytest.raises(ScaleError, match="outside the range of float64"):
            npk.kernel(
                GateTable(table.graph, table.inputs * size, table.entries),
                dtype="float64",
                progress=False,
                bias="ignore",
            )
    few = GateTable(
        table.graph, table.inputs * np.where(np.arange(10) < 9, 1.0, 1e25)[:, None], table.entries
    )
    with pytest.raises(ScaleError, match="outside the range of float32"):
        npk.kernel(few, progress=False, bias="ignore")


def test_ordinary_samples_are_the_same_to_the_bit_beside_tiny_ones(rng):
    table = dense_table(40, 30, rng)
    tiny = np.where(np.arange(30) % 3 == 2, 2.0**-70, 1.0)[:, None]
    K, _ = computed(GateTable(table.graph, table.inputs * tiny, table.entries))
    np.testing.assert_array_equal(
        K,
        (npk.kernel(table, progress=False, bias="ignore") * tiny.astype("f") * tiny.T.astype("f")),
    )


@pytest.mark.parametrize("scale", ["fan_in", "cosine"])
@pytest.mark.parametrize("name", ["max pool", "conv dgn"])
def test_results_do_not_depend_on_tiles(name, scale, tmp_path):
    table = wild(
        recorded(name).take(np.arange(40) % 8),
        np.random.default_rng(5),
        sizes=8,
        inside=25,
        gates=30,
    )
    table = replace(table, inputs=table.inputs / np.abs(table.inputs).max())
    K, said = computed(table, scale=scale)
    stored, told = computed(table, scale=scale, out=tmp_path / "K.zarr")
    np.testing.assert_array_equal(stored[:], K)
    assert said == told
    engine, tiled = (
        npk.NeuralPathKernel(None, scale=scale, progress=False, bias="ignore").engine,
        np.empty_like(K),
    )
    backend, exponents = engine.prepare(table)
    for side in (4, 16):
        for tile, values in Work(
            engine, table, None, TilePlan(40, 40, side, True), backend, exponents
        ).tiles():
            put(tiled, tile.rows, tile.cols, values, symmetric=True)
        np.testing.assert_array_equal(tiled, K)
    apart, _ = computed(table.take(slice(0, 9)), table.take(slice(9, 40)), scale=scale)
    np.testing.assert_allclose(apart, K[:9, 9:], rtol=2e-5, atol=1e-7 * np.abs(K).max())


def test_a_table_that_was_saved_has_the_same_kernel(tmp_path):
    from npk.gates.store import GateStore

    table = wild(recorded("fc dgn, soft"), np.random.default_rng(6), sizes=100, inside=0, gates=30)
    table.save(tmp_path / "gates.zarr")
    K, _ = computed(table, scale="cosine")
    np.testing.assert_array_equal(
        computed(GateStore.open(tmp_path / "gates.zarr"), scale="cosine")[0], K
    )


def test_diagonals_are_on_the_kernels_scale(rng):
    table = dense_table(6, 10, rng, kind="soft")
    small = GateTable(table.graph, table.inputs * 1e-60, table.entries)
    kernel = npk.NeuralPathKernel(None, progress=False, bias="ignore")
    np.testing.assert_allclose(kernel.diagonal(small) / 1e-120, kernel.diagonal(table), rtol=1e-5)


@pytest.mark.slow
def test_what_float64_cannot_hold_is_counted_and_is_not_dead():
    """A skip goes around the gates, so that they keep their size; one sample has all its values on
    the gated branch.
    """
    table = wild(recorded("conv dgn"), np.random.default_rng(7), sizes=0, inside=0, gates=0)
    entries = {
        name: replace(e, data=e.data.astype(float)) if e.kind == "soft" else e
        for name, e in table.entries.items()
    }
    first, second, *_ = (name for name, entry in entries.items() if entry.kind == "soft")
    apart = np.ones(entries[first].data.shape[1]) * 1e-250
    apart[0] = 1.0
    entries[first].data[3] = apart[:, None]
    entries[second].data[3] = np.roll(apart, entries[second].data.shape[1] // 2)[:, None] * 1e-250
    entries[second].data[3, 0] = 0
    K, said = computed(
        GateTable(table.graph, table.inputs, entries), scale="cosine", dtype="float64"
    )
    assert [text[:60] for text in said if "too far apart" in text] == [
        "1 of 8 samples have active paths whose values are too far ap"
    ]
    assert not [text for text in said if "no active path" in text]
    others = np.arange(8) != 3
    expected = exact_cosines(GateTable(table.graph, table.inputs, entries).take(others))
    assert np.abs(K[np.ix_(others, others)] - expected).max() < 1e-11


def test_what_every_path_passes_can_be_balanced():
    def balance(name, **options):
        return balance_of(plan(recorded(name).graph, **{"bias": "ignore", **options}))

    gates = set(recorded("fc dgn, soft").names)
    assert (balance("fc dgn, soft").input, set(balance("fc dgn, soft").gates)) == (1, gates)
    assert balance("fully connected", bias="paths").input == 0
    assert balance("fully connected", value_input="ones").input == 0
    around = balance("residual dnn, ungated skips")
    assert around.input == 1
    assert 0 < len(around.gates) < recorded("residual dnn, ungated skips").layers


def test_gates_on_a_device_are_balanced_alike(rng):
    table = wild(dense_table(6, 8, rng, kind="soft"), rng, sizes=200, inside=0, gates=30)
    entries = {
        name: DeviceLayer(e.kind, e.shape, torch.tensor(e.data))
        for name, e in table.entries.items()
    }
    balance = balance_of(plan(table.graph, bias="ignore"))
    here, powers = balance.balanced(table)
    there, same = balance.balanced(DeviceGates(table.graph, torch.tensor(table.inputs), entries))
    np.testing.assert_array_equal(powers, same)
    for one, other in zip(here.arrays, there.host().arrays, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(here.inputs).max() < 1 << 8


def test_samples_of_comfortable_size_are_not_copied(rng):
    table = dense_table(6, 10, rng)
    balanced, powers = balance_of(plan(table.graph, bias="ignore")).balanced(table)
    assert balanced is table
    assert not powers.any()


@pytest.mark.parametrize("name", ["fully connected", "max pool", "residual, gate after the sum"])
def test_hard_gates_of_ordinary_samples_are_not_looked_at(name):
    table = recorded(name)
    recursion = plan(table.graph, bias="ignore")
    ranges = Ranges(recursion, find_exponents(recursion, table), "float32")
    assert ranges.surely_held(table, 0)
    assert not ranges.surely_held(GateTable(table.graph, table.inputs * 1e-30, table.entries), 0)
    found = ranges.look(table)
    assert found.held.all()
    K, _ = computed(table, dtype="float64")
    np.testing.assert_array_equal(found.live, np.diagonal(K) > 0)


@pytest.mark.parametrize("scale", ["fan_in", "cosine"])
def test_inputs_that_cancel_before_the_first_weight(scale, rng):
    """A mean of values of both signs that is 10,000 times smaller than they are: it is taken in
    float64, once a sample, so that float32 loses nothing of the kernel.
    """
    net = nn.Sequential(
        nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 5), nn.ReLU()
    )
    X = rng.standard_normal((6, 2, 8, 8)).astype(np.float32)
    X -= X.mean((2, 3), keepdims=True) * (1 - 1e-4)
    expected = npk.kernel(net, X, scale=scale, dtype="float64", bias="ignore")
    table = npk.record_gates(net, X)
    np.testing.assert_allclose(
        npk.kernel(table, scale="fan_in", dtype="float64", bias="ignore"),
        np.array(path_kernel(table, table, scale="fan_in", bias="ignore")),
        rtol=1e-11,
    )
    np.testing.assert_allclose(
        npk.kernel(table, scale=scale, dtype="float32", bias="ignore"), expected, rtol=1e-5
    )


def test_bounds_of_groups_are_found_some_at_a_time(monkeypatch):
    """The same powers of two for one block of groups at a time as for all, and as term by term."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(2, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8)),
        *(nn.SiLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 1, groups=2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)),
    )
    table = record_gates(net.eval(), np.random.default_rng(0).standard_normal((3, 2, 4, 4)))
    recursion = plan(table.graph, bias="paths")
    together = find_exponents(recursion, table)
    monkeypatch.setattr("npk.backends.exponents._TOGETHER", 1)
    np.testing.assert_array_equal(find_exponents(recursion, table), together)

    def one_by_one(total, term, field, sizes, shift):
        inside, cells = term.cells >= 0, np.maximum(term.cells, 0)
        for into, source, segment, channels in term.blocks:
            value = np.ldexp(1.0, -shift) if field is None else field[source][cells]
            overlap = channels
            if term.mask is not None:
                overlap = sizes[term.mask][np.maximum(term.places, 0), segment]
            total[into] += (np.abs(term.weights) * np.sqrt(value * overlap) * inside).sum(1) ** 2

    monkeypatch.setattr("npk.backends.exponents._add_bound", one_by_one)
    np.testing.assert_array_equal(find_exponents(recursion, table), together)
