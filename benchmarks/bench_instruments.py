"""Instruments beside the kernel: time of a pair of the tangent kernel and of all depths, and depth
spectra of residual networks.

python benchmarks/bench_instruments.py --json instruments.json
python benchmarks/bench_instruments.py --spectra 20 56 110 --picture depth_spectrum.png

Random weights, random samples, hard gates. Tiles of all pairs of the same samples run in turns, on
one thread; each instrument's time of a pair is told as a multiple of the kernel's. A spectrum is
that of ``npk.depth_spectrum`` on ``--samples`` random samples, with everything from the recorded
gates on: planning, compilation of the plan, and the diagonal in float64.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import residual_networks
import torch
from tiles import ready, samples_for
from timing import Route, Timing, duration, machine, measured, timed, write_samples
from torch import nn

import npk
from npk import GateTable, networks, record_gates
from npk.checks.spectrum import DepthSpectrum, depth_spectrum
from npk.recursion.instruments import Depths, Instrument, Paths, Tangent

FEW = 32  # samples of which the tiles are made
Maker = tuple[Callable[[], nn.Module], int]
NETWORKS: dict[str, Maker] = {  # and the side of its images
    "conv": (
        lambda: networks.build(
            "conv", input_shape=(3, 16, 16), classes=10, channels=[64] * 4, seed=0
        ),
        16,
    ),
    "residual-10": (
        lambda: networks.build(
            "residual", input_shape=(3, 32, 32), classes=10, skip="gated", widths=[16] * 10, seed=0
        ),
        32,
    ),
    "resnet20": (lambda: residual_networks.for_cifar(20), 32),
    "resnet20-projection": (lambda: residual_networks.for_cifar(20, True), 32),
}
ASKED: dict[str, Instrument] = {
    "kernel": Paths(),
    "tangent": Tangent(),
    "tangent, standard": Tangent("standard"),
    "all depths": Depths(),
}


def main() -> None:
    """Measure, print, draw, write raw samples."""
    options = parsed()
    print(machine())
    found: list[Timing] = []
    for name in options.only:
        timings = network(name, options)
        found += [Timing(f"{name}: {t.name}", t.threads, t.seconds) for t in timings]
    spectra = {f"ResNet-{depth}": spectrum(depth, options) for depth in options.spectra}
    if options.picture and spectra:
        draw(spectra, options.picture)
    write_samples(options.json, "instruments", found, unit="seconds a pair")


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seconds", type=float, default=1.0, help="of a tile of the kernel, about")
    parser.add_argument("--repeat", type=int, default=3, help="samples of each time")
    parser.add_argument("--spectra", nargs="*", type=int, default=[], help="depths of ResNets")
    parser.add_argument("--samples", type=int, default=50, help="of each spectrum")
    parser.add_argument("--picture", type=Path, help="file for the picture of the spectra")
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    return parser.parse_args()


def gates(make: Callable[[], nn.Module], side: int, samples: int) -> GateTable:
    """Gates of random samples in a network with random weights."""
    torch.manual_seed(0)
    X = np.random.default_rng(0).standard_normal((samples, 3, side, side), dtype=np.float32)
    return record_gates(make().eval(), X)


def network(name: str, options: argparse.Namespace) -> list[Timing]:
    """Measure and print one network; seconds a pair."""
    table = gates(*NETWORKS[name], FEW)
    made = {asked: ready(table, instrument=instrument) for asked, instrument in ASKED.items()}
    n = samples_for(made["kernel"], options.seconds)
    routes = [Route(asked, each.square(n), 1) for asked, each in made.items()]
    timings = [timing.per(n * n) for timing in measured(routes, options.repeat)]
    (kernel,) = (timing for timing in timings if timing.name == "kernel")
    print(f"\n{name}, tiles of {n} samples, one thread")
    for timing in timings:
        each = made[timing.name]
        ratios = [timing.median / kernel.median, min(timing.seconds) / min(kernel.seconds)]
        print(
            f"{timing.name:20} {duration(timing.median):>9} a pair  {timing.spread}  "
            f"{ratios[0]:5.2f} x kernel ({ratios[1]:.2f} at best); {len(each.recursion.steps)} steps, {each.recursion.parts} parts"
            f", planned in {duration(each.planning)}"
        )
    return timings


def spectrum(depth: int, options: argparse.Namespace) -> DepthSpectrum:
    """Time and print the depth spectrum of a residual network."""
    table = gates(lambda: residual_networks.for_cifar(depth), 32, options.samples)
    name = f"ResNet-{depth}"
    begin = time.process_time()
    found, seconds = timed(lambda: depth_spectrum(None, table, bias="ignore", name=name))
    busy = time.process_time() - begin
    low, high = np.searchsorted(np.cumsum(found.mean), [0.05, 0.95])
    print(
        f"\n{name}, {options.samples} samples: {duration(seconds)}, {duration(busy)} of all cores; mean {found.path_length.mean():.1f} "
        f"layers of {found.depths[-1]}, nine tenths between {found.depths[low]} and "
        f"{found.depths[high]}; {100 * found.between(10, 34).mean():.1f} % between 10 and 34 layers; "
        f"sums of shares off by {np.abs(found.shares.sum(1) - 1).max():.1e}"
    )
    return found


def draw(spectra: dict, place: Path) -> None:
    """All spectra in one picture."""
    axes = npk.plot.depth_spectrum(spectra)
    picture: Any = axes.figure
    picture.savefig(place, dpi=200)


if __name__ == "__main__":
    main()
