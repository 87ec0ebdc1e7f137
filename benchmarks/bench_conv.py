"""Kernel of convolutions with a global average pool, against a plain PyTorch port of the recursion
and neural-tangents' ``nngp``.

python benchmarks/bench_conv.py --sides 8 16 32 --neural-tangents peer/bin/python --json conv.json
python benchmarks/bench_conv.py --sides 8 --gates soft

Circular 3 x 3 convolutions, with hard gates or (``--gates soft``) those of a deep linearly gated
network as it evaluates, whose overlaps are a multiply-add a channel. A *cell-layer* is one pair of positions in one layer: a
3 x 3 sum, an overlap, a product. npk computes a tile of all pairs of n samples, n such that it
takes about ``--seconds``. The *call* beside it is ``npk.kernel`` of the same gates with all that it
does, planning too, for each of the pairs that it computes, which are half of them. The port keeps
the field of a pair on all pairs of positions, several pairs at once where images are small. It is
there twice: *plain*, each layer's sum over nine shifts as the formula has it, and *separable*,
three shifts down and three across. Its numbers are compared with npk's before anything is timed,
and all run in turns in one process. neural-tangents needs an environment of its own (``nngp.py``
says which) and runs after them; its gates are not given but averaged over all weights (arc-cosine),
by a formula of about as much work a cell.

Compilation and planning are measured in a process of their own that finds nothing compiled.
"""

import argparse
import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
    write_samples,
)

from npk import GateTable, kernel, networks, record_gates

CALL = "npk.kernel(table)"
FEW = 64  # samples of which the tiles are made
# numbers of the port's fields together: pairs of small images go through it side by side
_FIELD = 1 << 18
# float32 instructions of a cell-layer: 4 additions of a separable 3 x 3 sum, a conversion, a
# product
_FLOATS = 6


def main() -> None:
    """Measure side by side, print, write raw samples."""
    options = parsed()
    if options.first:
        print(json.dumps(beginnings(gates(options, options.first))))
        return
    print(machine())
    peers = nngp(options) if options.neural_tangents else {}
    found: list[Timing] = []
    for side in options.sides:
        made = ready(gates(options, side))
        timings = [*ours_and_ports(made, side, options), *peers.get(side, [])]
        report(timings, side, options)
        found += [
            Timing(f"{side} x {side}: {timing.name}", timing.threads, timing.seconds)
            for timing in timings
        ]
    sizes = {name: getattr(options, name) for name in ("depth", "channels", "gates", "sides")}
    write_samples(options.json, "conv", found, unit="seconds a pair", **sizes)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=4, help="convolutions")
    parser.add_argument("--channels", type=int, default=64, help="of each")
    add_gates(parser)
    parser.add_argument("--sides", type=int, nargs="+", default=[8, 16, 32], help="of the images")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a run of npk, about")
    parser.add_argument("--repeat", type=int, default=3, help="samples of each time")
    parser.add_argument(
        "--neural-tangents", metavar="PYTHON", help="interpreter of an environment that has it"
    )
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def add_gates(parser: argparse.ArgumentParser) -> None:
    """The option for the kind of gates, which ``conv_operations.py`` has too."""
    parser.add_argument(
        "--gates", choices=["hard", "soft"], default="hard", help="of a DNN, or of a DLGN"
    )


def gates(options: argparse.Namespace, side: int) -> GateTable:
    """Gates of a few random samples in a random network."""
    shape = (3, side, side)
    net = networks.build(
        "conv",
        kind="dnn" if options.gates == "hard" else "dlgn",
        gates=options.gates,
        input_shape=shape,
        classes=10,
        channels=[options.channels] * options.depth,
        bias=False,
        seed=0,
    )
    return record_gates(
        net, np.random.default_rng(0).standard_normal((FEW, *shape), dtype=np.float32)
    )


def ours_and_ports(made: Ready, side: int, options: argparse.Namespace) -> list[Timing]:
    """Seconds a pair of both, on one thread and on all."""
    n = samples_for(made, options.seconds)
    routes, counts = on_each("npk tile", made.square(n)), {"npk tile": n * n}
    table = made.table.take(np.arange(n) % len(made.table))
    routes += on_each(CALL, lambda: kernel(table, bias="ignore", progress=False))
    counts[CALL] = n * (n + 1) // 2
    for name, summed in (
        ("plain port to torch", plain_sums),
        ("separable port to torch", separable_sums),
    ):
        port = Port(made.table, side, summed)
        port.check(made)
        routes += on_each(name, port.run)
        counts[name] = port.pairs
    return [timing.per(counts[timing.name]) for timing in measured(routes, options.repeat)]


def plain_sums(grid: torch.Tensor) -> torch.Tensor:
    """Sums over the nine shifts of both positions of ``(pairs, down, across, down, across)`` by the
    same offset, on the torus.
    """
    total = torch.zeros_like(grid)
    for down, across in itertools.product((-1, 0, 1), repeat=2):
        total += grid.roll((down, across, down, across), (1, 2, 3, 4))
    return total


def separable_sums(grid: torch.Tensor) -> torch.Tensor:
    """The same, first down, then across."""
    for axes in ((1, 3), (2, 4)):
        grid = grid + grid.roll((1, 1), axes) + grid.roll((-1, -1), axes)
    return grid


class Port:
    """The recursion of one sample with some others, written with torch on whole fields ``(others,
    positions, positions)``.
    """

    def __init__(
        self, table: GateTable, side: int, summed: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        self.side, self.summed, self.pairs = (
            side,
            summed,
            min(len(table), max(1, _FIELD // side**4)),
        )
        rows = [table.inputs, *(table[name] for name in table.names)]
        layers = [torch.as_tensor(np.asarray(values, np.float32)).flatten(2) for values in rows]
        self.one = [values[0].T.contiguous() for values in layers]
        self.others = [values[: self.pairs].contiguous() for values in layers]

    def run(self) -> torch.Tensor:
        """The kernel of the first sample with the others, scaled by fan-in."""
        field = self.one[0] @ self.others[0]
        for layer, (one, others) in enumerate(zip(self.one[1:], self.others[1:], strict=True)):
            summed = self.summed(field.view(-1, *[self.side] * 4)).view_as(field)
            field = summed.mul_(one @ others).div_(9 * self.others[layer].shape[1])
        return field.mean((1, 2)) / self.others[-1].shape[1]

    def check(self, made: Ready) -> None:
        """Compare with npk's numbers."""
        expected = np.ldexp(
            made.square(len(made.table))()[0, : self.pairs], int(made.exponents[-1])
        )
        np.testing.assert_allclose(self.run().numpy(), expected, rtol=1e-4)


def nngp(options: argparse.Namespace) -> dict[int, list[Timing]]:
    """Seconds a pair of neural-tangents on each side."""
    found: dict[int, list[Timing]] = {side: [] for side in options.sides}
    for count in COUNTS:
        sizes = {
            "--depth": [options.depth],
            "--channels": [options.channels],
            "--sides": options.sides,
            "--threads": [count],
        }
        arguments = [str(word) for name, values in sizes.items() for word in (name, *values)]
        command = [
            options.neural_tangents,
            str(Path(__file__).with_name("nngp.py")),
            *arguments,
            "--repeat",
            str(options.repeat),
        ]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
        )
        results: dict[str, dict[str, Any]] = json.loads(done.stdout)
        for side, result in results.items():
            found[int(side)].append(
                Timing("neural-tangents nngp", count, result["seconds"]).per(result["pairs"])
            )
    return found


def report(timings: list[Timing], side: int, options: argparse.Namespace) -> None:
    """Time a pair, rate, ratio to npk with as many threads; from one thread to all; the machine's
    limit; what came before.
    """
    print(
        f"\n{options.depth} convolutions of {options.channels} channels, {options.gates} gates, on {side} x {side}, a "
        f"pair of samples"
    )
    cells = side**4 * options.depth
    for timing in timings:
        ours = pick(timings, "npk tile", timing.threads)
        ratio = f"  {timing.median / ours.median:7.1f} x npk" if ours and ours is not timing else ""
        rate = f"{cells / timing.median / 1e9:8.3f} Gcell-layers/s"
        print(f"{timing.label:36} {duration(timing.median):>9}  {timing.spread}  {rate}{ratio}")
    print(speedup(timings, "npk tile"))
    for count in COUNTS:
        limit = arithmetic(options.channels, count, options.gates)
        ours = pick(timings, "npk tile", count)
        if ours:
            share = f"{100 * cells / ours.median / limit:.0f} %"
            print(
                f"arithmetic alone, {threads_of(count)}: {limit / 1e9:.1f} Gcell-layers/s, of "
                f"which npk reaches {share}"
            )
    sizes = ("--depth", str(options.depth), "--channels", str(options.channels))
    sizes += ("--gates", options.gates)
    first = in_fresh_process(__file__, "--first", str(side), *sizes)
    print(
        f"before the first tile: compiling {duration(first['compile'])} (once), planning "
        f"{duration(first['plan'])}"
    )


def arithmetic(channels: int, count: int, kind: str) -> float:
    """Cell-layers a second if each took the time of its gates, counted or multiplied, and of its
    float32 instructions, one after the other.
    """
    multiplied = 2 / roofline.multiply_adds(count)
    overlap = 2 / roofline.counting(count) if kind == "hard" else multiplied
    return 1 / (channels * overlap + _FLOATS * multiplied)


if __name__ == "__main__":
    main()
