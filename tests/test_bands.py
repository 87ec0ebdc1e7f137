"""A tile that takes long is computed in bands of rows, and tells how far it is: to the last pair, and
with the bits of the tile as a whole.
"""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
from test_backends import dense_table

import npk
from npk import networks
from npk.backends.cpu import CpuBackend, bands, runners
from npk.backends.exponents import find_exponents
from npk.gram.tiles import Tile
from npk.gram.work import within as inside
from npk.recursion.planning import plan


class Tasks:
    """Progress that keeps what it is told: for each task its name, total, and what is done."""

    def __init__(self):
        self.seen = []

    @contextlib.contextmanager
    def task(self, description, total, done=0):
        counts = [done]
        self.seen.append((description, total, counts))
        yield lambda steps: counts.append(counts[-1] + steps)

    def note(self, name, text, /, **facts):
        pass


@pytest.fixture
def clock(monkeypatch):
    """A clock of the bands and of the tile that goes when it is told to."""
    made = SimpleNamespace(now=0.0)
    made.monotonic = lambda: made.now
    monkeypatch.setattr(bands, "time", made)
    monkeypatch.setattr(inside, "time", made)
    return made


@pytest.fixture
def short_bands(monkeypatch):
    """Bands as small as can be."""
    monkeypatch.setattr(bands, "_SECONDS", 0)
    monkeypatch.setattr(bands, "_TASKS", 1)
    monkeypatch.setattr(runners, "_QUICK", 0)
    monkeypatch.setattr(bands.numba, "get_num_threads", lambda: 1)


def image_table():
    net = networks.build(
        "conv", kind="dnn", input_shape=(1, 6, 6), classes=2, channels=[4, 4], seed=0
    )
    X = np.random.default_rng(0).standard_normal((75, 1, 6, 6), dtype=np.float32)
    return npk.record_gates(net, X)


@pytest.mark.parametrize("gates", ["images", "dense"])
def test_bands_change_no_bit(gates, short_bands, rng):
    table = image_table() if gates == "images" else dense_table(70, 75, rng)
    backend = CpuBackend(plan(table.graph, bias="ignore"), table, "float32")
    exponents, side = find_exponents(backend.recursion, table), backend.side(table)
    for first in (None, 0, 30):
        cols = backend.side(table.take(slice(first, None)))
        told = []
        whole = backend.tile(side, cols, exponents, first)
        made = backend.tile(side, cols, exponents, first, None, told.append)
        assert len(told) > 3
        assert told == sorted(set(told))
        assert told[-1] == 75
        for i in range(75):
            there = slice(max(0, i - (first or 0)) if first is not None else 0, None)
            np.testing.assert_array_equal(made[i, there], whole[i, there])
        assert (made != 0).any()


def test_bands_are_as_long_as_their_pace_says(clock, monkeypatch):
    monkeypatch.setattr(bands.numba, "get_num_threads", lambda: 2)
    seen, told = [], []

    def run(groups):
        seen.append(groups.stop - groups.start)
        clock.now += 0.25 * seen[-1]

    bands.in_bands(21, 32, run, told.append)
    assert seen == [2, 4, 4, 4, 4, 3]  # 1 s at 4 groups a second; 32 tasks of 2 groups at first
    assert told == [2, 6, 10, 14, 18, 21]
    seen.clear()
    bands.in_bands(7, 32, run, told.append)
    assert seen == [2, 5]  # a rest of 1 group would leave threads idle


def test_a_quick_tile_is_two_bands_and_one_at_a_known_pace(clock):
    seen = []

    def run(groups):
        seen.append(groups)
        clock.now += 0.001

    pace = bands.in_bands(128, 64, run, lambda groups: None)
    assert len(seen) == 2
    bands.in_bands(128, 64, run, lambda groups: None, pace)
    assert len(seen) == 3


def test_a_quick_product_is_not_cut(rng):
    table, told = dense_table(70, 75, rng), []
    backend = CpuBackend(plan(table.graph, bias="ignore"), table, "float32")
    exponents, side = find_exponents(backend.recursion, table), backend.side(table)
    backend.tile(side, side, exponents, None, None, told.append)
    assert told == []


@pytest.mark.parametrize(("offset", "n", "m"), [(None, 4, 6), (0, 5, 5), (3, 4, 6), (-2, 4, 6)])
def test_pairs_of_some_rows(offset, n, m):
    within = inside.Within(Tasks(), Tile(0, 0, slice(0, n), slice(0, m)), offset)
    for rows in range(n + 1):
        computed = [
            (i, j) for i in range(rows) for j in range(m) if offset is None or j + offset >= i
        ]
        if offset == 3:  # a tile right of the diagonal has all its pairs
            assert len(computed) == rows * m
        assert within.pairs(rows) == len(computed)


def test_a_tile_that_takes_long_has_a_task_of_its_own(clock):
    progress = Tasks()
    within = inside.Within(progress, Tile(0, 0, slice(0, 10), slice(0, 10)), 0)
    with within:
        clock.now += 1
        within.told(2)
        within.told(7)
        within.told(10)
    assert progress.seen == [("pairs of the tile", 55, [19, 49, 55])]


def test_a_quick_tile_has_none(clock):
    progress = Tasks()
    with inside.Within(progress, Tile(0, 0, slice(0, 10), slice(0, 10)), None) as within:
        clock.now += 0.1
        within.told(2)
        within.told(10)
    assert progress.seen == []


def test_a_kernel_of_one_tile_moves_before_it_is_done(short_bands, monkeypatch):
    monkeypatch.setattr(inside, "_LONG", -1)
    table, progress = image_table(), Tasks()
    K = npk.kernel(table, progress=progress)
    ((total, counts),) = [
        (total, counts) for name, total, counts in progress.seen if name == "pairs of the tile"
    ]
    assert total == counts[-1] == 75 * 76 // 2
    assert len(counts) > 3
    np.testing.assert_array_equal(K, npk.kernel(table, progress=False))
