"""Two states of npk, timed in turns in one run: what a change of the house costs.

python benchmarks/before_and_after.py OLD NEW --repeat 9

OLD and NEW are checkouts (``git worktree add``). Each gets a process of its own that prepares its
work once; then both are asked for one time after the other. A figure is the median of the ratios
new / old of neighbouring times, with their quartiles; processor time where a row says so, since the
wall's is shared with whoever else is at work. Results are compared to the bit.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SEED = 1


def dense():
    """A tile of 4 x 1024 hard gates, from the gate table."""
    import npk

    table = npk.record_gates(*_network("fc", "dnn", (256,), 2048, hidden=[1024] * 4))
    return lambda: npk.kernel(table, bias="ignore", progress=False)


def conv():
    """A tile of 4 x 64 channels on 16 x 16, circular, global pool."""
    import npk

    table = npk.record_gates(*_network("conv", "dnn", (3, 16, 16), 48, channels=[64] * 4))
    return lambda: npk.kernel(table, bias="ignore", progress=False)


def soft():
    """A tile of 4 x 64 channels on 8 x 8, circular, global pool, soft gates."""
    return _soft("conv", (3, 8, 8), 96, "float32", channels=[64] * 4)


def double():
    """The tile of ``soft`` in float64."""
    return _soft("conv", (3, 8, 8), 96, "float64", channels=[64] * 4)


def soft_dense():
    """A tile of 4 x 256 soft gates."""
    return _soft("fc", (64,), 2048, "float32", hidden=[256] * 4)


def double_dense():
    """The same in float64."""
    return _soft("fc", (64,), 2048, "float64", hidden=[256] * 4)


def _soft(arch, shape, n, dtype, **options):
    import npk

    table = npk.record_gates(*_network(arch, "dlgn", shape, n, gates="soft", **options))
    return lambda: npk.kernel(table, bias="ignore", dtype=dtype, progress=False)


def networks():
    """A tile of ResNet-110 on 16 x 16, gates in the place of the network."""
    import npk

    net = _network("resnet110", "dnn", (3, 16, 16), 8)
    table = npk.record_gates(*net)
    return lambda: npk.kernel(table, bias="ignore", progress=False)


def planning():
    """The plan and the program of ResNet-110: gates of one pair, to the first tile."""
    import npk

    table = npk.record_gates(*_network("resnet110", "dnn", (3, 8, 8), 2))
    return lambda: npk.NeuralPathKernel(None, bias="ignore", progress=False)(table)


def planes():
    """The plan and the program of 4 x 64 channels on 32 x 32, circular, global pool; no tile."""
    return _programs(_network("conv", "dnn", (3, 32, 32), 2, channels=[64] * 4))


def pools():
    """The plan and the program of VGG-13 on 64 x 64, an eighth as wide; no tile."""
    import torch
    from torch import nn

    torch.manual_seed(SEED)
    layers, before = [], 3
    for width in (8, 16, 32, 64, 64):
        for _ in range(2):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2))
    net = nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(4 * before, 32), nn.ReLU(), nn.Linear(32, 4)
    )
    return _programs((net.eval(), np.zeros((2, 3, 64, 64), np.float32)))


def _programs(given):
    import npk
    from npk.backends.cpu import CpuBackend
    from npk.recursion.planning import plan

    table = npk.record_gates(*given)

    def work():
        program = CpuBackend(plan(table.graph), table, "float32").runner.program
        return [held for held in vars(program).values() if isinstance(held, np.ndarray)]

    return work


def store():
    """A kernel written to disk from a gate table, and found finished."""
    import npk

    table = npk.record_gates(*_network("fc", "dnn", (64,), 2048, hidden=[64] * 2))

    def work():
        with tempfile.TemporaryDirectory() as folder:
            kernel = npk.NeuralPathKernel(None, bias="ignore", progress=False)
            kernel.to_store(table, None, Path(folder) / "k.zarr")
            return np.asarray(kernel.to_store(table, None, Path(folder) / "k.zarr"))

    return work


def recording():
    """Gates of 4 x 64 channels on 32 x 32, packed."""
    import npk

    net, X = _network("conv", "dnn", (3, 32, 32), 256, channels=[64] * 4)
    kernel = npk.NeuralPathKernel(net, bias="ignore", progress=False)
    return lambda: kernel.record(X).entries


WORKS = {
    work.__name__: work
    for work in (
        *(dense, conv, soft, soft_dense, double, double_dense),
        *(networks, planning, planes, pools, store, recording),
    )
}


def _network(arch, kind, shape, n, **options):
    import npk

    net = npk.networks.build(arch, kind=kind, input_shape=shape, classes=4, seed=SEED, **options)
    samples = np.random.default_rng(SEED).standard_normal((n, *shape)).astype(np.float32)
    return net.eval(), samples


def serve(name):
    """In a process of its own: prepare, then a time for each line that comes in."""
    work = WORKS[name]()
    result = work()
    if isinstance(result, dict):
        result = [entry.data for entry in result.values()]
    arrays = result if isinstance(result, list) else [result]
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()
    print(json.dumps(digest), flush=True)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        work()
        times = time.perf_counter() - wall, time.process_time() - processor
        print(json.dumps(times), flush=True)


class Server:
    """One checkout at one work."""

    def __init__(self, tree, name):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                "PYTHONPATH": str(Path(tree).resolve()),
                "PATH": "",
                "HOME": tempfile.gettempdir(),
            },
        )
        self.digest = self.answer()

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def time(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer()


def compare(old, new, name, repeat):
    """Ratios new / old, ``(repeat, 2)``: wall and processor; whether the results are the same."""
    servers = [Server(tree, name) for tree in (old, new)]
    times = []
    for turn in range(repeat):
        order = servers if turn % 2 else servers[::-1]
        seen = {server: server.time() for server in order}
        times.append([seen[server] for server in servers])
    for server in servers:
        server.process.stdin.close()
        server.process.wait()
    return np.array(times), servers[0].digest == servers[1].digest


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", nargs="?")
    parser.add_argument("new", nargs="?")
    parser.add_argument("--only", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--serve", choices=WORKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve)
    print("work          old, ms   new / old of the wall       of the processor          bits")
    for name in arguments.only:
        times, same = compare(arguments.old, arguments.new, name, arguments.repeat)
        ratios = times[:, 1] / times[:, 0]
        low, middle, high = np.percentile(ratios, [25, 50, 75], axis=0)
        told = [f"{m:.3f} ({a:.3f} to {b:.3f})" for a, m, b in zip(low, middle, high, strict=True)]
        first = 1e3 * np.median(times[:, 0, 0])
        bits = "the same" if same else "OTHERS"
        print(f"{name:13}{first:8.1f}   {told[0]:26}{told[1]:26}{bits}", flush=True)
    return None


if __name__ == "__main__":
    main()
