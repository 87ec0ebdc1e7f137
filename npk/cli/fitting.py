"""Kernel machines on a network's kernel, each matrix computed once, and what they stand beside."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from npk.checkpoint.folders import holds_weights
from npk.cli.reading import SHARE, Asked, How, gate_table, labels_named
from npk.cli.solvers import Computed, Problem, Solver, Stored
from npk.data import Dataset, as_labels, split_rows
from npk.errors import DataError, OptionError
from npk.files import put_back
from npk.gram.engine import Engine
from npk.gram.kernel import NeuralPathKernel
from npk.gram.matrix import Gram
from npk.gram.options import KernelOptions
from npk.gram.store_layout import CONTENT
from npk.gram.writing import GIVEN
from npk.results import MODELS, Accuracy, Difference, FitReport, MachineTable
from npk.stores.manifests import content_of
from npk.studies import baselines
from npk.studies.draws import Draws, labeled
from npk.studies.scores import Score, score, standard_error
from npk.studies.subjects import (
    OwnAccuracy,
    Subject,
    before_training,
    check_outputs,
    decided,
    outputs,
    penultimate,
)

BASELINES = tuple(model for model in MODELS if model not in ("trained", "random gates"))


@dataclass(frozen=True, eq=False)
class Fitted:
    """A machine: its accuracy on the samples it has learnt from, and on others, one by one."""

    on_training: float
    test: Accuracy
    right: np.ndarray  # whether each test sample is, (m,)


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
        solver: what :func:`npk.cli.solvers.solver_named` gave.
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
    solver.check(labels[0])
    return tried(solver, Computed(kernel, training.X, test.X), labels, network, start)


def tried(
    solver: Solver,
    problem: Problem,
    labels: tuple[np.ndarray, np.ndarray],
    network: str,
    start: float,
) -> Fitted:
    """A machine tried on both sides.

    Args:
        solver: what fits it.
        problem: kernel of both sides.
        labels: of the training and of the test samples.
        network: name of the network.
        start: when the work began.

    Returns:
        What was found.
    """
    found = solver.solve(problem, labels[0])
    right, seconds = found.on_test == labels[1], time.perf_counter() - start
    return Fitted(
        float(np.mean(found.on_training == labels[0])),
        _accuracy(network, found.model, len(labels[0]), right, seconds, found.chosen),
        right,
    )


def is_stored(
    path: Path,
    data: tuple[str | None, str | None],
    how: How,
    given: Asked,
    baselines: Sequence[str],
    solver: Solver,
) -> bool:
    """Whether a machine is asked for on what a store holds, and not on a checkpoint.

    Args:
        path: what is named.
        data: ``--data`` and ``--test``.
        how: a checkpoint would be read.
        given: what options say of the samples.
        baselines: ``--baselines``, which need the network.
        solver: ``--solver``, which may need it too.

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
        if baselines:
            raise OptionError(
                f"{path} holds no network, and --baselines needs one. Leave it out, or name the "
                f"checkpoint."
            )
        if solver.needs_network:
            raise OptionError(
                f"{path} holds no network, and the solver {solver.name} draws others like it. Name "
                f"the checkpoint, or take --solver nystroem."
            )
        return True
    if data[0] is None:
        raise OptionError(
            "--data is missing: it names the labelled samples. Add for instance --data digits."
        )
    return False


def fit_stored(
    solver: Solver, path: Path, labels: str | None, engine: Engine, seed: int
) -> tuple[Fitted, tuple[int, int], str]:
    """Fit a kernel machine on the gates, or on the kernel, that a store holds.

    Args:
        solver: what :func:`npk.cli.solvers.solver_named` gave.
        path: a folder that `npk gates` or `npk kernel` wrote.
        labels: file of labels, or DATA that has them; ``None``: those that the store keeps.
        engine: of the kernel that is asked for; a kernel in a store can only be divided to a
            cosine.
        seed: of the stratified split, the same as that of a data set.

    Returns:
        What was found, how many samples each side has, and what the kernel takes of biases:
        "paths" or "ignore".

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
        problem: Problem = Stored(scaled, train, test, engine.options.backend)
        bias = gram.about["bias"]
    else:
        store = gate_table(path)
        y = stored_labels(path, labels, store.about, len(store))
        train, test = split_rows(y, SHARE, seed, str(path))
        kernel, rows = NeuralPathKernel.of(None, engine), store.take(train)
        problem = Computed(kernel, rows, store.take(test))
        bias = kernel.settled(rows).bias
    solver.check(y[train])
    sides = y[train], y[test]
    found = tried(solver, problem, sides, path.stem, start)
    return found, (len(train), len(test)), bias


def report(
    found: Fitted,
    sizes: tuple[int, int],
    *,
    of: Path,
    data: str,
    scale: str,
    bias: str,
    own: OwnAccuracy | None = None,
) -> FitReport:
    """What `npk fit --json` writes.

    Args:
        found: the machine.
        sizes: how many training and test samples there are.
        of: the checkpoint, or the folder.
        data: DATA notation; empty for a folder.
        scale: of the kernel.
        bias: what the kernel takes of biases.
        own: of the network itself on the test samples; ``None``: not known.

    Returns:
        The report.
    """
    network = None if own is None else own.accuracy
    return FitReport(
        str(of), data, scale, bias, network, found.on_training, *sizes, (found.test,), ()
    )


def with_others(found: FitReport, table: MachineTable) -> FitReport:
    """The report with what else was measured on the same samples."""
    return replace(found, accuracies=table.accuracies, differences=table.differences)


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
        y, where = labels_named(labels), labels
    elif isinstance(about.get("labels"), list):
        y, where = as_labels(np.array(about["labels"]), str(path)), str(path)
    else:
        raise OptionError(
            f"{path} keeps no labels. Say which they are: --labels FILE.npy, or --labels DATA."
        )
    if len(y) != n:
        raise DataError(f"{where} has {len(y)} labels, and {path} has {n} samples. Give one each.")
    return y


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
        # of all or none right it is not 0 but not known: what is printed is an interval
        error=math.sqrt(share * (1 - share) / len(right)) or None,
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
