"""Every kernel that npk has for GPUs: its source, the devices that it is for, and what it may take
of them.

Sources are CUDA C++ without headers. What depends on the arithmetic is a macro that the compiler is
given; sizes are arguments.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

KERNELS_FOLDER = files("npk.backends.cuda") / "kernels"
HIGHEST = 47  # rows of a grid whose neighbors fit the shared memory that every block may have
BLOCK_LIMIT = 65536  # registers of a multiprocessor, which the threads of a block share


@dataclass(frozen=True)
class KernelSpec:
    """One kernel for one arithmetic.

    ``entry`` is its name in ``file``, ``threads`` those of a block, ``first`` and ``last`` the
    oldest and newest architecture that it is for (compute capability times ten). ``registers`` (of
    a thread), ``shared`` (bytes of a block) and ``spills`` (bytes of a thread) are budgets that a
    compiled kernel must keep; ``defines``: macros and their values.
    """

    entry: str
    file: str
    threads: int
    registers: int
    shared: int
    defines: tuple[tuple[str, str], ...] = ()
    first: int = 70
    last: int = 999
    spills: int = 0

    @property
    def source(self) -> str:
        """The text of the file with the texts that it includes in their places."""
        return _flat(self.file)

    @property
    def options(self) -> tuple[str, ...]:
        """Options of the compiler, of every compiler."""
        return tuple(f"-D{name}={value}" for name, value in self.defines)

    def serves(self, capability: int) -> bool:
        """Whether the kernel is for a device of this compute capability (times ten)."""
        return self.first <= capability <= self.last


@functools.cache
def _flat(file: str) -> str:
    """One text: CuPy looks for compiled kernels by the text that it is given, and would not see
    that an included file has changed.
    """
    lines = (KERNELS_FOLDER / file).read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(
        _flat(line.split('"')[1]) if line.startswith('#include "') else line for line in lines
    )


def _dense(
    way: str,
    dtype: str,
    threads: int,
    registers: int,
    shared: int,
    biased: bool = False,
    **devices: int,
) -> KernelSpec:
    """The kernel of dense layers; ``biased``: with biases."""
    return KernelSpec(
        f"npk_dense_{way}",
        f"dense_{way}.cu",
        threads,
        registers,
        shared,
        (*_defines(dtype, threads, registers), ("NPK_BIASED", str(int(biased)))),
        **devices,
    )


def _program(dtype: str, threads: int, registers: int) -> KernelSpec:
    """The kernel of all other networks."""
    return KernelSpec(
        "npk_program", "program.cu", threads, registers, 0, _defines(dtype, threads, registers)
    )


def _defines(dtype: str, threads: int, registers: int) -> tuple[tuple[str, str], ...]:
    """The arithmetic, and how many blocks are to fit a multiprocessor: as registers allow."""
    return (
        ("NPK_REAL", {"float32": "float", "float64": "double"}[dtype]),
        ("NPK_BLOCKS", str(BLOCK_LIMIT // (threads * registers))),
    )


@dataclass(frozen=True)
class Specialization:
    """The kernel of pooled convolutions made for one grid: ``windows`` (rows, top, columns, first)
    by their numbers, ``chunks`` of 128 channels, ``slot``: bytes of a field that waits, of one pair
    and difference of rows.
    """

    spec: KernelSpec
    windows: tuple[tuple[int, int, int, int], ...]
    chunks: int
    slot: int

    @property
    def words(self) -> int:
        """Words of a mask at one position."""
        return 4 * self.chunks


def stage_kernel(
    shape: tuple[int, int],
    circular: bool,
    chunks: int,
    windows: Sequence[tuple[int, int, int, int]],
    dtype: str,
    capability: int,
    fields: tuple[bool, bool] = (False, False),
    slots: bool = False,
    biased: bool = False,
) -> Specialization | None:
    """The kernel of pooled convolutions for a grid.

    A lane holds ``runs`` x ``spans`` cells of each of the ``own`` rows of its warp in registers: at
    most 32 where a block may then have 512 threads, at most 128 where it may have 256. Cells that
    go around in a circle must fill their lanes.

    Args:
        shape: rows and columns of the grid.
        circular: how windows look over its edge.
        chunks: of 128 channels that the widest mask takes.
        windows: rows, first row, columns, first column of each layer's window.
        dtype: of the kernel.
        capability: compute capability of the device, times ten.
        fields: whether it begins with fields from memory, else with the input; and whether it
            leaves fields there, else their sums.
        slots: whether fields wait in memory meanwhile, for residual streams.
        biased: whether fields have biases, which are added on the chip.

    Returns:
        The kernel, or ``None`` where there is none: float64, devices without binary tensor cores,
            grids that do not fit.
    """
    (height, width), (runs, spans) = shape, (_share(shape[1], lanes, circular) for lanes in (8, 4))
    wide = any(max(rows, columns) > 3 for rows, _, columns, _ in windows)
    own, registers = _rows_of_a_warp(height, -(-runs * spans // 4) * 4, wide)
    if not own or height > HIGHEST or dtype != "float32":
        return None
    threads, known = 32 * (height // own), tuple(dict.fromkeys(windows))
    listed = "".join(
        f"W({number},{','.join(map(str, window))})" for number, window in enumerate(known)
    )
    sizes = {
        "H": height,
        "W": width,
        "OWN": own,
        "RUNS": runs,
        "SPANS": spans,
        "CIRCULAR": int(circular),
        "CHUNKS": chunks,
    }
    sizes |= {"BLOCKS": BLOCK_LIMIT // (threads * -(-registers // 8) * 8), "WINDOWS": listed}
    sizes |= {"FROM_FIELD": int(fields[0]), "TO_FIELD": int(fields[1]), "SLOTS": int(slots)}
    sizes |= {"BIASED": int(biased)}
    defines = tuple((f"NPK_{name}", str(value)) for name, value in sizes.items())
    spec = KernelSpec(
        "npk_stage",
        "stage.cu",
        threads,
        registers,
        1024 * height + 8 * threads // 32,
        defines,
        first=80,
        last=90,
    )
    slot = 16 * -(-runs * spans // 4) * own * threads if slots else 0
    return Specialization(spec, known, chunks, slot) if spec.serves(capability) else None


def _rows_of_a_warp(height: int, cells: int, wide: bool) -> tuple[int, int]:
    """Rows that a warp owns, so many cells of each lane in a row, and registers of a thread; 0 rows
    if the grid does not fit a block.

    Windows of more than three rows or columns need registers too: fewer cells are then left in
    them.
    """
    for most, warps, registers in ((32, 16, 128), (96 if wide else 128, 8, 255)):
        own = max(
            (own for own in range(1, height + 1) if height % own == 0 and own * cells <= most),
            default=0,
        )
        if own and height // own <= warps and cells <= 64:
            return own, registers
    return 0, 0


def _share(width: int, lanes: int, circular: bool) -> int:
    """Columns of each of at most so many lanes; in a circle all have as many."""
    return next(
        share
        for share in range(-(-width // lanes), width + 1)
        if not circular or width % share == 0
    )


KERNELS = {
    ("dense", "popc", "float32"): _dense("popc", "float32", 256, 80, 8704),
    ("dense", "popc", "float64"): _dense("popc", "float64", 256, 128, 12800),
    ("dense", "bmma", "float32"): _dense("bmma", "float32", 128, 128, 8448, first=80, last=90),
    ("dense", "bmma", "float64"): _dense("bmma", "float64", 128, 216, 12544, first=80, last=90),
    ("dense", "popc, biases", "float32"): _dense("popc", "float32", 256, 80, 8704, True),
    ("dense", "popc, biases", "float64"): _dense("popc", "float64", 256, 128, 12800, True),
    ("dense", "bmma, biases", "float32"): _dense(
        "bmma", "float32", 128, 128, 8448, True, first=80, last=90
    ),
    ("dense", "bmma, biases", "float64"): _dense(
        "bmma", "float64", 128, 216, 12544, True, first=80, last=90
    ),
    ("program", "general", "float32"): _program("float32", 128, 128),
    ("program", "general", "float64"): _program("float64", 128, 128),
    ("sums", "any", "float32"): KernelSpec(
        "npk_sums", "sums.cu", 256, 64, 0, _defines("float32", 256, 64)
    ),
    ("gather", "any", "float32"): KernelSpec(
        "npk_gather", "gather.cu", 256, 64, 0, _defines("float32", 256, 64)
    ),
}


def dense_kernel(capability: int, words: int, dtype: str, biased: bool) -> KernelSpec:
    """The kernel of dense layers that is fastest on a device.

    The binary tensor cores of sm_80 to sm_90 count 256 bits of 16 x 8 pairs in one instruction.
    They are worth it from the first word on: eight words of 64 x 64 pairs take them about 110
    cycles of a multiprocessor, where ``__popc`` takes 256 for one word. Newer devices have no such
    cores and would emulate the instruction; without any words there is nothing to count.

    Args:
        capability: compute capability of the device, times ten.
        words: words of all masks of a sample.
        dtype: "float32" or "float64".
        biased: whether there are biases.

    Returns:
        The kernel.
    """
    what = ", biases" if biased else ""
    matrix = KERNELS["dense", f"bmma{what}", dtype]
    return matrix if words and matrix.serves(capability) else KERNELS["dense", f"popc{what}", dtype]
