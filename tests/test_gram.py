"""Tiles, budgets, stores, resuming, and the kernel's own promises."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk.errors import BackendError, DataError, KernelWarning, OptionError, ScaleError, ShapeError, StoreError
from npk.gram.kernel import NeuralPathKernel
from npk.gram.store import GramStore
from npk.gram.tiles import Demand, TilePlan, parse_bytes, plan_tiles
from npk.gram.work import memory_demand


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 70), nn.ReLU(), nn.Linear(70, 65), nn.ReLU(), nn.Linear(65, 2)).eval()


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).standard_normal((50, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def table(net, X):
    return npk.record_gates(net, X)


@pytest.fixture(scope="module")
def K(table):
    return npk.kernel(table)


def budget(table, side, cols=None):
    """Bytes that allow tiles of one side and no larger."""
    backend, _ = NeuralPathKernel(None).prepare(table)
    held = table.nbytes + (cols.nbytes if cols is not None else 0)
    return memory_demand(backend, "float32", (len(table), len(cols if cols is not None else table)), held).bytes(side)


class Interrupt:
    """A progress object that counts tiles, and stops the run after some."""

    def __init__(self, after=10**9):
        self.after, self.tiles, self.advanced = after, 0, 0

    def task(self, description, total):
        self.counts = description == "kernel tiles"
        return self

    def __enter__(self):
        return self.advance

    def __exit__(self, *error):
        return None

    def advance(self, steps):
        self.advanced += steps if self.counts else 0
        if self.counts and self.advanced >= self.after:
            raise KeyboardInterrupt


# tiles


@pytest.mark.parametrize(("n", "m", "side"), [(10, 10, 4), (1, 9, 4), (9, 1, 4), (8, 8, 4), (3, 3, 16), (5, 7, 1)])
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
    sides = {bytes_: plan_tiles(500, 500, demand, budget=bytes_, symmetric=True).side for bytes_ in (1012, 1056, 1416, 2344, 10**6)}
    assert sides == {1012: 1, 1056: 4, 1416: 16, 2344: 32, 10**6: 1024}
    assert plan_tiles(500, 500, demand, budget=None, symmetric=True).side == 1024
    assert plan_tiles(500, 500, demand, budget=1416, symmetric=True, side=16).side == 16


def test_a_budget_that_is_too_small_names_the_smallest():
    demand = Demand(fixed=1000, sample=10, pair=1)
    with pytest.raises(OptionError, match="memory=1010 bytes is too little for 500 x 400 samples: the smallest that works is 1011 bytes"):
        plan_tiles(500, 400, demand, budget=1010, symmetric=False)
    assert plan_tiles(500, 400, demand, budget=1011, symmetric=False).side == 1
    with pytest.raises(OptionError, match="the smallest that works is 1416 bytes"):
        plan_tiles(500, 400, demand, budget=1415, symmetric=False, side=16)


def test_demand_counts_everything_that_is_held(table):
    backend, _ = NeuralPathKernel(None).prepare(table)
    demand = memory_demand(backend, "float64", (50, 30), held=table.nbytes)
    assert demand.fixed >= table.nbytes + 50 * 30 * 8 + backend.bytes_a_thread
    side = backend.side(table)
    assert demand.sample * len(table) >= 2 * (side.bits.nbytes + side.reals.nbytes)  # rows and columns
    assert demand.pair >= backend.dtype.itemsize


@pytest.mark.parametrize(
    ("text", "size"),
    [(None, None), (5, 5), ("8GB", 8 * 10**9), ("512MiB", 512 << 20), (" 1.5 k ", 1500), (".5TB", 5 * 10**11), ("100", 100), ("100b", 100)],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", [0, -1, "", "GB", "8 apples", "8IB", "0", "1e9", "-5GB"])
def test_no_sizes(text):
    with pytest.raises(OptionError, match="is not a size. Give a number of bytes"):
        parse_bytes(text)


# results


@pytest.mark.parametrize("side", [4, 16, 32])
def test_results_do_not_depend_on_tiles(side, table, K, tmp_path):
    memory = budget(table, side)
    np.testing.assert_array_equal(npk.kernel(table, memory=memory), K)
    np.testing.assert_array_equal(K, K.T)
    gram = npk.kernel(table, memory=memory, out=tmp_path / "K")
    assert gram.store.plan.side >= side  # the result is on disk, so the budget leaves more for a tile
    np.testing.assert_array_equal(np.asarray(gram), K)


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
    for rows, cols in ((slice(0, 1), slice(0, 50)), (slice(3, 40), slice(7, 8)), (slice(0, 37), slice(13, 50))):
        np.testing.assert_allclose(npk.kernel(table.take(rows), table.take(cols), scale=scale), square[rows, cols], rtol=2e-6, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cosine(dtype, table):
    plain, cosine = npk.kernel(table, dtype="float64"), npk.kernel(table, scale="cosine", dtype=dtype)
    root = np.sqrt(np.diagonal(plain))
    assert cosine.dtype == dtype
    np.testing.assert_array_equal(np.diagonal(cosine), 1)
    np.testing.assert_array_equal(cosine, cosine.T)
    np.testing.assert_allclose(cosine, plain / np.outer(root, root), atol=1e-5 if dtype == "float32" else 1e-12)


def test_dead_inputs_have_cosine_zero_and_are_counted(X):
    net = nn.Sequential(nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))
    dark = X[:6].copy()
    dark[[1, 4]] = 0
    with pytest.warns(KernelWarning, match=r"2 of 6 samples have no active path: K\(x, x\) = 0"):
        K = npk.kernel(net, dark, scale="cosine")
    assert not K[[1, 4]].any()
    assert not K[:, [1, 4]].any()
    assert (np.diagonal(K)[[0, 2, 3, 5]] == 1).all()


def test_diagonal_and_networks_that_are_reused(net, X, K):
    made = NeuralPathKernel(net, progress=False)
    np.testing.assert_allclose(made.diagonal(X), np.diagonal(K), rtol=1e-6)
    np.testing.assert_array_equal(made(X), K)
    trace = made._trace
    np.testing.assert_array_equal(made(X[:9]), K[:9, :9])
    assert made._trace is trace


# refusals


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"dtype": "float16"}, OptionError, "dtype='float16' is not known"),
        ({"gates": "some"}, OptionError, "gates='some' is not known"),
        ({"scale": "other"}, OptionError, "scale='other' is not known"),
        ({"backend": "tpu"}, OptionError, "backend='tpu' is not known"),
        ({"backend": "cuda"}, BackendError, "is not in this version"),
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
    with pytest.raises(ScaleError, match='with scale="count" the largest kernel values are about 2.*Use scale="cosine"'):
        npk.kernel(huge, scale="count")
    assert np.isfinite(npk.kernel(huge, scale="count", dtype="float64")).all()


# stores


def test_gram_reads_like_an_array(table, K, tmp_path):
    gram = npk.kernel(table, memory=budget(table, 16), out=tmp_path / "K")
    assert gram.complete
    assert (gram.shape, len(gram), gram.dtype) == ((50, 50), 50, np.float32)
    for rows in (slice(0, 50), slice(15, 33), slice(49, 50), slice(20, 20), slice(-3, None)):
        np.testing.assert_array_equal(gram[rows], K[rows])
    np.testing.assert_array_equal(gram.diagonal(), np.diagonal(K))
    again = npk.Gram.load(tmp_path / "K")
    np.testing.assert_array_equal(np.asarray(again, np.float64), K.astype(np.float64))
    assert again.about["scale"] == "fan_in"
    for rows in (3, slice(0, 9, 2)):
        with pytest.raises(ShapeError, match="Give a slice of rows"):
            gram[rows]


def test_rectangular_gram(table, K, tmp_path):
    rows = table.take(slice(0, 37))
    gram = npk.kernel(rows, table, memory=budget(rows, 16, table), out=tmp_path / "K")
    assert gram.shape == (37, 50)
    np.testing.assert_array_equal(gram[5:20], npk.kernel(rows, table)[5:20])
    np.testing.assert_allclose(gram[0:37], K[:37], rtol=1e-6)
    assert gram.diagonal().shape == (37,)


def test_an_interrupted_run_goes_on(table, K, tmp_path, monkeypatch):
    memory, written = budget(table, 16), []
    write = GramStore.write
    monkeypatch.setattr(GramStore, "write", lambda self, tile, values: (written.append((tile.row, tile.col)), write(self, tile, values)))
    with pytest.raises(KeyboardInterrupt):
        npk.kernel(table, memory=memory, out=tmp_path / "K", progress=Interrupt(after=3))
    first = len(written)
    assert 0 < first < 10
    half = npk.Gram.load(tmp_path / "K")
    assert not half.complete
    with pytest.raises(StoreError, match=r"is not complete: tile \(\d, \d\) is missing"):
        np.asarray(half)
    gram = npk.kernel(table, out=tmp_path / "K", progress=(progress := Interrupt()))  # another budget: the tiles stay
    assert len(written) == len(set(written)) == len(gram.store.plan) == progress.advanced
    np.testing.assert_array_equal(np.asarray(gram), K)
    npk.kernel(table, out=tmp_path / "K")
    assert len(written) == len(gram.store.plan)


def test_stores_of_something_else(table, tmp_path):
    npk.kernel(table, out=tmp_path / "K")
    with pytest.raises(StoreError, match="holds another kernel: scale is 'fan_in' there and 'cosine' here"):
        npk.kernel(table, scale="cosine", out=tmp_path / "K")
    with pytest.raises(StoreError, match="holds another kernel: rows is"):
        npk.kernel(table.take(slice(0, 49)), out=tmp_path / "K")
    with pytest.raises(StoreError, match="exists and is not a kernel that can be resumed"):
        npk.kernel(table, out=tmp_path / "K", resume=False)
    table.save(tmp_path / "gates")
    with pytest.raises(StoreError, match="holds gate table, not a gram"):
        npk.kernel(table, out=tmp_path / "gates")
    with pytest.raises(StoreError, match="cannot read"):
        npk.Gram.load(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write .*Choose a folder"):
        npk.kernel(table, out=tmp_path / "file" / "K")


def test_damaged_tiles(table, tmp_path):
    npk.kernel(table, memory=budget(table, 16), out=tmp_path / "K")
    gram = npk.Gram.load(tmp_path / "K")
    gram.store = GramStore.open(tmp_path / "K", write=True)
    gram.store.group["tiles"][0, 1] += 1
    with pytest.raises(StoreError, match=r"is damaged at tile \(0, 0\): its checksum differs"):
        np.asarray(gram)
    chunk = next(p for p in sorted((tmp_path / "K" / "tiles").rglob("*")) if p.is_file() and p.suffix != ".json")
    chunk.write_bytes(b"nothing")
    with pytest.raises(StoreError, match=r"is damaged at tile \(0, 0\): "):
        np.asarray(gram)


def test_a_full_disk(table, tmp_path, monkeypatch):
    gram = npk.kernel(table, out=tmp_path / "K")

    class Full:
        def __getitem__(self, name):
            raise OSError(28, "No space left on device")

    gram.store.group = Full()
    with pytest.raises(StoreError, match="No space left on device. Finished tiles are kept"):
        gram.store.write(next(iter(gram.store.plan)), np.zeros((50, 50)))


MEASURE = """
import pathlib, sys, npk
from npk.dual.gate_table import GateTable

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
    net = nn.Sequential(nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 1)).eval()
    table = npk.record_gates(net, rng.standard_normal((6000, 64)).astype(np.float32))
    table.save(tmp_path / "gates")
    memory = 200 * 10**6  # 144 MB of them the result
    output = subprocess.run([sys.executable, "-c", MEASURE, tmp_path / "gates", str(memory)], check=True, capture_output=True, text=True)
    assert 140 * 10**6 < int(output.stdout) <= memory


def test_a_cluster_is_refused(table):
    with pytest.raises(BackendError, match="computes on one machine. Leave client out"):
        npk.kernel(table, client=object())


def test_dead_inputs_are_told_for_a_store_too(tmp_path):
    """The black sample has no active path; the store says so like the array."""
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 1)).eval()
    X = np.array([[0, 0, 0], [1, 2, 3], [-1, -2, -3]], np.float32)
    with pytest.warns(KernelWarning, match=r"1 of 3 samples have no active path"):
        gram = npk.kernel(net, X, out=tmp_path / "K", progress=False)
    assert np.asarray(gram)[0].max() == 0


def test_a_result_on_disk_does_not_count_against_the_memory(tmp_path, rng):
    """The array alone would break the promise; the store keeps only tiles in memory."""
    net = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 1)).eval()
    X = rng.standard_normal((700, 3)).astype(np.float32)
    memory = 700 * 700 * 4  # the array itself
    with pytest.raises(OptionError, match="the smallest that works is"):
        npk.kernel(net, X, memory=memory, progress=False)
    gram = npk.kernel(net, X, memory=memory, out=tmp_path / "K", progress=False)
    np.testing.assert_array_equal(np.asarray(gram), npk.kernel(net, X, progress=False))
