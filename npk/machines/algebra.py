"""Linear algebra on the host or on a CUDA device: the one seam between the solvers and where they
run.

The solvers are written once, for arrays of ``algebra.xp``: NumPy's or CuPy's. They take what they
need with ``put`` and give what they found with ``get``; nothing else goes from one memory to the
other.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from scipy import linalg

from npk.backends import device_arrays
from npk.errors import BackendError, OptionError
from npk.machines.bands import BandedMatrix

_MOST_ROWS = 32768  # of what cuSOLVER's syevd takes
_ELSE = 'or use backend="cpu"'


class Algebra(Protocol):
    """What a solver asks of the place where it runs."""

    xp: Any  # the array library: NumPy's interface
    # float64 matrices (n, n) held to solve for one alpha: by the host, and by the device
    given: tuple[int, int]
    auto: tuple[int, int]  # and for eigenvalues and eigenvectors

    def put(self, values: np.ndarray) -> Any:
        """An array of the host as an array of ``xp``."""
        ...

    def get(self, values: Any) -> np.ndarray:
        """An array of ``xp`` as an array of the host."""
        ...

    def eigh(self, gram: Any, *, own: bool = False) -> tuple[np.ndarray, Any]:
        """Eigenvalues, ascending, on the host; and eigenvectors, one a column. ``own``: the
        matrix's memory may be taken for them.
        """
        ...

    def check_size(self, n: int) -> None:
        """Refuse a matrix whose eigenvectors cannot be had here, whatever memory there is."""
        ...

    def solve_positive(self, system: Any, targets: Any) -> Any:
        """Solve by Cholesky; ``system`` may be overwritten. Raises ``numpy.linalg.LinAlgError`` if
        it is not positive definite.
        """
        ...

    def product(self, matrix: Any) -> Callable[[Any], Any]:
        """What multiplies a matrix of the host (or on disk) with arrays of ``xp``."""
        ...

    def free(self) -> int | None:
        """Bytes that are free on the device; ``None`` for the host."""
        ...

    def at_work(self, n: int) -> contextlib.AbstractContextManager:
        """Errors of the device, while it solves for n samples, as errors of npk."""
        ...


class HostAlgebra:
    """NumPy, and LAPACK by SciPy."""

    xp = np
    given, auto = (2, 0), (4, 0)  # K and its factor; K, eigenvectors and eigh's workspace

    def put(self, values: np.ndarray) -> np.ndarray:
        """The array itself."""
        return values

    def get(self, values: np.ndarray) -> np.ndarray:
        """The array itself."""
        return values

    def eigh(self, gram: np.ndarray, *, own: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues, ascending, and eigenvectors, one a column."""
        if own:  # symmetric: the transpose is the matrix, already in LAPACK's order
            return linalg.eigh(
                gram.T, lower=False, driver="evd", check_finite=False, overwrite_a=True
            )
        return linalg.eigh(gram, driver="evd", check_finite=False)

    def check_size(self, n: int) -> None:
        """LAPACK takes what memory holds."""

    def solve_positive(self, system: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Solve by Cholesky, in the system's own memory if it is in LAPACK's order."""
        factor = linalg.cho_factor(system, overwrite_a=True, check_finite=False)
        return linalg.cho_solve(factor, targets, check_finite=False)

    def product(self, matrix: Any) -> Callable[[np.ndarray], np.ndarray]:
        """The matrix's own product."""
        return lambda V: np.asarray(matrix @ V)

    def free(self) -> None:
        """The host is no device."""

    def at_work(self, n: int) -> contextlib.AbstractContextManager:
        """Nothing to watch."""
        return contextlib.nullcontext(n)


class DeviceAlgebra:
    """CuPy: cuBLAS and cuSOLVER on the current CUDA device, in its default stream.

    Args:
        cupy: the module, or what stands for it.
    """

    # K, the system and its factor; K, eigenvectors, and what syevd may ask for beside them
    given, auto = (1, 3), (1, 6)

    def __init__(self, cupy: Any) -> None:
        self.xp = cupy

    def put(self, values: np.ndarray) -> Any:
        """The array on the device."""
        return self.xp.asarray(values)

    def get(self, values: Any) -> np.ndarray:
        """The array in the host's memory; waits for it."""
        return values.get()

    def check_size(self, n: int) -> None:
        """Refuse what cuSOLVER refuses.

        Raises:
            BackendError: more rows than it takes.
        """
        if n > _MOST_ROWS:
            raise BackendError(
                f"cuSOLVER decomposes matrices of at most {_MOST_ROWS} rows, K has {n}. Give alpha "
                f"as a number, {_ELSE}, which takes about {4 * 8 * n * n / 1e9:.0f} GB of memory."
            )

    def eigh(self, gram: Any, *, own: bool = False) -> tuple[np.ndarray, Any]:
        """Eigenvalues, ascending, on the host; and eigenvectors, one a column, on the device."""
        with _errors_of_cusolver():
            eigenvalues, eigenvectors = self.xp.linalg.eigh(gram)
        return eigenvalues.get(), eigenvectors

    def solve_positive(self, system: Any, targets: Any) -> Any:
        """Solve by Cholesky and two triangular systems."""
        from cupyx.scipy.linalg import solve_triangular

        with _errors_of_cusolver():
            upper = self.xp.linalg.cholesky(system).T  # in cuBLAS's order, so that it is not copied
        half = solve_triangular(upper, targets, trans=1, check_finite=False)
        return solve_triangular(upper, half, check_finite=False)

    def product(self, matrix: Any) -> Callable[[Any], Any]:
        """The matrix's product on the device, where it stays if there is room."""
        return BandedMatrix(matrix, self).__matmul__

    def free(self) -> int:
        """Bytes that are free on the device, with those that CuPy keeps for later."""
        return self.xp.cuda.runtime.memGetInfo()[0] + self.xp.get_default_memory_pool().free_bytes()

    @contextlib.contextmanager
    def at_work(self, n: int) -> Iterator[None]:
        """Errors of the device, while it solves for n samples, as errors of npk."""
        try:
            yield
        except self.xp.cuda.memory.OutOfMemoryError as error:
            free, total = self.free(), self.xp.cuda.runtime.memGetInfo()[1]
            raise BackendError(
                f"the GPU has too little memory to solve for {n} samples: {free / 1e9:.2f} of "
                f"{total / 1e9:.2f} GB are free. Take "
                f'conjugate_gradients.solve(K, y, alpha, backend="cuda"), which brings K there in '
                f"bands, free memory on the GPU, {_ELSE}."
            ) from error
        except ImportError as error:
            raise BackendError(
                f"CuPy finds no cuBLAS or cuSOLVER to solve with: {_line(error)}. Install them "
                f"with pip install "
                f"'cuda-toolkit[cublas,cusolver]==12.*' (drivers for CUDA 13: 13.*), {_ELSE}."
            ) from error
        except RuntimeError as error:
            # CUDARuntimeError, CUBLASError, CUSOLVERError are
            if not type(error).__module__.startswith("cupy"):
                raise
            raise BackendError(
                f"the GPU failed to solve: {_line(error)}. Look at nvidia-smi, {_ELSE}."
            ) from error


HOST = HostAlgebra()


def algebra_of(backend: str) -> Algebra:
    """Where a solver runs.

    Args:
        backend: "cuda": on the current CUDA device; "auto", "cpu", "reference": on the host.

    Returns:
        The algebra.

    Raises:
        OptionError: another backend.
        BackendError: "cuda" without CuPy, a driver, or a device that is new enough.
    """
    if not isinstance(backend, str) or backend not in ("auto", "cpu", "cuda", "reference"):
        raise OptionError(
            f'backend={backend!r} is not known. Choose "auto", "cpu", "cuda" or "reference".'
        )
    if backend != "cuda":
        return HOST
    return DeviceAlgebra(device_arrays())


def _errors_of_cusolver() -> contextlib.AbstractContextManager:
    """CuPy tells a failed factorization only when asked to, and goes on with no number."""
    import cupyx

    return cupyx.errstate(linalg="raise")


def _line(error: Exception) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
