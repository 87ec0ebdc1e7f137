"""Mistakes planted into the kernels of stages and passages, each found by both emulators."""

import re

import numpy as np
import pytest
from emu import Violation
from emu.fibers import compiler_is_missing
from emu.launcher import EmulatedLauncher
from test_cuda_residual import recorded as recorded_stream
from test_cuda_stage import made, recorded

from npk.backends.cuda.registry import KERNELS_FOLDER
from npk.backends.reference import ReferenceBackend
from npk.recursion.planning import plan

ENGINES = [
    "ptx",
    pytest.param(
        "check", marks=pytest.mark.skipif(compiler_is_missing(), reason="there is no g++")
    ),
]
WRONG = "wrong"  # nothing is broken; only the numbers tell
ZEROS, POOL = (
    ((3, 13), {"padding": "zeros"}),
    ((8, 4), {"padding": "zeros", "stride": 2, "end": "head"}),
)
WARPS, EDGE = ((14, 12), {"layers": 3}), ((4, 6), {"layers": 3})
# seven fours of cells; one warp has them all, unless it owns fewer rows
ODD = ((4, 28), {"layers": 3})
WIDE = ((2, 4), {"width": 130})
STEPS = ((5, 5), {"padding": "zeros", "stride": 2, "end": "flatten", "layers": 3})
GATED, STRIDED, UNGATED, FORKED = (
    ((4, 4), {"kind": kind}) for kind in ("gated", "strided", "ungated", "forked")
)
SHORTENED = ((8, 4), {"kind": "shortened"})
BIASED, FLAT, ADDED = (
    (*EDGE, "paths"),
    (*STEPS, "paths"),
    ((4, 4), {"kind": "gated", "biased": True}, "paths"),
)

# name: (text, what is put in its place, what is said: one of these words, network)
MUTANTS = {
    "no barrier where the rows are "
    "complete": ("__syncthreads();   // the rows are complete", "", "RACE|UNINIT", WARPS),
    "no barrier where all have "
    "read": ("if (QUADS % 2) "
             "__syncthreads();", "", "RACE", ((20, 8), {"padding": "zeros", "layers": 4})),
    "no barrier where the sums are "
    "complete": ("__syncthreads();   // the sums are complete", "", "RACE|UNINIT", WARPS),
    "rows of A beyond the "
    "grid": ("r < NPK_RUNS && NPK_RUNS * p.g + r < NPK_W ? "
             "rows", "r < NPK_RUNS ? rows", "BOUNDS|wrong", ZEROS),
    "columns of B beyond the "
    "grid": ("&& NPK_SPANS * column + 2 * c + odd < NPK_W ? cols", "? cols", "BOUNDS|wrong", ZEROS),
    "rows of B beyond the "
    "last": ("p.y0 + p.d + j < NPK_H ? at.cols : "
             "at.wrapped", "true ? at.cols : at.wrapped", "BOUNDS|wrong", EDGE),
    "runs of A": ("f.a[r / 2][r % 2] =", "f.a[r / 2][1 - r % 2] =", "UNINIT|wrong", ODD),
    "rows of "
    "A": ("(p.y0 * NPK_W + NPK_RUNS * p.g) * "
          "WORDS", "(p.y0 * NPK_W + NPK_RUNS * p.q) * WORDS", "BOUNDS|wrong", EDGE),
    "words of A and B": ("word = p.lane % 4;", "word = 3 - p.lane / 8;", WRONG, WIDE),
    "columns of "
    "B": ("NPK_SPANS * (p.lane / 8) + p.lane / 4 % 2)", "NPK_SPANS * (p.lane / 8))", WRONG, ODD),
    "rows of D": ("[(r) % 2 * 2 + (c) % 2]", "[(c) % 2 * 2 + (r) % 2]", WRONG, ODD),
    "columns of D": ("[(c) / 2][(r)", "[TILES_B - 1 - (c) / 2][(r)", WRONG, ODD),
    "next chunk": ("npk_fetch(f, at, p, j, chunk);", "npk_fetch(f, at, p, j, 0);", WRONG, WIDE),
    "next row": ("npk_fetch(f, at, p, j + 1, 0);", "npk_fetch(f, at, p, j, 0);", WRONG, EDGE),
    "lanes beyond the "
    "edge": ("NPK_CIRCULAR || inside ? there : "
             "0.0f", "there", WRONG, ((4, 8), {"padding": "zeros"})),
    "groups around the edge": ("g >= GROUPS ? g - GROUPS : g;", "g;", "WARP|BOUNDS|wrong", EDGE),
    "rows above the picture": ("y >= 0 && y + 1 < NPK_H", "y + 1 < NPK_H", WRONG, ZEROS),
    "rows below the picture": ("y + 1 < NPK_H && other", "other", WRONG, ZEROS),
    "rows below the other picture": ("&& other + 1 < NPK_H) ?", ") ?", WRONG, ZEROS),
    "rows that other warps look "
    "at": ("j >= NPK_OWN + FIRST)", "j >= NPK_OWN)", "UNINIT|RACE|wrong", WARPS),
    "rows around the "
    "edge": ("y < NPK_H ? y : y - NPK_H", "y", "BOUNDS|UNINIT|RACE|wrong|out of bounds", EDGE),
    "rows above the "
    "edge": ("y < 0 ? y + NPK_H :", "", "BOUNDS|UNINIT|RACE|wrong|out of bounds", WARPS),
    "input beyond the grid": ("x + r < NPK_W ? rows", "true ? rows", "BOUNDS|wrong", ZEROS),
    "the other input beyond the "
    "grid": ("x2 + s < NPK_W ? cols", "true ? cols", "BOUNDS|wrong", ZEROS),
    "fields beyond the "
    "grid": ("r < NPK_RUNS && x + r < NPK_W && "
             "x2", "r < NPK_RUNS && x2", "BOUNDS|wrong|UNINIT", STEPS),
    "other fields beyond the "
    "grid": ("&& x2 + c < NPK_W ? at", "? at", "BOUNDS|wrong|UNINIT", STEPS),
    "written beyond the "
    "grid": ("if (x + i / NPK_SPANS < NPK_W && x2", "if (x2", "BOUNDS|RACE", STEPS),
    "written beyond the other "
    "grid": ("&& x2 + i % NPK_SPANS < NPK_W)", ")", "BOUNDS|RACE|wrong", STEPS),
    "no entry on the "
    "diagonal": ("    if (left + col < row) "
                 "return;", "    if (left + col <= row) return;", "UNINIT|wrong", EDGE),
    "sums beyond the last "
    "pair": ("for (int i = 0; i < count; "
             "++i)", "for (int i = 0; i <= count; ++i)", "BOUNDS|UNINIT|wrong", EDGE),
    "pairs beyond the last are "
    "summed": ("    if (place >= pairs || left + col < row) return;\n    "
               "double", "    double", "BOUNDS", EDGE),
    "cells beyond the last are gathered": (
        "    if (place >= pairs || left + col < row) return;\n    const int "
        "s", "    const int s", "BOUNDS", STEPS),
    "planes that nobody looks at": ("if (!wanted[", "if (wanted[", "UNINIT|wrong", POOL),
    "offsets beyond the grid": ("if (a < 0) continue;", "", "BOUNDS|wrong|UNINIT", STEPS),
    "slots of the "
    "block": ("((long long)blockIdx.x * slots.held + "
              "slot)", "((long long)slot)", "RACE|wrong", GATED),
    "slots of the thread": (" + threadIdx.x;", ";", "RACE|wrong", GATED),
    "the slot that is "
    "read": ("npk_load(cells, npk_slot(slots, "
             "load))", "npk_load(cells, npk_slot(slots, 0))", WRONG, FORKED),
    "nothing is read": ("if (load != NONE) npk_load", "if (false) npk_load", WRONG, FORKED),
    "nothing is kept": ("if (keep != NONE) npk_wait", "if (false) npk_wait", "UNINIT|wrong", GATED),
    "nothing but the last "
    "term": ("(i + e) % NPK_SPANS), cells[i + e]);", "(i + e) % NPK_SPANS), 0.0f);", WRONG, GATED),
    "the slot that is added": ("npk_slot(slots, mask);", "npk_slot(slots, 0);", WRONG, GATED),
    "the row that is added": ("added + j * (QUADS * THREADS)", "added", WRONG, GATED),
    "rows without a mask": ("if (mask == UNMASKED) continue;", "", "BOUNDS|UNINIT|wrong", UNGATED),
    "rows that are not added": ("mask == MULTIPLIED ? nullptr :", "", "BOUNDS|UNINIT|wrong", GATED),
    "scales of masks": ("scales[masks + 1]", "scales[layer + 1]", "BOUNDS|UNINIT|wrong", UNGATED),
    "lanes that are "
    "remembered": ("p.lane = __shfl_sync(ALL, p.lane, "
                   "p.lane)", "p.lane = __shfl_sync(ALL, p.lane, 0)", "RACE|wrong", GATED),
    "tiles of A one by one": ("f.a[first + a]", "f.a[a]", WRONG, ((2, 20), {"kind": "gated"})),
    "slots of "
    "outputs": ("windows[ROW * layers + output - 1]", "windows[ROW * layers]", WRONG, SHORTENED),
    "places of outputs": ("to + output * apart", "to", "RACE|UNINIT|wrong", SHORTENED),
    "outputs beyond the first": ("output < outputs;", "output < 1;", "UNINIT|wrong", SHORTENED),
    "fields that begin": ("from + field * apart", "from", WRONG, STRIDED),
    "fields that begin in "
    "slots": ("npk_slot(own, field - 1)", "npk_slot(own, 0 * field)", "UNINIT|wrong", STRIDED),
    "biases of masks": ("biases[2 * masks + 1] : 0.0f", "biases[1] : 0.0f", WRONG, BIASED),
    "factors before "
    "biases": ("biases[2 * masks] : 1.0f", "biases[2 * masks + 1] : 1.0f", WRONG, BIASED),
    "biases of the cells": ("by.of(cells[i])", "cells[i]", WRONG, BIASED),
    "biases of what is added": ("by.of(four[e])", "four[e]", WRONG, ADDED),
    "biases at the end of sums": ("(float)(total + added)", "(float)total", WRONG, BIASED),
    "biases at the end of gathers": ("total + added;", "total;", WRONG, FLAT),
    "other offsets beyond the "
    "grid": ("if (b >= 0) "
             "total", "total", "BOUNDS|wrong|UNINIT", ((4, 4), {"padding": "zeros", "stride": 2})),
}  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if i % 6 else n for i, n in enumerate(MUTANTS)]
)
def test_mutant_is_found(name, engine):
    text, instead, said, (shape, options, *given) = MUTANTS[name]
    bias = given[0] if given else "ignore"
    seen = []

    def edit(source):
        seen.append(source.count(text))
        return source.replace(text, instead)

    table = (recorded_stream if "kind" in options else recorded)(shape, n=2, **options)
    recursion = plan(table.graph, scale="count", bias=bias)
    reference = ReferenceBackend(recursion, table, "float64")
    try:
        _, tile, exponents = made(table, EmulatedLauncher(engine, edit=edit), bias=bias, diagonal=0)
    except Violation as found:
        message = str(found)
    else:
        expected = reference.tile(reference.side(table), reference.side(table), exponents)
        message = "" if np.allclose(np.triu(tile), np.triu(expected), rtol=1e-6, atol=0) else WRONG
    assert set(seen) <= {0, 1}
    assert 1 in seen, f"there is no such text: {text}"
    assert any(word in message for word in said.split("|")), message


def test_every_barrier_and_bounds_test_has_a_mutant():
    texts = [text for text, *_ in MUTANTS.values()]
    for name in ("stage.cu", "sums.cu", "gather.cu"):
        for line in (KERNELS_FOLDER / name).read_text().splitlines():
            guard = re.search(
                r"__sync\w+\(\)|[<>]=? (NPK_[HW]|pairs|GROUPS|row)\b.*(\?|return|at\[)|if \([ab] "
                r">?<?=? 0\)|if \(!?wanted",
                line.split("//")[0],
            )
            assert not guard or any(
                text.splitlines()[0].strip() in line or line.strip() in text for text in texts
            ), line
