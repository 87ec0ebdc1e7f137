"""Kernel of a fully connected network from its gate table, against NumPy in float32, and NumKong where it is installed (overlaps alone).

python benchmarks/bench_dense.py --n 4096 --json dense.json

All run in turns in one process: the ratios are the figure. One operation is an AND or a count of one gate pair; half of the matrix is
computed and 2 n^2 / 2 of each layer's gates are counted, as for the peers.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch
from threadpoolctl import threadpool_limits

from npk import GateTable, kernel, record_gates
from npk.backends.cpu import CpuBackend
from npk.backends.exponents import find_exponents
from npk.dual.planning import plan


def main() -> None:
    """Measure, print medians, rates and ratios, write raw samples."""
    options = parsed()
    net, X = network(options), samples(options)
    table = record_gates(net, X)
    seconds = {}
    for threads in (1, os.cpu_count() or 1):
        numba.set_num_threads(threads)
        with threadpool_limits(threads):
            found = measured(routes(table, threads), options.repeat)
        seconds |= {f"{name}, {threads} threads": values for name, values in found.items()}
    seconds |= measured({"npk.kernel(table)": lambda: kernel(table, progress=False)}, options.repeat)
    seconds |= measured({"npk.kernel(net, X)": lambda: kernel(net, X, progress=False)}, 1)
    report(seconds, options)
    if options.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
        sizes = {"n": options.n, "width": options.width, "depth": options.depth}
        options.json.write_text(json.dumps({"benchmark": "dense", "machine": machine, **sizes, "seconds": seconds}, indent=1))


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=4096, help="samples")
    parser.add_argument("--width", type=int, default=1024, help="gates of a layer")
    parser.add_argument("--depth", type=int, default=4, help="gated layers")
    parser.add_argument("--repeat", type=int, default=5, help="samples of each time")
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    return parser.parse_args()


def network(options: argparse.Namespace) -> torch.nn.Module:
    """A random fully connected ReLU network for 64 inputs."""
    torch.manual_seed(0)
    widths = [64, *[options.width] * options.depth]
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers, torch.nn.Linear(options.width, 10)).eval()


def samples(options: argparse.Namespace) -> np.ndarray:
    """Random samples."""
    return np.random.default_rng(0).standard_normal((options.n, 64), dtype=np.float32)


def routes(table: GateTable, threads: int) -> dict[str, Callable[[], object]]:
    """Ours and the peers."""
    recursion = plan(table.graph)
    backend, exponents = CpuBackend(recursion, table, "float32"), find_exponents(recursion, table)
    side = backend.side(table)
    layers = [np.asarray(layer, np.float32) for layer in table]
    found: dict[str, Callable[[], object]] = {
        "npk tile": lambda: backend.tile(side, side, exponents, diagonal=0),
        "NumPy float32": lambda: by_numpy(table.inputs, layers),
    }
    try:
        import numkong
    except ImportError:
        return found
    if threads == 1:
        bits = [np.packbits(layer, axis=1) for layer in table]
        found["NumKong, overlaps alone"] = lambda: [numkong.dots_symmetric(layer, dtype="uint1") for layer in bits]
    return found


def by_numpy(X: np.ndarray, layers: list[np.ndarray]) -> np.ndarray:
    """The closed form with matrix products."""
    K = X @ X.T
    for gates in layers:
        K *= (gates @ gates.T) / gates.shape[1]
    return K


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


def report(seconds: dict[str, list[float]], options: argparse.Namespace) -> None:
    """Median, spread, rate, and the ratio to the peer with as many threads."""
    operations = options.n**2 * options.width * options.depth
    for name, values in seconds.items():
        middle = statistics.median(values)
        tile = seconds.get("npk tile," + name.partition(",")[2].rpartition(",")[2] if "threads" in name else "")
        ratio = f"  {middle / statistics.median(tile):6.1f} x npk tile" if tile and not name.startswith("npk") else ""
        print(f"{name:36} {middle:8.4f} s  ({min(values):.4f} .. {max(values):.4f})  {operations / middle / 1e12:6.2f} Top/s{ratio}")


if __name__ == "__main__":
    main()
