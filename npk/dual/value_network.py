"""The value network: a path graph under frozen gates, with any weights.

With the network's own weights and biases it gives back the network's output (duality). With random weights of mean 0 and variance 1
its outputs have the kernel as their second moment, for every architecture (moment identity).
"""

from collections.abc import Mapping

import numpy as np
import torch

from npk.dual.gate_table import GateTable, unpack
from npk.dual.path_graph import (
    Add,
    AveragePool,
    BatchNorm,
    Convolution,
    Gate,
    Input,
    MaxPool,
    PathGraph,
    PathNode,
    average_weights,
    fan_in,
    window_taps,
)

Weights = Mapping[str, torch.Tensor]


def own_weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and buffers of a network in float64, by name."""
    return {name: tensor.detach().double().cpu() for name, tensor in net.state_dict().items() if tensor.dtype.is_floating_point}


def random_weights(graph: PathGraph, rng: np.random.Generator, *, scale: str = "fan_in", bias: bool = False) -> dict[str, torch.Tensor]:
    """Independent weights of random sign and the variance that the kernel's scale gives a layer: mean 0, with the lightest tails.

    Args:
        graph: whose parameters to draw.
        rng: source of randomness.
        scale: "count" (variance 1) or "fan_in" (variance 1 / fan-in).
        bias: also draw biases, with the variance of their layer; otherwise they are 0.

    Returns:
        Weights by name, for :func:`evaluate`.
    """
    drawn: dict[str, torch.Tensor] = {}
    for node in graph.nodes:
        spread = (1.0 / fan_in(graph, node)) ** 0.5 if scale == "fan_in" else 1.0
        match node.operator:
            case Convolution(weight=weight, bias=shift, window=window):
                drawn[weight] = spread * _signs(rng, node.channels, graph.input_of(node).channels, *window.kernel)
                if shift:
                    drawn[shift] = spread * _signs(rng, node.channels) if bias else torch.zeros(node.channels, dtype=torch.float64)
            case BatchNorm() as norm:
                drawn.update(_random_norm(norm, node.channels, rng, bias))
    return drawn


def _random_norm(norm: BatchNorm, channels: int, rng: np.random.Generator, bias: bool) -> dict[str, torch.Tensor]:
    """A batch norm whose diagonal weight is a random sign, or 1 where it has no weight of its own."""
    zero, one = torch.zeros(channels, dtype=torch.float64), torch.ones(channels, dtype=torch.float64)
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
    """
    values: dict[str, torch.Tensor] = {}
    for node in table.graph.nodes:
        values[node.name] = _apply(table, node, [values[name] for name in node.inputs], weights, value_input)
    output = table.graph.output
    return values[output.name].reshape(len(table), *output.shape).numpy()


def _apply(table: GateTable, node: PathNode, inputs: list[torch.Tensor], weights: Weights, value_input: str) -> torch.Tensor:
    """One operator on values ``(n, channels, positions)``."""
    operator = node.operator
    match operator:
        case Input(ones=ones):
            return _start(table, node, value_input == "ones" or (value_input == "auto" and ones))
        case Convolution(weight=weight, bias=bias):
            seen = _windows(inputs[0], window_taps(table.graph, node))
            kernel = weights[weight].reshape(node.channels, seen.shape[1], seen.shape[2])
            result = torch.einsum("nckp,ock->nop", seen, kernel)
            return result + weights[bias][:, None] if bias else result
        case BatchNorm(weight=weight, bias=bias, mean=mean, variance=variance, epsilon=epsilon):
            factor = (weights[variance] + epsilon).rsqrt() * (weights[weight] if weight else 1.0)
            shift = (weights[bias] if bias else 0.0) - weights[mean] * factor
            return inputs[0] * factor[:, None] + shift[:, None]
        case Gate():
            return inputs[0] * torch.as_tensor(gate_values(table, node))
        case Add():
            return inputs[0] + inputs[1]
        case _:
            return _reindex(table, node, inputs[0])


def _start(table: GateTable, node: PathNode, ones: bool) -> torch.Tensor:
    x = torch.as_tensor(table.inputs).double().reshape(len(table), node.channels, node.positions)
    return torch.ones_like(x) if ones else x


def _reindex(table: GateTable, node: PathNode, value: torch.Tensor) -> torch.Tensor:
    """Pads and pools: no parameters, fixed coefficients or selections."""
    taps = window_taps(table.graph, node)
    seen = _windows(value, taps)
    match node.operator:
        case AveragePool() as pool:
            return (seen * torch.as_tensor(average_weights(pool, taps))).sum(2)
        case MaxPool(gate=gate):
            chosen = torch.as_tensor(table.entries[gate].data.astype(np.int64)).transpose(1, 2)
            return seen.gather(2, chosen[:, :, None]).squeeze(2)
    return seen[:, :, 0]


def _windows(value: torch.Tensor, taps: np.ndarray) -> torch.Tensor:
    """``(n, channels, offsets, positions)``: what each offset of each window sees, 0 outside."""
    index = torch.as_tensor(taps)
    return value[:, :, index.clamp(min=0)] * (index >= 0)


def gate_values(table: GateTable, node: PathNode) -> np.ndarray:
    """Real values of a gate layer, ``(n, channels, positions)`` float64: {slope, 1}, or the soft gates."""
    entry = table.entries[node.gate]
    if entry.kind == "hard":
        slope = node.operator.slope if isinstance(node.operator, Gate) else 0.0
        values = np.where(unpack(entry.data, entry.channels), 1.0, slope)
    else:
        values = entry.data.astype(np.float64)
    return values.swapaxes(1, 2)
