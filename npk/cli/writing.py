"""Writing what the user asked for where the user wants it."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npk.cli.cost import FEW, measure
from npk.cli.reading import Samples
from npk.files import written_whole
from npk.gram.kernel import NeuralPathKernel
from npk.gram.store import GramStore

if TYPE_CHECKING:
    from npk.cli.cost import Cost


def write_kernel(kernel: NeuralPathKernel, X: Samples, Y: Samples | None, out: Path) -> str:
    """Compute a kernel into a ``.npy`` file, or into a store of tiles that an interrupted run goes on with.

    Returns:
        What was written, in a few words.
    """
    if out.suffix.lower() == ".npy":
        matrix = kernel(X, Y)
        with written_whole(out) as temporary, temporary.open("wb") as file:
            np.save(file, matrix)
        return f"{out}: {matrix.shape[0]} x {matrix.shape[1]} {matrix.dtype}"
    there = tiles_there(out)
    gram = kernel.to_store(X, Y, out)
    again = f", {there} of {len(gram.store.plan)} tiles from an earlier run" if there else ""
    return f"{out}: {gram.shape[0]} x {gram.shape[1]} {gram.dtype}{again}"


def tiles_there(out: Path) -> int:
    """Finished tiles of a store, 0 without one."""
    store = GramStore.open(out) if out.exists() else None
    return sum(store.is_done(tile) for tile in store.plan) if store else 0


def expected_cost(kernel: NeuralPathKernel, X: Samples) -> "Cost":
    """The cost of a kernel, measured on its first samples; a gate table is not copied."""
    return measure(kernel, kernel.record(X[:FEW]) if isinstance(X, np.ndarray) else X.take(slice(0, FEW)))


def write_report(run_dir: Path, out: Path, figures: Path | None) -> tuple[Path, ...]:
    """The page of a run, and its figures if a folder is given."""
    from npk.report.figures import write_figures
    from npk.report.page import write_page
    from npk.results import RunResult

    run = RunResult.load(run_dir / "results.json")
    write_page(run, out, progress=True)
    return (out, *(write_figures(run, figures, progress=True) if figures is not None else ()))
