"""Duality: the network is the inner product of its path features and its path values."""

import copy
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npk.definition.paths import neural_path_feature, neural_path_value
from npk.definition.value_network import evaluate, own_weights, random_weights
from npk.errors import NpkError
from npk.gates.recording import as_samples, place_of, record_trace
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.progress import Silent
from npk.results import Case, CheckResult, DualityDetails
from npk.typed import finite

if TYPE_CHECKING:
    import torch

    from npk.reading.tracing import Trace

_ENUMERABLE = 50_000
# from the finest to the coarsest
_TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 0.05, "bfloat16": 0.3}
_HALF = ("float16", "bfloat16")
_SAMPLES = 16


@dataclass(frozen=True)
class _Subject:
    """A network as it is checked: traced, with the coarsest type of number that it computes in."""

    net: "torch.nn.Module"
    trace: "Trace"
    dtype: str


def check_duality(
    net: "torch.nn.Module", X: np.ndarray, *, draws: int = 200, seed: int = 0, name: str = "network"
) -> CheckResult:
    r"""Verify :math:`f(x) = \langle \phi_x, v \rangle` on a network, and :math:`E[f f'] = K` on its value network.

    The value network is the path graph that npk read, under the gates that npk recorded. With the
    network's own weights and biases it must give the network's output; with weights drawn at random
    its outputs must have the kernel as their second moment. Where paths are few they are also
    enumerated. The network runs on copies of the samples. One in half precision, whose rounding
    would hide mistakes, is checked as a copy in float64, if it runs in float64; the statement says
    so.

    Args:
        net: a network in eval mode.
        X: samples ``(n, *input_shape)``; the first 16 are used.
        draws: random value networks.
        seed: of the draws.
        name: what the report calls the network.

    Returns:
        ``measured``: worst relative difference of outputs. ``details``, a
        :class:`npk.results.DualityDetails`: one case a comparison, and the second moment in
        standard errors, of which at most 5 are expected.

    Raises:
        DataError: X is empty or not finite.
        UnsupportedGraphError: the network's paths are not wholly understood.
    """
    X = as_samples(X)[:_SAMPLES]
    given = _subject(net, X)
    subject, X = (
        (_in_float64(given, X) or given, _rounded(given, X)) if given.dtype in _HALF else (given, X)
    )
    table = record_trace(subject.trace, X, gates="auto", progress=Silent())
    output, weights = _output(subject, X), own_weights(subject.trace.program)
    again = evaluate(table, weights).reshape(output.shape)
    deviations = {"own weights": _relative(again, output)}
    paths = table.graph.path_count()
    if paths <= _ENUMERABLE:
        enumerated = _enumerated(table, weights)
        deviations["paths one by one"] = _relative(enumerated, output[:1, :1])
    errors = _moment_errors(table, draws, np.random.default_rng(seed))
    tolerance = _TOLERANCE[subject.dtype]
    worst = float(np.max(list(deviations.values())))  # NaN if one of them is
    statement = "f(x) = <path feature, path value>, relative to the largest output"
    statement += f"; of the {given.dtype} network a copy in float64" if subject is not given else ""
    cases = tuple(Case(label, finite(deviation)) for label, deviation in deviations.items())
    counted = float(paths) if paths <= sys.float_info.max else None
    details = DualityDetails(cases, finite(errors), draws, counted)
    passed = worst <= tolerance and errors <= 5
    return CheckResult("duality", name, statement, passed, finite(worst), tolerance, details)


def _subject(net: "torch.nn.Module", X: np.ndarray) -> _Subject:
    import torch
    from torch.utils._pytree import tree_leaves

    from npk.reading.tracing import trace_network

    trace = trace_network(net, X.shape[1:])
    values = (
        value for node in trace.program.graph.nodes for value in tree_leaves(node.meta.get("val"))
    )
    found = {
        str(value.dtype).removeprefix("torch.")
        for value in values
        if isinstance(value, torch.Tensor)
    }
    return _Subject(
        net, trace, max(found & _TOLERANCE.keys(), key=list(_TOLERANCE).index, default="float32")
    )


def _in_float64(given: _Subject, X: np.ndarray) -> _Subject | None:
    """The same network in float64; ``None`` where its code asks for half precision itself."""
    try:
        subject = _subject(copy.deepcopy(given.net).double(), X)
    except (NpkError, RuntimeError):
        return None
    return None if subject.dtype in _HALF else subject


def _rounded(given: _Subject, X: np.ndarray) -> np.ndarray:
    """Samples as a network in half precision sees them."""
    import torch

    return torch.tensor(X, dtype=place_of(given.trace)[1]).to(torch.float32).numpy()


def _output(subject: _Subject, X: np.ndarray) -> np.ndarray:
    """What the network itself gives, ``(n, output units)``; it may work in place."""
    import torch

    from npk.reading.exporting import output_of

    device, dtype = place_of(subject.trace)
    return (
        output_of(subject.net, torch.tensor(X, dtype=dtype, device=device))
        .double()
        .cpu()
        .numpy()
        .reshape(len(X), -1)
    )


def _relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(
        np.abs(actual - expected).max() / max(np.abs(expected).max(), np.finfo(float).tiny)
    )


def _enumerated(table: GateTable, weights: dict) -> np.ndarray:
    feature = neural_path_feature(table, 0, bias="paths")
    return np.array(
        [[sum(c * neural_path_value(table.graph, p, weights) for p, c in feature.items())]]
    )


def _moment_errors(table: GateTable, draws: int, rng: np.random.Generator) -> float:
    """Worst distance of the mean of f f' from K in standard errors, on diagonal and first row."""
    table = table.take(slice(0, 4))
    exact = NeuralPathKernel(None, dtype="float64", progress=False)(table)
    products = []
    for _ in range(draws):
        f = evaluate(table, random_weights(table.graph, rng)).reshape(len(table), -1)
        products.append(f @ f.T / f.shape[1])
    error = np.std(products, 0) / np.sqrt(draws)
    distance = np.abs(np.mean(products, 0) - exact)
    return float(
        np.divide(
            distance, error, out=np.zeros_like(distance), where=error > 1e-12 * np.abs(exact).max()
        ).max()
    )
