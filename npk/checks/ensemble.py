"""Ensemble: skip connections make the kernel the sum of the kernels of all sub-networks."""

import dataclasses
import itertools
from typing import TYPE_CHECKING

import numpy as np

from npk.definition.value_network import gate_values
from npk.errors import OptionError
from npk.gates.recording import record_gates
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
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
    Rearrange,
    Scale,
    Shift,
)
from npk.graph.path_graph import PathGraph, fan_in
from npk.results import Case, CheckResult, EnsembleDetails, Shares
from npk.samples import as_samples
from npk.typed import finite

if TYPE_CHECKING:
    import torch

_TOLERANCE = 1e-10
_MOST_BLOCKS = 8


def check_ensemble(
    net: "torch.nn.Module", X: np.ndarray, *, gates: str = "auto", name: str = "network"
) -> CheckResult:
    r"""Verify that the kernel is the sum over sub-networks, :math:`K = \sum_J K_J`, one for each choice of a branch at every sum.

    Each sub-network is a path graph of its own, with the gates of the whole network, and its kernel
    is computed by itself.

    Args:
        net: a network in eval mode, with b additions, b from 1 to 8.
        X: samples ``(n, *input_shape)``; a few suffice.
        gates: "hard", "soft" or "auto".
        name: what the report calls the network.

    Returns:
        ``measured``: worst difference of K and the sum over the 2^b sub-networks, relative to the
        largest entry. ``details``, a :class:`npk.results.EnsembleDetails`: the mean share of K by
        number of parametric layers and by block, and one case a comparison; for networks without
        positions also the product form, right only without a gate after the sums.

    Raises:
        OptionError: no addition, or more than 8.
    """
    table = record_gates(net, as_samples(X), gates=gates)
    sums = [node for node in table.graph.nodes if isinstance(node.operator, Add)]
    if not 1 <= len(sums) <= _MOST_BLOCKS:
        raise OptionError(
            f"{name} has {len(sums)} skip connections; the 2^b sub-networks are summed for b from "
            f"1 to {_MOST_BLOCKS}. Check another one."
        )
    whole = _kernel(table)
    parts = [
        (choice, *_part(table, sums, choice))
        for choice in itertools.product((0, 1), repeat=len(sums))
    ]
    total = np.sum([part for _, _, part in parts], 0)
    deviation = _relative(total, whole)
    gated = any(
        isinstance(node.operator, Gate) and isinstance(table.graph.input_of(node).operator, Add)
        for node in table.graph.nodes
    )
    deviations = {f"sum of {len(parts)} sub-networks": deviation}
    if all(node.positions == 1 or isinstance(node.operator, Input) for node in table.graph.nodes):
        deviations["product form"] = _relative(product_form(table), whole)
    if gated:
        deviations["cumulative masks"] = _relative(_kernel(table, backend="reference"), total)
    cases = tuple(Case(label, finite(value)) for label, value in deviations.items())
    details = EnsembleDetails(cases, _shares(table.graph, sums, parts, whole))
    statement = (
        f"K is the sum of the kernels of the 2^{len(sums)} sub-networks, relative to its "
        f"largest entry"
    )
    passed = deviation <= _TOLERANCE
    return CheckResult("ensemble", name, statement, passed, finite(deviation), _TOLERANCE, details)


def sub_network(graph: PathGraph, sums: list[PathNode], choice: tuple[int, ...]) -> PathGraph:
    """The path graph in which each addition lets only one of its branches through."""
    chosen = {node.name: node.inputs[branch] for node, branch in zip(sums, choice, strict=True)}

    def resolve(name: str) -> str:
        while name in chosen:
            name = chosen[name]
        return name

    last, keep = resolve(graph.output.name), {}
    nodes = [
        dataclasses.replace(n, inputs=tuple(map(resolve, n.inputs)))
        for n in graph.nodes
        if n.name not in chosen
    ]
    for node in reversed(nodes):
        if node.name == last or any(node.name in user.inputs for user in keep.values()):
            keep[node.name] = node
    return PathGraph(tuple(node for node in nodes if node.name in keep), graph.input_shape)


def product_form(table: GateTable) -> np.ndarray:
    r"""The product form :math:`K_{first} \prod_k (1 + H_k) K_{last}`, fan-in scale, for networks without positions.

    Right where no gate follows an addition. A gate on the stream is taken as if all units of the
    stream were alike, which is what the product form says and why it is wrong for such networks.

    Returns:
        ``(n, n)`` float64.
    """
    values: dict[str, np.ndarray] = {}
    for node in table.graph.nodes:
        before = [values[name] for name in node.inputs]
        match node.operator:
            case Input(ones=ones):
                if ones:
                    x = np.ones((len(table), node.channels))
                else:
                    x = table.inputs.reshape(len(table), -1).astype(float)
                values[node.name] = x @ x.T
            case Convolution():
                values[node.name] = before[0] * node.channels / fan_in(table.graph, node)
            case Gate():
                gate = gate_values(table, node)[..., 0]
                values[node.name] = before[0] / node.channels * (gate @ gate.T)
            case Add():
                values[node.name] = before[0] + before[1]
            case BatchNorm() | Scale() | Shift() | AveragePool() | MaxPool() | Rearrange():
                values[node.name] = before[0]
            case other:
                refuse_operator("product form", other)
    return values[table.graph.output.name] / table.graph.output.channels


def _part(
    table: GateTable, sums: list[PathNode], choice: tuple[int, ...]
) -> tuple[int, np.ndarray]:
    """Number of parametric layers and kernel of one sub-network."""
    graph = sub_network(table.graph, sums, choice)
    depth = sum(isinstance(node.operator, Convolution) for node in graph.nodes)
    return depth, _kernel(GateTable(graph, table.inputs, table.entries))


def _kernel(table: GateTable, backend: str = "auto") -> np.ndarray:
    return NeuralPathKernel(None, dtype="float64", backend=backend, progress=False)(table)


def _shares(graph: PathGraph, sums: list[PathNode], parts: list, whole: np.ndarray) -> Shares:
    """Mean share of the diagonal by number of layers, and of the longer branch of each sum."""
    diagonal = np.diagonal(whole)
    share = lambda part: (  # noqa: E731
        float(np.mean(np.diagonal(part)[diagonal > 0] / diagonal[diagonal > 0]))
        if (diagonal > 0).any()
        else 0.0
    )
    depths = sorted({depth for _, depth, _ in parts})
    body = [_longer(graph, node) for node in sums]
    blocks = [
        sum(share(part) for choice, _, part in parts if choice[k] == body[k])
        for k in range(len(sums))
    ]
    by_depth = [sum(share(part) for _, d, part in parts if d == depth) for depth in depths]
    return Shares(tuple(depths), tuple(by_depth), tuple(blocks))


def _longer(graph: PathGraph, node: PathNode) -> int:
    """Which branch of a sum has more parametric layers."""

    def layers(name: str) -> int:
        here = graph[name]
        return isinstance(here.operator, Convolution) + max(
            (layers(n) for n in here.inputs), default=0
        )

    return int(np.argmax([layers(name) for name in node.inputs]))


def _relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(
        np.abs(actual - expected).max() / max(np.abs(expected).max(), np.finfo(float).tiny)
    )
