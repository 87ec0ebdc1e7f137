"""The value network: a path graph under frozen gates, with any weights.

With the network's own weights and biases it gives back the network's output (duality). With random
weights of mean 0 and variance 1 its outputs have the kernel as their second moment, for every
architecture (moment identity).
"""

from collections.abc import Mapping
from operator import attrgetter

import numpy as np
import torch
from torch import fx

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
                drawn[weight] = spread * _signs(rng, *_weight_shape(graph, node, layer))
                if shift:
                    drawn[shift] = (
                        spread * _signs(rng, node.channels)
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


def _weight_shape(graph: PathGraph, node: PathNode, layer: Convolution) -> tuple[int, ...]:
    """Shape of a layer's weight as torch keeps it."""
    first, second = node.channels, graph.input_of(node).channels
    first, second = (second, first) if layer.window.transposed else (first, second)
    return first, second // layer.groups, *layer.window.kernel


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
        drawn[norm.bias] = _signs(rng, channels) if bias else zero
    return drawn


def _signs(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.as_tensor(rng.choice([-1.0, 1.0], shape))


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
    values: dict[str, torch.Tensor] = {}
    for node in table.graph.nodes:
        values[node.name] = _apply(
            table, node, [values[name] for name in node.inputs], weights, value_input
        )
    output = table.graph.output
    return values[output.name].reshape(len(table), *output.shape).numpy()


def _apply(
    table: GateTable, node: PathNode, inputs: list[torch.Tensor], weights: Weights, value_input: str
) -> torch.Tensor:
    """One operator on values ``(n, channels, positions)``."""
    match node.operator:
        case Input(ones=ones) as start:
            if value_input == "ones" or (value_input == "auto" and ones):
                starts = torch.as_tensor(start.starts(node.channels, node.positions))
                return starts.double().repeat(len(table), 1, 1)
            return torch.as_tensor(input_values(table, node)).double()
        case Convolution() as layer:
            return _convolve(table.graph, node, layer, inputs[0], weights)
        case BatchNorm(weight=weight, bias=bias, mean=mean, variance=variance, epsilon=epsilon):
            factor = (weights[variance] + epsilon).rsqrt() * (weights[weight] if weight else 1.0)
            shift = (weights[bias] if bias else 0.0) - weights[mean] * factor
            return inputs[0] * factor[:, None] + shift[:, None]
        case Scale(factor=factor, weight=weight, inverse=inverse):
            multiple = (
                weights[weight].reshape(-1, 1) if weight else torch.ones(1, 1, dtype=torch.float64)
            )
            return inputs[0] * factor * (1.0 / multiple if inverse else multiple)
        case Shift(bias=bias, factor=factor):
            one = torch.ones(1, dtype=torch.float64)
            own = weights[bias] if bias else weights.get(f"constant of {node.name}", one)
            return inputs[0] + factor * own.reshape(-1, 1)
        case Gate(levels=levels):
            gated = inputs[0] * torch.as_tensor(gate_values(table, node))
            return sum((_level(table, name, value, weights) for name, value in levels), gated)
        case Add():
            return inputs[0] + inputs[1]
        case Rearrange(parts=parts):
            return _rearranged(node, parts, inputs)
        case AveragePool() as pool:
            coefficients = torch.as_tensor(pool.coefficients(table.graph.input_of(node).grid))
            return (_windows(inputs[0], window_taps(table.graph, node)) * coefficients).sum(2)
        case MaxPool(gate=gate):
            return _selected(table, node, gate, inputs[0])
        case other:
            refuse_operator("value", other)


def _convolve(
    graph: PathGraph, node: PathNode, layer: Convolution, value: torch.Tensor, weights: Weights
) -> torch.Tensor:
    seen = _windows(value, window_taps(graph, node))
    n, channels, offsets, positions = seen.shape
    seen = seen.reshape(n, layer.groups, channels // layer.groups, offsets, positions)
    wide = node.channels // layer.groups
    if layer.window.transposed:
        kernel = (
            weights[layer.weight]
            .reshape(layer.groups, channels // layer.groups, wide, offsets)
            .transpose(1, 2)
        )
    else:
        kernel = weights[layer.weight].reshape(
            layer.groups, wide, channels // layer.groups, offsets
        )
    result = torch.einsum("ngckp,gock->ngop", seen, kernel).reshape(n, node.channels, positions)
    return result + weights[layer.bias][:, None] if layer.bias else result


def _level(table: GateTable, name: str, value: float, weights: Weights) -> torch.Tensor:
    """The constant of a gate where it saturates, by sample and unit; its parameter is 1."""
    entry = table.entries[name]
    own = weights.get(f"level of {name}", torch.ones(entry.channels, dtype=torch.float64))
    return (
        value
        * torch.as_tensor(unpack(entry.data, entry.channels)).double().transpose(1, 2)
        * own[:, None]
    )


def _rearranged(
    node: PathNode, parts: tuple[Part, ...], inputs: list[torch.Tensor]
) -> torch.Tensor:
    """Each part in its place; what no part fills is 0."""
    shape = len(inputs[0]), node.channels, node.positions
    result = torch.zeros(shape, dtype=torch.float64)
    for part in parts:
        shown = inputs[part.input][:, list(part.channels)]
        result[:, list(part.into)] += _windows(shown, part.places(node.positions))[:, :, 0]
    return result


def _selected(table: GateTable, node: PathNode, gate: str, value: torch.Tensor) -> torch.Tensor:
    """The position that each window of a max pool lets pass."""
    chosen = torch.as_tensor(table.entries[gate].data.astype(np.int64)).transpose(1, 2)
    seen = _windows(value, window_taps(table.graph, node))
    return seen.gather(2, chosen[:, :, None]).squeeze(2)


def _windows(value: torch.Tensor, taps: np.ndarray) -> torch.Tensor:
    """``(n, channels, offsets, positions)``: what each offset of each window sees, 0 outside."""
    index = torch.as_tensor(taps)
    return value[:, :, index.clamp(min=0)] * (index >= 0)


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
