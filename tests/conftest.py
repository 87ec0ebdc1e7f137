"""What all tests share: seeds, tolerances, and how two kernels are compared."""

import functools
import importlib
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

# Numba looks only at the file of the function it has compiled, not at those that the function's
# code comes from.
_ENGINE = sorted((Path(__file__).parents[1] / "npk" / "backends").rglob("*.py"))
_STAMP = f"{zlib.crc32(b''.join(file.read_bytes() for file in _ENGINE)):08x}"
os.environ.setdefault(
    "NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / f"numba-{_STAMP}")
)

# The accuracy promised against the float64 definition. A wider tolerance in a test carries a
# comment with the reason.
TOLERANCE = {"float32": 1e-5, "float64": 1e-11}


# Three kernels run through every loop that is compiled: products with and without biases, and a
# program.
_COMPILE = """
import sys, numpy as np, torch, npk
options = {"dtype": sys.argv[1], "progress": False}
for bias in ("ignore", "paths"):
    npk.kernel(torch.nn.Linear(2, 1), np.ones((3, 2)), bias=bias, **options)
npk.kernel(torch.nn.Conv1d(1, 1, 1), np.ones((3, 1, 2)), **options)
"""


def pytest_sessionstart(session):
    """Before there are two workers, the engine is compiled for them, each dtype on a core; else
    each worker would compile all of it.
    """
    config = session.config
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        return
    runs = [
        subprocess.Popen([sys.executable, "-c", _COMPILE, dtype], stderr=subprocess.DEVNULL)
        for dtype in TOLERANCE
    ]
    for run in runs:  # what goes wrong here is told by a test
        run.wait()


def pytest_collectstart(collector):
    """Networks that are made when a module is loaded, too, have the same weights in every run."""
    if isinstance(collector, pytest.Module):
        torch.manual_seed(0)
        importlib.import_module("tiny_networks")  # of many modules: none of them changes its seed
        torch.manual_seed(zlib.crc32(collector.name.encode()))


@pytest.fixture
def rng(request):
    """Random numbers that depend on the test's own name alone: the same in every run and in every
    order.
    """
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture(autouse=True)
def _seeded_weights(request):
    """Networks of a test have the same weights in every run and in every order."""
    torch.manual_seed(zlib.crc32(request.node.name.encode()))


@pytest.fixture(autouse=True)
def _no_kernels_of_other_tests():
    """What a test computes is not there already."""
    if (kept := sys.modules.get("npk.machines.estimators.kept")) is not None:
        kept.GRAMS.clear()


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small arrays on small machines: more threads only wait for each other."""
    torch.set_num_threads(1)


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and (why := no_device()):
        pytest.skip(f"needs a CUDA device: {why}")


@functools.cache
def no_device():
    """Why the tests that need a CUDA device cannot run; nothing if they can."""
    # here, since what it imports looks at the folder that is set above
    from npk.backends.cuda.launcher import find_launcher
    from npk.errors import BackendError

    try:
        find_launcher()
    except BackendError as error:
        return str(error).partition(", or use backend=")[0]
    return "" if torch.cuda.is_available() else f"PyTorch {torch.__version__} finds none"


def kernel_deviation(actual, expected, diagonals=None):
    """The worst difference of two kernels, relative to the root of the diagonals' product, else to
    the largest entry.
    """
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert actual.shape == expected.shape, f"shapes differ: {actual.shape} and {expected.shape}"
    assert np.isfinite(actual).all(), "the actual kernel is not finite"
    if actual.size == 0:
        return 0.0
    if diagonals is None:
        unit = np.full(expected.shape, np.abs(expected).max())
    else:
        rows, columns = (np.asarray(diagonal, dtype=np.float64) for diagonal in diagonals)
        unit = np.sqrt(np.outer(rows, columns))
    difference = np.abs(actual - expected)
    assert not difference[unit == 0].any(), (
        "the kernels differ where the expected scale is exactly zero"
    )
    return float(np.divide(difference, unit, out=np.zeros_like(difference), where=unit > 0).max())


def assert_kernels_equal(actual, expected, dtype, diagonals=None):
    """Fail unless two kernels agree to the accuracy promised for ``dtype``.

    ``diagonals`` is the pair (K(x, x) of the rows, K(y, y) of the columns) and makes the comparison
    relative to the root of their product.
    """
    deviation = kernel_deviation(actual, expected, diagonals)
    assert deviation <= TOLERANCE[str(dtype)], (
        f"kernels differ by {deviation:.3g}, {TOLERANCE[str(dtype)]:.0e} is promised for {dtype}"
    )
