"""What users call the parts of a network: layers, gate layers and blocks; and the path graph
without one of them.

A *layer* is linear or convolutional: what has weights between channels. A *block* is an addition,
numbered from 1 in the order of the path graph; what it adds is its branch of more layers.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial

from npk.errors import OptionError
from npk.graph.node import PathNode, module_of
from npk.graph.operators import Add, Convolution, Gate
from npk.graph.path_graph import PathGraph

_SHOWN = 12  # names that an error lists


def layers_of(graph: PathGraph) -> tuple[PathNode, ...]:
    """The linear and convolutional layers, from the input on.

    Args:
        graph: of a network.

    Returns:
        Their nodes.
    """
    return tuple(node for node in graph.nodes if isinstance(node.operator, Convolution))


def blocks_of(graph: PathGraph) -> tuple[PathNode, ...]:
    """The additions: block k is the entry k - 1.

    Args:
        graph: of a network.

    Returns:
        Their nodes.
    """
    return tuple(node for node in graph.nodes if isinstance(node.operator, Add))


def layer_named(graph: PathGraph, name: str) -> PathNode:
    """The layer of a name: that of its module, or of its node.

    Args:
        graph: of a network.
        name: as `npk inspect` shows it.

    Returns:
        The layer.

    Raises:
        OptionError: there is none, or several layers have the name.
    """
    layers = layers_of(graph)
    found = [node for node in layers if name in (module_of(node), node.name)]
    if not found:
        _refuse_name("layer", name, [module_of(node) for node in layers])
    if len(found) > 1:
        names = ", ".join(node.name for node in found)
        raise OptionError(f"{len(found)} layers have the name {name!r}. Choose one of {names}.")
    return found[0]


def without_gates(graph: PathGraph, name: str) -> PathGraph:
    """The path graph with ones in the place of the gates of one layer.

    Args:
        graph: of a network.
        name: of the gate layer, as `npk inspect` shows it.

    Returns:
        The other graph.

    Raises:
        OptionError: there is no such gate layer, or it is a max pool, which chooses.
    """
    readers = [node for node in graph.nodes if name in node.entries]
    if not readers:
        _refuse_name("gate layer", name, [module_of(node) for node in graph.gates])
    if any(not isinstance(node.operator, Gate) for node in readers):
        raise OptionError(
            f"{name!r} is a max pool, whose choice has no ones to put in its place. Leave out "
            "another gate layer."
        )
    return _passing(graph, {node.name: node.inputs[0] for node in readers})


def without_block(graph: PathGraph, block: int) -> PathGraph:
    """The path graph without what one block adds: its branch of more layers.

    Args:
        graph: of a network.
        block: number of the addition, from 1.

    Returns:
        The other graph.

    Raises:
        OptionError: there is no such block.
    """
    sums = blocks_of(graph)
    if not 1 <= block <= len(sums):
        have = f"blocks 1 to {len(sums)}" if sums else "no block: nothing is added in it"
        raise OptionError(f"block={block}, but the network has {have}. Choose another part.")
    node = sums[block - 1]
    return sub_network(graph, {node.name: 1 - longer_branch(graph, node)})


def last_layers_of(graph: PathGraph, block: int, *, biases: bool = False) -> frozenset[str] | None:
    """The layers through which what a block adds comes, if all of it passes one of them, and
    nothing else does.

    Args:
        graph: of a network.
        block: number of the addition, from 1.
        biases: whether paths that start at biases and shifts count too; that from the bias of a
            layer passes the layer.

    Returns:
        Names of nodes; ``None`` where paths through the block cannot be told by their layers.

    Raises:
        OptionError: there is no such block.
    """
    rest = {node.name for node in layers_of(without_block(graph, block))}
    node = blocks_of(graph)[block - 1]
    found, stack = set(), [node.inputs[longer_branch(graph, node)]]
    while stack:
        here = graph[stack.pop()]
        if isinstance(here.operator, Convolution):
            found.add(here.name)
        elif not here.inputs or (biases and here.operator.begins):
            return None
        stack += [] if here.name in found else here.inputs
    return None if found & rest else frozenset(found)


def sub_network(graph: PathGraph, choice: Mapping[str, int]) -> PathGraph:
    """The path graph in which some additions let only one of their branches through.

    Args:
        graph: of a network.
        choice: number of the branch, 0 or 1, by the name of the addition.

    Returns:
        The other graph.
    """
    return _passing(graph, {name: graph[name].inputs[branch] for name, branch in choice.items()})


def longer_branch(graph: PathGraph, node: PathNode) -> int:
    """Which branch of a sum has more layers on its longest path: 0 or 1.

    Args:
        graph: of the node.
        node: an addition.

    Returns:
        The number of the branch; the first of two that are alike.
    """
    longest: dict[str, int] = {}
    for each in graph.nodes:
        before = max((longest[name] for name in each.inputs), default=0)
        longest[each.name] = before + isinstance(each.operator, Convolution)
    counts = [longest[name] for name in node.inputs]
    return counts.index(max(counts))


def _passing(graph: PathGraph, shown: Mapping[str, str]) -> PathGraph:
    """The graph in which some nodes show another one's values instead of their own."""
    names: dict[str, str] = {}
    for node in graph.nodes:  # in order, so that what is shown is known
        names[node.name] = names[shown[node.name]] if node.name in shown else node.name
    own: Callable[[PathNode], PathNode] = partial(_renamed, names=names)
    last, kept = names[graph.output.name], []
    needed = {last}
    for node in map(own, reversed(graph.nodes)):
        if node.name in needed and node.name not in shown:
            kept.append(node)
            needed.update(node.inputs)
    return PathGraph(tuple(reversed(kept)), graph.input_shape)


def _renamed(node: PathNode, names: Mapping[str, str]) -> PathNode:
    return dataclasses.replace(node, inputs=tuple(names[name] for name in node.inputs))


def _refuse_name(kind: str, name: str, known: list[str]) -> None:
    shown = ", ".join(dict.fromkeys(known[:_SHOWN])) or "none"
    more = (
        f" and {len(known) - _SHOWN} more (npk inspect lists them)" if len(known) > _SHOWN else ""
    )
    raise OptionError(f"there is no {kind} {name!r}. Choose one of {shown}{more}.")
