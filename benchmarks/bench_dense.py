"""Kernel of a fully connected network from its gate table, against NumPy in float32, and NumKong
where it is installed (overlaps alone).

python benchmarks/bench_dense.py --n 4096 --json dense.json

All run in turns in one process: the ratios are the figure. A *tile* is the product alone, of gates
that are laid out already, into memory that was used before; the *call* is all that
``npk.kernel(table)`` does, into new memory. One operation is an AND or a count of
one gate pair; half of the matrix is computed and 2 n^2 / 2 of each layer's gates are counted, as
for the peers. The machine's limits are those of ``roofline.py``.
"""

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import roofline
import torch
from timing import (
    COUNTS,
    Route,
    Timing,
    duration,
    machine,
    measured,
    on_each,
    pick,
    speedup,
    threads_of,
    write_samples,
)

from npk import GateTable, kernel, record_gates
from npk.backends.cpu import CpuBackend
from npk.backends.exponents import find_exponents
from npk.recursion.planning import plan

TILE, CALL, PEER = "npk tile", "npk.kernel(table)", "NumPy float32"


def main() -> None:
    """Measure, print medians, rates and ratios, write raw samples."""
    options = parsed()
    net, X = network(options), samples(options)
    table = record_gates(net, X)
    timings = measured(routes(table), options.repeat)
    timings += measured(
        [Route("npk.kernel(net, X)", lambda: kernel(net, X, bias="ignore", progress=False))], 1
    )
    print(machine())
    report(timings, options)
    write_samples(
        options.json, "dense", timings, n=options.n, width=options.width, depth=options.depth
    )


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    layers = [
        layer
        for a, b in itertools.pairwise(widths)
        for layer in (torch.nn.Linear(a, b), torch.nn.ReLU())
    ]
    return torch.nn.Sequential(*layers, torch.nn.Linear(options.width, 10)).eval()


def samples(options: argparse.Namespace) -> np.ndarray:
    """Random samples."""
    return np.random.default_rng(0).standard_normal((options.n, 64), dtype=np.float32)


def routes(table: GateTable) -> list[Route]:
    """Ours and the peers, on one thread and on all."""
    recursion = plan(table.graph, bias="ignore")
    backend, exponents = CpuBackend(recursion, table, "float32"), find_exponents(recursion, table)
    side = backend.side(table)
    layers = [np.asarray(layer, np.float32) for layer in table]
    memory = backend.memory_of(len(table))  # a kernel of many tiles uses it for all of them
    found = on_each(TILE, lambda: backend.tile(side, side, exponents, 0, memory))
    found += on_each("npk tile, new memory", lambda: backend.tile(side, side, exponents, 0))
    found += on_each(CALL, lambda: kernel(table, bias="ignore", progress=False))
    found += on_each(PEER, lambda: by_numpy(table.inputs, layers))
    peer = by_numkong(table)
    return [*found, Route("NumKong, overlaps alone", peer, 1)] if peer else found


def by_numkong(table: GateTable) -> Callable[[], object] | None:
    """The overlap of each layer, where NumKong is installed."""
    try:
        import numkong
    except ImportError:
        return None
    bits = [np.packbits(layer, axis=1) for layer in table]
    return lambda: [numkong.dots_symmetric(layer, dtype="uint1") for layer in bits]


def by_numpy(X: np.ndarray, layers: list[np.ndarray]) -> np.ndarray:
    """The closed form with matrix products."""
    K = X @ X.T
    for gates in layers:
        K *= (gates @ gates.T) / gates.shape[1]
    return K


def report(timings: list[Timing], options: argparse.Namespace) -> None:
    """Median, spread, rate, ratio to npk's tile with as many threads; the call beside its tile and
    beside NumPy; then the machine's limits.
    """
    operations = options.n**2 * options.width * options.depth
    for timing in timings:
        ours = pick(timings, TILE, timing.threads)
        ratio = f"  {timing.median / ours.median:6.1f} x {TILE}" if ours and ours != timing else ""
        print(
            f"{timing.label:36} {duration(timing.median):>9}  {timing.spread}  "
            f"{operations / timing.median / 1e12:6.2f} Top/s{ratio}"
        )
    print(speedup(timings, TILE))
    print(speedup(timings, CALL))
    for count in COUNTS:
        print(of_the_call(timings, count))
    for count in COUNTS:
        ours = pick(timings, TILE, count)
        if ours:
            limit, writing = (
                operations / roofline.counting(count),
                options.n**2 * 4 / roofline.writing(count)[0],
            )
            print(
                f"limits, {threads_of(count)}: counting gates {duration(limit)}, npk tile "
                f"{ours.median / limit:.1f} x; "
                f"first writing of a whole matrix {duration(writing)}, npk tile "
                f"{ours.median / writing:.1f} x"
            )


def of_the_call(timings: list[Timing], count: int) -> str:
    """The call beside its tile and beside NumPy, of medians and of the best runs."""
    found = {timing.name: timing for timing in timings if timing.threads == count}
    tile, call, peer = (found[name] for name in (TILE, CALL, PEER))
    best = [min(timing.seconds) for timing in (tile, call, peer)]
    return (
        f"{CALL}, {threads_of(count)}: {call.median / tile.median:.2f} x its tile "
        f"({best[1] / best[0]:.2f} of the best runs); {PEER} takes "
        f"{peer.median / call.median:.1f} x as long ({best[2] / best[1]:.1f})"
    )


if __name__ == "__main__":
    main()
