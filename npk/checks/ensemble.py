"""Ensemble: skip connections make the kernel the sum of the kernels of all sub-networks."""

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from npk.choices import BiasName, GatesName, ValueInputName, bias_words
from npk.definition.value_network import gate_values
from npk.errors import OptionError
from npk.gates.recording import record_gates
from npk.gates.table import GateTable
from npk.gram.engine import Engine
from npk.gram.kernel import NeuralPathKernel
from npk.gram.options import KernelOptions, Promise
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
from npk.graph.parts import blocks_of, last_layers_of, sub_network
from npk.graph.path_graph import fan_in
from npk.progress import Silent
from npk.recursion.degrees import depths
from npk.recursion.instruments import Depths, Passing, Without
from npk.recursion.planning import plan
from npk.results import Case, CheckResult, EnsembleDetails, Shares
from npk.samples import as_samples
from npk.typed import finite

if TYPE_CHECKING:
    import torch

_TOLERANCE = 1e-10
_TINY = np.finfo(float).tiny
_MOST_BLOCKS = 8


def check_ensemble(
    net: "torch.nn.Module",
    X: np.ndarray,
    *,
    bias: BiasName = "auto",
    gates: GatesName = "auto",
    value_input: ValueInputName = "auto",
    name: str = "network",
) -> CheckResult:
    r"""Verify that the kernel is the sum over sub-networks: of each depth, and one by one.

    .. math:: K = \sum_L K_L = \sum_J K_J, \qquad \sum_L L\, K_L = \text{tangent kernel}

    The kernels of all depths come in one pass of one recursion, whatever the number of blocks. Of
    up to 8 additions each of the :math:`2^b` sub-networks, one for each choice of a branch at every
    sum, is also a path graph of its own, with the gates of the whole network, and its kernel is
    computed by itself. These, and the product form, are about paths from the input: a path that
    starts at a bias behind a sum is in both of the sum's sub-networks, and the kernel has it once.

    Args:
        net: a network in eval mode, with at least one addition.
        X: samples ``(n, *input_shape)``; a few suffice.
        bias: "auto" (paths where the network has biases), "paths" or "ignore".
        gates: "hard", "soft" or "auto".
        value_input: "x", "ones" or "auto".
        name: what the report calls the network.

    Returns:
        ``measured``: the worst difference of K and its sums, relative to the largest entry.
        ``details``, a :class:`npk.results.EnsembleDetails`: the mean share of K by number of layers
        and by block, the mean number of layers of a path, and one case a comparison; for networks
        without positions also the product form, right only without a gate after the sums.

    Raises:
        OptionError: no addition.
    """
    table = record_gates(net, as_samples(X), gates=gates)
    sums = blocks_of(table.graph)
    if not sums:
        raise OptionError(
            f"{name} has 0 skip connections: nothing is added in it, and it has one sub-network. "
            "Check another one."
        )
    asked = KernelOptions(dtype="float64", bias=bias, value_input=value_input).settled(table.graph)
    whole = _kernel(table, asked)
    known, parts = _by_depth(table, asked)
    tangent = _kernel(table, replace(asked, of="tangent"))
    exact = {
        "sum over depths": _relative(parts.sum(0), whole),
        "tangent kernel": _relative(np.tensordot(known, parts, 1), tangent),
    }
    plain = replace(asked, bias="ignore")
    from_input = whole if plain == asked else _kernel(table, plain)
    if len(sums) <= _MOST_BLOCKS:
        shown = (known, parts) if plain == asked else _by_depth(table, plain)
        exact |= _second_opinion(table, plain, sums, from_input, dict(zip(*shown, strict=True)))
    others = {}
    if all(node.positions == 1 or isinstance(node.operator, Input) for node in table.graph.nodes):
        others["product form"] = _relative(product_form(table, value_input), from_input)
    cases = tuple(Case(label, finite(value)) for label, value in {**exact, **others}.items())
    details = EnsembleDetails(cases, _shares(table, asked, known, parts, whole))
    worst = float(np.max(list(exact.values())))  # NaN if one of them is
    statement = (
        f"K is the sum of the kernels of its sub-networks of {known[0]} to {known[-1]} layers, "
        f"relative to its largest entry; {bias_words(asked.bias)}"
    )
    passed = worst <= _TOLERANCE
    return CheckResult("ensemble", name, statement, passed, finite(worst), _TOLERANCE, details)


def _by_depth(table: GateTable, asked: KernelOptions) -> tuple[list[int], np.ndarray]:
    """Numbers of layers, and the kernel of each, ``(depths, n, n)``."""
    engine = Engine(asked, Promise(), Silent(), Depths())
    return list(depths(engine.paths(table.graph))), NeuralPathKernel.of(None, engine).parts(table)


def _second_opinion(
    table: GateTable,
    asked: KernelOptions,
    sums: tuple[PathNode, ...],
    whole: np.ndarray,
    by_depth: dict[int, np.ndarray],
) -> dict[str, float]:
    """The kernels of all sub-networks, each computed by itself: their sum, and their sums by depth
    where each has one depth.
    """
    choices = list(itertools.product((0, 1), repeat=len(sums)))
    parts = [_part(table, asked, sums, choice) for choice in choices]
    total = np.sum([part for _, part in parts], 0)
    found = {f"sum of {len(parts)} sub-networks": _relative(total, whole)}
    if all(depth is not None for depth, _ in parts):
        off = [
            np.abs(sum((p for d, p in parts if d == depth), 0 * whole) - kernel).max()
            for depth, kernel in by_depth.items()
        ]
        found["depths by sub-networks"] = float(max(off) / max(np.abs(whole).max(), _TINY))
    gated = any(
        isinstance(node.operator, Gate) and isinstance(table.graph.input_of(node).operator, Add)
        for node in table.graph.nodes
    )
    if gated:
        reference = replace(asked, backend="reference")
        found["cumulative masks"] = _relative(_kernel(table, reference), total)
    return found


def product_form(table: GateTable, value_input: ValueInputName = "auto") -> np.ndarray:
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
                if value_input == "ones" or (value_input == "auto" and ones):
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
    table: GateTable, asked: KernelOptions, sums: tuple[PathNode, ...], choice: tuple[int, ...]
) -> tuple[int | None, np.ndarray]:
    """Number of layers of all paths of one sub-network, if it is one number, and its kernel."""
    chosen = {node.name: branch for node, branch in zip(sums, choice, strict=True)}
    graph = sub_network(table.graph, chosen)
    known = depths(plan(graph, bias=asked.bias))
    only = known[0] if len(known) == 1 else None
    return only, _kernel(GateTable(graph, table.inputs, table.entries), asked)


def _kernel(table: GateTable, asked: KernelOptions) -> np.ndarray:
    return NeuralPathKernel.of(None, Engine(asked, Promise(), Silent()))(table)


def _shares(
    table: GateTable, asked: KernelOptions, known: list[int], parts: np.ndarray, whole: np.ndarray
) -> Shares:
    """Mean share of the diagonal by number of layers, and of what each block adds."""
    by_depth = [_mean_share(part, whole) or 0.0 for part in parts]
    blocks = [_mean_share(part, whole) or 0.0 for part in through_blocks(table, asked, whole)]
    return Shares(tuple(known), tuple(by_depth), tuple(blocks))


def through_blocks(table: GateTable, asked: KernelOptions, whole: np.ndarray) -> list[np.ndarray]:
    """The kernel of the paths through what each block adds, ``(n, n)`` each.

    All of them in one pass, where paths through a block can be told by the layers that they pass;
    else by what is left without the block.
    """
    biases = asked.settled(table.graph).bias == "paths"
    numbers = range(1, 1 + len(blocks_of(table.graph)))
    sets = [last_layers_of(table.graph, number, biases=biases) for number in numbers]
    told = tuple(layers for layers in sets if layers is not None)
    engine = Engine(asked, Promise(), Silent(), Passing(told))
    passing = iter(NeuralPathKernel.of(None, engine).parts(table)[1:])
    return [
        next(passing)
        if layers is not None
        else whole - _kernel(table, replace(asked, of=Without(block=number)))
        for number, layers in zip(numbers, sets, strict=True)
    ]


def _mean_share(part: np.ndarray, whole: np.ndarray) -> float | None:
    """Mean over the samples with an active path; ``None`` without any."""
    diagonal = np.diagonal(whole)
    live = diagonal > 0
    return float(np.mean(np.diagonal(part)[live] / diagonal[live])) if live.any() else None


def _relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), _TINY))
