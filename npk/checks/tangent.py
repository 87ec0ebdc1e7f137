"""Tangent: the slope of the kernel is the expected tangent kernel of the value network."""

from dataclasses import dataclass

import numpy as np
import torch

from npk.choices import BiasName, GatesName, ValueInputName, bias_words
from npk.definition.paths import parameter_variances
from npk.definition.value_network import outputs, random_weights
from npk.errors import OptionError
from npk.gates.recording import record_gates
from npk.gates.table import GateTable
from npk.gram.kernel import NeuralPathKernel
from npk.graph.biases import settled_bias
from npk.graph.parts import layers_of
from npk.graph.path_graph import PathGraph
from npk.progress import Progress, as_progress
from npk.recursion.instruments import Tangent
from npk.recursion.planning import plan
from npk.recursion.steps import Field
from npk.results import CheckResult, TangentDetails, TangentEntry
from npk.samples import as_samples
from npk.typed import finite

_SAMPLES, _UNITS = 4, 4  # at most that many are looked at
_LEAST = 400  # draws: fewer do not tell the heavy tails of products of many weights
_GROUPS = 20  # of draws, whose means are close to normal where single draws are not
_FALSE_ALARM = 1e-5  # chance that a correct kernel is called wrong, all comparisons together


@dataclass(frozen=True)
class _Asked:
    """Options of the kernel, of which those of the value network are the same."""

    bias: str  # "paths" or "ignore"
    value_input: str


def check_tangent(
    net: "torch.nn.Module",
    X: np.ndarray,
    *,
    draws: int = _LEAST,
    parametrization: str = "ntk",
    bias: BiasName = "auto",
    gates: GatesName = "auto",
    value_input: ValueInputName = "auto",
    seed: int = 0,
    progress: bool | Progress = False,
    name: str = "network",
) -> CheckResult:
    r"""Verify the tangent kernel on random value networks.

    .. math:: \sum_l c_l\, \partial F / \partial s_l = E\Big[ \sum_\theta \partial_\theta f(x)\, \partial_\theta f(x') \Big]

    The value network is the path graph under the gates of the samples. Its weights are drawn as
    signs of the variance of their layer; autograd differentiates its output by the weights of linear
    and convolutional layers (and their biases, with bias paths), and the products of the slopes are
    averaged. That mean is compared with ``npk.kernel(net, X, of="tangent")``, entry by entry, in
    standard errors. Draws have heavy tails: errors are those of the means of twenty groups, and the
    limit is Student's, for a chance of 1e-5 that one of all comparisons exceeds it.

    Args:
        net: a network in eval mode.
        X: samples ``(n, *input_shape)``; the first 4 are used.
        draws: random value networks, 400 at least.
        parametrization: "ntk" or "standard".
        bias: "auto" (paths where the network has biases), "paths" or "ignore".
        gates: "hard", "soft" or "auto".
        value_input: "x", "ones" or "auto".
        seed: of the draws.
        progress: ``True`` for a bar, or a :class:`npk.progress.Progress`.
        name: what the report calls the network.

    Returns:
        ``measured``: the worst distance in standard errors. ``details``, a
        :class:`npk.results.TangentDetails`: each entry with its mean and error, and the mean number
        of layers of a path.

    Raises:
        OptionError: too few draws, or an option with another value.
        DataError: X is empty or not finite.
        UnsupportedGraphError: the network's paths are not wholly understood.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < _LEAST:
        raise OptionError(
            f"draws={draws!r}, and {_LEAST} at least are needed: slopes have heavy tails. Give a "
            f"whole number from {_LEAST} on."
        )
    of = Tangent(parametrization)
    table = record_gates(net, as_samples(X)[:_SAMPLES], gates=gates)
    asked = _Asked(settled_bias(bias, table.graph), value_input)
    exact = _kernel(table, asked, of)
    means = _means(table, draws, of, asked, np.random.default_rng(seed), as_progress(progress))
    pairs = np.triu_indices(len(table))
    mean, error = means.mean(0), means.std(0, ddof=1) / len(means) ** 0.5
    known, found, spread = exact[pairs], mean[pairs], error[pairs]
    worst, limit = _worst(known, found, spread), limit_of(len(known), len(means))
    entries = zip(*(a.tolist() for a in (*pairs, known, found, spread)), strict=True)
    diagonal, lengths = (
        np.diagonal(_kernel(table, asked)),
        np.diagonal(_kernel(table, asked, Tangent())),
    )
    live = diagonal > 0
    length = float(np.mean(lengths[live] / diagonal[live])) if live.any() else None
    details = TangentDetails(of.parametrization, draws, length, tuple(map(_entry, entries)))  # type: ignore[arg-type]
    statement = (
        f"the tangent kernel ({of.parametrization} parametrization) is the mean over {draws} random "
        f"value networks: worst of {len(known)} entries, in standard errors; "
        f"{bias_words(asked.bias)}"
    )
    return CheckResult("tangent", name, statement, worst <= limit, finite(worst), limit, details)


def _entry(values: tuple[int, int, float, float, float]) -> TangentEntry:
    return TangentEntry(*values)


def _kernel(table: GateTable, asked: _Asked, of: "Tangent | str" = "paths") -> np.ndarray:
    options = {"bias": asked.bias, "value_input": asked.value_input, "of": of}
    return NeuralPathKernel(None, dtype="float64", progress=False, **options)(table)


def _worst(known: np.ndarray, found: np.ndarray, spread: np.ndarray) -> float:
    """Largest distance in standard errors; where all draws agree, what rounding explains is none."""
    distance, size = np.abs(found - known), np.abs(known).max()
    distance = np.where(distance <= 1e-9 * size, 0.0, distance)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(distance > 0, distance / spread, 0.0).max())


def limit_of(comparisons: int, groups: int) -> float:
    """Standard errors that one of so many correct entries exceeds once in 100,000 checks.

    Args:
        comparisons: how many entries are compared.
        groups: of draws, whose means the errors are taken of.
    """
    from scipy.stats import t

    return float(t.isf(_FALSE_ALARM / (2 * comparisons), groups - 1))


def _means(
    table: GateTable,
    draws: int,
    of: Tangent,
    asked: _Asked,
    rng: np.random.Generator,
    progress: Progress,
) -> np.ndarray:
    """Means of the products of slopes over each group of draws, ``(groups, n, n)``."""
    graph, sums = table.graph, np.zeros((_GROUPS, len(table), len(table)))
    factors, units = _factors(graph, of, asked.bias), _units(table)
    counts = np.bincount(np.arange(draws) % _GROUPS)
    with progress.task("random value networks", draws) as advance:
        for draw in range(draws):
            weights = random_weights(graph, rng, bias=asked.bias == "paths")
            leaves = [weights[name].requires_grad_() for name in factors]
            made = outputs(table, weights, value_input=asked.value_input)
            made = made.reshape(len(table), -1)[:, :units]
            sums[draw % _GROUPS] += _slopes(made, leaves, list(factors.values()))
            advance(1)
    return sums / counts[:, None, None]


def _factors(graph: PathGraph, of: Tangent, bias: str) -> dict[str, float]:
    """What the square of each parameter's slope is multiplied with: its variance, where the
    parameter is the weight over its standard deviation.
    """
    variances, found = parameter_variances(graph), {}
    for node in layers_of(graph):
        own = vars(node.operator)
        variance = variances[own["weight"]] if of.parametrization == "ntk" else 1.0
        found[own["weight"]] = variance
        if bias == "paths" and own["bias"]:
            found[own["bias"]] = variance
    return found


def _units(table: GateTable) -> int:
    """Output units to look at: a few where they are alike, else all of them."""
    last = [step for step in plan(table.graph).steps if isinstance(step, Field)][-1]
    output = table.graph.output
    units = output.channels * output.positions
    return min(units, _UNITS) if last.layer else units


def _slopes(made: torch.Tensor, leaves: list[torch.Tensor], factors: list[float]) -> np.ndarray:
    """Products of the slopes of all pairs of samples, a mean over output units, ``(n, n)``."""
    n, units = made.shape
    scales = torch.tensor(factors, dtype=torch.float64)
    total = np.zeros((n, n))
    for unit in range(units):
        slopes = [
            torch.cat(
                [
                    (slope * scale.sqrt()).reshape(-1)
                    for slope, scale in zip(_gradients(made[i, unit], leaves), scales, strict=True)
                ]
            )
            for i in range(n)
        ]
        features = torch.stack(slopes)
        total += (features[:, None] * features[None]).sum(-1).numpy()
    return total / units


def _gradients(value: torch.Tensor, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    found = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(leaf) if slope is None else slope
        for leaf, slope in zip(leaves, found, strict=True)
    ]
