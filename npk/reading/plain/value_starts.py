"""Ones that a value path starts from, made without a batch axis: they are repeated for each sample."""

from torch import fx

from npk.reading.exported import CASTS, name_of
from npk.reading.plain.rewriting import ATEN, depending, made, refresh

# and the rank of one sample
_LAYERS = {"linear": 1, "conv1d": 2, "conv2d": 3, "conv3d": 4, "matmul": 1, "mm": 2}
_UNITWISE = (
    "add",
    "sub",
    "mul",
    "div",
    "neg",
    "relu",
    "leaky_relu",
    "dropout",
    "clone",
    "detach",
    "_to_copy",
    *_LAYERS,
)


def repeat_starts(program: fx.GraphModule) -> None:
    """Give ones that enter a layer as its value a batch axis, and all that is computed from them.

    Args:
        program: exported; it is changed.
    """
    repeated: set[fx.Node] = set()
    samples = depending(program.graph)
    for node in [n for n in program.graph.nodes if n not in samples]:
        layer = next(
            (user for user in node.users if name_of(user) in _LAYERS and user.args[0] is node), None
        )
        if layer is not None and _is_ones(node):
            repeated.add(_repeat(node, _LAYERS[name_of(layer)]))
        elif name_of(node) in _UNITWISE and repeated.intersection(node.all_input_nodes):
            refresh(node)
            repeated.add(node)


def _is_ones(node: fx.Node) -> bool:
    if name_of(node) in ("expand", "clone", "detach", "view", "reshape", "unsqueeze", *CASTS):
        return isinstance(node.args[0], fx.Node) and _is_ones(node.args[0])
    name, value = name_of(node), {"full": 1, "new_full": 2, "full_like": 1}.get(name_of(node))
    return name in ("ones", "new_ones", "ones_like") or (
        value is not None and bool(node.args[value] == 1)
    )


def _repeat(node: fx.Node, rank: int) -> fx.Node:
    """Ones of as many samples as the input has in the place of those of none, or of one."""
    graph, kept = node.graph, node.meta["val"]
    start = next(n for n in graph.nodes if n.op == "placeholder")
    sides = [int(side) for side in kept.shape]
    sides = sides[1:] if len(sides) > rank and sides[0] == 1 else sides
    after = next(user for user in sorted(node.users) if user.op != "output")
    count = made(after, ATEN.sym_size.int, start, 0)
    ones = made(
        after, ATEN.full.default, [count, *sides], 1.0, dtype=kept.dtype, device=kept.device
    )
    node.replace_all_uses_with(ones)
    return ones
