"""How each exported operator is read: one rule an operator, from a traced node to a node of the path graph, or a refusal.

To teach npk an operator, write its rule here and add it to ``RULES``.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import fx

from npk.dual.path_graph import Add, AveragePool, BatchNorm, Convolution, Gate, Input, MaxPool, Pad, PathNode
from npk.dual.positions import Window

if TYPE_CHECKING:
    from npk.dual.tracing import Reader

ONES = ("ones_like", "new_ones", "ones", "full_like")
_GATES = ("gate", "sigmoid", "gt")
_CASTS = ("_to_copy", "to")


def name_of(node: fx.Node) -> str:
    """Operator name without overload, and without namespace where it is torch's or npk's: aten.conv2d.padding -> conv2d."""
    if node.op != "call_function":
        return node.op
    name = str(getattr(node.target, "_opname", None) or getattr(node.target, "__name__", node.target)).split(".")[0]
    namespace = getattr(node.target, "namespace", "aten")
    return name if namespace in ("aten", "npk") else f"{namespace}::{name}"


def is_gate(node: object) -> bool:
    """Whether an argument comes out of a gate operator."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return False
    return name_of(node) in _GATES or (name_of(node) in _CASTS and is_gate(node.args[0]))


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of a value without the batch axis."""
    return tuple(int(side) for side in node.meta["val"].shape[1:])


def module_of(node: fx.Node) -> str:
    """Path of the innermost module that made the node."""
    stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    path = stack[-1] if stack else ""
    return "" if path.startswith("_empty") else path.removeprefix("L['self'].")


def source_of(node: fx.Node) -> str:
    """File and line of the user's call, or of the module's own code."""
    frames = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip().startswith("File")]
    own = [frame for frame in frames if "/torch/" not in frame] or frames
    if not own:
        return node.name
    file, line, *_ = own[-1].removeprefix("File ").split(", ")
    return f"{file.strip(chr(34)).rsplit('/', 1)[-1]}:{line.removeprefix('line ')}"


def _arguments(node: fx.Node, *defaults: tuple[str, Any]) -> list[Any]:
    """Arguments after the first by the operator's own names, with defaults."""
    given = list(node.args[1:])
    return [given[i] if i < len(given) else node.kwargs.get(name, default) for i, (name, default) in enumerate(defaults)]


def _spread(value: Any, rank: int) -> tuple[int, ...]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return tuple(int(v) for v in (values * rank if len(values) == 1 else values))


def _on_grid(reader: "Reader", node: fx.Node, before: PathNode) -> None:
    """Refuse operators on positions where torch sees a flattened value, or takes the batch for the channels."""
    seen, rank = shape_of(reader.argument(node)), name_of(node).removesuffix("d")[-1]
    if seen != before.shape:
        reader.refuse(node, f"it works on positions of {seen}, which is {before.shape} flattened", "Put it before the flatten")
    if rank.isdigit() and int(rank) != len(before.grid):
        reader.refuse(node, f"it works on {rank} axes of samples of shape {seen}", "Give samples as (channels, *positions)")


def _input(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    return reader.add(node, Input(), [])


def _ones(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    if name_of(node) == "full_like" and node.args[1] != 1:
        reader.refuse(node, f"the network starts from the constant {node.args[1]}", "Start it from its input or from ones")
    if node.meta["val"].dim() < 2:
        reader.refuse(node, "it makes ones without a batch axis", "Use torch.ones_like of the input")
    return reader.add(node, Input(ones=True), [])


def _same(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    return inputs[0]


def _cast(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    if not node.meta["val"].is_floating_point():
        reader.refuse(node, f"it turns values into {node.meta['val'].dtype}", "Keep them floating-point numbers")
    return inputs[0]


def _item(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    if node.args[1] != 0 or name_of(reader.argument(node)) != "_native_batch_norm_legit_no_training":
        reader.refuse(node, "it takes a part of a value", "Return whole tensors")
    return inputs[0]


def _dropout(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    if node.args[2]:
        reader.refuse(node, "dropout in train mode draws new gates at every call", "Call net.eval() first")
    return inputs[0]


def _reshape(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    """Flatten, or the first view of the input; channels stay in front, so flat order is (channel, position)."""
    before, after = inputs[0], shape_of(node)
    same_size = math.prod(before.shape) == math.prod(after)
    if isinstance(before.operator, Input) and same_size and after:
        return reader.add(node, before.operator, [], after)
    if not same_size or len(after) != 1:
        if before.shape != after:
            reader.refuse(node, f"it reshapes {before.shape} to {after}", "Only flattening everything but the batch axis is understood")
    return before


def _convolution(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    weight, bias, stride, padding, dilation, groups = _arguments(
        node, ("weight", None), ("bias", None), ("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)
    )
    _on_grid(reader, node, inputs[0])
    kernel = tuple(int(side) for side in weight.meta["val"].shape[2:])
    rank = len(kernel)
    if groups != 1:
        reader.refuse(node, f"a convolution in {groups} groups", "This version reads convolutions with groups=1")
    stride, dilation = _spread(stride, rank), _spread(dilation, rank)
    window = Window(kernel, stride, _padding(padding, kernel, dilation), dilation)
    return reader.add(node, Convolution(reader.parameter(node, weight), _bias(reader, node, bias), window), inputs)


def _padding(padding: object, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((p, p) for p in _spread(padding, len(kernel)))


def _bias(reader: "Reader", node: fx.Node, bias: object) -> str | None:
    return None if bias is None else reader.parameter(node, bias)


def _linear(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    weight, bias = _arguments(node, ("weight", None), ("bias", None))
    before, shape = inputs[0], shape_of(node)
    width = int(weight.meta["val"].shape[1])
    if len(shape) != 1 or width != math.prod(before.shape):
        reader.refuse(node, f"a linear layer on the last axis of {before.shape} only", "Flatten first, or use a convolution with kernel 1")
    operator = Convolution(reader.parameter(node, weight), _bias(reader, node, bias), Window.whole(before.grid))
    return reader.add(node, operator, inputs)


def _batch_norm(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    weight, bias, mean, variance, _, epsilon = _arguments(
        node, *((name, None) for name in ("weight", "bias", "mean", "var", "momentum", "eps"))
    )
    before = inputs[0]
    if shape_of(reader.argument(node))[0] != before.channels:
        reader.refuse(node, "batch norm of flattened positions has a weight for each position", "Put it before the flatten")
    factor, shift = (None if a is None else reader.parameter(node, a) for a in (weight, bias))
    operator = BatchNorm(factor, shift, reader.parameter(node, mean), reader.parameter(node, variance), float(epsilon))
    return reader.add(node, operator, inputs, before.shape)


def _train_mode_norm(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    reader.refuse(node, "batch norm in train mode depends on the batch", "Call net.eval() first")


def _relu(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    slope = float(_arguments(node, ("negative_slope", 0.01))[0]) if name_of(node) == "leaky_relu" else 0.0
    gate = reader.record(node, reader.argument(node), "positive", inputs[0].shape)
    return reader.add(node, Gate(gate, slope), inputs, inputs[0].shape)


def _external_gate(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    gates = [a for a in node.args if is_gate(a)]
    if len(gates) != 1 or len(inputs) != 1:
        what = "it multiplies two values of which neither (or both) comes out of a gate operator"
        reader.refuse(node, what, "Make the gate with npk::gate, a sigmoid or a comparison with 0")
    before = inputs[0]
    _fits(reader, node, gates[0], before)
    seen, whole = _source_gate(gates[0])
    preactivation = reader.argument(seen)
    if name_of(seen) == "gt" and seen.args[1] != 0:
        reader.refuse(node, f"it compares with {seen.args[1]}", "Compare with 0")
    if name_of(seen) == "gt" or (name_of(seen) == "gate" and seen.args[1]):
        return reader.add(node, Gate(reader.record(node, preactivation, "positive", before.shape)), inputs, before.shape)
    if whole:
        reader.refuse(node, "it rounds soft gates to whole numbers", "Compare the pre-activation with 0 for hard gates")
    name = reader.record(node, seen, "value", before.shape, hard=preactivation.name)
    return reader.add(node, Gate(name), inputs, before.shape)


def _source_gate(gate: Any) -> tuple[fx.Node, bool]:
    """The gate operator behind casts, and whether one of the casts rounds."""
    whole = False
    while name_of(gate) in _CASTS:
        whole |= not gate.meta["val"].is_floating_point()
        gate = gate.args[0]
    return gate, whole


def _fits(reader: "Reader", node: fx.Node, gate: Any, before: PathNode) -> None:
    """Gates may be repeated over positions or channels; values never, and a gate belongs to a sample."""
    value = next(shape_of(a) for a in node.args if isinstance(a, fx.Node) and not is_gate(a))
    shape = shape_of(gate)
    if shape_of(node) != value or value not in (before.shape, shape):
        reader.refuse(node, f"gates of shape {shape} multiply values of shape {value}", "Give both the same shape")
    if gate.meta["val"].dim() != node.meta["val"].dim() or isinstance(gate.meta["val"].shape[0], int):
        reader.refuse(node, "its gates do not depend on the sample", "Compute them from the network's input")


def _average_pool(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    names = (
        ("kernel_size", 1),
        ("stride", []),
        ("padding", 0),
        ("ceil_mode", False),
        ("count_include_pad", True),
        ("divisor_override", None),
    )
    kernel, stride, padding, ceil, count, divisor = _arguments(node, *names)
    if divisor is not None:
        reader.refuse(node, "average pool with divisor_override", "Use the plain mean")
    window = _pool_window(reader, node, (kernel, stride, padding, 1, ceil), inputs[0])
    return reader.add(node, AveragePool(window, bool(count)), inputs)


def _max_pool(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    names = (("kernel_size", 1), ("stride", []), ("padding", 0), ("dilation", 1), ("ceil_mode", False))
    window = _pool_window(reader, node, tuple(_arguments(node, *names)), inputs[0])
    gate = reader.record(node, reader.argument(node), "selection", shape_of(node), window=window)
    return reader.add(node, MaxPool(gate, window), inputs)


def _pool_window(reader: "Reader", node: fx.Node, arguments: tuple[Any, ...], before: PathNode) -> Window:
    kernel, stride, padding, dilation, ceil = arguments
    _on_grid(reader, node, before)
    rank = len(before.grid)
    kernel = _spread(kernel, rank)
    window = Window(kernel, _spread(stride or kernel, rank), _padding(padding, kernel, (1,) * rank), _spread(dilation, rank))
    if ceil and window.output(before.grid) != shape_of(node)[1:]:
        reader.refuse(node, "a pool with ceil_mode whose last window leaves the image", "Set ceil_mode=False")
    return window


def _adaptive_pool(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    _on_grid(reader, node, inputs[0])
    before, after = inputs[0].grid, shape_of(node)[1:]
    if any(n % m for n, m in zip(before, after, strict=True)):
        reader.refuse(node, f"an adaptive pool from {before} to {after}, whose windows differ in size", "Choose sides that divide")
    kernel = tuple(n // m for n, m in zip(before, after, strict=True))
    ones = (1,) * len(kernel)
    return reader.add(node, AveragePool(Window(kernel, kernel, ((0, 0),) * len(kernel), ones)), inputs)


def _mean(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    before = inputs[0]
    _on_grid(reader, node, before)
    rank = len(before.shape) + 1
    axes = sorted(int(a) % rank for a in _arguments(node, ("dim", None))[0] or [])
    if axes != list(range(2, rank)) or rank < 3:
        reader.refuse(node, f"a mean over axes {axes}", "Only the mean over all positions (a global average pool) is understood")
    return reader.add(node, AveragePool(Window.whole(before.grid)), inputs)


def _pad(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    widths, mode, value = _arguments(node, ("pad", []), ("mode", "constant"), ("value", None))
    before = inputs[0]
    _on_grid(reader, node, before)
    pairs = [(int(widths[i]), int(widths[i + 1])) for i in range(0, len(widths), 2)][::-1]
    if value or len(pairs) > len(before.grid) or min(map(min, pairs)) < 0:
        reader.refuse(node, f"a pad by {list(widths)} with value {value}", "Pad positions only, with zeros, by widths of 0 or more")
    pairs = [(0, 0)] * (len(before.grid) - len(pairs)) + pairs
    return reader.add(node, Pad(tuple(pairs), str(mode)), inputs)


def _add(reader: "Reader", node: fx.Node, inputs: list[PathNode]) -> PathNode:
    if len(inputs) != 2 or node.kwargs.get("alpha", 1) != 1:
        reader.refuse(node, "it adds a constant or a multiple", "Make the constant a bias of a layer; give the branch its own weights")
    first, second = (shape_of(a) for a in node.args[:2] if isinstance(a, fx.Node))
    if inputs[0].shape != inputs[1].shape or first != second:
        what = f"it adds shapes {first} and {second}, before any flatten {inputs[0].shape} and {inputs[1].shape}"
        reader.refuse(node, what, "Give both branches the same shape")
    return reader.add(node, Add(), inputs, inputs[0].shape)


Rule = Callable[["Reader", fx.Node, list[PathNode]], PathNode]
RULES: dict[str, Rule] = {
    "input": _input,
    **dict.fromkeys(ONES, _ones),
    **dict.fromkeys(("clone", "detach", "alias", "contiguous", "identity"), _same),
    **dict.fromkeys(_CASTS, _cast),
    "getitem": _item,
    **dict.fromkeys(("dropout", "native_dropout"), _dropout),
    **dict.fromkeys(("view", "flatten", "reshape", "_unsafe_view", "unsqueeze", "squeeze"), _reshape),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    "linear": _linear,
    "_native_batch_norm_legit_no_training": _batch_norm,
    **dict.fromkeys(("_native_batch_norm_legit", "_native_batch_norm_legit_functional"), _train_mode_norm),
    **dict.fromkeys(("relu", "relu_", "leaky_relu"), _relu),
    "mul": _external_gate,
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _average_pool),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), _max_pool),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), _adaptive_pool),
    "mean": _mean,
    "pad": _pad,
    **dict.fromkeys(("add", "add_"), _add),
}
