"""Writing what the user asked for where the user wants it."""

import sys
import time
from pathlib import Path

import numpy as np

from npk.cli.reading import Asked, Samples, about_samples, check_place
from npk.data import Dataset
from npk.errors import BackendError, OptionError
from npk.files import written_whole
from npk.gates.recording import record_trace
from npk.gates.store import GateStore
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.gram.options import check_store_place
from npk.gram.pace import FEW, Cost, measure
from npk.gram.store import GramStore
from npk.gram.tiles import Demand, TilePlan
from npk.gram.writing import plan_in_memory, plan_on_disk, suits
from npk.progress import Bar, Events, Lines, Progress, Silent
from npk.samples import as_samples


def progress(json: bool) -> Progress:
    """What tells the progress of a command: events, a bar on a terminal, or lines."""
    if json:
        return Events(sys.stdout)
    return Bar() if sys.stderr.isatty() else Lines()


def check_kernel(out: Path | None, dask: str | None) -> None:
    """Refuse a place where no kernel can be written, before any work.

    Args:
        out: a .npy file or a store; ``None`` if nothing will be written.
        dask: address of a cluster's scheduler.

    Raises:
        OptionError: another kind of file, or a cluster and a file that is not a store.
    """
    if out is None or out.suffix.lower() != ".npy":
        if out is not None:
            check_store_place(out)
        return
    check_place(out)
    if dask is not None:
        raise OptionError(
            f"--dask needs a store that all workers write to, {out} is one file. Give --out K.zarr."
        )


def tell_samples(ckpt: Path, given: Asked, kernel: NeuralPathKernel, X: Samples) -> None:
    """Say what was done to the samples, and how the network itself does: as lines, or events."""
    from npk.cli import tables

    if not isinstance(X, Dataset):
        return
    lines, progress = about_samples(given.loading(ckpt), kernel.net, X), kernel.engine.progress
    if isinstance(progress, Events):
        for line in lines:
            progress.note("samples", line, text=line)
    else:
        tables.samples(lines)


def write_kernel(
    kernel: NeuralPathKernel, X: Samples, Y: Samples | None, out: Path, dask: str | None
) -> None:
    """Compute a kernel into a ``.npy`` file, or into a store of tiles that an interrupted run goes
    on with; say what was written.

    Args:
        kernel: the options.
        X: the rows.
        Y: the columns; ``None``: the rows.
        out: where to.
        dask: address of a cluster's scheduler.
    """
    kernel = _for_the_process(kernel, X, Y)
    if out.suffix.lower() == ".npy":
        matrix = kernel(X, Y)
        with written_whole(out) as temporary, temporary.open("wb") as file:
            np.save(file, matrix)
        _done(kernel, out, matrix.shape, str(matrix.dtype), kernel.settled(X).bias)
        return
    finished = finished_tiles(out)
    if dask is None:
        gram = kernel.to_store(X, Y, out)
    else:
        from npk.gram.cluster import connect

        with connect(dask) as client:
            gram = kernel.to_store(X, Y, out, client=client)
    tiles = {"tiles": len(gram.store.plan), "earlier": finished}
    _done(kernel, out, gram.shape, str(gram.dtype), gram.about["bias"], **tiles)


def _done(
    kernel: NeuralPathKernel, out: Path, shape: tuple[int, ...], dtype: str, bias: str, **tiles: int
) -> None:
    """Say what was written: on standard output, or as an event."""
    from npk.cli import tables

    if tiles.get("earlier"):
        again = f", {tiles['earlier']} of {tiles['tiles']} tiles from an earlier run"
    else:
        again = ""
    text, progress = f"{out}: {shape[0]} x {shape[1]} {dtype}{again}", kernel.engine.progress
    if isinstance(progress, Events):
        facts = {"out": str(out), "shape": list(shape), "dtype": dtype, "bias": bias}
        progress.note("done", text, **facts, **tiles)
    else:
        tables.say(text)
        tables.biases(bias)


def _for_the_process(kernel: NeuralPathKernel, X: Samples, Y: Samples | None) -> NeuralPathKernel:
    """The kernel whose promise holds for this process as a whole: what it holds by now, once all is
    loaded and compiled, comes first.
    """
    if kernel.engine.promise.bytes is None:
        return kernel
    kernel.engine.prepare(_few(kernel, X))
    return kernel.holding(
        max(0, peak_of_process() - sum(_in_memory(samples) for samples in (X, Y)))
    )


def peak_of_process() -> int:
    """Bytes that this process held at its peak.

    Raises:
        BackendError: the system does not tell.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        # not ru_maxrss, which may be that of the process that started this one
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    try:
        import resource
    except ImportError:
        peak = 0
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if peak <= 0:
        raise BackendError(
            "this system does not tell how much memory a process takes. Leave --memory out."
        )
    return peak if sys.platform == "darwin" else peak << 10  # bytes on macOS, kilobytes elsewhere


def _in_memory(samples: Samples | None) -> int:
    if samples is None or isinstance(samples, GateStore):
        return 0
    return samples.X.nbytes if isinstance(samples, Dataset) else samples.nbytes


def _few(kernel: NeuralPathKernel, X: Samples) -> GateTable:
    """Gates of the first samples, outside the promise: what it takes is known only after them."""
    if isinstance(X, (GateTable, GateStore)):
        return X.take(slice(0, FEW))
    X = as_samples(X[:FEW])
    return record_trace(kernel.trace(X.shape[1:]), X, gates=kernel.options.gates, progress=Silent())


def finished_tiles(out: Path) -> int:
    """Finished tiles of a store, 0 without one."""
    store = GramStore.open(out) if out.exists() and any(out.iterdir()) else None
    return len(store.plan) - len(store.missing()) if store else 0


def dry_run(
    kernel: NeuralPathKernel, X: Samples, Y: Samples | None, out: Path | None, began: float
) -> None:
    """Say what a run would do and take: as lines, or as an event. ``began``: when the command did."""
    from npk.cli import tables

    cost, plan, demand = expected(kernel, X, Y, out, began)
    if isinstance(kernel.engine.progress, Events):
        seconds = cost.seconds(plan.n, None if plan.symmetric else plan.m)
        facts = {
            "n": plan.n,
            "m": plan.m,
            "tiles": len(plan),
            "side": plan.side,
            "bias": cost.bias,
            "bytes": demand.bytes(plan.largest),
        }
        kernel.engine.progress.note(
            "plan", "nothing was computed or written", **facts, seconds=seconds
        )
    else:
        tables.dry_run(cost, plan, demand)


def expected(
    kernel: NeuralPathKernel, X: Samples, Y: Samples | None, out: Path | None, began: float
) -> tuple[Cost, TilePlan, Demand]:
    """The cost of a pair, measured on the first samples, and the plan of the whole kernel."""
    # before the measurement, which the run itself does not make
    kernel = _for_the_process(kernel, X, Y)
    few = _few(kernel, X)
    start = time.perf_counter()
    again = _few(kernel, X)  # traced by now
    recorded = (time.perf_counter() - start) / len(again)
    return measure(kernel, few, began=began, recorded=recorded), *_plan(kernel, X, Y, out)


def _plan(
    kernel: NeuralPathKernel, X: Samples, Y: Samples | None, out: Path | None
) -> tuple[TilePlan, Demand]:
    """The plan that a run will have; that of a store that is there goes on with its tiles."""
    few, sources = _few(kernel, X), kernel.sources(X, Y)
    backend, gates = kernel.engine.prepare(few)[0], few.nbytes // len(few)
    if out is not None and out.suffix.lower() == ".npy":
        return plan_in_memory(kernel.engine, backend, sources, gates)
    if out is None or not out.exists() or not any(out.iterdir()):
        return plan_on_disk(kernel.engine, backend, sources, gates)
    store = GramStore.open(out)
    suits(kernel.engine, store, sources)
    demand = plan_on_disk(kernel.engine, backend, sources, gates, store.plan.side)[1]
    return store.plan.grown(len(sources[0]), len(sources[-1])), demand


def write_report(run_dir: Path, out: Path, figures: Path | None) -> tuple[Path, ...]:
    """The page of a run, and its figures if a folder is given."""
    from npk.report.figures import write_figures
    from npk.report.page import write_page
    from npk.report.track_page import write_track
    from npk.results import StudyResult, TrackResult, kind_of

    if kind_of(run_dir / "results.json") == TrackResult.__name__:
        drawn = write_track(TrackResult.load(run_dir / "results.json"), out, figures)
        return (out, *drawn)
    run = StudyResult.load(run_dir / "results.json")
    write_page(run, out, progress=True)
    return (out, *(write_figures(run, figures, progress=True) if figures is not None else ()))
