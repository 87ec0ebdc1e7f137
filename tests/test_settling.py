"""What happens to a tile behind the backend: it is checked, scaled and written where it belongs in one
pass; and the bands that tiles are made of, each made ready once where there is room.
"""

import numba
import numpy as np
import pytest
from test_backends import dense_table

import npk
from npk.gram.tiles import Demand, TilePlan
from npk.gram.work import passes
from npk.gram.work.bands import Bands
from npk.gram.work.passes import new_matrix, settle

SIZES = [(1, 1), (3, 70), (16, 16), (17, 33), (64, 128), (130, 95)]
EMPTY = 7  # what is in a matrix before


@pytest.fixture(params=[1, 2])
def threads(request):
    before = numba.get_num_threads()
    numba.set_num_threads(min(request.param, numba.config.NUMBA_NUM_THREADS))
    yield
    numba.set_num_threads(before)


def tile_of(shape, dtype, rng):
    """A tile in memory that is wider and higher, as a backend gives it."""
    room = np.full((shape[0] + 5, shape[1] + 11), np.nan, dtype)
    values = room[: shape[0], : shape[1]]
    values[:] = rng.standard_normal(shape)
    return values


def matrix_of(n, m, dtype):
    whole = new_matrix((n, m), dtype)
    whole[:] = EMPTY
    return whole


@pytest.mark.parametrize("large", [0, 1 << 40], ids=["past the caches", "through the caches"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SIZES)
def test_a_tile_goes_where_it_belongs(shape, dtype, large, rng, monkeypatch, threads):
    monkeypatch.setattr(passes, "_LARGE", large)
    values = tile_of(shape, dtype, rng)
    # rows of 640 numbers begin at lines of the cache, and of 641 they do not
    for wide, first, start in ((640, 16, 320), (640, 3, 201), (641, 16, 320)):
        for mirrored in (False, True):
            whole = matrix_of(wide, wide, dtype)
            expected = whole.copy()
            expected[first:, start:][: shape[0], : shape[1]] = values * values.dtype.type(0.125)
            if mirrored:
                expected[start:, first:][: shape[1], : shape[0]] = values.T * 0.125
            top = settle(values, 0.125, whole, first, start, mirrored=mirrored)
            np.testing.assert_array_equal(whole, expected)
            assert top == abs(values).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 64, 65, 150])
def test_of_a_tile_on_the_diagonal_the_upper_triangle_is_read(n, dtype, rng, threads):
    values = tile_of((n, n), dtype, rng)
    upper = np.triu(values)
    values[np.tril_indices(n, -1)] = np.nan
    expected = 2 * (upper + np.triu(upper, 1).T)
    whole = matrix_of(n + 20, n + 20, dtype)
    assert settle(values, 2.0, whole, 9, 9, mirrored=True) == abs(upper).max()
    np.testing.assert_array_equal(whole[9 : 9 + n, 9 : 9 + n], expected)
    whole[9 : 9 + n, 9 : 9 + n] = EMPTY
    assert (whole == EMPTY).all()
    assert settle(values, 2.0, values, mirrored=True) == abs(upper).max()
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_that_are_not_finite_are_seen_everywhere(bad, dtype, rng):
    values = rng.standard_normal((40, 70)).astype(dtype)
    for i, j in ((0, 0), (5, 20), (31, 63), (39, 0), (3, 69), (39, 69)):
        spoilt = values.copy()
        spoilt[i, j] = bad
        assert settle(spoilt, 1.0, spoilt, mirrored=False) == np.inf
    square = rng.standard_normal((40, 40)).astype(dtype)
    for i, j in ((0, 0), (2, 9), (0, 20), (39, 39)):
        spoilt = square.copy()
        spoilt[i, j] = bad
        assert settle(spoilt, 1.0, spoilt, mirrored=True) == np.inf
        spoilt = square.copy()
        spoilt[j, i] = bad  # on the diagonal it is seen, below it is not read
        assert (settle(spoilt, 1.0, spoilt, mirrored=True) == np.inf) == (i == j)


def test_numbers_below_the_range_and_zeros_keep_their_sign():
    values = np.array([[-0.0, 1e-40], [3e38, -1e-45]] * 8, np.float32).repeat(8, 1)
    whole = matrix_of(16, 16, "float32")
    assert settle(values, 0.5, whole, mirrored=False) == np.float32(3e38)
    np.testing.assert_array_equal(whole.view(np.uint32), (values * np.float32(0.5)).view(np.uint32))


@pytest.mark.parametrize("n", [100, 640])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_kernel_past_the_caches_has_the_same_bits(n, dtype, rng, monkeypatch):
    table = dense_table(40, n, rng)
    K = npk.kernel(table, dtype=dtype, bias="ignore", progress=False)
    np.testing.assert_array_equal(K, K.T)
    monkeypatch.setattr(passes, "_LARGE", 0)
    monkeypatch.setattr("npk.gram.tiles._LARGEST", 64)
    again = npk.kernel(table, dtype=dtype, bias="ignore", progress=False)
    np.testing.assert_array_equal(again, K)
    assert again.ctypes.data % 64 == 0


# bands


class Numbered:
    """Samples that are numbers: eight bytes each."""

    def __init__(self, table):
        self.table, self.nbytes = table, table.nbytes

    def __len__(self):
        return len(self.table)

    def take(self, rows):
        return self.table[rows]


class Ready:
    """Makes bands ready, as sides and backend do, and counts how often; masks of 3 bytes a sample."""

    bytes_a_sample = 3

    def __init__(self):
        self.made, self.formed, self.backend = [], [], self

    def samples(self, gates):
        self.made.append(int(gates[0]))
        return Numbered(gates)

    def side(self, table):
        self.formed.append(int(table[0]))
        return f"masks of {table[0]}"


BAND = 10 * (8 + 3)  # bytes of ten samples


def walked(rows, cols, room):
    """What is made ready on the way through all tiles of 10 x 10; and the bands behind it."""
    ready = Ready()
    bands = Bands(ready, rows, cols, room)
    for tile in TilePlan(len(rows), len(cols), 10, symmetric=rows is cols):
        left, right = bands.of(tile)
        assert left.side == f"masks of {tile.rows.start}"
        assert right.side == f"masks of {cols.table[tile.cols][0]}"
        assert (left is right) == (rows is cols and tile.row == tile.col)
        assert bands.room >= 0
    assert ready.formed == ready.made
    return ready.made, bands


def test_each_band_is_made_ready_once_where_there_is_room():
    one, other = Numbered(np.arange(40)), Numbered(np.arange(100, 135))
    made, bands = walked(one, one, 3 * BAND)
    assert made == [0, 10, 20, 30]
    assert bands.room == 3 * BAND  # all columns were rows
    made, bands = walked(Numbered(np.arange(30)), other, 4 * BAND)
    assert sorted(made) == [0, 10, 20, 100, 110, 120, 130]
    assert bands.room == BAND // 2
    bands.release()
    assert bands.room == 4 * BAND


def test_bands_that_have_no_room_are_made_for_each_tile():
    one, other = Numbered(np.arange(40)), Numbered(np.arange(100, 140))
    for room in (0, BAND - 1):
        assert walked(one, one, room)[0] == [0, 10, 20, 30, 10, 20, 30, 20, 30, 30]
    assert walked(one, one, BAND)[0] == [0, 10, 20, 30, 20, 30, 30]
    assert len(walked(Numbered(np.arange(20)), other, 2 * BAND)[0]) == 2 + 4 + 2


def test_columns_stay_as_far_as_the_promise_has_room():
    demand, plan = Demand(fixed=1000, sample=10, pair=1), TilePlan(500, 500, 16, symmetric=True)
    kept = {budget: demand.keeping(plan, budget, 3).kept for budget in (1416, 2000, 10**6, None)}
    assert kept == {1416: 0, 2000: 584, 10**6: 1500, None: 1500}
    assert demand.keeping(plan, 2000, 3).bytes(16) == 2000
    assert demand.keeping(plan, 10**6, 0).kept == 0
    assert demand.keeping(TilePlan(16, 500, 16, symmetric=False), None, 3).kept == 0
    assert demand.keeping(plan, None, 10**9).kept == 1 << 28
    assert demand.keeping(plan, 1000, 3).kept == 0  # of a store: tiles are as large as they are


def test_a_kernel_lays_out_each_sample_once(rng, monkeypatch):
    formed = []
    side = npk.backends.cpu.CpuBackend.side
    monkeypatch.setattr(
        "npk.backends.cpu.CpuBackend.side",
        lambda self, table: (formed.append(len(table)), side(self, table))[1],
    )
    monkeypatch.setattr("npk.gram.tiles._LARGEST", 32)
    table = dense_table(40, 100, rng)
    K = npk.kernel(table, bias="ignore", progress=False)
    assert sorted(formed) == [4, 32, 32, 32]
    np.testing.assert_array_equal(K, K.T)
    formed.clear()
    npk.kernel(table.take(slice(0, 40)), table, bias="ignore", progress=False)
    assert sum(formed) == 40 + 100
