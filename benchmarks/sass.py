"""Machine code of compiled kernels: its instructions, its loops, and what their instructions ask of
a multiprocessor.
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CLASSES = {
    "tensor": "BMMA",
    "popc": "POPC",
    "fp32": "FFMA FADD FMUL HFMA2",
    "fp64": "DFMA DADD DMUL",
    "imad": "IMAD",
    "integer": "LOP3 PLOP3 IADD3 VIADD IABS IMNMX VIMNMX VIADDMNMX ISETP FSETP SEL FSEL LEA SHF "
    "PRMT MOV CS2R P2R R2P FMNMX SGXT LOP BMSK I2FP",
    "special": "MUFU I2F F2F F2I I2I DSETP",
    "shared": "LDS STS",
    "shuffle": "SHFL",
    "global": "LDG STG",
    "constant": "LDC",
    "uniform": "ULDC UIADD3 UISETP ULOP3 UMOV USHF ULEA USEL UIMAD UPLOP3 R2UR S2UR UP2UR UBMSK "
    "USGXT UPRMT VOTEU UFLO UPOPC",
    "control": "BRA BAR EXIT RET CALL NOP BSSY BSYNC WARPSYNC BREAK YIELD S2R VOTE BRX JMP DEPBAR "
    "ERRBAR WARPGROUP ACQBULK",
}
_CLASS = {name: kind for kind, names in CLASSES.items() for name in names.split()}
_LINE = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?\s*([A-Z][A-Z0-9_.]*)(.*?);")
_LABEL = re.compile(r"\.L_x_\d+")


@dataclass(frozen=True)
class Instruction:
    """One instruction: the words of its name, and the number of the instruction that it may jump
    to.
    """

    words: tuple[str, ...]
    target: int | None = None

    @property
    def kind(self) -> str:
        """Its class; an instruction that nobody has put into one is an error."""
        return _CLASS[self.words[0]]

    @property
    def wavefronts(self) -> int:
        """Passes through the way to shared memory and the first cache, if all 32 threads ask for
        neighbors.
        """
        wide = 4 if "128" in self.words else 2 if "64" in self.words else 1
        return wide if self.kind in {"shared", "global"} else int(self.kind == "shuffle")


@dataclass(frozen=True)
class Loop:
    """Instructions ``first`` to ``last``, of which the last jumps to the first."""

    first: int
    last: int

    def __contains__(self, other: object) -> bool:
        return (
            isinstance(other, Loop)
            and other != self
            and self.first <= other.first
            and other.last <= self.last
        )


class Code:
    """Machine code of a kernel.

    Args:
        image: what the compiler made.
    """

    def __init__(self, image: bytes) -> None:
        self.instructions = _parsed(_disassembled(image))
        self.loops = _loops(self.instructions)

    def of(self, loop: Loop) -> Sequence[Instruction]:
        """All instructions of a loop."""
        return self.instructions[loop.first : loop.last + 1]

    def has(self, loop: Loop, *names: str) -> bool:
        """Whether a loop has instructions of all these names."""
        return set(names) <= {i.words[0] for i in self.of(loop)}

    def smallest(self, *names: str) -> Loop:
        """The shortest loop with instructions of all these names."""
        return min(self.all_with(*names), key=lambda loop: loop.last - loop.first)

    def all_with(self, *names: str) -> list[Loop]:
        """Loops with these names around no other loop that has them."""
        found = [loop for loop in self.loops if self.has(loop, *names)]
        return [loop for loop in found if not any(other in loop for other in found)]

    def around(self, loop: Loop) -> Loop:
        """The shortest loop around another one."""
        return min(
            (other for other in self.loops if loop in other),
            key=lambda other: other.last - other.first,
        )

    def own(self, loop: Loop | None = None) -> "Asked":
        """What is asked by a turn of a loop, or by all code, without the loops inside."""
        inside = [other for other in self.loops if loop is None or other in loop]
        first, last = (0, len(self.instructions) - 1) if loop is None else (loop.first, loop.last)
        numbers = [
            n for n in range(first, last + 1) if not any(o.first <= n <= o.last for o in inside)
        ]
        return Asked.by(self.instructions[n] for n in numbers)


class Asked(Counter[str]):
    """How many instructions of each class, and ``wavefronts``."""

    @classmethod
    def by(cls, instructions: Iterator[Instruction]) -> "Asked":
        """What these instructions ask."""
        found = cls()
        for instruction in instructions:
            found[instruction.kind] += 1
            found["wavefronts"] += instruction.wavefronts
        return found

    def __add__(self, other: "Asked") -> "Asked":
        return Asked({key: self[key] + other[key] for key in (*self, *other)})

    def __mul__(self, times: float) -> "Asked":
        return Asked({key: value * times for key, value in self.items()})

    @property
    def instructions(self) -> float:
        """Of all classes together."""
        return sum(value for key, value in self.items() if key != "wavefronts")


def _disassembled(image: bytes) -> str:
    found = [
        path for base in sys.path for path in Path(base or ".").glob("nvidia/cu1*/bin/nvdisasm")
    ]
    if not found:
        raise FileNotFoundError(
            "There is no nvdisasm. It is part of npk's tools: pip install -e '.[dev]'"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel"
        path.write_bytes(image)
        return subprocess.run(
            [found[0], "-c", path], capture_output=True, text=True, check=True
        ).stdout


def _parsed(text: str) -> list[Instruction]:
    labels: dict[str, int] = {}
    lines: list[tuple[str, str | None]] = []
    for line in text.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(lines)
        elif found := _LINE.search(line):
            target = _LABEL.search(found[2])
            lines.append((found[1], target and target[0]))
    return [
        Instruction(tuple(name.split(".")), labels[target] if target else None)
        for name, target in lines
    ]


def _loops(instructions: Sequence[Instruction]) -> list[Loop]:
    """From each place that is jumped back to, to the last jump."""
    ends = {
        i.target: n
        for n, i in enumerate(instructions)
        if i.target is not None and i.target < n and i.words[0] == "BRA"
    }
    return [Loop(first, last) for first, last in sorted(ends.items())]
