"""What the benchmarks share: routes timed in turns, with a given number of threads, and what is
written of them.

A *route* is one way to get a result. All routes of a comparison run in turns in one process, after
a warm-up of each, so that a machine that becomes slower meanwhile does so for all of them.
"""

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from threadpoolctl import threadpool_limits

ALL = os.cpu_count() or 1
# seconds between runs: threads of BLAS and OpenMP wait for work without sleeping, at the cost of
# whoever comes next
_REST = 0.1
COUNTS = (1, ALL) if ALL > 1 else (1,)  # numbers of threads that are compared


@dataclass(frozen=True)
class Route:
    """One way to get a result, and how many threads it may use."""

    name: str
    run: Callable[[], object]
    threads: int = ALL


@dataclass(frozen=True)
class Timing:
    """Seconds of the runs of a route."""

    name: str
    threads: int
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of the runs."""
        return statistics.median(self.seconds)

    @property
    def label(self) -> str:
        """Name and threads."""
        return f"{self.name}, {threads_of(self.threads)}"

    def per(self, count: int) -> "Timing":
        """Of one of so many things that a run does."""
        return Timing(self.name, self.threads, [seconds / count for seconds in self.seconds])

    @property
    def spread(self) -> str:
        """Smallest and largest, with the digits of the median."""
        return f"({duration(min(self.seconds))} .. {duration(max(self.seconds))})"


def on_each(name: str, run: Callable[[], object]) -> list[Route]:
    """The same route on one thread and on all."""
    return [Route(name, run, threads) for threads in COUNTS]


def measured(routes: Iterable[Route], repeat: int) -> list[Timing]:
    """Time every route ``repeat`` times, in turns, after one run each that does not count."""
    routes = list(routes)
    found = [Timing(route.name, route.threads) for route in routes]
    for turn in range(repeat + 1):
        for route, timing in zip(routes, found, strict=True):
            time.sleep(_REST)
            with threads(route.threads):
                seconds = timed(route.run)[1]
            if turn:
                timing.seconds.append(seconds)
    return found


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a function gives, and the seconds it took."""
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads for Numba, torch and BLAS."""
    before = numba.get_num_threads(), torch.get_num_threads()
    with threadpool_limits(count):
        numba.set_num_threads(count)
        torch.set_num_threads(count)
        yield
        numba.set_num_threads(before[0])
        torch.set_num_threads(before[1])


def pick(timings: Sequence[Timing], name: str, threads: int = ALL) -> Timing | None:
    """The route of this name with so many threads, if it was timed."""
    return next((t for t in timings if (t.name, t.threads) == (name, threads)), None)


def speedup(timings: Sequence[Timing], name: str) -> str:
    """How many times as fast a route is on all threads as on one."""
    one, many = pick(timings, name, 1), pick(timings, name)
    return (
        (f"{name}: {one.median / many.median:.2f} x as fast on {ALL} threads as on one")
        if one and many
        else f"{name}: one thread"
    )


def in_fresh_process(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script with an empty cache of compiled code, as on the first day; what it prints last
    is a JSON object.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        done = subprocess.run(
            [sys.executable, script, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def threads_of(count: int) -> str:
    """A number of threads in words."""
    return f"{count} thread{'s' * (count > 1)}"


def duration(seconds: float) -> str:
    """A time with four digits and its unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds * 1e9:.4g} ns"


def machine() -> str:
    """Processor, cores, system and versions."""
    versions = (
        f"Python {platform.python_version()}, NumPy {np.__version__}, Numba "
        f"{numba.__version__}, torch {torch.__version__}"
    )
    return f"{_processor()}, {platform.machine()}, {ALL} cores, {platform.system()}, {versions}"


def _processor() -> str:
    """Model of the processor, where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )


def write_samples(
    file: Path | None, benchmark: str, timings: Sequence[Timing], **about: Any
) -> None:
    """Raw samples with the machine and the sizes, if a file was asked for."""
    if file:
        result = {
            "benchmark": benchmark,
            "machine": machine(),
            **about,
            "timings": [asdict(timing) for timing in timings],
        }
        file.write_text(json.dumps(result, indent=1, default=str))
