"""What a study found, and what its page is made of."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from npk.errors import DataError
from npk.results.base import Result
from npk.results.checks import CheckResult
from npk.typed import Typed


@dataclasses.dataclass(frozen=True)
class Accuracy(Result):
    """How many test samples a model classifies correctly."""

    network: str  # whose kernel, features or own outputs; empty: a model that sees inputs alone
    model: (
        str  # a key of MODELS, or "NPK-ridge", "NPK-SVM", "NPK-GP", "NPK-Nystroem", "NPK-features"
    )
    # fresh samples that the machine was fitted to; 0: none, the network has learnt elsewhere
    samples: int
    accuracy: float  # share of test samples that are right, 0..1: the mean over the splits
    error: float | None  # standard error, over splits and test samples; None: not known
    by_split: tuple[float, ...]  # of each draw of fresh samples
    seconds: float  # of the fits; with the kernel where it was computed for this alone
    # What was chosen: {"alpha": 1e-3}, {"C": 10.0}, ...; of several splits the median.
    parameters: Mapping[str, str | int | float | bool | None]
    command: str  # what gives the numbers of by_split again, run in the results' folder

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            DataError: a value is not of its field's type, or an accuracy is no share.
        """
        super().__post_init__()
        for share in (self.accuracy, *self.by_split):
            if not 0 <= share <= 1:
                raise DataError(f"accuracy is {share}, and must be a share from 0 to 1")


# The models of a study by name, in the order of a page, and what each of them is.
MODELS: dict[str, str] = {
    "network": "the network itself",
    "penultimate": "ridge on the network's penultimate features",
    "trained": "NPK ridge, trained gates",
    "untrained": "NPK ridge, the same network before training",
    "random gates": "NPK ridge, gates of random half-spaces",
    "RBF": "RBF ridge on the inputs",
    "logistic": "logistic regression on the inputs",
}


@dataclasses.dataclass(frozen=True)
class Difference(Typed):
    """How much more accurate one model is than another on the same samples: paired."""

    network: str  # empty: the mean over all networks
    model: str  # of MODELS, or a kernel machine
    against: str  # of MODELS
    samples: int  # fresh samples of both
    difference: float  # of the accuracies, in shares
    error: float | None  # standard error of the paired difference, over splits and test samples
    command: str


@dataclasses.dataclass(frozen=True)
class MachineTable(Result):
    """A kernel machine beside its baselines, on the same samples."""

    accuracies: tuple[Accuracy, ...]  # the machine's first
    differences: tuple[Difference, ...]  # of the machine to each of the others, paired
    samples_test: int


@dataclasses.dataclass(frozen=True)
class FitReport(Result):
    """What `npk fit` found."""

    of: str  # the checkpoint, or the folder of gates or of a kernel
    data: str  # DATA notation; empty for a folder, which holds its samples
    scale: str  # "fan_in" | "count" | "cosine"
    bias: str  # "paths" | "ignore": what the kernel takes of the network's biases
    network: float | None  # share of the test samples that the network itself has right, if known
    on_training: float  # share that the machine has right of what it has learnt from
    samples_training: int
    samples_test: int
    accuracies: tuple[Accuracy, ...]  # on the test samples, the machine's first
    differences: tuple[Difference, ...]  # of the machine to each of the others, paired

    @property
    def machine(self) -> Accuracy:
        """The machine on the test samples."""
        return self.accuracies[0]


@dataclasses.dataclass(frozen=True)
class Measure(Typed):
    """A number read off a kernel or off gates."""

    network: str
    gates: Literal["trained", "untrained"]
    name: str  # "alignment", "effective rank", "class overlap", "activity", ...
    layer: str  # of a gate layer; empty: of the kernel, or of all layers
    value: float | None  # None: there is none, and note says why
    # standard error over samples, and of untrained networks over re-initializations; None: no error
    error: float | None
    samples: int
    note: str
    command: str


@dataclasses.dataclass(frozen=True)
class Comparison(Typed):
    """How alike the kernels and gates of two networks are, on the same samples."""

    first: str
    second: str
    gates: Literal["trained", "untrained"]  # of the second; the first is trained
    cka: float
    cka_low: float
    cka_high: float
    angle: float  # radians
    angle_low: float
    angle_high: float
    level: float  # of the bootstrap intervals
    flips: float | None  # share of gates that differ; None: the networks have other gates
    flips_error: float | None  # standard error over samples
    samples: int
    command: str


@dataclasses.dataclass(frozen=True)
class KernelSummary(Result):
    """A kernel as a page shows it."""

    network: str
    gates: Literal["trained", "untrained"]
    scale: str  # "fan_in" | "count" | "cosine"
    samples: int
    # Of a class-balanced subset, sorted by class; at most 200 x 200.
    heat: list[list[float]]
    heat_labels: list[int]  # class of each row of ``heat``; -1: not known
    heat_pictures: list[int]  # number of each row's Picture; empty: samples are no pictures
    # Eigenvalues of the trace-normalised kernel, largest first: the mean over the draws.
    spectrum: list[float]
    spectrum_error: list[float]  # standard error of each over the draws; empty: one draw
    dead_inputs: int  # samples with K(x, x) = 0

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            DataError: a value is not of its field's type, or lengths do not fit together.
        """
        super().__post_init__()
        sides = {len(self.heat_labels), *map(len, self.heat)}
        sides |= {len(self.heat_pictures)} if self.heat_pictures else set()
        if self.heat and sides != {len(self.heat)}:
            counts = (
                f"{len(self.heat)} rows, and rows, labels or pictures of length {sorted(sides)}"
            )
            raise DataError(f"heat has {counts}: it must be square, with a label a row")
        if len(self.spectrum_error) not in (0, len(self.spectrum)):
            counts = f"{len(self.spectrum)} values and {len(self.spectrum_error)} errors"
            raise DataError(f"spectrum has {counts}: each value has an error, or none has")


@dataclasses.dataclass(frozen=True)
class Picture(Typed):
    """A sample that a page shows."""

    number: int  # what others call it by
    shape: tuple[int, ...]  # (height, width) or (height, width, 3)
    pixels: str  # bytes from 0 to 255, in base64
    label: int  # class; -1: not known


@dataclasses.dataclass(frozen=True)
class Neighbors(Typed):
    """The fresh samples that a kernel finds most like a test sample."""

    network: str
    gates: Literal["trained", "untrained"]
    sample: int  # number of a Picture
    near: tuple[int, ...]  # numbers of Pictures, the nearest first
    cosines: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Mistake(Typed):
    """A test sample that a machine on trained gates takes for one of another class."""

    network: str
    sample: int  # number of a Picture
    said: int  # class that the machine gives
    network_said: int  # class that the network itself gives; -1: not known


@dataclasses.dataclass(frozen=True)
class NetworkSummary(Result):
    """A network of a study."""

    name: str  # "conv-gap dnn"
    family: str  # "shift-invariant" | "position-keeping" | ""
    kind: str  # "dnn" | "dgn" | "dlgn" | "dlgn-sf" | ""
    description: str  # one line: layers, widths, padding, read-out
    parameters: int
    checkpoint: str  # file; empty: a network in memory
    bias: str  # "paths" | "ignore": what the kernels take of its biases
    untrained: str  # how it was made anew; or why it was not
    curve_train: list[float]  # loss of each epoch, where that is known
    # Accuracy of each epoch; None: there are no validation samples.
    curve_validation: list[float | None]
    reused: bool  # taken from an earlier run in the same folder


@dataclasses.dataclass(frozen=True)
class StudyResult(Result):
    """Everything a study found; the page is made from this and nothing else."""

    version: str  # npk's version
    command: str  # what makes all of it again; empty where Python was called
    data: str  # DATA notation of the samples, or a word for arrays
    test: str  # of the test samples
    classes: list[str]  # empty: no labels
    seen: Literal["seen", "fresh", "not known"]  # whether the networks have seen the samples
    samples_train: int  # that the networks were trained on; 0: not known
    samples_fresh: int  # that machines are fitted to, in all splits together
    samples_test: int
    sizes: tuple[int, ...]  # n
    splits: int
    disjoint: bool  # no sample is in two splits
    scale: str
    seed: int
    seconds: float
    machine: str
    networks: tuple[NetworkSummary, ...]
    accuracies: tuple[Accuracy, ...]
    differences: tuple[Difference, ...]
    measures: tuple[Measure, ...]
    comparisons: tuple[Comparison, ...]
    kernels: tuple[KernelSummary, ...]
    pictures: tuple[Picture, ...]
    neighbors: tuple[Neighbors, ...]
    mistakes: tuple[Mistake, ...]
    checks: tuple[CheckResult, ...]
    notes: tuple[str, ...]  # what was left out, and why
