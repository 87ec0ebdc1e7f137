"""Two emulators that share no line: one source, every instruction, the same numbers; and the maps
of fragments that are published.
"""

import numpy as np
import pytest
from emu import Violation
from emu.fibers import compiler_is_missing
from emu.launcher import fiber_kernel, ptx_kernel
from emu.nvrtc import compilers

from npk.backends.cuda.registry import KERNELS_FOLDER

needs_compiler = pytest.mark.skipif(
    compiler_is_missing(), reason="the emulator by C++ needs g++, and there is none here"
)
ENGINES = ["ptx", pytest.param("check", marks=needs_compiler)]


def made(engine, source, entry):
    return (
        ptx_kernel(source, entry) if engine == "ptx" else fiber_kernel(source, entry, mode=engine)
    )


# --- instructions ---

INTEGERS = """
__popc(a)  __popcll(A)  __clz(s)  __clzll(S)  __brev(a)  __umulhi(a, b)  __byte_perm(a, b, 0x6241 ^ (a & 0x0303))
__funnelshift_l(a, b, a & 31)  __funnelshift_r(a, b, b & 31)  a << (b & 31)  a >> (b & 31)  (unsigned)(s >> (b & 31))  a * b + 12345u
(unsigned)min(s, t)  max(a, b)  a < b ? a : ~b  (a & b) ^ (a | ~b)  b ? a / b : 1u  b ? a % b : 2u  t && t != -1 ? (unsigned)(s / t) : 3u
t && t != -1 ? (unsigned)(s % t) : 4u  (unsigned)(signed char)a  (unsigned char)b  (unsigned)(short)a  (a >> 5) & 0x3ff
(unsigned)(int)f  bits((float)s)  bits(f * 0.5f + 1.0f > 0.0f ? 1.0f : -1.0f)  (a >> 16) | (b << 16)
A * 0x9E3779B97F4A7C15ull  A >> (b & 63)  A << (a & 63)  (unsigned long long)(S >> (b & 63))  A / (b | 1u)  A % (b | 1u)
(unsigned long long)a * b  (unsigned long long)((long long)s * t)
"""
EXPRESSIONS = [
    expression.strip() for line in INTEGERS.strip().splitlines() for expression in line.split("  ")
]
SOURCE = (
    """
static __device__ unsigned bits(float v) { union { float f; unsigned u; } x; x.f = v; return x.u; }
extern "C" __global__ void ops(const unsigned* x, const unsigned* y, const float* z, unsigned long long* out, int n)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const unsigned a = x[i], b = y[i]; const int s = (int)a, t = (int)b; const float f = z[i];
    const unsigned long long A = ((unsigned long long)a << 32) | b; const long long S = (long long)A;
"""
    + "".join(
        f"    out[(long long){number} * n + i] = {text};\n"
        for number, text in enumerate(EXPRESSIONS)
    )
    + "}\n"
)
EDGES = np.array(
    [0, 1, 2, 31, 32, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0x80808080], np.uint32
)


@needs_compiler
@pytest.mark.parametrize("major", compilers())
@pytest.mark.parametrize("arch", [75, 90, 120])
def test_engines_agree_on_every_instruction(arch, major, rng):
    x = np.concatenate([np.repeat(EDGES, 10), rng.integers(0, 2**32, 400, dtype=np.uint32)])
    y = np.concatenate([np.tile(EDGES, 10), rng.integers(0, 2**32, 400, dtype=np.uint32)])
    z = (
        (rng.standard_normal(500) * 10.0 ** rng.integers(-3, 9, 500))
        .clip(-2e9, 2e9)
        .astype(np.float32)
    )
    results = []
    for kernel in (
        ptx_kernel(SOURCE, "ops", (), arch, major),
        fiber_kernel(SOURCE, "ops", mode="fast"),
    ):
        results.append(np.zeros((len(EXPRESSIONS), 500), np.uint64))
        kernel(2, 256, (x, y, z, results[-1], np.int32(500)), (3,))
    differ = [
        text for text, one, other in zip(EXPRESSIONS, *results, strict=True) if (one != other).any()
    ]
    assert not differ


# --- fragments of the tensor cores ---


def of_the_isa(words):
    """Places of each bit of A and B and of each value of D, from the PTX ISA: "Matrix Fragments for
    mma.m16n8k128" and "k256".
    """
    a = {
        (t, i): (t // 4 + i // 32 % 2 * 8, t % 4 * 32 + i % 32 + i // 64 * 128)
        for t in range(32)
        for i in range(16 * words)
    }
    b = {
        (t, i): (t // 4, t % 4 * 32 + i % 32 + i // 32 * 128)
        for t in range(32)
        for i in range(8 * words)
    }
    d = {(t, i): (t // 4 + i // 2 * 8, t % 4 * 2 + i % 2) for t in range(32) for i in range(4)}
    return a, b, d


def of_cute(words):
    """The same from CuTe: layouts of (thread, value), columns first, of
    MMA_Traits<SM80_16x8x128_S32U1U1S32_TN_ANDPOPC> and 16x8x256.
    """

    def layout(height, threads, sizes, steps):
        count = sizes[0] * sizes[1] * sizes[2]
        places = {}
        for t in range(32):
            for i in range(count):
                digits = (i % sizes[0], i // sizes[0] % sizes[1], i // (sizes[0] * sizes[1]))
                at = (
                    t % 4 * threads[0]
                    + t // 4 * threads[1]
                    + sum(d * s for d, s in zip(digits, steps, strict=True))
                )
                places[t, i] = (at % height, at // height)
        return places

    a = layout(16, (512, 1), (32, 2, words // 4), (16, 8, 2048))
    b = layout(8, (256, 1), (32, words // 4, 1), (8, 1024, 0))
    return a, b, layout(16, (32, 1), (2, 2, 1), (16, 8, 0))


def probe(words):
    """A kernel each of whose blocks sets one bit of A and one of B: registers in, registers out."""
    return (
        (KERNELS_FOLDER / "mma.cuh").read_text()
        + f"""
extern "C" __global__ void __launch_bounds__(32) probe(const int* a_bit, const int* b_bit, int* out)
{{
    const int p = blockIdx.x, lane = threadIdx.x;
    unsigned int a[{words // 2}] = {{}}, b[{words // 4}] = {{}};
    int d[4] = {{}};
    for (int r = 0; r < {words // 2}; ++r) if (a_bit[p] / 32 == lane * {words // 2} + r) a[r] = 1u << (a_bit[p] % 32);
    for (int r = 0; r < {words // 4}; ++r) if (b_bit[p] / 32 == lane * {words // 4} + r) b[r] = 1u << (b_bit[p] % 32);
    npk_mma_b1_and_m16n8k{32 * words}(d[0], d[1], d[2], d[3], a, {"b" if words == 8 else "b[0]"});
    for (int v = 0; v < 4; ++v) out[(p * 32 + lane) * 4 + v] = d[v];
}}
"""
    )


def probes(words, rng):
    """Bits of A and B, and what must come out: pairs that meet, and some that do not."""
    a, b, d = of_the_isa(words)
    b_at, d_at = {place: key for key, place in b.items()}, {place: key for key, place in d.items()}
    chosen = [(key, place) for key, place in a.items() if key[1] % 8 == 0]
    bits, expected = np.zeros((2, len(chosen)), np.int32), np.zeros((len(chosen), 32, 4), np.int32)
    for p, ((lane, i), (row, k)) in enumerate(chosen):
        col, meets = int(rng.integers(8)), p % 3 > 0
        other, j = b_at[
            col, k if meets else (k + 1 + int(rng.integers(32 * words - 1))) % (32 * words)
        ]
        bits[:, p] = lane * 16 * words + i, other * 8 * words + j
        if meets:
            expected[p][d_at[row, col]] = 1
    return *bits, expected


@pytest.mark.parametrize("words", [4, 8])
def test_two_published_maps_agree(words):
    assert of_the_isa(words) == of_cute(words)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("words", [4, 8])
def test_one_bit_at_a_time(words, engine, rng):
    a, b, expected = probes(words, rng)
    out = np.zeros_like(expected)
    made(engine, probe(words), "probe")(len(a), 32, (a, b, out), (2,))
    np.testing.assert_array_equal(out, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("words", [4, 8])
def test_one_bit_at_a_time_on_a_device(words, rng):
    import cupy

    if not 80 <= int(cupy.cuda.Device().compute_capability) <= 90:
        pytest.skip("the device has no binary tensor cores")
    a, b, expected = probes(words, rng)
    out = cupy.zeros(expected.shape, np.int32)
    kernel = cupy.RawModule(code=probe(words), options=("-std=c++17",)).get_function("probe")
    kernel((len(a),), (32,), (cupy.asarray(a), cupy.asarray(b), out))
    np.testing.assert_array_equal(out.get(), expected)


# --- warps ---

ROTATE = """
extern "C" __global__ void __launch_bounds__(64) rotate(const int* in, int* out)
{
    __shared__ int s[64];
    const int t = threadIdx.x, w = t / 32 * 32;
    int v = in[t];
    for (int k = 0; k < 3; ++k) {
        s[t] = v;
        __syncwarp();   // first
        v = s[w + (t + 1) % 32];
        __syncwarp();   // second
    }
    out[t] = v;
}
"""
SUM = """
extern "C" __global__ void sum(const int* in, int* out, int* total, int n)
{
    const int t = blockIdx.x * blockDim.x + threadIdx.x;
    int v = t < n ? in[t] : 0;
    for (int d = 16; d > 0; d >>= 1) v += __shfl_xor_sync(0xffffffffu, v, d);
    const unsigned some = __ballot_sync(0xffffffffu, v > 0);
    if (t % 32 == 0 && t < n) { out[t / 32] = v; if (some) atomicAdd(total, v); }
}
"""


COMPUTED = """
extern "C" __global__ void computed(const int* in, const int* lane, int* out)
{
    const int t = threadIdx.x;
    out[t] = __shfl_sync(0xffffffffu, in[t], lane[t]) + 1000 * __shfl_sync(0xffffffffu, in[t], lane[t] + 1, 8);
}
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_shuffles_with_computed_lanes(engine, rng):
    """Lanes count modulo the width, as the hardware does."""
    x, lane = rng.integers(0, 100, (2, 64)).astype(np.int32)
    out, t = np.zeros(64, np.int32), np.arange(64)
    made(engine, COMPUTED, "computed")(1, 64, (x, lane, out), (2,))
    np.testing.assert_array_equal(
        out, x[t // 32 * 32 + lane % 32] + 1000 * x[t // 8 * 8 + (lane + 1) % 8]
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cut", ["", "first", "second"])
def test_barriers_of_warps(engine, cut):
    x, out = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    kernel = made(
        engine, ROTATE.replace(f"__syncwarp();   // {cut}", "") if cut else ROTATE, "rotate"
    )
    if cut:
        with pytest.raises(Violation, match="RACE"):
            kernel(1, 64, (x, out), (1,))
    else:
        kernel(1, 64, (x, out), (1,))
        np.testing.assert_array_equal(out, (x + 3) % 32 + x // 32 * 32)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("text", "instead", "said"),
    [
        ("", "", None),
        ("atomicAdd(total, v)", "*total += v", "RACE"),
        ("__shfl_xor_sync(0xffffffffu", "__shfl_xor_sync(0x0000ffffu", "WARP"),
        ("for (int d", "if (t % 32 < 16) for (int d", "WARP|DEADLOCK"),
    ],
)
def test_collectives_of_warps(engine, text, instead, said, rng):
    x, out, total = (
        rng.integers(1, 9, 77).astype(np.int32),
        np.zeros(3, np.int32),
        np.zeros(1, np.int32),
    )
    kernel = made(engine, SUM.replace(text, instead), "sum")

    arguments = (2, 64, (x, out, total, np.int32(77)), (1, 2), (1,))
    if said:
        with pytest.raises(Violation, match=said):
            kernel(*arguments)
    else:
        kernel(*arguments)
        np.testing.assert_array_equal(out, [x[:32].sum(), x[32:64].sum(), x[64:].sum()])
        assert total[0] == x.sum()


def test_launch_is_looked_at():
    kernel = ptx_kernel(ROTATE, "rotate")
    x = np.zeros(128, np.int32)
    with pytest.raises(Violation, match="LAUNCH 128 threads, __launch_bounds__ allows 64"):
        kernel(1, 128, (x, x))
    with pytest.raises(Violation, match="LAUNCH 1 arguments for 2 parameters"):
        kernel(1, 64, (x,))
    with pytest.raises(Violation, match="LAUNCH argument 3 is int64, the kernel takes .u32"):
        ptx_kernel(SUM, "sum")(1, 64, (x, x, x, np.int64(5)))
