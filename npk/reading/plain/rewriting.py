"""Changes to an exported program before it is read: what they share, and their order."""

from typing import Any

import torch
from torch import fx

from npk.reading.exported import arguments, name_of

ATEN = torch.ops.aten
# torch's second names of operators
ALIASES = {
    **{
        "multiply": "mul",
        "subtract": "sub",
        "divide": "div",
        "true_divide": "div",
        "negative": "neg",
        "absolute": "abs",
    },
    **{
        "clip": "clamp",
        "greater": "gt",
        "greater_equal": "ge",
        "less": "lt",
        "less_equal": "le",
        "not_equal": "ne",
    },
    **{
        "concatenate": "cat",
        "moveaxis": "movedim",
        "swapdims": "transpose",
        "fmax": "maximum",
        "fmin": "minimum",
    },
}


def depending(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that depend on the samples, on how many there are, or on chance."""
    dependent: set[fx.Node] = set()
    for node in graph.nodes:
        chance = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        if node.op == "placeholder" or chance or any(a in dependent for a in node.all_input_nodes):
            dependent.add(node)
    return dependent


def made(before: fx.Node, operator: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A new call, put before a node and known by its module and source line."""
    with before.graph.inserting_before(before):
        node = before.graph.call_function(operator, args, kwargs)
    node.meta = {
        key: before.meta[key] for key in ("stack_trace", "nn_module_stack") if key in before.meta
    }
    refresh(node)
    return node


def refresh(node: fx.Node) -> None:
    """Find the shape and type of a node's value anew."""
    start = next(n for n in node.graph.nodes if n.op == "placeholder").meta["val"]
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda a: a.meta["val"])
    with start.fake_mode, torch.no_grad():
        node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]


def replace(node: fx.Node, other: fx.Node) -> None:
    """Let another node's value stand for that of a node."""
    node.replace_all_uses_with(other, delete_user_cb=lambda user: user is not other)


def in_evaluation(program: fx.GraphModule) -> None:
    """Put the operator in the place of each that is another one in evaluation mode: RReLU, instance
    norm with running statistics; amin.
    """
    for node in list(program.graph.nodes):
        match name_of(node):
            case "rrelu":
                lower, upper, training = arguments(
                    node, ("lower", 1 / 8), ("upper", 1 / 3), ("training", False)
                )
                if not training:
                    replace(
                        node, made(node, ATEN.leaky_relu.default, node.args[0], (lower + upper) / 2)
                    )
            case "instance_norm":
                value, weight, bias, mean, variance, by_sample, *rest = node.args
                if not by_sample and mean is not None and variance is not None:
                    replace(
                        node,
                        made(
                            node,
                            ATEN.batch_norm.default,
                            value,
                            weight,
                            bias,
                            mean,
                            variance,
                            False,
                            *rest,
                        ),
                    )
            case "amin":
                turned = made(
                    node,
                    ATEN.amax.default,
                    made(node, ATEN.neg.default, node.args[0]),
                    *node.args[1:],
                    **node.kwargs,
                )
                replace(node, made(node, ATEN.neg.default, turned))


def in_plain_names(program: fx.GraphModule) -> None:
    """Put torch's first names in the place of its second ones: clip is clamp."""
    for node in program.graph.nodes:
        plain = (
            ALIASES.get(name_of(node)) if getattr(node.target, "namespace", "") == "aten" else None
        )
        packet = getattr(ATEN, plain) if plain else None
        overload = getattr(node.target, "_overloadname", "default")
        if packet is not None and overload in packet.overloads():
            node.target = getattr(packet, overload)
