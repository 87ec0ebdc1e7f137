r"""The definition, by enumeration: every path, one by one. Slow and plain; the oracle of every
test.

A *monomial* is the sequence of parameters that a path multiplies. Concrete paths with the same
monomial share it, so their features are added:

.. math::

    \phi_x[p] = \sum_{\text{concrete paths of } p} x[I_0] \prod \text{gates} \cdot
    \text{coefficients}, \qquad v[p] = \prod \text{weights}

and :math:`f(x) = \langle \phi_x, v \rangle`, :math:`K(x, x') = \langle \phi_x, \phi_{x'} \rangle`. Source: arXiv 2006.10529, 2110.03403.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from npk.definition.value_network import Weights, gate_values
from npk.errors import ShapeError
from npk.gates.table import GateTable, input_values, unpack
from npk.graph.biases import settled_bias
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
from npk.graph.path_graph import PathGraph, fan_in, window_taps

Monomial = tuple[tuple, ...]  # ((parameter name, index...), ...) from input to output
Features = dict[Monomial, float]
Unit = tuple[int, int]  # (channel, position)
_MOST = 2_000_000


def neural_path_feature(
    table: GateTable,
    sample: int,
    *,
    unit: int = 0,
    position: int = 0,
    bias: str = "auto",
    value_input: str = "auto",
) -> Features:
    """Neural path feature of one sample for one output unit, by enumeration.

    Args:
        table: gates and samples.
        sample: which row.
        unit: which output channel.
        position: and where.
        bias: "paths" (every bias starts paths with input 1), "ignore", or "auto": paths where there
            are biases.
        value_input: "x", "ones" or "auto".

    Returns:
        Coefficient of each monomial.

    Raises:
        ShapeError: the network has too many paths to enumerate.
        UnsupportedGraphError: an operator that is not known here.
    """
    return _features(table, sample, bias, value_input)[unit, position]


def _features(table: GateTable, sample: int, bias: str, value_input: str) -> dict[Unit, Features]:
    """Features of all output units of one sample."""
    graph, begins = table.graph, settled_bias(bias, table.graph) == "paths"
    if graph.path_count() > _MOST:
        message = (
            f"the network has {graph.path_count():.1e} paths to each output unit; "
            f"enumeration stops at {_MOST:.0e}. Use npk.kernel."
        )
        raise ShapeError(message)
    cells: dict[str, dict[Unit, Features]] = {}
    for node in graph.nodes:
        cells[node.name] = _enumerate(
            table, sample, node, [cells[name] for name in node.inputs], begins, value_input
        )
    return cells[graph.output.name]


def path_kernel(
    rows: GateTable,
    cols: GateTable,
    *,
    scale: str = "fan_in",
    bias: str = "auto",
    value_input: str = "auto",
) -> list[list[float]]:
    """The neural path kernel by enumeration, ``len(rows)`` lists of ``len(cols)``: "count" or
    "fan_in" scale.

    The mean over the output units of their kernels, which are equal unless the output is gated or
    has positions.
    """
    parts = kernel_by_layers(rows, cols, scale=scale, bias=bias, value_input=value_input)
    return [
        [math.fsum(part[i, j] for part in parts.values()) for j in range(len(cols))]
        for i in range(len(rows))
    ]


def kernel_by_layers(
    rows: GateTable,
    cols: GateTable,
    *,
    scale: str = "fan_in",
    bias: str = "auto",
    value_input: str = "auto",
) -> dict[tuple[str, ...], np.ndarray]:
    """The neural path kernel by enumeration, one share for each sequence of layers that paths pass.

    Args:
        rows: gates and samples.
        cols: of the columns.
        scale: "count" or "fan_in".
        bias: "paths" (every bias starts paths that have passed its layer), "ignore" or "auto".
        value_input: "x", "ones" or "auto".

    Returns:
        Kernels ``(len(rows), len(cols))`` that add up to the whole, by names of linear and
        convolutional nodes, from the input on; layers of one weight go by the first one's name.
    """
    variance = parameter_variances(rows.graph) if scale == "fan_in" else {}
    name_of = _layer_names(rows.graph)
    left = [_features(rows, i, bias, value_input) for i in range(len(rows))]
    right = [_features(cols, i, bias, value_input) for i in range(len(cols))]
    found: dict[tuple[str, ...], np.ndarray] = {}
    for i, x in enumerate(left):
        for j, y in enumerate(right):
            products: dict[tuple[str, ...], list[float]] = {}
            for unit in x:
                for path, value in _products(x[unit], y[unit], variance):
                    layers = tuple(name_of[step[0]] for step in path if step[0] in name_of)
                    products.setdefault(layers, []).append(value)
            for layers, values in products.items():
                share = found.setdefault(layers, np.zeros((len(rows), len(cols))))
                share[i, j] = math.fsum(values) / len(x)
    return found


def _layer_names(graph: PathGraph) -> dict[str, str]:
    """Node of each parameter that belongs to a linear or convolutional layer."""
    names: dict[str, str] = {}
    for node in graph.nodes:
        match node.operator:
            case Convolution(weight=weight):
                names.setdefault(weight, node.name)
                names[f"bias of {node.name}"] = names[weight]
            case BatchNorm() | Scale() | Shift() | Gate():
                pass  # a parameter a unit, if any
            case Input() | AveragePool() | MaxPool() | Rearrange() | Add():
                pass  # no parameters
            case other:
                refuse_operator("layers of a path", other)
    return names


def parameter_variances(graph: PathGraph) -> dict[str, float]:
    """Variance 1 / fan-in of the parameters of each layer, by name; a bias has that of its layer.

    Parameters that are not named have variance 1.

    Args:
        graph: whose parameters.

    Returns:
        The variances, by the names that monomials have.

    Raises:
        UnsupportedGraphError: an operator that is not known here.
    """
    variances = {}
    for node in graph.nodes:
        match node.operator:
            case Convolution(weight=weight):
                variance = 1.0 / fan_in(graph, node)
                variances[weight] = variances[f"bias of {node.name}"] = variance
            case BatchNorm() | Scale() | Shift() | Gate():
                pass  # one weight a unit, if any
            case Input() | AveragePool() | MaxPool() | Rearrange() | Add():
                pass  # no parameters
            case other:
                refuse_operator("variance of parameters", other)
    return variances


def neural_path_value(graph: PathGraph, monomial: Monomial, weights: Weights) -> float:
    """Product of the weights that a monomial names."""
    factor = 1.0
    for name, *index in monomial:
        factor *= _parameter(graph, name, tuple(index), weights)
    return factor


def _products(
    x: Features, y: Features, variance: dict[str, float]
) -> Iterator[tuple[Monomial, float]]:
    """What each monomial gives to the kernel of two features."""
    for p in x.keys() & y.keys():
        yield p, x[p] * y[p] * math.prod(variance.get(step[0], 1.0) for step in p)


def _enumerate(
    table: GateTable, sample: int, node: PathNode, inputs: list, bias: bool, value_input: str
) -> dict[Unit, Features]:
    """Features of every unit (channel, position) of a node from those of its inputs."""
    units = [(c, s) for c in range(node.channels) for s in range(node.positions)]
    match node.operator:
        case Input(ones=ones) as start:
            if value_input == "ones" or (value_input == "auto" and ones):
                starts = start.starts(node.channels, node.positions)
                return {unit: {(): float(starts[unit])} for unit in units}
            x = input_values(table, node)[sample]
            return {(c, s): {(): float(x[c, s])} for c, s in units}
        case Gate(levels=levels):
            one = table.take(slice(sample, sample + 1))
            return _through_gate(one, node, levels if bias else (), inputs[0])
        case Scale(factor=factor, weight=weight):
            step = lambda u: ((f"scale {weight}", u[0]),) if weight else ()  # noqa: E731
            return {
                u: {(*p, *step(u)): value * factor for p, value in inputs[0][u].items()}
                for u in units
            }
        case Shift(factor=factor):
            return {
                u: {
                    **inputs[0][u],
                    **({((f"shift of {node.name}", u[0]),): factor} if bias else {}),
                }
                for u in units
            }
        case Rearrange(parts=parts):
            return {
                u: _sum([(1.0, inputs[k][source]) for k, source in _shown(node, parts, u)])
                for u in units
            }
        case Add():
            return {u: _sum([(1.0, inputs[0][u]), (1.0, inputs[1][u])]) for u in units}
        case BatchNorm(mean=mean):
            scaled = {
                u: {(*p, (f"scale of {mean}", u[0])): value for p, value in inputs[0][u].items()}
                for u in units
            }
            return {
                u: {**scaled[u], **({((f"shift of {mean}", u[0]),): 1.0} if bias else {})}
                for u in units
            }
        case Convolution() as operator:
            return {
                u: _through_weights(table.graph, node, operator, u, inputs[0], bias) for u in units
            }
        case AveragePool() as pool:
            filters = pool.by_channel(table.graph.input_of(node).grid, node.channels)
            of = {c: weights for channels, weights in filters for c in channels.tolist()}
            through = {(c, s): of[c][:, s] for c, s in units}
            return _through_windows(table.graph, node, through, inputs[0])
        case MaxPool(gate=gate):
            chosen = table.entries[gate].data[sample]
            offsets = np.arange(len(window_taps(table.graph, node)))
            through = {(c, s): offsets == chosen[s, c] for c, s in units}
            return _through_windows(table.graph, node, through, inputs[0])
        case other:
            refuse_operator("enumeration of paths", other)


def _through_gate(
    one: GateTable,
    node: PathNode,
    levels: tuple[tuple[str, float], ...],
    before: dict[Unit, Features],
) -> dict[Unit, Features]:
    """What the gates of one sample let pass, and the paths that start where they saturate."""
    gates = gate_values(one, node)[0]
    passed: dict[Unit, Features] = {}
    for unit, features in before.items():
        gate = float(gates[unit])
        passed[unit] = {p: value * gate for p, value in features.items()} if gate else {}
    for name, value in levels:
        reached = unpack(one.entries[name].data[0], node.channels).T
        for unit, features in passed.items():
            if reached[unit]:
                features[(f"level of {name}", unit[0]),] = value
    return passed


def _through_weights(
    graph: PathGraph,
    node: PathNode,
    operator: Convolution,
    unit: Unit,
    before: dict[Unit, Features],
    bias: bool,
) -> Features:
    out, position = unit
    extended: Features = {}
    if bias and operator.bias:
        extended[((f"bias of {node.name}", out),)] = 1.0
    wide = graph.input_of(node).channels // operator.groups
    first = out * operator.groups // node.channels * wide
    for offset, source in enumerate(window_taps(graph, node)[:, position]):
        for c in range(wide) if source >= 0 else ():
            for p, value in before[first + c, int(source)].items():
                extended[(*p, (operator.weight, out, c, offset))] = value
    return extended


def _shown(node: PathNode, parts: tuple[Part, ...], unit: Unit) -> list[tuple[int, Unit]]:
    """The units of the inputs that a unit of a rearrangement shows, with the input's number."""
    channel, position = unit
    shown = []
    for part in parts:
        place = int(part.places(node.positions)[0, position])
        if channel in part.into and place >= 0:
            shown.append((part.input, (part.channels[part.into.index(channel)], place)))
    return shown


def _through_windows(
    graph: PathGraph, node: PathNode, weights: dict[Unit, np.ndarray], before: dict[Unit, Features]
) -> dict[Unit, Features]:
    """What a pool lets pass; ``weights``: of the offsets of each unit's window."""
    taps = window_taps(graph, node)
    passed: dict[Unit, Features] = {}
    for (channel, position), own in weights.items():
        seen = zip(own, taps[:, position], strict=True)
        terms = [(float(w), before[channel, int(s)]) for w, s in seen if s >= 0 and w]
        passed[channel, position] = _sum(terms)
    return passed


def _sum(parts: list[tuple[float, Features]]) -> Features:
    total: Features = {}
    for weight, features in parts:
        for p, value in features.items():
            total[p] = total.get(p, 0.0) + weight * value
    return total


def _parameter(graph: PathGraph, name: str, index: tuple[int, ...], weights: Weights) -> float:
    for node in graph.nodes:
        value = _value_at(graph, node, name, index, weights)
        if value is not None:
            return value
    raise KeyError(name)


def _value_at(
    graph: PathGraph, node: PathNode, name: str, index: tuple[int, ...], weights: Weights
) -> float | None:
    """The parameter that a monomial names, if it is one of this node."""
    match node.operator:
        case Convolution(weight=weight, bias=bias) as layer:
            if name == weight:
                return _weight(graph, node, layer, index, weights)
            return float(weights[bias][index]) if bias and name == f"bias of {node.name}" else None
        case BatchNorm(mean=mean) as norm:
            if name not in (f"scale of {mean}", f"shift of {mean}"):
                return None
            scale, shift = _norm_values(norm, index, weights)
            return scale if name.startswith("scale") else shift
        case Scale(weight=weight, inverse=inverse):
            if not weight or name != f"scale {weight}":
                return None
            own = _one(weights[weight], index)
            return 1.0 / own if inverse else own
        case Shift(bias=bias):
            if name != f"shift of {node.name}":
                return None
            return _one(weights[bias], index) if bias else 1.0
        case Gate(levels=levels):
            return 1.0 if name in [f"level of {entry}" for entry, _ in levels] else None
        case Input() | AveragePool() | MaxPool() | Rearrange() | Add():
            return None
        case other:
            refuse_operator("parameters of monomials", other)


def _one(tensor: torch.Tensor, index: tuple[int, ...]) -> float:
    """The element of a channel, or the one for all."""
    return float(tensor.reshape(-1)[index if tensor.numel() > 1 else 0])


def _weight(
    graph: PathGraph, node: PathNode, layer: Convolution, index: tuple[int, ...], weights: Weights
) -> float:
    out, c, offset = index
    before, kernel = graph.input_of(node).channels // layer.groups, weights[layer.weight]
    if layer.window.transposed:
        wide = node.channels // layer.groups
        return float(
            kernel.reshape(layer.groups, before, wide, -1)[out // wide, c, out % wide, offset]
        )
    return float(kernel.reshape(node.channels, before, -1)[out, c, offset])


def _norm_values(norm: BatchNorm, index: tuple[int, ...], weights: Weights) -> tuple[float, float]:
    scale = float(
        (weights[norm.variance][index] + norm.epsilon).rsqrt()
        * (weights[norm.weight][index] if norm.weight else 1.0)
    )
    return scale, float(
        (weights[norm.bias][index] if norm.bias else 0.0) - weights[norm.mean][index] * scale
    )
