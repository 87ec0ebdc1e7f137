"""What does not depend on the sample: computed once while reading, a weight like any parameter.

A network computes weights from parameters in evaluation mode too: weight norm, spectral norm, masks
of pruning, a frozen batch norm, low-rank updates. The kernel takes the computed tensor for the
layer's weight. Its *leaves*, the parameters that it is computed from, are kept: two weights that
have one in common are not independent.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from npk.reading.exported import constant_behind, module_of, name_of
from npk.reading.plain.rewriting import depending

Leaves = Mapping[str, frozenset[str]]
_LAYERS = {
    *"linear batch_norm conv1d conv2d conv3d".split(),
    *(f"conv_transpose{rank}d" for rank in (1, 2, 3)),
}
_TURNS = ("t", "transpose", "permute", "numpy_T", "swapaxes")


def turned(argument: object) -> fx.Node | None:
    """The parameter behind a matrix's transpose, ``None`` if the argument is none."""
    if not isinstance(argument, fx.Node) or name_of(argument) not in _TURNS:
        return None
    node: Any = argument.args[0]
    sides = tuple(node.meta["val"].shape)
    return node if len(sides) == 2 and _swaps(argument) else None


def _swaps(node: fx.Node) -> bool:
    numbers = [int(v) % 2 for v in _numbers(node)]
    return numbers != [0, 1] if name_of(node) == "permute" else numbers in ([], [0, 1], [1, 0])


def _numbers(node: fx.Node) -> list[Any]:
    return [v for a in node.args[1:] for v in (a if isinstance(a, list | tuple) else [a])]


def fold(program: fx.GraphModule, read: set[str]) -> dict[str, frozenset[str]]:
    """Compute what does not depend on the samples, and hold it in the program as a buffer.

    Args:
        program: exported; it is changed.
        read: takes the names of the parameters and buffers that computed tensors rest on.

    Returns:
        For the name of each computed tensor, the parameters that it is computed from (its buffers,
        where there are none).
    """
    graph, changing = program.graph, depending(program.graph)
    values: dict[fx.Node, Any] = {}
    expressions: dict[fx.Node, Any] = {}
    leaves: dict[str, frozenset[str]] = {}
    names: dict[Any, str] = {}
    for node in list(graph.nodes):
        if node in changing or node.op not in ("get_attr", "call_function"):
            continue
        values[node], expressions[node] = (
            _computed(program, node, values),
            _expression(node, expressions),
        )
        users = [user for user in node.users if user in changing]
        if not users or not isinstance(values[node], torch.Tensor) or not _is_computed(node, users):
            continue
        if expressions[node] not in names:
            name = names[expressions[node]] = _name(program, node, users[0], set(leaves))
            _hold(program, name, values[node])
            leaves[name] = _leaves(program, node, read)
        _read_from(node, names[expressions[node]], users)
    return leaves


def _is_computed(node: fx.Node, users: list[fx.Node]) -> bool:
    """Whether a value is more than a parameter, or its transpose for a linear layer."""
    if turned(node) is not None and constant_behind(turned(node)):
        return not all(name_of(user) == "linear" and user.args[1] is node for user in users)
    return constant_behind(node) is None


def tensor_of(program: fx.GraphModule, name: str) -> Any:
    """The tensor that a program holds under a name."""
    owner: Any = program
    for part in name.split("."):
        owner = getattr(owner, part)
    return owner


def _computed(program: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    if node.op == "get_attr":
        return tensor_of(program, str(node.target))
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda a: values[a])
    with torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]


def _expression(node: fx.Node, known: dict[fx.Node, Any]) -> Any:
    """What a node computes, so that the same computation is one weight wherever it stands."""
    if node.op == "get_attr":
        return str(node.target)
    return str(node.target), str(fx.map_arg((node.args, dict(node.kwargs)), lambda a: known[a]))  # type: ignore[arg-type]


def _leaves(program: fx.GraphModule, node: fx.Node, read: set[str]) -> frozenset[str]:
    stack, met = [node], set()
    while stack:
        one = stack.pop()
        if one not in met:
            met.add(one)
            stack += one.all_input_nodes
    held = {str(one.target): _computed(program, one, {}) for one in met if one.op == "get_attr"}
    read.update(held)
    parameters = frozenset(
        name for name, tensor in held.items() if isinstance(tensor, torch.nn.Parameter)
    )
    return parameters or frozenset(held)


def _name(program: fx.GraphModule, node: fx.Node, user: fx.Node, taken: set[str]) -> str:
    """The name of a computed tensor: that of the module which uses it, and what it is there."""
    role = (
        dict(zip(user.args[1:3], ("weight", "bias"), strict=False)).get(node)
        if name_of(user) in _LAYERS
        else None
    )  # type: ignore[arg-type]
    path = [part for part in (module_of(user), f"computed_{role or node.name}") if part]
    name, count = ".".join(path), 1
    while name in taken or _exists(program, name):
        count += 1
        name = ".".join([*path[:-1], f"{path[-1]}_{count}"])
    return name


def _exists(program: fx.GraphModule, name: str) -> bool:
    owner: Any = program
    for part in name.split("."):
        if not hasattr(owner, part):
            return False
        owner = getattr(owner, part)
    return True


def _hold(program: fx.GraphModule, name: str, value: torch.Tensor) -> None:
    *path, last = name.split(".")
    module: torch.nn.Module = program
    for part in path:
        if not hasattr(module, part):
            module.add_module(part, torch.nn.Module())
        module = getattr(module, part)
    module.register_buffer(last, value.detach())


def _read_from(node: fx.Node, name: str, users: list[fx.Node]) -> None:
    """Let the users of a node read the tensor of that name."""
    graph = node.graph
    with graph.inserting_before(node):
        held = graph.create_node("get_attr", name)
    held.meta = {**node.meta}
    for user in users:
        user.replace_input_with(node, held)
