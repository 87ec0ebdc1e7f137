"""Every kernel that npk has for GPUs: its source, the devices that it is for, and what it may take of them.

Sources are CUDA C++ without headers. What depends on the arithmetic is a macro that the compiler is given; sizes are arguments.
"""

import functools
from dataclasses import dataclass
from importlib.resources import files

KERNELS_FOLDER = files("npk.backends.cuda") / "kernels"
BLOCK_LIMIT = 65536  # registers of a multiprocessor, which the threads of a block share


@dataclass(frozen=True)
class KernelSpec:
    """One kernel for one arithmetic.

    ``entry`` is its name in ``file``, ``threads`` those of a block, ``first`` and ``last`` the oldest and newest architecture that it is
    for (compute capability times ten). ``registers`` (of a thread), ``shared`` (bytes of a block) and ``spills`` (bytes of a thread) are
    budgets that a compiled kernel must keep; ``defines``: macros and their values.
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
    """One text: CuPy looks for compiled kernels by the text that it is given, and would not see that an included file has changed."""
    lines = (KERNELS_FOLDER / file).read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(_flat(line.split('"')[1]) if line.startswith('#include "') else line for line in lines)


def _dense(way: str, dtype: str, threads: int, registers: int, shared: int, **devices: int) -> KernelSpec:
    """The kernel of dense layers."""
    return KernelSpec(f"npk_dense_{way}", f"dense_{way}.cu", threads, registers, shared, _defines(dtype, threads, registers), **devices)


def _program(dtype: str, threads: int, registers: int) -> KernelSpec:
    """The kernel of all other networks."""
    return KernelSpec("npk_program", "program.cu", threads, registers, 0, _defines(dtype, threads, registers))


def _defines(dtype: str, threads: int, registers: int) -> tuple[tuple[str, str], ...]:
    """The arithmetic, and how many blocks are to fit a multiprocessor: as many as the registers allow."""
    return (("NPK_REAL", {"float32": "float", "float64": "double"}[dtype]), ("NPK_BLOCKS", str(BLOCK_LIMIT // (threads * registers))))


KERNELS = {
    ("dense", "popc", "float32"): _dense("popc", "float32", 256, 80, 8704),
    ("dense", "popc", "float64"): _dense("popc", "float64", 256, 128, 12800),
    ("dense", "bmma", "float32"): _dense("bmma", "float32", 128, 128, 8448, first=80, last=90),
    ("dense", "bmma", "float64"): _dense("bmma", "float64", 128, 216, 12544, first=80, last=90),
    ("program", "general", "float32"): _program("float32", 128, 128),
    ("program", "general", "float64"): _program("float64", 128, 128),
}


def dense_kernel(capability: int, words: int, dtype: str) -> KernelSpec:
    """The kernel of dense layers that is fastest on a device.

    The binary tensor cores of sm_80 to sm_90 count 256 bits of 16 x 8 pairs in one instruction. They are worth it from the first word
    on: eight words of 64 x 64 pairs take them about 110 cycles of a multiprocessor, where ``__popc`` takes 256 for one word. Newer
    devices have no such cores and would emulate the instruction; without any words there is nothing to count.

    Args:
        capability: compute capability of the device, times ten.
        words: words of all masks of a sample.
        dtype: "float32" or "float64".

    Returns:
        The kernel.
    """
    matrix = KERNELS["dense", "bmma", dtype]
    return matrix if words and matrix.serves(capability) else KERNELS["dense", "popc", dtype]
