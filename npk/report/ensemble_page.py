"""The page, the table and the pictures of a suite of ensembles, made of its results alone."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.report.style import BAR, INK, NOTHING, PANEL, panels, percent, scientific, wrapped
from npk.report.suite_page import facts, write_page
from npk.results import EnsembleRun, EnsembleSuite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENSEMBLE_HEAD = (
    "network",
    "blocks",
    "layers",
    "mean layers",
    "10-90 %",
    "identities off by",
    "largest block",
    "lesions within 3 s.e.",
    "worst, s.e.",
)
_LOW, _HIGH, _ERRORS = 0.1, 0.9, 3


def ensemble_row(run: EnsembleRun) -> list[str]:
    """A network in a row: its spectrum, the identities, and what blocks carry.

    Args:
        run: what was found of it.
    """
    depths, length = run.spectrum.depths, run.path_length
    low, high = run.quantile(_LOW), run.quantile(_HIGH)
    shares = [one.predicted for one in run.lesions]
    near = [abs(one.measured - one.predicted) <= _ERRORS * one.error for one in run.lesions]
    failed = "" if run.passed else " (FAIL)"
    return [
        run.name,
        str(len(run.lesions)) if run.check else "0",
        f"{depths[0]}" if len(depths) == 1 else f"{depths[0]} to {depths[-1]}",
        NOTHING if length is None else f"{length:.1f}",
        NOTHING if low is None else f"{low} to {high}",
        (NOTHING if run.check is None else _off(run.check.measured)) + failed,
        f"{1 + shares.index(max(shares))}: {percent(max(shares))}" if shares else NOTHING,
        f"{sum(near)} of {len(near)}" if near else NOTHING,
        NOTHING if run.worst is None else f"{run.worst:.1f}",
    ]


def _off(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.0e}"


def ensemble_figures(suite: EnsembleSuite) -> "dict[str, Figure]":
    """The pictures of a suite: depth spectra, and lesions of the networks that have blocks."""
    blocks = [run for run in suite.runs if run.lesions]
    kinds = {"spectra": (list(suite.runs), _spectrum), "blocks": (blocks, _lesions)}
    found = {}
    for name, (runs, draw) in kinds.items():
        if runs:
            figure, axes = panels(len(runs), 3, (0.75 * PANEL, 1.8))
            for ax, run in zip(axes, runs, strict=True):
                draw(ax, run)
                ax.set_title(wrapped(run.name))
            found[name] = figure
    return found


def _spectrum(ax: "Axes", run: EnsembleRun) -> None:
    if run.mean:
        ax.bar(run.spectrum.depths, [100 * share for share in run.mean], color=BAR)
    if run.path_length is not None:
        ax.axvline(run.path_length, color=INK, lw=0.8, ls=":")
    ax.set(xlabel="layers of the path", ylabel="% of K(x, x)")
    ax.locator_params(axis="x", integer=True, nbins=6)


def _lesions(ax: "Axes", run: EnsembleRun) -> None:
    numbers = [one.block for one in run.lesions]
    ax.bar(numbers, [100 * one.predicted for one in run.lesions], color=BAR)
    measured, errors = zip(*((100 * o.measured, 100 * o.error) for o in run.lesions), strict=True)
    dots: dict[str, Any] = {"fmt": "o", "color": INK, "markersize": 3, "lw": 0.8}
    ax.errorbar(numbers, measured, yerr=errors, **dots)
    ax.set(xlabel="block", ylabel="% lost without it", ylim=(0, None))
    ax.locator_params(axis="x", integer=True, nbins=6)


_WORDS = {
    "spectra": "For each network the share of K(x, x) by the number of layers of paths.",
    "blocks": "For each network and block, the predicted and the measured loss without it.",
}


def write_ensemble(suite: EnsembleSuite, folder: str | os.PathLike) -> None:
    """Write the page of a suite and its pictures.

    Args:
        suite: what was found.
        folder: takes ``report.html``, ``spectra.png`` and ``blocks.png``.

    Raises:
        StoreError: the folder is missing or cannot be written.
    """
    said = {
        "run": suite,
        "title": "Which sub-networks is a network the sum of?",
        "lead": _lead(suite),
        "head": ENSEMBLE_HEAD,
        "rows": [ensemble_row(run) for run in suite.runs],
        "draws": max((run.draws for run in suite.runs), default=0),
        "facts": facts(suite),
    }
    names = {
        "ensemble": "Spectra and identities",
        "ensemble_figures": "Pictures",
        "made": "How this was made",
    }
    write_page(Path(folder), said, names, lambda: ensemble_figures(suite), _WORDS)


def _lead(suite: EnsembleSuite) -> str:
    runs = suite.runs
    checks = [run.check for run in runs if run.check is not None]
    holds, worst = (
        sum(run.passed for run in runs),
        max((c.measured or 0 for c in checks), default=0),
    )
    blocks = [one for run in runs for one in run.lesions]
    near = sum(abs(one.measured - one.predicted) <= _ERRORS * one.error for one in blocks)
    return (
        f"{len(runs)} networks, of which {holds} are the sums that theory says: identities are off "
        f"by a relative {scientific(worst)} at most, and of {len(blocks)} blocks {near} lose what "
        f"the kernel predicts within {_ERRORS} standard errors."
    )
