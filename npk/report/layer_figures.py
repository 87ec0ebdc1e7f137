"""What the layers of networks do, before training and after: overlap by class, activity of gates."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from npk.report.style import BAR, COLOR, MUTED, PANEL, PAPER, RULE, legend_above, panels, wrapped
from npk.report.subjects import Subject, measures_of, subjects
from npk.results import Measure, StudyResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STATES = (("untrained", COLOR["dgn"], "s"), ("trained", COLOR["dnn"], "o"))
_WHEN = {"untrained": "before training", "trained": "after training"}


def layers(run: StudyResult, columns: int) -> "Figure | None":
    """Overlap of pairs of one class over that of pairs of two classes, layer by layer."""
    shown = _with(run, "class overlap")
    if not shown:
        return None
    figure, axes = _panels(len(shown), columns)
    for ax, subject in zip(axes, shown, strict=True):
        for gates, color, marker in _STATES:
            _line(ax, _by_layer(run, subject, gates, "class overlap"), color, marker, _WHEN[gates])
        ax.axhline(1, color=MUTED, linewidth=0.7, linestyle=(0, (1.5, 2)), zorder=1)
        ax.set_title(wrapped(subject.name, 22))
        _layer_axis(ax, run, subject, "class overlap")
        if (place := ax.get_subplotspec()) is not None and place.is_first_col():
            ax.set_ylabel("overlap, same / other class")
    legend_above(figure, axes, 2)
    return figure


def gates(run: StudyResult, columns: int) -> "Figure | None":
    """Activity of the gates of each layer, and the shares of dead and of always-on ones."""
    shown = _with(run, "activity")
    if not shown:
        return None
    figure, axes = _panels(len(shown), columns)
    for ax, subject in zip(axes, shown, strict=True):
        for gates, color, marker in _STATES:
            _line(ax, _by_layer(run, subject, gates, "activity"), color, marker, _WHEN[gates])
        _stuck(ax, run, subject)
        ax.set_title(wrapped(subject.name, 22))
        ax.set_ylim(0, 1)
        _layer_axis(ax, run, subject, "activity")
        if (place := ax.get_subplotspec()) is not None and place.is_first_col():
            ax.set_ylabel("share of the gates")
    legend_above(figure, axes, 2)
    return figure


def depths(run: StudyResult, columns: int) -> "Figure | None":
    """Share of the kernel that comes from paths of each number of layers."""
    shown = _with(run, "depth share")
    if not shown:
        return None
    figure, axes = _panels(len(shown), columns)
    for ax, subject in zip(axes, shown, strict=True):
        for gates, color, marker in _STATES:
            found = _by_layer(run, subject, gates, "depth share")
            _line(ax, found, color, marker, _WHEN[gates], [int(m.layer) for m in found])
        ax.set_title(wrapped(subject.name, 22))
        ax.set(xlabel="layers of the paths", ylim=(0, None))
        ax.locator_params(axis="x", integer=True)
        ax.grid(axis="y")
        ax.set_axisbelow(True)
        if (place := ax.get_subplotspec()) is not None and place.is_first_col():
            ax.set_ylabel("share of the kernel")
    legend_above(figure, axes, 2)
    return figure


def _with(run: StudyResult, name: str) -> list[Subject]:
    return [
        subject
        for subject in subjects(run)
        if any(_by_layer(run, subject, gates, name) for gates, _, _ in _STATES)
    ]


def _by_layer(run: StudyResult, subject: Subject, gates: str, name: str) -> Sequence[Measure]:
    return [m for m in measures_of(run, subject.name, gates, name) if m.layer]


def _panels(count: int, columns: int) -> tuple["Figure", list["Axes"]]:
    across = min(3, count) if columns > 1 else min(2, count)
    width = (2 if columns > 1 else 1) * PANEL / max(across, 2 if columns > 1 else 1)
    return panels(count, across, (width, 2.0))


def _line(
    ax: "Axes",
    found: Sequence[Measure],
    color: str,
    marker: str,
    label: str,
    places: Sequence[int] = (),
) -> None:
    if not found:
        return
    values = [math.nan if m.value is None else m.value for m in found]
    ax.errorbar(
        places or range(1, 1 + len(found)),
        values,
        yerr=[m.error or 0.0 for m in found],
        color=color,
        marker=marker,
        markerfacecolor=color if marker == "o" else PAPER,
        markersize=3.6 if len(found) < 20 else 2,
        linewidth=1.1,
        capsize=1.8,
        elinewidth=0.8,
        label=label,
    )


def _stuck(ax: "Axes", run: StudyResult, subject: Subject) -> None:
    """Dead gates from below and always-on ones from above, after training."""
    dead = [m.value or 0.0 for m in _by_layer(run, subject, "trained", "dead")]
    always = [m.value or 0.0 for m in _by_layer(run, subject, "trained", "always on")]
    places = range(1, 1 + len(dead))
    ax.bar(places, dead, color=BAR, width=0.6, zorder=0, label="dead, after training")
    ax.bar(
        places,
        [-share for share in always],
        bottom=1,
        color=RULE,
        width=0.6,
        zorder=0,
        label="always on, after training",
    )


def _layer_axis(ax: "Axes", run: StudyResult, subject: Subject, name: str) -> None:
    found = _by_layer(run, subject, "trained", name) or _by_layer(run, subject, "untrained", name)
    depth = len(found)
    step = max(1, math.ceil(depth / 8))
    places = list(range(1, depth + 1, step))
    ax.set_xticks(places, list(map(str, places)))
    ax.set(xlim=(0.5, depth + 0.5), xlabel="gate layer")
    ax.grid(axis="y")
    ax.set_axisbelow(True)
