"""Exact ridge against LAPACK's own ``posv``, one after the other in one process: the ratio is the figure, seconds depend on the machine.

python benchmarks/bench_ridge.py --n 3000 --json ridge.json
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import linalg

from npk.machines import ridge

ALPHA = 1e-3


def main() -> None:
    """Measure, print medians and ratios, write raw samples."""
    options = parsed()
    K, y = problem(options.n, options.outputs)
    routes: dict[str, Callable[[], object]] = {
        "LAPACK posv": lambda: posv(K, y),
        "ridge.fit, alpha given": lambda: ridge.fit(K, y, ALPHA),
    }
    if options.auto:
        routes |= {
            "LAPACK syevd": lambda: linalg.lapack.dsyevd(K, lower=1),
            "ridge.fit, alpha auto": lambda: ridge.fit(K, y, criterion="accuracy"),
        }
    seconds = measured(routes, options.repeat)
    report(seconds, options.n)
    if options.json:
        machine = (
            f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, NumPy {np.__version__}"
        )
        result = {"benchmark": "ridge", "machine": machine, "n": options.n, "outputs": options.outputs, "alpha": ALPHA, "seconds": seconds}
        options.json.write_text(json.dumps(result, indent=1))


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=3000, help="samples")
    parser.add_argument("--outputs", type=int, default=10, help="columns of y")
    parser.add_argument("--repeat", type=int, default=5, help="samples of each time")
    parser.add_argument("--auto", action="store_true", help="also alpha by leave-one-out, against one eigendecomposition")
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    return parser.parse_args()


def problem(n: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """A positive definite kernel with a unit diagonal, and targets -1 and +1."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, 50))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    K = np.maximum(features @ features.T, 0) ** 3 + (features @ features.T + 1) / 2
    K = (K + K.T) / 4
    K += (1 - K[0, 0]) * np.eye(n)
    return K, np.sign(rng.normal(size=(n, outputs)))


def posv(K: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The peer: LAPACK's solver on the system, with nothing checked and nothing measured."""
    system = K.T.copy(order="F")
    system[np.diag_indices_from(system)] += ALPHA
    return linalg.lapack.dposv(system, y, lower=1, overwrite_a=1)[1]


def measured(routes: dict[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
    """Seconds of every route, in turns, after one warm-up each."""
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    for turn in range(repeat + 1):
        for name, route in routes.items():
            start = time.perf_counter()
            route()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(seconds: dict[str, list[float]], n: int) -> None:
    """Median, spread, ratio to the peer above, and the rate of the n^3 / 3 multiply-adds of a Cholesky factorization."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peer = None
    for name, values in seconds.items():
        peer = name if name.startswith("LAPACK") else peer or name
        ratio = statistics.median(own / its for own, its in zip(values, seconds[peer], strict=True))
        rate = f"  {n**3 / 3e9 / medians[name]:6.1f} GFLOP/s" if name in ("LAPACK posv", "ridge.fit, alpha given") else ""
        print(f"{name:24} {medians[name]:8.3f} s  ({min(values):.3f} .. {max(values):.3f})  {ratio:5.2f} x {peer}{rate}")


if __name__ == "__main__":
    main()
