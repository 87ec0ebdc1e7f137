"""The CUDA kernels on paper: what their machine code asks of an A100 and an H100, and the least
time that it must take. No GPU is needed.

python benchmarks/cuda_roofline.py [--write]

Every kernel is compiled for both devices and disassembled; the instructions of its inner loops are
counted by class, multiplied by how often a piece of work goes through them, and divided by what a
multiprocessor does in a cycle (``RATES``). The longest of these times is the prediction.
``--write`` puts the tables into ``docs/guide/cuda-roofline.md``, which also has the assumptions.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sass import Asked, Code

from npk.backends.cuda.registry import KERNELS, KernelSpec, stage_kernel

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/guide/cuda-roofline.md"
BLOCK = re.compile(
    r"(<!-- printed by benchmarks/cuda_roofline.py -->\n).*?(<!-- end -->)", re.DOTALL
)
COMPILER = 12  # major version of NVRTC

# Results in a cycle on a multiprocessor, classes of instructions that share them, and the number on
# sm_80 and sm_90.
RATES = {
    "issue": (None, 128, 128),  # 4 schedulers, an instruction of 32 threads each
    "floats": ({"fp32", "imad"}, 64, 128),
    "doubles": ({"fp64"}, 32, 64),
    "products": ({"imad"}, 64, 64),
    "integers": ({"integer"}, 64, 64),
    "counts": ({"popc", "special"}, 16, 16),
    "tensor": (
        {"tensor"},
        32 * 2965e12 / (2 * 16 * 8 * 256 * 108 * 1.41e9),
        32 * 9e15 / (2 * 16 * 8 * 256 * 132 * 1.98e9),
    ),
    "shared": ({"wavefronts"}, 32, 32),  # a wavefront is 128 bytes: 32 words
}
# of the pooled convolutions that a kernel's speed is judged by
LAYERS, CHANNELS, SIDE, INPUTS = 21, 128, 32, 3
BLOCKS = 18  # of each stage of ResNet-110
SAMPLES, WIDTHS, FEATURES = 8192, (1024,) * 4, 784  # of the dense layers
PROMISED = 20e-6  # seconds of a pair of pooled convolutions on an H100


@dataclass(frozen=True)
class Device:
    """What is published of a device."""

    name: str
    arch: int
    multiprocessors: int
    clock: float
    memory: float  # bytes a second
    l2: float  # bytes a cycle
    shared: int  # bytes of a multiprocessor


A100 = Device("A100", 80, 108, 1.41e9, 1.555e12, 5120, 164 << 10)
H100 = Device("H100", 90, 132, 1.755e9, 3.35e12, 5120, 228 << 10)
DEVICES = (A100, H100)


@dataclass(frozen=True)
class Work:
    """A piece of work: ``asked`` of all warps together, bytes from the second cache and from
    memory.
    """

    asked: Asked
    l2: float
    memory: float

    def times(self, device: Device) -> dict[str, float]:
        """Seconds that each limit of the device allows."""
        second = device.multiprocessors * device.clock
        times = {}
        for name, (classes, *rates) in RATES.items():
            asked = self.asked
            count = asked.instructions if classes is None else sum(asked[kind] for kind in classes)
            times[name] = 32 * count / rates[DEVICES.index(device)] / second
        caches = {"L2": self.l2 / device.l2 / device.clock, "memory": self.memory / device.memory}
        return times | caches


@dataclass(frozen=True)
class Kernel:
    """A row of the tables: inner loops, as (unit, what a warp is asked for it), and the work, in
    terms of the machine code.
    """

    name: str
    spec: Callable[[int], KernelSpec]
    units: Callable[[Code], dict[str, Asked]]
    work: Callable[[Code], Work]


# --- pooled convolutions, layer by layer ---


def stage(
    circular: bool, residual: bool = False, biased: bool = False
) -> Callable[[int], KernelSpec]:
    """The kernel of pooled convolutions by architecture."""

    def spec_for(arch: int) -> KernelSpec:
        windows = [(3, -1, 3, -1), (1, 0, 1, 0)] if residual else [(3, -1, 3, -1)]
        form = "float32", arch, (False, residual), residual, biased
        kernel = stage_kernel((SIDE, SIDE), circular, CHANNELS // 128, windows, *form)
        if kernel is None:
            raise RuntimeError(
                f"The registry has no kernel of pooled convolutions for sm_{arch}, "
                f"which the roofline is about."
            )
        return kernel.spec

    return spec_for


def stage_units(code: Code) -> dict[str, Asked]:
    """A layer of a warp. Its loads of masks take four wavefronts: positions that neighbors ask for
    lie in four lines of the cache.
    """
    return {"a layer of 4 x 32 x 32 cells": _with_masks(code)}


def _with_masks(code: Code) -> Asked:
    """The loop over layers; loads of one word are those of masks."""
    loop = code.smallest("BMMA")
    masks = sum(i.words[0] == "LDG" and "128" not in i.words for i in code.of(loop))
    return code.own(loop) + Asked(wavefronts=3 * masks)


def stage_work(code: Code) -> Work:
    """A pair: a block for each difference of rows. Masks come from L2 for each of them, sectors of
    which a warp uses half twice.
    """
    layer = code.smallest("BMMA")
    once = code.own()
    for loop in code.loops:
        # the input's numbers, and sums of warps
        once += code.own(loop) * (INPUTS if code.has(loop, "LDG") else 8) * (loop != layer)
    warps, mask = 8 * SIDE, SIDE * SIDE * CHANNELS // 8
    return Work(
        (stage_units(code).popitem()[1] * LAYERS + once) * warps,
        2 * 2 * mask * LAYERS * SIDE,
        2 * mask * LAYERS,
    )


def residual_units(code: Code) -> dict[str, Asked]:
    """A row of a warp: a window and a mask, or a field that is added. All ways through the loop are
    counted, which none of them takes.
    """
    return {"a row of 4 x 32 x 32 cells, all ways": _with_masks(code)}


def residual_work(code: Code) -> Work:
    """A pair in the first stage of ResNet-110: all branches so far are added to each sum, and read
    for that; each is written once. Two strides of 2 follow: every fourth difference of rows is
    looked at.
    """
    sums, layers, planes = BLOCKS * (BLOCKS + 1) // 2, 2 * BLOCKS + 1, SIDE // 4
    mask = SIDE * SIDE * CHANNELS // 8
    fields = 4 * SIDE**3 * planes * (sums + BLOCKS + 1 + 1)  # and the last one, for the next stage
    rows = residual_units(code).popitem()[1] * ((sums + layers) * 8 * planes)
    return Work(
        rows, fields + 2 * 2 * mask * (sums + layers) * planes, fields + 2 * mask * (sums + layers)
    )


# --- dense layers ---


def dense_stages(code: Code) -> tuple[Asked, Asked]:
    """Eight words, and eight numbers, of 64 x 64 pairs, of one warp."""
    return _eight(code, "BMMA" if code_has(code, "BMMA") else "POPC"), _eight(
        code, "DFMA" if code_has(code, "DFMA") else "FFMA"
    )


def _eight(code: Code, name: str) -> Asked:
    """A turn of the loop with barriers around, and as many of the loop inside as eight words or
    numbers take.
    """
    inner = code.smallest(name)
    if code.has(inner, "BAR"):
        return code.own(inner)
    pairs = 32 if code_has(code, "BMMA") else 16  # of a thread
    return code.own(code.around(inner)) + code.own(inner) * (
        8 * pairs / sum(i.words[0] == name for i in code.of(inner))
    )


def code_has(code: Code, name: str) -> bool:
    """Whether there is such an instruction anywhere."""
    return any(i.words[0] == name for i in code.instructions)


def dense_units(code: Code) -> dict[str, Asked]:
    """Stages of a warp."""
    bits, numbers = dense_stages(code)
    return {"8 words of 64 x 64 pairs": bits, "8 numbers of 64 x 64 pairs": numbers}


def dense_work(size: int, warps: int) -> Callable[[Code], Work]:
    """A square tile, all of it: 64 x 64 pairs a block, numbers of ``size`` bytes."""

    def work(code: Code) -> Work:
        bits, numbers = dense_stages(code)
        words, blocks, factor = sum(WIDTHS) // 32, (SAMPLES // 64) ** 2, code.smallest("BAR")
        around = code.own(code.around(factor)) * (1 + len(WIDTHS))
        block = (bits * (words / 8) + numbers * (FEATURES / 8) + around + code.own()) * warps
        sample = 4 * words + size * FEATURES
        return Work(
            block * blocks, blocks * 2 * 64 * sample, size * SAMPLES**2 + 2 * SAMPLES * sample
        )

    return work


# --- the general kernel, sums, gathers ---


def program_units(code: Code) -> dict[str, Asked]:
    """A word; a contribution without its words; a cell of a window of three columns: the slowest of
    the copies that the compiler made.
    """
    copies = [loop for loop in code.all_with("POPC") if not code.has(loop, "STG")]
    word = max(copies, key=lambda loop: code.own(loop).instructions)
    innermost = [loop for loop in code.loops if not any(other in loop for other in code.loops)]
    columns = [
        loop
        for loop in innermost
        if code.has(loop, "LDG")
        and (code.has(loop, "FADD") or code.has(loop, "DADD"))
        and not code.has(loop, "STG")
    ]
    column = max(columns, key=lambda loop: code.own(loop).instructions)
    cells = [code.around(loop) for loop in columns]
    return {
        "a word of a mask": code.own(word),
        "a masked cell without its words": code.own(code.around(word))
        + code.own(code.around(code.around(word))),
        "a window of 3 x 3": max((code.own(cell) for cell in cells), key=lambda a: a.instructions)
        + code.own(column) * 3,
    }


def program_work(size: int) -> Callable[[Code], Work]:
    """A pair of the same pooled convolutions; a warp has 32 of them. Each cell is read and written
    twice.
    """

    def work(code: Code) -> Work:
        word, masked, window = program_units(code).values()
        cells = LAYERS * SIDE**4
        near = size * (3 + 3) + 4 * CHANNELS / 32 * (1 + 1 / 32)
        return Work(
            (word * (CHANNELS / 32) + masked + window) * (cells / 32),
            cells * near,
            cells * 4 * size,
        )

    return work


def sums_units(code: Code) -> dict[str, Asked]:
    """A part."""
    return {"a part of the sums of 32 pairs": code.own(code.smallest("DADD"))}


def sums_work(code: Code) -> Work:
    """A pair of the same pooled convolutions; a thread has one."""
    return Work(
        (sums_units(code).popitem()[1] * SIDE + code.own()) * (1 / 32), 8 * SIDE + 4, 8 * SIDE + 4
    )


def gather_units(code: Code) -> dict[str, Asked]:
    """A position of the window: the slower of the ways through the loops."""
    loops = [loop for loop in code.loops if code.has(loop, "FADD")]
    ways = (Asked.by(iter(code.of(loop))) for loop in loops)
    return {"an offset of 32 cells": max(ways, key=lambda a: a.instructions)}


def gather_work(code: Code) -> Work:
    """A pair, from 32 x 32 to 16 x 16 positions by a window of 3 x 3 and stride 2."""
    before, after = SIDE**4, (SIDE // 2) ** 4
    asked = gather_units(code).popitem()[1] * 9 + code.own()
    return Work(asked * (after / 32), after * (9 * 8 + 4), 4 * (before + after))


def named(*key: str) -> Callable[[int], KernelSpec]:
    """A kernel of the registry."""
    return lambda arch: KERNELS[key]


ROWS = [
    Kernel("stage, circular", stage(True), stage_units, stage_work),
    Kernel("stage, zeros", stage(False), stage_units, stage_work),
    Kernel("stage, residual", stage(False, residual=True), residual_units, residual_work),
    Kernel("stage, circular, biases", stage(True, biased=True), stage_units, stage_work),
    Kernel("stage, zeros, biases", stage(False, biased=True), stage_units, stage_work),
    Kernel(
        "stage, residual, biases", stage(False, True, biased=True), residual_units, residual_work
    ),
    Kernel("dense bmma float32", named("dense", "bmma", "float32"), dense_units, dense_work(4, 4)),
    Kernel("dense bmma float64", named("dense", "bmma", "float64"), dense_units, dense_work(8, 4)),
    Kernel("dense popc float32", named("dense", "popc", "float32"), dense_units, dense_work(4, 8)),
    Kernel("dense popc float64", named("dense", "popc", "float64"), dense_units, dense_work(8, 8)),
    *(
        Kernel(
            f"dense {way} biases {dtype}",
            named("dense", f"{way}, biases", dtype),
            dense_units,
            dense_work(size, warps),
        )
        for way, warps in (("bmma", 4), ("popc", 8))
        for dtype, size in (("float32", 4), ("float64", 8))
    ),
    Kernel(
        "program float32", named("program", "general", "float32"), program_units, program_work(4)
    ),
    Kernel(
        "program float64", named("program", "general", "float64"), program_units, program_work(8)
    ),
    Kernel("sums", named("sums", "any", "float32"), sums_units, sums_work),
    Kernel("gather", named("gather", "any", "float32"), gather_units, gather_work),
]


# --- tables ---


@cache
def compiled(row: Kernel, arch: int) -> tuple[Code, dict[str, int]]:
    """Machine code, and what the compiler says that it takes."""
    if str(ROOT / "tests") not in sys.path:
        sys.path.append(str(ROOT / "tests"))  # the compiler that the tests use too
    from emu.nvrtc import compilers, resources

    spec = row.spec(arch)
    image, log = compilers()[COMPILER].cubin(spec.source, arch, spec.options)
    return Code(image), resources(log)[spec.entry]


def resident(row: Kernel, device: Device) -> int:
    """Blocks that a multiprocessor holds: registers go in eights, each block takes 1 KB of shared
    memory more; at most 2048 threads.
    """
    threads, taken = row.spec(device.arch).threads, compiled(row, device.arch)[1]
    registers = -(-taken["registers"] // 8) * 8 * threads
    return min(65536 // registers, device.shared // (taken["shared"] + 1024), 2048 // threads, 32)


def times(row: Kernel, device: Device) -> dict[str, float]:
    """Seconds that each limit allows for the kernel's work."""
    return row.work(compiled(row, device.arch)[0]).times(device)


def bound(row: Kernel, device: Device) -> tuple[str, float]:
    """The longest of the times, and of what."""
    return max(times(row, device).items(), key=lambda item: item[1])


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    names = head.split(" | ")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (names, ["---"] * len(names), *rows))


def taken() -> str:
    """Registers, shared memory and occupancy."""
    rows = []
    for row in ROWS:
        for device in DEVICES:
            need, blocks, threads = (
                compiled(row, device.arch)[1],
                resident(row, device),
                row.spec(device.arch).threads,
            )
            numbers = (
                need["registers"],
                need["spills"],
                need["shared"],
                threads,
                blocks,
                f"{100 * blocks * threads / 2048:.0f} %",
            )
            rows.append([row.name, f"sm_{device.arch}", *map(str, numbers)])
    return table(
        "kernel | code | registers | spilled | shared bytes | threads | blocks | occupancy", rows
    )


def counted() -> str:
    """Instructions of the inner loops."""
    kinds = (
        "tensor",
        "popc",
        "fp32",
        "fp64",
        "imad",
        "integer",
        "shared",
        "shuffle",
        "global",
        "control",
    )
    rows = []
    for row in ROWS:
        for device in DEVICES:
            for unit, asked in row.units(compiled(row, device.arch)[0]).items():
                counts = [f"{asked[kind]:.0f}" if asked[kind] else "" for kind in kinds]
                rows.append(
                    [
                        row.name,
                        f"sm_{device.arch}",
                        unit,
                        f"{asked.instructions:.0f}",
                        *counts,
                        f"{asked['wavefronts']:.0f}",
                    ]
                )
    return table(f"kernel | code | unit of a warp | all | {' | '.join(kinds)} | wavefronts", rows)


def predicted() -> str:
    """Times of the work."""
    limits = (*RATES, "L2", "memory")
    rows = []
    for row in ROWS:
        for device in DEVICES:
            seconds, (what, most) = times(row, device), bound(row, device)
            rows.append(
                [
                    row.name,
                    device.name,
                    *(_shown(seconds[limit]) for limit in limits),
                    f"**{_shown(most)}**",
                    what,
                ]
            )
    return table(f"kernel | device | {' | '.join(limits)} | at least | bound", rows)


def pooled() -> list[Kernel]:
    """The kernels of a pooled pair."""
    return [row for row in ROWS if row.units is stage_units]


def promised() -> str:
    """Whether a pair of pooled convolutions takes as long as was said, and how much slower than
    predicted the device may be.
    """
    rows = []
    for row in pooled():
        asked, (what, most) = stage_units(compiled(row, 90)[0]).popitem()[1], bound(row, H100)
        rest = {name: time for name, time in times(row, H100).items() if name != what}
        second = max(rest, key=rest.__getitem__)
        cells = (
            f"{asked.instructions:.0f}",
            what,
            _shown(most),
            f"{second}, {_shown(rest[second])}",
            f"{100 * most / PROMISED:.0f} %",
        )
        rows.append([row.name, *cells, _shown(2 * most)])
    return table(
        "kernel | instructions of a layer | bound | at least | next limit | needed for 20 "
        "us | at half the rate",
        rows,
    )


def _shown(seconds: float) -> str:
    """With its unit."""
    for unit, size in (("s", 1), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if seconds >= size or unit == "ns":
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError


def report() -> str:
    """All tables."""
    parts = {
        "What the kernels take": taken(),
        "Their inner loops": counted(),
        "Predicted times": predicted(),
        "A pooled pair": promised(),
    }
    return "\n" + "\n\n".join(f"## {name}\n\n{text}" for name, text in parts.items()) + "\n"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    text = report()
    if parser.parse_args().write:
        PAGE.write_text(
            BLOCK.sub(lambda block: f"{block[1]}\n{text}\n{block[2]}", PAGE.read_text())
        )
    print(text)


if __name__ == "__main__":
    main()
