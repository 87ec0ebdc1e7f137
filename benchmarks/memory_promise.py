"""The memory promise, measured: kernels under a budget in processes of their own, their peak, and
the same bits under every budget.

python benchmarks/memory_promise.py python benchmarks/memory_promise.py --work conv --n 600
--budgets 700MB 1GB

``fc``: 4 x 1024 gates on 784 inputs, n = 20,000. ``conv``: 4 convolutions of 64 channels with a
global pool on 16 x 16, n = 3,000. Each runs under every budget on all threads, and under the first
one on one thread and on two. The peak is what the operating system counted for the whole process
tree (resident: Python, its libraries and the files that they map included); "above start" leaves
out what a kernel of two samples takes. The matrices are compared in bands of rows, bit for bit.
Exit code 1 if a peak is above its budget or a bit differs.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import npk
from npk.gram.options import parse_bytes

WORK = {
    "fc": ("fc", {"hidden": [1024] * 4}, (784,), 20_000),
    "conv": ("conv", {"channels": [64] * 4}, (1, 16, 16), 3_000),
}
BUDGETS = ("700MB", "1GB", "3GB")
BAND = 500  # rows
PAUSE = 0.02  # seconds between looks at the process tree


@dataclass(frozen=True)
class Run:
    """One kernel under one budget."""

    work: str
    budget: str
    threads: int  # 0: all
    tiles: int
    side: int
    seconds: float
    peak: int
    above: int  # bytes of the peak above that of two samples
    bands: tuple[str, ...]  # digests of rows
    error: str

    @property
    def within(self) -> bool:
        """Whether the promise was kept."""
        return not self.error and self.peak <= (parse_bytes(self.budget) or 0)


def main() -> None:
    """Run, compare, print."""
    options = parsed()
    failed, kept = False, []
    for work in options.work:
        with tempfile.TemporaryDirectory(prefix="npk-memory-", dir=options.folder) as folder:
            n = prepared(work, Path(folder), options)
            base = measured(Path(folder), "few.npy", None, 0)[1]
            print(
                f"\n{work}, n = {n}; a kernel of two samples takes {base / 1e6:.0f} MB", flush=True
            )
            print(
                f"{'budget':>8} {'threads':>8} {'tiles':>6} {'side':>5} {'seconds':>8} "
                f"{'peak MB':>8} {'above start':>11}  promise  bits",
                flush=True,
            )
            cases = [(budget, 0) for budget in options.budgets] + [
                (options.budgets[0], threads) for threads in options.threads
            ]
            runs: list[Run] = []
            for budget, threads in cases:
                runs.append(run(work, Path(folder), budget, threads, base))
                failed |= not line(runs)
            kept += runs
    if options.json:
        options.json.write_text(
            json.dumps(
                {"benchmark": "memory promise", "runs": [asdict(run) for run in kept]}, indent=1
            )
        )
    print("\nFAIL" if failed else "\nPASS")
    sys.exit(1 if failed else 0)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--n", type=int, help="samples, fewer than usual for a trial")
    parser.add_argument("--budgets", nargs="+", default=BUDGETS)
    parser.add_argument(
        "--threads",
        nargs="*",
        type=int,
        default=(1, 2),
        help="numbers of threads tried under the first budget",
    )
    parser.add_argument(
        "--folder", type=Path, help="where data and stores are made, for the length of the run"
    )
    parser.add_argument("--json", type=Path, help="file for the results")
    return parser.parse_args()


def prepared(work: str, folder: Path, options: argparse.Namespace) -> int:
    """Checkpoint and data; how many samples there are."""
    architecture, settings, shape, usual = WORK[work]
    n, rng = options.n or usual, np.random.default_rng(0)
    npk.save(
        npk.networks.build(architecture, input_shape=shape, classes=10, seed=0, **settings),
        folder / "net.safetensors",
    )
    X = rng.standard_normal((n, *shape), dtype=np.float32)
    np.save(folder / "X.npy", X)
    np.save(folder / "few.npy", X[:2])
    return n


def run(work: str, folder: Path, budget: str, threads: int, base: int) -> Run:
    """One kernel, its peak and the digests of its rows; the store is removed."""
    seconds, peak, error = measured(folder, "X.npy", budget, threads)
    if error:
        return Run(work, budget, threads, 0, 0, seconds, peak, peak - base, (), error)
    gram = npk.Gram.load(folder / "K.zarr")
    tiles = list(gram.store.plan)
    side = max(tile.rows.stop - tile.rows.start for tile in tiles)
    starts = range(0, gram.shape[0], BAND)
    bands = tuple(
        hashlib.sha256(np.ascontiguousarray(gram[start : start + BAND]).tobytes()).hexdigest()
        for start in starts
    )
    return Run(work, budget, threads, len(tiles), side, seconds, peak, peak - base, bands, "")


def line(runs: list[Run]) -> bool:
    """Print the last run; whether it kept the promise and has the bits of the first one."""
    run = runs[-1]
    whole = next((other for other in runs if other.bands), run)
    where = next(
        (i * BAND for i, (a, b) in enumerate(zip(run.bands, whole.bands, strict=False)) if a != b),
        None,
    )
    bits = (
        "none"
        if run.error
        else "the first"
        if run is whole
        else "same"
        if where is None
        else f"differ from row {where} on"
    )
    numbers = (
        f"{run.budget:>8} {run.threads or 'all':>8} {run.tiles:>6} {run.side:>5} "
        f"{run.seconds:>8.1f} {run.peak / 1e6:>8.0f}"
    )
    print(
        f"{numbers} {run.above / 1e6:>11.0f}  {'kept   ' if run.within else 'BROKEN '}  {bits}",
        flush=True,
    )
    if run.error:
        print(f"         {run.error}", flush=True)
    return run.within and where is None


def measured(folder: Path, data: str, budget: str | None, threads: int) -> tuple[float, int, str]:
    """Seconds, peak in bytes and what went wrong, of `npk kernel` in a process of its own."""
    store = folder / "K.zarr"
    subprocess.run(["rm", "-rf", str(store)], check=True)
    line = [
        sys.executable,
        "-m",
        "npk",
        "kernel",
        str(folder / "net.safetensors"),
        "--data",
        str(folder / data),
        "--out",
        str(store),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(npk.__file__).parents[1])}
    if threads:
        environment |= dict.fromkeys(
            ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
            str(threads),
        )
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [*line, *(["--memory", budget] if budget else [])],
            env=environment,
            stdout=said,
            stderr=said,
        )
        peak = Peak(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds, most = time.monotonic() - start, max(peak.end(), usage.ru_maxrss * 1024)
        said.seek(0)
        return seconds, most, said.read().strip() if process.returncode else ""


class Peak:
    """Looks at a process tree again and again; the most that its processes held, each at its own
    peak so far.

    A child counts from its third look on: until it runs its own program, the memory of its parent
    seems to be its own too.
    """

    def __init__(self, root: int) -> None:
        self.root, self.most, self.over = root, 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def end(self) -> int:
        """Stop looking; bytes."""
        self.over.set()
        self.thread.join()
        return self.most

    def _watch(self) -> None:
        looks: Counter[int] = Counter()
        while not self.over.wait(PAUSE):
            looks.update(pids := tree(self.root))
            self.most = max(
                self.most,
                sum(high_water(pid) for pid in pids if pid == self.root or looks[pid] > 2),
            )


def tree(root: int) -> list[int]:
    """A process and all that it started, from /proc."""
    found = [root]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:  # it has ended
                continue
    return found


def high_water(pid: int) -> int:
    """The most memory that a process has held, in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    main()
