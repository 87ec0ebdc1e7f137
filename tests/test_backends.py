"""The contract of a backend; a new one fills in ``make``."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import assert_kernels_equal, kernel_deviation
from torch import nn

import npk
from npk import networks
from npk.backends.cpu import CpuBackend
from npk.backends.exponents import find_exponents
from npk.backends.reference import ReferenceBackend, evaluate
from npk.errors import DataError, KernelWarning, ScaleError
from npk.gates.table import GateLayer, GateTable, pack
from npk.graph.node import PathNode
from npk.graph.operators import Convolution, Gate, Input
from npk.graph.path_graph import PathGraph
from npk.graph.positions import Window
from npk.recursion.instruments import Depths, Paths
from npk.recursion.planning import plan


def dense_table(width, n, rng, kind="hard"):
    """Table of a graph 3 -> width -> width -> 1 with gates drawn at random."""

    def linear(name, before, shape):
        return PathNode(
            name, Convolution(f"{name}.weight", None, Window.whole(())), (before,), shape
        )

    nodes = [PathNode("x", Input(), (), (3,))]
    for layer in ("a", "b"):
        nodes += [
            linear(layer, nodes[-1].name, (width,)),
            PathNode(f"gate {layer}", Gate(layer), (layer,), (width,)),
        ]
    nodes.append(linear("head", nodes[-1].name, (1,)))
    gates = {layer: rng.random((n, 1, width)) for layer in ("a", "b")}
    data = {
        name: pack(g > 0.5) if kind == "hard" else g.astype(np.float32) for name, g in gates.items()
    }
    entries = {name: GateLayer(kind, (width,), values) for name, values in data.items()}
    return GateTable(PathGraph(tuple(nodes), (3,)), rng.standard_normal((n, 3)), entries)


def dense_kernel(table, cols):
    """The closed form, count scale: input Gram times overlaps."""
    K = table.inputs @ cols.inputs.T
    for mine, theirs in zip(table, cols, strict=True):
        K = K * (mine.astype(float) @ theirs.astype(float).T)
    return K


@pytest.fixture(scope="module")
def image_table():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1, padding_mode="circular"), nn.LeakyReLU(-0.3), nn.MaxPool2d(2),
        nn.Conv2d(5, 4, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    ).double().eval()  # fmt: skip
    return npk.record_gates(net, np.random.default_rng(0).standard_normal((17, 2, 4, 6)))


@pytest.fixture(scope="module")
def stream_table():
    """Four blocks with a rectifier after each sum: their masks follow from one another."""
    torch.manual_seed(1)
    net = networks.build(
        "residual", input_shape=(1, 6, 6), classes=2, skip="gated", widths=[40] * 4, seed=1
    )
    return npk.record_gates(net, np.random.default_rng(1).standard_normal((18, 1, 6, 6)))


class BackendContract:
    """What every backend must do."""

    few = None  # samples of a long test, where the backend is emulated

    def make(self, recursion, table, dtype):
        raise NotImplementedError

    def tile(self, table, cols, dtype="float64", **options):
        recursion = plan(table.graph, scale="count", **{"bias": "ignore", **options})
        backend = self.make(recursion, table, dtype)
        exponents = find_exponents(recursion, cols)
        made = backend.tile(backend.side(table), backend.side(cols), exponents)
        assert made.dtype == dtype
        return np.ldexp(made.astype(np.float64), int(exponents[-1]))

    @pytest.mark.parametrize(
        ("n", "m"), [(1, 1), (1, 17), (4, 15), (5, 16), (17, 1), (9, 33), (33, 9)]
    )
    def test_shapes(self, n, m, rng):
        table = dense_table(5, max(n, m), rng)
        rows, cols = table.take(slice(0, n)), table.take(slice(max(n, m) - m, None))
        actual = self.tile(rows, cols)
        assert actual.shape == (n, m)
        np.testing.assert_allclose(actual, dense_kernel(rows, cols), rtol=1e-11, atol=1e-11)

    @pytest.mark.parametrize("kind", ["hard", "soft"])
    @pytest.mark.parametrize("width", [1, 63, 64, 65, 130])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_widths(self, width, kind, dtype, rng):
        table = dense_table(width, 9, rng, kind)
        cols = table.take(slice(0, 5))
        expected = dense_kernel(table, cols)
        assert kernel_deviation(self.tile(table, cols, dtype), expected) < (
            1e-5 if dtype == "float32" else 1e-11
        )

    def test_overlaps_are_exact(self, rng):
        table = dense_table(130, 9, rng)
        table = GateTable(table.graph, np.ones((9, 3)), table.entries)
        np.testing.assert_array_equal(
            self.tile(table, table, "float64"), dense_kernel(table, table)
        )

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("bias", ["ignore", "paths"])
    def test_images(self, dtype, bias, image_table):
        recursion = plan(image_table.graph, bias=bias)
        cols = image_table.take(slice(0, 5))
        exponents = find_exponents(recursion, cols)
        backend = self.make(recursion, image_table, dtype)
        actual = backend.tile(backend.side(image_table), backend.side(cols), exponents)
        expected = evaluate(recursion, image_table, cols, exponents)
        diagonal = np.diagonal(evaluate(recursion, image_table, image_table, exponents))
        assert_kernels_equal(actual, expected, dtype, (diagonal, diagonal[:5]))

    def test_a_pair_does_not_depend_on_its_tile(self, image_table):
        backend = self.make(plan(image_table.graph, bias="ignore"), image_table, "float32")
        exponents = find_exponents(backend.recursion, image_table)
        whole = backend.tile(backend.side(image_table), backend.side(image_table), exponents)
        for i, j in ((0, 16), (13, 2), (16, 16)):
            one, other = (backend.side(image_table.take(slice(k, k + 1))) for k in (i, j))
            np.testing.assert_array_equal(backend.tile(one, other, exponents)[0, 0], whole[i, j])

    @pytest.mark.parametrize("width", [3, 17, 130])
    def test_a_pair_of_real_gates_does_not_depend_on_its_tile(self, width, rng):
        """Sums of real numbers round by their order, which BLAS takes from the shape of a product."""
        table = dense_table(width, 33, rng, "soft")
        backend = self.make(plan(table.graph, bias="ignore"), table, "float64")
        exponents, whole = find_exponents(backend.recursion, table), backend.side(table)
        expected = backend.tile(whole, whole, exponents)
        for rows, cols in (
            (slice(0, 1), slice(0, 33)),
            (slice(4, 5), slice(4, 5)),
            (slice(1, 20), slice(7, 9)),
        ):
            made = backend.tile(
                backend.side(table.take(rows)), backend.side(table.take(cols)), exponents
            )
            np.testing.assert_array_equal(made, expected[rows, cols])

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("instrument", [Paths(), Depths()], ids=["kernel", "depths"])
    @pytest.mark.parametrize("gates", ["hard", "soft", "dense"])
    def test_the_diagonal_is_that_of_a_tile(
        self, dtype, instrument, gates, image_table, stream_table, rng
    ):
        """To the bit, for masks in words, in chains and in numbers, and for several parts."""
        if self.few and gates != "dense":
            pytest.skip("this diagonal is that of a tile, and an emulated one takes minutes")
        tables = {"hard": stream_table, "soft": image_table, "dense": dense_table(40, 18, rng)}
        table = tables[gates].take(slice(self.few))
        recursion = instrument.applied(table.graph, plan(table.graph, bias="paths", merged=False))
        backend = self.make(recursion, table, dtype)
        exponents, side = find_exponents(recursion, table), backend.side(table)
        made = backend.diagonal(side, exponents)
        expected = np.diagonal(backend.tile(side, side, exponents), axis1=-2, axis2=-1)
        assert made.shape == (*((recursion.parts,) if recursion.parts > 1 else ()), len(table))
        assert (made > 0).any(-1).all()
        np.testing.assert_array_equal(made, expected)

    def test_left_of_the_diagonal_may_stay_uncomputed(self, rng):
        table = dense_table(65, 40, rng)
        backend = self.make(plan(table.graph, bias="ignore"), table, "float64")
        exponents, side = find_exponents(backend.recursion, table), backend.side(table)
        whole = backend.tile(side, side, exponents)
        for first in (0, 3, 16, 24):
            cols = backend.side(table.take(slice(first, None)))
            part = backend.tile(side, cols, exponents, first)
            for i in range(40):
                np.testing.assert_array_equal(
                    part[i, max(i - first, 0) :], whole[i, max(i, first) :]
                )

    def test_says_what_it_takes(self, image_table):
        backend = self.make(plan(image_table.graph, bias="ignore"), image_table, "float32")
        assert backend.bytes_a_sample > 0
        assert backend.bytes_a_pair >= 4
        assert backend.bytes_a_thread >= 0

    def test_no_samples(self, rng):
        table = dense_table(5, 2, rng)
        empty = table.take(slice(0, 0))
        name = (
            "reference"
            if self.make(plan(table.graph, bias="ignore"), table, "float32").bytes_a_thread == 0
            else "cpu"
        )
        for pair in ((empty, table), (table, empty), (empty, None)):
            with pytest.raises(DataError, match="gate table of 0 samples"):
                npk.kernel(*pair, backend=name)


THREADS = """
import sys, torch, npk
torch.set_num_threads(1)
print(torch.get_num_threads())
npk.kernel(npk.GateTable.load(sys.argv[1]), progress=False)
print(torch.get_num_threads())
"""


class TestReference(BackendContract):
    def make(self, recursion, table, dtype):
        return ReferenceBackend(recursion, table, dtype)


class TestCpu(BackendContract):
    def make(self, recursion, table, dtype):
        return CpuBackend(recursion, table, dtype)

    def test_torch_keeps_its_threads(self, rng, tmp_path):
        """Seen in a process of its own: Numba sets the number when its threads start."""
        dense_table(5, 4, rng).save(tmp_path / "gates")
        output = subprocess.run(
            [sys.executable, "-c", THREADS, tmp_path / "gates"],
            check=True,
            capture_output=True,
            text=True,
        )
        assert output.stdout.split() == ["1", "1"]

    def test_more_contributions_than_one_float32_sum_should_hold(self, rng):
        """Ten thousand pairs of positions add up in one number."""
        net = (
            nn.Sequential(
                nn.Conv2d(1, 2, 1, bias=False),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(2, 1),
            )
            .double()
            .eval()
        )
        nn.init.ones_(net[0].weight)
        table = npk.record_gates(net, 1 + rng.random((3, 1, 10, 10)))
        exact = npk.kernel(table, dtype="float64", backend="reference")
        assert kernel_deviation(npk.kernel(table), exact) < 1e-6


def test_inputs_too_small_for_float32(rng):
    table = dense_table(50, 4, rng)
    table = GateTable(table.graph, 1 + table.inputs**2, table.entries)
    tiny = GateTable(table.graph, 1e-30 * table.inputs, table.entries)
    expected = npk.kernel(table, scale="cosine", dtype="float64")
    np.testing.assert_allclose(npk.kernel(tiny, scale="cosine"), expected, atol=1e-6)
    np.testing.assert_allclose(
        npk.kernel(tiny, scale="cosine", dtype="float64"), expected, atol=1e-12
    )
    with pytest.raises(ScaleError, match="outside the range of float32"):
        npk.kernel(tiny)


def test_exponents_skip_dead_samples(rng):
    table = dense_table(50, 4, rng)
    dark = GateTable(
        table.graph, np.concatenate([np.zeros((2, 3)), 1e-12 * table.inputs[2:]]), table.entries
    )
    recursion = plan(table.graph, bias="ignore")
    np.testing.assert_array_equal(
        find_exponents(recursion, dark), find_exponents(recursion, dark.take(slice(2, None)))
    )
    assert find_exponents(recursion, dark)[-1] < -70
    assert not find_exponents(recursion, dark.take(slice(0, 2))).any()
    with pytest.warns(KernelWarning, match="2 of 4 samples have no active path"):
        npk.kernel(dark, scale="cosine", bias="ignore")


def test_without_a_place_for_compiled_code(monkeypatch):
    """A read-only installation and no home: compiled anew, not refused."""
    from npk.backends.jit import can_cache

    def nowhere(cache):
        raise RuntimeError("cannot cache function: no locator available")

    assert can_cache()
    monkeypatch.setattr("numba.njit", nowhere)
    assert not can_cache()
