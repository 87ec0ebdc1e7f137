"""Window sums as Numba intrinsics, for all rows and lanes of a group of pairs: one by one, sliding
over runs of outputs, or multiplied by overlaps as they are made.
"""

# Intrinsics receive Numba types and LLVM builders, which have no useful annotations.

import contextlib
import functools
from typing import Any, NamedTuple

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from npk.backends.cpu.lanes import Sources, places, term_at
from npk.backends.cpu.vectors import I64, Vectors, number
from npk.backends.program.program import LANES


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


class _Window(NamedTuple):
    """Windows of ``k`` x 3 cells (a number where the code is made for it) over runs of outputs:
    table ``first``, of ``runs`` runs; entries count from the cell ``base``, -1 is the cell
    ``nothing``, of zeros.
    """

    slots: Any
    tables: Any
    first: Any
    runs: Any
    base: Any
    k: Any
    nothing: Any


def _cells_of(e, window, entry):
    """Where the ``k`` cells of a column begin whose entries begin at ``entry``."""
    b = e.b

    def place(i):
        cell = b.sext(e.item(window.tables, b.add(entry, i)), I64)
        outside = b.icmp_signed("<", cell, number(0))
        cell = b.select(outside, window.nothing, b.add(window.base, cell))
        return b.mul(cell, number(e.wide))

    return place


def _sum_of(e, window, entry):
    """Function that gives the sum of a column for one row of samples."""
    b, place = e.b, _cells_of(e, window, entry)

    def loaded(at, r):
        return e.load(window.slots, e.row(at, r), e.kind)

    if isinstance(window.k, int):
        places = [place(number(i)) for i in range(window.k)]
        return lambda r: functools.reduce(b.fadd, [loaded(at, r) for at in places])
    at = place(number(0))
    totals = [cgutils.alloca_once_value(b, loaded(at, r)) for r in range(e.rows)]
    with cgutils.for_range_slice(b, number(1), window.k, number(1)) as (i, _):
        at = place(i)
        for r, total in enumerate(totals):
            e.add(total, loaded(at, r))
    return lambda r: b.load(totals[r])


def _slid(e, window, begin):
    """For each output: ``begin(its number)`` gives a function that is called with each row of
    samples and the window sum.

    The last two columns stay in registers, so that each is summed once; row after row, so that
    little else has to.
    """
    b = e.b
    high = number(window.k) if isinstance(window.k, int) else window.k
    at, done = (cgutils.alloca_once_value(b, value) for value in (window.first, number(0)))
    with cgutils.for_range(b, window.runs):
        outputs, entry = (
            b.sext(e.item(window.tables, b.load(at)), I64),
            b.add(b.load(at), number(1)),
        )
        columns = [_sum_of(e, window, b.add(entry, b.mul(high, number(i)))) for i in (0, 1)]
        before = [
            [cgutils.alloca_once_value(b, column(r)) for r in range(e.rows)] for column in columns
        ]
        with cgutils.for_range(b, outputs) as loop:
            x = b.add(loop.index, number(2))
            column = _sum_of(e, window, b.add(entry, b.mul(high, x)))
            finish = begin(b.add(b.load(done), loop.index))
            for r in range(e.rows):
                first, second, last = *(b.load(kept[r]) for kept in before), column(r)
                total = b.fadd(b.fadd(first, second), last)
                b.store(second, before[0][r])
                b.store(last, before[1][r])
                finish(r, total)
        b.store(b.add(entry, b.mul(high, b.add(outputs, number(2)))), at)
        b.store(b.add(b.load(done), outputs), done)


@intrinsic
def slide(tc, rows, slots, base, tables, t, k, runs, scale, bias, out, nothing):
    """Cells ``out + x`` for each output x of the runs in tables[t ...]: bias + scale * sum of the
    columns x, x + 1, x + 2, each of ``k`` cells base + entry; an entry of -1 is ``nothing``.
    """
    real, size = slots.dtype, types.intp
    sig = types.void(rows, slots, size, tables, size, size, size, real, real, size, size)

    def codegen(ctx, b, sig, args):
        e = Vectors(ctx, b, sig, args, sig.args[0], sig.args[1])
        _, slots_, base_, tables_, t_, k_, runs_, scale_, bias_, out_, nothing_ = e.args
        spread, shift = e.splat(scale_), e.splat(bias_)

        def begin(cell):
            o = b.mul(b.add(out_, cell), number(e.wide))
            return lambda r, total: e.store(e.fused(total, spread, shift), slots_, e.row(o, r))

        three = b.icmp_signed("==", k_, number(3))
        with b.if_else(three, likely=True) as (then, otherwise):
            for block, high in ((then, 3), (otherwise, k_)):
                with block:
                    window = _Window(slots_, tables_, t_, runs_, base_, high, nothing_)
                    _slid(e, window, begin)
        return ctx.get_dummy_value()

    return sig, codegen


@intrinsic
def sweep(tc, rows, terms, t, sources, base, first, runs, scale, bias, nothing):
    """Cells of the term in row ``t``, fresh: overlap * (bias + scale * window sum) for the outputs
    of the runs in tables[first ...], of windows of 3 x 3; a contribution a cell, masks in bits.
    """
    real, size = sources[-1].dtype, types.intp
    sig = types.void(rows, terms, size, sources, size, size, size, real, real, size)

    def codegen(ctx, b, sig, args):
        e = Vectors(ctx, b, sig, args, sig.args[0], sig.args[3][-1])
        _, terms_, t_, arrays, base_, first_, runs_, scale_, bias_, nothing_ = e.args
        sources_, term = Sources(*arrays), term_at(e, terms_, t_)
        spread, shift = e.splat(scale_), e.splat(bias_)
        window = _Window(sources_.slots, sources_.tables, first_, runs_, base_, 3, nothing_)

        def run(words):
            def begin(cell):
                overlap = _overlaps(e, sources_, *places(e, term, sources_, cell), words)
                o = b.mul(b.add(term["out"], cell), number(e.wide))

                def finish(r, total):
                    value = b.fmul(e.fused(total, spread, shift), overlap(r))
                    e.store(value, sources_.slots, e.row(o, r))

                return finish

            _slid(e, window, begin)

        _by_words(e, term, run)
        return ctx.get_dummy_value()

    return sig, codegen


@intrinsic
def drain(tc, rows, terms, t, sources, base, first, runs, scale, bias, nothing, flush, sums, to):
    """sums[to:] += what :func:`sweep` makes, in float64; added up ``flush`` cells at a time before."""
    real, size = sources[-1].dtype, types.intp
    numbers = size, size, size, real, real, size, size
    sig = types.void(rows, terms, size, sources, *numbers, sums, size)

    def codegen(ctx, b, sig, args):
        e = Vectors(ctx, b, sig, args, sig.args[0], sig.args[3][-1])
        _, terms_, t_, arrays, base_, first_, runs_, scale_, bias_, nothing_, *rest = e.args
        flush_, sums_, to_ = rest
        sources_, term = Sources(*arrays), term_at(e, terms_, t_)
        spread, shift = e.splat(scale_), e.splat(bias_)
        window = _Window(sources_.slots, sources_.tables, first_, runs_, base_, 3, nothing_)

        def run(words):
            totals = e.registers(e.kind)

            def begin(cell):
                full = b.icmp_signed("==", b.srem(cell, flush_), number(0))
                with b.if_then(full, likely=False):
                    e.add_to_doubles(totals, sums_, to_)
                overlap = _overlaps(e, sources_, *places(e, term, sources_, cell), words)

                def finish(r, total):
                    e.multiply_add(totals[r], e.fused(total, spread, shift), overlap(r))

                return finish

            _slid(e, window, begin)
            e.add_to_doubles(totals, sums_, to_)

        _by_words(e, term, run)
        return ctx.get_dummy_value()

    return sig, codegen


def _by_words(e, term, run):
    """``run(words)`` for the number of words of a term's mask, known where it is one or two."""
    with contextlib.ExitStack() as stack:
        for words in (1, 2):
            test = e.b.icmp_signed("==", term["width"], number(words))
            then, otherwise = stack.enter_context(e.b.if_else(test))
            with then:
                run(words)
            stack.enter_context(otherwise)
        run(term["width"])


def _overlaps(e, sources, u, v, words):
    """Function that gives the overlaps of one row of samples; ``words``: a number where the code is
    made for it.
    """
    p = e.b.mul(v, number(LANES))
    if isinstance(words, int):
        return e.row_counted(sources.bits, u, e.words(sources.lane_bits, p, words))
    return e.counted(sources.bits, u, sources.lane_bits, p, words).__getitem__
