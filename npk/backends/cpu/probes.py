"""Small artificial programs and products, timed to learn what each kind of work takes here."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numba
import numpy as np

from npk.backends.cpu.costs import Work, product_counts
from npk.backends.cpu.sides import zeros
from npk.backends.layout import BITS, ONES, REAL
from npk.backends.program.program import (
    BOX,
    CLEAR,
    COLLAPSE,
    COLUMNS,
    GATHER,
    LANES,
    LAYOUT,
    LOAD,
    ONCE,
    REDUCE,
    ROWS,
    TERMS,
    TOGETHER,
)
from npk.forks import most_threads

_GROUPS = 2  # of rows: a task of a program
_TALL, _WIDE = 32, 4  # groups of rows and blocks of columns of a product: a task
_TASKS = 4  # a thread, where all threads are timed
_CELLS = 8192  # of a run, about
_LONG = 2e-3  # seconds of a timing, at least
_BEST_OF = 8
_SHORT = 40  # short runs on all threads: on a busy machine few of them find all cores free
_TRIES = 3
# seconds; a clock of the processor's time that is as fine sees one thread alone, however busy the
# machine
_FINE = 1e-5
_CLOCK = (
    time.process_time
    if time.get_clock_info("process_time").resolution < _FINE
    else time.perf_counter
)


@dataclass(frozen=True)
class Probe:
    """What is timed: how often each kind of work happens in a group, what runs ``groups`` of them."""

    counts: np.ndarray
    run: Callable[[], None]
    groups: int


@dataclass
class _Sketch:
    """A program that is drawn up by hand, of planes of ``cells`` cells."""

    cells: int
    tables: list[np.ndarray] = field(default_factory=list)
    operations: list[tuple[int, ...]] = field(default_factory=list)
    terms: list[tuple[int, ...]] = field(default_factory=list)
    words: int = 1
    numbers: int = 1
    chain: int = 0
    sums: int = 0

    def table(self, values: np.ndarray) -> int:
        """Where a table begins."""
        self.tables.append(np.asarray(values, np.int32).reshape(-1))
        return sum(map(len, self.tables[:-1]))

    def window(self, k: int) -> np.ndarray:
        """Neighbors of each cell, ``(cells, k)``, around the end."""
        return (np.arange(self.cells)[:, None] + np.arange(k)) % self.cells

    def simple(self, kind: int) -> None:
        """LOAD or CLEAR of a plane."""
        self.operations.append((kind, 1, self.cells, 0, 0, 0, 0))
        self.sums = self.cells if kind == LOAD else 0

    def gather(self, k: int) -> None:
        """Window sums one by one."""
        self.operations.append(
            (GATHER, 1, self.cells, self.table(self.window(k)), k, 1 + self.cells, -1)
        )

    def box(self, runs: int, height: int) -> None:
        """Window sums in runs."""
        outputs = self.cells // runs
        run = np.concatenate([[outputs], np.arange((outputs + 2) * height) % self.cells])
        self.operations.append(
            (BOX, 1, runs, self.table(np.tile(run, runs)), height, 1 + self.cells, -1)
        )

    def collapse(self, count: int, k: int, form: int, width: int, chained: bool = False) -> None:
        """Several terms into a plane; their masks one after the other."""
        first, pair, u = len(self.terms), self.table(self.window(k)), self.table(self.window(k))
        v = self.table((self.window(k) + 1) % self.cells)
        for n in range(count):
            chain = (0, int(n == 0)) if chained else (-1, 0)
            self.terms.append(
                (
                    k,
                    1 + self.cells,
                    pair,
                    u,
                    v,
                    -1,
                    1,
                    int(n == 0),
                    *chain,
                    *ONCE,
                    form,
                    n * width * self.cells,
                    width,
                    width,
                )
            )
        self._holds(count, form, width)
        self.chain = max(self.chain, width * TOGETHER * chained)
        self.operations.append((COLLAPSE, 0, self.cells, first, count, 0, -1))

    def reduce(self, run: int, form: int, width: int) -> None:
        """Contributions to sums, ``run`` to each."""
        self.sums = -(-self.cells // run)
        targets, pair = self.table(np.arange(self.cells) // run), self.table(self.window(1))
        self.operations.append((REDUCE, targets, self.cells, len(self.terms), 1, 0, 0))
        self.terms.append(
            (1, 1 + self.cells, pair, pair, pair, -1, 0, 1, -1, 0, *ONCE, form, 0, width, width)
        )
        self._holds(1, form, width)

    def _holds(self, count: int, form: int, width: int) -> None:
        size = count * width * self.cells
        self.words, self.numbers = (
            max(self.words, size * (form == BITS)),
            max(self.numbers, size * (form == REAL)),
        )

    def work(self, rows: int, itemsize: int, times: int) -> Work:
        """The program with its operations over and over again."""
        once = np.array([(*row, *ONCE) for row in self.operations], np.int64)
        operations = np.tile(once.reshape(-1, len(COLUMNS)), (times, 1))
        terms = np.array(self.terms, np.int64).reshape(-1, len(TERMS) - 1 + len(LAYOUT))
        # read-only, as a program's
        tables = np.frombuffer(
            np.concatenate([*self.tables, [0]]).astype(np.int32).tobytes(), np.int32
        )
        sizes = np.array([1 + 2 * self.cells, self.sums, 1, self.chain, 1])
        return Work(rows, itemsize, operations, terms, tables, sizes)


def _sketches() -> Iterator[_Sketch]:
    """Every kind of work, in planes of several sizes."""

    def of(cells: int, name: str, *args: int | bool) -> _Sketch:
        sketch = _Sketch(cells)
        getattr(sketch, name)(*args)
        return sketch

    yield from (of(cells, "simple", kind) for kind in (LOAD, CLEAR) for cells in (4, 256, 8192))
    yield from (
        of(cells, "gather", k)
        for cells, k in (
            (1, 1),
            (16, 9),
            (64, 9),
            (128, 5),
            (512, 4),
            (1024, 4),
            (1024, 9),
            (256, 1),
            (8192, 9),
        )
    )
    yield from (
        of(cells, "box", runs, 3)
        for cells, runs in ((16, 4), (64, 8), (256, 16), (512, 16), (1024, 32), (3136, 56))
    )
    yield from (of(1024, "box", 32, height) for height in (1, 7))
    for cells, form in itertools.product((1, 16, 256, 1024), (ONES, BITS)):
        yield of(cells, "collapse", 1, 1, form, form == BITS)
    yield from (of(64, "collapse", 1, 9, form, form == BITS) for form in (ONES, BITS))
    yield from (of(64, "collapse", 4, 1, form, form == BITS) for form in (ONES, BITS))
    for width in (2, 3, 4, 8, 16):
        yield from (of(cells, "collapse", 1, 1, BITS, width) for cells in (4, 256))
    yield from (of(cells, "collapse", 1, 1, BITS, 2) for cells in (2048, 8192))
    for width in (1, 2, 4):
        yield from (
            of(cells, "collapse", count, 1, BITS, width, True)
            for cells, count in ((16, 4), (256, 4), (1024, 16))
        )
    shapes = ((1, 3), (256, 1), (256, 3), (64, 64), (16, 512), (1024, 64))
    yield from (of(cells, "collapse", 1, 1, REAL, width) for cells, width in shapes)
    runs = ((1, 1, 1), (64, 1, 2), (256, 256, 1), (64, 64, 8), (8192, 2, 2), (65536, 2, 2))
    yield from (of(cells, "reduce", run, BITS, width) for cells, run, width in runs)
    yield from (of(256, "reduce", run, form, 1) for run, form in ((9, ONES), (1, ONES), (16, REAL)))


def of_program(rows: int, dtype: np.dtype) -> Iterator[Probe]:
    """Every sketch, in groups of some rows."""
    for sketch in _sketches():
        work, run = _sketched(sketch, rows, dtype, 1)
        yield Probe(work.counts(), run, _GROUPS)


def _sketched(
    sketch: _Sketch, rows: int, dtype: np.dtype, blocks: int
) -> tuple[Work, Callable[[], None]]:
    """A sketch, and what runs it for some blocks of columns."""
    times = max(
        2 if sketch.cells > _CELLS else 8, _CELLS // (sketch.cells * max(1, len(sketch.terms)))
    )
    work = sketch.work(rows, dtype.itemsize, times)
    weights = np.ones(1, dtype)
    out = zeros((_GROUPS * rows, blocks * LANES), dtype)
    masks = _masks(sketch.words, sketch.numbers, ((_GROUPS, rows), (blocks, LANES)), dtype)
    program = (
        work.operations,
        np.zeros((len(work.operations), 2), dtype),
        work.terms,
        np.full(len(work.terms), 0.5, dtype),
    )

    def run() -> None:
        from npk.backends.cpu.tile import run_tile

        run_tile((0,) * rows, program, work.tables, weights, masks, work.sizes, len(out), out)

    return work, run


def of_product(dtype: np.dtype) -> Iterator[Probe]:
    """Products of some masks, and of some with biases."""
    bits = ((1, 1), (1, 32), (4, 1), (4, 32), (16, 8), (8, 256))
    numbers = ((1, 3), (1, 784), (4, 512))
    shapes = [*((BITS, *shape, False) for shape in bits)]
    shapes += [*((REAL, *shape, False) for shape in numbers)]
    shapes += [(BITS, 4, 1, True), (BITS, 16, 8, True)]
    for form, count, width, biased in shapes:
        factors = np.array([(form, n * width, width) for n in range(count)], np.int64)
        counts = product_counts(factors, dtype.itemsize, biased)
        yield Probe(counts, _multiplied(factors, dtype, 1, biased), _TALL * _WIDE)


def times(probes: Iterable[Probe]) -> tuple[np.ndarray, np.ndarray]:
    """Counts of all probes and the seconds of a group on one thread.

    All are run in turn, several times: so what slows the machine down for a moment does not fall on
    one of them alone.
    """
    kinds = list(probes)
    with threads_set_to(1):
        often = [_often(probe.run) for probe in kinds]
        rounds = [
            [_once(probe.run, repeat) for probe, repeat in zip(kinds, often, strict=True)]
            for _ in range(_BEST_OF)
        ]
    return np.array([probe.counts for probe in kinds]), np.min(rounds, axis=0) / [
        probe.groups for probe in kinds
    ]


def _multiplied(
    factors: np.ndarray, dtype: np.dtype, strips: int, biased: bool = False
) -> Callable[[], None]:
    """What runs a product for some strips of columns, a task each."""
    form, _, width = factors.T
    blocks, scales = strips * _WIDE, np.ones(len(factors), dtype)
    scaled = (scales, np.ones(len(factors), dtype) if biased else None)
    words, numbers = (max(1, int(width[form == kind].sum())) for kind in (BITS, REAL))
    masks = _masks(words, numbers, ((_TALL, ROWS), (blocks, LANES)), dtype)
    out = zeros((_TALL * ROWS, blocks * LANES), dtype)

    def run() -> None:
        from npk.backends.cpu.dense import run_product

        run_product((0,) * ROWS, factors, scaled, masks, len(out), out)

    return run


def speedup(rows: int | None, dtype: np.dtype) -> float:
    """How many times faster all threads are than one, by rows of groups; ``None``: of products."""
    threads = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    if rows is None:
        run = _multiplied(np.array([(BITS, 0, 256)], np.int64), dtype, _TASKS * threads)
    else:
        sketch = _Sketch(256)
        sketch.box(16, 3)
        sketch.collapse(1, 1, BITS, 2)
        _, run = _sketched(sketch, rows, dtype, _TASKS * threads)
    best = max(_faster(run, threads) for _ in range(_TRIES))
    return min(max(1.0, best), float(threads))


def _faster(run: Callable[[], None], threads: int) -> float:
    """How many times faster something runs on some threads than on one."""
    with threads_set_to(1):
        repeat = _often(run)
        alone = min(_once(run, repeat) for _ in range(_BEST_OF))
    with threads_set_to(threads):
        run()
        passed = min(_once(run, 1, time.perf_counter) for _ in range(_SHORT))
        of_processor = min(_once(run, repeat) for _ in range(_BEST_OF))
    if _CLOCK is not time.perf_counter:  # time that other programs took is not the threads' fault
        passed = min(passed, of_processor / threads)
    return alone / passed


@contextlib.contextmanager
def threads_set_to(count: int) -> Iterator[None]:
    """Let Numba use some of its threads."""
    before = numba.get_num_threads()
    numba.set_num_threads(most_threads(count))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _masks(
    words: int, numbers: int, sides: tuple[tuple[int, int], ...], dtype: np.dtype
) -> tuple[np.ndarray, ...]:
    """Bits and numbers of all groups of rows and of all blocks of columns, in the engine's order."""
    sizes = ((words, np.dtype(np.uint32)), (numbers, dtype))
    return tuple(zeros((many, size * wide), kind) for size, kind in sizes for many, wide in sides)


def _often(run: Callable[[], None]) -> int:
    """How often to run something so that the clock sees it; the first run may compile."""
    run()
    repeat = 1
    while _once(run, repeat) * repeat < _LONG:
        repeat *= 2
    return repeat


def _once(run: Callable[[], None], repeat: int, clock: Callable[[], float] = _CLOCK) -> float:
    """Seconds of a run, of several one after the other."""
    start = clock()
    for _ in range(repeat):
        run()
    return (clock() - start) / repeat
