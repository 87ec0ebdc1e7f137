"""Kernel of real networks: time of a pair of samples, planning, the first tile, memory.

python benchmarks/bench_networks.py --only resnet110 vgg16 --json networks.json

Random weights, random samples, hard gates. A tile of all pairs of n samples is computed; n is such
that it takes about ``--seconds`` on all threads, unless ``--n`` is given. What comes before the
first tile is measured in a process of its own that finds nothing compiled. The plan is described by
what it counts for a pair: pairs of positions, words of 64 gates that overlaps count, numbers that
are added.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import residual_networks
import roofline
import torch
from tiles import Ready, beginnings, ready, samples_for
from timing import (
    COUNTS,
    Timing,
    duration,
    in_fresh_process,
    machine,
    measured,
    on_each,
    pick,
    speedup,
    threads_of,
    timed,
    write_samples,
)
from torch import nn

from npk import GateTable, networks, record_gates
from npk.structure.effort import effort

FEW = 32  # samples of which the tiles are made
Maker = tuple[Callable[[], nn.Module], int]
NETWORKS: dict[str, Maker] = {  # and the side of its images
    "resnet110": (residual_networks.resnet110, 32),
    "resnet110-projection": (lambda: residual_networks.resnet110(projection=True), 32),
    "vgg16": (
        lambda: networks.build("vgg16", input_shape=(3, 32, 32), classes=10, padding="zero"),
        32,
    ),
    "vgg16-average": (
        lambda: networks.build(
            "vgg16", input_shape=(3, 32, 32), classes=10, padding="zero", pool="average"
        ),
        32,
    ),
    "resnet18": (residual_networks.resnet18, 64),
}


def main() -> None:
    """Measure one after the other, print, write raw samples."""
    options = parsed()
    if options.first:
        print(json.dumps(first_day(options.first)))
        return
    print(machine())
    found: list[Timing] = []
    for name in options.only:
        timings = network(name, options)
        found += [
            Timing(f"{name}: {timing.name}", timing.threads, timing.seconds) for timing in timings
        ]
    write_samples(options.json, "networks", found, unit="seconds a pair")


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = ["resnet110", "vgg16", "resnet18"]
    parser.add_argument(
        "--only",
        nargs="+",
        choices=NETWORKS,
        default=usual,
        metavar="NAME",
        help=f"some of {', '.join(NETWORKS)}",
    )
    parser.add_argument("--n", type=int, help="samples of a tile")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="of a tile on all threads, about"
    )
    parser.add_argument("--repeat", type=int, default=3, help="samples of each time")
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    parser.add_argument("--first", choices=NETWORKS, help=argparse.SUPPRESS)
    return parser.parse_args()


def gates(name: str) -> GateTable:
    """Gates of a few random samples in a network with random weights."""
    make, side = NETWORKS[name]
    torch.manual_seed(0)
    return record_gates(
        make(), np.random.default_rng(0).standard_normal((FEW, 3, side, side), dtype=np.float32)
    )


def first_day(name: str) -> dict[str, float]:
    """Seconds of all that comes before the first tile."""
    table, seconds = timed(lambda: gates(name))
    return {"gates": seconds, **beginnings(table)}


def network(name: str, options: argparse.Namespace) -> list[Timing]:
    """Measure and print one network; seconds a pair."""
    side = NETWORKS[name][1]
    made = ready(gates(name))
    n = options.n or samples_for(made, options.seconds)
    timings = [
        timing.per(n * n)
        for timing in measured(on_each("npk tile", made.square(n)), options.repeat)
    ]
    print(f"\n{name} on {side} x {side}, a pair of samples (tile of {n} x {n})")
    for timing in timings:
        print(f"{timing.label:32} {duration(timing.median):>9}  {timing.spread}")
    print(speedup(timings, "npk tile"))
    describe(made, timings)
    first = in_fresh_process(__file__, "--first", name)
    print(
        f"reading the network and {FEW} samples {duration(first['gates'])}, then "
        f"{duration(first['first tile'])} to the end of the first "
        f"tile: planning {duration(first['plan'])}, compiling {duration(first['compile'])} (once)"
    )
    return timings


def describe(made: Ready, timings: list[Timing]) -> None:
    """What the plan counts for a pair, the time that counting its gates would take alone, memory."""
    counts = effort(made.recursion, made.backend.hard)
    print(
        f"{counts.cells:,} pairs of positions, {counts.words:,} words of gates, {counts.reads:,} "
        f"numbers"
    )
    for count in COUNTS:
        ours, alone = (
            pick(timings, "npk tile", count),
            2 * 64 * counts.words / roofline.counting(count),
        )
        if ours:
            print(
                f"counting the gates alone, {threads_of(count)}: {duration(alone)}, "
                f"{100 * alone / ours.median:.0f} % of npk's time"
            )
    backend = made.backend
    print(
        f"memory: {backend.bytes_a_thread / 1e6:.3g} MB a thread, "
        f"{backend.bytes_a_sample / 1e3:.4g} kB of masks a sample"
    )


if __name__ == "__main__":
    main()
