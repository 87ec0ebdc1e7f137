"""Squares of a tile in registers: checked, scaled, written as they are and as their mirror image, a
line of the cache at a time.
"""

# Intrinsics receive Numba types and LLVM builders, which have no useful annotations.

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

SQUARE = 16  # rows, and columns, of a square
LINE = 64  # bytes of a line of the cache
_I32 = ir.IntType(32)


@intrinsic
def write_square(tc, values, at, stride, factor, whole, to, back, wide, mirrored, streamed):
    """Write the square of a flat array that begins at ``at``, rows ``stride`` apart, times a factor
    at ``to`` of another one, rows ``wide`` apart, and its mirror image at ``back`` where
    ``mirrored``; past the caches where ``streamed``: all rows then begin at lines of the cache.

    Returns the largest absolute value before; infinite or NaN where one is not finite.
    """
    real, flag = values.dtype, types.boolean
    sig = real(values, *[types.intp] * 2, real, whole, *[types.intp] * 3, flag, flag)

    def codegen(ctx, b, sig, args):
        source, target = (ctx.make_array(sig.args[i])(ctx, b, args[i]).data for i in (0, 4))
        _, at, stride, factor, _, to, back, wide, mirrored, streamed = args
        e = _Lines(b, real.bitwidth)
        rows = [e.load(source, e.moved(at, stride, r)) for r in range(SQUARE)]
        top = e.largest(rows)
        factors = e.splat(factor)
        rows = [b.fmul(row, factors) for row in rows]
        with b.if_else(streamed) as (past, through):
            for branch, stream in ((past, True), (through, False)):
                with branch:
                    e.store_all(rows, target, to, wide, stream)
                    with b.if_then(mirrored):
                        e.store_all(e.mirrored(rows), target, back, wide, stream)
        return top

    return sig, codegen


@intrinsic
def finish_writing(tc):
    """Whatever was written past the caches is seen by others from now on."""

    def codegen(ctx, b, sig, args):
        b.fence("seq_cst")
        return ctx.get_dummy_value()

    return types.void(), codegen


class _Lines:
    """An LLVM builder with the vector steps of a square.

    Args:
        b: the LLVM builder.
        bits: of a number.
    """

    def __init__(self, b, bits):
        self.b, self.bytes = b, bits // 8
        self.real = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.row = ir.VectorType(self.real, SQUARE)
        self.bits = ir.VectorType(ir.IntType(bits), SQUARE)
        self.name = f"v{SQUARE}i{bits}"
        self.once = b.module.add_metadata([ir.Constant(_I32, 1)])

    def moved(self, first, step, times):
        """``first + times * step``."""
        return self.b.add(first, self.b.mul(step, ir.Constant(first.type, times)))

    def place(self, data, index):
        """Where sixteen numbers of an array are."""
        return self.b.bitcast(self.b.gep(data, [index]), ir.PointerType(self.row))

    def load(self, data, index):
        """Sixteen numbers of an array."""
        row = self.b.load(self.place(data, index))
        row.align = self.bytes
        return row

    def store_all(self, rows, data, first, step, streamed):
        """Write rows, ``step`` apart."""
        for r, row in enumerate(rows):
            done = self.b.store(row, self.place(data, self.moved(first, step, r)))
            done.align = LINE if streamed else self.bytes
            if streamed:
                done.set_metadata("nontemporal", self.once)

    def splat(self, value):
        """One number in all lanes."""
        one = self.b.insert_element(
            ir.Constant(self.row, ir.Undefined), value, ir.Constant(_I32, 0)
        )
        return self.shuffled(one, one, [0] * SQUARE)

    def shuffled(self, one, other, lanes):
        """Lanes of two vectors, the second's counted behind the first's."""
        chosen = ir.Constant(ir.VectorType(_I32, len(lanes)), lanes)
        return self.b.shuffle_vector(one, other, chosen)

    def mirrored(self, rows):
        """Rows of the mirror image: halves of rows change places, then quarters, and so on."""
        for step in (8, 4, 2, 1):
            first = [k if not k & step else k - step + SQUARE for k in range(SQUARE)]
            second = [k + step if not k & step else k + SQUARE for k in range(SQUARE)]
            made = list(rows)
            for i in range(SQUARE):
                if not i & step:
                    pair = rows[i], rows[i + step]
                    made[i] = self.shuffled(*pair, first)
                    made[i + step] = self.shuffled(*pair, second)
            rows = made
        return rows

    def largest(self, rows):
        """The largest absolute value. As whole numbers, infinity lies above all others, NaN above
        infinity.
        """
        b, sign = self.b, 8 * self.bytes - 1
        mask = ir.Constant(self.bits, [(1 << sign) - 1] * SQUARE)
        top = None
        for row in rows:
            size = b.and_(b.bitcast(row, self.bits), mask)
            top = size if top is None else b.select(b.icmp_unsigned(">", size, top), size, top)
        kind = ir.FunctionType(self.bits.element, [self.bits])
        reduce = cgutils.get_or_insert_function(
            b.module, kind, f"llvm.vector.reduce.umax.{self.name}"
        )
        return b.bitcast(b.call(reduce, [top]), self.real)
