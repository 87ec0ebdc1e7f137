"""Kernel machines end to end: what ``predict`` of one sample takes after ``fit``.

python benchmarks/bench_machines.py --json machines.json
"""

import argparse
from pathlib import Path

from timing import Route, duration, machine, measured, write_samples

import npk


def main() -> None:
    """Measure, print medians, write raw samples."""
    options = parsed()
    print(machine())
    timings = measured(predict_routes(options.n), options.repeat)
    for timing in timings:
        print(f"{timing.name}: {duration(timing.median)} {timing.spread}")
    write_samples(options.json, "machines", timings, n=options.n)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="training samples")
    parser.add_argument("--repeat", type=int, default=9, help="samples of each time")
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    return parser.parse_args()


def predict_routes(n: int) -> list[Route]:
    """One sample against n, by a fitted machine, and by a kernel that knows nothing of them."""
    digits = npk.data.load("digits")
    net = npk.networks.build(
        "conv", input_shape=(1, 8, 8), classes=10, seed=0, channels=(64,) * 4
    ).eval()
    fitted = npk.NPKRidgeClassifier(net, alpha=1e-3).fit(digits.X[:n], digits.y[:n])
    one = digits.X[n : n + 1]
    return [
        Route("predict one sample", lambda: fitted.predict(one)),
        Route(
            "kernel of one sample and all gates, nothing known of these",
            lambda: fitted.kernel_(one, fitted.gates_),
        ),
        Route(
            "npk.kernel of one sample and all samples",
            lambda: npk.kernel(net, one, digits.X[:n], scale="cosine", progress=False),
        ),
    ]


if __name__ == "__main__":
    main()
