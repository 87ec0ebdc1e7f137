"""What checks, suites and instruments found."""

import dataclasses
import math
from typing import Any, Literal

from npk.choices import bias_choice
from npk.errors import DataError
from npk.results.base import CaseDetails, Details, Result
from npk.typed import Typed


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

    def __repr__(self) -> str:
        verdict = "passed" if self.passed else "failed"
        measured = "not finite" if self.measured is None else f"{self.measured:.3g}"
        numbers = f"measured {measured}, tolerance {self.tolerance:.3g}"
        return f"<npk.CheckResult {self.name} of {self.network}: {verdict}, {numbers}>"

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
        names = ("block", "predicted", "frozen gates", "live gates", "accuracy lost", "added at")
        table = [names, *rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in table
        ]
        whole = "" if self.accuracy is None else f", accuracy {100 * self.accuracy:.1f} %"
        head = f"{self.network}: {self.samples} samples{whole}; {bias_choice(self.bias)}"
        return "\n".join([head, *lines])


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


@dataclasses.dataclass(frozen=True)
class RandomLesion(Typed):
    """What is lost with one block under random weights and the gates of the whole network."""

    block: int  # number of the addition, from 1
    predicted: float  # share of the kernel's trace that passes the block
    measured: float  # mean square lost over mean square of the output
    error: float  # standard error of the measured share


@dataclasses.dataclass(frozen=True)
class EnsembleRun(Result):
    """What `npk bench ensemble` found of one network."""

    name: str
    checks: tuple[CheckResult, ...]  # that of ensembles; none: nothing is added in the network
    spectrum: DepthShares
    lesions: tuple[RandomLesion, ...]
    draws: int  # random weights of the lesions
    limit: float  # standard errors that one of the right lesions exceeds once in 100,000 runs
    seconds: float

    @property
    def check(self) -> CheckResult | None:
        """The check of the network, where it has one."""
        return self.checks[0] if self.checks else None

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean share of each depth over the samples with an active path."""
        sizes = zip(self.spectrum.shares, self.spectrum.kernel, strict=True)
        live = [row for row, size in sizes if size > 0]
        return tuple(math.fsum(column) / len(live) for column in zip(*live, strict=True))

    @property
    def path_length(self) -> float | None:
        """Mean number of layers of a path; ``None`` without any path."""
        if not self.mean:
            return None
        return math.fsum(d * s for d, s in zip(self.spectrum.depths, self.mean, strict=True))

    def quantile(self, share: float) -> int | None:
        """The least number of layers up to which paths make that share; ``None`` without any path."""
        total = 0.0
        for depth, part in zip(self.spectrum.depths, self.mean, strict=False):
            total += part
            if total >= share:
                return depth
        return self.spectrum.depths[-1] if self.mean else None

    @property
    def worst(self) -> float | None:
        """Distance of the worst lesion from its prediction in standard errors; ``None`` without."""
        found = [abs(one.measured - one.predicted) / one.error for one in self.lesions if one.error]
        return max(found, default=None)

    @property
    def passed(self) -> bool:
        """Whether all identities hold, and no lesion is beyond what chance explains."""
        agrees = self.worst is None or self.worst <= self.limit
        return agrees and (self.check is None or self.check.passed)


@dataclasses.dataclass(frozen=True)
class EnsembleSuite(Result):
    """What `npk bench ensemble` found."""

    version: str  # npk's version
    data: str  # DATA notation, or what stands for it
    samples: int
    seed: int
    seconds: float  # of all networks, in this run and earlier ones
    runs: tuple[EnsembleRun, ...]
