"""Figures of gates: where they are on in the plane, which of them two samples share, and kernels of
points in an order.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from npk import measures
from npk.errors import OptionError, ShapeError
from npk.gates.recording import record_gates
from npk.gates.table import GateTable
from npk.gram.matrix import Gram
from npk.report.axes import COLORS, MARKERS, drawn, heat_map
from npk.report.style import MUTED, PANEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import nn

_SIDE = 200  # points of a grid, in each direction
_SHOWN = 3  # dimensions of a picture: channels, height, width


def hyperplanes(
    net: "nn.Module",
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    layer: int = 0,
    ax: "Axes | None" = None,
) -> "Axes":
    """Where the gates of one layer switch, in the plane: a line a unit.

    Of a deep linearly gated network these are straight lines in every layer, of a ReLU network they
    bend behind the first. The gates are recorded on a grid of 200 x 200 points, so that a line is
    right to half a step of it.

    Args:
        net: a network of two inputs, in eval mode.
        X: samples, (n, 2), which say how much of the plane is shown.
        y: class of each sample, (n,); ``None``: one color.
        layer: number of the gate layer, from the input on.
        ax: where to draw.

    Returns:
        The Axes, with the layer and the number of its units that switch in the title.

    Raises:
        ShapeError: samples of another size.
        OptionError: no such layer.
    """
    points = np.asarray(X, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        what = f"samples have shape {points.shape}"
        raise ShapeError(f"{what}, and hyperplanes are drawn in the plane. Give samples (n, 2).")
    low, high = points.min(0), points.max(0)
    margin = 0.05 * np.maximum(high - low, 1e-9)
    x1, x2 = (np.linspace(low[i] - margin[i], high[i] + margin[i], _SIDE) for i in range(2))
    grid = np.stack(np.meshgrid(x1, x2), -1).reshape(-1, 2).astype(np.float32)
    table = record_gates(net, grid, gates="hard")
    if not 0 <= layer < table.layers:
        raise OptionError(
            f"layer is {layer!r}, and there are {table.layers} gate layers, from 0 on. Give one."
        )
    units = table[layer].reshape(len(grid), -1).T
    switching = [unit for unit in units if unit.any() and not unit.all()]
    with drawn(ax, (PANEL, PANEL)) as axes:
        for unit in switching:
            on = unit.reshape(_SIDE, _SIDE).astype(float)
            axes.contour(x1, x2, on, levels=[0.5], colors=[MUTED], linewidths=0.6)
        _dots(axes, points, y)
        axes.set(aspect="equal", xlim=(x1[0], x1[-1]), ylim=(x2[0], x2[-1]))
        axes.set_title(f"layer {layer + 1}: {len(switching)} of {len(units)} gates switch here")
    return axes


def _dots(ax: "Axes", points: np.ndarray, y: ArrayLike | None) -> None:
    labels = np.zeros(len(points), int) if y is None else np.asarray(y)
    for i, label in enumerate(np.unique(labels)):
        own = points[labels == label]
        look: dict[str, Any] = {"s": 5, "color": COLORS[i % len(COLORS)], "linewidths": 0}
        ax.scatter(own[:, 0], own[:, 1], marker=MARKERS[i % len(MARKERS)], alpha=0.7, **look)


def on_circle(K: ArrayLike | Gram, *, ax: "Axes | None" = None) -> "Axes":
    """A kernel, or any overlap, of points on a circle in the order of their angles.

    Args:
        K: of points such as :func:`npk.data.circle_points` gives, (n, n).
        ax: where to draw.

    Returns:
        The Axes, in degrees.

    Raises:
        ShapeError: a matrix that is not square.
    """
    matrix = np.asarray(K, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"K has shape {matrix.shape}. Give a square matrix, (n, n).")
    with drawn(ax, (PANEL, PANEL)) as axes:
        heat_map(axes, matrix, [], "kernel")
        places = np.array([0, 90, 180, 270])
        at = places * len(matrix) / 360 - 0.5 * (places == 0)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(at, [f"{place}°" for place in places])
        axes.set(xlabel="angle", ylabel="angle")
    return axes


def shared_gates(
    table: GateTable, first: int = 0, second: int = 1, *, ax: "Axes | None" = None
) -> "Axes":
    """Two samples, and layer by layer which of the gates are on for both, for one, for none.

    Args:
        table: hard gates of some samples.
        first: number of a sample.
        second: number of another.
        ax: where to draw; samples that are pictures stand above the bars.

    Returns:
        The Axes.

    Raises:
        OptionError: soft gates, or a number that is none of a sample.
    """
    found = measures.shared_gates(table, first, second)
    parts = (
        ("on for both", found.both, COLORS[0]),
        ("for the first alone", found.first, COLORS[5]),
        ("for the second alone", found.second, COLORS[4]),
        ("for none", found.neither, "#d5d9de"),
    )
    places, below = np.arange(1, 1 + len(found.names)), np.zeros(len(found.names))
    with drawn(ax, (PANEL, PANEL)) as axes:
        for label, share, color in parts:
            axes.bar(places, share, bottom=below, color=color, width=0.8, label=label)
            below = below + share
        step = max(1, -(-len(places) // 10))
        axes.set_xticks(places[::step], list(map(str, places[::step])))
        axes.set(xlabel="gate layer, from the input", ylabel="share of the gates")
        above = _pictures(axes, [table.inputs[first], table.inputs[second]])
        axes.set_ylim(0, 1.55 if above else 1)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=6.5)
    return axes


def _pictures(ax: "Axes", samples: Sequence[np.ndarray]) -> bool:
    """Samples in the upper third, if they are pictures of one or three colors; whether they are."""
    if any(x.ndim != _SHOWN or x.shape[0] not in (1, 3) for x in samples):
        return False
    low, high = min(x.min() for x in samples), max(x.max() for x in samples)
    for place, x in zip((0.08, 0.58), samples, strict=True):
        inset = ax.inset_axes((place, 0.68, 0.34, 0.3))
        scaled = (np.moveaxis(x, 0, -1) - low) / max(high - low, 1e-12)
        inset.imshow(scaled[..., 0] if scaled.shape[-1] == 1 else scaled, cmap="gray")
        inset.set_axis_off()
    return True
