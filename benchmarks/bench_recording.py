"""Recording of gates against the bare forward pass of the same network, in batches of the same size and with as many threads.

python benchmarks/bench_recording.py --json recording.json

Both run in turns in one process: the ratio (forward over recording) is the figure. Tracing happens once a network, whatever the number
of samples, and is printed apart. Masks: the time in which a backend forms the masks of a tile's side from the gate table.
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

import numpy as np
import torch
from torch import nn

import npk
from npk.backends.cpu import CpuBackend
from npk.dual.planning import plan
from npk.dual.recording import batch_size, record_trace
from npk.dual.tracing import trace_network
from npk.progress import Silent


class Block(nn.Module):
    """Two convolutions with batch norm and a skip, gated after the addition."""

    def __init__(self, width: int, channels: int, stride: int):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(width, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels)
        self.second, self.norm2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        shortcut = nn.Sequential(nn.Conv2d(width, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        self.shortcut = nn.Identity() if width == channels else shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.norm1(self.first(x)))
        return torch.relu(self.norm2(self.second(h)) + self.shortcut(x))


def resnet18() -> nn.Module:
    """ResNet-18 as He et al. have it for ImageNet."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
    blocks = [Block(a, b, 2 if a != b else 1) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)).eval()


IMAGE = {"input_shape": (3, 32, 32), "classes": 10, "seed": 0}
FOUR = {**IMAGE, "channels": [64] * 4}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {  # network, shape of a sample, samples
    "fc 4 x 1024": (lambda: npk.networks.build("fc", input_shape=(64,), classes=10, hidden=[1024] * 4, seed=0), (64,), 10_000),
    "conv 4 x 64": (lambda: npk.networks.build("conv", **FOUR), (3, 32, 32), 512),
    "VGG-16": (lambda: npk.networks.build("vgg16", pool="max", **IMAGE), (3, 32, 32), 64),
    "ResNet-18": (resnet18, (3, 64, 64), 64),
    "ResNet-110": (lambda: npk.networks.build("resnet110", **IMAGE), (3, 32, 32), 64),
    "DGN soft": (lambda: npk.networks.build("conv", "dgn", **FOUR), (3, 32, 32), 256),
    "DLGN soft": (lambda: npk.networks.build("conv", "dlgn", **FOUR), (3, 32, 32), 256),
    "DLGN hard": (lambda: npk.networks.build("conv", "dlgn", gates="hard", **FOUR), (3, 32, 32), 256),
}


def main() -> None:
    """Measure, print medians and ratios, write raw samples."""
    options = parsed()
    results = {name: measured(name, options) for name in NETWORKS if not options.only or name in options.only}
    if options.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
        about = {"benchmark": "recording", "machine": machine, "threads": torch.get_num_threads(), "torch": torch.__version__}
        options.json.write_text(json.dumps({**about, "networks": results}, indent=1))


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(NETWORKS), help="networks to measure")
    parser.add_argument("--n", type=int, help="samples, at most; the default differs from network to network")
    parser.add_argument("--repeat", type=int, default=5, help="samples of each time")
    parser.add_argument("--memory", type=int, help="bytes for the recording")
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    return parser.parse_args()


def measured(name: str, options: argparse.Namespace) -> dict[str, object]:
    """Seconds of everything for one network."""
    make, shape, n = NETWORKS[name]
    torch.manual_seed(0)
    net, n = make().eval(), min(n, options.n or n)
    X = np.random.default_rng(0).standard_normal((n, *shape), dtype=np.float32)
    start = time.perf_counter()
    trace = trace_network(net, shape)
    tracing = time.perf_counter() - start
    table = record_trace(trace, X, gates="auto", progress=Silent(), memory=options.memory)
    backend = CpuBackend(plan(table.graph), table, "float32")
    size = batch_size(trace, X, options.memory)
    routes = {
        "forward": lambda: forward(net, X, size),
        "recording": lambda: record_trace(trace, X, gates="auto", progress=Silent(), memory=options.memory),
        "masks": lambda: backend.side(table),
    }
    seconds = in_turns(routes, options.repeat)
    report(name, n, size, tracing, seconds)
    return {"n": n, "batch": size, "tracing": tracing, "table_bytes": table.nbytes, "fingerprint": table.fingerprint(), "seconds": seconds}


def forward(net: nn.Module, X: np.ndarray, size: int) -> None:
    """The bare forward pass."""
    with torch.no_grad():
        for batch in torch.as_tensor(X).split(size):
            net(batch)


def in_turns(routes: dict[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
    """Seconds of every route, in turns, after one warm-up each."""
    seconds: dict[str, list[float]] = {name: [] for name in routes}
    for turn in range(repeat + 1):
        for name, route in routes.items():
            start = time.perf_counter()
            route()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def report(name: str, n: int, size: int, tracing: float, seconds: dict[str, list[float]]) -> None:
    """Medians and the ratio, one line a network."""
    middle = {route: statistics.median(values) for route, values in seconds.items()}
    spread = " ".join(f"{route} {middle[route]:.3f} s ({min(values):.3f} .. {max(values):.3f})" for route, values in seconds.items())
    ratio = middle["forward"] / middle["recording"]
    print(f"{name:12} n={n} in batches of {size}: {spread}  forward/recording {ratio:.2f}  (tracing {tracing:.2f} s)", flush=True)


if __name__ == "__main__":
    main()
