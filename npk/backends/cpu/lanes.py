"""Three SIMD steps as LLVM vector code: the column samples sit in the lanes, so there are no horizontal sums and borders cost nothing.

LLVM legalises the vectors to AVX-512, AVX2 or NEON on the user's machine. The loop vectoriser of Numba leaves ``ctpop`` inside a stored product scalar, hence the intrinsics.
"""

# ruff: noqa: ANN001, ANN202 - intrinsics receive Numba types and LLVM builders, which have no useful annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
_I64, _I32 = ir.IntType(64), ir.IntType(32)
_WORDS = ir.VectorType(_I64, LANES)


def _vector(array_type) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if array_type.dtype == types.float32 else ir.DoubleType(), LANES)


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
    opened = (ctx.make_array(t)(ctx, b, a) if isinstance(t, types.Array) else a for t, a in zip(sig.args, args, strict=True))
    return list(opened)


def _add_product(b, acc, overlap, source, s, scale, out, o, kind):
    """out[o:] = acc + scale * source[s:] * overlap, where acc is what out holds."""
    value = b.fmul(b.fmul(_load(b, source, s, kind), overlap), _splat(b, scale))
    _store(b, b.fadd(acc, value), out, o)


@intrinsic
def add_bits(tc, row, a, lanes, p, words, source, s, scale, out, o):
    """out[o:o+16] += scale * source[s:s+16] * popcount(row[a:a+words] & lanes[p:])."""
    sig = types.void(row, types.intp, lanes, types.intp, types.intp, source, types.intp, source.dtype, out, types.intp)

    def codegen(ctx, b, sig, args):
        row_, a_, lanes_, p_, words_, source_, s_, scale_, out_, o_ = _arrays(ctx, b, sig, args)
        kind = _vector(sig.args[5])
        count = cgutils.get_or_insert_function(b.module, ir.FunctionType(_WORDS, [_WORDS]), f"llvm.ctpop.v{LANES}i64")
        total = cgutils.alloca_once_value(b, ir.Constant(_WORDS, [0] * LANES))
        b.store(ir.Constant(_WORDS, [0] * LANES), total)
        with cgutils.for_range(b, words_) as loop:
            word = _splat(b, b.load(b.gep(row_.data, [b.add(a_, loop.index)])))
            column = _load(b, lanes_, b.add(p_, b.mul(loop.index, ir.Constant(_I64, LANES))), _WORDS)
            b.store(b.add(b.load(total), b.call(count, [b.and_(word, column)])), total)
        overlap = b.sitofp(b.trunc(b.load(total), ir.VectorType(_I32, LANES)), kind)
        _add_product(b, _load(b, out_, o_, kind), overlap, source_, s_, scale_, out_, o_, kind)
        return ctx.get_dummy_value()

    return sig, codegen


@intrinsic
def add_real(tc, row, a, lanes, p, channels, source, s, scale, out, o):
    """out[o:o+16] += scale * source[s:s+16] * sum over c of row[a + c] * lanes[p + 16 c:]; channels is a multiple of 4."""
    sig = types.void(row, types.intp, lanes, types.intp, types.intp, source, types.intp, source.dtype, out, types.intp)

    def codegen(ctx, b, sig, args):
        row_, a_, lanes_, p_, channels_, source_, s_, scale_, out_, o_ = _arrays(ctx, b, sig, args)
        kind = _vector(sig.args[5])
        zero = ir.Constant(kind, [0.0] * LANES)
        sums = [cgutils.alloca_once_value(b, zero) for _ in range(4)]
        for total in sums:
            b.store(zero, total)
        with cgutils.for_range(b, b.udiv(channels_, ir.Constant(_I64, 4))) as loop:
            for i, total in enumerate(sums):
                c = b.add(b.mul(loop.index, ir.Constant(_I64, 4)), ir.Constant(_I64, i))
                value = _splat(b, b.load(b.gep(row_.data, [b.add(a_, c)])))
                column = _load(b, lanes_, b.add(p_, b.mul(c, ir.Constant(_I64, LANES))), kind)
                b.store(b.fadd(b.load(total), b.fmul(value, column, flags=["contract"]), flags=["contract"]), total)
        overlap = b.fadd(b.fadd(b.load(sums[0]), b.load(sums[1])), b.fadd(b.load(sums[2]), b.load(sums[3])))
        _add_product(b, _load(b, out_, o_, kind), overlap, source_, s_, scale_, out_, o_, kind)
        return ctx.get_dummy_value()

    return sig, codegen


@intrinsic
def gather(tc, source, base, tables, t, k, scale, bias, out, o):
    """out[o:o+16] = bias + scale * sum over j < k of source[16 * (base + tables[t + j]):], entries of -1 left out."""
    sig = types.void(source, types.intp, tables, types.intp, types.intp, source.dtype, source.dtype, out, types.intp)

    def codegen(ctx, b, sig, args):
        source_, base_, tables_, t_, k_, scale_, bias_, out_, o_ = _arrays(ctx, b, sig, args)
        kind = _vector(sig.args[0])
        zero = ir.Constant(kind, [0.0] * LANES)
        total = cgutils.alloca_once_value(b, zero)
        b.store(zero, total)
        with cgutils.for_range(b, k_) as loop:
            entry = b.sext(b.load(b.gep(tables_.data, [b.add(t_, loop.index)])), _I64)
            with b.if_then(b.icmp_signed(">=", entry, ir.Constant(_I64, 0))):
                at = b.mul(b.add(base_, entry), ir.Constant(_I64, LANES))
                b.store(b.fadd(b.load(total), _load(b, source_, at, kind)), total)
        _store(b, b.fadd(_splat(b, bias_), b.fmul(b.load(total), _splat(b, scale_))), out_, o_)
        return ctx.get_dummy_value()

    return sig, codegen
