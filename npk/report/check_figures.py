"""Figures of the checks, of what their details hold. A number that is not finite is left out."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from npk.report.invariance_figures import draw_maps, has_map
from npk.report.style import (
    BAR,
    INK,
    MUTED,
    PANEL,
    PAPER,
    RULE,
    ZERO,
    blank,
    panels,
    power,
    scientific,
    wrapped,
)
from npk.report.subjects import checks_of
from npk.results import (
    Case,
    CaseDetails,
    CheckResult,
    EnsembleDetails,
    InvarianceCase,
    InvarianceDetails,
    Shares,
    StudyResult,
    TangentDetails,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST = 300  # power of ten at which an axis ends: an output of zero can deviate by more

# along the axis of deviations, of checks without a figure of their own
_LABELS = {"duality": "relative deviation of f(x) from ⟨φ, v⟩"}

Bars = tuple[str, str, list[tuple[str, float]]]  # label, "depth" or "block", names and heights


@dataclasses.dataclass(frozen=True)
class Row:
    """One case of a check: a dot on a logarithmic axis."""

    label: str
    value: float
    holds: bool  # the theory says that it holds, up to rounding
    note: str = ""


def _label(check: CheckResult, case: Case | InvarianceCase, several: bool) -> str:
    return f"{check.network}: {case.label}" if several else case.label


def _tolerance(checks: list[CheckResult]) -> float:
    return max((check.tolerance for check in checks), default=0.0)


def drawn(name: str, run: StudyResult, columns: int) -> "Figure | None":
    """The figure of one check: its own, or the deviation of each of its cases."""
    own = OWN.get(name)
    return own(run, columns) if own else _cases(name, run, columns)


def _cases(name: str, run: StudyResult, columns: int) -> "Figure | None":
    checks = [check for check in run.checks if check.name == name]
    rows = [
        Row(_label(check, case, len(checks) > 1), case.deviation, holds=True)
        for check in checks
        if isinstance(check.details, CaseDetails)
        for case in check.details.cases
        if case.deviation is not None
    ]
    if not rows:
        return None
    width = 2 * PANEL if columns > 1 else PANEL
    figure, (ax,) = panels(1, 1, (width, 0.75 + 0.3 * len(rows)))
    deviation_dots(ax, rows, _tolerance(checks), 44 if columns > 1 else 22)
    _key(ax, _LABELS.get(name, "deviation of each case"), rows, columns)
    return figure


def _key(ax: "Axes", label: str, rows: list[Row], columns: int) -> None:
    """Name the axis and say what gray and hollow mean.

    On a narrow figure the text reaches to the left, under the labels.
    """
    hollow = "" if all(row.holds for row in rows) else "; hollow: need not hold"
    text = f"{label}\n(gray: within the tolerance{hollow})"
    ax.set_xlabel(text, loc="center" if columns > 1 else "right")


def deviation_dots(ax: "Axes", rows: list[Row], tolerance: float, wrap: int) -> None:
    """Dots on an axis from exact zero to one.

    They are filled where the theory says that it holds, hollow where it must break.
    """
    most = math.ceil(math.log10(max(ZERO, *(row.value for row in rows))))
    high = 10.0 ** min(max(0, most), _MOST)
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
    look: dict[str, Any] = {"ha": "right" if left else "left", "va": "center_baseline"}
    ax.annotate(note, (x, y), offset, textcoords="offset points", fontsize=7, **look)


def invariance(run: StudyResult, columns: int) -> "Figure | None":
    """Deviation of K(g x, x') from K(x, x'): the worst of each case, and maps over all shifts."""
    found = checks_of(run, InvarianceDetails)
    checks = [check for check, _ in found]
    pairs = [(check, case) for check, details in found for case in details.cases]
    cases = [(_label(check, case, len(checks) > 1), case) for check, case in pairs]
    rows = [row for label, case in cases for row in _invariance_rows(label, case)]
    maps = [(label, case) for label, case in cases if has_map(case)]
    return _invariance_figure(rows, maps, _tolerance(checks), columns) if rows else None


def _invariance_rows(label: str, case: InvarianceCase) -> list[Row]:
    """What structure promises, filled; what it does not, hollow."""
    rows = []
    if case.inside > 1 and case.worst_inside is not None:
        rows.append(Row(label, case.worst_inside, holds=True, note=_flips(case)))
    if case.outside_worst is not None:
        rows.append(Row(f"{label}, beyond", case.outside_worst, holds=False))
    return rows


def _flips(case: InvarianceCase) -> str:
    if not case.flips:
        return ""
    return f"({case.flips:,} gate {'flip' if case.flips == 1 else 'flips'})"


def _invariance_figure(
    rows: list[Row], maps: list[tuple[str, InvarianceCase]], tolerance: float, columns: int
) -> "Figure":
    across = 4 if columns > 1 else 2
    down = math.ceil(len(maps) / across)
    heights = [0.85 + 0.32 * len(rows)] + ([0.7 + 1.95 * down] if maps else [])
    figure = blank(2 * PANEL if columns > 1 else PANEL, sum(heights))
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    ax = parts[0].add_subplot()
    deviation_dots(ax, rows, tolerance, 34 if columns > 1 else 18)
    _key(ax, "largest relative deviation over all elements", rows, columns)
    if maps:
        draw_maps(parts[1], maps, across)
    return figure


def ensemble(run: StudyResult, columns: int) -> "Figure | None":
    """Share of the kernel by depth of sub-network and by block, and how good each form of it is."""
    found = checks_of(run, EnsembleDetails)
    checks = [check for check, _ in found]
    bars = [bar for check, details in found for bar in _bars(check.network, details.shares)]
    rows = [
        # A check that passed although a case lies outside the tolerance did not need it to hold.
        Row(
            _label(check, case, len(checks) > 1),
            case.deviation,
            holds=case.deviation <= check.tolerance or not check.passed,
        )
        for check, details in found
        for case in details.cases
        if case.deviation is not None
    ]
    return _ensemble_figure(bars, rows, _tolerance(checks), columns) if bars or rows else None


def _bars(label: str, shares: Shares) -> Iterator[Bars]:
    if shares.depth:
        by_depth = zip(shares.depth, shares.share, strict=True)
        yield label, "depth", [(str(depth), share) for depth, share in by_depth]
    if shares.blocks:
        yield label, "block", [(str(i + 1), share) for i, share in enumerate(shares.blocks)]


def _ensemble_figure(bars: list[Bars], rows: list[Row], tolerance: float, columns: int) -> "Figure":
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
            where, text = (x, max(height, 0)), f"{height:.3g}"
            ax.annotate(text, where, (0, 2), textcoords="offset points", ha="center", fontsize=6.5)
    step = max(1, math.ceil(len(values) / 12))
    ax.set_xticks(list(places)[::step], names[::step])
    ax.tick_params(axis="x", length=0)
    ax.margins(y=0.14)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.set_title(f"{label}: by {'depth' if what == 'depth' else 'block'}", fontsize=8)
    across = "layers of the sub-networks" if what == "depth" else "skippable block"
    ax.set(xlabel=across, ylabel="% of the kernel")


def tangent(run: StudyResult, columns: int) -> "Figure | None":
    """Mean over random value networks beside the tangent kernel, entry by entry, with its error."""
    found = [(check, details) for check, details in checks_of(run, TangentDetails)]
    drawn = [(check.network, list(_ratios(details))) for check, details in found]
    drawn = [(network, ratios) for network, ratios in drawn if ratios]
    if not drawn:
        return None
    across = min(columns, len(drawn))
    down = math.ceil(len(drawn) / across)
    figure, axes = panels(down, across, (across * PANEL, 2.0 * down))
    for ax, (network, ratios) in zip(axes, drawn, strict=False):
        _ratio_dots(ax, network, ratios)
    for ax in axes[len(drawn) :]:
        ax.set_axis_off()
    return figure


def _ratios(details: TangentDetails) -> Iterator[tuple[str, float, float]]:
    """Name of an entry, mean over expectation, and its error."""
    for entry in details.entries:
        if entry.expected:
            name = f"{entry.row + 1}, {entry.col + 1}"
            yield name, entry.mean / entry.expected, entry.error / abs(entry.expected)


def _ratio_dots(ax: "Axes", network: str, ratios: list[tuple[str, float, float]]) -> None:
    places, (names, values, errors) = range(len(ratios)), zip(*ratios, strict=True)
    ax.axhline(1, color=MUTED, linewidth=0.7)
    ax.errorbar(places, values, yerr=errors, fmt="o", color=INK, markersize=4, capsize=2)
    ax.set_xticks(list(places), names)
    ax.grid(axis="y")
    ax.set_title(network, fontsize=8)
    ax.set(xlabel="pair of samples", ylabel="mean / tangent kernel")


OWN: dict[str, Callable[[StudyResult, int], "Figure | None"]] = {
    "invariance": invariance,
    "ensemble": ensemble,
    "tangent": tangent,
}
