"""What `npk inspect` says of a network and of what its kernel costs."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npk.choices import BiasName
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.gram.pace import Cost, measure
from npk.progress import as_progress
from npk.results import InspectReport, KernelCost, Node, PairCost
from npk.samples import as_samples
from npk.structure.shifts import ShiftGroup, confirmed, outside_gates, shift_group

if TYPE_CHECKING:
    from torch import nn

_SIZES = (1_000, 10_000, 60_000)  # samples of the kernels whose cost is told
_SHIFTED = 4  # samples whose gates from outside are looked at


def look(
    net: "nn.Module",
    X: np.ndarray,
    fixed: Sequence[str] = (),
    bias: BiasName = "auto",
    *,
    began: float | None = None,
) -> tuple[GateTable, ShiftGroup, Cost, bool]:
    """What `npk inspect` tells: gates, shifts that leave the kernel alone, the cost of a pair, and
    whether the network shifts its samples before the first weight. ``began``: when the command did.
    """
    from npk.gates.recording import record_trace
    from npk.reading.inputs import trace_for

    X = as_samples(X)
    trace = trace_for(net, X, fixed)
    start = time.perf_counter()
    table = record_trace(trace, X, gates="auto", progress=as_progress(True))
    recorded = (time.perf_counter() - start) / len(X)
    group = confirmed(shift_group(trace.graph, outside_gates(trace)), trace, X[:_SHIFTED])
    kernel = NeuralPathKernel(None, bias=bias, progress=False)
    cost = measure(kernel, table, began=began, recorded=recorded)
    return table, group, cost, trace.added is not None


def report(
    found: tuple[GateTable, ShiftGroup, Cost, bool], of: Path, data: str, notes: Sequence[str]
) -> InspectReport:
    """What :func:`look` found, as plain values.

    Args:
        found: of a network.
        of: its checkpoint.
        data: DATA notation; empty: the samples are random, and say nothing of single gates.
        notes: what was said of the samples.

    Returns:
        The report.
    """
    table, group, cost, shifted = found
    return InspectReport(
        of=str(of),
        data=data,
        samples=len(table),
        input_shape=tuple(table.graph.input_shape),
        nodes=tuple(_node(table, number, bool(data)) for number in range(len(table.graph.nodes))),
        log10_paths=math.log10(table.graph.path_count()),
        gates=sum(int(np.prod(table.entries[name].shape)) for name in table.names),
        gate_layers=table.layers,
        shifts=str(group),
        steps=tuple(group.steps or ()),
        bias=cost.bias,
        shifted=shifted,
        cost=_pair(cost),
        kernels=tuple(KernelCost(n, cost.seconds(n), n * n * 4) for n in _SIZES),
        notes=tuple(notes),
    )


def _node(table: GateTable, number: int, sampled: bool) -> Node:
    """A node; with samples, which of its gates are off or on for all of them."""
    node, said = table.graph.nodes[number], table.graph.listed(number)
    size, counts = 0, (None, None, None)
    if node.gate in table.names:
        size = int(np.prod(table.entries[node.gate].shape))
        if sampled:
            layer = table[node.gate]
            dead, always = (layer == 0).all(0), (layer == 1).all(0)
            counts = (int(dead.sum()), int(always.sum()), float(layer.mean()))
    return Node(number, said[1], said[2], tuple(node.shape), said[4], size, *counts)


def _pair(found: Cost) -> PairCost:
    counts = found.effort
    return PairCost(
        *(counts.masks, counts.fields, counts.cells, counts.words, counts.reads),
        *(found.before, found.seconds_a_sample, found.seconds_a_pair),
        *(found.bytes_a_sample, found.masks_a_sample),
    )
