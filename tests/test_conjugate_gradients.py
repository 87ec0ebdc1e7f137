"""Conjugate gradients against direct solvers and SciPy's, on arrays and on tiles."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import linalg, sparse
from scipy.sparse.linalg import cg
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import rbf_kernel
from torch import nn

import npk
from npk.errors import DataError, OptionError, ShapeError
from npk.gram.store import GramStore
from npk.gram.tiles import TilePlan
from npk.machines import conjugate_gradients, ridge


@pytest.fixture
def gram(rng):
    return 3.0 * rbf_kernel(rng.normal(size=(67, 5)), gamma=0.1)


@pytest.fixture
def stored(tmp_path, gram):
    """The matrix on disk, in tiles of 40."""

    def store(values=gram, symmetric=True, memory=None):
        made = GramStore.create(
            tmp_path / "K", TilePlan(*values.shape, 40, symmetric), str(values.dtype), {}
        )
        for tile in made.plan:
            made.write(tile, values[tile.rows, tile.cols])
        return npk.Gram(made, memory)

    return store


class Counted:
    """A matrix that counts its products and their columns."""

    def __init__(self, array):
        self.array, self.shape, self.widths = array, array.shape, []

    def diagonal(self):
        return np.diagonal(self.array)

    def __matmul__(self, V):
        self.widths.append(V.shape[1])
        return self.array @ V


def direct(K, y, alpha):
    return linalg.solve(K + alpha * np.mean(np.diagonal(K)) * np.eye(len(K)), y, assume_a="pos")


def worst_residual(K, y, alpha, coefficients):
    """Of the columns, each relative to its target."""
    rest = K @ coefficients + alpha * np.mean(np.diagonal(K)) * coefficients - y
    return np.max(np.linalg.norm(rest, axis=0) / np.linalg.norm(y, axis=0))


# what it finds


@pytest.mark.parametrize("outputs", [None, 1, 4])
@pytest.mark.parametrize("alpha", [1e-3, 0.5])
@pytest.mark.parametrize("kind", ["array", "float32", "list", "sparse", "disk"])
def test_it_agrees_with_a_direct_solver(gram, stored, rng, outputs, alpha, kind):
    K = {
        "array": lambda: gram,
        "float32": lambda: gram.astype("float32"),
        "list": gram.tolist,
        "sparse": lambda: sparse.csr_array(gram),
    }
    y = rng.normal(size=67 if outputs is None else (67, outputs))
    exact = gram.astype("float32").astype(float) if kind == "float32" else gram
    K = K.get(kind, stored)()
    solution = conjugate_gradients.solve(K, y, alpha, tolerance=1e-10)
    assert solution.coefficients.shape == y.shape
    assert solution.outcome == "solved"
    assert 0 < solution.steps < 400
    expected = direct(exact, y, alpha)
    # condition: n / alpha
    np.testing.assert_allclose(
        solution.coefficients, expected, atol=1e-10 * 67 / alpha * np.abs(expected).max()
    )
    measured = np.linalg.norm(
        exact @ solution.coefficients + 3 * alpha * solution.coefficients - y
    ) / np.linalg.norm(y)
    assert measured <= 1e-10
    # itself known up to rounding
    np.testing.assert_allclose(solution.residual, measured, atol=1e-11)


def about(steps):
    """How many steps are needed is a matter of rounding, too: every BLAS has its own."""
    return pytest.approx(steps, rel=0.25)


def test_it_takes_about_the_steps_of_scipy(gram, rng):
    y, steps = rng.normal(size=67), []
    expected, _ = cg(gram + 0.9 * np.eye(67), y, rtol=1e-6, callback=steps.append)
    solution = conjugate_gradients.solve(gram, y, 0.3)
    assert solution.steps == about(len(steps))
    assert len(steps) < 30
    np.testing.assert_allclose(solution.coefficients, expected, atol=1e-4 * np.abs(expected).max())


def test_one_product_serves_all_columns_and_solved_ones_are_left_out(gram, rng):
    values, vectors = np.linalg.eigh(gram)
    y = np.column_stack(
        [vectors[:, -1], rng.normal(size=67), vectors[:, -1] + vectors[:, -5], np.zeros(67)]
    )
    counted = Counted(gram)
    solution = conjugate_gradients.solve(counted, y, 0.01)
    # an eigenvector takes one step, two of them two, the zeros none
    assert counted.widths[:3] == [3, 2, 1]
    assert counted.widths[-1] == 4  # the residual is measured
    assert len(counted.widths) == solution.steps + 1
    assert not solution.coefficients[:, 3].any()
    alone = conjugate_gradients.solve(gram, y[:, 1], 0.01)
    assert alone.steps == about(solution.steps)
    np.testing.assert_allclose(
        solution.coefficients[:, 1],
        alone.coefficients,
        atol=1e-5 * np.abs(alone.coefficients).max(),
    )
    np.testing.assert_allclose(
        solution.coefficients[:, 0], vectors[:, -1] / (values[-1] + 0.03), rtol=1e-5, atol=1e-9
    )


def test_every_column_is_solved_whatever_its_size(gram, rng):
    y = rng.normal(size=(67, 3)) * [1e-20, 1.0, 1e20]
    solution = conjugate_gradients.solve(gram, y, 0.1)
    assert worst_residual(gram, y, 0.1, solution.coefficients) <= 1e-6


@pytest.mark.parametrize("scale", [1e-250, 1e200])
def test_the_scale_of_the_kernel_means_nothing(gram, rng, scale):
    y = rng.normal(size=67)
    ours, scaled = (
        conjugate_gradients.solve(gram, y, 0.1),
        conjugate_gradients.solve(scale * gram, y, 0.1),
    )
    np.testing.assert_allclose(scaled.coefficients * scale, ours.coefficients, atol=1e-5)
    assert scaled.steps == about(ours.steps)


def test_small_cases(gram):
    zero = conjugate_gradients.solve(gram, np.zeros((67, 2)), 0.1)
    assert (zero.steps, zero.residual, zero.outcome, zero.coefficients.any()) == (
        0,
        0.0,
        "solved",
        False,
    )
    one = conjugate_gradients.solve([[2.0]], [3.0], 0.5)
    np.testing.assert_allclose(one.coefficients, [1.0])
    assert one.steps == 1
    assert conjugate_gradients.solve(gram, np.zeros((67, 0)), 0.1).coefficients.shape == (67, 0)


def test_a_start_saves_steps_and_goes_on_where_it_ended(gram, rng):
    y = rng.normal(size=(67, 2))
    short = conjugate_gradients.solve(gram, y, 1e-4, most=10)
    assert (short.steps, short.outcome) == (10, "not converged")
    assert short.residual > 1e-6
    whole = conjugate_gradients.solve(gram, y, 1e-4)
    rest = conjugate_gradients.solve(gram, y, 1e-4, start=short.coefficients)
    assert rest.outcome == "solved"
    assert worst_residual(gram, y, 1e-4, rest.coefficients) <= 1e-6
    again = conjugate_gradients.solve(gram, y, 1e-4, start=whole.coefficients)
    assert again.steps == 0
    np.testing.assert_allclose(again.coefficients, whole.coefficients, rtol=1e-12)
    y[:, 0] = 0
    assert (
        not conjugate_gradients.solve(gram, y, 1e-4, start=whole.coefficients)
        .coefficients[:, 0]
        .any()
    )


def test_ill_conditioned(rng):
    """Eigenvalues over seven decades: the residual that is told is the true one."""
    vectors = np.linalg.qr(rng.normal(size=(80, 80)))[0]
    K = (vectors * np.logspace(0, -7, 80)) @ vectors.T
    K, y = (K + K.T) / 2, rng.normal(size=(80, 2))
    solution = conjugate_gradients.solve(K, y, 1e-6, most=5000)
    assert solution.outcome == "solved"
    assert solution.steps > 80  # rounding costs the exact end after n steps
    assert worst_residual(K, y, 1e-6, solution.coefficients) <= 1e-6


def test_what_rounding_forbids_is_called_stagnated(rng):
    vectors = np.linalg.qr(rng.normal(size=(60, 60)))[0]
    K = (vectors * np.logspace(0, -9, 60)) @ vectors.T
    K, y = (K + K.T) / 2, rng.normal(size=60)
    solution = conjugate_gradients.solve(K, y, 1e-8, tolerance=1e-15, most=10**5)
    assert solution.outcome == "stagnated"
    assert solution.steps < 10**5
    measured = worst_residual(K, y[:, None], 1e-8, solution.coefficients[:, None])
    assert solution.residual / 5 < measured < 5 * solution.residual  # rounding itself


def test_dead_samples(gram, rng):
    gram[7] = gram[:, 7] = 0
    y = rng.normal(size=67)
    np.testing.assert_allclose(
        conjugate_gradients.solve(gram, y, 0.1, tolerance=1e-12).coefficients,
        direct(gram, y, 0.1),
        rtol=1e-8,
    )


def test_progress(gram, rng):
    class Steps:
        def task(self, description, total):
            self.told, self.count = (description, total), 0
            return self

        def __enter__(self):
            return lambda steps: setattr(self, "count", self.count + steps)

        def __exit__(self, *error):
            return None

    progress = Steps()
    solution = conjugate_gradients.solve(gram, rng.normal(size=67), 0.1, progress=progress)
    assert progress.told == ("conjugate gradients", 1000)
    assert progress.count == solution.steps


# what it refuses


class Opaque(Counted):
    """Only what the solver may use; nothing is checked beforehand but the diagonal."""


@pytest.mark.parametrize("wrap", [lambda K: K, Opaque])
@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        (lambda K: K[:5], ShapeError, r"K has shape \(5, 67\), a Gram matrix is square"),
        (
            lambda K: K * np.where(np.eye(67), np.nan, 1),
            DataError,
            "K holds values that are not finite",
        ),
        (
            lambda K: K * np.where(np.eye(67, k=1) + np.eye(67, k=-1), np.inf, 1),
            DataError,
            "K holds values that are not finite",
        ),
        (lambda K: 0 * K, DataError, "every input is dead"),
        (
            lambda K: K - 0.9 * np.eye(67) * K[0, 0],
            DataError,
            "K plus alpha = 0.1 times its mean diagonal is not positive definite",
        ),
    ],
)
def test_bad_matrices(gram, rng, wrap, spoil, error, match):
    with pytest.raises(error, match=match), np.errstate(invalid="ignore"):
        conjugate_gradients.solve(wrap(spoil(gram)), rng.normal(size=67), 0.1)


def test_matrices_that_are_no_kernel(gram, stored):
    with pytest.raises(ShapeError, match="not symmetric"):
        conjugate_gradients.solve(np.triu(gram), np.ones(67), 0.1)
    with pytest.raises(DataError, match="K is 'kernel', not an array of numbers"):
        conjugate_gradients.solve("kernel", np.ones(67), 0.1)
    with pytest.raises(
        ShapeError, match="K has rows of some samples and columns of others. Compute .* without Y"
    ):
        conjugate_gradients.solve(stored(symmetric=False), np.ones(67), 0.1)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"y": np.ones(66)}, ShapeError, r"y has shape \(66,\), K has 67 samples"),
        ({"y": np.full(67, np.nan)}, DataError, "y holds values that are not finite"),
        ({"alpha": -1}, OptionError, "alpha is -1. Give a number >= 0"),
        ({"tolerance": 0}, OptionError, "tolerance is 0. Give a number between 0 and 1"),
        ({"tolerance": "small"}, OptionError, "tolerance is 'small'"),
        ({"most": 0}, OptionError, "most is 0. Give the largest number of steps, 1 or more"),
        ({"most": 1.5}, OptionError, "most is 1.5"),
        ({"start": np.ones((67, 1))}, ShapeError, r"start has shape \(67, 1\), y has \(67,\)"),
        ({"start": np.full(67, np.inf)}, DataError, "start holds values that are not finite"),
    ],
)
def test_bad_arguments(gram, options, error, match):
    with pytest.raises(error, match=match):
        conjugate_gradients.solve(gram, **{"y": np.ones(67), "alpha": 0.1, **options})


# ridge on a matrix on disk


def test_ridge_reads_what_fits_and_streams_what_does_not(gram, stored, rng):
    y = rng.normal(size=(67, 3))
    on_disk = stored()
    assert ridge.fit(on_disk, y, 0.1).solution.steps == 1
    assert ridge.fit(on_disk, y).alpha == ridge.fit(gram, y).alpha
    on_disk.memory = 70_000
    machine = ridge.fit(on_disk, y, 0.1)
    assert (machine.alpha, machine.choice, machine.solution.outcome) == (0.1, None, "solved")
    assert machine.solution.steps > 1
    assert worst_residual(gram, y, 0.1, machine.solution.coefficients) <= 1e-6
    with pytest.raises(
        OptionError,
        match=r"alpha='auto' needs the whole matrix and its eigenvectors in memory, "
        r"\d+ bytes, and memory=70000 is promised",
    ):
        ridge.fit(on_disk, y)
    with pytest.raises(OptionError, match="alpha is 'best'. Give a number"):
        ridge.fit(on_disk, y, "best")
    with pytest.raises(OptionError, match="the whole matrix of 67 x 67 float64 needs"):
        ridge.factor(npk.Gram(on_disk.store, memory=20_000))


def test_ridge_says_when_it_did_not_converge(gram, stored, rng, monkeypatch):
    solve = conjugate_gradients.solve
    monkeypatch.setattr(
        conjugate_gradients,
        "solve",
        lambda K, y, alpha, **options: solve(K, y, alpha, most=3, **options),
    )
    with pytest.warns(
        ConvergenceWarning,
        match="conjugate gradients not converged after 3 steps: "
        "the residual is .* Take a larger alpha",
    ):
        machine = ridge.fit(stored(memory=70_000), rng.normal(size=67), 1e-4)
    assert machine.solution.outcome == "not converged"


MEASURE = """
import pathlib, sys
import numpy as np
import npk
from npk.errors import OptionError
from npk.machines import ridge

def peak():
    (line,) = (line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

y = np.load(sys.argv[3])
ridge.fit(npk.Gram.load(sys.argv[1], memory=300_000), y[:100], 0.1)  # what is loaded and compiled on first use
before = peak()
gram = npk.Gram.load(sys.argv[2], memory=sys.argv[4])
machine = ridge.fit(gram, y, 1.0)
used = peak() - before
try:
    np.asarray(gram)
except OptionError:
    print(used, machine.solution.steps, machine.solution.residual)
np.save(sys.argv[5], machine.solution.coefficients)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.slow
def test_ridge_on_a_store_that_does_not_fit_the_memory(tmp_path, rng):
    """8,000 samples, 256 MB in float32, solved for ten classes by a process that may take 60 MB."""
    net = nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
    ).eval()
    X = rng.standard_normal((8000, 20)).astype(np.float32)
    y = ridge.signed_targets(rng.integers(0, 10, 8000))[0]
    npk.kernel(net, X[:100], scale="cosine", out=tmp_path / "small.zarr", progress=False)
    gram = npk.kernel(
        net, X, scale="cosine", memory="60MB", out=tmp_path / "K.zarr", progress=False
    )
    np.save(tmp_path / "y.npy", y)
    files = [tmp_path / name for name in ("small.zarr", "K.zarr", "y.npy", "c.npy")]
    command = [sys.executable, "-c", MEASURE, *files[:3], "60MB", files[3]]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used, steps, residual = output.split()
    print(
        f"peak {int(used) / 1e6:.0f} MB of 60 promised, {steps} steps, residual "
        f"{float(residual):.2g}"
    )
    assert int(used) <= 60 * 10**6 < gram.nbytes
    assert float(residual) <= 1e-6
    coefficients, some = np.load(files[3]), rng.integers(0, 8000, 50)
    fitted = gram[some].astype(float) @ coefficients + coefficients[some]
    np.testing.assert_allclose(fitted, y[some], atol=1e-4)
