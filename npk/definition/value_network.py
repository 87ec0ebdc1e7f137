"""The value network: a path graph under frozen gates, with any weights.

With the network's own weights and biases it gives back the network's output (duality). With random
weights of mean 0 and variance 1 its outputs have the kernel as their second moment, for every
architecture (moment identity).
"""

import math
from collections.abc import Callable, Mapping
from operator import attrgetter

import numpy as np
import torch
from torch import fx

from npk.definition import windows
from npk.gates.table import GateTable, input_values, unpack
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
from npk.networks.given import as_network

Weights = Mapping[str, torch.Tensor]
Step = Callable[[list[torch.Tensor], Weights], torch.Tensor]


def own_weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers of a network in float64, by the names that its path graph has; of
    a traced program its constants, too.
    """
    net = as_network(net)
    tensors = [
        *net.named_parameters(remove_duplicate=False),
        *net.named_buffers(remove_duplicate=False),
    ]
    if isinstance(net, fx.GraphModule):
        held = (str(node.target) for node in net.graph.nodes if node.op == "get_attr")
    else:
        held = ()
    tensors += [(name, attrgetter(name)(net)) for name in held]
    return {
        name: tensor.detach().double().cpu()
        for name, tensor in tensors
        if tensor.dtype.is_floating_point
    }


def random_weights(
    graph: PathGraph, rng: np.random.Generator, *, scale: str = "fan_in", bias: bool = False
) -> dict[str, torch.Tensor]:
    """Independent weights of random sign and the variance that the kernel's scale gives a layer:
    mean 0, with the lightest tails.

    Args:
        graph: whose parameters to draw.
        rng: source of randomness.
        scale: "count" (variance 1) or "fan_in" (variance 1 / fan-in).
        bias: also draw biases, with the variance of their layer; otherwise they are 0.

    Returns:
        Weights by name, for :func:`evaluate`.

    Raises:
        UnsupportedGraphError: an operator that is not known here.
    """
    drawn: dict[str, torch.Tensor] = {}
    for node in graph.nodes:
        spread = (1.0 / fan_in(graph, node)) ** 0.5 if scale == "fan_in" else 1.0
        match node.operator:
            case Convolution(weight=weight, bias=shift) as layer:
                shape = windows.weight_shape(graph, node, layer)
                drawn[weight] = _signs(rng, *shape, size=spread)
                if shift:
                    drawn[shift] = (
                        _signs(rng, node.channels, size=spread)
                        if bias
                        else torch.zeros(node.channels, dtype=torch.float64)
                    )
            case BatchNorm() as norm:
                drawn.update(_random_norm(norm, node.channels, rng, bias))
            case Scale(weight=str(weight)):
                drawn[weight] = _signs(rng, node.channels)
            case Shift(bias=name):
                drawn[name or f"constant of {node.name}"] = _signs(rng, node.channels) * float(bias)
            case Gate(levels=levels):
                drawn.update(
                    {
                        f"level of {entry}": _signs(rng, node.channels) * float(bias)
                        for entry, _ in levels
                    }
                )
            case Input() | Scale(weight=None) | AveragePool() | MaxPool() | Rearrange() | Add():
                pass  # nothing to draw
            case other:
                refuse_operator("random weights", other)
    return drawn


def _random_norm(
    norm: BatchNorm, channels: int, rng: np.random.Generator, bias: bool
) -> dict[str, torch.Tensor]:
    """A batch norm whose diagonal weight is a random sign, or 1 where it has no weight of its own."""
    zero = torch.zeros(channels, dtype=torch.float64)
    one = torch.ones(channels, dtype=torch.float64)
    drawn = {norm.mean: zero, norm.variance: one - norm.epsilon}
    if norm.weight:
        drawn[norm.weight] = _signs(rng, channels)
    if norm.bias:
        drawn[norm.bias] = zero
    if bias:  # its shift: the bias less the scaled mean, of which one is drawn
        drawn[norm.bias or norm.mean] = _signs(rng, channels)
    return drawn


def _signs(rng: np.random.Generator, *shape: int, size: float = 1.0) -> torch.Tensor:
    """Independent numbers, size or -size."""
    count = math.prod(shape)
    bits = np.unpackbits(np.frombuffer(rng.bytes(-(-count // 8)), np.uint8), count=count)
    return torch.as_tensor(bits).double().mul_(-2.0 * size).add_(size).reshape(shape)


def evaluate(table: GateTable, weights: Weights, *, value_input: str = "auto") -> np.ndarray:
    """Output of the value network: the table's graph and gates, these weights.

    Args:
        table: frozen gates of n samples.
        weights: every parameter of the graph by name.
        value_input: "x", "ones" or "auto" (as the graph has it).

    Returns:
        ``(n, *output shape)`` in float64.

    Raises:
        UnsupportedGraphError: an operator that is not known here.
    """
    return ValueNetwork(table, value_input=value_input)(weights)


def outputs(table: GateTable, weights: Weights, *, value_input: str = "auto") -> torch.Tensor:
    """As :func:`evaluate`, as a tensor that autograd follows back to the weights."""
    return ValueNetwork(table, value_input=value_input).tensor(weights)


class ValueNetwork:
    """The value network of a table: what does not depend on weights is made once, for any number of
    weights.

    Args:
        table: frozen gates of n samples.
        value_input: "x", "ones" or "auto" (as the graph has it).
        dtype: of the arithmetic.
        until: name of the node whose values are the output; ``None``: the graph's own output.

    Raises:
        UnsupportedGraphError: an operator that is not known here.
    """

    def __init__(
        self,
        table: GateTable,
        *,
        value_input: str = "auto",
        dtype: torch.dtype = torch.float64,
        until: str | None = None,
    ) -> None:
        end = table.graph.output if until is None else table.graph[until]
        nodes = table.graph.nodes[: table.graph.nodes.index(end) + 1]
        self._shape, self._dtype = (len(table), *end.shape), dtype
        self._steps = [
            (node.name, node.inputs, _prepared(table, node, value_input, dtype)) for node in nodes
        ]
        last = {name: number for number, node in enumerate(nodes) for name in node.inputs}
        self._done = [
            [name for name in set(node.inputs) if last[name] == number]
            for number, node in enumerate(nodes)
        ]

    def __call__(self, weights: Weights) -> np.ndarray:
        """The output under these weights.

        Args:
            weights: every parameter of the graph by name.

        Returns:
            ``(n, *output shape)``.
        """
        return self.tensor(weights).numpy()

    def tensor(self, weights: Weights) -> torch.Tensor:
        """The output as a tensor that autograd follows back to the weights."""
        own = {name: weight.to(self._dtype) for name, weight in weights.items()}
        values: dict[str, torch.Tensor] = {}
        name = ""
        for (name, inputs, step), done in zip(self._steps, self._done, strict=True):
            values[name] = step([values[before] for before in inputs], own)
            for before in done:
                del values[before]
        return values[name].reshape(self._shape)


def _prepared(table: GateTable, node: PathNode, value_input: str, dtype: torch.dtype) -> Step:
    """One operator: what it makes of values ``(n, channels, positions)``."""
    match node.operator:
        case Input() as start:
            values = _started(table, node, start, value_input).to(dtype)
            return lambda inputs, weights: values
        case Convolution() as layer:
            return _convolved(windows.weighted(table.graph, node, layer), layer)
        case BatchNorm() as norm:
            return lambda inputs, weights: _normalized(norm, inputs[0], weights)
        case Scale() as scale:
            return lambda inputs, weights: inputs[0] * _multiple(scale, weights)
        case Shift(bias=bias, factor=factor):
            name, one = bias or f"constant of {node.name}", torch.ones(1, dtype=dtype)
            return lambda inputs, weights: (
                inputs[0]
                + factor * (weights[name] if bias else weights.get(name, one)).reshape(-1, 1)
            )
        case Gate(levels=levels):
            return _gated(table, node, levels, dtype)
        case Add():
            return lambda inputs, weights: inputs[0] + inputs[1]
        case Rearrange(parts=parts):
            return _rearranged(node, parts)
        case AveragePool() as pool:
            looked = windows.lookup(window_taps(table.graph, node))
            shares = torch.as_tensor(pool.coefficients(table.graph.input_of(node).grid)).to(dtype)
            return lambda inputs, weights: (looked(inputs[0]) * shares).sum(2)
        case MaxPool(gate=gate):
            return _selected(table, node, gate)
        case other:
            refuse_operator("value", other)


def _started(table: GateTable, node: PathNode, start: Input, value_input: str) -> torch.Tensor:
    if value_input == "ones" or (value_input == "auto" and start.ones):
        starts = torch.as_tensor(start.starts(node.channels, node.positions))
        return starts.repeat(len(table), 1, 1)
    return torch.as_tensor(input_values(table, node))


def _convolved(weighted: windows.Weighted, layer: Convolution) -> Step:
    weight, bias = layer.weight, layer.bias
    if not bias:
        return lambda inputs, weights: weighted(inputs[0], weights[weight])
    return lambda inputs, weights: weighted(inputs[0], weights[weight]) + weights[bias][:, None]


def _multiple(scale: Scale, weights: Weights) -> torch.Tensor | float:
    if not scale.weight:
        return scale.factor
    own = weights[scale.weight].reshape(-1, 1)
    return scale.factor * (1.0 / own if scale.inverse else own)


def _normalized(norm: BatchNorm, value: torch.Tensor, weights: Weights) -> torch.Tensor:
    factor = (weights[norm.variance] + norm.epsilon).rsqrt()
    factor = factor * weights[norm.weight] if norm.weight else factor
    shift = -weights[norm.mean] * factor
    shift = shift + weights[norm.bias] if norm.bias else shift
    return torch.addcmul(shift[:, None], value, factor[:, None])


def _gated(
    table: GateTable, node: PathNode, levels: tuple[tuple[str, float], ...], dtype: torch.dtype
) -> Step:
    """What the gates let pass; where they saturate, a constant whose parameter is 1."""
    gates = torch.as_tensor(gate_values(table, node)).to(dtype).contiguous()
    reached = {name: value * _reached(table, name, dtype) for name, value in levels}
    one = torch.ones(node.channels, dtype=dtype)

    def step(inputs: list[torch.Tensor], weights: Weights) -> torch.Tensor:
        value = inputs[0] * gates
        for name, constant in reached.items():
            value = value + constant * weights.get(f"level of {name}", one)[:, None]
        return value

    return step


def _reached(table: GateTable, name: str, dtype: torch.dtype) -> torch.Tensor:
    """Where a gate saturates: 0 or 1, by sample and unit."""
    entry = table.entries[name]
    return torch.as_tensor(unpack(entry.data, entry.channels)).to(dtype).transpose(1, 2)


def _rearranged(node: PathNode, parts: tuple[Part, ...]) -> Step:
    """Each part in its place; what no part fills is 0."""
    looked = [windows.lookup(part.places(node.positions)[0]) for part in parts]
    whole = tuple(range(node.channels))

    def shown(part: Part, look: windows.Lookup, inputs: list[torch.Tensor]) -> torch.Tensor:
        before = inputs[part.input]
        every = part.channels == tuple(range(before.shape[1]))
        return look(before if every else before[:, list(part.channels)])

    def step(inputs: list[torch.Tensor], weights: Weights) -> torch.Tensor:
        if len(parts) == 1 and parts[0].into == whole:
            return shown(parts[0], looked[0], inputs)
        result = inputs[0].new_zeros(len(inputs[0]), node.channels, node.positions)
        for part, look in zip(parts, looked, strict=True):
            result[:, list(part.into)] += shown(part, look, inputs)
        return result

    return step


def _selected(table: GateTable, node: PathNode, gate: str) -> Step:
    """The position that each window of a max pool lets pass."""
    chosen = table.entries[gate].data.astype(np.int64).swapaxes(1, 2)
    index = window_taps(table.graph, node)[chosen, np.arange(node.positions)]
    gathered = windows.gather(index)
    return lambda inputs, weights: gathered(inputs[0])


def gate_values(table: GateTable, node: PathNode) -> np.ndarray:
    """Real values of a gate layer: {slope, 1}, or the soft gates.

    Args:
        table: with the gates.
        node: the gate.

    Returns:
        ``(n, channels, positions)`` in float64.

    Raises:
        UnsupportedGraphError: the node is no gate.
    """
    match node.operator:
        case Gate(gate=gate, slope=slope):
            entry = table.entries[gate]
        case other:
            refuse_operator("gate values", other)
    if entry.packed:
        values = np.where(unpack(entry.data, entry.channels), 1.0, slope)
    else:
        values = entry.data.astype(np.float64)
    return values.swapaxes(1, 2)
