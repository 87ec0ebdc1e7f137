r"""Lesions: what a network loses with one of its blocks, as the kernel predicts it and as it is.

With weights drawn at random and the gates held,

.. math:: \frac{E\,|f - f_{\text{without block } k}|^2}{E\,|f|^2} = \text{share of } K \text{ that passes block } k .

A trained network's weights are not random, and its gates change with the lesion: three columns.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import fx
from torch.utils._pytree import tree_leaves

from npk.choices import BiasName, GatesName
from npk.definition.value_network import evaluate, own_weights
from npk.errors import DataError, OptionError
from npk.gates.recording import place_of, record_trace
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.gram.tiles import cuts
from npk.graph.biases import settled_bias
from npk.graph.parts import blocks_of, longer_branch, without_block
from npk.progress import Progress, as_progress
from npk.reading.exported import name_of
from npk.reading.inputs import trace_for
from npk.recursion.instruments import Without
from npk.results import Lesion, LesionTable
from npk.samples import as_array, as_samples
from npk.typed import finite

if TYPE_CHECKING:
    from npk.reading.tracing import Trace

_TOGETHER = 32  # samples that go through a network at once
_PREDICTED = 64  # samples whose kernels are computed, at most


def lesions(
    net: "torch.nn.Module",
    X: Any,
    y: ArrayLike | None = None,
    *,
    bias: BiasName = "auto",
    gates: GatesName = "auto",
    progress: bool | Progress = False,
    name: str = "network",
) -> LesionTable:
    r"""Leave out what each block adds, one block at a time: three columns, and the accuracy lost.

    .. math:: \frac{\sum_x |f(x) - f_{\text{without}}(x)|^2}{\sum_x |f(x)|^2}

    *Predicted*: the share of the kernel's trace that passes the block, which is the expectation of
    this ratio's two sums over random weights of the variances of the kernel's scale. *Frozen*: the
    network's own weights under the gates of the whole network. *Live*: the network itself without
    the block, where later gates change too.

    Args:
        net: a network in eval mode, with at least one addition.
        X: samples ``(n, *input_shape)``; the prediction looks at the first 64.
        y: class of each sample, numbers from 0 on as the outputs have them; ``None``: no accuracy.
        bias: "auto" or "paths" (biases start paths of their own, as they do in the network), or
            "ignore".
        gates: "hard", "soft" or "auto".
        progress: ``True`` for a bar, or a :class:`npk.progress.Progress`.
        name: what the text calls the network.

    Returns:
        A row a block, in the order of the path graph; ``print`` shows the table.

    Raises:
        OptionError: no addition, or an option with another value.
        DataError: no samples, or labels that are none of the outputs.
        UnsupportedGraphError: the network's paths are not wholly understood.
    """
    samples = as_samples(X)
    trace = trace_for(net, samples)
    sums = blocks_of(trace.graph)
    if not sums:
        raise OptionError(
            f"{name} has 0 skip connections: nothing is added in it, and no block can be left "
            "out. Take another one."
        )
    bar = as_progress(progress)
    table = record_trace(trace, samples, gates=gates, progress=bar)
    live = _Live(trace, samples)
    whole = live.output()
    labels = None if y is None else _checked_labels(y, whole)
    found = []
    with bar.task("lesions", len(sums)) as advance:
        predicted = _Predicted(table.take(slice(0, _PREDICTED)), bias)
        frozen = _Frozen(trace, table)
        for block, node in enumerate(sums, 1):
            after = live.without(node.name, 1 - longer_branch(trace.graph, node))
            found.append(
                Lesion(
                    block,
                    node.source,
                    predicted.share(block),
                    frozen.share(block),
                    None if after is None else _lost(whole, after),
                    None if after is None or labels is None else _accuracy(after, labels),
                )
            )
            advance(1)
    right = None if labels is None else _accuracy(whole, labels)
    return LesionTable(name, len(samples), settled_bias(bias, trace.graph), right, tuple(found))


def _lost(whole: np.ndarray, left: np.ndarray) -> float | None:
    """Square of the difference over square of the output; ``None`` for an output of zeros."""
    size = float(np.square(whole).sum())
    return finite(float(np.square(whole - left).sum()) / size) if size > 0 else None


def _accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(outputs.argmax(1) == labels))


def _checked_labels(y: ArrayLike, outputs: np.ndarray) -> np.ndarray:
    labels, units = as_array(y, "y"), outputs.shape[1]
    fits = labels.shape == outputs.shape[:1] and labels.dtype.kind in "iu"
    if not fits or units < 2 or not ((labels >= 0) & (labels < units)).all():
        raise DataError(
            f"y is no class of each of the {len(outputs)} samples for {units} outputs. Give whole "
            f"numbers from 0 to {units - 1}, or leave y out."
        )
    return labels


class _Predicted:
    """Shares of the kernel's trace."""

    def __init__(self, table: GateTable, bias: str) -> None:
        self.table, self.bias = table, bias
        self.whole = self._trace("paths")

    def _trace(self, of: "str | Without") -> float:
        options = {"dtype": "float64", "bias": self.bias, "of": of, "progress": False}
        return float(NeuralPathKernel(None, **options).diagonal(self.table).sum())

    def share(self, block: int) -> float | None:
        """What passes a block; ``None`` without any active path."""
        if not self.whole > 0:
            return None
        return 1 - self._trace(Without(block=block)) / self.whole


class _Frozen:
    """The network's own weights under the gates of the whole network."""

    def __init__(self, trace: "Trace", table: GateTable) -> None:
        self.table, self.weights = table, own_weights(trace.program)
        self.whole = self._output(table)

    def _output(self, table: GateTable) -> np.ndarray:
        parts = [evaluate(table.take(some), self.weights) for some in cuts(len(table), _TOGETHER)]
        return np.concatenate(parts).reshape(len(table), -1)

    def share(self, block: int) -> float | None:
        """What is lost with a block."""
        graph = without_block(self.table.graph, block)
        left = GateTable(graph, self.table.inputs, self.table.entries)
        return _lost(self.whole, self._output(left))


class _Live:
    """The network itself, run with an addition that shows one of its branches."""

    def __init__(self, trace: "Trace", samples: np.ndarray) -> None:
        self.program, self.samples = trace.program, samples
        self.place = place_of(trace)
        self.names = {node.name for node in trace.program.graph.nodes}

    def output(self) -> np.ndarray:
        """Of the whole network, ``(n, output units)``."""
        return self._run(fx.Interpreter(self.program))

    def without(self, addition: str, shown: int) -> np.ndarray | None:
        """Of the network whose addition shows one branch; ``None`` where its program has no such
        addition.
        """
        if addition not in self.names:
            return None
        return self._run(_Lesioned(self.program, addition, shown))

    def _run(self, program: fx.Interpreter) -> np.ndarray:
        device, dtype = self.place
        with torch.no_grad():
            parts = [
                tree_leaves(program.run(torch.tensor(batch, dtype=dtype, device=device)))[0]
                for batch in self._batches()
            ]
        return torch.cat(parts).double().cpu().numpy().reshape(len(self.samples), -1)

    def _batches(self) -> Iterator[np.ndarray]:
        return (self.samples[some] for some in cuts(len(self.samples), _TOGETHER))


class _Lesioned(fx.Interpreter):
    """Runs a program in which one addition shows one of its branches."""

    def __init__(self, program: fx.GraphModule, addition: str, shown: int) -> None:
        super().__init__(program)
        self.addition, self.shown = addition, shown

    def run_node(self, n: fx.Node) -> Any:
        """A node as it is, but for the addition."""
        result = super().run_node(n)
        if n.name != self.addition:
            return result
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        alpha = kwargs.get("alpha", 1)
        kind = name_of(n).removesuffix("_")
        signs = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}[kind]
        return (args[self.shown] * signs[self.shown]).expand_as(result)
