"""Gram: blocks, products and views of a matrix of tiles, against the same in NumPy."""

import itertools
from typing import ClassVar

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator, cg, eigsh, lsqr

import npk
from npk.errors import DataError, OptionError, ShapeError, StoreError
from npk.gram.products import BYTES_A_PAIR
from npk.gram.store import GramStore
from npk.gram.tiles import Tile, TilePlan


class CutPlan:
    """Tiles between given cuts of either axis: the same cuts for a symmetric matrix."""

    def __init__(self, rows, cols=None):
        self.down, self.across = (
            list(itertools.pairwise(cuts)) for cuts in (rows, rows if cols is None else cols)
        )
        self.n, self.m, self.symmetric = rows[-1], self.across[-1][1], cols is None

    def __iter__(self):
        for row, rows in enumerate(self.down):
            for col, cols in enumerate(self.across):
                if not self.symmetric or col >= row:
                    yield Tile(row, col, slice(*rows), slice(*cols))

    def __len__(self):
        return sum(1 for _ in self)


class Held:
    """Tiles of an array, that counts which were read."""

    path = "held"

    def __init__(self, array, plan, missing=()):
        self.array, self.plan, self.missing, self.seen = array, plan, missing, []
        self.manifest = {"dtype": str(array.dtype), "about": {"scale": "fan_in"}}

    def is_done(self, tile):
        return (tile.row, tile.col) not in self.missing

    def read(self, tile):
        if not self.is_done(tile):
            raise StoreError("held is not complete")
        self.seen.append((tile.row, tile.col))
        return self.array[tile.rows, tile.cols].copy()


def kernel_of(rng, n, dtype="float32"):
    features = rng.standard_normal((n, 7))
    return (features @ features.T).astype(dtype)


@pytest.fixture(params=["float32", "float64"])
def square(rng, request):
    """A symmetric matrix of 23, its tiles cut anew after 10 as in a store that was extended."""
    return npk.Gram(Held(kernel_of(rng, 23, request.param), CutPlan([0, 4, 8, 10, 14, 18, 22, 23])))


@pytest.fixture
def wide(rng):
    return npk.Gram(Held(rng.standard_normal((9, 21)), CutPlan([0, 5, 9], [0, 6, 12, 13, 19, 21])))


@pytest.fixture(params=["square", "wide", "tall"])
def gram(request, square, wide):
    return {"square": square, "wide": wide, "tall": wide.T}[request.param]


def array_of(gram):
    return gram.store.array if isinstance(gram.store, Held) else gram.store.tiles.array.T


def reads(gram):
    return (gram.store if isinstance(gram.store, Held) else gram.store.tiles).seen


# what it is


def test_it_looks_like_an_array(gram):
    array = array_of(gram)
    assert (gram.shape, gram.ndim, gram.dtype, gram.nbytes, len(gram)) == (
        array.shape,
        2,
        array.dtype,
        array.nbytes,
        len(array),
    )
    assert gram.about == {"scale": "fan_in"}
    assert gram.complete
    np.testing.assert_array_equal(np.asarray(gram), array)
    assert len(reads(gram)) == len(set(reads(gram))) == len(gram.store.plan)
    assert np.asarray(gram, np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.asarray(gram, np.float64), array.astype(np.float64))
    assert gram.T.shape == array.T.shape
    np.testing.assert_array_equal(np.asarray(gram.T), array.T)
    np.testing.assert_array_equal(np.array(list(gram)), array)


def test_rows_are_read_band_by_band(square):
    rows = iter(square)
    next(rows)
    before = len(reads(square))
    for _ in range(3):
        next(rows)
    assert len(reads(square)) == before == 7


def test_repr(square, rng):
    assert repr(square) == f"<npk.Gram 23 x 23 {square.dtype} in held: 28 tiles>"
    half = npk.Gram(Held(kernel_of(rng, 9), CutPlan([0, 4, 9]), missing=[(0, 1), (1, 1)]))
    assert repr(half) == "<npk.Gram 9 x 9 float32 in held: 3 tiles>"
    assert not half.complete
    assert "in held: 1 tile>" in repr(npk.Gram(Held(np.ones((2, 3)), CutPlan([0, 2], [0, 3]))))


# blocks


ROWS = [
    5,
    -1,
    np.int64(3),
    slice(None),
    slice(3, 9),
    slice(8, 3),
    slice(None, None, -1),
    slice(1, -1, 3),
    [7, 0, 7, 2],
    np.array([-1, 4, -9]),
    np.array([200, 8, 3], np.uint8) % 9,
    np.array([-3, 2], np.int8),
    [],
    np.arange(9),
]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("cols", [None, 2, slice(2, 8), [8, -1, 3], slice(None, None, 2)])
def test_blocks_are_those_of_numpy(gram, rows, cols):
    array = array_of(gram)
    found = gram[rows] if cols is None else gram[rows, cols]
    expected = array[rows] if len(np.shape(rows)) != 1 or len(rows) else array[:0]
    expected = expected if cols is None else expected[..., cols]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, expected)
    assert len(reads(gram)) == len(set(reads(gram)))


def test_two_arrays_mean_the_outer_block(gram):
    array, mask = array_of(gram), np.arange(gram.shape[0]) % 3 == 1
    rows, cols = np.array([8, 1, 1, -2]), [0, 7, 3]
    np.testing.assert_array_equal(gram[rows, cols], array[np.ix_(rows % len(array), cols)])
    np.testing.assert_array_equal(gram[mask], array[mask])
    np.testing.assert_array_equal(gram[mask, cols], array[np.ix_(mask, cols)])
    assert gram[2, 3] == array[2, 3]
    assert np.ndim(gram[2, 3]) == 0


def test_random_blocks(square, rng):
    array = array_of(square)
    for _ in range(50):
        rows, cols = (
            rng.integers(-23, 23, rng.integers(0, 30)),
            rng.integers(-23, 23, rng.integers(1, 30)),
        )
        np.testing.assert_array_equal(square[rows, cols], array[rows][:, cols])


def test_blocks_read_only_what_they_meet(square):
    square[9]  # row 2 of seven tiles: its own five, and those above the diagonal in its column
    assert sorted(reads(square)) == [(0, 2), (1, 2), (2, 2), (2, 3), (2, 4), (2, 5), (2, 6)]
    reads(square).clear()
    square[15:17, 0:3]  # below the diagonal
    assert reads(square) == [(0, 4)]
    reads(square).clear()
    square[[22, 0], [0, 22]]
    assert sorted(reads(square)) == [(0, 0), (0, 6), (6, 6)]
    reads(square).clear()
    square[[]]
    assert reads(square) == []


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (23, "there is no row 23: the matrix has 23 rows, numbered from 0 to 22"),
        (-24, "there is no row -24"),
        (([0, 30], 2), "there is no row 30"),
        ((0, [1, -40]), "there is no column -40: the matrix has 23 columns"),
        (np.uint8(200), "there is no row 200"),
    ],
)
def test_rows_that_are_not_there(square, key, why):
    with pytest.raises(ShapeError, match=why):
        square[key]
    with pytest.raises(IndexError, match=why):
        square[key]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (
            1.5,
            r"rows cannot be chosen by 1.5. Give a number, a slice, a vector of numbers or of 23 "
            r"booleans",
        ),
        (True, "rows cannot be chosen by True"),
        (None, "rows cannot be chosen by None"),
        (Ellipsis, "rows cannot be chosen by Ellipsis"),
        ("a", "rows cannot be chosen by 'a'"),
        ((0, np.ones(5, bool)), r"columns cannot be chosen by an array of bool and shape \(5,\)"),
        ([[0, 1]], r"an array of int64 and shape \(1, 2\)"),
        (np.array(3), r"an array of int64 and shape \(\)"),
        ([0.5], "an array of float64"),
        ((0, 1, 2), r"gram\[0, 1, 2\]: a kernel has rows and columns"),
        ((), r"gram\[\]: a kernel has rows and columns"),
    ],
)
def test_keys_that_mean_nothing(square, key, why):
    with pytest.raises(ShapeError, match=why):
        square[key]


# diagonal


def test_diagonal(square, wide, rng):
    found = square.diagonal()
    assert found.dtype == square.dtype
    np.testing.assert_array_equal(found, np.diagonal(array_of(square)))
    assert reads(square) == [(i, i) for i in range(7)]
    with pytest.raises(
        ShapeError,
        match="a kernel of 9 x 21 has no diagonal: its rows and columns are different samples",
    ):
        wide.diagonal()
    other = rng.standard_normal((9, 9))
    uneven = npk.Gram(Held(other, CutPlan([0, 5, 9], [0, 2, 9])))
    np.testing.assert_array_equal(uneven.diagonal(), np.diagonal(other))


# products


@pytest.mark.parametrize("columns", [None, 1, 4, 0])
def test_products(gram, columns, rng):
    array = array_of(gram).astype(np.float64)
    right = rng.standard_normal(array.shape[1] if columns is None else (array.shape[1], columns))
    left = rng.standard_normal(array.shape[0] if columns is None else (columns, array.shape[0]))
    for found, expected in (
        (gram @ right, array @ right),
        (left @ gram, left @ array),
        (gram.T @ left.T, array.T @ left.T),
    ):
        assert type(found) is np.ndarray
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert len(reads(gram)) == 3 * len(gram.store.plan)  # each tile once a product


def test_products_are_repeatable_and_in_float64(rng):
    """float32 sums would lose the small entries beside the large one."""
    array = np.ones((64, 64), np.float32)
    array[:, 0] = array[0] = 1e8
    gram = npk.Gram(Held(array, CutPlan([0, 16, 50, 64])))
    assert (gram @ np.ones(64, np.float32))[1] == 1e8 + 63
    V = rng.standard_normal((64, 3))
    np.testing.assert_array_equal(gram @ V, gram @ V)


class Laid(np.ndarray):
    """Values of a tile that note how what they are multiplied with lies in memory."""

    seen: ClassVar = []

    def __matmul__(self, V):
        self.seen.append(V.flags.c_contiguous)
        return np.asarray(self) @ V


def test_the_layout_of_a_factor_changes_no_bit(rng, monkeypatch):
    """Which layouts round alike differs between BLAS kernels: there may be but one."""
    monkeypatch.setattr(
        Held, "read", lambda self, tile: self.array[tile.rows, tile.cols].copy().view(Laid)
    )
    gram = npk.Gram(Held(kernel_of(rng, 64, "float64"), CutPlan([0, 16, 50, 64])))
    V = rng.standard_normal((64, 3))
    expected = gram @ V
    for other in (
        np.asfortranarray(V),
        np.repeat(V, 2, 1)[:, ::2],
        np.repeat(V, 2, 0)[::2],
        V[::-1].copy()[::-1],
    ):
        Laid.seen.clear()
        np.testing.assert_array_equal(gram @ other, expected)
        assert len(Laid.seen) == 9
        assert all(Laid.seen)


def test_the_names_of_scipy(gram, rng):
    array = array_of(gram).astype(np.float64)
    n, m = array.shape
    np.testing.assert_allclose(gram.matvec(np.arange(m)), array @ np.arange(m))
    np.testing.assert_allclose(gram.rmatvec(np.arange(n)), array.T @ np.arange(n))
    np.testing.assert_allclose(gram.matmat(np.eye(m)), array)
    np.testing.assert_allclose(gram.rmatmat(np.eye(n)), array.T)
    operator = aslinearoperator(gram)
    V = rng.standard_normal((m, 2))
    np.testing.assert_allclose(operator @ V, array @ V, atol=1e-12)
    target = rng.standard_normal(n)
    found = lsqr(operator, target, damp=0.5, atol=1e-12, btol=1e-12)[0]
    np.testing.assert_allclose(
        found,
        np.linalg.solve(array.T @ array + 0.25 * np.eye(m), array.T @ target),
        rtol=1e-6,
        atol=1e-8,
    )


def test_conjugate_gradients_of_scipy(rng):
    array = kernel_of(rng, 23, "float64") + np.eye(23)
    target = rng.standard_normal(23)
    found, failed = cg(
        aslinearoperator(npk.Gram(Held(array, CutPlan([0, 9, 23])))), target, rtol=1e-12
    )
    assert not failed
    np.testing.assert_allclose(found, np.linalg.solve(array, target), rtol=1e-8)


@pytest.mark.parametrize("shape", [(22,), (9, 2), (), (23, 1, 1)])
def test_products_that_do_not_fit(square, shape):
    with pytest.raises(
        ShapeError,
        match=r"a kernel of 23 x 23 @ V: V has shape .* Give \(23,\) or "
        r"\(23, k\)",
    ):
        square @ np.ones(shape)
    with pytest.raises(
        ShapeError,
        match=r"a kernel of 23 x 23 with V @ before it: V has shape .* "
        r"Give \(23,\) or \(k, 23\)",
    ):
        np.ones(shape).T @ square if shape else square.__rmatmul__(1.0)


def test_products_of_something_else(square):
    for V in (1j * np.ones(23), ["a"] * 23, [[1], [2, 3]]):
        with pytest.raises(DataError, match="can be multiplied with real numbers only"):
            square @ V


def test_numpy_does_not_load_it_behind_ones_back(square):
    with pytest.raises(TypeError, match="ufunc"):
        np.exp(square)
    with pytest.raises(TypeError, match="unsupported operand"):
        np.ones(23) - square


# cosine


def test_cosine(square):
    array = array_of(square)
    array[5] = array[:, 5] = 0  # a dead sample
    cosine = square.cosine()
    roots = np.sqrt(np.diagonal(array).astype(np.float64))
    roots[5] = np.inf
    expected = (array / np.outer(roots, roots)).astype(array.dtype)
    expected[np.diag_indices(23)] = np.arange(23) != 5
    found = np.asarray(cosine)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(cosine.diagonal(), np.arange(23) != 5)
    np.testing.assert_array_equal(cosine[[4, 20], 3:9], expected[[4, 20], 3:9])
    np.testing.assert_allclose(
        cosine @ np.ones(23), expected.sum(axis=1, dtype=np.float64), atol=1e-12
    )
    assert (cosine.about, square.about) == ({"scale": "cosine"}, {"scale": "fan_in"})
    assert cosine.complete
    np.testing.assert_allclose(np.asarray(cosine.cosine()), expected, rtol=1e-7)


def test_cosine_of_other_columns(wide, rng):
    with pytest.raises(
        ShapeError,
        match="this kernel of 9 x 21 is one of rows with other "
        'columns.*Compute it with scale="cosine"',
    ):
        wide.cosine()
    with pytest.raises(ShapeError, match="this kernel of 9 x 9"):
        npk.Gram(Held(rng.standard_normal((9, 9)), CutPlan([0, 9], [0, 9]))).cosine()


# memory


def test_the_promise(rng):
    plan = CutPlan([0, 50, 100])
    flight = 50 * 50 * BYTES_A_PAIR
    held = Held(kernel_of(rng, 100), plan)
    gram = npk.Gram(held, memory=40_000 + flight - 1)
    with pytest.raises(
        OptionError,
        match=f"the whole matrix of 100 x 100 float32 needs {40_000 + flight} bytes "
        f".* memory={40_000 + flight - 1}",
    ):
        np.asarray(gram)
    with pytest.raises(
        OptionError, match=f"Read rows .*load it with memory={80_000 + flight} or more"
    ):
        np.asarray(gram, np.float64)
    with pytest.raises(
        OptionError, match="a block of 100 x 100 float32 needs .*Read fewer at a time"
    ):
        gram[::-1]
    with pytest.raises(
        OptionError, match="a product of 100 x 100 float64 needs .*Multiply fewer columns"
    ):
        gram @ np.eye(100)
    with pytest.raises(OptionError, match="a product of 100 x 100 float64 needs "):
        np.eye(100) @ gram
    assert gram[1:].shape == (99, 100)
    assert (gram @ np.ones(100)).shape == (100,)
    assert not held.seen[8:]
    assert gram.T.memory == gram.cosine().memory == gram.memory
    np.testing.assert_array_equal(np.asarray(npk.Gram(held, memory=40_000 + flight)), held.array)
    with pytest.raises(OptionError, match="memory='much' is not a size"):
        npk.Gram(held, memory="much")


def test_there_is_no_array_without_a_copy(square):
    with pytest.raises(OptionError, match="the matrix is on disk. Leave copy out"):
        np.asarray(square, copy=False)


# real stores


@pytest.fixture
def stored(tmp_path, rng):
    array = kernel_of(rng, 50)
    store = GramStore.create(
        tmp_path / "K", TilePlan(50, 50, 16, True), "float32", {"scale": "fan_in"}
    )
    for tile in store.plan:
        store.write(tile, array[tile.rows, tile.cols])
    return tmp_path / "K", array


def test_a_real_store(stored):
    path, array = stored
    gram = npk.Gram.load(path, memory="1MB")
    assert gram.memory == 10**6
    np.testing.assert_array_equal(np.asarray(gram), array)
    np.testing.assert_array_equal(gram[[40, 3], 10:20], array[[40, 3], 10:20])
    np.testing.assert_allclose(gram @ np.ones(50), array.astype(np.float64).sum(axis=1), atol=1e-12)
    assert repr(gram) == f"<npk.Gram 50 x 50 float32 in {path}: 10 tiles>"


def test_a_store_that_is_not_complete(tmp_path):
    store = GramStore.create(tmp_path / "K", TilePlan(50, 50, 16, True), "float32", {})
    store.write(next(iter(store.plan)), np.ones((16, 16), np.float32))
    gram = npk.Gram.load(tmp_path / "K")
    assert not gram.complete
    assert gram[:4, 2:16].all()
    for use in (
        lambda: gram @ np.ones(50),
        lambda: gram[20],
        gram.diagonal,
        gram.cosine,
        lambda: np.asarray(gram),
    ):
        with pytest.raises(StoreError, match="is not complete: tile .* is missing"):
            use()


def test_eigenvalues_by_scipy(square):
    array = array_of(square).astype(np.float64)
    found = eigsh(square, k=3, return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(found), np.linalg.eigvalsh(array)[-3:], rtol=1e-5)
