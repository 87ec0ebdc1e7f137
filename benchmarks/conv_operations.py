"""Where the time of a convolution's tile goes: cycles of each kind of operation.

python benchmarks/conv_operations.py --sides 8 16 32
python benchmarks/conv_operations.py --sides 8 16 --gates soft
python benchmarks/conv_operations.py --networks resnet110 vgg16

Circular 3 x 3 convolutions and a global pool, or networks of ``bench_networks.py``, one thread.
Gates are hard, or (``--gates soft``) those of a deep linearly gated network as it evaluates; beside
these stands the *floor*: cycles of the multiply-adds of their overlaps alone, one a channel, as
many a cycle as ``roofline.py`` sees. The operations of each kind are run alone, in the order in
which the program has them, beside the whole program, in turns. The unit is a *row of cells*: one
cell of one sample with sixteen others, a vector of 512 bits. All numbers are 0 where operations run
alone, for nothing keeps them in range then. Cycles are those of the clock that ``roofline.py``
measures; the least of all runs counts, since whoever else is at work only adds to it.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import roofline
from bench_conv import add_gates, gates
from bench_networks import NETWORKS
from bench_networks import gates as gates_of
from tiles import Ready, ready
from timing import machine, threads, timed

from npk.backends.program.boxes import WIDTH
from npk.backends.program.program import (
    BOX,
    COLLAPSE,
    COLUMNS,
    DRAIN,
    GATHER,
    LANES,
    REDUCE,
    SWEEP,
    Program,
)

KINDS = {
    "collapses": COLLAPSE,
    "window sums": BOX,
    "window sums, one by one": GATHER,
    "sweeps": SWEEP,
    "reductions": REDUCE,
    "drains": DRAIN,
}
_SAMPLES = {8: 96, 16: 32}  # of a tile, by side
_FEWEST = 16
_INPUT = 3  # channels of the images


def main() -> None:
    """Print a table for each side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=4, help="convolutions")
    parser.add_argument("--channels", type=int, default=64, help="of each")
    add_gates(parser)
    parser.add_argument("--sides", type=int, nargs="+", default=[8, 16, 32], help="of the images")
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=[], help="in the place of these"
    )
    parser.add_argument("--repeat", type=int, default=15, help="samples of each time")
    options = parser.parse_args()
    clock = roofline.clock()
    print(f"{machine()}\nclock {clock / 1e9:.2f} GHz, one thread")
    for name in options.networks:
        report_network(name, ready(gates_of(name)), clock, options.repeat)
    for side in () if options.networks else options.sides:
        made = ready(gates(options, side))
        report(made, side, _SAMPLES.get(side, _FEWEST), clock, options)


def report(made: Ready, side: int, n: int, clock: float, options: argparse.Namespace) -> None:
    """Cycles a row of cells: the whole per layer, each kind per operation."""
    runner: Any = made.backend.runner
    print(f"\n{side} x {side}, {runner.rows} samples by {LANES} together")
    runs = parts(made, n)
    units = max(1, np.isin(runner.program.operations[:, 0], (REDUCE, DRAIN)).sum())
    found, cycles_of = least(runs, options.repeat), clock * LANES / (side**4 * n * n)
    for name, seconds in found.items():
        cycles = seconds * cycles_of
        often = runs[name][1] / units
        count = f"{often:.0f} x {cycles / often:5.2f}" if name != "all" else ""
        print(f"{name:26}{cycles:8.2f} cycles{cycles / options.depth:8.2f} a layer   {count}")
    if options.gates == "soft":
        whole, floor = found["all"] * cycles_of, multiplications(options, clock)
        print(
            f"{'floor of multiply-adds':26}{floor:8.2f} cycles{floor / options.depth:8.2f} a layer   "
            f"{100 * floor / whole:.0f} % of all"
        )


def multiplications(options: argparse.Namespace, clock: float) -> float:
    """Cycles a row of cells of the multiply-adds of all overlaps, those of the input's channels
    too.
    """
    each = 2 * LANES * clock / roofline.multiply_adds(1)
    return (_INPUT + options.depth * options.channels) * each


def report_network(name: str, made: Ready, clock: float, repeat: int) -> None:
    """Time of a pair: the whole and each kind, and cycles of each row of contributions."""
    runner: Any = made.backend.runner
    print(f"\n{name}, {runner.rows} samples by {LANES} together")
    counts = contributions(runner.program)
    for kind, seconds in least(parts(made, _FEWEST), repeat).items():
        pair = seconds / _FEWEST**2
        cycles = pair * LANES * clock / max(1, counts.get(kind, 0))
        count = f"{counts[kind]:11,} x {cycles:5.2f} cycles" if kind != "all" else ""
        print(f"{kind:26}{1e6 * pair:8.1f} us a pair   {count}")


def least(runs: dict[str, tuple[Callable[[], object], int]], repeat: int) -> dict[str, float]:
    """Least seconds of each, run in turns on one thread."""
    found = dict.fromkeys(runs, np.inf)
    with threads(1):
        for _ in range(repeat):
            for name, (run, _) in runs.items():
                found[name] = min(found[name], timed(run)[1])
    return found


def contributions(program: Program) -> dict[str, int]:
    """Of a pair, by kind of operation: cells, of collapses those of each term."""
    at = {name: number for number, name in enumerate(COLUMNS)}
    found = {}
    for name, kind in KINDS.items():
        rows = program.operations[program.operations[:, 0] == kind]
        cells, times = rows[:, at["cells"]], rows[:, at["times"]]
        if kind in (BOX, SWEEP, DRAIN):
            cells = np.array([_outputs(program.tables, row, at) for row in rows])
        if kind == COLLAPSE:
            times = rows[:, at["count"]]
        found[name] = int((cells * times).sum())
    return found


def _outputs(tables: np.ndarray, row: np.ndarray, at: dict[str, int]) -> int:
    """Cells of the runs of a window sum: each begins with how many it has."""
    drains = row[at["kind"]] == DRAIN
    begin, high = (row[at["count"]], WIDTH) if drains else (row[at["first"]], row[at["count"]])
    total = 0
    for _ in range(row[at["cells"]]):
        total += tables[begin]
        begin += 1 + high * (tables[begin] + 2)
    return total


def parts(made: Ready, n: int) -> dict[str, tuple[Callable[[], object], int]]:
    """What runs the whole program and each kind of its operations, and how many operations of the
    kind there are.
    """
    runner: Any = made.backend.runner
    tile = made.square(n)
    (operations, scalars, terms, scales, *laid), *others = runner.numbers(made.exponents)
    kind, numbers = operations[:, COLUMNS.index("kind")], runner.numbers

    def run(some: np.ndarray, by: float) -> Callable[[], object]:
        chosen = (np.ascontiguousarray(operations[some]), scalars[some] * scalars.dtype.type(by))
        given = ((*chosen, terms, scales * scales.dtype.type(by), *laid), *others)

        def once() -> object:
            runner.numbers = lambda _: given
            try:
                return tile()
            finally:
                runner.numbers = numbers

        return once

    chosen = {name: kind == number for name, number in KINDS.items()}
    found = {name: (run(some, 0.0), some.sum()) for name, some in chosen.items() if some.any()}
    return {"all": (run(np.ones(len(kind), bool), 1.0), 1), **found}


if __name__ == "__main__":
    main()
