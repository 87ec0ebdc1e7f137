"""Figures of a study: learning curves, kernels, layers, likeness of networks, training and checks.

A figure function takes the study and the number of panels in a row, and returns ``None`` when there
is nothing to draw.
"""

import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npk.errors import StoreError
from npk.files import written_whole
from npk.progress import Progress, as_progress
from npk.report import check_figures
from npk.report.layer_figures import depths, gates, layers
from npk.report.style import (
    BAR,
    COLOR,
    HEAT,
    INK,
    PANEL,
    RULE,
    blank,
    house_style,
    legend_above,
    panels,
    power,
    wrapped,
)
from npk.report.subjects import (
    Subject,
    accuracies_of,
    class_name,
    group_title,
    groups,
    kernel_of,
    models,
    owner,
    subjects,
)
from npk.results import (
    DETAILS,
    MODELS,
    Accuracy,
    KernelSummary,
    NetworkSummary,
    StudyResult,
    TrackResult,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 200
# of a model's line: color, marker, dashes; color is said once more by the marker
MODEL_LOOK: dict[str, tuple[str, str, Any]] = {
    "penultimate": (COLOR["dlgn"], "^", (0, (1.2, 1.4))),
    "trained": (COLOR["dnn"], "o", "-"),
    "untrained": (COLOR["dgn"], "s", "-"),
    "random gates": (COLOR["dlgn-sf"], "D", (0, (4, 1.6))),
    "RBF": (COLOR[""], "v", (0, (4, 1.6))),
    "logistic": (BAR, "P", (0, (1.2, 1.4))),
}


def write_figures(
    run: StudyResult, folder: str | os.PathLike, progress: bool | Progress = False
) -> tuple[Path, ...]:
    """Draw every figure that the study has material for, as PNG files.

    Args:
        run: what a study found.
        folder: where the files go; made if it does not exist.
        progress: ``True`` for a bar, or a :class:`npk.progress.Progress`.

    Returns:
        The files written, in the order of a report.

    Raises:
        StoreError: the folder cannot be made or written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = (
            f"cannot make the folder {folder} for figures: {error.strerror}. Name a folder "
            f"that can be written."
        )
        raise StoreError(message) from error
    written = []
    drawn = figures()
    with house_style(), as_progress(progress).task("figures", len(drawn)) as advance:
        for name, draw in drawn.items():
            figure = draw(run, 2)
            if figure is not None:
                path = folder / f"{name}.png"
                with written_whole(path) as temporary:
                    figure.savefig(temporary, format="png", dpi=_DPI)
                written.append(path)
            advance(1)
    return tuple(written)


def curves(run: StudyResult, columns: int) -> "Figure | None":
    """Accuracy against the number of fresh samples, a panel a network; bars are standard errors."""
    shown = [subject for subject in subjects(run) if accuracies_of(run, subject.name, "trained")]
    if not shown:
        return None
    across = min(3, len(shown)) if columns > 1 else 1
    width = 2 * PANEL / across if columns > 1 else PANEL
    figure, axes = panels(len(shown), across, (max(width, 2.2), 2.5))
    limits = _limits(run)
    for ax, subject in zip(axes, shown, strict=True):
        learning_curves(ax, run, subject.name)
        ax.set_ylim(*limits)
        ax.set_title(wrapped(subject.name, 30))
        if (place := ax.get_subplotspec()) is not None and place.is_first_col():
            ax.set_ylabel("test accuracy, %")
    legend_above(figure, axes, 2 if columns > 1 else 1)
    return figure


def learning_curves(ax: "Axes", run: StudyResult, network: str) -> None:
    """Draw the learning curves of one network.

    Args:
        ax: where to.
        run: what a study found.
        network: name of the network.
    """
    for model in models(run, network):
        found = accuracies_of(run, owner(model, network), model)
        if model == "network":
            _level(ax, found[0])
        else:
            _curve(ax, model, found)
    ax.set_xscale("log")
    ax.set_xticks(list(run.sizes), [f"{n:,}" for n in run.sizes])
    ax.minorticks_off()
    ax.set_xlabel("fresh samples")
    ax.grid(axis="y")
    ax.set_axisbelow(True)


def _curve(ax: "Axes", model: str, found: Sequence[Accuracy]) -> None:
    color, marker, dashes = MODEL_LOOK[model]
    ax.errorbar(
        [a.samples for a in found],
        [100 * a.accuracy for a in found],
        yerr=[100 * (a.error or 0.0) for a in found],
        color=color,
        marker=marker,
        linestyle=dashes,
        markersize=3.6,
        linewidth=1.2 if model in ("trained", "untrained") else 0.9,
        elinewidth=0.8,
        capsize=1.8,
        zorder=3 if model in ("trained", "untrained") else 2,
        label=MODELS[model],
    )


def _level(ax: "Axes", found: Accuracy) -> None:
    """The network itself, which has learnt from other samples, with its standard error."""
    value, error = 100 * found.accuracy, 100 * (found.error or 0.0)
    ax.axhspan(value - error, value + error, color=RULE, linewidth=0, zorder=0)
    ax.axhline(value, color=INK, linewidth=0.8, zorder=1, label=MODELS["network"])


def _limits(run: StudyResult) -> tuple[float, float]:
    """From below the lowest error bar to a little above the best model."""
    low = 100 * min(a.accuracy - (a.error or 0.0) for a in run.accuracies)
    high = 100 * max(a.accuracy for a in run.accuracies)
    return max(0.0, 5 * math.floor(low / 5 - 0.3)), min(101.0, high + 0.06 * (high - low) + 1)


def kernels(run: StudyResult, columns: int) -> "Figure | None":
    """Kernels sorted by class, before training and after, under one scale of colors a network."""
    names = [s.name for s in subjects(run) if _heats(run, s.name)]
    if not names:
        return None
    cells = [(name, kernel) for name in names for kernel in _heats(run, name)]
    pairs = all(len(_heats(run, name)) == 2 for name in names)
    across = min(len(cells), 4 if columns > 1 else 2) if pairs else min(3, len(cells), columns + 1)
    width = columns * PANEL / max(across, 2 * columns - 1)
    figure, axes = panels(len(cells), across, (width, width * 1.02 + 0.25))
    for ax, (name, kernel) in zip(axes, cells, strict=True):
        heat_panel(ax, run, kernel, heat_range([k.heat for k in _heats(run, name)]))
    return figure


def _heats(run: StudyResult, name: str) -> list[KernelSummary]:
    """Pictures of a network's kernel, that before training first."""
    found = (kernel_of(run, name, gates) for gates in ("untrained", "trained"))
    return [kernel for kernel in found if kernel is not None and kernel.heat]


def heat_panel(
    ax: "Axes", run: StudyResult | TrackResult, kernel: KernelSummary, ends: tuple[float, float]
) -> None:
    """Draw a kernel sorted by class.

    Args:
        ax: where to.
        run: what a study found.
        kernel: of which network.
        ends: of the colors.
    """
    import numpy as np

    heat = np.asarray(kernel.heat, dtype=float)
    image = ax.imshow(heat, cmap=HEAT, vmin=ends[0], vmax=ends[1], interpolation="none")
    labels = np.asarray(kernel.heat_labels, dtype=int)
    edges = [i for i in range(1, len(labels)) if labels[i] != labels[i - 1]]
    for edge in edges:
        ax.axhline(edge - 0.5, color="#ffffff", linewidth=0.5, alpha=0.8)
        ax.axvline(edge - 0.5, color="#ffffff", linewidth=0.5, alpha=0.8)
    starts, stops = [0, *edges], [*edges, len(labels)]
    centers = [(a + b - 1) / 2 for a, b in zip(starts, stops, strict=True)]
    names = [class_name(run, labels[a]) if labels[a] >= 0 else "" for a in starts]
    _class_ticks(ax, centers, names)
    when = "before" if kernel.gates == "untrained" else "after"
    title = f"{wrapped(kernel.network, 22)}\n{when} training"
    ax.set_title(title, pad=3, fontsize=7, fontweight="normal")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, aspect=22, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=6, length=1.5, pad=1.5)
    bar.ax.locator_params(nbins=4)


def heat_range(heats: Iterable[list[list[float]]]) -> tuple[float, float]:
    """Ends of the colors: without the lowest 1 % and highest 0.5 % off the diagonals."""
    import numpy as np

    parts = []
    for heat in heats:
        table = np.asarray(heat, dtype=float)
        parts.append(table[~np.eye(*table.shape, dtype=bool)] if table.shape[0] > 1 else table)
    low, high = np.percentile(np.concatenate([part.ravel() for part in parts]), [1, 99.5])
    return float(low), float(max(high, low + 1e-9))


def _class_ticks(ax: "Axes", centers: list[float], names: list[str]) -> None:
    if len(names) > 20:
        centers, names = [], []
    ax.set_xticks(centers, names, rotation=90 if any(len(name) > 2 for name in names) else 0)
    ax.set_yticks(centers, names)
    ax.tick_params(length=0, labelsize=5.5, pad=1.5)
    for spine in ax.spines.values():
        spine.set_visible(False)


def likeness(run: StudyResult, columns: int) -> "Figure | None":
    """CKA of pairs of kernels with bootstrap intervals, and the share of gates that differ."""
    if not run.comparisons:
        return None
    rows = run.comparisons
    flips = any(c.flips is not None for c in rows)
    parts = 2 if flips else 1
    shape = (1, parts) if columns > 1 else (parts, 1)
    labels = [_pair(c.first, c.second, c.gates, 44 if columns > 1 else 26) for c in rows]
    lines = sum(1 + label.count("\n") for label in labels)
    height = shape[0] * (0.7 + 0.18 * lines)
    figure = blank(2 * PANEL if columns > 1 else PANEL, height)
    axes = figure.subplots(*shape, squeeze=False, sharey=True).ravel()
    for y, c in enumerate(rows):
        ends = [[max(0.0, c.cka - c.cka_low)], [max(0.0, c.cka_high - c.cka)]]
        color = COLOR["dgn"] if c.gates == "untrained" else COLOR["dnn"]
        _dot(axes[0], c.cka, y, ends, color)
        if flips and c.flips is not None:
            error = 100 * (c.flips_error or 0.0)
            _dot(axes[1], 100 * c.flips, y, [[error], [error]], color)
    axes[0].set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 1.02), xlabel="CKA of the kernels")
    if flips:
        most = max(100 * (c.flips or 0.0) for c in rows)
        axes[1].set(xlim=(0, 1.15 * most or 1), xlabel="gates that differ, %")
    for ax in axes:
        ax.set_yticks(range(len(rows)), labels)
        ax.grid(axis="x")
        ax.tick_params(axis="y", length=0)
        ax.set_axisbelow(True)
        ax.locator_params(axis="x", nbins=5)
    return figure


def _dot(ax: "Axes", x: float, y: int, ends: list[list[float]], color: str) -> None:
    ax.errorbar([x], [y], xerr=ends, fmt="o", color=color, markersize=3.6, capsize=2, elinewidth=1)


def _pair(first: str, second: str, gates: str, width: int) -> str:
    pair = f"{first}: before and after" if gates == "untrained" else f"{first} and {second}"
    return wrapped(pair, width)


def spectra(run: StudyResult, columns: int) -> "Figure | None":
    """Eigenvalues of the trace-normalised kernels, log-log: after training, and dashed before."""
    shown = [s for s in subjects(run) if any(_spectrum(run, s.name, g) for g in _GATES)]
    if not shown:
        return None
    across = min(3, len(shown)) if columns > 1 else min(2, len(shown))
    width = (2 if columns > 1 else 1) * PANEL / max(across, 2 if columns > 1 else 1)
    figure, axes = panels(len(shown), across, (width, 1.9))
    for ax, subject in zip(axes, shown, strict=True):
        for which in _GATES:
            values = _spectrum(run, subject.name, which)
            color, _, _ = MODEL_LOOK[which]
            look = {"color": color, "linewidth": 1.2, "label": f"{_WHEN[which]} training"}
            ax.loglog(range(1, 1 + len(values)), values, **look)
            _band(ax, kernel_of(run, subject.name, which), color)
        ax.set_title(wrapped(subject.name, 22))
        ax.set_xlabel("number of the eigenvalue")
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_major_formatter(power)
        ax.minorticks_off()
        ax.grid()
    axes[0].set_ylabel("share of the trace")
    legend_above(figure, axes, 2)
    return figure


def _band(ax: "Axes", kernel: KernelSummary | None, color: str) -> None:
    """One standard error to both sides; where it reaches to zero, the axis ends it."""
    if kernel is None or not kernel.spectrum_error:
        return
    both = [p for p in zip(kernel.spectrum, kernel.spectrum_error, strict=True) if p[0] > 0]
    low, high = [max(v - e, 0.1 * v) for v, e in both], [v + e for v, e in both]
    ax.fill_between(range(1, 1 + len(both)), low, high, color=color, alpha=0.2, linewidth=0)


_GATES = ("untrained", "trained")
_WHEN = {"untrained": "before", "trained": "after"}


def _spectrum(run: StudyResult, name: str, gates: str) -> list[float]:
    kernel = kernel_of(run, name, gates)
    return [] if kernel is None else [value for value in kernel.spectrum if value > 0]


def training(run: StudyResult, columns: int) -> "Figure | None":
    """Training loss and validation accuracy by epoch, one column an architecture."""
    by_name = {n.name: n for n in run.networks if n.curve_train or n.curve_validation}
    parts = [
        part for part in groups(run).values() if any(member.name in by_name for member in part)
    ]
    if not parts:
        return None
    figure, axes = panels(2 * len(parts), columns, (PANEL, 2.1))
    for i, part in enumerate(parts):
        found = [(member, by_name[member.name]) for member in part if member.name in by_name]
        _training_panel(axes[2 * i], found, "curve_train")
        axes[2 * i].set(title=f"{group_title(part)}: loss", yscale="log")
        axes[2 * i].yaxis.set_major_formatter(power)
        axes[2 * i].minorticks_off()
        _training_panel(axes[2 * i + 1], found, "curve_validation")
        axes[2 * i + 1].set(title=f"{part[0].group}: validation accuracy, %")
    legend_above(figure, axes, 4)
    return figure


def _training_panel(ax: "Axes", found: list[tuple[Subject, NetworkSummary]], which: str) -> None:
    for member, summary in found:
        values = [math.nan if v is None else v for v in getattr(summary, which)]
        scale = 100 if which == "curve_validation" else 1
        ax.plot(
            range(1, len(values) + 1),
            [scale * v for v in values],
            color=COLOR.get(member.kind, COLOR[""]),
            linewidth=1.1,
            label=member.kind.upper() or member.name,
        )
    ax.set_xlabel("epoch")
    ax.grid(axis="y", color=RULE)


def figures() -> dict[str, Callable[[StudyResult, int], "Figure | None"]]:
    """Every figure that there may be, by its name, in the order of a report."""
    checks = {name: functools.partial(check_figures.drawn, name) for name in DETAILS}
    return {
        "curves": curves,
        "kernels": kernels,
        "layers": layers,
        "gates": gates,
        "depths": depths,
        "spectra": spectra,
        "likeness": likeness,
        "training": training,
        **checks,
    }


__all__ = ["MODEL_LOOK", "figures", "heat_panel", "heat_range", "learning_curves", "write_figures"]
