"""Duality: the network is the inner product of its path features and its path values."""

import contextlib
import copy
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from npk.checks.moments import RELIABLE, Moment, second_moment
from npk.choices import BiasName, ValueInputName, bias_words
from npk.definition.paths import neural_path_feature, neural_path_value
from npk.definition.value_network import ValueNetwork, evaluate, own_weights, random_weights
from npk.errors import NpkError, OptionError
from npk.gates.recording import as_samples, place_of, record_trace
from npk.gates.table import GateTable
from npk.gram.engine import Engine
from npk.gram.kernel import NeuralPathKernel
from npk.gram.options import KernelOptions, Promise
from npk.progress import Progress, as_progress
from npk.results import Case, CheckResult, DualityDetails
from npk.typed import finite

if TYPE_CHECKING:
    import torch

    from npk.reading.tracing import Trace

_ENUMERABLE = 50_000
# from the finest to the coarsest
_TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 0.05, "bfloat16": 0.3}
_HALF = ("float16", "bfloat16")
_SAMPLES, _JUDGED = 16, 4  # of outputs, of the second moment
_ROUNDING = 1e-5


@dataclass(frozen=True)
class _Subject:
    """A network as it is checked: traced, with the coarsest type of number that it computes in."""

    net: "torch.nn.Module"
    trace: "Trace"
    dtype: str
    fixed: str | Sequence[str]


def check_duality(
    net: "torch.nn.Module",
    X: np.ndarray,
    *,
    draws: int = 200,
    seed: int = 0,
    bias: BiasName = "auto",
    value_input: ValueInputName = "auto",
    fixed: str | Sequence[str] = (),
    name: str = "network",
    progress: bool | Progress = True,
) -> CheckResult:
    r"""Verify :math:`f(x) = \langle \phi_x, v \rangle` on a network, and :math:`E[f f'] = K` on its value network.

    The value network is the path graph that npk read, under the gates that npk recorded. With the
    network's own weights and biases it must give the network's output; with weights drawn at random
    its outputs must have the kernel as their second moment. Where paths are few they are also
    enumerated. The network runs on copies of the samples. One in half precision, whose rounding
    would hide mistakes, is checked as a copy in float64, if it runs in float64; the statement says
    so.

    The second moment is judged on the first four samples by the rule of
    :func:`npk.checks.moments.second_moment`, which says when it cannot tell: products of deep and
    narrow networks have tails so heavy that a mean of some hundred says nothing. A kernel that is
    right raises an alarm with a probability below 1e-6, as far as it seems too small, whatever the
    tails; as far as it seems too large, three sets of fresh draws must say so one after the other,
    each with a light tail.

    Args:
        net: a network in eval mode.
        X: samples ``(n, *input_shape)``; the first 16 are used.
        draws: random value networks; three sets, four times as large each, follow if the first one
            gives reason to suspect a mistake.
        seed: of the draws.
        bias: of the kernel and its random value networks: "auto" (paths where the network has
            biases), "paths" or "ignore". The network's own output has its biases always.
        value_input: of these too: "x", "ones" or "auto".
        fixed: names of tensors that are coefficients and no weights, as in :func:`npk.trace`.
        name: what the report calls the network.
        progress: show a bar, or a progress of yours.

    Returns:
        ``measured``: worst relative difference of outputs. ``details``, a
        :class:`npk.results.DualityDetails`: one case a comparison, and what the second moment says:
        "agrees", "deviates" (the check has not passed), or "undecided" (the check rests on the
        outputs alone, and the statement says so).

    Raises:
        DataError: X is empty or not finite.
        OptionError: draws are no positive whole number.
        UnsupportedGraphError: the network's paths are not wholly understood.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise OptionError(f"draws is {draws!r}, it must be a positive whole number. Use 200.")
    X, shown = as_samples(X)[:_SAMPLES], as_progress(progress)
    given = _subject(net, X, fixed)
    subject, X = (
        (_in_float64(given, X) or given, _rounded(given, X)) if given.dtype in _HALF else (given, X)
    )
    table = record_trace(subject.trace, X, gates="auto", progress=shown)
    output, weights = _output(subject, X), own_weights(subject.trace.program)
    with _one_thread():
        again = evaluate(table, weights).reshape(output.shape)
    deviations = {"own weights": _relative(again, output)}
    paths = table.graph.path_count()
    if paths <= _ENUMERABLE:
        enumerated = _enumerated(table, weights)
        deviations["paths one by one"] = _relative(enumerated, output[:1, :1])
    asked = KernelOptions(dtype="float64", bias=bias, value_input=value_input).settled(table.graph)
    moment = _moment(table.take(slice(0, _JUDGED)), (draws, seed), asked, shown)
    tolerance = _TOLERANCE[subject.dtype]
    worst = float(np.max(list(deviations.values())))  # NaN if one of them is
    statement = "f(x) = <path feature, path value>, relative to the largest output"
    statement += f"; of the {given.dtype} network a copy in float64" if subject is not given else ""
    return CheckResult(
        name="duality",
        network=name,
        statement=f"{statement}; {_said(moment)}; {bias_words(asked.bias)}",
        passed=worst <= tolerance and moment.verdict != "deviates",
        measured=finite(worst),
        tolerance=tolerance,
        details=_details(deviations, moment, paths),
    )


def _details(deviations: dict[str, float], moment: Moment, paths: int) -> DualityDetails:
    return DualityDetails(
        cases=tuple(Case(label, finite(deviation)) for label, deviation in deviations.items()),
        moment=moment.verdict,
        moment_errors=finite(moment.errors),
        moment_spread=finite(moment.spread),
        tail=finite(moment.tail),
        draws=moment.draws,
        paths=float(paths) if paths <= sys.float_info.max else None,
    )


def _said(moment: Moment) -> str:
    """What the second moment says, in words."""
    many = f"{moment.draws} random value networks"
    if moment.verdict == "agrees":
        near = (
            f"{moment.errors:.2g} standard errors (one is {100 * moment.spread:.2g} % of K(x, x))"
        )
        return f"E[f f'] = K over {many}: agrees within {near}"
    if moment.verdict == "deviates":
        return f"E[f f'] = K over {many}: deviates by {moment.errors:.3g} standard errors"
    why = f"{moment.errors:.2g} standard errors away"
    if moment.tail >= RELIABLE:
        heavy = f"their tail is too heavy for a mean, Pareto shape {moment.tail:.2g}"
        why = heavy if math.isfinite(moment.tail) else "too few of them are not 0"
    return f"E[f f'] = K: not decided by {many} ({why}), so that the outputs alone decide"


def _subject(net: "torch.nn.Module", X: np.ndarray, fixed: str | Sequence[str]) -> _Subject:
    import torch
    from torch.utils._pytree import tree_leaves

    from npk.reading.tracing import trace_network

    trace = trace_network(net, X.shape[1:], fixed)
    values = (
        value for node in trace.program.graph.nodes for value in tree_leaves(node.meta.get("val"))
    )
    found = {
        str(value.dtype).removeprefix("torch.")
        for value in values
        if isinstance(value, torch.Tensor)
    }
    coarsest = max(found & _TOLERANCE.keys(), key=list(_TOLERANCE).index, default="float32")
    return _Subject(net, trace, coarsest, fixed)


def _in_float64(given: _Subject, X: np.ndarray) -> _Subject | None:
    """The same network in float64; ``None`` where its code asks for half precision itself."""
    try:
        subject = _subject(copy.deepcopy(given.net).double(), X, given.fixed)
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


def _moment(
    table: GateTable, drawn: tuple[int, int], asked: KernelOptions, progress: Progress
) -> Moment:
    """The second moment of random value networks, beside the kernel; ``drawn``: how many of them,
    and their seed.
    """
    draws, seed = drawn
    exact = NeuralPathKernel.of(None, Engine(asked, Promise(), progress))(table)
    with _one_thread():
        rng, network = np.random.default_rng(seed), _quick(table, exact, seed, asked)
    biased = asked.bias == "paths"

    def draw(count: int) -> np.ndarray:
        products = np.empty((count, *exact.shape))
        with _one_thread(), progress.task("random value networks", count) as advance:
            for number in range(count):
                made = network(random_weights(table.graph, rng, bias=biased))
                f = made.astype(np.float64).reshape(len(table), -1)
                products[number] = f @ f.T / f.shape[1]
                advance(1)
        return products

    return second_moment(draw, exact, draws)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of torch: its threads wait for one another in each of many small operations."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _quick(table: GateTable, exact: np.ndarray, seed: int, asked: KernelOptions) -> ValueNetwork:
    """The value network in float32, where its rounding is far below what draws can show; the first
    draw tells.
    """
    import torch

    quick, exactly = (
        ValueNetwork(table, value_input=asked.value_input, dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    )
    biased = asked.bias == "paths"
    weights = random_weights(table.graph, np.random.default_rng(seed), bias=biased)
    f, size = exactly(weights), np.sqrt(np.abs(np.diagonal(exact)))
    sides = f.reshape(len(table), -1)
    room = _ROUNDING * (size + np.abs(sides).max(1, initial=0.0))
    off = np.abs(quick(weights).reshape(sides.shape) - sides).max(1, initial=0.0)
    within = (off <= room).all() and ((size == 0) | ((size > 1e-10) & (size < 1e10))).all()
    return quick if within else exactly
