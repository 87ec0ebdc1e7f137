"""What `npk inspect`, `npk kernel`, `npk verify-store` and the dry run of a study found: their JSON."""

import dataclasses

from npk.results.base import Result
from npk.typed import Typed


@dataclasses.dataclass(frozen=True)
class Node(Typed):
    """A node of a path graph, with its gates."""

    number: int
    module: str
    operator: str  # with its inputs by number, where these are not the node before alone
    shape: tuple[int, ...]  # of one sample
    source: str  # line of the user's code
    gates: int  # 0: it has none
    dead: int | None  # gates that are off for all samples; None: no gates, or samples of no one's
    always_on: int | None  # gates that are on for all samples
    on: float | None  # mean share that is on; of soft gates their mean


@dataclasses.dataclass(frozen=True)
class PairCost(Typed):
    """What a pair of samples, and a sample, cost a kernel; :class:`npk.structure.effort.Effort`
    says what is counted.
    """

    masks: int
    fields: int
    cells: int
    words: int
    reads: int
    before: float  # seconds before the first tile, measured on this machine like those below
    seconds_a_sample: float  # its gates recorded, its masks formed
    seconds_a_pair: float
    bytes_a_sample: int  # gates and values
    bytes_of_masks: int  # a sample


@dataclasses.dataclass(frozen=True)
class KernelCost(Typed):
    """What a kernel of so many samples takes."""

    samples: int
    seconds: float
    bytes: int  # of the matrix, float32


@dataclasses.dataclass(frozen=True)
class InspectReport(Result):
    """What `npk inspect` tells of a network."""

    of: str  # the checkpoint
    data: str  # DATA notation; empty: random samples
    samples: int  # that the gates were recorded on
    input_shape: tuple[int, ...]
    nodes: tuple[Node, ...]
    log10_paths: float  # to one output unit
    gates: int
    gate_layers: int
    shifts: str  # the circular shifts that leave the kernel alone, and what breaks the others
    # these are the multiples of steps along each axis; empty: the identity alone
    steps: tuple[int, ...]
    bias: str  # "paths" | "ignore": what the kernel takes of the network's biases
    shifted: bool  # whether samples are shifted before the first weight
    cost: PairCost
    kernels: tuple[KernelCost, ...]
    notes: tuple[str, ...]  # what was done to the samples, and how the network itself does on them


@dataclasses.dataclass(frozen=True)
class KernelPlan(Result):
    """What `npk kernel --dry-run` tells."""

    of: str  # the checkpoint, or the folder of gates
    rows: int
    columns: int
    dtype: str
    scale: str  # "fan_in" | "count" | "cosine"
    bias: str  # "paths" | "ignore"
    symmetric: bool  # one triangle is computed
    tiles: int
    side: int  # of the largest tile
    bytes: int  # at the peak, at most
    bytes_of_gates: int
    before: float  # seconds before the first tile, measured on this machine like those below
    seconds_a_sample: float  # its gates recorded, its masks formed
    seconds_a_pair: float
    seconds: float  # of the whole kernel
    notes: tuple[str, ...]  # what was done to the samples, and how the network itself does on them


@dataclasses.dataclass(frozen=True)
class KernelReport(Result):
    """What `npk kernel` wrote."""

    of: str  # the checkpoint, or the folder of gates
    out: str
    rows: int
    columns: int
    dtype: str
    scale: str  # "fan_in" | "count" | "cosine"
    bias: str  # "paths" | "ignore"
    tiles: int | None  # of the store; None: a .npy file
    earlier: int | None  # that were there already
    seconds: float
    notes: tuple[str, ...]  # what was done to the samples, and how the network itself does on them


@dataclasses.dataclass(frozen=True)
class StoreReport(Result):
    """What `npk verify-store` found."""

    path: str
    content: str  # in words
    missing: int  # tiles of a kernel, or samples of a gate table, that are not there yet
    damaged: tuple[str, ...]  # parts that are not as they were written
    dropped: bool  # they count as not done
    seconds: float


@dataclasses.dataclass(frozen=True)
class KernelsOf(Typed):
    """What the kernels of a network take in a study."""

    network: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class StudyPlan(Result):
    """What `npk study --dry-run` tells."""

    sizes: tuple[int, ...]  # n
    splits: int
    samples_test: int
    networks: tuple[KernelsOf, ...]
    seconds: float  # of all kernels
