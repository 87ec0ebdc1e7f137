"""A step of training as npk takes it and as it could: Adam fused or parameter by parameter, images
channels first or last, frozen gates recorded once or made in each step.

python benchmarks/bench_training.py --json training.json

All on one thread, in turns; what is printed is the median of a step and its ratio to npk's way:
above 1 npk is faster.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from timing import Route, Timing, duration, machine, measured, write_samples
from torch import nn

from npk import networks
from npk.networks.steps import cross_entropy

BATCH, CLASSES = 64, 10
CONV = {"arch": "conv", "channels": [32] * 4, "strides": [2, 1, 1, 1], "batch_norm": True}
# name: shape of a sample, steps of a run, options of the network
NETWORKS = {
    "fc 4 x 128": ((784,), 100, {"arch": "fc", "hidden": [128] * 4}),
    "conv 4 x 32, circular": ((3, 16, 16), 20, CONV),
    "conv 4 x 32, zeros": ((3, 16, 16), 20, {**CONV, "padding": "zero"}),
    "ResNet-20": ((3, 32, 32), 3, {"arch": "resnet110", "blocks": 3, "padding": "zero"}),
    "VGG-16, quarter width": ((3, 32, 32), 3, {"arch": "vgg16", "width": 0.25}),
}
OURS, SINGLE, LAST = "npk", "Adam parameter by parameter", "channels last"
RECORDED, ANEW = "gates recorded (npk)", "gates made in each step"


def main() -> None:
    """Time every network in every way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="samples of each time")
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    options = parser.parse_args()
    print(machine())
    found: list[Timing] = []
    for name, (shape, count, make) in NETWORKS.items():
        sets = [learning(f"{name}, {kind}", shape, count, make, kind) for kind in ("dnn", "dlgn")]
        for routes in [*sets, frozen(name, shape, count, make)]:
            timings = [timing.per(count) for timing in measured(routes, options.repeat)]
            report(timings)
            found += timings
    write_samples(options.json, "training", found, batch=BATCH)


def learning(name: str, shape: tuple[int, ...], count: int, make: dict, kind: str) -> list[Route]:
    """Steps of a network whose parameters all learn."""
    ways = (OURS, SINGLE, LAST) if len(shape) == 3 else (OURS, SINGLE)
    routes = []
    for way in ways:
        net = networks.build(kind=kind, input_shape=shape, classes=CLASSES, seed=0, **make)
        x, y = samples(shape)
        if way == LAST:
            net, x = (part.to(memory_format=torch.channels_last) for part in (net, x))
        forward = run_of(net, lambda net=net, x=x: net(x), y, count, fused=way != SINGLE)
        routes.append(Route(f"{name}: {way}", forward, 1))
    return routes


def frozen(name: str, shape: tuple[int, ...], count: int, make: dict) -> list[Route]:
    """Steps of a value network under gates that do not learn."""
    options = {"gates": "hard", "input_shape": shape, "classes": CLASSES, "seed": 0}
    net = networks.prepare(networks.build(kind="dgn", **options, **make), "frnpf-ii")
    x, y = samples(shape)
    with torch.no_grad():
        gates = [gate.bool() for gate in net.gates(x)]
    ways = {RECORDED: lambda: net.under(x, gates), ANEW: lambda: net(x)}
    return [
        Route(f"{name}, dgn: {way}", run_of(net, forward, y, count, fused=True), 1)
        for way, forward in ways.items()
    ]


def samples(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of noise."""
    torch.manual_seed(0)
    return torch.randn(BATCH, *shape), torch.randint(0, CLASSES, (BATCH,))


def run_of(
    net: nn.Module, forward: Callable[[], torch.Tensor], y: torch.Tensor, count: int, fused: bool
) -> Callable[[], None]:
    """So many steps: forward, backward, Adam."""
    net.train()
    learning = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, weight_decay=0.0, fused=fused)

    def run() -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(forward(), y, 0.0).backward()
            optimizer.step()

    return run


def report(timings: list[Timing]) -> None:
    """Medians, spreads, and ratios to the first."""
    for timing in timings:
        pairs = zip(timing.seconds, timings[0].seconds, strict=True)
        ratio = statistics.median(one / own for one, own in pairs)
        print(
            f"{timing.name}: {duration(timing.median)} {timing.spread}, ratio {ratio:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
