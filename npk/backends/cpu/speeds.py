"""The cost model: what each kind of work takes here, measured once, times how often it happens."""

import functools
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npk.backends.cpu.costs import PRODUCT, PROGRAM, counts_of
from npk.backends.cpu.runners import ProductRunner, ProgramRunner
from npk.backends.program.program import LANES
from npk.errors import StoreError
from npk.files import digest, written_whole

_ROUNDS = 20  # of the fit
_STEP = 1.0  # of a round, in logarithms
_FARTHEST = 10.0  # times off that a probe still counts with


@dataclass(frozen=True)
class Speeds:
    """Seconds of each kind of work of a group of pairs on one thread, and what all threads gain."""

    seconds: np.ndarray
    threads: int
    speedup: float

    def of_pair(self, runner: ProgramRunner | ProductRunner, threads: int | None = None) -> float:
        """Seconds of one pair of samples in a large tile.

        Args:
            runner: of a backend; of the kind that was measured.
            threads: how many; ``None`` for all.
        """
        used = self.threads if threads is None else min(threads, self.threads)
        faster = 1 + (self.speedup - 1) * (used - 1) / max(1, self.threads - 1)
        return float(counts_of(runner) @ self.seconds) / (runner.rows * LANES) / faster


def predict(runner: ProgramRunner | ProductRunner, threads: int | None = None) -> float:
    """Seconds of one pair of samples in a large tile, from the work counted and the speeds of this
    machine.

    The first call on a machine measures its speeds, a few seconds for each kind of runner, and
    keeps them in :func:`cache_folder`.

    Args:
        runner: of a CPU backend.
        threads: how many; ``None`` for all that Numba has.

    Returns:
        The seconds; forming the masks of the samples comes on top, once a sample.
    """
    return speeds_of(runner).of_pair(runner, threads)


def speeds_of(runner: ProgramRunner | ProductRunner) -> Speeds:
    """The speeds of a runner's kind: from the file of this machine, or measured now."""
    speeds = known_speeds(runner)
    if speeds is None:
        path, about, rows = _file_of(runner)
        speeds = measure(rows, runner.dtype)
        _write(path, about, speeds)
    return speeds


def known_speeds(runner: ProgramRunner | ProductRunner) -> Speeds | None:
    """The speeds of a runner's kind, if they were measured on this machine before."""
    path, about, _ = _file_of(runner)
    return _read(path, about)


def _file_of(runner: ProgramRunner | ProductRunner) -> tuple[Path, dict[str, Any], int | None]:
    """Where the speeds of a runner's kind are kept, what they are of, and the rows of the kind."""
    rows = runner.rows if isinstance(runner, ProgramRunner) else None
    about = describe_machine(rows, runner.dtype.name)
    return (
        cache_folder() / f"speeds-{digest(json.dumps(about, sort_keys=True).encode())[:16]}.json",
        about,
        rows,
    )


def measure(rows: int | None, dtype: np.dtype) -> Speeds:
    """Time probes on this machine.

    Args:
        rows: of samples that a program takes together; ``None`` for products.
        dtype: of the arithmetic.

    Returns:
        The speeds.
    """
    import numba

    from npk.backends.cpu import probes

    counts_and_seconds = probes.times(
        probes.of_product(dtype) if rows is None else probes.of_program(rows, dtype)
    )
    threads = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    return Speeds(fit(*counts_and_seconds), threads, probes.speedup(rows, dtype))


def fit(counts: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    r"""Seconds of each kind of work, none negative: the least squares of :math:`\log(\text{fitted} / \text{measured})`.

    So a probe that is fitted twice too long weighs as much as one that is fitted twice too short.

    Args:
        counts: how often each kind of work happens in each probe, ``(probes, kinds)``.
        seconds: of the probes.

    Returns:
        ``(kinds,)``; 0 for kinds that no probe has.
    """
    from scipy.optimize import nnls

    fitted, expected = np.zeros(counts.shape[1]), seconds
    for _ in range(_ROUNDS):  # of Gauss and Newton
        wanted = expected * (1 + np.clip(np.log(seconds / expected), -_STEP, _STEP))
        fitted = nnls(counts / expected[:, None], wanted / expected)[0]
        expected = np.clip(counts @ fitted, seconds / _FARTHEST, seconds * _FARTHEST)
    return fitted


def describe_machine(rows: int | None, dtype: str) -> dict[str, Any]:
    """What speeds depend on: processor, threads, the engine's source, what is computed together."""
    import numba
    from llvmlite import binding

    features = ",".join(
        sorted(name for name, has_it in binding.get_host_cpu_features().items() if has_it)
    )
    return {
        "processor": f"{platform.machine()} {binding.get_host_cpu_name()} {_model()}".strip(),
        "features": numba.config.CPU_FEATURES or features,  # type: ignore[attr-defined]
        "threads": numba.config.NUMBA_NUM_THREADS,  # type: ignore[attr-defined]
        "versions": f"numba {numba.__version__}, engine {_engine()}",
        "work": f"product {dtype}" if rows is None else f"program {dtype}, {rows} rows",
    }


def cache_folder() -> Path:
    """Where this user's caches are: XDG_CACHE_HOME, or the system's usual place."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "npk"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path("~/AppData/Local").expanduser()) / "npk"
    return (
        Path(os.path.expanduser("~/Library/Caches" if sys.platform == "darwin" else "~/.cache"))
        / "npk"
    )


def _model() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )


@functools.cache
def _engine() -> str:
    """Digest of the engine's source: an engine that changes has other speeds."""
    return digest(*(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))[:16]


def _read(path: Path, about: dict[str, Any]) -> Speeds | None:
    """What a file says; ``None`` for one that is missing, spoilt or of another machine."""
    try:
        content = json.loads(path.read_text())
        seconds, speedup = np.array(content["seconds"], float), float(content["speedup"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    kinds = len(_kinds(about))
    sound = (
        seconds.shape == (kinds,)
        and bool((seconds >= 0).all() and np.isfinite(seconds).all())
        and 1 <= speedup <= about["threads"]
    )
    if sound and content.get("about") == about:
        return Speeds(seconds, about["threads"], speedup)
    return None


def _write(path: Path, about: dict[str, Any], found: Speeds) -> None:
    """Keep speeds for the next time, where the folder can be written to."""
    content = {
        "about": about,
        "kinds": _kinds(about),
        "seconds": found.seconds.tolist(),
        "speedup": found.speedup,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1))
    except (OSError, StoreError):
        return  # nothing is lost: the next run measures again


def _kinds(about: dict[str, Any]) -> Sequence[str]:
    return PRODUCT if about["work"].startswith("product") else PROGRAM
