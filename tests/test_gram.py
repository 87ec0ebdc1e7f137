"""Tiles, budgets, stores, resuming, and the kernel's own promises."""

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk.errors import BackendError, DataError, KernelWarning, OptionError, ScaleError, ShapeError
from npk.gram.kernel import NeuralPathKernel
from npk.gram.options import parse_bytes
from npk.gram.tiles import Demand, TilePlan, plan_tiles
from npk.gram.work import memory_demand
from npk.gram.writing import plan_in_memory, plan_on_disk


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 70), nn.ReLU(), nn.Linear(70, 65), nn.ReLU(), nn.Linear(65, 2)
    ).eval()


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).standard_normal((50, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def table(net, X):
    return npk.record_gates(net, X)


@pytest.fixture(scope="module")
def K(table):
    return npk.kernel(table)


def budget(table, side, cols=None, dtype="float32"):
    """Bytes that allow tiles of one side and no larger."""
    engine = NeuralPathKernel(None, dtype=dtype).engine
    backend, _ = engine.prepare(table)
    held = table.nbytes + (cols.nbytes if cols is not None else 0)
    return memory_demand(
        backend, engine, held, (len(table), len(cols if cols is not None else table))
    ).bytes(side)


# tiles


@pytest.mark.parametrize(
    ("n", "m", "side"), [(10, 10, 4), (1, 9, 4), (9, 1, 4), (8, 8, 4), (3, 3, 16), (5, 7, 1)]
)
@pytest.mark.parametrize("symmetric", [False, True])
def test_tiles_cover_the_matrix_once(n, m, side, symmetric):
    m = n if symmetric else m
    plan = TilePlan(n, m, side, symmetric)
    seen = np.zeros((n, m), int)
    for tile in plan:
        assert tile.rows.stop - tile.rows.start <= side
        seen[tile.rows, tile.cols] += 1
        assert (tile.row, tile.col) < plan.grid
        if symmetric and tile.row != tile.col:
            seen[tile.cols, tile.rows] += 1
    assert (seen == 1).all()
    assert len(plan) == len(list(plan))


def test_the_largest_tiles_that_keep_the_promise():
    demand = Demand(fixed=1000, sample=10, pair=1)
    assert demand.bytes(16) == 1000 + 160 + 256
    sides = {
        bytes_: plan_tiles(500, 500, demand, budget=bytes_, symmetric=True).side
        for bytes_ in (1012, 1056, 1416, 2344, 10**6)
    }
    assert sides == {1012: 1, 1056: 4, 1416: 16, 2344: 32, 10**6: 1024}
    assert plan_tiles(500, 500, demand, budget=None, symmetric=True).side == 1024
    assert plan_tiles(500, 500, demand, budget=1416, symmetric=True, side=16).side == 16


def test_a_budget_that_is_too_small_names_the_smallest():
    demand = Demand(fixed=1000, sample=10, pair=1)
    with pytest.raises(
        OptionError,
        match="memory=1010 bytes is too little for 500 x 400 samples: "
        "the smallest that works is 1011 bytes",
    ):
        plan_tiles(500, 400, demand, budget=1010, symmetric=False)
    assert plan_tiles(500, 400, demand, budget=1011, symmetric=False).side == 1
    with pytest.raises(OptionError, match="the smallest that works is 1416 bytes"):
        plan_tiles(500, 400, demand, budget=1415, symmetric=False, side=16)


def test_what_comes_before_the_tiles_counts_and_a_margin_is_named():
    demand = Demand(fixed=1000, sample=10, pair=1, least=5000, margin=50)
    assert [demand.bytes(side) for side in (1, 64)] == [5000, 1000 + 640 + 4096]
    assert plan_tiles(500, 500, demand, budget=5000, symmetric=True).side == 32
    with pytest.raises(OptionError, match="the smallest that works is 5050 bytes"):
        plan_tiles(500, 500, demand, budget=4999, symmetric=True)
    with pytest.raises(OptionError, match="the smallest that works is 5050 bytes"):
        # of a store: its tiles hold no more than there is
        plan_tiles(3, 3, demand, budget=4999, symmetric=True, side=1024)


def test_two_gigabytes_for_tiles_where_nothing_is_promised():
    for fixed in (0, 10**12):
        assert (
            plan_tiles(5000, 5000, Demand(fixed, 0, 1900), budget=None, symmetric=True).side == 1024
        )
        assert (
            plan_tiles(5000, 5000, Demand(fixed, 0, 2000), budget=None, symmetric=True).side == 512
        )
    # one sample takes more
    assert plan_tiles(5000, 5000, Demand(0, 10**10, 0), budget=None, symmetric=True).side == 1


class Told:
    """Progress that keeps the facts of the plan."""

    def task(self, *_):
        return nullcontext(lambda steps: None)

    def note(self, name, text, /, **facts):
        self.plan = facts


@pytest.mark.parametrize("where", [plan_on_disk, plan_in_memory])
def test_the_recording_counts(where, X):
    """A network whose values take more than all that comes later."""
    from npk.gates.recording import bytes_to_record

    wide = nn.Sequential(
        nn.Linear(5, 100_000), nn.Linear(100_000, 4), nn.ReLU(), nn.Linear(4, 1)
    ).eval()
    for sides in ((X, None), (X[:3], X)):
        kernel = NeuralPathKernel(wide, progress=False)
        sources = kernel.sources(*sides)
        few = sources[0].few()
        recording = bytes_to_record(kernel.trace((5,)), len(X))
        assert recording > len(X) * 100_000 * 4
        assert (
            where(kernel.engine, kernel.engine.prepare(few)[0], sources, few.nbytes // len(few))[
                1
            ].least
            >= X.nbytes + recording
        )


def test_demand_counts_everything_that_is_held(table):
    engine = NeuralPathKernel(None, dtype="float64").engine
    backend, _ = engine.prepare(table)
    demand = memory_demand(backend, engine, table.nbytes, (50, 30))
    assert demand.fixed >= table.nbytes + 50 * 30 * 8 + backend.bytes_a_thread
    side = backend.side(table)
    # rows and columns
    assert demand.sample * len(table) >= 2 * (side.bits.nbytes + side.reals.nbytes)
    assert demand.pair >= backend.dtype.itemsize


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (None, None),
        (5, 5),
        ("8GB", 8 * 10**9),
        ("512MiB", 512 << 20),
        (" 1.5 k ", 1500),
        (".5TB", 5 * 10**11),
        ("100", 100),
        ("100b", 100),
    ],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", [0, -1, "", "GB", "8 apples", "8IB", "0", "1e9", "-5GB"])
def test_no_sizes(text):
    with pytest.raises(OptionError, match="is not a size. Give a number of bytes"):
        parse_bytes(text)


# results


@pytest.mark.parametrize("side", [4, 16, 32])
def test_results_do_not_depend_on_tiles(side, table, K):
    memory = budget(table, side)
    np.testing.assert_array_equal(npk.kernel(table, memory=memory), K)
    np.testing.assert_array_equal(K, K.T)


def test_results_do_not_depend_on_threads(table, K):
    import numba

    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_array_equal(npk.kernel(table), K)
    finally:
        numba.set_num_threads(before)


@pytest.mark.parametrize("scale", ["fan_in", "count", "cosine"])
def test_rectangular_kernels_are_slices_of_the_square_one(scale, table):
    square = npk.kernel(table, scale=scale)
    for rows, cols in (
        (slice(0, 1), slice(0, 50)),
        (slice(3, 40), slice(7, 8)),
        (slice(0, 37), slice(13, 50)),
    ):
        np.testing.assert_allclose(
            npk.kernel(table.take(rows), table.take(cols), scale=scale),
            square[rows, cols],
            rtol=2e-6,
            atol=0,
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cosine(dtype, table):
    plain, cosine = (
        npk.kernel(table, dtype="float64"),
        npk.kernel(table, scale="cosine", dtype=dtype),
    )
    root = np.sqrt(np.diagonal(plain))
    assert cosine.dtype == dtype
    np.testing.assert_array_equal(np.diagonal(cosine), 1)
    np.testing.assert_array_equal(cosine, cosine.T)
    np.testing.assert_allclose(
        cosine, plain / np.outer(root, root), atol=1e-5 if dtype == "float32" else 1e-12
    )


def test_dead_inputs_have_cosine_zero_and_are_counted(X):
    net = nn.Sequential(nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))
    dark = X[:6].copy()
    dark[[1, 4]] = 0
    with pytest.warns(KernelWarning, match=r"2 of 6 samples have no active path: K\(x, x\) = 0"):
        K = npk.kernel(net, dark, scale="cosine", bias="ignore")
    assert not K[[1, 4]].any()
    assert not K[:, [1, 4]].any()
    assert (np.diagonal(K)[[0, 2, 3, 5]] == 1).all()


def test_diagonal_and_networks_that_are_reused(net, X, K):
    made = NeuralPathKernel(net, progress=False)
    np.testing.assert_allclose(made.diagonal(X), np.diagonal(K), rtol=1e-6)
    np.testing.assert_array_equal(made(X), K)
    trace = made.trace(X.shape[1:])
    np.testing.assert_array_equal(made(X[:9]), K[:9, :9])
    assert made.trace(X.shape[1:]) is trace


# refusals


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"dtype": "float16"}, OptionError, "dtype='float16' is not known"),
        ({"gates": "some"}, OptionError, "gates='some' is not known"),
        ({"scale": "other"}, OptionError, "scale='other' is not known"),
        ({"backend": "tpu"}, OptionError, "backend='tpu' is not known"),
        ({"backend": "cuda"}, BackendError, "CuPy|driver|device"),
        ({"memory": 1000}, OptionError, "memory=1000 bytes is too little for 50 x 50 samples"),
        ({"Y": 1}, OptionError, "a gate table stands for network and samples together"),
    ],
)
def test_refused_options(options, error, why, table):
    with pytest.raises(error, match=why):
        npk.kernel(table, **options)


def test_refused_samples(net, table, X):
    with pytest.raises(DataError, match="there are no samples"):
        npk.kernel(net)
    with pytest.raises(DataError, match="X is a ndarray, but there is no network"):
        npk.kernel(table, X)
    other = npk.record_gates(nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 1)), X)
    with pytest.raises(ShapeError, match="X and Y have different path graphs"):
        npk.kernel(table, other)


def test_values_outside_the_range(table):
    import dataclasses

    huge = dataclasses.replace(table, inputs=1e18 * table.inputs.astype(np.float64))
    with pytest.raises(
        ScaleError,
        match='with scale="count" the largest kernel values are about 2.*Use scale="cosine"',
    ):
        npk.kernel(huge, scale="count")
    assert np.isfinite(npk.kernel(huge, scale="count", dtype="float64")).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_tiny_sample_is_no_matter_of_tiles(dtype, net, X):
    """Alone in a tile it is not taken for a kernel outside the range; a kernel of such samples
    alone is.
    """
    tiny = X.astype(np.float64)
    tiny[7] *= 1e-18 if dtype == "float32" else 1e-150
    table = npk.record_gates(net, tiny)
    options = {"bias": "ignore", "dtype": dtype}
    whole = npk.kernel(table, **options)
    np.testing.assert_array_equal(
        npk.kernel(table, memory=budget(table, 1, dtype=dtype), **options), whole
    )
    assert whole[7, 7] > 0
    with pytest.raises(ScaleError, match="the largest kernel values are about 2"):
        npk.kernel(table.take(slice(7, 8)), **options)


MEASURE = """
import pathlib, sys, npk
from npk.gates.table import GateTable

def peak():
    (line,) = (line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

table = GateTable.load(sys.argv[1])
npk.kernel(table.take(slice(0, 20)), progress=False)
before = peak()
K = npk.kernel(table, progress=False, memory=int(sys.argv[2]))
print(peak() - before + table.nbytes)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.slow
def test_the_memory_promise_is_kept(tmp_path, rng):
    """Peak of a process of its own above what it holds before, with the table counted in."""
    net = nn.Sequential(
        nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 1)
    ).eval()
    table = npk.record_gates(net, rng.standard_normal((6000, 64)).astype(np.float32))
    table.save(tmp_path / "gates")
    memory = 200 * 10**6  # 144 MB of them the result
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "gates", str(memory)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert 140 * 10**6 < int(output.stdout) <= memory


def test_a_cluster_needs_a_store(table):
    with pytest.raises(
        OptionError,
        match="client= needs out=: workers write their tiles into a store that all of them see",
    ):
        npk.kernel(table, client=object())
