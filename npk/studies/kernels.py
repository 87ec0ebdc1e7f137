"""The kernels of one network of a study, kept in its folder: trained, before training, and under
random gates.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from npk.choices import BackendName, BiasName, GatesName, ScaleName, ValueInputName
from npk.errors import StoreError
from npk.files import locked
from npk.gates.halfspaces import random_gates
from npk.gates.table import GateTable
from npk.gram.engine import Engine
from npk.gram.kernel import NeuralPathKernel
from npk.gram.options import KernelOptions, Promise
from npk.progress import Progress, Silent
from npk.studies.draws import Draws
from npk.studies.subjects import Subject, before_training

_ANEW = 1000  # seeds of weights made anew begin there: not where a training's may have begun
TRAINED, UNTRAINED, RANDOM = "trained", "untrained", "random gates"


@dataclass(frozen=True)
class Asked:
    """Options of a study's kernels; what "auto" takes of biases is settled for each network."""

    scale: ScaleName = "cosine"
    gates: GatesName = "auto"
    value_input: ValueInputName = "auto"
    bias: BiasName = "auto"
    backend: BackendName = "auto"

    def __post_init__(self) -> None:
        """Refuse what is no option of a kernel, before any work.

        Raises:
            OptionError: another value.
            BackendError: a backend that is not available.
        """
        _ = self.options

    @property
    def of_paths(self) -> dict[str, Any]:
        """What checks take of them."""
        return {"bias": self.bias, "gates": self.gates, "value_input": self.value_input}

    @property
    def options(self) -> KernelOptions:
        """The options of a kernel, of any network."""
        return KernelOptions(
            self.scale, "float32", self.gates, self.value_input, self.bias, self.backend
        )


@dataclass(frozen=True, eq=False)
class Kernels:
    """What is computed of one network, each matrix once.

    Args:
        subject: the network.
        draws: the samples.
        asked: the options.
        folder: where the matrices are kept.
        seed: of what is drawn anew.
    """

    subject: Subject
    draws: Draws
    asked: Asked
    folder: Path
    seed: int
    progress: Progress = field(default_factory=Silent)

    @cached_property
    def bias(self) -> str:
        """What is taken of the network's biases: "paths" or "ignore"."""
        return self.trained.settled(self.draws.fresh.X[:1]).bias

    def of(self, net: "object") -> NeuralPathKernel:
        """The kernel of a network under the study's options."""
        fixed = () if net is None else self.subject.fixed
        engine = Engine(self.asked.options, Promise(), self.progress)
        return NeuralPathKernel.of(net, engine, fixed)  # type: ignore[arg-type]

    @cached_property
    def trained(self) -> NeuralPathKernel:
        """Of the network as it is."""
        return self.of(self.subject.net)

    @cached_property
    def rows(self) -> np.ndarray:
        """Numbers of the fresh samples that any draw has, ascending."""
        return np.unique(np.concatenate(self.draws.order))

    @cached_property
    def tables(self) -> tuple[GateTable, GateTable]:
        """Gates of these fresh samples, and of the test samples."""
        fresh = self.trained.record(self.draws.fresh.X[self.rows])
        return fresh, self.trained.record(self.draws.test.X)

    @cached_property
    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """Kernel of these fresh samples, and of the test samples with them."""
        fresh, test = self.tables
        name = f"{self.subject.stem}.{TRAINED}"
        return self.kept(self.trained, fresh, test, name)

    def kept(
        self, kernel: NeuralPathKernel, fresh: GateTable, test: GateTable, name: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Two matrices of the folder."""
        square = stored(kernel, fresh, None, self.folder / f"{name}.fresh.zarr")
        return square, stored(kernel, test, fresh, self.folder / f"{name}.test.zarr")

    def seed_of(self, split: int) -> int:
        """Of the initial weights of a draw."""
        return self.seed + _ANEW + split

    def at(self, split: int) -> np.ndarray:
        """Places of a draw's samples among :attr:`rows`."""
        return np.searchsorted(self.rows, self.draws.order[split])

    @cached_property
    def anew(self) -> tuple[Callable | None, str]:
        """How the network is made anew, or why it is not."""
        return before_training(self.subject)

    def state(self, gates: str, split: int) -> "State":
        """Gates and matrices of one draw.

        Args:
            gates: "trained", "untrained" (made anew for each draw) or "random gates".
            split: number of the draw.

        Returns:
            The state.
        """
        at = self.at(split)
        if gates == TRAINED:
            square, cross = self.matrices
            return State(self.tables[0].take(at), square[np.ix_(at, at)], cross[:, at])
        name = f"{self.subject.stem}.{gates.replace(' ', '-')}-{split}"
        if gates == RANDOM:
            kernel = self.of(None)
            mean = self.tables[0].inputs.mean(0)
            drawn = [random_gates(table, mean, self.seed + split) for table in self.tables]
            fresh, test = drawn[0].take(at), drawn[1]
        else:
            make = self.anew[0]
            assert make is not None
            kernel = self.of(make(self.seed_of(split)))
            fresh = kernel.record(self.draws.fresh.X[self.draws.order[split]])
            test = kernel.record(self.draws.test.X)
        return State(fresh, *self.kept(kernel, fresh, test, name))


@dataclass(frozen=True, eq=False)
class State:
    """Gates and kernel of one draw's samples, and the kernel of the test samples with them."""

    table: GateTable
    K: np.ndarray  # (n, n)
    cross: np.ndarray  # (m, n)


def stored(
    kernel: NeuralPathKernel, rows: GateTable, cols: GateTable | None, out: Path
) -> np.ndarray:
    """A kernel of the study's folder, computed where it is not whole there yet; a store of something
    else is replaced.

    Args:
        kernel: its options.
        rows: gates of the rows.
        cols: gates of the columns; ``None``: the rows.
        out: the store, which is the study's own: one of another kernel is replaced.

    Returns:
        The matrix.

    Raises:
        StoreError: another process writes the store, or it cannot be written.
    """
    try:
        return np.asarray(kernel.to_store(rows, cols, out))
    except StoreError:
        if not out.is_dir():
            raise
        with locked(out / ".lock", of=out):  # not one that another process writes
            shutil.rmtree(out, ignore_errors=True)
        return np.asarray(kernel.to_store(rows, cols, out))
