"""The steps of the engine as Numba intrinsics: each makes one cell, or adds to one, for all rows
and lanes of a group of pairs.

The loop vectorizer of Numba leaves ``ctpop`` inside a stored product scalar, hence the intrinsics;
what they emit is in ``vectors``.
"""

# Intrinsics receive Numba types and LLVM builders, which have no useful annotations.

import contextlib
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npk.backends.cpu.vectors import DOUBLES, I32, I64, Vectors, number
from npk.backends.layout import BITS, REAL
from npk.backends.program.program import LANES, LAYOUT, TERMS, TOGETHER

TERM_COLUMNS = (*TERMS[:-1], *LAYOUT)


class _Sources(NamedTuple):
    """Arrays that the contributions of a term are read from."""

    tables: Any
    weights: Any
    bits: Any
    lane_bits: Any
    reals: Any
    lane_reals: Any
    chain_bits: Any
    chain_lanes: Any
    slots: Any


class _Mask(NamedTuple):
    """How the overlap of a cell is found: ``overlaps(u, v, cell)``, in chains after ``advance``;
    ``once``: whether there is code that takes it once for all copies of a cell.
    """

    overlaps: Any
    advance: Any = None
    once: bool = True


def _term(e, terms, t):
    """Row ``t`` of the terms, read once."""
    first = e.b.mul(t, number(len(TERM_COLUMNS)))
    return {name: e.item(terms, e.b.add(first, number(i))) for i, name in enumerate(TERM_COLUMNS)}


def _counted(e, sources, words):
    """Overlaps of bits that are kept for each sample."""
    return _Mask(
        lambda u, v, _: e.counted(
            sources.bits, u, sources.lane_bits, e.b.mul(v, number(LANES)), words
        )
    )


def _summed(e, sources, channels):
    """Overlaps of numbers."""
    return _Mask(
        lambda u, v, _: e.summed(
            sources.reals, u, sources.lane_reals, e.b.mul(v, number(LANES)), channels
        ),
        once=False,  # numbers are rare, and their code is long
    )


def _chained(e, sources, term, words):
    """Overlaps of masks with one factor more than the mask before, which is still known."""
    b = e.b

    def place(cell):
        return b.mul(b.add(b.mul(term["chain"], number(TOGETHER)), cell), term["width"])

    def advance(u, v, cell):
        with cgutils.for_range(b, words) as loop:
            w, at = loop.index, b.add(place(cell), loop.index)
            for kept, array, first, wide in (
                (sources.chain_bits, sources.bits, b.add(u, w), e.beside),
                (sources.chain_lanes, sources.lane_bits, b.add(v, w), LANES),
            ):
                kind, to = ir.VectorType(I32, wide), b.mul(at, number(wide))
                old = b.select(
                    b.icmp_signed("!=", term["start"], number(0)),
                    ir.Constant(kind, [-1] * wide),
                    e.load(kept, to, kind),
                )
                e.store(b.and_(old, e.load(array, b.mul(first, number(wide)), kind)), kept, to)

    def overlaps(u, v, cell):
        at = place(cell)
        return e.counted(
            sources.chain_bits, at, sources.chain_lanes, b.mul(at, number(LANES)), words
        )

    return _Mask(overlaps, advance)


def _by_form(e, term, sources, run, chains):
    """``run(mask)`` once for the form of the term's mask (``None``: ones).

    So a loop that ``run`` emits is free of tests, and of an inner loop where the mask has one or
    two words.
    """
    b, width = e.b, term["width"]
    one, two = (b.icmp_signed("==", width, number(words)) for words in (1, 2))
    of_bits = b.icmp_signed("==", term["form"], number(BITS))
    cases = [
        (b.and_(of_bits, one), _counted(e, sources, number(1))),
        (b.and_(of_bits, two), _counted(e, sources, number(2))),
        (of_bits, _counted(e, sources, width)),
        (b.icmp_signed("==", term["form"], number(REAL)), _summed(e, sources, width)),
    ]
    if chains:
        linked = b.icmp_signed(">=", term["chain"], number(0))
        kept = [_chained(e, sources, term, words) for words in (number(1), number(2), width)]
        cases = [
            (b.and_(linked, one), kept[0]),
            (b.and_(linked, two), kept[1]),
            (linked, kept[2]),
            *cases,
        ]
    with contextlib.ExitStack() as stack:
        for test, mask in cases:
            then, otherwise = stack.enter_context(b.if_else(test))
            with then:
                run(mask)
            stack.enter_context(otherwise)
        run(None)


def _accumulate(e, totals, term, sources, scale, span, overlaps):
    """Add weight * contribution to the totals, for the contributions j of a span."""
    b = e.b
    begin, end = span
    with cgutils.for_range_slice(b, begin, end, number(1)) as (j, _):
        factor = cgutils.alloca_once_value(b, scale)
        with b.if_then(b.icmp_signed(">=", term["weight"], number(0)), likely=False):
            b.store(b.fmul(scale, e.item(sources.weights, b.add(term["weight"], j))), factor)
        _add(
            e,
            totals,
            term,
            sources,
            b.load(factor),
            j,
            overlaps and (lambda: overlaps(*_places(e, term, sources, j))),
        )


def _behind(e, term, copy):
    """The term some copies further on."""
    steps = {"source": "source_step", "out": "out_step"}
    moved = {name: e.b.add(term[name], e.b.mul(copy, term[step])) for name, step in steps.items()}
    return {**term, **moved}


def _add(e, totals, term, sources, factor, j, overlaps):
    """Add factor * V[source + entry] * overlap to the totals; nothing for the entry -1."""
    b = e.b
    entry = b.sext(e.item(sources.tables, b.add(term["pair"], j)), I64)
    with b.if_then(b.icmp_signed(">=", entry, number(0)), likely=True):
        at, spread = b.mul(b.add(term["source"], entry), number(e.wide)), e.splat(factor)
        overlap = overlaps and overlaps()
        for r, total in enumerate(totals):
            value = b.fmul(e.load(sources.slots, e.row(at, r), e.kind), spread)
            e.add(total, value) if overlap is None else e.multiply_add(total, value, overlap[r])


def _places(e, term, sources, j, anywhere=False):
    """Where the masks of contribution ``j`` begin, of the row samples and of the column samples;
    ``anywhere``: at the first place where there is none.
    """
    u, v = (e.b.sext(e.item(sources.tables, e.b.add(term[column], j)), I64) for column in "uv")
    if anywhere:
        u, v = (e.b.select(e.b.icmp_signed("<", at, number(0)), number(0), at) for at in (u, v))
    return e.b.add(term["first"], e.b.mul(u, term["stride"])), e.b.add(
        term["first"], e.b.mul(v, term["stride"])
    )


def _is_shared(b, term):
    """Whether the copies of a term take one overlap: of one contribution each, without a weight."""
    alone = b.icmp_signed("==", term["k"], number(1))
    plain = b.icmp_signed("<", term["weight"], number(0))
    return b.and_(b.icmp_signed(">", term["times"], number(1)), b.and_(alone, plain))


@intrinsic
def collapse(tc, rows, terms, scales, t, begin, end, sources):
    """Cells ``begin`` to ``end`` of the term in row ``t``: the sum of its contributions, added to
    what is there unless it is fresh.
    """
    sig = types.void(rows, terms, scales, *[types.intp] * 3, sources)

    def codegen(ctx, b, sig, args):
        e = Vectors(ctx, b, sig, args, sig.args[0], sig.args[-1][-1])
        _, terms_, scales_, t_, begin_, end_, arrays = e.args
        sources_, term, scale = _Sources(*arrays), _term(e, terms_, t_), e.item(scales_, t_)
        shared = _is_shared(b, term)

        def onto(c, contribute):
            """Add to cell ``c`` of each copy what ``contribute(totals, copy of the term)`` gives."""
            with cgutils.for_range(b, term["times"]) as loop:
                one = _behind(e, term, loop.index)
                o = b.mul(b.add(one["out"], c), number(e.wide))
                totals = e.registers(e.kind)
                with b.if_then(b.icmp_signed("==", term["fresh"], number(0))):
                    for r, total in enumerate(totals):
                        b.store(e.load(sources_.slots, e.row(o, r), e.kind), total)
                contribute(totals, one)
                for r, total in enumerate(totals):
                    e.store(b.load(total), sources_.slots, e.row(o, r))

        def single(mask, c):
            """One contribution, without a weight: its overlap is taken once for all copies."""
            u, v = _places(e, term, sources_, c, anywhere=True)
            if mask.advance:
                mask.advance(u, v, b.sub(c, begin_))
            overlap = mask.overlaps(u, v, b.sub(c, begin_))
            onto(c, lambda totals, one: _add(e, totals, one, sources_, scale, c, lambda: overlap))

        def several(mask, c):
            """All contributions, for each copy anew."""
            first = b.mul(c, term["k"])
            span = first, b.add(first, term["k"])
            overlaps = mask and (lambda u, v: mask.overlaps(u, v, None))
            onto(
                c, lambda totals, one: _accumulate(e, totals, one, sources_, scale, span, overlaps)
            )

        def run(mask):
            with cgutils.for_range_slice(b, begin_, end_, number(1)) as (c, _):
                if mask and mask.advance:
                    single(mask, c)
                elif mask and mask.once:
                    with b.if_else(shared) as (then, otherwise):
                        with then:
                            single(mask, c)
                        with otherwise:
                            several(mask, c)
                else:
                    several(mask, c)

        _by_form(e, term, sources_, run, chains=True)
        return ctx.get_dummy_value()

    return sig, codegen


@intrinsic
def reduce(tc, rows, terms, scales, t, begin, end, sources, sums, to):
    """sums[to:] += contributions ``begin`` to ``end`` of the term in row ``t``, in float64."""
    sig = types.void(rows, terms, scales, *[types.intp] * 3, sources, sums, types.intp)

    def codegen(ctx, b, sig, args):
        e = Vectors(ctx, b, sig, args, sig.args[0], sig.args[6][-1])
        _, terms_, scales_, t_, begin_, end_, arrays, sums_, to_ = e.args
        sources_, term, scale = _Sources(*arrays), _term(e, terms_, t_), e.item(scales_, t_)

        def run(mask):
            totals = e.registers(e.kind)
            overlaps = mask and (lambda u, v: mask.overlaps(u, v, None))
            _accumulate(e, totals, term, sources_, scale, (begin_, end_), overlaps)
            for r, total in enumerate(totals):
                value = b.load(total)
                value = value if e.kind.element == ir.DoubleType() else b.fpext(value, DOUBLES)
                e.store(b.fadd(e.load(sums_, e.row(to_, r), DOUBLES), value), sums_, e.row(to_, r))

        _by_form(e, term, sources_, run, chains=False)
        return ctx.get_dummy_value()

    return sig, codegen


def _column(e, slots, base, tables, t, k):
    """Sum of the ``k`` cells base + tables[t ...], row by row; entries of -1 are left out."""
    totals = e.registers(e.kind)
    with cgutils.for_range(e.b, k) as loop:
        entry = e.b.sext(e.item(tables, e.b.add(t, loop.index)), I64)
        with e.b.if_then(e.b.icmp_signed(">=", entry, number(0)), likely=True):
            at = e.b.mul(e.b.add(base, entry), number(e.wide))
            for r, total in enumerate(totals):
                e.add(total, e.load(slots, e.row(at, r), e.kind))
    return [e.b.load(total) for total in totals]


@intrinsic
def gather(tc, rows, slots, base, tables, t, k, cells, scale, bias, out):
    """Cells ``out + c``, c < ``cells``: bias + scale * sum over j < k of the cell base + tables[t +
    c * k + j]; -1 is left out.
    """
    sig = types.void(
        rows, slots, types.intp, tables, *[types.intp] * 3, slots.dtype, slots.dtype, types.intp
    )

    def codegen(ctx, b, sig, args):
        e = Vectors(ctx, b, sig, args, sig.args[0], sig.args[1])
        _, slots_, base_, tables_, t_, k_, cells_, scale_, bias_, out_ = e.args
        spread, shift = e.splat(scale_), e.splat(bias_)
        with cgutils.for_range(b, cells_) as loop:
            o = b.mul(b.add(out_, loop.index), number(e.wide))
            for r, total in enumerate(
                _column(e, slots_, base_, tables_, b.add(t_, b.mul(loop.index, k_)), k_)
            ):
                e.store(b.fadd(shift, b.fmul(total, spread)), slots_, e.row(o, r))
        return ctx.get_dummy_value()

    return sig, codegen


@intrinsic
def slide(tc, rows, slots, base, tables, t, k, outputs, scale, bias, out):
    """Cells ``out + x``, x < ``outputs``: bias + scale * sum of the columns x, x + 1, x + 2, each
    of ``k`` cells base + tables[t ...].

    The last two columns stay in registers, so that each is summed once.
    """
    sig = types.void(
        rows, slots, types.intp, tables, *[types.intp] * 3, slots.dtype, slots.dtype, types.intp
    )

    def codegen(ctx, b, sig, args):
        e = Vectors(ctx, b, sig, args, sig.args[0], sig.args[1])
        _, slots_, base_, tables_, t_, k_, outputs_, scale_, bias_, out_ = e.args
        spread, shift = e.splat(scale_), e.splat(bias_)
        columns = [
            _column(e, slots_, base_, tables_, b.add(t_, b.mul(k_, number(i))), k_) for i in (0, 1)
        ]
        before = [[cgutils.alloca_once_value(b, value) for value in column] for column in columns]
        with cgutils.for_range(b, outputs_) as loop:
            o = b.mul(b.add(out_, loop.index), number(e.wide))
            entry = b.add(t_, b.mul(k_, b.add(loop.index, number(2))))
            for r, last in enumerate(_column(e, slots_, base_, tables_, entry, k_)):
                first, second = b.load(before[0][r]), b.load(before[1][r])
                total = b.fadd(b.fadd(first, second), last)
                b.store(second, before[0][r])
                b.store(last, before[1][r])
                e.store(b.fadd(shift, b.fmul(total, spread)), slots_, e.row(o, r))
        return ctx.get_dummy_value()

    return sig, codegen


@intrinsic
def product(tc, rows, factors, numbers, g, q, masks, out, at, stride):
    """out[at + r * stride :] = product over ``factors`` (rows form, first, width) of scale *
    overlap, plus bias after each where there are biases, for group g and block q.

    ``numbers``: scales, and biases or ``None``; ``masks``: as in ``run_product``.
    """
    sig = types.void(
        rows, factors, numbers, types.intp, types.intp, masks, out, types.intp, types.intp
    )

    def codegen(ctx, b, sig, args):
        e = Vectors(ctx, b, sig, args, sig.args[0], sig.args[6])
        _, factors_, (scales_, biases_), g_, q_, masks_, out_, at_, stride_ = e.args
        bits_, lane_bits_, reals_, lane_reals_ = masks_
        biased = not isinstance(sig.args[2][1], types.NoneType)
        totals = [
            cgutils.alloca_once_value(b, e.splat(ir.Constant(e.kind.element, 1.0)))
            for _ in range(e.rows)
        ]
        with cgutils.for_range(b, e.length(factors_, 0)) as loop:
            form, first, width = (
                e.item(factors_, b.add(b.mul(loop.index, number(3)), number(i))) for i in range(3)
            )
            scale = e.splat(e.item(scales_, loop.index))
            bias = e.splat(e.item(biases_, loop.index)) if biased else None

            def times(overlaps):
                for total, overlap in zip(totals, overlaps, strict=True):
                    value = b.fmul(b.load(total), b.fmul(overlap, scale))
                    b.store(b.fadd(value, bias) if biased else value, total)

            def start(array, block, high):
                return b.add(b.mul(block, b.udiv(e.length(array, 1), number(high))), first)

            with b.if_else(b.icmp_signed("==", form, number(BITS)), likely=True) as (
                of_bits,
                of_numbers,
            ):
                with of_bits:
                    p = b.mul(start(lane_bits_, q_, LANES), number(LANES))
                    times(e.counted(bits_, start(bits_, g_, e.rows), lane_bits_, p, width))
                with of_numbers:
                    p = b.mul(start(lane_reals_, q_, LANES), number(LANES))
                    times(e.summed(reals_, start(reals_, g_, e.rows), lane_reals_, p, width))
        for r, total in enumerate(totals):
            e.store(b.load(total), out_, b.add(at_, b.mul(stride_, number(r))))
        return ctx.get_dummy_value()

    return sig, codegen
