"""The solvers of `npk fit`: each learns from the training samples and classifies both sides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from npk.choices import BackendName, SolverName
from npk.errors import OptionError
from npk.gates.table import GateTable
from npk.gram.engine import Engine
from npk.gram.kernel import NeuralPathKernel
from npk.gram.matrix import Gram
from npk.gram.options import KernelOptions
from npk.machines import of_features
from npk.machines.of_features import Entries, KernelEntries, Landmarks, MatrixEntries, Numbers

# name, predict, what was chosen
Machine = tuple[str, Callable[[np.ndarray], np.ndarray], dict[str, float]]
# of these solvers, and how many they take if nothing is said
COMPONENTS = {"nystroem": 500, "features": 2000}
_OF_KERNELS = ("of", "dtype", "backend")  # options that features do not have


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a machine says of both sides."""

    model: str
    on_training: np.ndarray  # classes of the training samples
    on_test: np.ndarray
    chosen: dict[str, float]


class Problem(Protocol):
    """A kernel of training samples, and of test samples with them: as much of it as is asked for."""

    @property
    def backend(self) -> BackendName:
        """What computed it."""
        ...

    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the training samples, (n, n), and of the test samples with them, (m, n)."""
        ...

    def entries(self) -> Entries:
        """Of the training samples, as they are asked for."""
        ...

    def with_training(self, some: Numbers) -> np.ndarray:
        """Of the test samples with some training samples."""
        ...


class Computed:
    """Of samples of a network, or of gates that were recorded.

    Args:
        kernel: the kernel.
        training: samples or their gate table.
        test: likewise.
    """

    def __init__(
        self,
        kernel: NeuralPathKernel,
        training: np.ndarray | GateTable,
        test: np.ndarray | GateTable,
    ) -> None:
        self.kernel, self.training, self.test = kernel, training, test

    @property
    def backend(self) -> BackendName:
        """That of the kernel."""
        return self.kernel.options.backend

    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """Computed whole."""
        columns = self.kernel.columns(self.training)
        return self.kernel(columns), self.kernel(self.test, columns)

    def entries(self) -> Entries:
        """Computed as they are asked for."""
        if isinstance(self.training, np.ndarray):
            self.kernel.keep_promise(self.training[:1], self.training)
            self.training = self.kernel.record(self.training)
        return KernelEntries(self.kernel, self.training)

    def with_training(self, some: Numbers) -> np.ndarray:
        """Computed for these alone."""
        assert isinstance(self.training, GateTable)  # entries were asked for
        return self.kernel(self.test, self.training.take(some))


class Stored:
    """Some samples of a kernel on disk.

    Args:
        gram: the kernel of all.
        training: numbers of the training samples.
        test: numbers of the test samples.
        backend: where a solver runs.
    """

    def __init__(self, gram: Gram, training: Numbers, test: Numbers, backend: BackendName) -> None:
        self.gram, self.training, self.test = gram, training, test
        self.backend: BackendName = backend

    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """Read whole, each tile once."""
        whole = np.asarray(self.gram)
        return (
            whole[np.ix_(self.training, self.training)],
            whole[np.ix_(self.test, self.training)],
        )

    def entries(self) -> Entries:
        """Read row by row."""
        return MatrixEntries(_Part(self.gram, self.training))

    def with_training(self, some: Numbers) -> np.ndarray:
        """Read for these alone."""
        return self.gram[self.test, self.training[some]]


class _Part:
    """Rows and columns of some samples of a kernel on disk."""

    def __init__(self, gram: Gram, own: Numbers) -> None:
        self.gram, self.own = gram, own
        self.shape, self.dtype = (len(own), len(own)), gram.dtype

    def diagonal(self) -> np.ndarray:
        return self.gram.diagonal()[self.own]

    def __getitem__(self, rows: Numbers) -> np.ndarray:
        return self.gram[self.own[rows], self.own]


@dataclass(frozen=True, eq=False)
class Solver:
    """What fits a kernel machine."""

    name: str
    solve: Callable[[Problem, np.ndarray], Verdict]
    check: Callable[[np.ndarray], object]  # of labels that cannot be learnt from

    @property
    def needs_network(self) -> bool:
        """Whether neither a kernel nor gates will do."""
        return self.name == "features"


def solver_named(name: SolverName, components: int | None = None, seed: int = 0) -> Solver:
    """What fits a kernel machine.

    Args:
        name: of the solver.
        components: landmarks or features; ``None``: those of :data:`COMPONENTS`.
        seed: of what is drawn for them.

    Returns:
        The solver.

    Raises:
        OptionError: components that the solver does not have.
    """
    if name in COMPONENTS:
        number = of_features.checked_rank(
            COMPONENTS[name] if components is None else components, "components"
        )
        solve = _nystroem if name == "nystroem" else _features
        return Solver(name, partial(solve, number, seed), _check_labels)
    if components is not None:
        raise OptionError(
            f"--components {components} is for the solvers {' and '.join(COMPONENTS)}, and "
            f"{name} has none. Leave it out, or choose one of these."
        )
    machines: Mapping[SolverName, Callable[[np.ndarray, np.ndarray, BackendName], Machine]] = {
        "ridge": _ridge,
        "svm": _svm,
        "gp": _gaussian_process,
    }
    check = _check_for_svm if name == "svm" else _check_labels
    return Solver(name, partial(_on_matrix, machines[name]), check)


def check_options(solver: Solver, engine: Engine) -> None:
    """Refuse options of the kernel where no kernel is computed.

    Args:
        solver: what :func:`solver_named` gave.
        engine: of the kernel.

    Raises:
        OptionError: the solver does not have one of them.
    """
    if not solver.needs_network:
        return
    usual = KernelOptions()
    asked = {name: getattr(engine.options, name) for name in _OF_KERNELS}
    given = [f"--{name} {asked[name]}" for name in asked if asked[name] != getattr(usual, name)]
    if engine.promise.bytes is not None:
        given.append("--memory")
    if given:
        raise OptionError(
            f"{given[0]} is of a kernel, and the solver features computes none. Leave it out, or "
            f"take --solver nystroem."
        )


def _check_labels(labels: np.ndarray) -> None:
    from npk.machines import problem

    problem.checked_labels(labels)


def _check_for_svm(labels: np.ndarray) -> None:
    from npk.machines import svm

    svm.check(labels)


def _on_matrix(
    machine: Callable[[np.ndarray, np.ndarray, BackendName], Machine],
    problem: Problem,
    labels: np.ndarray,
) -> Verdict:
    """A machine on the whole kernel of the training samples."""
    K, cross = problem.matrices()
    model, predict, chosen = machine(K, labels, problem.backend)
    return Verdict(model, predict(K), predict(cross), chosen)


def _ridge(K: np.ndarray, labels: np.ndarray, backend: BackendName) -> Machine:
    from npk.machines import ridge

    targets, classes = ridge.signed_targets(labels)
    machine = ridge.fit(K, targets, criterion="accuracy", backend=backend)

    def predict(rows: np.ndarray) -> np.ndarray:
        return ridge.classified(rows @ machine.solution.coefficients, classes)

    return "NPK-ridge", predict, {"alpha": float(machine.alpha)}


# libsvm, on the host whatever the backend
def _svm(K: np.ndarray, labels: np.ndarray, backend: BackendName) -> Machine:
    from npk.machines import svm

    found = svm.fit(K, labels)
    chosen = {"C": float(found.C), "support vectors": float(len(found.machine.support_))}
    return "NPK-SVM", found.machine.predict, chosen


def _gaussian_process(K: np.ndarray, labels: np.ndarray, backend: BackendName) -> Machine:
    """A process on -1 and +1 for each class, whose noise is the most likely one."""
    from npk.machines import gaussian_process, ridge

    targets, classes = ridge.signed_targets(labels)
    process = gaussian_process.fit(ridge.factor(K, backend=backend), targets)

    def predict(rows: np.ndarray) -> np.ndarray:
        return ridge.classified(rows @ process.coefficients, classes)

    chosen = {"alpha": process.alpha, "amplitude": process.amplitude}
    return "NPK-GP", predict, {**chosen, "log likelihood": process.log_likelihood}


def _nystroem(components: int, seed: int, problem: Problem, labels: np.ndarray) -> Verdict:
    """Ridge on the kernel as far as some landmarks show it."""
    found = Landmarks.of(problem.entries(), components, rng=seed)
    across = problem.with_training(found.chosen).astype(np.float64) @ found.normalization
    left = found.factor.error / found.factor.total
    chosen = {"components": float(len(found.chosen)), "share left out": left}
    return _on_features("NPK-Nystroem", found.features, across, labels, chosen)


def _features(components: int, seed: int, problem: Problem, labels: np.ndarray) -> Verdict:
    """Ridge on random path features."""
    from npk import RandomPathFeatures

    assert isinstance(problem, Computed)
    training, test = problem.training, problem.test
    assert isinstance(training, np.ndarray)  # gates alone are refused
    assert isinstance(test, np.ndarray)
    kernel, options = problem.kernel, problem.kernel.options
    assert kernel.net is not None
    made = RandomPathFeatures(
        kernel.net,
        components,
        random_state=seed,
        scale=options.scale,
        gates=options.gates,
        value_input=options.value_input,
        bias=options.bias,
        fixed=kernel.fixed,
        progress=kernel.engine.progress,
    )
    features, across = made.fit_transform(training), made.transform(test)
    chosen = {"components": float(components)}
    return _on_features("NPK-features", features, across, labels, chosen)


def _on_features(
    model: str,
    features: np.ndarray,
    across: np.ndarray,
    labels: np.ndarray,
    chosen: dict[str, float],
) -> Verdict:
    from npk.machines import ridge

    targets, classes = ridge.signed_targets(labels)
    machine = of_features.fit(features, targets, criterion="accuracy")
    on_training, on_test = (
        ridge.classified(side @ machine.weights, classes) for side in (features, across)
    )
    return Verdict(model, on_training, on_test, {**chosen, "alpha": machine.alpha})
