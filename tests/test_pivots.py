"""Pivoted Cholesky against LAPACK and against its law, and what it does for conjugate gradients."""

import itertools

import numpy as np
import pytest
from scipy import linalg, sparse
from scipy.linalg import lapack
from sklearn.metrics.pairwise import rbf_kernel

import npk
from npk.errors import DataError, OptionError, ShapeError
from npk.gram.store import GramStore
from npk.gram.tiles import TilePlan
from npk.machines import conjugate_gradients
from npk.machines.approximate.pivots import MatrixEntries, pivoted_cholesky
from npk.machines.approximate.preconditioner import of_factor, preconditioner

SELECTIONS = ["rpcholesky", "random", "greedy"]


@pytest.fixture
def gram(rng):
    return 3.0 * rbf_kernel(rng.normal(size=(90, 5)), gamma=0.1)


def stored(values, path):
    """A matrix on disk, in tiles of 40."""
    made = GramStore.create(path, TilePlan(*values.shape, 40, True), str(values.dtype), {})
    for tile in made.plan:
        made.write(tile, values[tile.rows, tile.cols])
    return npk.Gram(made)


def test_the_greedy_factor_is_that_of_lapack(gram):
    found = pivoted_cholesky(MatrixEntries(gram), 30, selection="greedy")
    factor, order, _, _ = lapack.dpstrf(gram, lower=1)
    order = order - 1
    np.testing.assert_array_equal(found.pivots, order[:30])
    np.testing.assert_allclose(found.factor[order], np.tril(factor)[:, :30], atol=1e-12)


def test_the_greedy_factor_stops_where_lapack_finds_the_rank(rng):
    F = rng.normal(size=(50, 7))
    found = pivoted_cholesky(MatrixEntries(F @ F.T), 50, selection="greedy")
    _, _, rank, _ = lapack.dpstrf(F @ F.T, lower=1)
    assert len(found.pivots) == rank == 7


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("rank", [1, 20, 90])
def test_what_is_left_is_what_it_says(gram, selection, rank):
    found = pivoted_cholesky(MatrixEntries(gram), rank, selection=selection)
    assert len(found.pivots) == rank == len(set(found.pivots))
    rest = gram - found.factor @ found.factor.T
    np.testing.assert_allclose(found.residual, np.diagonal(rest), atol=1e-12)
    # the error bounds every norm of what is left
    assert found.error >= np.abs(np.linalg.eigvalsh(rest)).max() - 1e-12
    S = found.pivots
    exact = gram[:, S] @ np.linalg.solve(gram[np.ix_(S, S)], gram[S])
    np.testing.assert_allclose(found.factor @ found.factor.T, exact, atol=1e-7)
    assert found.total == pytest.approx(np.trace(gram))


@pytest.mark.parametrize("selection", SELECTIONS)
def test_it_reads_nothing_but_the_diagonal_and_rows(gram, selection):
    read = []

    class Watched(MatrixEntries):
        def proposed(self, samples):
            within, rows = super().proposed(samples)
            return within, lambda kept: read.extend(samples[kept]) or rows(kept)

    found = pivoted_cholesky(Watched(gram), 20, selection=selection)
    np.testing.assert_array_equal(read, found.pivots)


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_that_come_twice_are_taken_once(gram, selection, dtype):
    once = gram[:30, :30]
    K = np.tile(once, (3, 3)).astype(dtype)
    found = pivoted_cholesky(MatrixEntries(K), 90, selection=selection)
    assert sorted(found.pivots % 30) == list(range(30))
    assert found.error == 0


def test_dead_samples_are_never_taken(gram):
    live = np.arange(90) % 2 == 0
    K = gram * np.outer(live, live)
    for selection in SELECTIONS:
        assert live[pivoted_cholesky(MatrixEntries(K), 90, selection=selection).pivots].all()


def test_blocks_have_the_law_of_one_by_one():
    """All orders of two pivots of five samples, drawn in blocks, against their probabilities."""
    F = np.array([[1, 0, 0], [1, 0.2, 0], [0, 2, 0.1], [0.5, 0.5, 1], [0, 1.9, 0]])
    K, draws = F @ F.T + 0.01 * np.eye(5), 4000
    expected = {}
    for i, j in itertools.permutations(range(5), 2):
        left = np.diagonal(K) - K[:, i] ** 2 / K[i, i]
        expected[i, j] = K[i, i] / np.trace(K) * left[j] / left.sum()
    rng = np.random.default_rng(0)
    found = [
        tuple(pivoted_cholesky(MatrixEntries(K), 2, rng=rng).pivots.tolist()) for _ in range(draws)
    ]
    assert sum(expected.values()) == pytest.approx(1)
    chi = sum((found.count(p) - draws * q) ** 2 / (draws * q) for p, q in expected.items())
    assert chi < 45  # 19 degrees of freedom: less with a probability of 0.9993


def test_random_pivots_leave_less_than_any_sample(rng):
    """A few samples that matter among many that are alike."""
    X = np.concatenate([rng.normal(size=(280, 3)) * 0.05, 6 * rng.normal(size=(20, 3))])
    entries = MatrixEntries(rbf_kernel(X, gamma=0.5))
    left = {
        s: np.mean([pivoted_cholesky(entries, 25, selection=s, rng=i).error for i in range(5)])
        for s in SELECTIONS
    }
    assert left["rpcholesky"] < 0.2 * left["random"]
    assert left["greedy"] < 0.2 * left["random"]


def test_a_seed_is_a_factor_and_a_store_an_array(gram, tmp_path):
    a, b, other = (
        pivoted_cholesky(e, 20, rng=s)
        for e, s in [
            (MatrixEntries(gram), 3),
            (MatrixEntries(stored(gram, tmp_path / "K")), 3),
            (MatrixEntries(gram), 4),
        ]
    )
    np.testing.assert_array_equal(a.pivots, b.pivots)
    # BLAS rounds by the layout of what it is given
    np.testing.assert_allclose(a.factor, b.factor, atol=1e-12)
    assert a.pivots.tolist() != other.pivots.tolist()


# the preconditioner


def hard(rng, n=150):
    """A kernel of a few directions, and targets."""
    X = rng.normal(size=(n, 3))
    return rbf_kernel(X, gamma=0.3), np.column_stack([np.sin(X[:, 0]), X[:, 1] > 0, X[:, 2]])


def test_the_preconditioner_is_the_inverse_of_the_factor_and_the_ridge(gram, rng):
    found = pivoted_cholesky(MatrixEntries(gram), 20)
    made, alpha = of_factor(found), 0.01
    V = rng.normal(size=(90, 2))
    expected = linalg.solve(found.factor @ found.factor.T + 3 * alpha * np.eye(90), V)
    ours = V - made.vectors @ (made.shares(alpha)[:, None] * (made.vectors.T @ V))
    np.testing.assert_allclose(ours / (3 * alpha), expected, atol=1e-9)


@pytest.mark.parametrize("kind", ["array", "disk"])
@pytest.mark.parametrize("alpha", [1e-5, 1e-3])
def test_it_gives_the_same_solution_in_fewer_steps(rng, tmp_path, kind, alpha):
    K, y = hard(rng)
    matrix = K if kind == "array" else stored(K, tmp_path / "K")
    without = conjugate_gradients.solve(K, y, alpha, tolerance=1e-9)
    quick = conjugate_gradients.solve(matrix, y, alpha, tolerance=1e-9, preconditioner=60)
    assert quick.outcome == "solved"
    assert quick.steps < 0.5 * without.steps
    exact = linalg.solve(K + alpha * np.eye(len(K)), y, assume_a="pos")
    size = np.abs(exact).max()
    # what the tolerance leaves, through the condition number
    np.testing.assert_allclose(K @ quick.coefficients, K @ exact, atol=1e-6)
    np.testing.assert_allclose(quick.coefficients, exact, atol=1e-8 / alpha * size)
    measured = np.linalg.norm(K @ quick.coefficients + alpha * quick.coefficients - y)
    assert measured <= 1e-9 * np.linalg.norm(y) * 1.01


def test_a_whole_factor_leaves_one_step(rng):
    K, y = hard(rng, 60)
    K = K + 0.1 * np.eye(60)
    assert conjugate_gradients.solve(K, y, 1e-4, preconditioner=60).steps <= 2


def test_one_preconditioner_serves_all_alphas_and_a_start(rng):
    K, y = hard(rng)
    made = preconditioner(K, 60)
    assert made.rank <= 60
    for alpha in (1e-5, 1e-2, 0.0 + 1e-3):
        ours = conjugate_gradients.solve(K, y[:, 0], alpha, preconditioner=made)
        again = conjugate_gradients.solve(
            K, y[:, 0], alpha, preconditioner=made, start=ours.coefficients
        )
        assert ours.outcome == "solved"
        assert again.steps <= 1


@pytest.mark.parametrize(
    ("K", "given", "error", "match"),
    [
        (np.eye(4), 0, OptionError, "preconditioner is 0. Give a whole number"),
        (np.eye(4), True, OptionError, "preconditioner is True. Give a whole number"),
        (np.eye(4), "much", OptionError, "preconditioner is 'much'. Give a whole number"),
        (
            sparse.eye_array(4).tocsr(),
            2,
            OptionError,
            "K is a csr_array, a preconditioner reads rows of arrays and of npk.Gram. Pass",
        ),
        (
            np.eye(4),
            preconditioner(np.eye(3), 2),
            ShapeError,
            "the preconditioner is of 3 samples, K has 4. Make it of this K",
        ),
    ],
    ids=["zero", "a truth", "a word", "no rows", "other samples"],
)
def test_what_is_no_preconditioner(K, given, error, match):
    with pytest.raises(error, match=match):
        conjugate_gradients.solve(K, np.ones(4), 1.0, preconditioner=given)


@pytest.mark.parametrize(
    ("K", "options", "error", "match"),
    [
        (np.eye(3), {"rank": 1.5}, OptionError, "rank is 1.5. Give a whole number, 1 or more"),
        (
            np.eye(3),
            {"rank": 1, "selection": "best"},
            OptionError,
            "selection='best' is not known. Choose one of 'rpcholesky', 'random', 'greedy'",
        ),
        (np.zeros((3, 3)), {"rank": 1}, DataError, "the kernel is zero on its diagonal"),
        (np.full((3, 3), np.nan), {"rank": 1}, DataError, "K holds values that are not finite"),
    ],
    ids=["rank", "selection", "zero", "not finite"],
)
def test_what_cannot_be_factored(K, options, error, match):
    with pytest.raises(error, match=match):
        pivoted_cholesky(MatrixEntries(K), **options)


def test_rows_of_other_samples_have_no_factor():
    with pytest.raises(ShapeError, match="a Gram matrix is square"):
        MatrixEntries(np.ones((3, 4)))
