"""LLVM vector code for a few row samples by sixteen column samples: the words in which the
intrinsics of ``lanes`` are written.

The column samples sit in the lanes, and the rows share every load of a column. So there are no
horizontal sums, borders cost nothing, and LLVM legalizes the vectors to AVX-512, AVX2 or NEON on
the user's machine. The number of rows comes as the length of a tuple, which Numba knows when it
compiles. A cell is ``rows * LANES`` numbers: row by row, sixteen columns each.

Of pairs (x, x) alone there is one row, whose sample is another one in each lane: its tuple holds
the tuple of the rows that the same plan has together in a tile.
"""

# Code generators receive Numba types and LLVM builders, which have no useful annotations.

import functools

from llvmlite import ir
from numba import types
from numba.core import cgutils

from npk.backends.program.program import LANES

I64, I32 = ir.IntType(64), ir.IntType(32)
COUNTS = ir.VectorType(I32, LANES)
DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_FUSED = ["contract"]
_UNROLL = 4  # channels of numbers a turn of the loop
_ACCUMULATORS = 16  # registers of 512 bits, of the 32 there are, that sums of numbers are kept in


def number(value):
    """A constant of type intp."""
    return ir.Constant(I64, value)


class Vectors:
    """An LLVM builder with the vector steps of one intrinsic.

    Args:
        ctx: Numba's target context.
        b: the LLVM builder.
        sig: signature of the intrinsic.
        args: its arguments; ``self.args`` has arrays opened, in tuples too.
        rows: type of the tuple that has as many entries as there are rows.
        real: type of the array of cells, which tells the kind of numbers.
    """

    def __init__(self, ctx, b, sig, args, rows, real):
        self.b, self.rows, self.wide = b, len(rows), len(rows) * LANES
        self.paired = isinstance(rows[0], types.BaseTuple)
        self.beside = LANES if self.paired else self.rows  # row samples side by side in the masks
        # sums are added up as in a tile, to the bit
        high, bits = len(rows[0]) if self.paired else self.rows, LANES * real.dtype.bitwidth
        self.turns = _ACCUMULATORS * 512 // (high * bits)
        self.kind = ir.VectorType(
            ir.FloatType() if real.dtype == types.float32 else ir.DoubleType(), LANES
        )
        self.args = [
            self._opened(ctx, kind, value) for kind, value in zip(sig.args, args, strict=True)
        ]

    def _opened(self, ctx, kind, value):
        """An argument with its arrays opened, those in a tuple too."""
        if isinstance(kind, types.Tuple | types.UniTuple):
            return [
                self._opened(ctx, *entry)
                for entry in zip(kind, cgutils.unpack_tuple(self.b, value), strict=True)
            ]
        return ctx.make_array(kind)(ctx, self.b, value) if isinstance(kind, types.Array) else value

    def zero(self, kind):
        """A vector of zeros."""
        return ir.Constant(kind, [0 if kind is COUNTS else 0.0] * LANES)

    def registers(self, kind):
        """One vector a row, zero."""
        slots = [cgutils.alloca_once(self.b, kind) for _ in range(self.rows)]
        for register in slots:
            self.b.store(self.zero(kind), register)
        return slots

    def splat(self, value):
        """One number in all lanes."""
        kind = ir.VectorType(value.type, LANES)
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
        return self.b.shuffle_vector(
            one,
            ir.Constant(kind, ir.Undefined),
            ir.Constant(ir.VectorType(I32, LANES), [0] * LANES),
        )

    def length(self, array, axis):
        """Entries of an array along an axis."""
        return self.b.extract_value(array.shape, axis)

    def item(self, array, index):
        """One entry of an array."""
        return self.b.load(self.b.gep(array.data, [index]))

    def load(self, array, index, kind):
        """Sixteen entries of an array."""
        vector = self.b.load(self.b.bitcast(self.b.gep(array.data, [index]), ir.PointerType(kind)))
        vector.align = 8 if kind.element == ir.DoubleType() else 4
        return vector

    def store(self, value, array, index):
        """Write sixteen entries of an array."""
        done = self.b.store(
            value, self.b.bitcast(self.b.gep(array.data, [index]), ir.PointerType(value.type))
        )
        done.align = 8 if value.type.element == ir.DoubleType() else 4

    def row_sample(self, rows, at, r, kind):
        """Number ``at`` of the sample of row ``r``, in all lanes; of pairs, of each lane's own."""
        place = self.b.mul(at, number(self.beside))
        if self.paired:
            return self.load(rows, place, kind)
        return self.splat(self.item(rows, self.b.add(place, number(r))))

    def row(self, index, r):
        """Where row ``r`` of the cell begins that begins at ``index``."""
        return self.b.add(index, number(r * LANES))

    def fused(self, a, b, c):
        """The value a * b + c, rounded once where the machine can."""
        return self.b.fadd(c, self.b.fmul(a, b, flags=_FUSED), flags=_FUSED)

    def multiply_add(self, register, a, b):
        """Register += a * b, rounded once where the machine can."""
        self.b.store(self.fused(a, b, self.b.load(register)), register)

    def add(self, register, value):
        """Register += value."""
        self.b.store(self.b.fadd(self.b.load(register), value), register)

    def add_to_doubles(self, registers, sums, to):
        """sums[to:] += the registers, which are 0 then."""
        for r, register in enumerate(registers):
            value, at = self.b.load(register), self.row(to, r)
            if self.kind.element != ir.DoubleType():
                value = self.b.fpext(value, DOUBLES)
            self.store(self.b.fadd(self.load(sums, at, DOUBLES), value), sums, at)
            self.b.store(self.zero(self.kind), register)

    def count(self, vector):
        """Ones in each of sixteen words."""
        count = cgutils.get_or_insert_function(
            self.b.module, ir.FunctionType(COUNTS, [COUNTS]), f"llvm.ctpop.v{LANES}i32"
        )
        return self.b.call(count, [vector])

    def words(self, lanes, p, count):
        """So many words of the columns from ``p`` on."""
        return [self.load(lanes, self.b.add(p, number(i * LANES)), COUNTS) for i in range(count)]

    def row_counted(self, rows, a, words):
        """Function that gives popcount(rows[a + i, r] & words[i]), summed over i, of row r, as
        numbers.
        """

        def of(r):
            places = (self.b.add(a, number(i)) for i in range(len(words)))
            found = (self.row_sample(rows, at, r, COUNTS) for at in places)
            common = (self.b.and_(*pair) for pair in zip(found, words, strict=True))
            counts = map(self.count, common)
            return self.b.sitofp(functools.reduce(self.b.add, counts), self.kind)

        return of

    def row_summed(self, rows, a, lanes, p, channels):
        """Function that gives the sum over c of rows[a + c, r] * lanes[p + 16 c:] of row r;
        ``channels``: a few, known when the code is made.
        """
        columns = [
            self.load(lanes, self.b.add(p, number(c * LANES)), self.kind) for c in range(channels)
        ]

        def of(r):
            total = self.zero(self.kind)
            for c, column in enumerate(columns):
                value = self.row_sample(rows, self.b.add(a, number(c)), r, self.kind)
                total = self.fused(value, column, total)
            return total

        return of

    def counted(self, rows, a, lanes, p, words):
        """popcount(rows[a : a + words, r] & lanes[p:]) of each row r, as numbers; word by word."""
        totals = self.registers(COUNTS)
        with cgutils.for_range(self.b, words) as loop:
            column = self.load(lanes, self.b.add(p, self.b.mul(loop.index, number(LANES))), COUNTS)
            for r, total in enumerate(totals):
                words_of_row = self.row_sample(rows, self.b.add(a, loop.index), r, COUNTS)
                common = self.count(self.b.and_(words_of_row, column))
                self.b.store(self.b.add(self.b.load(total), common), total)
        return [self.b.sitofp(self.b.load(total), self.kind) for total in totals]

    def summed(self, rows, a, lanes, p, channels):
        """Sum over c of rows[a + c, r] * lanes[p + 16 c:] for each row r; rows channel by channel.

        Channels take turns on a few accumulators a row: one alone would wait for its own last sum.
        """
        turns = [self.registers(self.kind) for _ in range(self.turns)]

        def step(c, totals):
            column = self.load(lanes, self.b.add(p, self.b.mul(c, number(LANES))), self.kind)
            for r, total in enumerate(totals):
                value = self.row_sample(rows, self.b.add(a, c), r, self.kind)
                self.multiply_add(total, value, column)

        whole = self.b.and_(channels, number(-_UNROLL))
        with cgutils.for_range(self.b, self.b.udiv(channels, number(_UNROLL))) as loop:
            for i in range(_UNROLL):
                step(
                    self.b.add(self.b.mul(loop.index, number(_UNROLL)), number(i)),
                    turns[i % len(turns)],
                )
        with cgutils.for_range(self.b, self.b.sub(channels, whole)) as loop:
            step(self.b.add(whole, loop.index), turns[0])
        return [
            functools.reduce(self.b.fadd, [self.b.load(totals[r]) for totals in turns])
            for r in range(self.rows)
        ]
