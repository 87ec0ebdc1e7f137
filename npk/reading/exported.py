"""What a node of an exported program says of itself: operator, shape, module, line, arguments."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import fx

_TRACERS = [Path(__file__).with_name(f"{name}.py") for name in ("apart", "exporting", "hooks")]
SAME = ("clone", "detach", "alias", "contiguous", "identity", "lift_fresh_copy")
CASTS = ("_to_copy", "to", "type_as")
# keep the flat order
ORDERED = ("view", "flatten", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "unflatten")
NUMBER = "npk number"  # in a node's meta: the number that all its values are, for every sample


def name_of(node: fx.Node) -> str:
    """Operator name without overload, and without torch's or npk's namespace: conv2d."""
    if node.op != "call_function":
        return node.op
    name = str(
        getattr(node.target, "_opname", None) or getattr(node.target, "__name__", node.target)
    ).split(".")[0]
    namespace = getattr(node.target, "namespace", "aten")
    return name if namespace in ("aten", "npk") else f"{namespace}::{name}"


def is_tensor(node: object) -> bool:
    """Whether an argument is a tensor that the program computes or holds."""
    return isinstance(node, fx.Node) and (
        node.op == "get_attr" or isinstance(node.meta.get("val"), torch.Tensor | list | tuple)
    )


def constant_behind(argument: object) -> fx.Node | None:
    """The parameter or buffer behind a view of it, every number of it once."""
    node = argument
    views = (*SAME, *CASTS, *ORDERED, "expand")
    while isinstance(node, fx.Node) and name_of(node) in views and node.args:
        node = node.args[0]
    if not isinstance(node, fx.Node) or node.op != "get_attr" or not isinstance(argument, fx.Node):
        return None
    shown, held = argument.meta.get("val"), node.meta.get("val")
    return node if shown is None or held is None or shown.numel() == held.numel() else None


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of a value (the first, where there are several) without the batch axis."""
    return tuple(int(side) for side in _first_value(node).shape[1:])


def _first_value(node: fx.Node) -> Any:
    value: Any = node.meta["val"]
    return value[0] if isinstance(value, list | tuple) else value


def is_batched(node: fx.Node) -> bool:
    """Whether the first axis of the (first) result, and no other, has the length of the batch."""
    batch = str(next(n for n in node.graph.nodes if n.op == "placeholder").meta["val"].shape[0])
    sides = _first_value(node).shape
    return (
        len(sides) > 0
        and str(sides[0]) == batch
        and all(isinstance(side, int) for side in sides[1:])
    )


def is_led(node: fx.Node) -> bool:
    """Whether the axis of the batch is there once, behind another one."""
    batch = str(next(n for n in node.graph.nodes if n.op == "placeholder").meta["val"].shape[0])
    sides = [str(side) for side in _first_value(node).shape]
    return sides[:1] != [batch] and sides.count(batch) == 1


def module_of(node: fx.Node) -> str:
    """Path of the innermost module that made the node."""
    stack = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    path = stack[-1] if stack else ""
    return "" if path.startswith("_empty") else path.removeprefix("L['self'].")


def source_of(node: fx.Node) -> str:
    """File and line of the user's call, or of the module's own code."""
    frames = re.findall(
        r'^\s*File "?([^"\n]+?)"?, line '
        r"(\d+)",
        node.meta.get("stack_trace") or "",
        re.MULTILINE,
    )
    frames = [(file, int(line)) for file, line in frames if Path(file) not in _TRACERS]
    own = [(file, line) for file, line in frames if is_users(file)] or frames
    return place(*own[-1]) if own else node.name


def is_users(file: str) -> bool:
    """Whether a file is the network's own code: not torch's, and not npk's that runs it."""
    return (
        "/torch/" not in Path(file).as_posix()
        and Path(file) not in _TRACERS
        and "concurrent/futures" not in file
    )


def place(file: str, line: int | None) -> str:
    """File and line, for a message."""
    return f"{Path(file).name}:{line}"


def arguments(node: fx.Node, *defaults: tuple[str, Any]) -> list[Any]:
    """Arguments after the first by the operator's own names, with defaults."""
    given = list(node.args[1:])
    return [
        given[i] if i < len(given) else node.kwargs.get(name, default)
        for i, (name, default) in enumerate(defaults)
    ]


def spread(value: Any, rank: int) -> tuple[int, ...]:
    """A number or a list of numbers as one number an axis."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return tuple(int(v) for v in (values * rank if len(values) == 1 else values))
