"""Frozen results that travel: plain values, no logic, to JSON and back.

A report is made from these alone, on a machine that may have neither torch nor the data. Every
value is checked when it is made, and a file says in which format it is written.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from npk.errors import DataError, StoreError
from npk.files import written_whole
from npk.typed import Typed, parse_object, strict_json

FORMAT = 2  # of all files; a field that is added, left out or means another thing makes it another
_AGAIN = "Make it again with the command that wrote it"


@dataclasses.dataclass(frozen=True)
class Result(Typed):
    """Base of all results."""

    def to_json(self) -> str:
        """The result as JSON text; ``from_json`` gives it back."""
        head = {"format": FORMAT, "result": type(self).__name__}
        return strict_json({**head, **self.to_values()})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The result that ``to_json`` wrote.

        Raises:
            StoreError: the text is not JSON, of another format, or not this kind of result.
        """
        try:
            values = parse_object(text)
        except ValueError as error:
            raise cls._damaged(error) from error
        cls._check_head(values.pop("format", None), values.pop("result", None))
        try:
            return cls.from_values(values)
        except DataError as error:
            raise cls._damaged(error) from error

    @classmethod
    def _damaged(cls, error: Exception) -> StoreError:
        what = f"this is not a {cls.__name__} in JSON ({error})"
        return StoreError(f"{what}. Was the file cut off, or written by another program?")

    @classmethod
    def _check_head(cls, version: Any, kind: Any) -> None:
        if version is None:
            what = f"this is not a {cls.__name__} in JSON that this npk reads"
            raise StoreError(f"{what}: it has no format number, as files of earlier npk. {_AGAIN}.")
        if version != FORMAT:
            what = f"this file has format {version!r}, and this npk reads format {FORMAT}"
            raise StoreError(f"{what}. {_AGAIN}, or read it with the npk that wrote it.")
        if kind != cls.__name__:
            raise StoreError(f"this is a {kind!r}, not a {cls.__name__}. Name another file.")

    def save(self, path: str | Path) -> None:
        """Write the JSON file whole or not at all."""
        with written_whole(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that :meth:`save` wrote.

        Raises:
            StoreError: no such file, of another format, or not this kind of result.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            message = f"cannot read {path}: {error.strerror}. Name a file that `npk` wrote."
            raise StoreError(message) from error
        except UnicodeDecodeError as error:
            raise cls._damaged(error) from error
        return cls.from_json(text)


@dataclasses.dataclass(frozen=True)
class Case(Typed):
    """One comparison of a check."""

    label: str  # what was compared
    deviation: float | None  # relative; None: not finite


class Details(Typed):
    """Base of what the figure of a check draws."""


@dataclasses.dataclass(frozen=True)
class CaseDetails(Details):
    """One comparison after the other: all that most checks have to tell."""

    cases: tuple[Case, ...]


@dataclasses.dataclass(frozen=True)
class DualityDetails(CaseDetails):
    """How the output of a network compares with its path features and path values."""

    # whether random value networks have K as their second moment; undecided: their tails are heavy
    moment: Literal["agrees", "deviates", "undecided"]
    moment_errors: float | None  # worst distance of the moment from K, in standard errors
    moment_spread: float | None  # the largest standard error, relative to K(x, x)
    tail: float | None  # the largest Pareto shape of the squares; None: too few are not 0
    draws: int  # random value networks
    paths: float | None  # of the network; None: more than float64 holds


@dataclasses.dataclass(frozen=True)
class Moved(Typed):
    """What one element of a group does, at each level of a network."""

    name: str  # "(0, 2)", "turn by 90°"
    by: tuple[int, ...]  # of a shift, one number an axis; empty for others
    distance: float  # that a shift moves, in positions
    predicted: bool | None  # whether structure says that the kernel stays; None: it does not tell
    input: float | None  # length of the difference to the samples' own, relative: mean
    # Share of gates that are not the moved gates, a layer each: mean. None: the layer does not move
    # by whole positions.
    gates: tuple[float | None, ...]
    kernel: float | None  # worst over all pairs, relative to the roots of the diagonals
    output: float | None  # as of the input
    labels: float | None  # share of samples whose largest output is the same; None: one output


@dataclasses.dataclass(frozen=True)
class Point(Typed):
    """What is seen at one distance."""

    distance: int
    elements: int  # as far as that, to the next whole number
    mean: float  # over samples
    low: float  # ends of its 95 % interval over samples
    high: float


@dataclasses.dataclass(frozen=True)
class Curve(Typed):
    """One level against the distance that shifts move."""

    level: str  # "input", "gates NAME", "kernel", "output", "same label"
    points: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class InvarianceCase(Typed):
    """What the elements of a group do to the kernel of one network."""

    label: str
    group: str  # "circular shifts"
    size: int  # elements of the group; as many or fewer were looked at
    predicted: str  # what structure says, in a few words; empty: nothing
    reasons: tuple[str, ...]  # what breaks the others
    layers: tuple[str, ...]  # of gates
    moved: tuple[Moved, ...]
    curves: tuple[Curve, ...]
    inside: int  # elements that must leave the kernel alone
    holds: int  # of these, those that do
    worst_inside: float | None  # without what is left out; None: not finite
    outside: int  # elements that need not
    also: int  # of these, those that leave it alone too
    outside_median: float | None
    outside_worst: float | None
    flips: int  # gates that are not the moved gates, of the elements inside
    rounding: int  # moved samples that are left out: pre-activations within rounding of 0
    gates: int  # that were compared, of the elements inside
    summary: str  # all that in a line


@dataclasses.dataclass(frozen=True)
class InvarianceDetails(Details):
    """What the elements of a group do to the kernels of some networks."""

    cases: tuple[InvarianceCase, ...]


@dataclasses.dataclass(frozen=True)
class Shares(Typed):
    """How much of a kernel comes from which of its sub-networks: means over K(x, x)."""

    depth: tuple[int, ...]  # numbers of parametric layers, ascending
    share: tuple[float, ...]  # of the sub-networks with so many layers
    blocks: tuple[float, ...]  # of the paths through each block, from the input on

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            DataError: a value is not of its field's type, or not every depth has a share.
        """
        super().__post_init__()
        if len(self.depth) != len(self.share):
            counts = f"{len(self.depth)} depths and {len(self.share)} shares"
            raise DataError(f"Shares have {counts}: give one share a depth")

    @property
    def path_length(self) -> float:
        """Mean number of layers of a path: tangent kernel over kernel, a mean over K(x, x)."""
        return math.fsum(d * share for d, share in zip(self.depth, self.share, strict=True))


@dataclasses.dataclass(frozen=True)
class EnsembleDetails(CaseDetails):
    """How sums over sub-networks compare with the kernel, and what each of them gives."""

    shares: Shares


@dataclasses.dataclass(frozen=True)
class TangentEntry(Typed):
    """An entry of a tangent kernel beside its mean over random value networks."""

    row: int  # number of the sample
    col: int
    expected: float
    mean: float
    error: float  # standard error of the mean


@dataclasses.dataclass(frozen=True)
class TangentDetails(Details):
    """How the tangent kernel compares with that of random value networks."""

    parametrization: Literal["ntk", "standard"]
    draws: int  # random value networks
    path_length: float | None  # mean of tangent kernel over kernel on the diagonal; None: no path
    entries: tuple[TangentEntry, ...]  # diagonal and above


# The checks by name: check_NAME in npk/checks/NAME.py has details of this class.
DETAILS: dict[str, type[Details]] = {
    "duality": DualityDetails,
    "invariance": InvarianceDetails,
    "ensemble": EnsembleDetails,
    "tangent": TangentDetails,
}


@dataclasses.dataclass(frozen=True)
class CheckResult(Result):
    """What a check of the theory measured."""

    name: str  # a key of DETAILS
    network: str  # short name of the network that was checked
    statement: str  # one sentence: what was compared with what
    passed: bool
    # The worst deviation, in the unit of tolerance: relative, unless the statement says otherwise.
    measured: float | None  # None: not finite
    tolerance: float
    details: Details  # of the class that DETAILS names
    command: str = ""  # what makes it again, where a command does

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            DataError: no such check, or a value is not of its field's type.
        """
        super().__post_init__()
        kind = _details_of(self.name)
        if type(self.details) is not kind:
            came = type(self.details).__name__
            raise DataError(f"details of {self.name} are {came}, and must be {kind.__name__}")

    @classmethod
    def kinds_of(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The type of each field; that of the details goes by the name of the check."""
        return {**super().kinds_of(values), "details": _details_of(values.get("name"))}


def _details_of(name: Any) -> type[Details]:
    kind = DETAILS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise DataError(f"the check {name!r} is not known. Choose {', '.join(DETAILS)}")
    return kind


@dataclasses.dataclass(frozen=True)
class DepthShares(Result):
    """Shares of K(x, x) by the number of layers of paths, as a file has them."""

    network: str
    scale: str  # "fan_in" | "count" | "cosine"
    bias: str  # "ignore" | "paths"
    depths: tuple[int, ...]  # ascending
    shares: tuple[tuple[float, ...], ...]  # of each sample, one share a depth
    kernel: tuple[float, ...]  # K(x, x) of each sample

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            DataError: a value is not of its field's type, or not every depth has a share.
        """
        super().__post_init__()
        sides = len(self.shares), *{len(row) for row in self.shares}
        if self.shares and sides != (len(self.kernel), len(self.depths)):
            counts = f"{len(self.kernel)} samples, {len(self.depths)} depths, and shares {sides}"
            raise DataError(f"DepthShares have {counts}: give a share for each sample and depth")


@dataclasses.dataclass(frozen=True)
class Lesion(Typed):
    """What is lost with one block of a network, in shares of the mean square of the output."""

    block: int  # number of the addition, from 1
    source: str  # line of the user's code where it is added
    predicted: float | None  # share of the kernel that passes the block; None: no active path
    frozen: float | None  # with the network's own weights, the gates held
    live: float | None  # the gates computed anew; None: the network has no such place
    accuracy: float | None  # of the network without the block; None: no labels

    def words(self, whole: float | None) -> tuple[str, ...]:
        """Its numbers as text; ``whole``: accuracy of the whole network."""
        shares = (self.predicted, self.frozen, self.live)
        lost = None if whole is None or self.accuracy is None else 100 * (whole - self.accuracy)
        words = ["-" if share is None else f"{share:.3g}" for share in shares]
        return (*words, "-" if lost is None else f"{lost:.1f} %")


@dataclasses.dataclass(frozen=True)
class LesionTable(Result):
    """Lesions of all blocks of a network."""

    network: str
    samples: int
    bias: str  # "ignore" | "paths"
    accuracy: float | None  # of the whole network; None: no labels
    lesions: tuple[Lesion, ...]

    def __str__(self) -> str:
        rows = [
            (str(lesion.block), *lesion.words(self.accuracy), lesion.source)
            for lesion in self.lesions
        ]
        head = ("block", "predicted", "frozen gates", "live gates", "accuracy lost", "added at")
        table = [head, *rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in table
        ]
        whole = "" if self.accuracy is None else f", accuracy {100 * self.accuracy:.1f} %"
        return "\n".join([f"{self.network}: {self.samples} samples{whole}", *lines])


@dataclasses.dataclass(frozen=True)
class Accuracy(Result):
    """How many test samples a model classifies correctly."""

    network: str  # whose kernel, features or own outputs; empty: a model that sees inputs alone
    model: str  # a key of MODELS, or "NPK-SVM"
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
    model: str  # of MODELS
    against: str  # of MODELS
    samples: int  # fresh samples of both
    difference: float  # of the accuracies, in shares
    error: float | None  # standard error of the paired difference, over splits and test samples
    command: str


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
    spectrum: list[float]  # eigenvalues of the trace-normalised kernel, largest first
    dead_inputs: int  # samples with K(x, x) = 0

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            DataError: a value is not of its field's type, or lengths do not fit together.
        """
        super().__post_init__()
        sides = {len(self.heat_labels), *map(len, self.heat)}
        if self.heat and sides != {len(self.heat)}:
            counts = f"{len(self.heat)} rows, and rows and labels of length {sorted(sides)}"
            raise DataError(f"heat has {counts}: it must be square, with a label a row")


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


@dataclasses.dataclass(frozen=True)
class TimedCheck(Result):
    """A check of a suite, as it waits for the others."""

    check: CheckResult
    seconds: float


@dataclasses.dataclass(frozen=True)
class InvarianceSuite(Result):
    """What `npk bench invariance` found: a check a network, each with one case."""

    version: str  # npk's version
    data: str  # DATA notation, or what stands for it
    samples: int
    seed: int
    seconds: float  # of all checks, in this run and earlier ones
    checks: tuple[CheckResult, ...]

    def cases(self) -> list[tuple[CheckResult, InvarianceCase]]:
        """The checks with their cases."""
        details = ((check, check.details) for check in self.checks)
        return [
            (check, case)
            for check, known in details
            if isinstance(known, InvarianceDetails)
            for case in known.cases
        ]
