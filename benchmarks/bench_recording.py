"""Recording of gates against the bare forward pass of the same network, in batches of the same size
and with as many threads.

python benchmarks/bench_recording.py --json recording.json

Both run in turns in one process: the ratio (forward over recording) is the figure. Tracing happens
once a network, whatever the number of samples, and is printed apart. Masks: the time in which a
backend forms the masks of a tile's side from the gate table.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from residual_networks import resnet18, resnet110
from timing import Route, Timing, duration, machine, measured, pick, timed, write_samples
from torch import nn

import npk
from npk.backends.cpu import CpuBackend
from npk.gates.recording import batch_size, record_trace
from npk.progress import Silent
from npk.reading.tracing import trace_network
from npk.recursion.planning import plan

IMAGE = {"input_shape": (3, 32, 32), "classes": 10, "seed": 0}
FOUR = {**IMAGE, "channels": [64] * 4}
# network, shape of a sample, samples
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "fc 4 x 1024": (
        lambda: npk.networks.build("fc", input_shape=(64,), classes=10, hidden=[1024] * 4, seed=0),
        (64,),
        10_000,
    ),
    "conv 4 x 64": (lambda: npk.networks.build("conv", **FOUR), (3, 32, 32), 512),
    "VGG-16": (lambda: npk.networks.build("vgg16", pool="max", **IMAGE), (3, 32, 32), 128),
    "ResNet-18": (resnet18, (3, 64, 64), 128),
    "ResNet-110": (resnet110, (3, 32, 32), 128),
    "DGN soft": (lambda: npk.networks.build("conv", "dgn", **FOUR), (3, 32, 32), 256),
    "DLGN soft": (lambda: npk.networks.build("conv", "dlgn", **FOUR), (3, 32, 32), 256),
    "DLGN hard": (
        lambda: npk.networks.build("conv", "dlgn", gates="hard", **FOUR),
        (3, 32, 32),
        256,
    ),
}


def main() -> None:
    """Measure, print medians and ratios, write raw samples."""
    options = parsed()
    print(machine())
    found = [timing for name in options.only or NETWORKS for timing in timings_of(name, options)]
    write_samples(options.json, "recording", found)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=list(NETWORKS), help="networks to measure")
    parser.add_argument(
        "--n", type=int, help="samples, at most; the default differs from network to network"
    )
    parser.add_argument("--repeat", type=int, default=5, help="samples of each time")
    parser.add_argument("--memory", type=int, help="bytes for the recording")
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    return parser.parse_args()


def timings_of(name: str, options: argparse.Namespace) -> list[Timing]:
    """Forward pass, recording and masks of one network."""
    make, shape, n = NETWORKS[name]
    torch.manual_seed(0)
    net, n = make().eval(), min(n, options.n or n)
    X = np.random.default_rng(0).standard_normal((n, *shape), dtype=np.float32)
    trace, tracing = timed(lambda: trace_network(net, shape))
    recording = lambda: record_trace(  # noqa: E731
        trace, X, gates="auto", progress=Silent(), memory=options.memory
    )
    table, size = recording(), batch_size(trace, X, options.memory)
    backend = CpuBackend(plan(table.graph, bias="ignore"), table, "float32")
    runs = {
        "forward": lambda: forward(net, X, size),
        "recording": recording,
        "masks": lambda: backend.side(table),
    }
    found = measured([Route(f"{name}: {what}", run) for what, run in runs.items()], options.repeat)
    report(name, n, size, tracing, found)
    return found


def forward(net: nn.Module, X: np.ndarray, size: int) -> None:
    """The bare forward pass."""
    with torch.no_grad():
        for batch in torch.as_tensor(X).split(size):
            net(batch)


def report(name: str, n: int, size: int, tracing: float, found: list[Timing]) -> None:
    """Medians and the ratio."""
    bare, recording = (pick(found, f"{name}: {what}") for what in ("forward", "recording"))
    print(f"\n{name}: {n} samples in batches of {size}; tracing {duration(tracing)}, once")
    for timing in found:
        print(f"{timing.name:24} {duration(timing.median):>9}  {timing.spread}")
    if bare and recording:
        print(f"forward / recording {bare.median / recording.median:.2f}", flush=True)


if __name__ == "__main__":
    main()
