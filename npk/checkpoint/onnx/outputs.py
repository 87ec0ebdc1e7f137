"""Which nodes of an ONNX graph lead to the output that is asked for, and what they are called."""

import difflib
import re
from pathlib import Path
from typing import Any

import numpy as np

from npk.errors import UnsupportedGraphError

ML = "ai.onnx.ml"
# What stands between the scores of a classifier and its label.
_AT_THE_END = ("Softmax", "LogSoftmax", "Sigmoid", "Identity")


def full_name(node: Any) -> str:
    """The operator, after its domain where that is not ONNX's own."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def needed(nodes: Any, results: list[str]) -> list[Any]:
    """The nodes that lead to a result, in order."""
    wanted, kept = set(results), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def spelled_out(nodes: Any, constants: dict[str, np.ndarray]) -> list[Any]:
    """The nodes, each Scaler as a difference and a product; its numbers become constants."""
    from onnx import helper

    nodes_made: list[Any] = []
    for node in nodes:
        if full_name(node) != f"{ML}.Scaler":
            nodes_made.append(node)
            continue
        numbers = {
            a.name: np.asarray(helper.get_attribute_value(a), np.float32) for a in node.attribute
        }
        steps = [
            (op, numbers[key])
            for op, key in (("Sub", "offset"), ("Mul", "scale"))
            if key in numbers
        ]
        value = node.input[0]
        for i, (op, number) in enumerate(steps):
            held = f"{node.output[0]}/{op}"
            constants[held] = number
            result = node.output[0] if i == len(steps) - 1 else f"{node.output[0]}/shifted"
            nodes_made.append(
                helper.make_node(op, [value, held], [result], f"{node.name or node.output[0]}_{op}")
            )
            value = result
        if not steps:
            nodes_made.append(helper.make_node("Identity", [value], [node.output[0]], node.name))
    return nodes_made


def module_names(nodes: list[Any], constants: dict[str, np.ndarray], taken: Any) -> dict[str, Any]:
    """The nodes that become modules, by the names of these: their own, where they can be the name
    of a module.

    Args:
        nodes: of the graph, in order.
        constants: values that the file holds.
        taken: whether the name of a module is not free.

    Returns:
        The nodes that do not depend on constants alone, by name, in order.
    """
    held, names = set(constants), {}
    for node in nodes:
        if all(not name or name in held for name in node.input):
            held.update(node.output)
            continue
        name = re.sub(r"\W+", "_", node.name).strip("_") or f"{node.op_type}_{len(names)}"
        names[f"{name}_{len(names)}" if name in names or taken(name) else name] = node
    return names


def chosen(path: Path, output: int | str, results: list[str], modules: dict[str, Any]) -> str:
    """The value that an output names: the output of a module, a value of the graph by its own name,
    or the number of a result.

    Args:
        path: of the file, for the message.
        output: as :func:`npk.choose_output` takes it.
        results: names of the outputs of the graph.
        modules: the nodes by the names of their modules.

    Returns:
        The name of the value.

    Raises:
        UnsupportedGraphError: nothing has that name, or it names several values.
    """
    plain = re.sub(r"\W+", "_", str(output)).strip("_")
    values = [name for node in modules.values() for name in node.output if name]
    number = int(output) if str(output).removeprefix("-").isdigit() else len(results)
    node = modules.get(str(output))
    if node is None and output not in (*values, *results):
        if -len(results) <= number < len(results):
            return results[number]
        node = modules.get(plain)
    if node is None and output in (*values, *results):
        return str(output)
    if node is not None:
        made = [name for name in node.output if name]
        if len(made) == 1:
            return made[0]
        raise UnsupportedGraphError(
            f"{path}: {output!r} gives {len(made)} values. Choose one of them: {', '.join(made)}."
        )
    near = difflib.get_close_matches(str(output), [*modules, *values], n=3, cutoff=0.4)
    remedy = f"Did you mean {' or '.join(near)}?" if near else "npk inspect shows its modules."
    raise UnsupportedGraphError(
        f"{path} has no output {output!r}: its outputs are {', '.join(results)}, and no node has "
        f"that name. {remedy}"
    )


def last_before(modules: dict[str, Any], unknown: set[str]) -> list[str]:
    """The modules whose values go into operators that cannot be read, and that need none of these
    themselves; of probabilities, the scores before them.

    Args:
        modules: the nodes by the names of their modules, in order.
        unknown: names of modules that cannot be read.

    Returns:
        Their names, the last first.
    """
    maker = {value: name for name, node in modules.items() for value in node.output if value}
    lost, readable = set(unknown), []
    for name, node in modules.items():
        before = [maker[value] for value in node.input if value in maker]
        if name in unknown or lost & set(before):
            readable += [one for one in before if one not in lost and one not in readable]
            lost.add(name)
    return list(dict.fromkeys(_scores_of(name, modules, maker) for name in readable[::-1]))


def _scores_of(name: str, modules: dict[str, Any], maker: dict[str, str]) -> str:
    """The module before a softmax or sigmoid at the end, which is no sum over paths."""
    while modules[name].op_type in _AT_THE_END and modules[name].input[0] in maker:
        name = maker[modules[name].input[0]]
    return name
