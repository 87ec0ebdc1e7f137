"""Products with a kernel on disk, against reading its bytes and against NumPy in memory: what a
step of conjugate gradients costs.

The files are read from the system's cache where it holds them, by all routes alike.

python benchmarks/bench_cg.py --n 4000 --json cg.json
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from timing import Route, Timing, duration, machine, measured, timed, write_samples
from torch import nn

import npk
from npk.machines import conjugate_gradients

DISK, MEMORY = "reading the files", "NumPy in memory, float64"
_LARGEST_IN_MEMORY = 2 * 10**9  # bytes in float64
ALPHA = 1.0


def main() -> None:
    """Measure, print medians and ratios, write raw samples."""
    options = parsed()
    with tempfile.TemporaryDirectory() as folder:
        gram = made(Path(folder) / "K.zarr", options.n)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        V = np.random.default_rng(1).standard_normal((options.n, options.outputs))
        timings = measured(routes(gram, files, V), options.repeat)
        print(machine())
        print(
            f"{gram.shape[0]} x {gram.shape[1]} {gram.dtype}, {len(gram.store.plan)} tiles, "
            f"{options.outputs} columns; ",
            end="",
        )
        print(
            f"{gram.nbytes / 1e6:.0f} MB whole, "
            f"{sum(path.stat().st_size for path in files) / 1e6:.0f} MB on disk"
        )
        report(timings)
        solution, seconds = timed(lambda: conjugate_gradients.solve(gram, V, ALPHA))
    print(
        f"ridge, alpha {ALPHA}: {solution.outcome} in {solution.steps} steps, "
        f"{duration(seconds)}, residual {solution.residual:.1e}"
    )
    write_samples(
        options.json,
        "cg",
        timings,
        n=options.n,
        outputs=options.outputs,
        steps=solution.steps,
        seconds=seconds,
    )


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=4000, help="samples")
    parser.add_argument(
        "--outputs", type=int, default=10, help="columns that are multiplied together"
    )
    parser.add_argument("--repeat", type=int, default=5, help="samples of each time")
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    return parser.parse_args()


def made(path: Path, n: int) -> npk.Gram:
    """The kernel of random samples in a small random network, on disk."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
    ).eval()
    X = np.random.default_rng(0).standard_normal((n, 20)).astype(np.float32)
    npk.kernel(net, X, scale="cosine", bias="ignore", out=path)
    return npk.Gram.load(path)


def routes(gram: npk.Gram, files: list[Path], V: np.ndarray) -> list[Route]:
    """The bytes alone, all tiles unpacked and checked, and the product."""
    found = [
        Route(DISK, lambda: [np.fromfile(path, np.uint8) for path in files]),
        Route(
            "reading the tiles", lambda: [gram.store.read(tile).nbytes for tile in gram.store.plan]
        ),
        Route("gram @ V", lambda: gram @ V),
        Route("gram @ v", lambda: gram @ V[:, 0]),
    ]
    if 8 * gram.shape[0] ** 2 <= _LARGEST_IN_MEMORY:
        whole = np.asarray(gram, np.float64)
        found.append(Route(MEMORY, lambda: whole @ V))
    return found


def report(timings: list[Timing]) -> None:
    """Median, spread, and how many times as long as the bytes alone and as NumPy."""
    peers = [timing for timing in timings if timing.name in (DISK, MEMORY)]
    for timing in timings:
        ratios = (
            statistics.median(a / b for a, b in zip(timing.seconds, peer.seconds, strict=True))
            for peer in peers
        )
        text = ", ".join(
            f"{ratio:7.2f} x {peer.name}" for ratio, peer in zip(ratios, peers, strict=True)
        )
        print(f"{timing.name:26} {duration(timing.median):>9}  {timing.spread:26}  {text}")


if __name__ == "__main__":
    main()
