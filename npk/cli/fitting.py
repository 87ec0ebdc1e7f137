"""Kernel machines on a network's kernel, each matrix computed once."""

import math
import time
from collections.abc import Callable

import numpy as np

from npk.data import Dataset
from npk.errors import OptionError
from npk.gram.kernel import NeuralPathKernel
from npk.results import Accuracy

# name, predict, what was chosen
Machine = tuple[str, Callable[[np.ndarray], np.ndarray], dict[str, float]]


def solver_named(name: str) -> Callable[[np.ndarray, np.ndarray, str], Machine]:
    """What fits a kernel machine on a training kernel and labels, with the backend that computed
    the kernel.

    Raises:
        OptionError: no such solver.
    """
    solvers = {"ridge": _ridge, "svm": _svm}
    if name not in solvers:
        what = "in this version of npk" if name in ("nystroem", "features") else "known"
        raise OptionError(f"the solver {name!r} is not {what}. Choose ridge or svm.")
    return solvers[name]


def fit(
    solver: Callable[..., Machine],
    kernel: NeuralPathKernel,
    training: Dataset,
    test: Dataset,
    *,
    network: str,
) -> tuple[float, Accuracy]:
    """Fit a kernel machine on one set and try it on both.

    Args:
        solver: what :func:`solver_named` gave.
        kernel: the kernel, with its network.
        training: what the machine learns from.
        test: what it is tried on.
        network: name of the network.

    Returns:
        Accuracy on the training set, and the result on the test set.

    Raises:
        DataError: no labels, or labels that cannot be learnt from.
        ShapeError: samples that do not fit the network, or each other.
    """
    labels, start = (training.require_labels(), test.require_labels()), time.perf_counter()
    _check_labels(solver, labels[0])
    rows = kernel.record(training.X)
    K, cross = kernel(rows), kernel(test.X, rows)
    model, predict, chosen = solver(K, labels[0], kernel.options.backend)
    right = float(np.mean(predict(cross) == labels[1]))
    on_training = float(np.mean(predict(K) == labels[0]))
    found = Accuracy(
        network=network,
        model=model,
        samples=len(training),
        accuracy=right,
        error=math.sqrt(right * (1 - right) / len(test)),
        by_split=(right,),
        seconds=time.perf_counter() - start,
        parameters=chosen,
        command="",
    )
    return on_training, found


def _check_labels(solver: Callable[..., Machine], labels: np.ndarray) -> None:
    """Refuse labels that cannot be learnt from, before there is a kernel."""
    from npk.machines import problem, svm

    (svm.check if solver is _svm else problem.checked_labels)(labels)


def _ridge(K: np.ndarray, labels: np.ndarray, backend: str) -> Machine:
    from npk.machines import ridge

    targets, classes = ridge.signed_targets(labels)
    machine = ridge.fit(K, targets, criterion="accuracy", backend=backend)

    def predict(rows: np.ndarray) -> np.ndarray:
        return ridge.classified(rows @ machine.solution.coefficients, classes)

    return "NPK-ridge", predict, {"alpha": float(machine.alpha)}


# scikit-learn's SVM, on the host whatever the backend
def _svm(K: np.ndarray, labels: np.ndarray, backend: str) -> Machine:
    from npk.machines import svm

    machine = svm.fit(K, labels)
    return "NPK-SVM", machine.machine.predict, {"C": float(machine.C)}
