"""Promises of bits, and tests that compare bits, under a BLAS that rounds otherwise than any other
(``strange_blas.c``).
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_portability import ROUNDED

HERE = Path(__file__).parent
PROMISES = (
    "matrix",
    "conjugate_gradients",
    "machines",
    "estimators",
    "gram",
    "stores",
    "backends",
    "exactness",
)

PRODUCTS = """
import itertools
import numpy as np

rng = np.random.default_rng(0)
for dtype, (m, k, n) in itertools.product("fd", [(7, 9, 4), (1, 30, 5), (6, 1, 1), (5, 12, 1)]):
    A, B = rng.integers(-9, 9, (m, k)).astype(dtype), rng.integers(-9, 9, (k, n)).astype(dtype)
    whole = A.astype(int) @ B.astype(int)
    for left, right in itertools.product((A, np.asfortranarray(A), A[::-1][::-1]), (B, np.asfortranarray(B))):
        assert (left @ right == whole).all() and (right.T @ left.T == whole.T).all()
        assert (left @ right[:, 0] == whole[:, 0]).all() and (left[0] @ right == whole[0]).all()
        assert (left[:, ::-1] @ right[::-1, 0] == whole[:, 0]).all() and left[0] @ right[:, 0] == whole[0, 0]
    assert (A @ A.T == A.astype(int) @ A.T.astype(int)).all() and (A.T @ A == A.T.astype(int) @ A.astype(int)).all()
"""


@pytest.fixture(scope="session")
def strange(tmp_path_factory):
    """Run Python with the strange BLAS in front of NumPy's."""
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        pytest.skip("needs Linux and gcc")
    library = tmp_path_factory.mktemp("blas") / "strange_blas.so"
    subprocess.run(
        ["gcc", "-O2", "-shared", "-fPIC", HERE / "strange_blas.c", "-o", library], check=True
    )

    def run(*arguments, timeout=120):
        environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *arguments]
        return subprocess.run(
            command,
            env=environment,
            cwd=HERE.parent,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def calls(done):
    """How often the process called the strange BLAS."""
    counts = [int(count) for count in re.findall(r"strange BLAS: (\d+) calls", done.stderr)]
    if not any(counts):
        pytest.skip("NumPy has another BLAS than the one that comes with it")
    return max(counts)


def test_it_is_a_blas(strange):
    """Whole numbers come out whole, in every layout, order and step."""
    done = strange("-c", PRODUCTS)
    assert done.returncode == 0, done.stderr
    assert calls(done) > 100


def test_bits_that_are_promised_hold_with_it(strange):
    done = strange("-c", ROUNDED)
    assert done.returncode == 0, done.stderr
    assert calls(done) > 10


@pytest.mark.slow
@pytest.mark.parametrize("file", PROMISES)
def test_tests_pass_with_it(strange, file):
    """A test that compares bits which npk does not promise would fail on the processor of somebody
    else.
    """
    done = strange(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/test_{file}.py", timeout=1200
    )
    assert done.returncode == 0, done.stdout[-3000:]
    calls(done)
