"""What a command takes before and beside its kernel: `npk --help`, and `npk kernel` on 200 digits.

python benchmarks/startup.py
python benchmarks/startup.py OLD NEW --repeat 9

OLD and NEW are checkouts (``git worktree add``); this one alone, if none is named. Every time is
that of a new process, the checkouts in turns, after one run each that compiles what is cached. The
rows in the middle divide the way of `npk kernel` among its parts, one after the other in one
process. Medians of wall and processor seconds; the wall's is shared with whoever else is at work.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parents[1]
DATA, SHAPE = "digits[:200]", (1, 8, 8)
ROOMS = ("npk.cli.reading", "npk.cli.writing", "npk.cli.tables")  # that the command loads


def make(file):
    """The network of all runs: two convolutions of 32 channels, global pool."""
    import npk

    net = npk.networks.build(
        "conv", kind="dnn", input_shape=SHAPE, classes=10, seed=1, channels=[32, 32]
    )
    npk.save(net.eval(), file)


def parts(file):
    """Each part of `npk kernel` with what it does, in the order of the command."""
    held = {}

    def keep(name, work):
        held[name] = work()

    yield "import torch", lambda: importlib.import_module("torch")
    yield "rooms of npk", lambda: [importlib.import_module(room) for room in ROOMS]
    import npk

    yield "data", lambda: keep("X", lambda: npk.data.load(DATA).X)
    yield "checkpoint", lambda: keep("net", lambda: npk.load(file))
    yield "trace", lambda: keep("trace", lambda: npk.trace(held["net"], SHAPE))
    yield "gates", lambda: keep("gates", lambda: npk.record_gates(held["net"], held["X"]))
    yield "plan, compile", lambda: npk.kernel(held["gates"], progress=False)
    yield "kernel again", lambda: npk.kernel(held["gates"], progress=False)


def tell_parts(file):
    """In a process of its own: wall and processor seconds of each part."""
    found = {}
    for name, work in parts(file):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        found[name] = time.perf_counter() - wall, time.process_time() - processor
    print(json.dumps(found))


def run(tree, arguments):
    """Wall and processor seconds of a Python of its own, and what it wrote."""
    environment = {**os.environ, "PYTHONPATH": str(Path(tree).resolve())}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as users have it
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        command = [sys.executable, "-W", "ignore", *map(str, arguments)]
        process = subprocess.Popen(  # there, since -m looks into the folder it is called in first
            command, cwd=tree, stdout=out, stderr=subprocess.DEVNULL, env=environment
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(command)} ended with {process.returncode}")
        out.seek(0)
        return (wall, used.ru_utime + used.ru_stime), out.read().decode()


def measure(tree, file):
    """Seconds of every row, once."""
    kernel = ["-m", "npk", "kernel", file, "--data", DATA, "--out", file.with_suffix(".npy")]
    found = {"npk --help": run(tree, ["-m", "npk", "--help"])[0]}
    found |= json.loads(run(tree, [Path(__file__).resolve(), "--parts", file])[1])
    return found | {"npk kernel": run(tree, kernel)[0]}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trees", nargs="*", default=[HERE])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--parts", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.parts:
        return tell_parts(options.parts)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.safetensors"
        make(file)
        for tree in options.trees:
            measure(tree, file)
        times = [[measure(tree, file) for tree in options.trees] for _ in range(options.repeat)]
    print(f"load of the machine: {os.getloadavg()[0]:.1f}. Seconds: wall (processor)")
    print(f"{'':14}" + "".join(f"{Path(tree).resolve().name:>20}" for tree in options.trees))
    for row in times[0][0]:
        seconds = np.median([[one[row] for one in turn] for turn in times], axis=0)
        print(f"{row:14}" + "".join(f"{f'{w:.2f} ({p:.2f})':>20}" for w, p in seconds))
    return None


if __name__ == "__main__":
    main()
