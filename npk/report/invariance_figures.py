"""Pictures of invariance: maps of shifts, and every level of a network against distance."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from npk.report.style import HEAT, INK, MUTED, PAPER, ZERO, blank, power, wrapped
from npk.results import Curve, InvarianceCase

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure, FigureBase

Labelled = tuple[str, InvarianceCase]
_SIDE = 1.75  # inches of a map
# of the lines: color, style, width
_LINES = {
    "input": ("#6b6f76", (0, (1.2, 1.4)), 1.1),
    "gates": ("#009e73", "-", 0.8),
    "kernel": ("#0072b2", "-", 1.6),
    "output": ("#d55e00", "-", 1.3),
    "other label": ("#cc79a7", (0, (4, 1.6)), 1.1),
}


def has_map(case: InvarianceCase) -> bool:
    """Whether there are shifts of pictures in both directions; those along one axis or along three
    have no map.
    """
    flat = [one.by for one in case.moved if len(one.by) == 2 and one.kernel is not None]
    return len({by[0] for by in flat}) > 1 and len({by[1] for by in flat}) > 1


def maps(cases: Sequence[InvarianceCase], across: int = 5) -> "Figure":
    """A map a case: the deviation of the kernel at every shift, dots where structure promises none.

    Args:
        cases: with shifts of pictures (:func:`has_map`).
        across: maps in a row.

    Returns:
        The figure.
    """
    down = math.ceil(len(cases) / across)
    figure = blank(across * _SIDE, 0.75 + down * (_SIDE + 0.5))
    draw_maps(figure, [(case.label, case) for case in cases], across, told=True)
    return figure


def draw_maps(
    part: "FigureBase", cases: Sequence[Labelled], across: int, *, told: bool = False
) -> None:
    """Maps under one scale of colors.

    Args:
        part: where to.
        cases: each with the name that stands above it.
        across: maps in a row.
        told: with prediction and measurement above each.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    norm, down = LogNorm(1e-16, 1, clip=True), math.ceil(len(cases) / across)
    drawn = [part.add_subplot(down, across, i + 1) for i in range(len(cases))]
    for number, (ax, (label, case)) in enumerate(zip(drawn, cases, strict=True)):
        _map(ax, case, norm)
        title = wrapped(label, 24)
        if told:
            title = f"{label}\n{wrapped(case.predicted, 26)}\n{measured(case)} measured"
        ax.set_title(title, fontsize=6.5, fontweight="normal", pad=3)
        ax.set_xlabel("dx" if number >= len(cases) - across else "", fontsize=7)
        ax.set_ylabel("dy" if number % across == 0 else "", fontsize=7)
    few = min(across, len(cases)) < 3  # a bar as wide as one or two maps
    place = {"location": "bottom", "shrink": 0.9 if few else 0.5, "aspect": 40, "pad": 0.03}
    colors = ScalarMappable(norm, HEAT)
    ticks = [1e-16, 1e-8, 1] if few else [1e-16, 1e-12, 1e-8, 1e-4, 1]
    bar = part.colorbar(colors, ax=drawn, ticks=ticks, **place)
    bar.ax.xaxis.set_major_formatter(power)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    told_below = "relative deviation of the kernel at each shift; dots: promised by structure"
    bar.set_label(wrapped(told_below, 30 * min(across, len(cases))), fontsize=7)


def measured(case: InvarianceCase) -> str:
    """How many elements leave the kernel alone, as in "64 of 256"."""
    return f"{case.holds + case.also} of {case.inside + case.outside}"


def _map(ax: "Axes", case: InvarianceCase, norm: "LogNorm") -> None:
    import numpy as np

    flat = [one for one in case.moved if len(one.by) == 2 and one.kernel is not None]
    rows, cols = sorted({one.by[0] for one in flat}), sorted({one.by[1] for one in flat})
    table = np.full((len(rows), len(cols)), np.nan)
    for one in flat:
        table[rows.index(one.by[0]), cols.index(one.by[1])] = max(one.kernel or 0.0, ZERO)
    half = 0.5
    if len(rows) == rows[-1] - rows[0] + 1 and len(cols) == cols[-1] - cols[0] + 1:
        extent = (cols[0] - half, cols[-1] + half, rows[-1] + half, rows[0] - half)
        ax.imshow(table, norm=norm, cmap=HEAT, extent=extent, interpolation="none", aspect="equal")
    else:  # some are missing: each has a mark of its own
        size = 900 / (max(rows[-1] - rows[0], cols[-1] - cols[0]) + 1)
        colors = [max(one.kernel or 0.0, ZERO) for one in flat]
        x, y = [one.by[1] for one in flat], [one.by[0] for one in flat]
        ax.scatter(x, y, c=colors, s=max(3.0, size), norm=norm, cmap=HEAT, marker="s")
        ax.invert_yaxis()
        ax.set_aspect("equal")
    kept = [one.by for one in flat if one.predicted]
    side = max(rows[-1] - rows[0], cols[-1] - cols[0]) + 1
    y, x = [by[0] for by in kept], [by[1] for by in kept]
    ax.scatter(x, y, s=60 / side, color=PAPER, linewidths=0)
    ax.tick_params(length=0, labelsize=6)
    ax.locator_params(integer=True, nbins=5)
    for spine in ax.spines.values():
        spine.set_visible(False)


def levels(cases: Sequence[InvarianceCase], across: int = 4) -> "Figure":
    """Every level of each network against the distance of circular shifts, means over samples with
    their 95 % intervals.

    Args:
        cases: with curves.
        across: panels in a row.

    Returns:
        The figure.
    """
    down = math.ceil(len(cases) / across)
    figure = blank(across * 2.1, 0.5 + down * 1.75)
    for number, case in enumerate(cases):
        ax = figure.add_subplot(down, across, number + 1)
        _levels(ax, case)
        ax.set_title(wrapped(case.label, 28), fontsize=7)
        ax.set_xlabel("positions moved" if number >= len(cases) - across else "", fontsize=7)
    lines = figure.axes[0].get_legend_handles_labels()
    shown = dict(zip(lines[1], lines[0], strict=True))
    figure.legend(shown.values(), shown.keys(), loc="outside upper center", ncols=len(shown))
    return figure


def _levels(ax: "Axes", case: InvarianceCase) -> None:
    for curve in case.curves:
        name = "gates" if curve.level.startswith("gates ") else curve.level
        name = "other label" if name == "same label" else name
        if curve.points:
            _line(ax, curve, name)
    ax.set_yscale("symlog", linthresh=0.01, linscale=0.5)
    ax.set_ylim(-0.0015, 3)
    ax.set_yticks([0, 0.01, 0.1, 1], ["0", "0.01", "0.1", "1"])
    ax.minorticks_off()
    ax.grid(axis="y")
    ax.tick_params(labelsize=6)
    ax.locator_params(axis="x", integer=True, nbins=6)


def _line(ax: "Axes", curve: Curve, name: str) -> None:
    color, dashes, width = _LINES[name]
    x = [point.distance for point in curve.points]
    turned = name == "other label"
    low, mean, high = (
        [1 - value if turned else value for value in values]
        for values in zip(*((p.low, p.mean, p.high) for p in curve.points), strict=True)
    )
    said = {"gates": "gates not moved along, a line a layer", "other label": "another label"}
    label = said.get(name, name)
    ax.plot(x, mean, color=color, linestyle=dashes, linewidth=width, label=label)
    ax.fill_between(x, low, high, color=color, alpha=0.14, linewidth=0)


def elements(cases: Sequence[InvarianceCase]) -> "Figure":
    """A row an element of groups without a map: how far the kernel moves, filled where promised.

    Args:
        cases: of few elements each.

    Returns:
        The figure.
    """
    rows = [(case.label, one) for case in cases for one in case.moved if one.kernel is not None]
    figure = blank(6.8, 0.7 + 0.2 * len(rows))
    ax = figure.add_subplot()
    for y, (_, one) in enumerate(rows):
        x = max(one.kernel or 0.0, ZERO)
        ax.plot([ZERO, x], [y, y], color=MUTED, linewidth=0.5)
        ax.plot(x, y, "o", color=INK, markerfacecolor=INK if one.predicted else PAPER, markersize=4)
    ax.set_xscale("log")
    ax.set_xlim(ZERO / 2, 3)
    ax.set_ylim(len(rows) - 0.5, -0.7)
    ax.set_yticks(range(len(rows)), [f"{label}: {one.name}" for label, one in rows], fontsize=6.5)
    ax.set_xticks([1e-16, 1e-12, 1e-8, 1e-4, 1.0])
    ax.xaxis.set_major_formatter(power)
    ax.xaxis.minorticks_off()
    ax.set_xlabel("relative deviation of the kernel (filled: structure promises none)")
    ax.grid(axis="x")
    return figure
