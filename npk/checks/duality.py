"""Duality: the network is the inner product of its path features and its path values."""

from typing import TYPE_CHECKING

import numpy as np

from npk.dual.gate_table import GateTable
from npk.dual.paths import neural_path_feature, neural_path_value
from npk.dual.recording import as_samples, record_gates
from npk.dual.value_network import evaluate, own_weights, random_weights
from npk.gram.kernel import NeuralPathKernel
from npk.results import CheckResult

if TYPE_CHECKING:
    import torch

_ENUMERABLE = 50_000
_TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
_SAMPLES = 16


def check_duality(net: "torch.nn.Module", X: np.ndarray, *, draws: int = 200, seed: int = 0, name: str = "network") -> CheckResult:
    r"""Verify :math:`f(x) = \langle \phi_x, v \rangle` on a network, and :math:`E[f f'] = K` on its value network.

    The value network is the path graph that npk read, under the gates that npk recorded. With the network's own weights and biases it
    must give the network's output; with weights drawn at random its outputs must have the kernel as their second moment. Where paths
    are few they are also enumerated.

    Args:
        net: a network in eval mode.
        X: samples ``(n, *input_shape)``; the first 16 are used.
        draws: random value networks.
        seed: of the draws.
        name: what the report calls the network.

    Returns:
        ``measured``: worst relative difference of outputs. ``details["cases"]``: one entry a comparison, the second moment in
        standard errors (``details["moment_errors"]``, at most 5 expected).

    Raises:
        DataError: X is empty or not finite.
        UnsupportedGraphError: the network's paths are not wholly understood.
    """
    import torch

    X = as_samples(X)[:_SAMPLES]
    table = record_gates(net, X)
    dtype = next((p.dtype for p in net.parameters()), torch.float32)
    with torch.no_grad():
        output = net(torch.as_tensor(X).to(dtype)).double().cpu().numpy().reshape(len(X), -1)
    weights = own_weights(net)
    again = evaluate(table, weights).reshape(output.shape)
    cases = [{"label": "own weights", "deviation": _relative(again, output)}]
    if table.graph.path_count() <= _ENUMERABLE:
        cases.append({"label": "paths one by one", "deviation": _relative(_enumerated(table, weights), output[:1, :1])})
    errors = _moment_errors(table, draws, np.random.default_rng(seed))
    tolerance = _TOLERANCE["float64" if dtype == torch.float64 else "float32"]
    worst = max(case["deviation"] for case in cases)
    statement = "f(x) = <path feature, path value>, relative to the largest output"
    details = {"cases": cases, "moment_errors": errors, "draws": draws, "paths": float(table.graph.path_count())}
    return CheckResult("duality", name, statement, bool(worst <= tolerance and errors <= 5), worst, tolerance, details)


def _relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), np.finfo(float).tiny))


def _enumerated(table: GateTable, weights: dict) -> np.ndarray:
    feature = neural_path_feature(table, 0, bias="paths")
    return np.array([[sum(c * neural_path_value(table.graph, p, weights) for p, c in feature.items())]])


def _moment_errors(table: GateTable, draws: int, rng: np.random.Generator) -> float:
    """Worst distance of the mean of f f' from K in standard errors; the diagonal and the first row are looked at."""
    table = table.take(slice(0, 4))
    exact = NeuralPathKernel(None, dtype="float64", progress=False)(table)
    products = []
    for _ in range(draws):
        f = evaluate(table, random_weights(table.graph, rng)).reshape(len(table), -1)
        products.append(f @ f.T / f.shape[1])
    error = np.std(products, 0) / np.sqrt(draws)
    distance = np.abs(np.mean(products, 0) - exact)
    return float(np.divide(distance, error, out=np.zeros_like(distance), where=error > 1e-12 * np.abs(exact).max()).max())
