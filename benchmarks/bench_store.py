"""What a store costs beside the arithmetic: gates copied and read, tiles written with their
checksums, a finished store looked at again.

python benchmarks/bench_store.py python benchmarks/bench_store.py --only fc --n 8192 --folder
/somewhere

``conv``: 4 convolutions of 64 channels with a global pool on 16 x 16; ``fc``: 4 layers of 1024
gates. The gates are recorded before, into a gate table in memory. One run writes the kernel of the
table into a store; the seconds in each part of it are taken by a clock around that part, in the
same run as the arithmetic (the time in the backend). A second run finds the store finished and
reads it all. The figure is the share of the arithmetic that the store adds.
"""

import argparse
import functools
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from timing import Timing, duration, machine, timed, write_samples

import npk
from npk.backends.cpu import CpuBackend
from npk.gates.store import GateStore
from npk.gram.store import GramStore

WORK = {
    "conv": ("conv", {"channels": [64] * 4, "input_shape": (1, 16, 16)}, 1500),
    "fc": ("fc", {"hidden": [1024] * 4, "input_shape": (64,)}, 8192),
}
PARTS = [
    (CpuBackend, "tile", "arithmetic"),
    (CpuBackend, "side", "masks of tiles"),
    (GateStore, "write", "gates copied into the store"),
    (GateStore, "take", "gates read"),
    (GramStore, "write", "tiles and checksums written"),
    (GramStore, "create", "store made"),
    (GramStore, "missing", "flags read"),
]


def main() -> None:
    """Measure, print, write raw samples."""
    options = parsed()
    print(machine())
    found = [timing for name in options.only for timing in timings_of(name, options)]
    write_samples(options.json, "store", found)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="*", choices=list(WORK), default=list(WORK), help="networks to measure"
    )
    parser.add_argument(
        "--n", type=int, help="samples; the default differs from network to network"
    )
    parser.add_argument("--repeat", type=int, default=3, help="runs")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where the stores are made; the folder of temporary files if left out",
    )
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    return parser.parse_args()


def timings_of(name: str, options: argparse.Namespace) -> list[Timing]:
    """Seconds of each part of the runs of one network."""
    arch, settings, n = WORK[name]
    n = options.n or n
    net = npk.networks.build(arch, classes=10, seed=0, **settings)
    table = npk.record_gates(
        net,
        np.random.default_rng(0).standard_normal((n, *settings["input_shape"]), dtype=np.float32),
    )
    npk.kernel(table.take(slice(0, 64)), bias="ignore", progress=False)  # compiles
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for part, seconds in one_run(table, Path(folder) / "K.zarr").items():
                found[part].append(seconds)
    timings = [Timing(f"{name}: {part}", 0, seconds) for part, seconds in found.items()]
    report(name, n, timings)
    return timings


def one_run(table: npk.GateTable, out: Path) -> dict[str, float]:
    """Seconds in each part of one run, and of a second one that finds everything done."""
    spent: dict[str, float] = defaultdict(float)
    with clocks(spent):
        _, spent["whole run"] = timed(
            lambda: npk.kernel(table, bias="ignore", out=out, progress=False)
        )
    _, spent["run again, all tiles checked"] = timed(
        lambda: npk.kernel(table, bias="ignore", out=out, progress=False)
    )
    return dict(spent)


class clocks:
    """Clocks around the parts of a run, as long as the block lasts."""

    def __init__(self, spent: dict[str, float]) -> None:
        self.spent, self.kept = (
            spent,
            [(owner, name, owner.__dict__[name]) for owner, name, _ in PARTS],
        )

    def __enter__(self) -> None:
        for owner, name, part in PARTS:
            setattr(owner, name, self.timed(getattr(owner, name), part, owner.__dict__[name]))

    def __exit__(self, *error: object) -> None:
        for owner, name, before in self.kept:
            setattr(owner, name, before)

    def timed(self, function, part, raw):
        """The function with a clock; class methods stay bound to their class."""

        @functools.wraps(function)
        def run(*arguments, **options):
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.spent[part] += time.perf_counter() - start

        return staticmethod(run) if isinstance(raw, classmethod) else run


def report(name: str, n: int, timings: list[Timing]) -> None:
    """Medians, and what the store adds to the arithmetic."""
    median = {timing.name.split(": ", 1)[1]: timing.median for timing in timings}
    arithmetic = median["arithmetic"] + median["masks of tiles"]
    print(f"\n{name}, n = {n}")
    for part, seconds in median.items():
        print(
            f"{part:32} {duration(seconds):>9}  {100 * seconds / arithmetic:6.2f} % of "
            f"arithmetic and masks"
        )
    store = sum(median[part] for _, _, part in PARTS[2:])
    print(
        f"the store adds {100 * store / arithmetic:.2f} % to arithmetic and masks (gates, tiles, "
        f"checksums, flags)",
        flush=True,
    )


if __name__ == "__main__":
    main()
