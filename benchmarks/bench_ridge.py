"""Exact ridge against LAPACK's own ``posv``, one after the other in one process: the ratio is the
figure, seconds depend on the machine.

python benchmarks/bench_ridge.py --n 3000 --json ridge.json
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
from scipy import linalg
from timing import Route, Timing, duration, machine, measured, write_samples

from npk.machines import ridge

ALPHA = 1e-3


def main() -> None:
    """Measure, print medians and ratios, write raw samples."""
    options = parsed()
    K, y = problem(options.n, options.outputs)
    routes = [
        Route("LAPACK posv", lambda: posv(K, y)),
        Route("ridge.fit, alpha given", lambda: ridge.fit(K, y, ALPHA)),
    ]
    if options.auto:
        routes += [
            Route("LAPACK syevd", lambda: linalg.lapack.dsyevd(K, lower=1)),
            Route("ridge.fit, alpha auto", lambda: ridge.fit(K, y, criterion="accuracy")),
        ]
    timings = measured(routes, options.repeat)
    print(machine())
    report(timings, options.n)
    write_samples(options.json, "ridge", timings, n=options.n, outputs=options.outputs, alpha=ALPHA)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=3000, help="samples")
    parser.add_argument("--outputs", type=int, default=10, help="columns of y")
    parser.add_argument("--repeat", type=int, default=5, help="samples of each time")
    parser.add_argument(
        "--auto",
        action="store_true",
        help="also alpha by leave-one-out, against one eigendecomposition",
    )
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


def report(timings: list[Timing], n: int) -> None:
    """Median, spread, ratio to the peer above, and the rate of the n^3 / 3 multiply-adds of a
    Cholesky factorization.
    """
    peer = timings[0]
    for timing in timings:
        peer = timing if timing.name.startswith("LAPACK") else peer
        ratio = statistics.median(
            own / its for own, its in zip(timing.seconds, peer.seconds, strict=True)
        )
        rate = (
            (f"  {n**3 / 3e9 / timing.median:6.1f} GFLOP/s")
            if timing.name in ("LAPACK posv", "ridge.fit, alpha given")
            else ""
        )
        print(
            f"{timing.name:24} {duration(timing.median):>9}  {timing.spread}  {ratio:5.2f} x "
            f"{peer.name}{rate}"
        )


if __name__ == "__main__":
    main()
