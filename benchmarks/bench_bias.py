"""What paths from biases add to a tile: ``bias="paths"`` over ``bias="ignore"``, in turns.

python benchmarks/bench_bias.py --json bias.json

Fully connected layers (``nn.Linear`` has biases), convolutions with batch norm, residual networks
with gates behind and before sums, and a block of DenseNet, each with random weights on random
samples. The ratio is the figure, and what it may be at most is printed beside it; and what the
compiled program of each does for a pair: operations, and cells times an overlap.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import bench_dense
import numpy as np
import residual_networks
import torch
from tiles import ready, samples_for
from timing import (
    COUNTS,
    Timing,
    duration,
    machine,
    measured,
    on_each,
    pick,
    threads_of,
    write_samples,
)
from torch import nn

from npk import record_gates
from npk.backends.cpu.runners import ProgramRunner
from npk.structure.effort import effort

FEW = 32  # samples of which the tiles are made
DENSE, SIDE = argparse.Namespace(width=1024, depth=4), 16


def convolutions() -> nn.Module:
    """Four convolutions of 64 channels with batch norm, circular padding, a global pool."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs in (3, 64, 64, 64):
        conv = nn.Conv2d(inputs, 64, 3, padding=1, padding_mode="circular", bias=False)
        layers += [conv, nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()


class Dense(nn.Module):
    """Six layers of DenseNet (arXiv 1608.06993), 32 channels each: batch norm, rectifier,
    convolution of all channels so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(64 + 32 * number),
                nn.ReLU(),
                nn.Conv2d(64 + 32 * number, 32, 3, padding=1, bias=False),
            )
            for number in range(6)
        )
        self.end = nn.Sequential(nn.BatchNorm2d(64 + 32 * 6), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.last = nn.Linear(64 + 32 * 6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs."""
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.last(self.end(x).flatten(1))


def dense_block() -> nn.Module:
    """The block with random weights."""
    torch.manual_seed(0)
    return Dense().eval()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float | None]] = {
    # what makes it, shape of a sample, the ratio that it may have at most
    "dense, 4 x 1024": (lambda: bench_dense.network(DENSE), (64,), 1.1),
    "conv, 4 x 64, batch norm": (convolutions, (3, SIDE, SIDE), 1.1),
    "resnet20": (residual_networks.resnet20, (3, 32, 32), 1.25),
    "resnet110": (residual_networks.resnet110, (3, 32, 32), 1.25),
    "resnet20, gates before": (residual_networks.preactivation20, (3, 32, 32), 1.25),
    "densenet, 6 layers": (dense_block, (3, SIDE, SIDE), 1.25),
}


def main() -> None:
    """Measure one after the other, print, write raw samples."""
    options = parsed()
    print(machine())
    found: list[Timing] = []
    for name in options.only:
        timings = network(name, options)
        report(name, timings)
        found += [Timing(f"{name}: {t.name}", t.threads, t.seconds) for t in timings]
    write_samples(options.json, "bias", found, unit="seconds a pair")


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(map(repr, NETWORKS))
    parser.add_argument(
        "--only", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME",
        help=f"some of {names}",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=0.3, help="of a tile, about")
    parser.add_argument("--repeat", type=int, default=7, help="samples of each time")
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    return parser.parse_args()


def network(name: str, options: argparse.Namespace) -> list[Timing]:
    """Seconds a pair of both, on one thread and on all."""
    make, shape, _ = NETWORKS[name]
    torch.manual_seed(0)
    X = np.random.default_rng(0).standard_normal((FEW, *shape), dtype=np.float32)
    table = record_gates(make(), X)
    made = {bias: ready(table, bias=bias) for bias in ("ignore", "paths")}
    for bias, one in made.items():
        if isinstance(one.backend.runner, ProgramRunner):
            operations = len(one.backend.runner.program.operations)
            words = effort(one.backend.recursion, one.backend.hard).words
            print(f"{name}, {bias}: {operations} operations, {words:,} words of gates a pair")
    n = samples_for(made["ignore"], options.seconds)
    routes = [route for bias, one in made.items() for route in on_each(bias, one.square(n))]
    return [timing.per(n * n) for timing in measured(routes, options.repeat)]


def report(name: str, timings: list[Timing]) -> None:
    """Medians and their ratio; where the machine is busy, that of the fastest runs tells more."""
    most = NETWORKS[name][2]
    for count in COUNTS:
        ignore, paths = (pick(timings, bias, count) for bias in ("ignore", "paths"))
        if ignore and paths:
            print(
                f"{name}, {threads_of(count)}: ignore {duration(ignore.median)} {ignore.spread}, "
                f"paths {duration(paths.median)} {paths.spread} a pair, "
                f"{paths.median / ignore.median:.3f} times as long, of the fastest runs "
                f"{min(paths.seconds) / min(ignore.seconds):.3f}"
                + (f" (at most {most})" if most else "")
            )


if __name__ == "__main__":
    main()
