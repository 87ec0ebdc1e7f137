"""The emulators are themselves tested: kernels with a planted mistake must be found out, by both."""

import re

import numpy as np
import pytest
from emu import Violation
from emu.fibers import compiler_is_missing
from emu.launcher import EmulatedLauncher
from test_cuda_dense import TILE, Case

from npk.backends.cuda.registry import KERNELS
from npk.backends.layout import BITS, REAL

ENGINES = [
    "ptx",
    pytest.param(
        "check", marks=pytest.mark.skipif(compiler_is_missing(), reason="there is no g++")
    ),
]
WRONG = "wrong"  # nothing is broken; only the numbers tell
BEYOND = "BOUNDS|UNINIT|RACE|out of bounds|wrong"  # of shared memory, or into its other arrays
BARRIERS = (
    "the words are complete",
    "all have read the words",
    "the numbers are complete",
    "all have read the numbers",
)

# name: (text, what is put in its place, what is said: one of these words; None: nothing, as the
# kernel is as good)
EVERY_WAY = {
    "rows read beyond the last": ("i * step < samples", "i * step <= samples", "BOUNDS read"),
    "words read beyond the mask": ("w0 + place < width", "w0 + place <= width", "BOUNDS read"),
    "numbers read beyond the mask": ("k0 + place < width", "k0 + place <= width", "BOUNDS read"),
    "rows of the tile beyond its "
    "side": ("n - row < TILE ? (int)(n - row) : TILE", "TILE", "BOUNDS read"),
    "columns of the tile beyond its "
    "side": ("m - col < TILE ? (int)(m - col) : TILE", "TILE", "BOUNDS read"),
    "rows written beyond the last": ("if (r < n && c < m)", "if (r <= n && c < m)", "BOUNDS write"),
    "columns written beyond the "
    "last": ("if (r < n && c < m)", "if (r < n && c <= m)", "BOUNDS write|RACE"),
    **{
        f"no barrier where "
        f"{what}": (f"__syncthreads();   // {what}", "", "RACE|UNINIT") for what in BARRIERS
    },
    "a barrier for half of the block": (
        f"__syncthreads();   // "
        f"{BARRIERS[1]}", "if (threadIdx.x < 64) { __syncthreads(); }", "RACE|BARRIER"
    ),
    "threads without rows "
    "leave": ("if (left + col0 + TILE <= row0) "
              "return;", "if (row0 + threadIdx.x / 2 >= n) return;", "BARRIER"),
    "the block on the diagonal is "
    "skipped": ("left + col0 + TILE <= row0", "left + col0 <= row0", WRONG),
    "blocks collide": ("(blockIdx.x % across) * TILE", "(blockIdx.x % 1) * TILE", "RACE"),
    "an input is "
    "written": ("out[r * m + c] =", "((float*)scales)[0] = 1, out[r * m + c] =", "READONLY"),
    "samples left out": ("sample + i * STEP, place)] = b[i]", "sample, place)] = b[i]", "UNINIT"),
    "numbers beyond a stage": ("width - k0 < STAGE ? width - k0 : STAGE", "width - k0", BEYOND),
    "factors left out": ("f < count", "f < count - 1", WRONG),
    "words left out": ("w0 < width; w0 += STAGE", "w0 + STAGE <= width; w0 += STAGE", WRONG),
    "numbers left out": ("k0 < width; k0 += STAGE", "k0 + STAGE <= width; k0 += STAGE", WRONG),
    "the last number of a stage left out": ("k < depth", "k < depth - 1", WRONG),
    "scale left out": ("(NPK_REAL)sum[i][j] * scale", "(NPK_REAL)sum[i][j]", WRONG),
    "scale of numbers left out": ("*= sum[i][j] * scale", "*= sum[i][j]", WRONG),
    "bias of another factor": ("bias = biases[f]", "bias = biases[0]", WRONG),
    "biases beyond the last": ("bias = biases[f]", "bias = biases[f + 1]", "BOUNDS|wrong"),
    "bias left out": ("product[i][j] += bias", "product[i][j] += 0", WRONG),
}  # fmt: skip
POPC = {
    "rows of threads": (
        "(int)threadIdx.x / 16 + 16 * i",
        "(int)threadIdx.x / 16 + 15 * i",
        "RACE|wrong",
    ),
    "columns of threads": (
        "(int)threadIdx.x % 16 + 16 * j",
        "(int)threadIdx.x % 16 * 4 + 3 - j",
        None,
    ),
    "words of one sample over the next": ("TILE + 4;", "TILE - 1;", "RACE"),
    "beyond shared memory": ("cols[at(col(j), c)]", "cols[at(col(j) + 16, c)]", BEYOND),
    "rows of shared memory": ("rows[at(row(i), c)]", "rows[at(row(i), c + 1)]", BEYOND),
    "samples over each other": ("c * LINE + r;", "c * LINE + r / 2;", "RACE"),
    "words beyond a stage": ("rest < STAGE ? rest : STAGE", "rest", BEYOND),
    "the last word of a stage left out": ("c < depth", "c < depth - 1", WRONG),
}
BMMA = {
    "no zeros behind the last word": (
        "values[i] = inside && i * step < samples ? from[at + i * stride] : (T)0;",
        "values[i] = inside && i * step < samples ? from[at + i * stride] : (T)1;", WRONG,
    ),
    "fragment of A, "
    "rows": ("a[i][1] = rows[at(row(2 * i + 1), t)]", "a[i][1] = rows[at(row(2 * i), t)]", WRONG),
    "fragment of A, "
    "words": ("a[i][2] = rows[at(row(2 * i), t + "
              "4)]", "a[i][2] = rows[at(row(2 * i + 1), t)]", WRONG),
    "fragment of A, rows of the other "
    "half": ("a[i][3] = rows[at(row(2 * i + 1), t + "
             "4)]", "a[i][3] = rows[at(row(2 * i), t + 4)]", WRONG),
    "fragment of B, "
    "words": ("b[j][0] = cols[at(col0 + 8 * j, "
              "t)]", "b[j][0] = cols[at(col0 + 8 * j, 3 - t)]", WRONG),
    "samples over each "
    "other": ("r * STAGE + (c ^ (r & 4))", "r / 2 * STAGE + (c ^ (r & 4))", "RACE"),
    "fragment of "
    "B": ("b[j][1] = cols[at(col0 + 8 * j, t + 4)]", "b[j][1] = cols[at(col0 + 8 * j, t)]", WRONG),
    "columns of "
    "B": ("% 2 * 32 + (int)threadIdx.x % 32 / 4;\n", "% 2 * 32 + (int)threadIdx.x % 4;\n", WRONG),
    "fragment of "
    "D": ("sum[2 * i][2 * j + 1], sum[2 * i + 1][2 * "
          "j],", "sum[2 * i + 1][2 * j], sum[2 * i][2 * j + 1],", WRONG),
    "rows of "
    "D": ("8 * i + (int)threadIdx.x % 32 / 4", "8 * i + (int)threadIdx.x % 8", "RACE|wrong"),
    "columns of "
    "D": ("(int)threadIdx.x % 4 * 2 + j % 2;", "(int)threadIdx.x % 4 + j % 2 * 4;", WRONG),
    "swapped halves when stored "
    "alone": ("a[i][0] = rows[at(row(2 * i), t)]", "a[i][0] = rows[row(2 * i) * STAGE + t]", WRONG),
}  # fmt: skip
MUTANTS = {
    **{(name, "popc"): mutant for name, mutant in (EVERY_WAY | POPC).items()},
    **{(name, "bmma"): mutant for name, mutant in (EVERY_WAY | BMMA).items()},
}
CHOSEN = [
    pytest.param(*key, marks=pytest.mark.slow if key[1] == "bmma" and key[0] in EVERY_WAY else ())
    for key in MUTANTS
]


def parts(source, pattern):
    """Where a source has what a pattern looks for, comments aside: (first, last, text)."""
    plain = re.sub(r"//.*", lambda comment: " " * len(comment[0]), source)
    return [(found.start(), found.end(), found[0]) for found in re.finditer(pattern, plain)]


def uncovered(source, pattern, texts):
    """The places of a source that a pattern looks for and no mutant's text touches."""
    spans = [
        (source.index(text), source.index(text) + len(text)) for text in texts if text in source
    ]
    return [
        text
        for first, last, text in parts(source, pattern)
        if not any(a < last and first < b for a, b in spans)
    ]


BARRIER = r"__sync(threads|warp)\(\)"
BOUND = (
    r"(if|while) \([^;{\n]*[<>][^;{\n]*|[^=\n(,]*<[^;\n]*?\?|bool inside =[^;]*|for \([^;]*; "
    r"[^;\n]*< ?=?[^;A-Z]*[a-z][^;]*;"
)
MAP = (
    r"(return|[ab]\[i\]|[ab]\[j\]|[ab]\[[ij]\]\[\d\]|col0) =? "
    r"?[^;\n]*(at\(|threadIdx|STAGE|LINE)[^;\n]*;|npk_mma\w+\(sum[^;]*;"
)


@pytest.mark.parametrize(
    ("way", "barriers", "bounds", "maps"), [("popc", 4, 14, 5), ("bmma", 4, 12, 11)]
)
def test_every_barrier_bound_and_map_has_a_mutant(way, barriers, bounds, maps):
    """So many there are; one more needs its mutant."""
    source, texts = (
        KERNELS["dense", way, "float32"].source,
        [MUTANTS[key][0] for key in MUTANTS if key[1] == way],
    )
    for pattern, count in ((BARRIER, barriers), (BOUND, bounds), (MAP, maps)):
        assert uncovered(source, pattern, texts) == []
        assert len(parts(source, pattern)) == count, [text for *_, text in parts(source, pattern)]


@pytest.mark.parametrize("pattern", [BARRIER, BOUND, MAP])
def test_what_has_no_mutant_is_told(pattern):
    source = KERNELS["dense", "bmma", "float32"].source
    assert len(uncovered(source, pattern, [])) == len(parts(source, pattern)) > 3


def case():
    """Ragged, with masks behind and before others."""
    return Case(TILE + 6, TILE + 36, [(BITS, 300), (REAL, 11), (BITS, 40)], biased=True)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("name", "way"), CHOSEN)
def test_mutant_is_found(name, way, engine):
    text, instead, said = MUTANTS[name, way]

    def edit(source):
        assert source.count(text) == 1, f"there is no such text, or more than one: {text}"
        return source.replace(text, instead)

    samples = case()
    try:
        made = samples.run(way, EmulatedLauncher(engine, edit=edit), left=0)
    except Violation as found:
        message = str(found)
    else:
        row, col = np.indices(samples.shape) // TILE
        message = "" if (made == samples.expected())[col >= row].all() else WRONG
    assert message == "" if said is None else any(word in message for word in said.split("|")), (
        message
    )
