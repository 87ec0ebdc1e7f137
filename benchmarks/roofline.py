"""The machine's limits, as LLVM reaches them: counting gates, multiply-adds, loads from each level
of memory, writing.

python benchmarks/roofline.py

*Counting* is AND + population count + ADD in 512-bit registers that never leave the processor. The
unit is that of ``bench_dense.py``: an AND and a count are two operations on each pair of gates, so
that the three instructions are 2 x 512 operations. *Multiply-adds* are two operations on each
float32. *Loads* read an array over and over again that fills half of a cache (or far exceeds all of
them). *First writing* fills an array that was just allocated, so that the system must find its
pages; *writing again* fills it once more.

A limit is the best rate of several runs. Every register is an operand of its own next value, so
that nothing can be moved out of the loops, and all of them are stored at the end. The clock is that
of a chain of dependent additions and exclusive ors, one a cycle.
"""

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from timing import COUNTS, machine, threads, threads_of, timed

# registers worked on in turn: at least latency (about 4 cycles) times instructions of a kind that
# start in a cycle
CHAINS = 12
REGISTER = 64  # bytes
_TURNS = 2_000_000  # of the loops in registers
_REPEAT = 25  # short runs: the best one found the machine free
_LOADED = 1 << 30  # bytes that are read for a figure
_FRESH = 256 << 20  # bytes that are written for a figure: more than all caches
_ADDED = 50_000_000  # steps of the clock's chain
_GATES, _FLOATS = ir.VectorType(ir.IntType(64), 8), ir.VectorType(ir.FloatType(), 16)


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    cycles = clock()
    print(f"{machine()}\nclock {cycles / 1e9:.2f} GHz\n")
    print(
        f"{'limit':40}" + "".join(f"{threads_of(count):>16}" for count in COUNTS) + "   in a "
        "cycle on "
        "one thread"
    )
    for name, unit, (size, what), found in rows():
        rates = [found(count) for count in COUNTS]
        each = f"{rates[0] / cycles / size:.2f} {what}" if size else ""
        print(
            f"{name:40}" + "".join(f"{rate / 1e9:9.1f} {unit:6}" for rate in rates) + f"   {each}"
        )


Row = tuple[str, str, tuple[float, str], Callable[[int], float]]


def rows() -> list[Row]:
    """Name, unit, what a cycle is asked about (so many of the unit make one), and the function of
    each limit.
    """
    first, second, last = caches()
    places = {"level 1": first // 2, "level 2": second // 2, "memory": 8 * last}
    vector, plain = (REGISTER, "registers loaded"), (0, "")
    return [
        ("counting gates", "Gop/s", (1024 / 3, "512-bit instructions"), counting),
        ("multiply-adds, float32", "Gop/s", (32, "512-bit instructions"), multiply_adds),
        *(
            (
                f"loads, {name} ({size >> 10} KB)",
                "GB/s",
                vector,
                lambda count, size=size: loading(size, count),
            )
            for name, size in places.items()
        ),
        ("first writing of fresh memory", "GB/s", plain, lambda count: writing(count)[0]),
        ("writing again", "GB/s", plain, lambda count: writing(count)[1]),
    ]


@cache
def counting(count: int) -> float:
    """Operations a second on gates, 2 a pair, with so many threads."""
    data = np.random.default_rng(0).integers(0, 2**62, (count, CHAINS, 8)).astype(np.uint64)
    return 2 * 512 * CHAINS * _TURNS * count / _best(count, lambda: _all_count(data, _TURNS))


@cache
def multiply_adds(count: int) -> float:
    """Float32 operations a second, 2 a multiply-add, with so many threads."""
    data = np.random.default_rng(0).random((count, CHAINS, 16), dtype=np.float32)
    return 2 * 16 * CHAINS * _TURNS * count / _best(count, lambda: _all_multiply(data, _TURNS))


@cache
def loading(size: int, count: int) -> float:
    """Bytes a second that so many threads read of arrays of ``size`` bytes, one each."""
    whole = CHAINS * REGISTER
    numbers = max(1, size // whole) * whole // 8
    data = _aligned(np.ones(count * numbers, np.uint64)).reshape(count, numbers)
    passes = max(1, _LOADED // data[0].nbytes)
    return passes * data.nbytes / _best(count, lambda: _all_load(data, passes))


@cache
def writing(count: int) -> tuple[float, float]:
    """Bytes a second that so many threads write, first to memory that was just allocated and then
    again to the same.
    """

    def once() -> tuple[float, float]:
        data = np.empty(_FRESH // 4, np.float32)
        return timed(lambda: _all_write(data, count))[1], timed(lambda: _all_write(data, count))[1]

    with threads(count):
        runs = [once() for _ in range(_REPEAT)][1:]  # the first compiles
    first, again = (_FRESH / min(seconds) for seconds in zip(*runs, strict=True))
    return first, again


def clock() -> float:
    """Cycles a second."""
    return 2 * _ADDED / _best(1, lambda: _chain(_ADDED, 12345))


def caches() -> tuple[int, int, int]:
    """Bytes of the first, the second and the last cache, as Linux tells; usual sizes elsewhere."""
    found = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        kind, level, size = (
            (index / name).read_text().strip() for name in ("type", "level", "size")
        )
        if kind != "Instruction":
            found[int(level)] = int(size.removesuffix("K")) << 10
    return found.get(1, 32 << 10), found.get(2, 512 << 10), found[max(found)] if found else 32 << 20


def _aligned(values: np.ndarray) -> np.ndarray:
    """A copy that begins where a line of the cache begins, so that no register is loaded from two
    lines.
    """
    room = np.empty(values.nbytes + REGISTER, np.uint8)
    start = -room.ctypes.data % REGISTER
    found = room[start : start + values.nbytes].view(values.dtype)
    found[:] = values
    return found


def _best(count: int, run: Callable[[], object]) -> float:
    """Seconds of the fastest run after one that compiles."""
    with threads(count):
        run()
        return min(timed(run)[1] for _ in range(_REPEAT))


def _registers(name: str, kind: ir.VectorType, reads: bool, step: Callable) -> Callable:
    """An intrinsic ``(data, turns)``: CHAINS registers are loaded, each goes through ``step`` in
    every turn, and they are stored.

    Args:
        name: of the intrinsic.
        kind: of a register.
        reads: whether ``step`` is given the next CHAINS registers of the array in each turn, or
            always the first ones.
        step: builder, old value, operand -> new value.
    """

    # Intrinsics receive Numba types and LLVM builders, which have no useful annotations.
    def loop(tc, data, turns):
        def generate(ctx, b, sig, args):
            base = b.bitcast(
                ctx.make_array(sig.args[0])(ctx, b, args[0]).data, ir.PointerType(kind)
            )
            places = [b.gep(base, [ir.Constant(ir.IntType(64), i)]) for i in range(CHAINS)]
            operands = [b.load(place, align=8) for place in places]
            cells = [cgutils.alloca_once_value(b, operand) for operand in operands]
            with cgutils.for_range(b, args[1]) as turn:
                start = b.mul(turn.index, ir.Constant(turn.index.type, CHAINS))
                for i, cell in enumerate(cells):
                    place = b.gep(base, [b.add(start, ir.Constant(start.type, i))])
                    b.store(
                        step(b, b.load(cell), b.load(place, align=8) if reads else operands[i]),
                        cell,
                    )
            for place, cell in zip(places, cells, strict=True):
                b.store(b.load(cell), place, align=8)
            return ctx.get_dummy_value()

        return types.void(data, types.intp), generate

    loop.__name__ = loop.__qualname__ = name
    return intrinsic(loop)


def _vector_function(
    b: ir.IRBuilder, name: str, kind: ir.VectorType, *values: ir.Value
) -> ir.Value:
    """Call one of LLVM's own functions on vectors."""
    function = cgutils.get_or_insert_function(
        b.module, ir.FunctionType(kind, [kind] * len(values)), name
    )
    return b.call(function, values)


_count = _registers(
    "_count",
    _GATES,
    False,
    lambda b, old, gates: b.add(
        old, _vector_function(b, "llvm.ctpop.v8i64", _GATES, b.and_(old, gates))
    ),
)
_multiply = _registers(
    "_multiply",
    _FLOATS,
    False,
    lambda b, old, factor: _vector_function(b, "llvm.fma.v16f32", _FLOATS, old, factor, factor),
)
_load = _registers("_load", _GATES, True, lambda b, old, new: b.xor(old, new))


@njit(parallel=True)
def _all_count(data: np.ndarray, turns: int) -> None:
    for thread in prange(len(data)):
        _count(data[thread].reshape(-1), turns)


@njit(parallel=True)
def _all_multiply(data: np.ndarray, turns: int) -> None:
    for thread in prange(len(data)):
        _multiply(data[thread].reshape(-1), turns)


@njit(parallel=True)
def _all_load(data: np.ndarray, passes: int) -> None:
    for thread in prange(len(data)):
        for _ in range(passes):
            _load(data[thread], data.shape[1] // (CHAINS * 8))


@njit(parallel=True)
def _all_write(data: np.ndarray, count: int) -> None:
    for thread in prange(count):
        data[len(data) * thread // count : len(data) * (thread + 1) // count] = thread


@njit
def _chain(steps: int, value: int) -> int:
    for i in range(steps):
        value = (value + i) ^ 0x5555
    return value


if __name__ == "__main__":
    main()
