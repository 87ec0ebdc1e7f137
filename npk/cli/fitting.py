"""Kernel machines on a network's kernel, each matrix computed once."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from npk.checkpoint.folders import holds_weights
from npk.cli.reading import SHARE, Asked, How, gate_table
from npk.data import Dataset, as_labels, load, split_rows
from npk.data.tables import as_numbered, read_labels
from npk.errors import DataError, OptionError
from npk.files import put_back
from npk.gram.engine import Engine
from npk.gram.kernel import NeuralPathKernel
from npk.gram.matrix import Gram
from npk.gram.options import KernelOptions
from npk.gram.store_layout import CONTENT
from npk.gram.writing import GIVEN
from npk.results import Accuracy
from npk.stores.manifests import content_of

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
    return _fitted(solver, (K, cross), labels, kernel.options.backend, network, start)


def _fitted(
    solver: Callable[..., Machine],
    matrices: tuple[np.ndarray, np.ndarray],
    labels: tuple[np.ndarray, np.ndarray],
    backend: str,
    network: str,
    start: float,
) -> tuple[float, Accuracy]:
    """A machine on the kernel of the training samples, tried on them and on the test samples."""
    K, cross = matrices
    model, predict, chosen = solver(K, labels[0], backend)
    right = float(np.mean(predict(cross) == labels[1]))
    on_training = float(np.mean(predict(K) == labels[0]))
    found = Accuracy(
        network=network,
        model=model,
        samples=len(K),
        accuracy=right,
        error=math.sqrt(right * (1 - right) / len(cross)),
        by_split=(right,),
        seconds=time.perf_counter() - start,
        parameters=chosen,
        command="",
    )
    return on_training, found


def is_stored(
    path: Path, data: tuple[str | None, str | None], how: How, given: Asked, labels: str | None
) -> bool:
    """Whether a machine is asked for on what a store holds, and not on a checkpoint.

    Args:
        path: what is named.
        data: ``--data`` and ``--test``.
        how: a checkpoint would be read.
        given: what options say of the samples.
        labels: ``--labels``.

    Returns:
        Whether it is a store.

    Raises:
        OptionError: options that are for the other of the two.
    """
    put_back(path)
    if path.is_dir() and not holds_weights(path):
        if data != (None, None) or how.said or given != Asked():
            raise OptionError(
                f"{path} holds its samples already. Leave out --data, --test, --arch, --fixed and "
                f"--mean; --labels names its labels."
            )
        return True
    if data[0] is None:
        raise OptionError(
            "--data is missing: it names the labelled samples. Add for instance --data digits."
        )
    if labels is not None:
        raise OptionError(
            f"--labels {labels} is for gates and kernels on disk. Labels of --data come with it: "
            f"leave --labels out."
        )
    return False


def fit_stored(
    solver: Callable[..., Machine], path: Path, labels: str | None, engine: Engine, seed: int
) -> tuple[float, Accuracy, tuple[int, int]]:
    """Fit a kernel machine on the gates, or on the kernel, that a store holds.

    Args:
        solver: what :func:`solver_named` gave.
        path: a folder that `npk gates` or `npk kernel` wrote.
        labels: file of labels, or DATA that has them; ``None``: those that the store keeps.
        engine: of the kernel that is asked for; a kernel in a store can only be divided to a
            cosine.
        seed: of the stratified split, the same as that of a data set.

    Returns:
        Accuracy on the training set, the result on the test set, and how many samples each has.

    Raises:
        OptionError: no labels, or a kernel of other options.
        DataError: labels that do not fit.
    """
    start = time.perf_counter()
    if content_of(path) == CONTENT:
        gram = Gram.load(path)
        scaled = _as_asked(gram, engine.options, path)
        y = stored_labels(path, labels, gram.about.get(GIVEN, {}), len(gram))
        train, test = split_rows(y, SHARE, seed, str(path))
        _check_labels(solver, y[train])
        whole = np.asarray(scaled)
        matrices = whole[np.ix_(train, train)], whole[np.ix_(test, train)]
    else:
        store = gate_table(path)
        y = stored_labels(path, labels, store.about, len(store))
        train, test = split_rows(y, SHARE, seed, str(path))
        _check_labels(solver, y[train])
        kernel, rows = NeuralPathKernel.of(None, engine), store.take(train)
        matrices = kernel(rows), kernel(store.take(test), rows)
    sides = y[train], y[test]
    found = _fitted(solver, matrices, sides, engine.options.backend, path.stem, start)
    return *found, (len(train), len(test))


def _as_asked(gram: Gram, asked: KernelOptions, path: Path) -> Gram:
    """The matrix on the scale that is asked for, if it is of the other options."""
    if not gram.symmetric:
        raise OptionError(
            f"{path} is a kernel of {gram.shape[0]} rows with {gram.shape[1]} other columns, and a "
            f"machine is fitted on one of the same samples. Name a store that was written without "
            f"--against."
        )
    usual, about = asdict(KernelOptions()), gram.about
    for name, value in asdict(asked).items():
        there = about.get(name)
        if name in ("scale", "backend") or value in (usual[name], there):
            continue
        raise OptionError(
            f"{path} is a kernel with {name} {there}, and --{name.replace('_', '-')} {value} was "
            f"asked for. Leave it out, or compute that kernel."
        )
    if asked.scale not in ("cosine", about.get("scale")):
        raise OptionError(
            f"{path} has the scale {about.get('scale')}, and --scale {asked.scale} was asked for. "
            f"Give --scale {about.get('scale')}, or cosine."
        )
    return gram if asked.scale == about.get("scale") else gram.cosine()


def stored_labels(path: Path, labels: str | None, about: Mapping[str, Any], n: int) -> np.ndarray:
    """Labels of the samples of a store.

    Args:
        path: the store.
        labels: file of labels, or DATA that has them; ``None``: those that the store keeps.
        about: what the store says of its samples.
        n: how many there are.

    Returns:
        int64 (n,).

    Raises:
        OptionError: none are known.
        DataError: they are of another number.
    """
    if labels is not None:
        y, where = _labels_in(labels), labels
    elif isinstance(about.get("labels"), list):
        y, where = as_labels(np.array(about["labels"]), str(path)), str(path)
    else:
        raise OptionError(
            f"{path} keeps no labels. Say which they are: --labels FILE.npy, or --labels DATA."
        )
    if len(y) != n:
        raise DataError(f"{where} has {len(y)} labels, and {path} has {n} samples. Give one each.")
    return y


def _labels_in(notation: str) -> np.ndarray:
    """The labels of a file of labels alone, else of DATA."""
    path = Path(notation)
    if path.is_file() and path.suffix.lower() in (".npy", ".txt", ".csv", ".tsv", ".pt", ".pth"):
        numbers, _ = as_numbered(read_labels(path))
        assert numbers is not None
        return as_labels(numbers, notation)
    return load(notation).require_labels()


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
