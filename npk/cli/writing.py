"""Writing what the user asked for where the user wants it."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from npk.cli.reading import Asked, Samples, about_samples, check_place, save
from npk.data import Dataset
from npk.errors import BackendError, OptionError
from npk.files import written_whole
from npk.gates.recording import record_trace
from npk.gates.store import GateStore
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.gram.matrix import Gram
from npk.gram.options import check_store_place
from npk.gram.pace import FEW, Cost, measure
from npk.gram.store import GramStore
from npk.gram.tiles import Demand, TilePlan
from npk.gram.verification import examine
from npk.gram.writing import plan_in_memory, plan_on_disk, suits
from npk.progress import Bar, Events, Lines, Progress, Silent
from npk.results import KernelPlan, KernelReport, StoreReport
from npk.samples import as_samples


def progress(events: bool) -> Progress:
    """What tells the progress of a command: events, a bar on a terminal, or lines."""
    if events:
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


def tell_samples(ckpt: Path, given: Asked, kernel: NeuralPathKernel, X: Samples) -> tuple[str, ...]:
    """Say what was done to the samples, and how the network itself does: as lines, or events.

    Returns:
        The lines.
    """
    from npk.cli import tables

    if not isinstance(X, Dataset):
        return ()
    lines, progress = about_samples(given.loading(ckpt), kernel.net, X), kernel.engine.progress
    if isinstance(progress, Events):
        for line in lines:
            progress.note("samples", line, text=line)
    else:
        tables.samples(lines)
    return tuple(lines)


def write_kernel(
    kernel: NeuralPathKernel,
    X: Samples,
    Y: Samples | None,
    out: Path,
    dask: str | None,
    of: Path,
    notes: Sequence[str] = (),
) -> KernelReport:
    """Compute a kernel into a ``.npy`` file, or into a store of tiles that an interrupted run goes
    on with; say what was written.

    Args:
        kernel: the options.
        X: the rows.
        Y: the columns; ``None``: the rows.
        out: where to.
        dask: address of a cluster's scheduler.
        of: the checkpoint, or the folder of gates.
        notes: what was said of the samples.

    Returns:
        What was written.
    """
    start, kernel = time.perf_counter(), _for_the_process(kernel, X, Y)
    tiles, earlier = None, None
    if out.suffix.lower() == ".npy":
        made = kernel(X, Y)
        with written_whole(out) as temporary, temporary.open("wb") as file:
            np.save(file, made)
        bias = kernel.settled(X).bias
    else:
        earlier, made = finished_tiles(out), _stored(kernel, X, Y, out, dask)
        tiles, bias = len(made.store.plan), made.about["bias"]
    report = KernelReport(
        of=str(of),
        out=str(out),
        rows=made.shape[0],
        columns=made.shape[1],
        dtype=str(made.dtype),
        scale=kernel.options.scale,
        bias=bias,
        tiles=tiles,
        earlier=earlier,
        seconds=time.perf_counter() - start,
        notes=tuple(notes),
    )
    _tell(kernel, report)
    return report


def _stored(
    kernel: NeuralPathKernel, X: Samples, Y: Samples | None, out: Path, dask: str | None
) -> Gram:
    if dask is None:
        return kernel.to_store(X, Y, out)
    from npk.gram.cluster import connect

    with connect(dask) as client:
        return kernel.to_store(X, Y, out, client=client)


def _tell(kernel: NeuralPathKernel, found: KernelReport) -> None:
    """Say what was written: on standard output, or as an event."""
    from npk.cli import tables

    progress = kernel.engine.progress
    if not isinstance(progress, Events):
        tables.written(found)
        return
    facts = {
        "out": found.out,
        "shape": [found.rows, found.columns],
        "dtype": found.dtype,
        "bias": found.bias,
    }
    of_store = {} if found.tiles is None else {"tiles": found.tiles, "earlier": found.earlier}
    progress.note("done", found.out, **facts, **of_store)


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
    kernel: NeuralPathKernel,
    X: Samples,
    Y: Samples | None,
    out: Path | None,
    of: Path,
    notes: Sequence[str],
    began: float,
) -> KernelPlan:
    """Say what a run would do and take: as lines, or as an event.

    Args:
        kernel: the options.
        X: the rows.
        Y: the columns; ``None``: the rows.
        out: where to; ``None``: nowhere yet.
        of: the checkpoint, or the folder of gates.
        notes: what was said of the samples.
        began: when the command did.

    Returns:
        The plan.
    """
    from npk.cli import tables

    found = _planned(kernel, *expected(kernel, X, Y, out, began), of, notes)
    if isinstance(kernel.engine.progress, Events):
        facts = {
            "n": found.rows,
            "m": found.columns,
            "tiles": found.tiles,
            "side": found.side,
            "bias": found.bias,
            "bytes": found.bytes,
            "seconds": found.seconds,
        }
        kernel.engine.progress.note("plan", "nothing was computed or written", **facts)
    else:
        tables.dry_run(found)
    return found


def _planned(
    kernel: NeuralPathKernel,
    cost: Cost,
    plan: TilePlan,
    demand: Demand,
    of: Path,
    notes: Sequence[str],
) -> KernelPlan:
    options = kernel.options
    return KernelPlan(
        of=str(of),
        rows=plan.n,
        columns=plan.m,
        dtype=options.dtype,
        scale=options.scale,
        bias=cost.bias,
        symmetric=plan.symmetric,
        tiles=len(plan),
        side=plan.side,
        bytes=int(demand.bytes(plan.largest)),
        bytes_of_gates=(plan.n + plan.m * (not plan.symmetric)) * cost.bytes_a_sample,
        before=cost.before,
        seconds_a_sample=cost.seconds_a_sample,
        seconds_a_pair=cost.seconds_a_pair,
        seconds=cost.seconds(plan.n, None if plan.symmetric else plan.m),
        notes=tuple(notes),
    )


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


def verified(store: Path, drop: bool, json: Path | None) -> StoreReport:
    """A store compared with its checksums.

    Args:
        store: the folder.
        drop: count what is damaged as not done.
        json: file of what was found, written whether it is sound or not.

    Returns:
        What was found.

    Raises:
        StoreError: something is damaged and was not dropped; or no store.
    """
    start = time.perf_counter()
    found = examine(store, progress(events=False), drop=drop)
    seconds = time.perf_counter() - start
    report = StoreReport(
        str(store), found.content, found.missing, found.damaged, found.dropped, seconds
    )
    save(report, json)
    found.refuse_damage()
    return report


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
