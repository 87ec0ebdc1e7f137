"""The kernels of dense layers on both emulators, against the definition; exactly, where all numbers are integers."""

import numpy as np
import pytest
from emu.fibers import compiler_is_missing
from emu.launcher import EmulatedLauncher

from npk.backends.cuda.registry import KERNELS
from npk.backends.cuda.runners import TILE
from npk.backends.layout import BITS, REAL

needs_compiler = pytest.mark.skipif(compiler_is_missing(), reason="the emulator by C++ needs g++, and there is none here")
WAYS = ("popc", "bmma")


class Case:
    """Samples with masks of bits and of numbers, all integers; ``factors``: (form, channels) in order."""

    def __init__(self, n, m, factors, dtype="float32", seed=0):
        rng = np.random.default_rng(seed)
        self.shape, self.dtype, self.masks, self.rows, ends = (n, m), dtype, [], [], {BITS: 0, REAL: 0}
        for form, channels in factors:
            sides = [rng.integers(0, 2, (k, channels)) if form == BITS else rng.integers(-3, 4, (k, channels)) for k in (n, m)]
            width = -(-channels // 32) if form == BITS else channels
            self.masks.append((form, sides))
            self.rows.append((form, ends[form], width))
            ends[form] += width
        self.words, self.numbers = ends[BITS], ends[REAL]
        self.scales = np.ldexp(1.0, -np.arange(len(factors)) % 5).astype(dtype)

    def side(self, which):
        """Words and numbers of one side."""
        bits = [np.zeros((self.shape[which], 0), np.uint32), *(_packed(s[which]) for form, s in self.masks if form == BITS)]
        reals = [np.zeros((self.shape[which], 0)), *(s[which] for form, s in self.masks if form == REAL)]
        return np.concatenate(bits, 1), np.concatenate(reals, 1).astype(self.dtype)

    def expected(self):
        """The product of scaled overlaps, by matrix products of integers."""
        K = np.ones(self.shape)
        for (_, (left, right)), scale in zip(self.masks, self.scales, strict=True):
            K = K * ((left @ right.T) * float(scale))
        return K

    def run(self, way, launcher, left=None):
        """The kernel's result; what it did not write is not a number."""
        (n, m), spec = self.shape, KERNELS["dense", way, self.dtype]
        out = np.full(self.shape, np.nan, self.dtype)
        (row_bits, row_reals), (col_bits, col_reals) = self.side(0), self.side(1)
        arrays = (row_bits, col_bits, row_reals, col_reals, np.array(self.rows, np.int32).reshape(-1, 3), self.scales, out)
        sizes = [np.int32(size) for size in (n, m, self.words, self.numbers, len(self.rows))]
        launcher.launch(spec, -(-n // TILE) * -(-m // TILE), (*arrays, *sizes, np.int64(n if left is None else left)))
        return out


def _packed(bits):
    padded = np.zeros((len(bits), -(-bits.shape[1] // 32) * 32), np.uint8)
    padded[:, : bits.shape[1]] = bits
    return np.packbits(padded, axis=1, bitorder="little").view("<u4").astype(np.uint32)


FACTORS = {
    "input and two layers": [(REAL, 5), (BITS, 70), (BITS, 300)],
    "numbers alone": [(REAL, 8), (REAL, 17)],
    "bits alone": [(BITS, 256), (BITS, 33), (BITS, 1)],
    "no channels": [(BITS, 0), (REAL, 3)],
    "nothing": [],
}
SHAPES = [(1, 1), (TILE - 1, TILE + 1), (TILE, TILE), (TILE + 1, 3), (5, 2 * TILE + 2)]
CASES = [(shape, "input and two layers") for shape in SHAPES] + [((TILE + 2, 7), name) for name in FACTORS]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("shape", "factors"), CASES)
def test_ptx_gives_the_definition(shape, factors, way, dtype):
    case = Case(*shape, FACTORS[factors], dtype)
    np.testing.assert_array_equal(case.run(way, EmulatedLauncher("ptx")), case.expected())


@needs_compiler
@pytest.mark.parametrize("mode", ["fast", "check"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("shape", "factors"), CASES)
def test_fibers_give_the_definition(shape, factors, way, dtype, mode):
    case = Case(*shape, FACTORS[factors], dtype)
    np.testing.assert_array_equal(case.run(way, EmulatedLauncher(mode)), case.expected())
