"""The kernels of dense layers on both emulators, against the definition; exactly, where all numbers
are integers.
"""

import numpy as np
import pytest
from emu.fibers import compiler_is_missing
from emu.launcher import EmulatedLauncher, fiber_kernel, ptx_kernel
from emu.nvrtc import compilers

from npk.backends.cuda.launcher import find_launcher
from npk.backends.cuda.registry import KERNELS
from npk.backends.cuda.runners import TILE
from npk.backends.layout import BITS, REAL

needs_compiler = pytest.mark.skipif(
    compiler_is_missing(), reason="the emulator by C++ needs g++, and there is none here"
)
WAYS = ("popc", "bmma")


class Case:
    """Samples with masks of bits and of numbers, all integers; ``factors``: (form, channels) in
    order; ``biased``: with a bias behind each.
    """

    def __init__(self, n, m, factors, dtype="float32", seed=0, biased=False):
        rng = np.random.default_rng(seed)
        self.shape, self.dtype, self.masks, self.rows, ends = (
            (n, m),
            dtype,
            [],
            [],
            {BITS: 0, REAL: 0},
        )
        for form, channels in factors:
            sides = [
                rng.integers(0, 2, (k, channels))
                if form == BITS
                else rng.integers(-3, 4, (k, channels))
                for k in (n, m)
            ]
            width = -(-channels // 32) if form == BITS else channels
            self.masks.append((form, sides))
            self.rows.append((form, ends[form], width))
            ends[form] += width
        self.words, self.numbers = ends[BITS], ends[REAL]
        self.scales = np.ldexp(1.0, -np.arange(len(factors)) % 5).astype(dtype)
        self.biases = np.arange(3, 3 + len(factors) * biased).astype(dtype)

    def side(self, which):
        """Words and numbers of one side."""
        bits = [
            np.zeros((self.shape[which], 0), np.uint32),
            *(_packed(s[which]) for form, s in self.masks if form == BITS),
        ]
        reals = [
            np.zeros((self.shape[which], 0)),
            *(s[which] for form, s in self.masks if form == REAL),
        ]
        return np.concatenate(bits, 1), np.concatenate(reals, 1).astype(self.dtype)

    def expected(self):
        """The product of scaled overlaps with the biases, by matrix products of integers."""
        K = np.ones(self.shape)
        for number, ((_, (left, right)), scale) in enumerate(
            zip(self.masks, self.scales, strict=True)
        ):
            K = K * ((left @ right.T) * float(scale))
            K = K + float(self.biases[number]) if len(self.biases) else K
        return K

    def spec(self, way):
        """The kernel."""
        return KERNELS["dense", f"{way}, biases" if len(self.biases) else way, self.dtype]

    def run(self, way, launcher, left=None):
        """The kernel's result; what it did not write is not a number."""
        (n, m), spec = self.shape, self.spec(way)
        out = launcher.to_device(np.full(self.shape, np.nan, self.dtype))
        (row_bits, row_reals), (col_bits, col_reals) = self.side(0), self.side(1)
        factors = np.array(self.rows, np.int32).reshape(-1, 3)
        arrays = [
            launcher.to_device(a)
            for a in (row_bits, col_bits, row_reals, col_reals, factors, self.scales, self.biases)
        ]
        sizes = [np.int32(size) for size in (n, m, self.words, self.numbers, len(self.rows))]
        launcher.launch(
            spec,
            -(-n // TILE) * -(-m // TILE),
            (*arrays, out, *sizes, np.int64(n if left is None else left)),
        )
        return launcher.copy(out)()


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
CASES = [(shape, "input and two layers", False) for shape in SHAPES]
CASES += [((TILE + 2, 7), name, biased) for name in FACTORS for biased in (False, True)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("shape", "factors", "biased"), CASES)
def test_ptx_gives_the_definition(shape, factors, biased, way, dtype):
    case = Case(*shape, FACTORS[factors], dtype, biased=biased)
    np.testing.assert_array_equal(case.run(way, EmulatedLauncher("ptx")), case.expected())


DEVICES = [
    (way, major, arch)
    for way in WAYS
    for major, compiler in compilers().items()
    for arch in (70, 75, 80, 90, 100, 120)
    if arch in compiler.architectures and KERNELS["dense", way, "float32"].serves(arch)
]


@pytest.mark.parametrize(("way", "major", "arch"), DEVICES)
def test_ptx_of_every_device(way, major, arch):
    case = Case(TILE + 1, 5, FACTORS["input and two layers"], biased=major == 13)
    np.testing.assert_array_equal(
        case.run(way, EmulatedLauncher("ptx", arch, major=major)), case.expected()
    )


@needs_compiler
@pytest.mark.parametrize("mode", ["fast", "check"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("shape", "factors", "biased"), CASES)
def test_fibers_give_the_definition(shape, factors, biased, way, dtype, mode):
    case = Case(*shape, FACTORS[factors], dtype, biased=biased)
    np.testing.assert_array_equal(case.run(way, EmulatedLauncher(mode)), case.expected())


@pytest.mark.parametrize("way", WAYS)
def test_more_than_two_to_the_31_words(way, tmp_path):
    """Sample 16 begins behind what 32 bits can count; the file is sparse, and all but two of its
    words are 0.
    """
    words, spec = 2**27, KERNELS["dense", way, "float32"]
    bits = np.memmap(tmp_path / "bits", np.uint32, "w+", shape=(17, words))
    bits[16, -2:] = 7, 3
    out, none, one = (
        np.full((17, 17), np.nan, np.float32),
        np.zeros((17, 0), np.float32),
        np.ones(1, np.float32),
    )
    sizes = [np.int32(size) for size in (17, 17, words, 0, 1)]
    factors, biases = np.array([[BITS, words - 2, 2]], np.int32), np.zeros(0, np.float32)
    arrays = (bits, bits, none, none, factors, one, biases, out)
    ptx_kernel(spec.source, spec.entry, spec.options)(
        1, spec.threads, (*arrays, *sizes, np.int64(17)), (7,), tracked=False
    )
    assert out[16, 16] == 5
    assert out.sum() == 5


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("shape", "factors", "biased"),
    [*CASES, *(((1000, 3000), "input and two layers", biased) for biased in (False, True))],
)
def test_device_gives_the_definition(shape, factors, biased, way, dtype):
    launcher = find_launcher()
    case = Case(*shape, FACTORS[factors], dtype, biased=biased)
    if not case.spec(way).serves(launcher.capability):
        pytest.skip("the device has no binary tensor cores")
    np.testing.assert_array_equal(case.run(way, launcher), case.expected())


@needs_compiler
@pytest.mark.parametrize("order", ["reverse", "random"])
@pytest.mark.parametrize("way", WAYS)
def test_order_of_threads_does_not_matter(way, order):
    case = Case(TILE + 1, TILE + 5, FACTORS["input and two layers"])
    np.testing.assert_array_equal(
        case.run(way, EmulatedLauncher("check", order=order)), case.expected()
    )


@pytest.mark.parametrize("left", [-1000, -TILE, -TILE + 1, 0, 1, TILE, 1000])
@pytest.mark.parametrize("way", WAYS)
def test_blocks_that_meet_the_triangle(way, left):
    """Exactly those with an entry on the diagonal or right of it are computed."""
    case = Case(2 * TILE + 3, 3 * TILE - 2, [(BITS, 40)])
    made, (row, col) = case.run(way, EmulatedLauncher("ptx"), left), np.indices(case.shape)
    last_col, first_row = col // TILE * TILE + TILE - 1, row // TILE * TILE
    met = last_col + left >= first_row
    np.testing.assert_array_equal(made[met], case.expected()[met])
    assert np.isnan(made[~met]).all()


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("way", "stores"), [("popc", 1), ("bmma", 2)])
def test_ways_to_memory(way, stores, dtype):
    """No two threads of a warp ask for different words of one bank; whole sectors are read. A
    fragment's rows are written in two halves.
    """
    case = Case(TILE, TILE, [(REAL, 16), (BITS, 512)], dtype, biased=True)
    case.run(way, EmulatedLauncher("check", profile=True))
    spec = case.spec(way)
    counts = fiber_kernel(spec.source, spec.entry, spec.options).counts()
    assert {(count["kind"], count["write"]) for count in counts} == {
        (kind, write) for kind in ("shared", "global") for write in (False, True)
    }
    for count in counts:
        most = stores if (count["kind"], count["write"]) == ("global", True) else 1
        assert count["taken"] <= most * count["fewest"], count
