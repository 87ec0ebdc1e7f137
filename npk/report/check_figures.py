"""Figures of the checks. Details of a check are free JSON: what is there is drawn, what is missing is left out."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from npk.report.style import BAR, HEAT, INK, MUTED, PANEL, PAPER, RULE, ZERO, blank, number, panels, power, scientific, wrapped
from npk.report.subjects import checks_named
from npk.results import CheckResult, RunResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure, FigureBase

Shift = tuple[float, float, float]  # dy, dx, relative deviation
ShiftMap = tuple[str, list[Shift]]  # label of the case, its shifts


@dataclasses.dataclass(frozen=True)
class Row:
    """One case of a check: a dot on a logarithmic axis."""

    label: str
    value: float
    holds: bool  # the theory says that it holds, up to rounding
    note: str = ""


def entries(check: CheckResult, key: str) -> list[dict[str, Any]]:
    """The list of objects under ``key`` in the details of a check; empty when it is not there or not such a list."""
    found = check.details.get(key) if isinstance(check.details, dict) else None
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def numbers(entry: dict[str, Any], key: str) -> list[float]:
    """The finite numbers in the list under ``key``."""
    found = entry.get(key) if isinstance(entry, dict) else None
    return [value for value in map(number, found) if value is not None] if isinstance(found, list) else []


def _label(check: CheckResult, entry: dict[str, Any], several: bool) -> str:
    label = str(entry.get("label", "case"))
    return f"{check.network}: {label}" if several else label


def duality(run: RunResult, columns: int) -> "Figure | None":
    """Deviation of the network's output from the inner product of path features and path values."""
    checks = checks_named(run, "duality")
    rows = []
    for check in checks:
        for entry in entries(check, "cases"):
            value = number(entry.get("deviation"))
            if value is not None:
                rows.append(Row(_label(check, entry, len(checks) > 1), value, holds=True))
    return _deviations(rows, max((c.tolerance for c in checks), default=0.0), columns, "relative deviation of f(x) from ⟨φ, v⟩")


def _deviations(rows: list[Row], tolerance: float, columns: int, label: str) -> "Figure | None":
    if not rows:
        return None
    width = 2 * PANEL if columns > 1 else PANEL
    figure, (ax,) = panels(1, 1, (width, 0.75 + 0.3 * len(rows)))
    deviation_dots(ax, rows, tolerance, 44 if columns > 1 else 22)
    _key(ax, label, rows, columns)
    return figure


def _key(ax: "Axes", label: str, rows: list[Row], columns: int) -> None:
    """Name the axis and say what gray and hollow mean; on a narrow figure the text reaches to the left, under the labels."""
    hollow = "" if all(row.holds for row in rows) else "; hollow: need not hold"
    ax.set_xlabel(f"{label}\n(gray: within the tolerance{hollow})", loc="center" if columns > 1 else "right")


def deviation_dots(ax: "Axes", rows: list[Row], tolerance: float, wrap: int) -> None:
    """Dots on an axis from exact zero to one: filled where the theory says that it holds, hollow where it must break."""
    high = 10 ** max(0, math.ceil(math.log10(max(ZERO, *(row.value for row in rows)))))
    ax.set_xscale("log")
    ax.set_xlim(ZERO / 3, high * 30)
    if tolerance > 0:
        ax.axvspan(ZERO / 3, tolerance, color=RULE, alpha=0.45, linewidth=0)
    for y, row in enumerate(rows):
        _deviation_dot(ax, y, row)
    ax.set_ylim(len(rows) - 0.5, -0.7)
    ax.set_yticks(range(len(rows)), [wrapped(row.label, wrap) for row in rows])
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_xticks([t for t in (1e-16, 1e-12, 1e-8, 1e-4, 1.0, 1e4) if t <= high])
    ax.xaxis.set_major_formatter(power)
    ax.xaxis.minorticks_off()
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")


def _deviation_dot(ax: "Axes", y: int, row: Row) -> None:
    x = max(row.value, ZERO)
    ax.plot([ZERO / 3, x], [y, y], color=MUTED, linewidth=0.6)
    ax.plot([x], [y], "o", color=INK, markerfacecolor=INK if row.holds else PAPER, markersize=5)
    note = f"{'exactly 0' if row.value == 0 else scientific(row.value)}  {row.note}".strip()
    left = x > 1e-6  # room for the number is on the left of a large deviation
    offset = (-7, 7) if left else (7, 0)
    ax.annotate(note, (x, y), offset, textcoords="offset points", ha="right" if left else "left", va="center_baseline", fontsize=7)


def invariance(run: RunResult, columns: int) -> "Figure | None":
    """Deviation of K(rot(x, r), x') from K(x, x'): the worst of each case, and a map over all shifts r."""
    checks = checks_named(run, "invariance")
    rows, maps = [], []
    for check in checks:
        for entry in entries(check, "cases"):
            points = _shifts(entry)
            worst = number(entry.get("max"))
            worst = max((p[2] for p in points), default=None) if worst is None else worst
            label = _label(check, entry, len(checks) > 1)
            if worst is not None:
                rows.append(Row(label, worst, entry.get("expected") != "broken", _flips(entry)))
            if len({p[0] for p in points}) > 1 and len({p[1] for p in points}) > 1:
                maps.append((label, points))
    tolerance = max((check.tolerance for check in checks), default=0.0)
    return _invariance_figure(rows, maps, tolerance, columns) if rows else None


def _shifts(entry: dict[str, Any]) -> list[Shift]:
    found = entry.get("deviation")
    triples = [t for t in found if isinstance(t, list | tuple) and len(t) == 3] if isinstance(found, list) else []
    return [(t[0], t[1], t[2]) for t in triples if all(number(v) is not None for v in t)]


def _flips(entry: dict[str, Any]) -> str:
    flips = number(entry.get("flips"))
    if not flips:
        return ""
    return f"({flips:,.0f} gate {'flip' if flips == 1 else 'flips'})"


def _invariance_figure(rows: list[Row], maps: list[ShiftMap], tolerance: float, columns: int) -> "Figure":
    across = 4 if columns > 1 else 2
    down = math.ceil(len(maps) / across)
    heights = [0.85 + 0.32 * len(rows)] + ([0.7 + 1.95 * down] if maps else [])
    figure = blank(2 * PANEL if columns > 1 else PANEL, sum(heights))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    ax = parts[0].add_subplot()
    deviation_dots(ax, rows, tolerance, 34 if columns > 1 else 18)
    _key(ax, "largest relative deviation over all shifts", rows, columns)
    if maps:
        _shift_maps(parts[1], maps, down, across)
    return figure


def _shift_maps(part: "FigureBase", maps: list[ShiftMap], down: int, across: int) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    norm = LogNorm(ZERO, 1, clip=True)
    drawn = [part.add_subplot(down, across, i + 1) for i in range(len(maps))]
    for ax, (label, points) in zip(drawn, maps, strict=True):
        _shift_map(ax, label, points, norm)
    ticks = [1e-16, 1e-12, 1e-8, 1e-4, 1]
    colors = ScalarMappable(norm, HEAT)
    bar = part.colorbar(colors, ax=drawn, location="bottom", shrink=0.5, aspect=40, pad=0.03, ticks=ticks)
    bar.ax.xaxis.set_major_formatter(power)
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    bar.set_label("relative deviation at each shift")


def _shift_map(ax: "Axes", label: str, points: list[Shift], norm: "LogNorm") -> None:
    import numpy as np

    rows, cols = sorted({p[0] for p in points}), sorted({p[1] for p in points})
    table = np.full((len(rows), len(cols)), np.nan)
    for dy, dx, deviation in points:
        table[rows.index(dy), cols.index(dx)] = max(deviation, ZERO)
    half = 0.5
    extent = (cols[0] - half, cols[-1] + half, rows[-1] + half, rows[0] - half)
    ax.imshow(table, norm=norm, cmap=HEAT, extent=extent, interpolation="none", aspect="auto" if len(rows) < 2 else "equal")
    ax.set_title(wrapped(label, 22), fontsize=7, fontweight="normal", pad=3)
    ax.set(xlabel="dx", ylabel="dy")
    ax.tick_params(length=0, labelsize=6)
    ax.locator_params(integer=True, nbins=5)
    for spine in ax.spines.values():
        spine.set_visible(False)


def ensemble(run: RunResult, columns: int) -> "Figure | None":
    """Share of the kernel by depth of sub-network and by block, and how well each form of the sum gives the kernel."""
    checks = checks_named(run, "ensemble")
    shares = [(str(e.get("label", check.network)), e) for check in checks for e in entries(check, "shares")]
    bars = [(label, "depth", _by_depth(e)) for label, e in shares] + [(label, "block", _by_block(e)) for label, e in shares]
    bars = sorted((bar for bar in bars if bar[2]), key=lambda bar: [label for label, _ in shares].index(bar[0]))
    rows = []
    for check in checks:
        for entry in entries(check, "cases"):
            value = number(entry.get("deviation"))
            if value is not None:
                # A check that passed although a case lies outside the tolerance did not need that case to hold.
                holds = value <= check.tolerance or not check.passed
                rows.append(Row(_label(check, entry, len(checks) > 1), value, holds))
    tolerance = max((check.tolerance for check in checks), default=0.0)
    return _ensemble_figure(bars, rows, tolerance, columns) if bars or rows else None


def _by_depth(entry: dict[str, Any]) -> list[tuple[str, float]]:
    depth, share = numbers(entry, "depth"), numbers(entry, "share")
    return [(f"{d:g}", s) for d, s in zip(depth, share, strict=False)]


def _by_block(entry: dict[str, Any]) -> list[tuple[str, float]]:
    return [(str(i + 1), s) for i, s in enumerate(numbers(entry, "blocks"))]


def _ensemble_figure(bars: list, rows: list[Row], tolerance: float, columns: int) -> "Figure":
    down = math.ceil(len(bars) / columns)
    heights = ([2.0 * down] if bars else []) + ([0.9 + 0.34 * len(rows)] if rows else [])
    figure = blank(2 * PANEL if columns > 1 else PANEL, sum(heights))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for i, (label, what, values) in enumerate(bars):
        _share_bars(parts[0].add_subplot(down, columns, i + 1), label, what, values)
    if rows:
        ax = parts[-1].add_subplot()
        deviation_dots(ax, rows, tolerance, 34 if columns > 1 else 18)
        _key(ax, "relative deviation from the kernel of the network", rows, columns)
    return figure


def _share_bars(ax: "Axes", label: str, what: str, values: list[tuple[str, float]]) -> None:
    names = [name for name, _ in values]
    heights = [100 * share for _, share in values]
    places = range(len(values))
    ax.bar(places, heights, width=0.62, color=BAR)
    for x, height in zip(places, heights, strict=True):
        if len(values) <= 12:
            ax.annotate(f"{height:.3g}", (x, max(height, 0)), (0, 2), textcoords="offset points", ha="center", fontsize=6.5)
    step = max(1, math.ceil(len(values) / 12))
    ax.set_xticks(list(places)[::step], names[::step])
    ax.tick_params(axis="x", length=0)
    ax.margins(y=0.14)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.set_title(f"{label}: by {'depth' if what == 'depth' else 'block'}", fontsize=8)
    ax.set(xlabel="layers of the sub-networks" if what == "depth" else "skippable block", ylabel="% of the kernel")


def tangent(run: RunResult, columns: int) -> "Figure | None":
    """Tangent kernel of random value networks over dF/ds, with standard errors: one, if the theory holds."""
    checks = [check for check in checks_named(run, "tangent") if isinstance(check.details, dict) and numbers(check.details, "ratio")]
    if not checks:
        return None
    figure, axes = panels(len(checks), columns, (PANEL if len(checks) > 1 or columns < 2 else 2 * PANEL, 2.4))
    for ax, check in zip(axes, checks, strict=True):
        ratio, error = numbers(check.details, "ratio"), numbers(check.details, "error")
        bars = [2 * e for e in error] if len(error) == len(ratio) else None
        ax.axhline(1, color=MUTED, linewidth=0.8)
        ax.errorbar(range(1, len(ratio) + 1), ratio, yerr=bars, fmt="o", color=INK, markersize=3, linewidth=0.8)
        ax.set(title=check.network, xlabel="entry of the kernel", ylabel="tangent kernel / (dF/ds), ± 2 s.e.")
        ax.locator_params(axis="x", integer=True)
        ax.grid(axis="y")
    return figure
