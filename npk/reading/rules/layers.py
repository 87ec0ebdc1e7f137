"""How each exported operator is read: one rule an operator, from a traced node to nodes of the path
graph, or a refusal.

To teach npk an operator, write its rule and add it to ``RULES``. Operators that gate are in
``gate_operators``, those that only move values in ``index_operators``.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import fx

from npk.graph.node import PathNode
from npk.graph.operators import (
    Add,
    AveragePool,
    BatchNorm,
    Convolution,
    Input,
    MaxPool,
    Scale,
    Shift,
)
from npk.graph.positions import AdaptiveWindow, Window
from npk.reading.exported import arguments, is_batched, is_tensor, name_of, shape_of, spread
from npk.reading.plain.constants import turned
from npk.reading.rules import gates as gating
from npk.reading.rules.moves import (
    CASTS,
    MAX_POOLS,
    MOVES,
    NUMBER,
    ONES,
    ORDERED,
    SAME,
    ZEROS,
    constant_behind,
    move,
    tensors_among,
    unpadded,
)
from npk.reading.units import Layout

if TYPE_CHECKING:
    from npk.reading.tracing import Reader

Value = Layout | tuple[Layout, ...]
Rule = Callable[["Reader", fx.Node, list[Any]], Value]
_SUMS = ("add", "add_", "sub", "sub_", "rsub")
_PRODUCTS = ("mul", "mul_", "div", "div_")


def carriers_of(node: fx.Node) -> list[fx.Node]:
    """The arguments of a node that carry paths."""
    name = "input" if node.op == "placeholder" else name_of(node)
    if name in ("input", "get_attr", *ONES, *ZEROS) or NUMBER in node.meta:
        return []
    if name in (*MOVES, *ORDERED):
        return tensors_among(node)
    if name in (*_SUMS, *_PRODUCTS):
        factor = gating.factor_of(node) if name in _PRODUCTS else None
        return [
            a for a in node.args[:2] if is_tensor(a) and not constant_behind(a) and a is not factor
        ]  # type: ignore[misc]
    first = unpadded(node)[0] if name in MAX_POOLS else node.args[0] if node.args else None
    return [first] if isinstance(first, fx.Node) else []


def _input(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    shape = shape_of(node)
    return Layout.of(reader.add(node, Input(), [], shape), shape)


def _ones(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    number = node.meta.get(NUMBER, 1)
    if number == 0:
        return _zeros(reader, node, inputs)
    if number != 1:
        reader.refuse(
            node,
            f"the network starts from the constant {number:g}",
            "Start it from its input or from ones",
        )
    if not is_batched(node):
        reader.refuse(
            node, "it makes ones without a batch axis", "Use torch.ones_like of the input"
        )
    shape = shape_of(node)
    return Layout.of(reader.add(node, Input(ones=True), [], shape), shape)


def _zeros(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    shape = shape_of(node)
    return Layout((), shape, np.zeros(shape, np.int64))


def _same(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    return inputs[0]


def _constant(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    reader.refuse(
        node,
        f"a value starts from the tensor {node.target} and not from the input",
        "Add it to a value, or multiply a value by it",
    )


def _cast(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    if not node.meta["val"].is_floating_point():
        reader.refuse(
            node,
            f"it turns values into {node.meta['val'].dtype}",
            "Keep them floating-point numbers",
        )
    return inputs[0]


def _item(reader: "Reader", node: fx.Node, inputs: list[Value]) -> Layout:
    (value,), number = inputs, int(node.args[1])  # type: ignore[arg-type]
    if isinstance(value, tuple):
        return value[number]
    if number != 0:
        reader.refuse(
            node, "it takes the indices or statistics of an operator", "Use its first result only"
        )
    return value


def _dropout(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    if arguments(node, ("p", 0.5), ("train", False))[1]:
        reader.refuse(
            node, "dropout in train mode draws new gates at every call", "Call net.eval() first"
        )
    return inputs[0]


def _images(reader: "Reader", node: fx.Node, layout: Layout) -> PathNode:
    """The value on a path node with channels and the axes of positions that the operator works on."""
    rank = name_of(node).removesuffix("_with_indices").removesuffix("d")[-1]
    if rank.isdigit() and int(rank) != len(layout.shape) - 1:
        reader.refuse(
            node,
            f"it works on {rank} axes of samples of shape {layout.shape}",
            "Give samples as (channels, *positions)",
        )
    return reader.settle(node, layout).node


def _convolution(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    weight, bias, stride, padding, dilation, groups = arguments(
        node,
        ("weight", None),
        ("bias", None),
        ("stride", 1),
        ("padding", 0),
        ("dilation", 1),
        ("groups", 1),
    )
    before, kernel = (
        _images(reader, node, inputs[0]),
        tuple(int(side) for side in weight.meta["val"].shape[2:]),
    )
    stride, dilation = spread(stride, len(kernel)), spread(dilation, len(kernel))
    window = Window(kernel, stride, _padding(padding, kernel, dilation), dilation)
    return _layer(
        reader,
        node,
        before,
        Convolution(reader.parameter(node, weight), _bias(reader, node, bias), window, int(groups)),
    )


def _transposed(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    names = (
        ("weight", None),
        ("bias", None),
        ("stride", 1),
        ("padding", 0),
        ("output_padding", 0),
        ("groups", 1),
        ("dilation", 1),
    )
    weight, bias, stride, padding, extra, groups, dilation = arguments(node, *names)
    before, kernel = (
        _images(reader, node, inputs[0]),
        tuple(int(side) for side in weight.meta["val"].shape[2:]),
    )
    rank = len(kernel)
    window = Window(
        *(
            kernel,
            spread(stride, rank),
            _padding(padding, kernel, (1,) * rank),
            spread(dilation, rank),
        ),
        True,
        spread(extra, rank),
    )
    return _layer(
        reader,
        node,
        before,
        Convolution(reader.parameter(node, weight), _bias(reader, node, bias), window, int(groups)),
    )


def _layer(reader: "Reader", node: fx.Node, before: PathNode, operator: Convolution) -> Layout:
    shape = shape_of(node)
    return Layout.of(reader.add(node, operator, [before], shape), shape)


def _padding(
    padding: object, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((p, p) for p in spread(padding, len(kernel)))


def _bias(reader: "Reader", node: fx.Node, bias: object) -> str | None:
    return None if bias is None else reader.parameter(node, bias)


def _linear(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    """A layer on the last axis: a window of the whole grid after a flatten, a window of one
    position where other axes stay.
    """
    weight, bias = arguments(node, ("weight", None), ("bias", None))
    (layout,), axis, matrix = inputs, len(inputs[0].shape) - 1, turned(weight)
    names = reader.parameter(node, matrix or weight), _bias(reader, node, bias)
    if not axis and matrix is None:
        before = layout.node if layout.units is None else reader.settle(node, layout).node
        return _layer(reader, node, before, Convolution(*names, Window.whole(before.grid)))
    before = reader.settle(node, layout, axis).node
    shape, ones = shape_of(node), (1,) * axis
    window = Window(ones, ones, ((0, 0),) * axis, ones)
    window = (
        window
        if matrix is None
        else dataclasses.replace(window, transposed=True, extra=(0,) * axis)
    )
    return _channels_last(
        reader.add(node, Convolution(*names, window), [before], (shape[-1], *shape[:-1]))
    )


def _channels_last(made: PathNode) -> Layout:
    layout = Layout.of(made, made.shape)
    return layout.with_units(np.moveaxis(layout.numbers, 0, -1))


def _batch_norm(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    # the native operator has it in its name
    mode = ("training",) if name_of(node) == "batch_norm" else ()
    names = ("weight", "bias", "mean", "var", *mode, "momentum", "eps")
    weight, bias, mean, variance, *_, epsilon = arguments(node, *((name, None) for name in names))
    before = _with_channels(reader, node, inputs[0], 0)
    factor, shift = (None if a is None else reader.parameter(node, a) for a in (weight, bias))
    operator = BatchNorm(
        factor,
        shift,
        reader.parameter(node, mean),
        reader.parameter(node, variance),
        float(epsilon),
    )
    return before.on(reader.add(node, operator, [before.node], before.node.shape))


def _with_channels(reader: "Reader", node: fx.Node, layout: Layout, axis: int) -> Layout:
    """The layout on a path node whose channels are an axis of the tensor, whatever its grid."""
    if axis == 0 and layout.units is None and layout.node.channels == layout.shape[0]:
        return layout
    return reader.settle(node, layout, axis)


def _average_pool(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    names = (
        ("kernel_size", 1),
        ("stride", []),
        ("padding", 0),
        ("ceil_mode", False),
        ("count_include_pad", True),
        ("divisor_override", None),
    )
    kernel, stride, padding, _, count, divisor = arguments(node, *names)
    before = _images(reader, node, inputs[0])
    given = _padding(padding, (1,) * len(before.grid), (1,) * len(before.grid))
    window = _pool_window(node, (kernel, stride, given, 1), before)
    counted = given if count and any(map(any, given)) else None
    shape = shape_of(node)
    return Layout.of(
        reader.add(node, AveragePool(window, counted, divisor), [before], shape), shape
    )


def _max_pool(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    """A max pool, with its own padding and that by minus infinity before it."""
    kernel, stride, padding, dilation = arguments(
        node, ("kernel_size", 1), ("stride", []), ("padding", 0), ("dilation", 1)
    )
    before = _images(reader, node, inputs[0])
    rank, lowest = len(before.grid), unpadded(node)[1]
    lowest = ((0, 0),) * (rank - len(lowest)) + lowest
    padding = tuple(
        (a[0] + b[0], a[1] + b[1])
        for a, b in zip(_padding(padding, (0,) * rank, (1,) * rank), lowest, strict=False)
    )
    if len(lowest) > rank:
        reader.refuse(
            node, "it pads other axes than its positions with minus infinity", "Pad positions only"
        )
    return _selection(
        reader, node, before, _pool_window(node, (kernel, stride, padding, dilation), before)
    )


def _selection(
    reader: "Reader", node: fx.Node, before: PathNode, window: Window | AdaptiveWindow
) -> Layout:
    shape = (before.channels, *window.output(before.grid))
    gate = reader.record(node, unpadded(node)[0], "selection", shape, window=window)
    return Layout.of(reader.add(node, MaxPool(gate, window), [before], shape), shape)


def _pool_window(node: fx.Node, arguments: tuple[Any, ...], before: PathNode) -> Window:
    """The window of a pool; with ceil_mode the last one may leave the padded image, which is
    padding too.
    """
    kernel, stride, padding, dilation = arguments
    rank = len(before.grid)
    kernel = spread(kernel, rank)
    window = Window(kernel, spread(stride or kernel, rank), padding, spread(dilation, rank))
    out = shape_of(node)[1:]
    if window.output(before.grid) == out:
        return window
    sides = zip(
        before.grid, out, kernel, window.stride, window.padding, window.dilation, strict=True
    )
    grown = tuple(
        (p[0], max(p[1], (m - 1) * s + d * (k - 1) + 1 - n - p[0])) for n, m, k, s, p, d in sides
    )
    return dataclasses.replace(window, padding=grown)


def _adaptive_average(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    before, shape = _images(reader, node, inputs[0]), shape_of(node)
    return Layout.of(
        reader.add(node, AveragePool(_adaptive(before, shape[1:])), [before], shape), shape
    )


def _adaptive_max(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    before = _images(reader, node, inputs[0])
    return _selection(reader, node, before, _adaptive(before, shape_of(node)[1:]))


def _adaptive(before: PathNode, sides: tuple[int, ...]) -> Window | AdaptiveWindow:
    if any(n % m for n, m in zip(before.grid, sides, strict=True)):
        return AdaptiveWindow.between(before.grid, sides)
    kernel = tuple(n // m for n, m in zip(before.grid, sides, strict=True))
    return Window(kernel, kernel, ((0, 0),) * len(kernel), (1,) * len(kernel))


def _reduction(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    """Mean, sum or maximum over axes of positions: a pool as large as these axes."""
    (layout,) = inputs
    if name_of(node) == "max" and (len(node.args) < 2 or isinstance(node.args[1], fx.Node)):
        reader.refuse(
            node,
            "the larger of two branches, or of all samples, is no gate on either",
            "Add the branches, or pool over them",
        )
    rank = len(layout.shape)
    axes = {
        int(a) % (rank + 1) - 1
        for a in spread(arguments(node, ("dim", None))[0] or list(range(1, rank + 1)), 1)
    }
    kept, selects = (
        [axis for axis in range(rank) if axis not in axes],
        name_of(node) in ("amax", "max"),
    )
    rows = (
        [a for a in kept if layout.with_axis_first(a).has_channels_first()]
        if selects and 0 not in kept
        else kept
    )
    # all in one, or a choice among channels: they become positions of a single channel
    if not rows:
        layout, axes, kept = (
            layout.with_units(layout.numbers[None]),
            {axis + 1 for axis in axes},
            [0, *(axis + 1 for axis in kept)],
        )
        rows, rank = [0], rank + 1
    axis = 0 if 0 in kept else rows[-1]
    before = reader.settle(node, layout, axis)
    order = [axis, *(a for a in range(rank) if a != axis)]
    kernel = tuple(before.shape[a] if a in axes else 1 for a in order[1:])
    window = Window(kernel, kernel, ((0, 0),) * len(kernel), (1,) * len(kernel))
    shape = tuple(1 if a in axes else before.shape[a] for a in order)
    if selects:
        gate = reader.record(
            node, reader.argument(node), "selection", shape, before.elements(), window=window
        )
        made = reader.add(node, MaxPool(gate, window), [before.node], shape)
    else:
        divisor = 1 if name_of(node) == "sum" else None
        made = reader.add(node, AveragePool(window, None, divisor), [before.node], shape)
    moved = Layout.of(made, shape)
    return moved.with_units(np.moveaxis(moved.numbers, 0, axis).reshape(shape_of(node)))


def _sum(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    """Sums and differences of values, numbers and tensors of the network."""
    name, alpha = name_of(node).removesuffix("_"), float(node.kwargs.get("alpha", 1))  # type: ignore[arg-type]
    first, second = node.args[:2]
    signs = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[name]
    if len(inputs) == 2:
        wide = shape_of(node)
        scaled = [
            _times(reader, node, v.broadcast(wide), sign, f".{k}")
            for k, (v, sign) in enumerate(zip(inputs, signs, strict=True))
        ]
        a, b = reader.settle_any(node, *scaled)
        return a.on(reader.add(node, Add(), [a.node, b.node], a.node.shape))
    other, (one, many) = (
        (second, signs) if is_tensor(first) and not constant_behind(first) else (first, signs[::-1])
    )
    if len(inputs) != 1:
        reader.refuse(node, "it adds constants only", "Fold them into one parameter")
    layout = _times(reader, node, inputs[0].broadcast(shape_of(node)), one, ".value")
    if isinstance(other, int | float):
        return reader.unitwise(node, layout, Shift(None, many * other)) if other else layout
    return _with_tensor(reader, node, layout, other, lambda held: Shift(held, many))


def _times(reader: "Reader", node: fx.Node, layout: Layout, factor: float, suffix: str) -> Layout:
    return layout if factor == 1 else reader.unitwise(node, layout, Scale(factor), suffix)


def _with_tensor(
    reader: "Reader", node: fx.Node, layout: Layout, tensor: Any, operator: Callable[[str], Any]
) -> Layout:
    """Add an operator that has one number for all, or one a channel, in a tensor of the network."""
    name, wide = (
        reader.parameter(node, tensor),
        tuple(int(side) for side in tensor.meta["val"].shape),
    )
    wide = (1,) * (len(layout.shape) + 1 - len(wide)) + wide
    axes = [axis - 1 for axis, side in enumerate(wide) if side > 1]
    if axes and (len(axes) > 1 or axes[0] < 0):
        reader.refuse(
            node,
            f"tensor {name} has a value of its own at every position",
            "Give it one value, or one a channel",
        )
    layout = _with_channels(reader, node, layout, axes[0]) if axes else layout
    return reader.unitwise(node, layout, operator(name))


def _product(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    """Products with numbers, tensors of the network, and gates."""
    name = name_of(node).removesuffix("_")
    first, second = node.args[:2]
    if name == "div" and (
        (is_tensor(second) and not constant_behind(second)) or node.kwargs.get("rounding_mode")
    ):
        reader.refuse(node, "it divides by a computed value", "Divide by a number or a parameter")
    if len(inputs) == 1 and gating.factor_of(node) is None:
        other = second if is_tensor(first) and not constant_behind(first) else first
        if name == "div" and other is first:
            reader.refuse(node, "it divides by a value", "Divide values by numbers or parameters")
        layout = inputs[0].broadcast(shape_of(node))
        if isinstance(other, int | float):
            return _times(reader, node, layout, 1.0 / other if name == "div" else float(other), "")
        return _with_tensor(
            reader, node, layout, other, lambda held: Scale(1.0, held, name == "div")
        )
    return gating.external_gate(reader, node, inputs)


def _negative(reader: "Reader", node: fx.Node, inputs: list[Layout]) -> Layout:
    return reader.unitwise(node, inputs[0], Scale(-1.0))


def rule_of(node: fx.Node) -> Rule | None:
    """The rule by which a node is read; a value that is a number for every sample is read as one,
    however it is computed.
    """
    return (
        _ones
        if NUMBER in node.meta
        else RULES.get("input" if node.op == "placeholder" else name_of(node))
    )


RULES: dict[str, Rule] = {
    "input": _input,
    "get_attr": _constant,
    **dict.fromkeys(ONES, _ones),
    **dict.fromkeys(ZEROS, _zeros),
    **dict.fromkeys(SAME, _same),
    **dict.fromkeys(CASTS, _cast),
    "getitem": _item,
    **dict.fromkeys(
        ("dropout", "native_dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"),
        _dropout,
    ),
    **dict.fromkeys((*ORDERED, *MOVES), move),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    "linear": _linear,
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "batch_norm"), _batch_norm),
    **dict.fromkeys(("relu", "relu_", "leaky_relu", "rrelu"), gating.relu),
    "abs": gating.absolute,
    **dict.fromkeys(("prelu", "_prelu_kernel"), gating.prelu),
    **dict.fromkeys(gating.CLAMPS, gating.clamp),
    **dict.fromkeys(("silu", "hardswish", "gelu"), gating.self_gate),
    "glu": gating.gated_half,
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _average_pool),
    **dict.fromkeys(MAX_POOLS, _max_pool),
    **dict.fromkeys((f"adaptive_avg_pool{rank}d" for rank in (1, 2, 3)), _adaptive_average),
    **dict.fromkeys((f"adaptive_max_pool{rank}d" for rank in (1, 2, 3)), _adaptive_max),
    **dict.fromkeys(("mean", "sum", "amax", "max"), _reduction),
    **dict.fromkeys(_SUMS, _sum),
    **dict.fromkeys(_PRODUCTS, _product),
    "neg": _negative,
}
