r"""What kernel machines take: memory, disk and time against the number of samples.

Memory and disk follow from what the solvers hold. Time is a count of operations over the speed of this
computer, which is measured once in a moment: so it is a prediction for it alone, right within a factor of
about two where the memory is large enough.
"""

import dataclasses
import functools
import time
from collections.abc import Callable

import numpy as np
from scipy import linalg

from npk.errors import OptionError

_MEASURED = 700  # samples of the measurement: large enough for BLAS, a tenth of a second
_READ = 0.6e9  # bytes a second: tiles from the system's cache, checked and brought to float64
_TILE = 1 << 28  # bytes in flight of a kernel on disk


@dataclasses.dataclass(frozen=True)
class Need:
    """What one machine takes; the kernel itself is not counted, ``npk inspect`` predicts it."""

    machine: str
    n: int
    memory: int  # bytes, at the most
    disk: int  # bytes
    seconds: float  # of the solver

    def __str__(self) -> str:
        disk = f", {self.disk / 1e9:.3g} GB on disk" if self.disk else ""
        return f"{self.machine}: {self.memory / 1e9:.3g} GB{disk}, {self.seconds:.3g} s"


@dataclasses.dataclass(frozen=True)
class Speed:
    """Seconds for one operation of each kind; an operation is a multiplication and an addition."""

    product: float  # of matrices
    eigenvalues: float  # n^3 of them: eigenvalues and eigenvectors
    cholesky: float  # n^3 / 6 of them


def envelope(
    n: int,
    *,
    outputs: int = 10,
    components: int = 1000,
    steps: int = 100,
    speed: Speed | None = None,
) -> tuple[Need, ...]:
    """Predict what each kind of machine takes for n samples.

    Args:
        n: training samples.
        outputs: columns of the targets: classes.
        components: landmarks, or features.
        steps: of conjugate gradients: 30 to 300, more for a smaller ridge.
        speed: of the computer; ``None``: measured, once a process.

    Returns:
        One prediction a machine, from the exact ones to the approximate ones.

    Raises:
        OptionError: a number that is no positive whole number.
    """
    for name, value in (
        ("n", n),
        ("outputs", outputs),
        ("components", components),
        ("steps", steps),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise OptionError(f"{name} is {value!r}. Give a whole number, 1 or more.")
    found, m, square = speed or measured_speed(), min(components, n), 8 * n * n
    vectors = 8 * n * outputs
    tile = 24 * min(n * n, _TILE // 24)
    step = outputs * n * n * found.product
    low_rank = 8 * n * m
    return (
        Need("ridge, every alpha", n, 4 * square, 0, n**3 * found.eigenvalues + step),
        Need("ridge, one alpha", n, 2 * square, 0, n**3 / 6 * found.cholesky + step),
        Need("conjugate gradients in memory", n, square + 5 * vectors, 0, steps * step),
        Need(
            "conjugate gradients on disk",
            n,
            tile + 6 * vectors,
            2 * n * n,
            steps * (step + 2 * n * n / _READ),
        ),
        Need("landmarks", n, 2 * low_rank + 5 * vectors, 0, n * m * m * 1.5 * found.product),
        Need(
            "features",
            n,
            low_rank // 2 + 5 * vectors,
            0,
            steps * 2 * outputs * n * m * found.product,
        ),
    )


@functools.cache
def measured_speed() -> Speed:
    """How fast this computer is, by small problems.

    Returns:
        The speed, the best of three each.
    """
    n = _MEASURED
    gram = np.random.default_rng(0).standard_normal((n, n))
    gram = gram @ gram.T + n * np.eye(n)
    return Speed(
        product=_best(lambda: gram @ gram) / n**3,
        eigenvalues=_best(lambda: linalg.eigh(gram, driver="evd")) / n**3,
        cholesky=_best(lambda: linalg.cholesky(gram)) / (n**3 / 6),
    )


def _best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
