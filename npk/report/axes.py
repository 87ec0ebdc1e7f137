"""Axes in the look of npk's pages: what figures of measures have in common."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from npk.report.style import HEAT, PANEL, blank, house_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's, the dark ones first
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1b1e22")
MARKERS = "osD^vPX"


@contextlib.contextmanager
def drawn(ax: "Axes | None", size: tuple[float, float] = (PANEL, 2.6)) -> Iterator["Axes"]:
    """The user's Axes as they are, or new ones in npk's look, which also holds for what Matplotlib
    makes only when it draws.
    """
    if ax is not None:
        yield ax
        return
    with house_style():
        figure = blank(*size)
        yield figure.add_subplot()
        figure.draw_without_rendering()


def style_of(number: int, ordered: int = 0) -> dict:
    """The look of one line of several, of which marker and color say which; ``ordered``: of so many
    in an order.
    """
    color = COLORS[number % len(COLORS)]
    if ordered:
        from matplotlib import colormaps

        color = colormaps[HEAT](0.9 - 0.9 * number / max(1, ordered - 1))
    return {"color": color, "marker": MARKERS[number % len(MARKERS)]}


def add_legend(ax: "Axes", names: Mapping) -> None:
    """A legend, if any name is one."""
    if any(names):
        ax.legend(loc="upper left")


def name_layers(ax: "Axes", names: Sequence[str]) -> None:
    """Layers along the axis: by name where there is room, else by number."""
    places = range(1, 1 + len(names))
    short = sum(map(len, names)) <= 34
    step = 1 if short else max(1, -(-len(names) // 10))
    ax.set_xticks(places[::step], names if short else list(map(str, places[::step])))
    ax.set(xlim=(0.5, len(names) + 0.5), xlabel="gate layer, from the input")


def heat_map(
    ax: "Axes",
    values: np.ndarray,
    names: Sequence[str],
    label: str,
    low: float | None = None,
    high: float | None = None,
) -> None:
    """A matrix in colors, with names along both sides where they are few."""
    image = ax.imshow(values, cmap=HEAT, vmin=low, vmax=high, interpolation="none")
    if 0 < len(names) <= 20:
        long = any(len(name) > 3 for name in names)
        ax.set_xticks(range(len(names)), names, rotation=90 if long else 0)
        ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, label=label)
    bar.outline.set_visible(False)
