"""When do different paths have different products of weights? Where they might not, the graph is refused.

The recursion adds up second moments: cross terms vanish because distinct products of independent weights are uncorrelated. That holds when
no parameter is met twice on a path, when the branches of a sum differ by a parametric layer, and when a rearrangement that mixes
channels over the positions mixes independent ones only.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from npk.dual.path_operators import Add, BatchNorm, Convolution, Input, Part, Rearrange, bias_of, parameters_of
from npk.errors import UnsupportedGraphError

if TYPE_CHECKING:
    from npk.dual.path_graph import PathGraph, PathNode


def refuse_dependent_paths(graph: "PathGraph") -> None:
    """Check a whole graph.

    Raises:
        UnsupportedGraphError: paths that the recursion would take for independent may share their weights.
    """
    _refuse_reuse(graph)
    for node in graph.nodes:
        if isinstance(node.operator, Add):
            for i, first in enumerate(node.inputs):
                if any(_share_a_path_type(graph, first, second) for second in node.inputs[i + 1 :]):
                    raise UnsupportedGraphError(
                        f"node {node.name} ({node.source}): it adds branches that some path reaches through the same weights, "
                        "so their cross terms do not vanish. Put a parametric layer with weights of its own on one of the branches."
                    )
        if isinstance(node.operator, Rearrange) and any(_dependent(graph, node, a, b) for a, b in _shared_rows(node.operator)):
            raise UnsupportedGraphError(
                f"node {node.name} ({node.source}): it puts values of several channels or branches side by side in one channel, and their "
                "weights are not independent. Put a parametric layer before it."
            )


def refuse_shared_leaves(nodes: "Sequence[PathNode]", leaves: Mapping[str, frozenset[str]]) -> None:
    """Weights that are computed from one parameter are not independent, whatever they are called.

    Args:
        nodes: of a path graph.
        leaves: for the name of each computed tensor, the parameters that it is computed from.

    Raises:
        UnsupportedGraphError: two weights, or two biases, of different names have a parameter in common.
    """
    weights = {name: node for node in nodes for name in parameters_of(node.operator)}
    biases = {name: node for node in nodes if (name := bias_of(node.operator, node.name)) is not None}
    for named in (weights, biases):
        met: dict[str, str] = {}
        for name, node in named.items():
            for leaf in sorted(leaves.get(name, frozenset({name}))):
                if leaf in met:
                    raise UnsupportedGraphError(
                        f"node {node.name} ({node.source}): parameter {leaf} is used twice, {met[leaf]} and {name} are both "
                        "computed from it, so they are not independent. Give the two layers parameters of their own."
                    )
                met[leaf] = name


def _refuse_reuse(graph: "PathGraph") -> None:
    """A parameter met twice on a path makes a square, two that swap places make one monomial of two paths: the moment identity fails."""
    above: dict[str, frozenset[str]] = {}
    before: dict[str, frozenset[str]] = {}  # what paths met up to a parameter, itself included
    for node in graph.nodes:
        met: frozenset[str] = frozenset().union(*(above[name] for name in node.inputs))
        for parameter in parameters_of(node.operator):
            if parameter in met:
                raise UnsupportedGraphError(
                    f"node {node.name} ({node.source}): parameter {parameter} is used twice along a path, so paths hold its square. "
                    "Give the two layers weights of their own."
                )
            met |= {parameter}
            before[parameter] = before.get(parameter, frozenset()) | met
        above[node.name] = met
    for parameter, met in before.items():
        swapped = next((other for other in met if other != parameter and parameter in before[other]), None)
        if swapped:
            raise UnsupportedGraphError(
                f"parameters {parameter} and {swapped} are met in one order on some paths and in the other order on others, "
                "so different paths may have one product of weights. Give the layers weights of their own."
            )


def _share_a_path_type(graph: "PathGraph", first: str, second: str) -> bool:
    """Walk both branches backwards together: do two different ways meet the same parameters in the same order?"""
    seen, stack = set(), [(first, second)]
    while stack:
        pair = stack.pop()
        if pair in seen:
            continue
        seen.add(pair)
        a, b = (graph[name] for name in pair)
        if a.name == b.name or (isinstance(a.operator, Input) and isinstance(b.operator, Input)):
            return True
        pa, pb = parameters_of(a.operator), parameters_of(b.operator)
        if not pa and a.inputs:
            stack += [(name, b.name) for name in a.inputs]
        elif not pb and b.inputs:
            stack += [(a.name, name) for name in b.inputs]
        elif pa and pa == pb:
            stack += [(x, y) for x in a.inputs for y in b.inputs]
    return False


def _shared_rows(operator: Rearrange) -> Iterator[tuple[Part, Part]]:
    """Pairs of parts that fill different positions of one channel."""
    if sum(len(part.into) for part in operator.parts) == len({c for part in operator.parts for c in part.into}):
        return
    for i, a in enumerate(operator.parts):
        yield from ((a, b) for b in operator.parts[i + 1 :] if not set(a.into).isdisjoint(b.into))


def _dependent(graph: "PathGraph", node: "PathNode", a: Part, b: Part) -> bool:
    """Whether what two parts put into one channel may be correlated."""
    if a.input != b.input:
        return _share_a_path_type(graph, node.inputs[a.input], node.inputs[b.input])
    shown = dict(zip(a.into, a.channels, strict=True))
    repeated = any(shown.get(row) == channel for row, channel in zip(b.into, b.channels, strict=True))
    return repeated or not _has_independent_channels(graph, node.inputs[a.input])


def _has_independent_channels(graph: "PathGraph", name: str) -> bool:
    """Whether different channels of a node never share a product of weights."""
    stack = [name]
    while stack:
        node = graph[stack.pop()]
        match node.operator:
            case Convolution() | BatchNorm():
                continue
            case Input():
                return False
            case Rearrange(parts=parts):
                read = [(part.input, channel) for part in parts for channel in part.channels]
                if len(set(read)) < len(read) or len(node.inputs) > 1:
                    return False
        stack += node.inputs
    return True
