"""Three SIMD steps as LLVM vector code: sixteen column samples sit in the lanes, eight row samples share every load of a column.

So there are no horizontal sums, borders cost nothing, and LLVM legalizes the vectors to AVX-512, AVX2 or NEON on the user's machine.
The loop vectorizer of Numba leaves ``ctpop`` inside a stored product scalar, hence the intrinsics. A cell is ``WIDE`` numbers: row by
row, sixteen columns each.
"""

# Intrinsics receive Numba types and LLVM builders, which have no useful annotations.

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES, ROWS = 16, 8
WIDE = LANES * ROWS
UNROLL = 4  # channels of real masks a turn of the loop
_I64, _I32 = ir.IntType(64), ir.IntType(32)
_WORDS = ir.VectorType(_I64, LANES)


def _vector(array_type) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if array_type.dtype == types.float32 else ir.DoubleType(), LANES)


def _int(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _splat(b, value):
    kind = ir.VectorType(value.type, LANES)
    one = b.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    return b.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _load(b, array, index, kind):
    found = b.load(b.bitcast(b.gep(array.data, [index]), ir.PointerType(kind)))
    found.align = 8 if kind.element in (_I64, ir.DoubleType()) else 4
    return found


def _store(b, value, array, index):
    done = b.store(value, b.bitcast(b.gep(array.data, [index]), ir.PointerType(value.type)))
    done.align = 8 if value.type.element == ir.DoubleType() else 4


def _arrays(ctx, b, sig, args):
    """Arguments with arrays opened; scalars as they are."""
    return [ctx.make_array(t)(ctx, b, a) if isinstance(t, types.Array) else a for t, a in zip(sig.args, args, strict=True)]


def _registers(b, kind):
    """One vector accumulator a row, zero."""
    made = [cgutils.alloca_once(b, kind) for _ in range(ROWS)]
    for register in made:
        b.store(ir.Constant(kind, [0 if kind is _WORDS else 0.0] * LANES), register)
    return made


def _add_products(b, overlaps, slots, s, scale, o, kind):
    """slots[o:] += scale * slots[s:] * overlap, row by row."""
    factor = _splat(b, scale)
    for r, overlap in enumerate(overlaps):
        source, out = b.add(s, _int(r * LANES)), b.add(o, _int(r * LANES))
        value = b.fmul(b.fmul(_load(b, slots, source, kind), overlap), factor)
        _store(b, b.fadd(_load(b, slots, out, kind), value), slots, out)


def _multiply(b, overlaps, slots, scale, kind):
    """slots[:] *= scale * overlap, row by row."""
    factor = _splat(b, scale)
    for r, overlap in enumerate(overlaps):
        value = b.fmul(_load(b, slots, _int(r * LANES), kind), b.fmul(overlap, factor))
        _store(b, value, slots, _int(r * LANES))


def _counted(b, rows, a, lanes, p, words, kind):
    """popcount(rows[a : a + words, r] & lanes[p:]) for each row r; rows word by word."""
    count = cgutils.get_or_insert_function(b.module, ir.FunctionType(_WORDS, [_WORDS]), f"llvm.ctpop.v{LANES}i64")
    totals = _registers(b, _WORDS)
    with cgutils.for_range(b, words) as loop:
        column = _load(b, lanes, b.add(p, b.mul(loop.index, _int(LANES))), _WORDS)
        for r, total in enumerate(totals):
            word = b.load(b.gep(rows.data, [b.add(b.mul(b.add(a, loop.index), _int(ROWS)), _int(r))]))
            b.store(b.add(b.load(total), b.call(count, [b.and_(_splat(b, word), column)])), total)
    return [b.sitofp(b.trunc(b.load(total), ir.VectorType(_I32, LANES)), kind) for total in totals]


def _summed(b, rows, a, lanes, p, channels, kind):
    """Sum over c of rows[a + c, r] * lanes[p + 16 c:] for each row r; rows channel by channel."""
    totals = _registers(b, kind)

    def add(c):
        column = _load(b, lanes, b.add(p, b.mul(c, _int(LANES))), kind)
        for r, total in enumerate(totals):
            value = b.load(b.gep(rows.data, [b.add(b.mul(b.add(a, c), _int(ROWS)), _int(r))]))
            product = b.fmul(_splat(b, value), column, flags=["contract"])
            b.store(b.fadd(b.load(total), product, flags=["contract"]), total)

    whole = b.and_(channels, _int(-UNROLL))
    with cgutils.for_range(b, b.udiv(channels, _int(UNROLL))) as loop:
        for i in range(UNROLL):
            add(b.add(b.mul(loop.index, _int(UNROLL)), _int(i)))
    with cgutils.for_range(b, b.sub(channels, whole)) as loop:
        add(b.add(whole, loop.index))
    return [b.load(total) for total in totals]


def _overlap_step(name, overlap, multiply, doc):
    """An intrinsic that adds to a cell, or multiplies one, by overlaps that ``overlap`` makes."""

    def adds(tc, rows, a, lanes, p, width, slots, s, scale, o):
        sig = types.void(rows, types.intp, lanes, types.intp, types.intp, slots, types.intp, slots.dtype, types.intp)

        def codegen(ctx, b, sig, args):
            rows_, a_, lanes_, p_, width_, slots_, s_, scale_, o_ = _arrays(ctx, b, sig, args)
            kind = _vector(sig.args[5])
            _add_products(b, overlap(b, rows_, a_, lanes_, p_, width_, kind), slots_, s_, scale_, o_, kind)
            return ctx.get_dummy_value()

        return sig, codegen

    def multiplies(tc, rows, a, lanes, p, width, slots, scale):
        sig = types.void(rows, types.intp, lanes, types.intp, types.intp, slots, slots.dtype)

        def codegen(ctx, b, sig, args):
            rows_, a_, lanes_, p_, width_, slots_, scale_ = _arrays(ctx, b, sig, args)
            kind = _vector(sig.args[5])
            _multiply(b, overlap(b, rows_, a_, lanes_, p_, width_, kind), slots_, scale_, kind)
            return ctx.get_dummy_value()

        return sig, codegen

    made = multiplies if multiply else adds
    made.__name__ = made.__qualname__ = name
    made.__doc__ = doc
    return intrinsic(made)


add_bits = _overlap_step("add_bits", _counted, False, "slots[o:] += scale * slots[s:] * popcount of the words in common, row by row.")
add_real = _overlap_step("add_real", _summed, False, "slots[o:] += scale * slots[s:] * sum of the products of numbers, row by row.")
times_bits = _overlap_step("times_bits", _counted, True, "slots[:] *= scale * popcount of the words in common, row by row.")
times_real = _overlap_step("times_real", _summed, True, "slots[:] *= scale * sum of the products of numbers, row by row.")


@intrinsic
def add_plain(tc, slots, s, scale, o):
    """slots[o:] += scale * slots[s:], a cell."""
    sig = types.void(slots, types.intp, slots.dtype, types.intp)

    def codegen(ctx, b, sig, args):
        slots_, s_, scale_, o_ = _arrays(ctx, b, sig, args)
        kind = _vector(sig.args[0])
        factor = _splat(b, scale_)
        for r in range(ROWS):
            source, out = b.add(s_, _int(r * LANES)), b.add(o_, _int(r * LANES))
            value = b.fadd(_load(b, slots_, out, kind), b.fmul(_load(b, slots_, source, kind), factor))
            _store(b, value, slots_, out)
        return ctx.get_dummy_value()

    return sig, codegen


@intrinsic
def clear(tc, slots, o):
    """slots[o:] = 0, a cell."""
    sig = types.void(slots, types.intp)

    def codegen(ctx, b, sig, args):
        slots_, o_ = _arrays(ctx, b, sig, args)
        zero = ir.Constant(_vector(sig.args[0]), [0.0] * LANES)
        for r in range(ROWS):
            _store(b, zero, slots_, b.add(o_, _int(r * LANES)))
        return ctx.get_dummy_value()

    return sig, codegen


@intrinsic
def flush(tc, slots, o, sums, to):
    """sums[to:] += slots[o:] in float64, then slots[o:] = 0, a cell."""
    sig = types.void(slots, types.intp, sums, types.intp)

    def codegen(ctx, b, sig, args):
        slots_, o_, sums_, to_ = _arrays(ctx, b, sig, args)
        kind, wide = _vector(sig.args[0]), ir.VectorType(ir.DoubleType(), LANES)
        for r in range(ROWS):
            source, out = b.add(o_, _int(r * LANES)), b.add(to_, _int(r * LANES))
            value = _load(b, slots_, source, kind)
            value = value if kind.element == ir.DoubleType() else b.fpext(value, wide)
            _store(b, b.fadd(_load(b, sums_, out, wide), value), sums_, out)
            _store(b, ir.Constant(kind, [0.0] * LANES), slots_, source)
        return ctx.get_dummy_value()

    return sig, codegen


@intrinsic
def gather(tc, slots, base, tables, t, k, scale, bias, o):
    """slots[o:] = bias + scale * sum over j < k of the cell base + tables[t + j], entries of -1 left out."""
    sig = types.void(slots, types.intp, tables, types.intp, types.intp, slots.dtype, slots.dtype, types.intp)

    def codegen(ctx, b, sig, args):
        slots_, base_, tables_, t_, k_, scale_, bias_, o_ = _arrays(ctx, b, sig, args)
        kind = _vector(sig.args[0])
        totals = _registers(b, kind)
        with cgutils.for_range(b, k_) as loop:
            entry = b.sext(b.load(b.gep(tables_.data, [b.add(t_, loop.index)])), _I64)
            with b.if_then(b.icmp_signed(">=", entry, _int(0)), likely=True):
                at = b.mul(b.add(base_, entry), _int(WIDE))
                for r, total in enumerate(totals):
                    b.store(b.fadd(b.load(total), _load(b, slots_, b.add(at, _int(r * LANES)), kind)), total)
        for r, total in enumerate(totals):
            value = b.fadd(_splat(b, bias_), b.fmul(b.load(total), _splat(b, scale_)))
            _store(b, value, slots_, b.add(o_, _int(r * LANES)))
        return ctx.get_dummy_value()

    return sig, codegen
