"""Sums, differences, and products with what is no gate: one rule an operator."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from npk.graph.operators import Add, AveragePool, Scale, Shift
from npk.graph.positions import Window
from npk.reading.builder import Builder
from npk.reading.exported import constant_behind, is_tensor, name_of, shape_of
from npk.reading.rules.gates import external_gate, factor_of
from npk.reading.rules.layers import with_channels
from npk.reading.units import Layout


def sum_of(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """Sums and differences of values, numbers and tensors of the network."""
    name, alpha = name_of(node).removesuffix("_"), float(node.kwargs.get("alpha", 1))  # type: ignore[arg-type]
    first, second = node.args[:2]
    signs = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[name]
    shape = shape_of(node)
    if len(inputs) == 2:
        scaled = [
            _times(builder, node, value.broadcast(shape), sign, f".{number}")
            for number, (value, sign) in enumerate(zip(inputs, signs, strict=True))
        ]
        a, b = builder.settle_any(node, *scaled)
        return a.on(builder.add(node, Add(), [a.node, b.node], a.node.shape))
    if len(inputs) != 1:
        builder.refuse(node, "it adds constants only", "Fold them into one parameter")
    other, (one, many) = (second, signs) if _is_computed(first) else (first, signs[::-1])
    layout = _times(builder, node, inputs[0].broadcast(shape), one, ".value")
    if isinstance(other, int | float):
        return builder.unitwise(node, layout, Shift(None, many * other)) if other else layout
    return _with_tensor(builder, node, layout, other, lambda held: Shift(held, many))


def product(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """Products with numbers, tensors of the network, and gates."""
    divides = name_of(node).removesuffix("_") == "div"
    first, second = node.args[:2]
    if divides and (_is_computed(second) or node.kwargs.get("rounding_mode")):
        builder.refuse(node, "it divides by a computed value", "Divide by a number or a parameter")
    if len(inputs) != 1 or factor_of(node) is not None:
        return external_gate(builder, node, inputs)
    other = second if _is_computed(first) else first
    layout = inputs[0].broadcast(shape_of(node))
    if isinstance(other, int | float):
        return _times(builder, node, layout, 1.0 / other if divides else float(other))
    values = builder.coefficients(other)
    if values is not None:
        return _scaled(builder, node, layout, other, 1.0 / values if divides else values)
    return _with_tensor(builder, node, layout, other, lambda held: Scale(1.0, held, divides))


def _scaled(
    builder: Builder, node: fx.Node, layout: Layout, tensor: Any, values: torch.Tensor
) -> Layout:
    """A product with a tensor that is declared fixed: coefficients, and no weight."""
    numbers = tuple(values.reshape(-1).tolist())
    if len(numbers) == 1:
        return _times(builder, node, layout, numbers[0])
    layout = _on_channels(builder, node, layout, tensor)
    (whole,) = builder.settle_any(node, layout)
    window = Window.whole((1,) * len(whole.node.grid))
    weights = tuple((number,) for number in numbers)
    return builder.unitwise(node, whole, AveragePool(window, weights=weights))


def negative(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """A value times -1."""
    return builder.unitwise(node, inputs[0], Scale(-1.0))


def _is_computed(argument: object) -> bool:
    return is_tensor(argument) and not constant_behind(argument)


def _times(
    builder: Builder, node: fx.Node, layout: Layout, factor: float, suffix: str = ""
) -> Layout:
    return layout if factor == 1 else builder.unitwise(node, layout, Scale(factor), suffix)


def _with_tensor(
    builder: Builder, node: fx.Node, layout: Layout, tensor: Any, operator: Callable[[str], Any]
) -> Layout:
    """Add an operator that has one number for all, or one a channel, in a tensor of the network."""
    name = builder.parameter(node, tensor)
    return builder.unitwise(node, _on_channels(builder, node, layout, tensor), operator(name))


def _on_channels(builder: Builder, node: fx.Node, layout: Layout, tensor: Any) -> Layout:
    """The value on a path node whose channels are those of a tensor with a number for each."""
    name, wide = builder.parameter(node, tensor), tuple(tensor.meta["val"].shape)
    wide = (1,) * (len(layout.shape) + 1 - len(wide)) + wide
    axes = [axis - 1 for axis, side in enumerate(wide) if side > 1]
    if axes and (len(axes) > 1 or axes[0] < 0):
        what = f"tensor {name} has a value of its own at every position"
        builder.refuse(node, what, "Give it one value, or one a channel")
    return with_channels(builder, node, layout, axes[0]) if axes else layout
