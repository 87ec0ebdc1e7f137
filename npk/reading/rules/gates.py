"""Operators that gate: one rule an operator."""

import math
from collections.abc import Callable

import numpy as np
from torch import fx

from npk.graph.node import PathNode
from npk.graph.operators import Gate, Input
from npk.reading.builder import Builder
from npk.reading.exported import CASTS, ORDERED, SAME, arguments, constant_behind, name_of, shape_of
from npk.reading.rules.moves import MOVES, move
from npk.reading.units import Layout

SOFT = ("sigmoid", "hardsigmoid")
CLAMPS = ("hardtanh", "clamp", "relu6", "clamp_min")
_SELF_GATES = {"silu": "sigmoid", "hardswish": "hardsigmoid", "gelu": "normal", "mish": "mish"}


def is_gate(node: object, *, clamps: bool = False) -> bool:
    """Whether an argument comes out of a gate operator, possibly moved, repeated, or times and plus
    numbers.

    ``clamps``: whether a clamp from 0 to some bound is taken for one too.
    """
    if not isinstance(node, fx.Node) or node.op != "call_function" or not node.args:
        return False
    name = name_of(node)
    if name in (*SOFT, "gate", "gt"):
        return True
    if clamps and name in CLAMPS:
        low, high = _bounds(node)
        return low == 0 and high < math.inf
    return (_is_scaled(node) or name in (*SAME, *CASTS, *ORDERED, *MOVES)) and is_gate(
        node.args[0], clamps=clamps
    )


def _is_scaled(node: fx.Node) -> bool:
    return name_of(node) in ("div", "mul", "add", "sub", "rsub") and isinstance(
        node.args[1], int | float
    )


def factor_of(node: fx.Node) -> fx.Node | None:
    """The argument of a product of two computed tensors that is the gate; clamps come last."""
    computed = [a for a in node.args[:2] if isinstance(a, fx.Node) and not constant_behind(a)]
    for clamps in (False, True):
        gates = [a for a in computed if is_gate(a, clamps=clamps)]
        if len(computed) == 2 and gates:
            return gates[0] if len(gates) == 1 else None
    return None


def relu(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """ReLU, and leaky ReLU: a gate on the pre-activation."""
    slope = 0.0
    if name_of(node) == "leaky_relu":
        slope = float(arguments(node, ("negative_slope", 0.01))[0])
    if name_of(node) == "rrelu":
        builder.refuse(node, "a random leaky ReLU", "Use LeakyReLU with the mean slope")
    return _gated(builder, node, inputs[0], slope)


def absolute(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """|q| = q times a gate that is -1 where it is off."""
    return _gated(builder, node, inputs[0], -1.0)


def prelu(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """Leaky ReLU with learned slopes, one or one a channel; they belong to the gate."""
    held = constant_behind(node.args[1])
    if held is None:
        builder.refuse(node, "its slopes are computed", "Make them a parameter")
    slopes = [float(v) for v in builder.tensor(str(held.target)).detach().reshape(-1)]
    if len(slopes) == 1:
        return _gated(builder, node, inputs[0], slopes[0])
    return _gated(builder, node, builder.settle(node, inputs[0]), tuple(slopes))


def _gated(
    builder: Builder, node: fx.Node, layout: Layout, slope: float | tuple[float, ...]
) -> Layout:
    (whole,) = builder.settle_any(node, layout)
    seen, units = builder.argument(node), whole.elements()
    gate = builder.record(node, seen, "positive", whole.node.shape, units)
    return builder.unitwise(node, whole, Gate(gate, slope))


def clamp(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """Hardtanh, ReLU6, clamp: on between the bounds; beyond, a constant starts paths."""
    low, high = _bounds(node)
    if not low < high:
        what = "its bounds are computed, or leave nothing between them"
        builder.refuse(node, what, "Give two numbers, the smaller one first")
    if (low, high) == (0, math.inf):
        return _gated(builder, node, inputs[0], 0.0)
    (whole,) = builder.settle_any(node, inputs[0])
    seen, shape, units = builder.argument(node), whole.node.shape, whole.elements()
    bounds = low, high
    gate = builder.record(node, seen, "between", shape, units, bounds=bounds)
    levels = []
    for rule, level in (("below", low), ("above", high)):
        if level and math.isfinite(level):
            name = f"{gate}:{rule}"
            name = builder.record(node, seen, rule, shape, units, name=name, bounds=bounds)
            levels.append((name, level))
    return builder.unitwise(node, whole, Gate(gate, 0.0, tuple(levels)))


def _bounds(node: fx.Node) -> tuple[float, float]:
    if name_of(node) == "relu6":
        return 0.0, 6.0
    defaults = (-1.0, 1.0) if name_of(node) == "hardtanh" else (None, None)
    names = ("min_val", "max_val") if name_of(node) == "hardtanh" else ("min", "max")
    low, high = arguments(node, *zip(names, defaults, strict=True))
    if not all(isinstance(bound, int | float | None) for bound in (low, high)):
        return math.nan, math.nan
    return float(-math.inf if low is None else low), float(math.inf if high is None else high)


def self_gate(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """SiLU, hardswish, GELU, Mish: the value times a soft gate of itself."""
    if name_of(node) == "gelu" and arguments(node, ("approximate", "none"))[0] != "none":
        what = "a GELU by its tanh formula is not a value times a gate known here"
        builder.refuse(node, what, 'Use approximate="none"')
    (whole,) = builder.settle_any(node, inputs[0])
    seen, units = builder.argument(node), whole.elements()
    gate = builder.record(
        node, seen, _SELF_GATES[name_of(node)], whole.node.shape, units, hard=(seen.name, units)
    )
    return builder.unitwise(node, whole, Gate(gate))


def gated_half(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """GLU: one half of the channels times the sigmoid of the other."""
    shape = inputs[0].shape
    seen = builder.argument(node)
    axis = int(arguments(node, ("dim", -1))[0])
    axis = axis - 1 if axis > 0 else axis + len(shape)
    elements = np.arange(math.prod(shape)).reshape(shape)
    _, gates = np.split(elements, 2, axis)
    values, _ = np.split(inputs[0].numbers, 2, axis)
    (whole,) = builder.settle_any(node, inputs[0].with_units(np.ascontiguousarray(values)))
    units = _reordered(whole, gates, elements.size)
    gate = builder.record(node, seen, "sigmoid", whole.node.shape, units, hard=(seen.name, units))
    return builder.unitwise(node, whole, Gate(gate))


def external_gate(builder: Builder, node: fx.Node, inputs: list[Layout]) -> Layout:
    """A value times a gate that another part of the network makes: DGN, DLGN, excitation."""
    factor = factor_of(node)
    if factor is None or len(inputs) != 1:
        what = "it multiplies two values of which neither (or both) comes out of a gate operator"
        remedy = "Make the gate with npk::gate, a sigmoid, a hard sigmoid or a comparison with 0"
        builder.refuse(node, what, remedy)
    value = factor.meta["val"]
    if value.dim() != node.meta["val"].dim() or isinstance(value.shape[0], int):
        remedy = "Compute them from the network's input"
        builder.refuse(node, "its gates do not depend on the sample", remedy)
    (whole,) = builder.settle_any(node, inputs[0].broadcast(shape_of(node)))
    shape, chain = whole.node.shape, _chain(factor)
    seen = chain[-1]
    elements, kind = _elements_of(builder, node, chain), name_of(seen)
    origin = _reordered(whole, elements, math.prod(shape_of(seen)))
    preactivation = builder.argument(seen)
    is_plain = not any(map(_is_scaled, chain)) and elements.min() >= 0
    if kind == "gt" and seen.args[1] != 0:
        builder.refuse(node, f"it compares with {seen.args[1]}", "Compare with 0")
    if kind == "gt" or (kind == "gate" and seen.args[1]):
        if not is_plain:
            what = "it changes hard gates by a number, or pads them"
            builder.refuse(node, what, "Change the value instead")
        gate = builder.record(node, preactivation, "positive", shape, origin)
        return builder.unitwise(node, whole, Gate(gate))
    if any(not link.meta["val"].is_floating_point() for link in chain):
        remedy = "Compare the pre-activation with 0 for hard gates"
        builder.refuse(node, "it rounds soft gates to whole numbers", remedy)
    own = np.arange(math.prod(shape_of(factor))).reshape(shape_of(factor))
    units = _reordered(whole, np.broadcast_to(own, whole.shape), own.size)
    hard = (preactivation.name, origin) if is_plain and kind not in CLAMPS else None
    gate = builder.record(node, factor, "value", shape, units, hard=hard)
    return builder.unitwise(node, whole, Gate(gate))


def _chain(factor: fx.Node) -> list[fx.Node]:
    """From a factor back to the gate operator behind it."""
    chain = [factor]
    while name_of(chain[-1]) not in (*SOFT, *CLAMPS, "gate", "gt"):
        chain.append(chain[-1].args[0])  # type: ignore[arg-type]
    return chain


def _elements_of(builder: Builder, node: fx.Node, chain: list[fx.Node]) -> np.ndarray:
    """Flat element of the gate operator's value behind each element of the product."""
    shape = shape_of(chain[-1])
    layout = Layout.of(PathNode(chain[-1].name, Input(), (), shape), shape)
    for link in reversed(chain[:-1]):
        layout = move(builder, link, [layout]) if name_of(link) in (*ORDERED, *MOVES) else layout
    return layout.broadcast(shape_of(node)).numbers - 1


def _reordered(whole: Layout, elements: np.ndarray, size: int) -> np.ndarray | None:
    """The element, of ``size``, that each unit of the one source reads, of elements in the places
    of the layout; ``None``: its own.
    """
    order, flat = whole.elements(), elements.reshape(-1)
    flat = flat if order is None else flat[order]
    return None if np.array_equal(flat, np.arange(size)) else flat


RULES: dict[str, Callable[[Builder, fx.Node, list[Layout]], Layout]] = {
    **dict.fromkeys(("relu", "relu_", "leaky_relu", "rrelu"), relu),
    "abs": absolute,
    **dict.fromkeys(("prelu", "_prelu_kernel"), prelu),
    **dict.fromkeys(CLAMPS, clamp),
    **dict.fromkeys(_SELF_GATES, self_gate),
    "glu": gated_half,
}
