"""The text of PTX as a list of instructions."""

import re
from typing import NamedTuple

import numpy as np

from emu import Violation

UNSIGNED = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
SIGNED = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
FLOATS = {"f32": np.float32, "f64": np.float64}


class Instruction(NamedTuple):
    """``op``: the name cut at its points; ``guard``: register of the predicate, or ``None``;
    ``line``: of the source.
    """

    op: list[str]
    args: list[str]
    guard: str | None
    negated: bool
    line: int
    text: str


def dtype_of(kind):
    """NumPy's type for one of PTX's, such as s32."""
    if kind in FLOATS:
        return np.dtype(FLOATS[kind])
    return np.dtype((SIGNED if kind[0] == "s" else UNSIGNED)[int(kind[1:])])


def members(text):
    """Names in braces; a name without braces alone."""
    return [name.strip() for name in text.strip("{}").split(",")]


class Program:
    """One kernel.

    ``params``: (type, name) of each; ``threads``: at most so many in a block; ``symbols``: where
    each shared array begins; ``shared``:
    bytes of all; ``instructions`` and ``labels``: their numbers; ``joins``: numbers at which
    diverged threads may meet.
    """

    def __init__(self, ptx, name):
        found = re.search(
            rf"\.entry\s+{re.escape(name)}\s*\((.*?)\)(.*?)\{{(.*?)\n\}}", ptx.rstrip("\0"), re.S
        )
        if not found:
            raise Violation(f"LAUNCH there is no kernel {name}")
        head, limits, body = found.groups()
        param = (
            r"\.param\s+\.(\w+)\s+(?:\.ptr\s+)?(?:\.\w+\s+)*?(?:\.align\s+\d+\s+)?(\w+)\s*(?:,|$)"
        )
        self.params = re.findall(param, head.strip(), re.M)
        most = re.search(r"\.maxntid\s+(\d+)(?:,\s*(\d+),\s*(\d+))?", limits)
        self.threads = int(np.prod([int(size or 1) for size in most.groups()])) if most else 1024
        self._place_shared(body + "\n" + re.sub(r"\.visible \.entry.*", "", ptx, flags=re.S))
        self._read(re.sub(r"//[^\n]*", "", body))
        self.joins = set(self.labels.values())

    def _place_shared(self, text):
        self.symbols, self.shared = {}, 0
        for align, name, size in re.findall(
            r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+(\w+)\[(\d+)\]", text
        ):
            self.symbols[name] = -(-self.shared // int(align)) * int(align)
            self.shared = self.symbols[name] + int(size)

    def _read(self, body):
        self.instructions, self.labels, line = [], {}, 0
        body = re.sub(r"\{([^{}]*)\}", lambda braces: braces[0].replace("\n", " "), body)
        for part in re.split(r"[;\n]", body):
            statement = part.strip()
            while label := re.match(r"(\$?\w+):\s*", statement):
                self.labels[label[1]] = len(self.instructions)
                statement = statement[label.end() :]
            if place := re.match(r"\.loc\s+\d+\s+(\d+)", statement):
                line = int(place[1])
            elif statement and statement[0] != "." and statement not in "{}":
                self.instructions.append(_parse(statement, line))


def _parse(statement, line):
    negated, guard, op, rest = re.match(
        r"(?:@(!?)(%\w+)\s+)?([\w.:]+)\s*(.*)", statement, re.S
    ).groups()
    args = [arg.strip() for arg in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*", rest)]
    return Instruction(op.split("."), args, guard, negated == "!", line, statement)
