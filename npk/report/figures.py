"""Figures of a run: accuracy, kernels, spectra, overlaps, training curves and checks.

A figure function takes the run and the number of panels in a row, and returns ``None`` when the run
has nothing to draw.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from npk.errors import StoreError
from npk.files import written_whole
from npk.progress import Progress, as_progress
from npk.report import check_figures
from npk.report.style import (
    COLOR,
    DASHES,
    HEAT,
    INK,
    MARKER,
    MUTED,
    PANEL,
    PAPER,
    RULE,
    house_style,
    panels,
    power,
)
from npk.report.subjects import (
    PAPER_RATIO,
    UNTRAINED,
    Subject,
    accuracy_of,
    baselines,
    dlgn_ratio,
    group_title,
    groups,
    models,
    short_model,
    subjects,
)
from npk.results import DETAILS, Accuracy, KernelSummary, NetworkSummary, RunResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 200
_MODEL_MARKER = ("o", "s", "D", "^", "v", "P")


def write_figures(
    run: RunResult, folder: str | os.PathLike, progress: bool | Progress = False
) -> tuple[Path, ...]:
    """Draw every figure that the run has material for, as PNG files.

    Args:
        run: what a run found.
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


def accuracy(run: RunResult, columns: int) -> "Figure | None":
    """Test accuracy as dots: a panel an architecture, a row a model, baselines as lines."""
    if not run.accuracies:
        return None
    parts = [
        part for part in groups(run).values() if any(_rows_of(run, member) for member in part)
    ] or [()]
    height = 1.3 + 0.155 * max(_accuracy_lines(run, part)[-1].y for part in parts)
    figure, axes = panels(len(parts), columns, (PANEL, height))
    for ax, part in zip(axes, parts, strict=True):
        _accuracy_panel(ax, run, part)
    return figure


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the accuracy figure: a heading, or a model with its dot."""

    y: float
    label: str
    found: Accuracy | None = None  # None: a heading
    color: str = MUTED


def _rows_of(run: RunResult, member: Subject) -> list[Accuracy]:
    return [found for model in models(run) if (found := accuracy_of(run, member.name, model))]


def _accuracy_lines(run: RunResult, part: tuple[Subject, ...]) -> list[Line]:
    blocks = [(m.kind.upper() or m.name, COLOR.get(m.kind, MUTED), _rows_of(run, m)) for m in part]
    blocks.append(("pixels alone", MUTED, list(baselines(run))))
    lines, y = [], 0.0
    for heading, color, rows in blocks:
        if rows:
            lines.append(Line(y, heading))
            lines += [
                Line(y + 1 + i, short_model(found.model), found, color)
                for i, found in enumerate(rows)
            ]
            y += len(rows) + 1.5
    return lines


def _accuracy_panel(ax: "Axes", run: RunResult, part: tuple[Subject, ...]) -> None:
    low = math.floor(100 * min(a.accuracy for a in run.accuracies) - 0.5)
    ax.set_xlim(low, 100 + 0.2 * (100 - low))
    lines = _accuracy_lines(run, part)
    for line in lines:
        if line.found:
            _accuracy_dot(ax, line, line.found, models(run))
    for baseline in baselines(run):
        ax.axvline(
            100 * baseline.accuracy, color=MUTED, linewidth=0.7, linestyle=(0, (1.5, 2)), zorder=1
        )
    _accuracy_axes(ax, lines)
    ratios = [dlgn_ratio(run, members) for members in groups(run).values()]
    ax.set_title(group_title(part) if part else "no network", pad=20 if any(ratios) else 7)
    ratio = dlgn_ratio(run, part)
    if ratio is not None:
        kept = f"DLGN / DNN {100 * ratio:.1f} % (paper: ≥ {PAPER_RATIO} %)"
        ax.annotate(
            kept,
            (0, 1),
            (0, 8),
            xycoords="axes fraction",
            textcoords="offset points",
            color=MUTED,
            fontsize=7.5,
        )


def _accuracy_dot(ax: "Axes", line: Line, found: Accuracy, order: tuple[str, ...]) -> None:
    model, value = found.model, 100 * found.accuracy
    trained = model.replace(UNTRAINED, "").strip()
    marker = _MODEL_MARKER[order.index(trained) % len(_MODEL_MARKER)] if trained in order else "o"
    fill = PAPER if UNTRAINED in model else line.color
    ax.plot(
        [value],
        [line.y],
        marker,
        color=line.color,
        markerfacecolor=fill,
        markersize=5 if marker == "o" else 4.4,
        zorder=3,
    )
    place = {
        "xytext": (6, 0),
        "textcoords": "offset points",
        "va": "center_baseline",
        "annotation_clip": False,
    }
    # hides the lines behind the number
    back = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6}
    ax.annotate(f"{value:.1f}", (value, line.y), fontsize=7, bbox=back, zorder=2, **place)


def _accuracy_axes(ax: "Axes", lines: list[Line]) -> None:
    ax.set_ylim(lines[-1].y + 0.8, -0.8)
    ax.set_yticks([line.y for line in lines], [line.label for line in lines])
    ax.tick_params(axis="y", length=0)
    for label, line in zip(ax.get_yticklabels(), lines, strict=True):
        label.set(color=MUTED if line.found else INK, fontweight="normal" if line.found else "bold")
    ax.set_xticks([x for x in ax.get_xticks() if ax.get_xlim()[0] <= x <= 100])
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("test accuracy, %")


def kernels(run: RunResult, columns: int) -> "Figure | None":
    """Cosine kernels sorted by class, one panel a network, class boundaries drawn."""
    shown = [k for k in run.kernels if k.heat]
    if not shown:
        return None
    by_row = 3 if columns > 1 else 2
    figure, axes = panels(
        len(shown),
        by_row,
        (2 * PANEL / by_row if columns > 1 else PANEL / by_row, 2.35 if columns > 1 else 1.95),
    )
    for ax, kernel in zip(axes, shown, strict=True):
        _heat_panel(ax, run, kernel)
    return figure


def _heat_panel(ax: "Axes", run: RunResult, kernel: KernelSummary) -> None:
    import numpy as np

    heat = np.asarray(kernel.heat, dtype=float)
    low, high = heat_range(kernel.heat)
    image = ax.imshow(heat, cmap=HEAT, vmin=low, vmax=high, interpolation="none")
    labels = np.asarray(kernel.heat_labels, dtype=int)
    edges = [i for i in range(1, len(labels)) if labels[i] != labels[i - 1]]
    for edge in edges:
        ax.axhline(edge - 0.5, color="#ffffff", linewidth=0.5, alpha=0.8)
        ax.axvline(edge - 0.5, color="#ffffff", linewidth=0.5, alpha=0.8)
    starts, ends = [0, *edges], [*edges, len(labels)]
    centers = [(a + b - 1) / 2 for a, b in zip(starts, ends, strict=True)] if len(labels) else []
    names = [class_name(run, labels[a]) for a in starts] if len(labels) else []
    _class_ticks(ax, centers, names)
    ax.set_title(kernel.network, pad=4)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.82, aspect=22, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=6, length=1.5, pad=1.5)
    bar.ax.locator_params(nbins=4)


def heat_range(heat: list[list[float]]) -> tuple[float, float]:
    """Ends of a kernel's colors: without the lowest 1 % and highest 0.5 % off the diagonal."""
    import numpy as np

    table = np.asarray(heat, dtype=float)
    off = table[~np.eye(*table.shape, dtype=bool)] if table.shape[0] > 1 else table
    low, high = np.percentile(off, [1, 99.5])
    return float(low), float(max(high, low + 1e-9))


def class_name(run: RunResult, index: int) -> str:
    """The name of a class, or its number where the run has no name for it."""
    return run.classes[index] if 0 <= index < len(run.classes) else str(index)


def _class_ticks(ax: "Axes", centers: list[float], names: list[str]) -> None:
    if len(names) > 20:
        centers, names = [], []
    ax.set_xticks(centers, names, rotation=90 if any(len(name) > 2 for name in names) else 0)
    ax.set_yticks(centers, names)
    ax.tick_params(length=0, labelsize=6, pad=1.5)
    for spine in ax.spines.values():
        spine.set_visible(False)


def line_of(run: RunResult, subject: Subject) -> dict:
    """The look of a network's line: hue and marker by kind, dashes by architecture."""
    order = list(groups(run))
    return {
        "color": COLOR.get(subject.kind, COLOR[""]),
        "linestyle": DASHES[order.index(subject.group) % len(DASHES)],
        "label": subject.name,
    }


def spectra(run: RunResult, columns: int) -> "Figure | None":
    """Eigenvalues of the trace-normalised kernels, log-log, all networks."""
    shown = {k.network: k for k in run.kernels if any(value > 0 for value in k.spectrum)}
    if not shown:
        return None
    figure, (ax,) = panels(1, 1, (2 * PANEL if columns > 1 else PANEL, 3.6))
    for subject in subjects(run):
        if subject.name in shown:
            points = [(i + 1, v) for i, v in enumerate(shown[subject.name].spectrum) if v > 0]
            ax.loglog(*zip(*points, strict=True), **line_of(run, subject))
    ax.set(xlabel="index of the eigenvalue", ylabel="share of the trace")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_major_formatter(power)
    ax.minorticks_off()
    ax.grid()
    figure.legend(
        *ax.get_legend_handles_labels(), loc="outside upper left", ncols=min(3, columns + 1)
    )
    return figure


def overlaps(run: RunResult, columns: int) -> "Figure | None":
    """Share of gates on for both of a pair, by layer: one class (filled) or two (hollow)."""
    shown = {k.network: k for k in run.kernels if k.overlap_same and k.overlap_different}
    parts = [part for part in groups(run).values() if any(member.name in shown for member in part)]
    if not parts:
        return None
    figure, axes = panels(len(parts), columns, (PANEL, 2.7))
    for ax, part in zip(axes, parts, strict=True):
        for member in part:
            if member.name in shown:
                _overlap_lines(ax, shown[member.name], member.kind)
        _layer_ticks(ax, [shown[m.name] for m in part if m.name in shown])
        ax.set(
            title=group_title(part),
            xlabel="gate layer, from the input",
            ylabel="share of gates on for both",
        )
    _overlap_legend(
        figure, [member.kind for part in parts for member in part if member.name in shown]
    )
    return figure


def _overlap_lines(ax: "Axes", kernel: KernelSummary, kind: str) -> None:
    color, marker = COLOR.get(kind, COLOR[""]), MARKER.get(kind, "v")
    depth = range(1, 1 + len(kernel.overlap_same))
    same, different = _with_gaps(kernel.overlap_same), _with_gaps(kernel.overlap_different)
    ax.fill_between(depth, different, same, color=color, alpha=0.10, linewidth=0)
    ax.plot(depth, same, color=color, marker=marker)
    ax.plot(depth, different, color=color, marker=marker, markerfacecolor=PAPER, linewidth=0.9)


def _with_gaps(values: list[float | None]) -> list[float]:
    """NaN, which a line leaves out, where there is nothing."""
    return [math.nan if value is None else value for value in values]


def _layer_ticks(ax: "Axes", shown: list[KernelSummary]) -> None:
    depth = max(len(kernel.overlap_same) for kernel in shown)
    names = shown[0].layers if all(kernel.layers == shown[0].layers for kernel in shown) else []
    short = len(names) == depth and depth <= 8 and sum(len(name) for name in names) <= 34
    step = max(1, math.ceil(depth / 10))
    places = list(range(1, depth + 1, step))
    ax.set_xticks(places, [names[i - 1] for i in places] if short else [str(i) for i in places])
    ax.set_xlim(0.7, depth + 0.3)
    ax.set_ylim(bottom=0)
    ax.grid(axis="y")


def _overlap_legend(figure: "Figure", kinds: list[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], color=COLOR.get(k, MUTED), marker=MARKER.get(k, "v"), label=k.upper() or "other"
        )
        for k in dict.fromkeys(kinds)
    ]
    handles.append(Line2D([], [], color=MUTED, marker="o", label="same class"))
    handles.append(
        Line2D(
            [],
            [],
            color=MUTED,
            marker="o",
            markerfacecolor=PAPER,
            linewidth=0.9,
            label="different classes",
        )
    )
    figure.legend(
        handles=handles, loc="outside upper left", ncols=5 if figure.get_figwidth() > 5 else 3
    )


def training(run: RunResult, columns: int) -> "Figure | None":
    """Training loss and validation accuracy by epoch, one column an architecture."""
    by_name = {n.name: n for n in run.networks if n.curve_train or n.curve_validation}
    parts = [
        part for part in groups(run).values() if any(member.name in by_name for member in part)
    ]
    if not parts:
        return None
    figure, axes = panels(2 * len(parts), columns, (PANEL, 2.1))
    for i, part in enumerate(parts):
        curves = [(member, by_name[member.name]) for member in part if member.name in by_name]
        _training_panel(axes[2 * i], curves, "curve_train")
        axes[2 * i].set(title=f"{group_title(part)}: loss", yscale="log")
        axes[2 * i].yaxis.set_major_formatter(power)
        axes[2 * i].minorticks_off()
        _training_panel(axes[2 * i + 1], curves, "curve_validation")
        axes[2 * i + 1].set(title=f"{part[0].group}: validation accuracy, %")
    seen = {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(seen.values(), seen.keys(), loc="outside upper left", ncols=4)
    return figure


def _training_panel(ax: "Axes", curves: list[tuple[Subject, NetworkSummary]], which: str) -> None:
    for member, summary in curves:
        values = _with_gaps(getattr(summary, which))
        scale = 100 if which == "curve_validation" else 1
        color = COLOR.get(member.kind, COLOR[""])
        ax.plot(
            range(1, len(values) + 1),
            [scale * v for v in values],
            color=color,
            linewidth=1.1,
            label=member.kind.upper() or member.name,
        )
    ax.set_xlabel("epoch")
    ax.grid(axis="y", color=RULE)


def figures() -> dict[str, Callable[[RunResult, int], "Figure | None"]]:
    """Every figure that there may be, by its name, in the order of a report."""
    checks = {name: functools.partial(check_figures.drawn, name) for name in DETAILS}
    return {
        "accuracy": accuracy,
        "kernels": kernels,
        "spectra": spectra,
        "overlaps": overlaps,
        "training": training,
        **checks,
    }
