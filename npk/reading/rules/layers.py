"""Where values start, what leaves them as they are, and layers with weights: one rule an operator."""

import dataclasses

import numpy as np
import torch
from torch import fx

from npk.graph.node import PathNode
from npk.graph.operators import AveragePool, BatchNorm, Convolution, Input, Shift
from npk.graph.positions import Window
from npk.reading.builder import Builder
from npk.reading.exported import NUMBER, arguments, is_batched, name_of, shape_of, spread
from npk.reading.plain.constants import turned
from npk.reading.units import Layout

_FIRST = (("weight", None), ("bias", None), ("stride", 1))  # arguments of convolutions


def input_values(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """The network's input."""
    return builder.add_as_traced(node, Input())


def constant_number(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """Ones start paths of their own, zeros start none."""
    number = node.meta.get(NUMBER, 1)
    if number == 0:
        return zeros(builder, node, inputs)
    if number != 1:
        what = f"the network starts from the constant {number:g}"
        builder.refuse(node, what, "Start it from its input or from ones")
    if not is_batched(node):
        remedy = "Use torch.ones_like of the input"
        builder.refuse(node, "it makes ones without a batch axis", remedy)
    return builder.add_as_traced(node, Input(ones=True))


def zeros(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """Zeros: no paths."""
    shape = shape_of(node)
    return Layout((), shape, np.zeros(shape, np.int64))


def same(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """An operator that changes nothing."""
    return inputs[0]


def constant_tensor(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """A parameter or buffer in the place of a value."""
    what = f"a value starts from the tensor {node.target} and not from the input"
    builder.refuse(node, what, "Add it to a value, or multiply a value by it")


def cast(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """Another type of floating-point numbers."""
    kind = node.meta["val"].dtype
    if not kind.is_floating_point:
        builder.refuse(node, f"it turns values into {kind}", "Keep them floating-point numbers")
    return inputs[0]


def item(builder: Builder, node: fx.Node, inputs: list[Layout | tuple[Layout, ...]]) -> Layout:
    """One of several results."""
    (value,), number = inputs, int(node.args[1])  # type: ignore[arg-type]
    if isinstance(value, tuple):
        return value[number]
    if number != 0:
        what = "it takes the indices or statistics of an operator"
        builder.refuse(node, what, "Use its first result only")
    return value


def dropout(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """Dropout, which does nothing in eval mode."""
    if arguments(node, ("p", 0.5), ("train", False))[1]:
        what = "dropout in train mode draws new gates at every call"
        builder.refuse(node, what, "Call net.eval() first")
    return inputs[0]


def images(builder: Builder, node: fx.Node, layout: Layout) -> PathNode:
    """The value on a path node with channels and the axes of positions that the operator works on."""
    rank = name_of(node).removesuffix("_with_indices").removesuffix("d")[-1]
    if rank.isdigit() and int(rank) != len(layout.shape) - 1:
        what = f"it works on {rank} axes of samples of shape {layout.shape}"
        builder.refuse(node, what, "Give samples as (channels, *positions)")
    return builder.settle(node, layout).node


def convolution(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """A convolution over one, two or three axes."""
    names = (("padding", 0), ("dilation", 1), ("groups", 1))
    weight, bias, stride, padding, dilation, groups = arguments(node, *_FIRST, *names)
    before, kernel = images(builder, node, inputs[0]), _kernel(weight)
    stride, dilation = spread(stride, len(kernel)), spread(dilation, len(kernel))
    window = Window(kernel, stride, paddings(padding, kernel, dilation), dilation)
    if (values := builder.coefficients(weight)) is not None:
        return _filtered(builder, node, before, (window, values, bias))
    names = _parameters(builder, node, weight, bias)
    return builder.add_as_traced(node, Convolution(*names, window, int(groups)), before)


def transposed(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """A transposed convolution."""
    names = (("padding", 0), ("output_padding", 0), ("groups", 1), ("dilation", 1))
    weight, bias, stride, padding, extra, groups, dilation = arguments(node, *_FIRST, *names)
    before, kernel = images(builder, node, inputs[0]), _kernel(weight)
    stride, dilation, extra = (spread(a, len(kernel)) for a in (stride, dilation, extra))
    sides = paddings(padding, kernel, (1,) * len(kernel))
    window = Window(kernel, stride, sides, dilation, True, extra)
    if (values := builder.coefficients(weight)) is not None:
        return _filtered(builder, node, before, (window, values, bias))
    names = _parameters(builder, node, weight, bias)
    return builder.add_as_traced(node, Convolution(*names, window, int(groups)), before)


def _filtered(
    builder: Builder,
    node: fx.Node,
    before: PathNode,
    layer: tuple[Window, torch.Tensor, fx.Node | None],
) -> Layout:
    """A depthwise convolution whose filters are declared fixed: coefficients, and no weight."""
    window, values, bias = layer
    channels = shape_of(node)[0]
    if tuple(values.shape[:2]) != (before.channels, 1) or channels != before.channels:
        name = builder.parameter(node, node.args[1])
        what = f"fixed= names {name}, whose filters mix channels ({before.channels} to {channels})"
        builder.refuse(node, what, "Declare depthwise filters only, or leave it a weight")
    rows = [tuple(row) for row in values.reshape(channels, -1).tolist()]
    weights = tuple(rows[:1] if len(set(rows)) == 1 else rows)
    layout = builder.add_as_traced(node, AveragePool(window, weights=weights), before)
    if bias is None:
        return layout
    return builder.unitwise(node, layout, Shift(builder.parameter(node, bias)), ".bias")


def _kernel(weight: fx.Node) -> tuple[int, ...]:
    return tuple(int(side) for side in weight.meta["val"].shape[2:])


def _parameters(
    builder: Builder, node: fx.Node, weight: object, bias: object
) -> tuple[str, str | None]:
    name = builder.parameter(node, weight)
    return name, None if bias is None else builder.parameter(node, bias)


def paddings(
    padding: object, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Positions that a padding adds before and after each axis."""
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((p, p) for p in spread(padding, len(kernel)))


def linear(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """A layer on the last axis: a window of the whole grid, or of one position where axes stay."""
    weight, bias = arguments(node, ("weight", None), ("bias", None))
    (layout,), axis, matrix = inputs, len(inputs[0].shape) - 1, turned(weight)
    names = _parameters(builder, node, matrix or weight, bias)
    if not axis and matrix is None:
        before = layout.node if layout.units is None else builder.settle(node, layout).node
        return builder.add_as_traced(node, Convolution(*names, Window.whole(before.grid)), before)
    before = builder.settle(node, layout, axis).node
    window = Window.whole((1,) * axis)
    if matrix is not None:
        window = dataclasses.replace(window, transposed=True, extra=(0,) * axis)
    *positions, channels = shape_of(node)
    shape = (channels, *positions)
    added = builder.add(node, Convolution(*names, window), [before], shape)
    return Layout.of(added, shape).with_first_axis_at(axis)


def batch_norm(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """Batch norm in eval mode."""
    # the native operator has it in its name
    mode = ("training",) if name_of(node) == "batch_norm" else ()
    names = ("weight", "bias", "mean", "var", *mode, "momentum", "eps")
    weight, bias, mean, variance, *_, epsilon = arguments(node, *((name, None) for name in names))
    before = with_channels(builder, node, inputs[0], 0)
    factor, shift = (None if a is None else builder.parameter(node, a) for a in (weight, bias))
    mean, variance = (builder.parameter(node, a) for a in (mean, variance))
    operator = BatchNorm(factor, shift, mean, variance, float(epsilon))
    return before.on(builder.add(node, operator, [before.node], before.node.shape))


def with_channels(builder: Builder, node: fx.Node, layout: Layout, axis: int) -> Layout:
    """The layout on a path node whose channels are an axis of the tensor, whatever its grid."""
    if axis == 0 and layout.units is None and layout.node.channels == layout.shape[0]:
        return layout
    return builder.settle(node, layout, axis)
