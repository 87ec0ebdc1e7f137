"""Frozen results that travel: plain values, no logic, to JSON and back.

A report is made from these alone, on a machine that may have neither torch nor the data.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Self

from npk.errors import StoreError
from npk.files import written_whole


@dataclasses.dataclass(frozen=True)
class Result:
    """Base of all results."""

    def to_json(self) -> str:
        """The result as JSON text; ``from_json`` gives it back."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The result that ``to_json`` wrote.

        Raises:
            StoreError: the text is not JSON, or not this kind of result.
        """
        try:
            return cls._from_dict(json.loads(text))
        except (ValueError, TypeError, KeyError) as error:
            message = f"this is not a {cls.__name__} in JSON ({error}). Was the file cut off, or written by another program?"
            raise StoreError(message) from error

    @classmethod
    def _from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild; fields that hold tuples of results name their class in the metadata key ``of``."""
        made = {}
        for field in dataclasses.fields(cls):
            value = values[field.name]
            of = field.metadata.get("of")
            made[field.name] = tuple(of._from_dict(v) for v in value) if of else value
        return cls(**made)

    def save(self, path: str | Path) -> None:
        """Write the JSON file whole or not at all."""
        with written_whole(path) as temporary:
            temporary.write_text(self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that :meth:`save` wrote.

        Raises:
            StoreError: no such file, or not this kind of result.
        """
        try:
            text = Path(path).read_text()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}. Name a file that `npk` wrote.") from error
        return cls.from_json(text)


@dataclasses.dataclass(frozen=True)
class CheckResult(Result):
    """What a check of the theory measured."""

    name: str  # "duality" | "invariance" | "ensemble" | "tangent"
    network: str  # short name of the network that was checked
    statement: str  # one sentence: what was compared with what
    passed: bool
    measured: float  # the worst deviation, in the unit of tolerance (relative unless the statement says otherwise)
    tolerance: float
    details: dict[str, Any]  # JSON values; what the figure of the check draws (see the check's docstring)


@dataclasses.dataclass(frozen=True)
class Accuracy(Result):
    """Test accuracy of one model on one network's kernel, of the network itself, or of a baseline."""

    network: str  # "conv-gap dnn", ...; "pixels" for baselines that see no network
    model: str  # "network" | "NPK-SVM" | "NPK-ridge" | "NPK-SVM at random initialisation" | "logistic regression" | ...
    accuracy: float  # share of test samples that are right, 0..1
    seconds: float  # training (network) or kernel + fit (machines)
    parameters: dict[str, Any]  # what was chosen: {"alpha": 1e-3}, {"C": 10.0}, ...


@dataclasses.dataclass(frozen=True)
class KernelSummary(Result):
    """A kernel as a page shows it."""

    network: str
    scale: str  # "fan_in" | "count" | "cosine"
    data: str  # file with the samples, in the run's folder
    samples: int
    seconds: float
    heat: list[list[float]]  # cosine kernel of a class-balanced subset, sorted by class; at most 200 x 200
    heat_labels: list[int]  # class of each row of ``heat``
    spectrum: list[float]  # eigenvalues of the trace-normalised training kernel, largest first
    effective_rank: float  # exp(entropy of the normalised spectrum)
    layers: list[str]  # gate layers, from the input
    overlap_same: list[float]  # mean share of gates on for both, pairs of one class, by layer
    overlap_different: list[float]  # the same for pairs of different classes
    dead_inputs: int  # samples with K(x, x) = 0


@dataclasses.dataclass(frozen=True)
class NetworkSummary(Result):
    """A network of a run."""

    name: str  # "conv-gap dnn"
    family: str  # "shift-invariant" | "position-keeping"
    kind: str  # "dnn" | "dgn" | "dlgn" | "dlgn-sf"
    description: str  # one line: layers, widths, padding, read-out
    parameters: int
    checkpoint: str  # file name inside the run folder
    curve_train: list[float]  # loss of each epoch
    curve_validation: list[float]  # accuracy of each epoch
    reused: bool  # taken from an earlier run in the same folder


@dataclasses.dataclass(frozen=True)
class RunResult(Result):
    """Everything one run of `npk demo` found; the report is made from this and nothing else."""

    version: str  # npk's version
    data: str  # DATA notation
    classes: list[str]
    samples_train: int
    samples_test: int
    seed: int
    seconds: float
    machine: str
    networks: tuple[NetworkSummary, ...] = dataclasses.field(metadata={"of": NetworkSummary})
    accuracies: tuple[Accuracy, ...] = dataclasses.field(metadata={"of": Accuracy})
    kernels: tuple[KernelSummary, ...] = dataclasses.field(metadata={"of": KernelSummary})
    checks: tuple[CheckResult, ...] = dataclasses.field(metadata={"of": CheckResult})
