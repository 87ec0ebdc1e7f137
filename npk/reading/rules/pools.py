"""Pools: averages and maxima over windows, and reductions as pools: one rule an operator."""

import dataclasses
from typing import Any

from torch import fx

from npk.graph.node import PathNode
from npk.graph.operators import AveragePool, MaxPool
from npk.graph.positions import AdaptiveWindow, Window
from npk.reading.builder import Builder
from npk.reading.exported import arguments, name_of, shape_of, spread
from npk.reading.rules.layers import images, paddings
from npk.reading.rules.moves import unpadded
from npk.reading.units import Layout


def average(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """An average pool; places in its padding count or not."""
    names = (("kernel_size", 1), ("stride", []), ("padding", 0), ("ceil_mode", False))
    counting = (("count_include_pad", True), ("divisor_override", None))
    kernel, stride, padding, _, count, divisor = arguments(node, *names, *counting)
    before = images(builder, node, inputs[0])
    ones = (1,) * len(before.grid)
    sides = paddings(padding, ones, ones)
    window = _window(node, (kernel, stride, sides, 1), before)
    counted = sides if count and any(map(any, sides)) else None
    return builder.add_as_traced(node, AveragePool(window, counted, divisor), before)


def maximum(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """A max pool, with its own padding and that by minus infinity before it."""
    names = (("kernel_size", 1), ("stride", []), ("padding", 0), ("dilation", 1))
    kernel, stride, padding, dilation = arguments(node, *names)
    before = images(builder, node, inputs[0])
    rank, lowest = len(before.grid), unpadded(node)[1]
    lowest = ((0, 0),) * (rank - len(lowest)) + lowest
    if len(lowest) > rank:
        what = "it pads other axes than its positions with minus infinity"
        builder.refuse(node, what, "Pad positions only")
    own = paddings(padding, (0,) * rank, (1,) * rank)
    sides = tuple((a[0] + b[0], a[1] + b[1]) for a, b in zip(own, lowest, strict=True))
    window = _window(node, (kernel, stride, sides, dilation), before)
    return _selection(builder, node, before, window)


def adaptive_average(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """An average pool with a given number of positions."""
    before = images(builder, node, inputs[0])
    return builder.add_as_traced(node, AveragePool(_adaptive(node, before)), before)


def adaptive_maximum(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """A max pool with a given number of positions."""
    before = images(builder, node, inputs[0])
    return _selection(builder, node, before, _adaptive(node, before))


def _selection(
    builder: Builder, node: fx.Node, before: PathNode, window: Window | AdaptiveWindow
) -> Layout:
    shape = (before.channels, *window.output(before.grid))
    gate = builder.record(node, unpadded(node)[0], "selection", shape, window=window)
    return builder.add_as_traced(node, MaxPool(gate, window), before)


def _window(node: fx.Node, arguments: tuple[Any, ...], before: PathNode) -> Window:
    """The window of a pool; what ceil_mode puts beyond the image is padding too."""
    kernel, stride, padding, dilation = arguments
    rank = len(before.grid)
    kernel = spread(kernel, rank)
    window = Window(kernel, spread(stride or kernel, rank), padding, spread(dilation, rank))
    out = shape_of(node)[1:]
    if window.output(before.grid) == out:
        return window
    steps = (kernel, window.stride, window.padding, window.dilation)
    grown = tuple(
        (p[0], max(p[1], (m - 1) * s + d * (k - 1) + 1 - n - p[0]))
        for n, m, k, s, p, d in zip(before.grid, out, *steps, strict=True)
    )
    return dataclasses.replace(window, padding=grown)


def _adaptive(node: fx.Node, before: PathNode) -> Window | AdaptiveWindow:
    sides = shape_of(node)[1:]
    if any(n % m for n, m in zip(before.grid, sides, strict=True)):
        return AdaptiveWindow.between(before.grid, sides)
    return Window.side_by_side(tuple(n // m for n, m in zip(before.grid, sides, strict=True)))


def reduction(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """Mean, sum or maximum over axes of positions: a pool as large as these axes."""
    (layout,), name = inputs, name_of(node)
    if name == "max" and (len(node.args) < 2 or isinstance(node.args[1], fx.Node)):
        what = "the larger of two branches, or of all samples, is no gate on either"
        builder.refuse(node, what, "Add the branches, or pool over them")
    rank, selects = len(layout.shape), name in ("amax", "max")
    dims = spread(arguments(node, ("dim", None))[0] or list(range(1, rank + 1)), 1)
    axes = {dim % (rank + 1) - 1 for dim in dims}
    rows = kept = [axis for axis in range(rank) if axis not in axes]
    if selects and 0 not in kept:
        rows = [a for a in kept if layout.with_axis_first(a).has_channels_first()]
    # all in one, or a choice among channels: they become positions of a single channel
    if not rows:
        layout, axes = layout.with_units(layout.numbers[None]), {axis + 1 for axis in axes}
        rows = kept = [0]
        rank += 1
    axis = 0 if 0 in kept else rows[-1]
    before = builder.settle(node, layout, axis)
    order = [axis, *(a for a in range(rank) if a != axis)]
    window = Window.side_by_side(tuple(before.shape[a] if a in axes else 1 for a in order[1:]))
    shape = tuple(1 if a in axes else before.shape[a] for a in order)
    if selects:
        seen, units = builder.argument(node), before.elements()
        gate = builder.record(node, seen, "selection", shape, units, window=window)
        operator = MaxPool(gate, window)
    else:
        operator = AveragePool(window, None, 1 if name == "sum" else None)
    pooled = Layout.of(builder.add(node, operator, [before.node], shape), shape)
    moved = pooled.with_first_axis_at(axis)
    return moved.with_units(moved.numbers.reshape(shape_of(node)))
