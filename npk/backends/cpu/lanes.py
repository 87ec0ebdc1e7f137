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

from npk.backends.cpu.vectors import I32, I64, Vectors, number
from npk.backends.layout import BITS, REAL
from npk.backends.program.program import LANES, LAYOUT, TERMS, TOGETHER

TERM_COLUMNS = (*TERMS[:-1], *LAYOUT)


class Sources(NamedTuple):
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
    ``once``: whether there is code that takes it once for all copies of a cell. ``by_row(u, v,
    cell)`` gives a function of the row of samples, where the words are known when the code is made.
    """

    overlaps: Any
    advance: Any = None
    once: bool = True
    by_row: Any = None


def term_at(e, terms, t):
    """Row ``t`` of the terms, read once."""
    first = e.b.mul(t, number(len(TERM_COLUMNS)))
    held = [e.item(terms, e.b.add(first, number(i))) for i in range(len(TERM_COLUMNS))]
    return dict(zip(TERM_COLUMNS, (e.b.sext(value, I64) for value in held), strict=True))


def _counted(e, sources, words):
    """Overlaps of bits that are kept for each sample."""
    known = words if isinstance(words, int) else 0
    words = number(known) if known else words

    def by_row(u, v, _):
        p = e.b.mul(v, number(LANES))
        return e.row_counted(sources.bits, u, e.words(sources.lane_bits, p, known))

    return _Mask(
        lambda u, v, _: e.counted(
            sources.bits, u, sources.lane_bits, e.b.mul(v, number(LANES)), words
        ),
        by_row=by_row if known else None,
    )


def _summed(e, sources, channels):
    """Overlaps of numbers."""
    return _Mask(
        lambda u, v, _: e.summed(
            sources.reals, u, sources.lane_reals, e.b.mul(v, number(LANES)), channels
        ),
        once=False,  # numbers are rare, and their code is long
    )


def _few(e, sources, channels):
    """Overlaps of so few numbers that their sum is one expression."""

    def by_row(u, v, _):
        p = e.b.mul(v, number(LANES))
        return e.row_summed(sources.reals, u, sources.lane_reals, p, channels)

    return _Mask(None, by_row=by_row)


def _chained(e, sources, term, words):
    """Overlaps of masks with one factor more than the mask before, which is still known."""
    b = e.b
    known = words if isinstance(words, int) else 0
    words = number(known) if known else words

    def place(cell):
        return b.mul(b.add(b.mul(term["chain"], number(TOGETHER)), cell), term["width"])

    def advanced(u, v, at, w):
        """Word ``w`` of the new mask, of the rows and of the lanes, which is kept."""
        new = []
        for kept, array, first, wide in (
            (sources.chain_bits, sources.bits, b.add(u, w), e.beside),
            (sources.chain_lanes, sources.lane_bits, b.add(v, w), LANES),
        ):
            kind, to = ir.VectorType(I32, wide), b.mul(b.add(at, w), number(wide))
            old = b.select(
                b.icmp_signed("!=", term["start"], number(0)),
                ir.Constant(kind, [-1] * wide),
                e.load(kept, to, kind),
            )
            new.append(b.and_(old, e.load(array, b.mul(first, number(wide)), kind)))
            e.store(new[-1], kept, to)
        return new

    def advance(u, v, cell):
        with cgutils.for_range(b, words) as loop:
            advanced(u, v, place(cell), loop.index)

    def overlaps(u, v, cell):
        at = place(cell)
        return e.counted(
            sources.chain_bits, at, sources.chain_lanes, b.mul(at, number(LANES)), words
        )

    def by_row(u, v, cell):
        at = place(cell)
        lanes = [advanced(u, v, at, number(i))[1] for i in range(known)]
        return e.row_counted(sources.chain_bits, at, lanes)

    return _Mask(overlaps, advance, by_row=by_row if known else None)


def _by_form(e, term, sources, run, chains):
    """``run(mask)`` once for the form of the term's mask (``None``: ones).

    So a loop that ``run`` emits is free of tests, and of an inner loop where the mask has one or
    two words.
    """
    b, width = e.b, term["width"]
    one, two, three = (b.icmp_signed("==", width, number(words)) for words in (1, 2, 3))
    of_bits = b.icmp_signed("==", term["form"], number(BITS))
    cases = [
        (b.and_(of_bits, one), _counted(e, sources, 1)),
        (b.and_(of_bits, two), _counted(e, sources, 2)),
        (of_bits, _counted(e, sources, width)),
        (b.icmp_signed("==", term["form"], number(REAL)), _summed(e, sources, width)),
    ]
    if chains:
        linked = b.icmp_signed(">=", term["chain"], number(0))
        kept = [_chained(e, sources, term, words) for words in (1, 2, width)]
        of_numbers = b.icmp_signed("==", term["form"], number(REAL))
        plain = _is_plain(b, term)
        # pictures have one channel or three
        few = [
            (b.and_(b.and_(of_numbers, plain), test), _few(e, sources, channels))
            for test, channels in ((one, 1), (three, 3))
        ]
        cases = [
            (b.and_(linked, one), kept[0]),
            (b.and_(linked, two), kept[1]),
            (linked, kept[2]),
            *few,
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
            overlaps and (lambda: overlaps(*places(e, term, sources, j))),
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


def places(e, term, sources, j, anywhere=False):
    """Where the masks of contribution ``j`` begin, of the row samples and of the column samples;
    ``anywhere``: at the first place where there is none.
    """
    u, v = (e.b.sext(e.item(sources.tables, e.b.add(term[column], j)), I64) for column in "uv")
    if anywhere:
        u, v = (e.b.select(e.b.icmp_signed("<", at, number(0)), number(0), at) for at in (u, v))
    return e.b.add(term["first"], e.b.mul(u, term["stride"])), e.b.add(
        term["first"], e.b.mul(v, term["stride"])
    )


def _is_alone(b, term):
    """Whether the cells of a term have one contribution each, without a weight."""
    alone = b.icmp_signed("==", term["k"], number(1))
    return b.and_(alone, b.icmp_signed("<", term["weight"], number(0)))


def _is_plain(b, term):
    """Whether a term has one copy as well."""
    return b.and_(b.icmp_signed("==", term["times"], number(1)), _is_alone(b, term))


def _is_shared(b, term):
    """Whether the copies of a term take one overlap."""
    return b.and_(b.icmp_signed(">", term["times"], number(1)), _is_alone(b, term))


def _fill(e, term, sources, scale, c, overlap):
    """Cell ``c``: V times ``overlap(row)``, added to what is there unless the term is fresh."""
    b, spread = e.b, e.splat(scale)
    o = b.mul(b.add(term["out"], c), number(e.wide))
    entry = b.sext(e.item(sources.tables, b.add(term["pair"], c)), I64)
    at = b.mul(b.add(term["source"], entry), number(e.wide))
    fresh = b.icmp_signed("!=", term["fresh"], number(0))

    def each(value_of):
        for r in range(e.rows):
            e.store(value_of(r), sources.slots, e.row(o, r))

    def value(r):
        return b.fmul(e.load(sources.slots, e.row(at, r), e.kind), spread)

    def added(r):
        return e.fused(value(r), overlap(r), e.load(sources.slots, e.row(o, r), e.kind))

    with b.if_else(b.icmp_signed(">=", entry, number(0)), likely=True) as (there, nowhere):
        with there, b.if_else(fresh) as (new, old):
            with new:
                each(lambda r: b.fmul(value(r), overlap(r)))
            with old:
                each(added)
        with nowhere, b.if_then(fresh):
            each(lambda _: e.zero(e.kind))


class _Cells:
    """Code for the cells ``begin`` to ``end`` of a term, in each of its copies.

    Args:
        e, sources, term: as elsewhere.
        scale: of the term.
        begin, end: of the cells.
    """

    def __init__(self, e, sources, term, scale, begin, end):
        self.e, self.b, self.sources, self.term = e, e.b, sources, term
        self.scale, self.begin, self.end = scale, begin, end

    def run(self, mask):
        """All of them; of one copy and one contribution a cell, row by row where that is known."""
        b = self.b
        if mask is None or mask.by_row is None:
            self._each(lambda c: self._any(mask, c))
        elif mask.overlaps is None:
            self._each(lambda c: self._once(mask, c))
        else:
            with b.if_else(_is_plain(b, self.term), likely=True) as (then, otherwise):
                with then:
                    self._each(lambda c: self._once(mask, c))
                with otherwise:
                    self._each(lambda c: self._any(mask, c))

    def _each(self, fill):
        with cgutils.for_range_slice(self.b, self.begin, self.end, number(1)) as (c, _):
            fill(c)

    def _any(self, mask, c):
        if mask and mask.advance:
            self._single(mask, c)
        elif mask and mask.once:
            with self.b.if_else(_is_shared(self.b, self.term)) as (then, otherwise):
                with then:
                    self._single(mask, c)
                with otherwise:
                    self._several(mask, c)
        else:
            self._several(mask, c)

    def _once(self, mask, c):
        """The only contribution of the only copy, row by row."""
        e, b = self.e, self.b
        u, v = places(e, self.term, self.sources, c, anywhere=not mask.advance)
        overlap = mask.by_row(u, v, b.sub(c, self.begin))
        _fill(e, self.term, self.sources, self.scale, c, overlap)

    def _single(self, mask, c):
        """One contribution, without a weight: its overlap is taken once for all copies."""
        e, cell = self.e, self.b.sub(c, self.begin)
        u, v = places(e, self.term, self.sources, c, anywhere=True)
        if mask.advance:
            mask.advance(u, v, cell)
        overlap = mask.overlaps(u, v, cell)

        def contribute(totals, one):
            _add(e, totals, one, self.sources, self.scale, c, lambda: overlap)

        self._onto(c, contribute)

    def _several(self, mask, c):
        """All contributions, for each copy anew."""
        first = self.b.mul(c, self.term["k"])
        span = first, self.b.add(first, self.term["k"])
        overlaps = mask and (lambda u, v: mask.overlaps(u, v, None))

        def contribute(totals, one):
            _accumulate(self.e, totals, one, self.sources, self.scale, span, overlaps)

        self._onto(c, contribute)

    def _onto(self, c, contribute):
        """Add to cell ``c`` of each copy what ``contribute(totals, copy of the term)`` gives."""
        e, b, slots = self.e, self.b, self.sources.slots
        with cgutils.for_range(b, self.term["times"]) as loop:
            one = _behind(e, self.term, loop.index)
            o = b.mul(b.add(one["out"], c), number(e.wide))
            totals = e.registers(e.kind)
            with b.if_then(b.icmp_signed("==", self.term["fresh"], number(0))):
                for r, total in enumerate(totals):
                    b.store(e.load(slots, e.row(o, r), e.kind), total)
            contribute(totals, one)
            for r, total in enumerate(totals):
                e.store(b.load(total), slots, e.row(o, r))


@intrinsic
def collapse(tc, rows, terms, scales, t, begin, end, sources):
    """Cells ``begin`` to ``end`` of the term in row ``t``: the sum of its contributions, added to
    what is there unless it is fresh.
    """
    sig = types.void(rows, terms, scales, *[types.intp] * 3, sources)

    def codegen(ctx, b, sig, args):
        e = Vectors(ctx, b, sig, args, sig.args[0], sig.args[-1][-1])
        _, terms_, scales_, t_, begin_, end_, arrays = e.args
        sources_, term, scale = Sources(*arrays), term_at(e, terms_, t_), e.item(scales_, t_)
        cells = _Cells(e, sources_, term, scale, begin_, end_)
        _by_form(e, term, sources_, cells.run, chains=True)
        return ctx.get_dummy_value()

    return sig, codegen


@intrinsic
def reduce(tc, rows, terms, scales, t, begin, end, sources, sums, to):
    """sums[to:] += contributions ``begin`` to ``end`` of the term in row ``t``, in float64."""
    sig = types.void(rows, terms, scales, *[types.intp] * 3, sources, sums, types.intp)

    def codegen(ctx, b, sig, args):
        e = Vectors(ctx, b, sig, args, sig.args[0], sig.args[6][-1])
        _, terms_, scales_, t_, begin_, end_, arrays, sums_, to_ = e.args
        sources_, term, scale = Sources(*arrays), term_at(e, terms_, t_), e.item(scales_, t_)

        def run(mask):
            totals = e.registers(e.kind)
            overlaps = mask and (lambda u, v: mask.overlaps(u, v, None))
            _accumulate(e, totals, term, sources_, scale, (begin_, end_), overlaps)
            e.add_to_doubles(totals, sums_, to_)

        _by_form(e, term, sources_, run, chains=False)
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
