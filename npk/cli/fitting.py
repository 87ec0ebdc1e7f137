"""Kernel machines on a network's kernel, each matrix computed once, and what they stand beside."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from npk.data import Dataset
from npk.errors import OptionError
from npk.gram.kernel import NeuralPathKernel
from npk.results import MODELS, Accuracy, Difference, MachineTable
from npk.studies import baselines
from npk.studies.draws import Draws, labeled
from npk.studies.scores import Score, score, standard_error
from npk.studies.subjects import (
    Subject,
    before_training,
    check_outputs,
    decided,
    outputs,
    penultimate,
)

# name, predict, what was chosen
Machine = tuple[str, Callable[[np.ndarray], np.ndarray], dict[str, float]]
Solver = Callable[[np.ndarray, np.ndarray, str], Machine]
BASELINES = tuple(model for model in MODELS if model not in ("trained", "random gates"))


@dataclass(frozen=True, eq=False)
class Fitted:
    """A machine: its accuracy on the samples it has learnt from, and on others, one by one."""

    on_training: float
    test: Accuracy
    right: np.ndarray  # whether each test sample is, (m,)


def solver_named(name: str) -> Solver:
    """What fits a kernel machine on a training kernel and labels, with the backend that computed
    the kernel.

    Raises:
        OptionError: no such solver.
    """
    solvers: dict[str, Solver] = {"ridge": _ridge, "svm": _svm, "gp": _gaussian_process}
    if name not in solvers:
        what = "in this version of npk" if name in ("nystroem", "features") else "known"
        raise OptionError(f"the solver {name!r} is not {what}. Choose one of {', '.join(solvers)}.")
    return solvers[name]


def baselines_named(names: Sequence[str]) -> tuple[str, ...]:
    """What a machine is compared with.

    Raises:
        OptionError: no such baseline.
    """
    for name in names:
        if name not in BASELINES:
            raise OptionError(
                f"the baseline {name!r} is not known. Choose of {', '.join(BASELINES)}, with commas."
            )
    return tuple(model for model in BASELINES if model in names)


def fit(
    solver: Solver, kernel: NeuralPathKernel, training: Dataset, test: Dataset, *, network: str
) -> Fitted:
    """Fit a kernel machine on one set and try it on both.

    Args:
        solver: what :func:`solver_named` gave.
        kernel: the kernel, with its network.
        training: what the machine learns from.
        test: what it is tried on.
        network: name of the network.

    Returns:
        What was found.

    Raises:
        DataError: no labels, or labels that cannot be learnt from.
        ShapeError: samples that do not fit the network, or each other.
    """
    labels, start = (training.require_labels(), test.require_labels()), time.perf_counter()
    _check_labels(solver, labels[0])
    columns = kernel.columns(training.X)
    K, cross = kernel(columns), kernel(test.X, columns)
    model, predict, chosen = solver(K, labels[0], kernel.options.backend)
    right = predict(cross) == labels[1]
    return Fitted(
        float(np.mean(predict(K) == labels[0])),
        _accuracy(network, model, len(training), right, time.perf_counter() - start, chosen),
        right,
    )


def beside(
    names: Sequence[str],
    fitted: Fitted,
    solver: Solver,
    kernel: NeuralPathKernel,
    subject: Subject,
    training: Dataset,
    test: Dataset,
    seed: int,
    fixed: Sequence[str] = (),
) -> tuple[MachineTable, list[str]]:
    """What else reaches how much on the same samples.

    Args:
        names: what :func:`baselines_named` gave.
        fitted: the machine.
        solver: what fitted it.
        kernel: its kernel.
        subject: its network.
        training: what it has learnt from.
        test: what it was tried on.
        seed: of the network before training.
        fixed: its tensors that are no weights.

    Returns:
        All accuracies, the machine's first, and its paired differences to the others; and for each
        baseline that there is not the reason.

    Raises:
        DataError: the network tells other classes apart than the labels.
        ShapeError: training and test samples of different shapes.
    """
    fresh, held = (labeled(part, None, None, part.name) for part in (training, test))
    draws = Draws(fresh, held, (np.arange(len(fresh)),), (len(fresh),), disjoint=True)
    rights, rows, notes = {}, [fitted.test], []
    for name in names:
        found = _baseline(name, draws, solver, kernel, subject, (training, test), seed, fixed)
        if isinstance(found, str):
            notes.append(f"{name} left out: {found}")
            continue
        rows.append(found[0])
        rights[name] = found[1]
    differences = tuple(
        _difference(fitted, name, right, len(training)) for name, right in rights.items()
    )
    return MachineTable(tuple(rows), differences, len(test)), notes


def _baseline(
    name: str,
    draws: Draws,
    solver: Solver,
    kernel: NeuralPathKernel,
    subject: Subject,
    sides: tuple[Dataset, Dataset],
    seed: int,
    fixed: Sequence[str],
) -> tuple[Accuracy, np.ndarray] | str:
    """Its accuracy, and which test samples it gets right; or why there is none."""
    if name == "untrained":
        make, why = before_training(subject)
        if make is None:
            return why
        anew = NeuralPathKernel.of(make(seed), kernel.engine, fixed)
        found = fit(solver, anew, *sides, network=subject.name)
        return replace(found.test, model=name), found.right
    if name in ("RBF", "logistic"):
        one = baselines.scored(name, draws, draws.sizes)[0]
    else:
        scored = {"network": _own, "penultimate": _on_features}[name](draws, kernel, subject)
        if scored is None:
            return "the network has one layer of weights"
        one = scored
    right = one.right[0]
    network = "" if name in ("RBF", "logistic") else subject.name
    return _accuracy(network, name, one.samples, right, one.seconds, one.chosen), right


def _own(draws: Draws, kernel: NeuralPathKernel, subject: Subject) -> Score:
    """The network's own decisions."""
    start = time.perf_counter()
    given = outputs(subject.net, draws.test.X)
    check_outputs(subject, given, draws.fresh.classes)
    said = decided(given)
    seconds = time.perf_counter() - start
    return Score(subject.name, "network", 0, (said == draws.labels[1])[None], said, {}, seconds)


def _on_features(draws: Draws, kernel: NeuralPathKernel, subject: Subject) -> Score | None:
    """Ridge on what the network's last layer of weights reads."""
    trace = kernel.trace(draws.fresh.X.shape[1:])
    fresh, test = (penultimate(trace, part.X) for part in (draws.fresh, draws.test))
    if fresh is None or test is None:
        return None
    y, y_test = draws.labels
    return score(
        subject.name,
        "penultimate",
        len(y),
        ([y], y_test),
        lambda *_: baselines.linear_ridge(fresh, y, test),
    )


def _accuracy(
    network: str,
    model: str,
    samples: int,
    right: np.ndarray,
    seconds: float,
    chosen: dict[str, float],
) -> Accuracy:
    share = float(np.mean(right))
    return Accuracy(
        network=network,
        model=model,
        samples=samples,
        accuracy=share,
        error=math.sqrt(share * (1 - share) / len(right)),
        by_split=(share,),
        seconds=seconds,
        parameters=chosen,
        command="",
    )


def _difference(fitted: Fitted, against: str, right: np.ndarray, samples: int) -> Difference:
    values = (fitted.right.astype(float) - right)[None]
    return Difference(
        fitted.test.network,
        fitted.test.model,
        against,
        samples,
        float(values.mean()),
        standard_error(values),
        "",
    )


def _check_labels(solver: Solver, labels: np.ndarray) -> None:
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


# libsvm, on the host whatever the backend
def _svm(K: np.ndarray, labels: np.ndarray, backend: str) -> Machine:
    from npk.machines import svm

    found = svm.fit(K, labels)
    chosen = {"C": float(found.C), "support vectors": float(len(found.machine.support_))}
    return "NPK-SVM", found.machine.predict, chosen


def _gaussian_process(K: np.ndarray, labels: np.ndarray, backend: str) -> Machine:
    """A process on -1 and +1 for each class, whose noise is the most likely one."""
    from npk.machines import gaussian_process, ridge

    targets, classes = ridge.signed_targets(labels)
    process = gaussian_process.fit(ridge.factor(K, backend=backend), targets)

    def predict(rows: np.ndarray) -> np.ndarray:
        return ridge.classified(rows @ process.coefficients, classes)

    chosen = {"alpha": process.alpha, "amplitude": process.amplitude}
    return "NPK-GP", predict, {**chosen, "log likelihood": process.log_likelihood}
