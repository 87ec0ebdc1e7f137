"""Ridge and conjugate gradients on a device, by a stand-in for CuPy and, where there is a GPU, on
that; and what a device fails to do.
"""

import sys

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics.pairwise import rbf_kernel
from strict_cupy import OutOfMemory, RuntimeFailure, StrictArray, StrictDevice
from test_cuda_backend import fake_cupy, raising
from torch import nn

import npk
from npk.errors import BackendError, DataError, OptionError
from npk.gram.store import GramStore
from npk.gram.tiles import TilePlan
from npk.gram.work.columns import Columns
from npk.machines import algebra, bands, conjugate_gradients, ridge
from npk.machines.estimators import base

MODULES = ("cupy", "cupyx", "cupyx.scipy", "cupyx.scipy.linalg")


@pytest.fixture
def strict(monkeypatch):
    """A device that refuses to meet arrays of the host."""
    device = StrictDevice()
    device.install(monkeypatch)
    return device


@pytest.fixture(params=["stand-in", pytest.param("GPU", marks=pytest.mark.gpu)])
def device(request):
    """The stand-in, or the GPU itself."""
    return request.getfixturevalue("strict") if request.param == "stand-in" else None


@pytest.fixture
def gram(rng):
    return 3.0 * rbf_kernel(rng.normal(size=(67, 5)), gamma=0.1)


@pytest.fixture
def stored(tmp_path, gram):
    """The matrix on disk, in tiles of 20."""

    def store(values=gram, memory=None):
        made = GramStore.create(
            tmp_path / "K", TilePlan(*values.shape, 20, True), str(values.dtype), {}
        )
        for tile in made.plan:
            made.write(tile, values[tile.rows, tile.cols])
        return npk.Gram(made, memory)

    return store


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


# --- what is found ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [None, 1, 4])
@pytest.mark.usefixtures("device")
def test_ridge_finds_what_it_finds_on_the_host(gram, rng, outputs, dtype):
    K, y = gram.astype(dtype), rng.normal(size=67 if outputs is None else (67, outputs))
    for alpha in (0.3, "auto"):
        ours, hosts = ridge.fit(K, y, alpha, backend="cuda"), ridge.fit(K, y, alpha)
        assert type(ours.solution.coefficients) is np.ndarray
        assert_close(ours.solution.coefficients, hosts.solution.coefficients)
        assert ours.solution.residual < 1e-10
        assert (ours.alpha, ours.solution.steps, ours.solution.outcome) == (
            hosts.alpha,
            1,
            "solved",
        )
    assert_close(ours.choice.squared_error, hosts.choice.squared_error)


@pytest.mark.usefixtures("device")
def test_leave_one_out_and_accuracy(gram, rng):
    targets, _ = ridge.signed_targets(rng.integers(0, 3, 67))
    ours, hosts = ridge.factor(gram, backend="cuda"), ridge.factor(gram)
    assert type(ours.eigenvalues) is np.ndarray
    assert_close(ridge.leave_one_out(ours, targets, 0.1), ridge.leave_one_out(hosts, targets, 0.1))
    assert_close(
        ridge.choose_alpha(ours, targets, criterion="accuracy").accuracy,
        ridge.choose_alpha(hosts, targets, criterion="accuracy").accuracy,
    )
    assert_close(
        ridge.solve(ours, targets, 0.1).coefficients, ridge.solve(hosts, targets, 0.1).coefficients
    )


@pytest.mark.parametrize("outputs", [None, 1, 4])
@pytest.mark.parametrize("kind", ["array", "float32", "disk"])
@pytest.mark.usefixtures("device")
def test_conjugate_gradients_find_what_they_find_on_the_host(gram, stored, rng, outputs, kind):
    K = {"array": lambda: gram, "float32": lambda: stored(gram.astype("float32"))}.get(
        kind, stored
    )()
    y = rng.normal(size=67 if outputs is None else (67, outputs))
    start = rng.normal(size=y.shape)
    ours = conjugate_gradients.solve(K, y, 0.3, tolerance=1e-9, start=start, backend="cuda")
    hosts = conjugate_gradients.solve(K, y, 0.3, tolerance=1e-9, start=start)
    assert type(ours.coefficients) is np.ndarray
    assert (ours.outcome, ours.coefficients.shape) == ("solved", y.shape)
    assert ours.steps == pytest.approx(hosts.steps, rel=0.25)  # every BLAS rounds in its own way
    np.testing.assert_allclose(
        ours.coefficients, hosts.coefficients, atol=1e-6 * np.abs(hosts.coefficients).max()
    )
    assert ours.residual <= 1e-9


@pytest.mark.usefixtures("device")
def test_columns_of_zeros_and_no_columns(gram, rng):
    y = np.column_stack([np.zeros(67), rng.normal(size=67)])
    solution = conjugate_gradients.solve(gram, y, 0.1, backend="cuda")
    assert not solution.coefficients[:, 0].any()
    assert solution.residual <= 1e-6
    assert conjugate_gradients.solve(gram, np.zeros((67, 2)), 0.1, backend="cuda").steps == 0


@pytest.mark.parametrize("machine", [npk.NPKRidge, npk.NPKRidgeClassifier])
def test_estimators_solve_where_their_kernel_is_made(machine, strict, rng, monkeypatch):
    def on_the_host(made, *tables):  # there are no kernels of CUDA here
        assert made.options.backend in ("cuda", "cpu")
        tables = [table.table for table in tables if table is not None]
        return npk.kernel(*tables, scale=made.options.scale, progress=False)

    monkeypatch.setattr(base, "kernel", on_the_host)
    monkeypatch.setattr(Columns, "of", lambda _, table: Columns(table, np.zeros(1), None))
    net = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 1)).eval()
    X, y = rng.standard_normal((30, 6)).astype(np.float32), rng.integers(0, 3, 30)
    ours = machine(net, backend="cuda").fit(X, y)
    assert strict.peak > 2 * 30 * 30 * 8
    np.testing.assert_allclose(
        ours.dual_coef_, machine(net, backend="cpu").fit(X, y).dual_coef_, rtol=1e-3, atol=1e-3
    )
    used = strict.peak
    machine(net, backend="cpu").fit(X, y)
    assert strict.peak == used


@pytest.mark.gpu
def test_estimators_on_a_device(rng):
    net = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 1)).eval()
    X, y = rng.standard_normal((300, 6)).astype(np.float32), rng.integers(0, 3, 300)
    ours, hosts = (
        npk.NPKRidgeClassifier(net, backend=backend, dtype="float64").fit(X, y)
        for backend in ("cuda", "cpu")
    )
    np.testing.assert_allclose(ours.dual_coef_, hosts.dual_coef_, rtol=1e-6, atol=1e-6)


# --- room on the device ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["array", "disk"])
def test_a_matrix_larger_than_the_device_goes_there_in_bands(
    kind, dtype, gram, stored, rng, strict
):
    values = gram.astype(dtype)
    K, strict.capacity = values if kind == "array" else stored(values), 17_500
    y = rng.normal(size=(67, 2))
    ours = conjugate_gradients.solve(K, y, 0.1, backend="cuda")
    assert strict.most <= 20 * 20 * 8 < strict.peak < strict.capacity < gram.nbytes / 2
    np.testing.assert_allclose(
        ours.coefficients, conjugate_gradients.solve(K, y, 0.1).coefficients, atol=1e-6
    )


def test_a_matrix_stays_on_the_device_if_there_is_room(gram, stored, strict, monkeypatch):
    K, read = stored(), []
    monkeypatch.setattr(
        GramStore,
        "read",
        lambda self, tile, read_tile=GramStore.read: read.append(tile) or read_tile(self, tile),
    )
    for capacity, passes in ((10**6, 1), (30_000, 3)):
        strict.capacity = capacity
        read.clear()
        matrix = bands.BandedMatrix(K, algebra.DeviceAlgebra(strict.cupy))
        strict.peak = 0
        for _ in range(3):
            np.testing.assert_allclose(
                (matrix @ strict.asarray(np.eye(67)[:, :2])).get(), gram[:, :2], rtol=1e-12
            )
        assert len(read) == passes * len(K.store.plan)
        assert passes == 1 or strict.peak < 2 * 20 * 20 * 8  # never two tiles at once
        del matrix


def test_ridge_streams_what_the_device_cannot_hold(gram, stored, rng, strict):
    K, y = stored(), rng.normal(size=67)
    assert ridge.fit(K, y, 0.1, backend="cuda").solution.steps == 1
    strict.capacity = 3 * gram.nbytes - 1
    assert ridge.fit(K, y, 0.1).solution.steps == 1  # on the host
    strict.peak = 0
    assert ridge.fit(K, y, 0.1, backend="cuda").solution.steps > 1
    assert strict.peak > 0
    with pytest.raises(
        OptionError,
        match=r"eigenvectors on the GPU, about 215472 bytes, and "
        r"107735 are free there. .*or use backend=",
    ):
        ridge.fit(K, y, backend="cuda")
    K.memory = 45_000
    with pytest.raises(
        OptionError, match="eigenvectors in memory, 45512 bytes, and memory=45000 is promised"
    ):
        ridge.fit(K, y, backend="cuda")


@pytest.mark.parametrize("alpha", [0.1, "auto"])
def test_too_little_memory(alpha, gram, rng, strict):
    strict.capacity = 2 * gram.nbytes
    with pytest.raises(
        BackendError,
        match=r"the GPU has too little memory to solve for 67 "
        r"samples: .* of 0.00 GB are free. .* in bands",
    ):
        ridge.fit(gram, rng.normal(size=67), alpha, backend="cuda")


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("solve", "match"),
    [
        (
            lambda K, y: ridge.fit(K, y, 0.1, backend="cuda"),
            "K plus alpha = 0.1 times its mean diagonal is not positive definite",
        ),
        (lambda K, y: ridge.fit(K, y, backend="cuda"), "K has the eigenvalue -2.* below rounding"),
        (
            lambda K, y: conjugate_gradients.solve(K, y, 0.1, backend="cuda"),
            "K plus alpha = 0.1 .* not positive definite",
        ),
    ],
)
@pytest.mark.usefixtures("device")
def test_a_matrix_that_is_not_definite(solve, match, gram, rng):
    with pytest.raises(DataError, match=match):
        solve(gram - 0.9 * np.eye(67) * gram[0, 0], rng.normal(size=67))


@pytest.mark.usefixtures("device")
def test_values_that_are_not_finite(gram, stored):
    gram[3, 3:5] = np.inf, np.nan
    gram[3, 3] = 3.0
    with pytest.raises(DataError, match="K holds values that are not finite"):
        conjugate_gradients.solve(stored(gram), np.ones(67), 0.1, backend="cuda")


@pytest.mark.usefixtures("strict")
def test_what_a_device_does_not_multiply(gram):
    with pytest.raises(
        OptionError,
        match="K is a csr_array, a GPU multiplies arrays and npk.Gram. "
        "Pass one of them, or use backend=",
    ):
        conjugate_gradients.solve(sparse.csr_array(gram), np.ones(67), 0.1, backend="cuda")


SOLVERS = [ridge.fit, ridge.factor, conjugate_gradients.solve]


def solved(solver, gram, backend):
    return (
        solver(gram, backend=backend)
        if solver is ridge.factor
        else solver(gram, np.ones(67), 0.1, backend=backend)
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_unknown_backend(solver, gram):
    with pytest.raises(OptionError, match="backend='gpu' is not known. Choose"):
        solved(solver, gram, "gpu")


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_is_missing_is_said(solver, gram, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendError, match="needs CuPy, which is not installed. Install it with"):
        solved(solver, gram, "cuda")
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(driver=0))
    with pytest.raises(BackendError, match="there is no NVIDIA driver on this machine"):
        solved(solver, gram, "cuda")
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(devices=0))
    with pytest.raises(BackendError, match="no device can be seen"):
        solved(solver, gram, "cuda")


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(
    ("error", "match"),
    [
        (OutOfMemory("no"), "the GPU has too little memory to solve for 67 samples"),
        (
            RuntimeFailure("cudaErrorECC: ecc\nmore"),
            "the GPU failed to solve: cudaErrorECC: ecc. Look at nvidia-smi, or use backend=",
        ),
        (
            ImportError('Failure finding "libcublas.so.12": No such file\nmore'),
            r"no cuBLAS or cuSOLVER .*libcublas.*\[cublas,cusolver\]",
        ),
    ],
)
def test_a_device_that_fails(solver, error, match, gram, strict):
    strict.cupy.asarray = raising(error)
    with pytest.raises(BackendError, match=match):
        solved(solver, gram, "cuda")


def test_errors_of_others_stay_what_they_are(gram, strict):
    strict.cupy.asarray = raising(RuntimeError("of somebody else"))
    with pytest.raises(RuntimeError, match="of somebody else") as caught:
        solved(ridge.fit, gram, "cuda")
    assert not isinstance(caught.value, BackendError)


# --- the stand-in ---


def test_the_stand_in_refuses_what_cupy_refuses(strict):
    here, there = np.ones(3), strict.asarray(np.ones(3))
    assert isinstance(there, StrictArray)
    calls = [
        lambda: here + there, lambda: there + here, lambda: there @ here, lambda: np.asarray(there), lambda: np.isfinite(there),
        lambda: strict.cupy.isfinite(here), lambda: there[np.array([1])], lambda: there.__setitem__(0, here), lambda: here @ there,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(
            TypeError,
            match="Unsupported type|Implicit conversion|index of the "
            "host|does not support|unsupported operand",
        ):
            call()


def test_the_stand_in_counts_its_memory(strict):
    strict.capacity = 100
    first = strict.asarray(np.ones(6))
    with pytest.raises(OutOfMemory, match="Out of memory allocating 48"):
        first * 2.0 + (first * 2.0) * 2.0
    assert strict.used == 48
    del first
    assert strict.used == 0
