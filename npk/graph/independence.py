"""When do different paths have different products of weights? Where they might not, the graph is
refused.

The recursion adds up second moments: cross terms vanish because distinct products of independent
weights are uncorrelated. That holds when no parameter is met twice on a path, when the branches of
a sum differ by a parametric layer, and when a rearrangement that mixes channels over the positions
mixes independent ones only.
"""

from collections.abc import Iterator, Mapping, Sequence

from npk.errors import UnsupportedGraphError
from npk.graph.facts import refuse_operator
from npk.graph.node import PathNode
from npk.graph.operators import (
    Add,
    AveragePool,
    BatchNorm,
    Convolution,
    Gate,
    Input,
    MaxPool,
    Part,
    Rearrange,
    Scale,
    Shift,
)

Nodes = Mapping[str, PathNode]


def refuse_dependent_paths(nodes: Sequence[PathNode]) -> None:
    """Check all nodes of a graph.

    Args:
        nodes: in order.

    Raises:
        UnsupportedGraphError: paths that the recursion would take for independent may share their
            weights, or an operator is not known here.
    """
    _refuse_reuse(nodes)
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        match node.operator:
            case Add():
                _refuse_shared_branches(by_name, node)
            case Rearrange() as moved:
                _refuse_dependent_rows(by_name, node, moved)
            case Input() | Convolution() | BatchNorm() | Scale() | Shift() | Gate():
                pass  # one input at most, whose channels stay apart or are mixed by weights
            case AveragePool() | MaxPool():
                pass  # they mix positions of one channel alone
            case other:
                refuse_operator("rule for the independence of paths", other)


def _refuse_shared_branches(nodes: Nodes, node: PathNode) -> None:
    """Branches of a sum must not share a path type."""
    for i, first in enumerate(node.inputs):
        if any(_share_a_path_type(nodes, first, second) for second in node.inputs[i + 1 :]):
            raise UnsupportedGraphError(
                f"node {node.name} ({node.source}): it adds branches that some path reaches "
                "through the same weights, so their cross terms do not vanish. "
                "Put a parametric layer with weights of its own on one of the branches."
            )


def _refuse_dependent_rows(nodes: Nodes, node: PathNode, moved: Rearrange) -> None:
    """What a rearrangement puts into one channel must be independent."""
    if any(_dependent(nodes, node, a, b) for a, b in _shared_rows(moved)):
        raise UnsupportedGraphError(
            f"node {node.name} ({node.source}): it puts values of several channels or branches "
            "side by side in one channel, and their weights are not independent. "
            "Put a parametric layer before it."
        )


def refuse_shared_leaves(nodes: Sequence[PathNode], leaves: Mapping[str, frozenset[str]]) -> None:
    """Weights that are computed from one parameter are not independent, whatever they are called.

    Args:
        nodes: of a path graph.
        leaves: for the name of each computed tensor, the parameters that it is computed from.

    Raises:
        UnsupportedGraphError: two weights, or two biases, of different names have a parameter in
            common.
    """
    weights = {name: node for node in nodes for name in node.operator.parameters}
    named = ((node.operator.bias_name(node.name), node) for node in nodes)
    biases = {name: node for name, node in named if name is not None}
    for owners in (weights, biases):
        met: dict[str, str] = {}
        for name, node in owners.items():
            for leaf in sorted(leaves.get(name, frozenset({name}))):
                if leaf in met:
                    raise UnsupportedGraphError(
                        f"node {node.name} ({node.source}): parameter {leaf} is used twice, "
                        f"{met[leaf]} and {name} are both computed from it, so they are not "
                        f"independent. Give the two layers parameters of their own."
                    )
                met[leaf] = name


def _refuse_reuse(nodes: Sequence[PathNode]) -> None:
    """A parameter met twice makes a square, two that swap places one monomial of two paths."""
    above: dict[str, frozenset[str]] = {}
    before: dict[str, frozenset[str]] = {}  # what paths met up to a parameter, itself included
    for node in nodes:
        met: frozenset[str] = frozenset().union(*(above[name] for name in node.inputs))
        for parameter in node.operator.parameters:
            if parameter in met:
                raise UnsupportedGraphError(
                    f"node {node.name} ({node.source}): parameter {parameter} is used twice along "
                    f"a path, so paths hold its square. Give the two layers weights of their own."
                )
            met |= {parameter}
            before[parameter] = before.get(parameter, frozenset()) | met
        above[node.name] = met
    for parameter, met in before.items():
        swapped = next(
            (other for other in met if other != parameter and parameter in before[other]), None
        )
        if swapped:
            raise UnsupportedGraphError(
                f"parameters {parameter} and {swapped} are met in one order on some paths and in "
                f"the other order on others, so different paths may have one product of weights. "
                f"Give the layers weights of their own."
            )


def _share_a_path_type(nodes: Nodes, first: str, second: str) -> bool:
    """Walk both branches backwards together: do two ways meet the same parameters in order?"""
    seen, stack = set(), [(first, second)]
    while stack:
        pair = stack.pop()
        if pair in seen:
            continue
        seen.add(pair)
        a, b = (nodes[name] for name in pair)
        if a.name == b.name or not (a.inputs or b.inputs):  # two inputs are one sample
            return True
        pa, pb = a.operator.parameters, b.operator.parameters
        if not pa and a.inputs:
            stack += [(name, b.name) for name in a.inputs]
        elif not pb and b.inputs:
            stack += [(a.name, name) for name in b.inputs]
        elif pa and pa == pb:
            stack += [(x, y) for x in a.inputs for y in b.inputs]
    return False


def _shared_rows(operator: Rearrange) -> Iterator[tuple[Part, Part]]:
    """Pairs of parts that fill different positions of one channel."""
    if sum(len(part.into) for part in operator.parts) == len(
        {c for part in operator.parts for c in part.into}
    ):
        return
    for i, a in enumerate(operator.parts):
        yield from ((a, b) for b in operator.parts[i + 1 :] if not set(a.into).isdisjoint(b.into))


def _dependent(nodes: Nodes, node: PathNode, a: Part, b: Part) -> bool:
    """Whether what two parts put into one channel may be correlated."""
    if a.input != b.input:
        return _share_a_path_type(nodes, node.inputs[a.input], node.inputs[b.input])
    shown = dict(zip(a.into, a.channels, strict=True))
    repeated = any(
        shown.get(row) == channel for row, channel in zip(b.into, b.channels, strict=True)
    )
    return repeated or not _has_independent_channels(nodes, node.inputs[a.input])


def _has_independent_channels(nodes: Nodes, name: str) -> bool:
    """Whether different channels of a node never share a product of weights."""
    stack = [name]
    while stack:
        node = nodes[stack.pop()]
        match node.operator:
            case Convolution() | BatchNorm():
                continue
            case Input():
                return False
            case Rearrange(parts=parts):
                read = [(part.input, channel) for part in parts for channel in part.channels]
                if len(set(read)) < len(read) or len(node.inputs) > 1:
                    return False
            case Scale() | Shift() | Gate() | AveragePool() | MaxPool() | Add():
                pass  # as independent as what they are made of
            case other:
                refuse_operator("rule for the independence of channels", other)
        stack += node.inputs
    return True
