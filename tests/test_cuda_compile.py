"""Every kernel compiles for every device that it is for, without warnings, and takes no more than
its budget.
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from emu.nvrtc import compilers, resources

from npk.backends.cuda.registry import BLOCK_LIMIT, KERNELS_FOLDER, stage_kernel
from npk.backends.cuda.registry import KERNELS as FIXED

ARCHITECTURES = (70, 75, 80, 90, 100, 120)
SHARED_LIMIT = 48 * 1024  # bytes of a block without asking for more
THREE, FIVE, ONE = (3, -1, 3, -1), (5, -2, 5, -2), (1, 0, 1, 0)
STAGES = {  # shape, circular, chunks, windows, fields, slots, biases
    "32 x 32 circular": ((32, 32), True, 1, [THREE], (False, False)),
    "32 x 32 zeros, between others": ((32, 32), False, 3, [THREE, ONE], (True, True)),
    "28 x 28 circular": ((28, 28), True, 1, [THREE], (False, True)),
    "24 x 24 wide": ((24, 24), False, 1, [FIVE, THREE], (False, False)),
    "16 x 32, many warps": ((16, 32), False, 2, [THREE], (True, False)),
    "16 x 16": ((16, 16), True, 1, [THREE, ONE], (True, False)),
    "8 x 8": ((8, 8), False, 2, [FIVE, THREE, ONE], (False, False)),
    "1 x 1": ((1, 1), False, 4, [ONE], (True, False)),
    "32 x 32 residual": ((32, 32), False, 1, [THREE, ONE], (False, True), True),
    "32 x 32 residual, circular": ((32, 32), True, 1, [THREE, ONE], (True, True), True),
    "28 x 28 residual": ((28, 28), False, 1, [THREE, ONE], (False, False), True),
    "16 x 16 residual": ((16, 16), False, 1, [THREE, ONE], (True, True), True),
    "8 x 8 residual": ((8, 8), False, 1, [THREE, ONE], (True, False), True),
    "7 x 7 residual, many channels": ((7, 7), False, 4, [THREE, ONE], (True, False), True),
}
STAGES |= {
    f"{name}, biases": (*given, *(False,) * (6 - len(given)), True)
    for name, given in STAGES.items()
}
MADE = {name: stage_kernel(*given[:4], "float32", 90, *given[4:]) for name, given in STAGES.items()}
KERNELS = FIXED | {("stage", name): made.spec for name, made in MADE.items() if made}
COMPILED = [
    (key, major, arch)
    for key, spec in KERNELS.items()
    for major, compiler in compilers().items()
    for arch in ARCHITECTURES
    if arch in compiler.architectures and spec.serves(arch)
]


def test_both_compilers_are_here():
    assert sorted(compilers()) == [12, 13], (
        "NVRTC of CUDA 12.9 and of CUDA 13 are part of npk's tools: pip install -e '.[dev]'"
    )


def test_all_architectures_are_compiled():
    assert {arch for _, _, arch in COMPILED} == set(ARCHITECTURES)
    assert {key for key, _, _ in COMPILED} == set(KERNELS)
    assert None not in MADE.values()


@pytest.mark.parametrize(
    ("key", "major", "arch"),
    COMPILED,
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
def test_kernel_keeps_its_budget(key, major, arch):
    spec = KERNELS[key]
    image, log = compilers()[major].cubin(spec.source, arch, spec.options)
    assert image[:4] == b"\x7fELF"
    assert not [
        line for line in log.splitlines() if "warning" in line and "Architectures prior" not in line
    ], log
    taken = resources(log)[spec.entry]
    assert taken["spills"] <= spec.spills, taken
    assert taken["stack"] == 0, "an array that is indexed by a variable lies in local memory"
    assert taken["registers"] <= spec.registers, taken
    assert taken["shared"] <= spec.shared <= SHARED_LIMIT, taken


@pytest.mark.parametrize("key", KERNELS)
def test_budgets_are_the_declared_ones(key):
    """The budget is what the compiler is asked to keep: so many blocks fit a multiprocessor."""
    spec = KERNELS[key]
    blocks = int(dict(spec.defines)["NPK_BLOCKS"])
    assert blocks * spec.threads * spec.registers <= BLOCK_LIMIT
    bound = re.search(r"__launch_bounds__\(([\w *]+), NPK_BLOCKS\)", spec.source)[1]
    sizes = {name.removeprefix("NPK_"): value for name, value in spec.defines}
    warps = int(sizes["H"]) // int(sizes["OWN"]) if "OWN" in sizes else 0
    assert (
        bound == str(spec.threads)
        or (f"#define {bound} {spec.threads}\n") in spec.source
        or 32 * warps == spec.threads
    )


@pytest.mark.parametrize("arch", [80, 90])
def test_tensor_cores_are_asked_for_bits(arch):
    spec = KERNELS["dense", "bmma", "float32"]
    ptx = compilers()[13].ptx(spec.source, arch, spec.options)
    assert (
        len(
            re.findall(r"mma\.sync\.aligned\.m16n8k256\.row\.col\.s32\.b1\.b1\.s32\.and\.popc", ptx)
        )
        == 8
    )


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize(
    ("key", "instruction", "count"),
    [
        (("dense", "bmma", "float32"), "BMMA.168256.AND.POPC", 8),
        (("dense", "bmma", "float64"), "BMMA.168256.AND.POPC", 8),
        # rows of a warp, fragments of a row
        (("stage", "32 x 32 circular"), "BMMA.168128.AND.POPC", 4 * 8),
        (("stage", "16 x 16"), "BMMA.168128.AND.POPC", 4 * 2),
    ],
)
def test_machine_code_has_the_binary_instruction(key, instruction, count, arch, tmp_path):
    """One instruction of the tensor cores for each of the source: nothing is emulated."""
    found = [
        path for base in sys.path for path in Path(base or ".").glob("nvidia/cu1*/bin/nvdisasm")
    ]
    assert found, "the disassembler is part of npk's tools: pip install -e '.[dev]'"
    spec = KERNELS[key]
    (tmp_path / "kernel").write_bytes(compilers()[12].cubin(spec.source, arch, spec.options)[0])
    code = subprocess.run(
        [found[0], "-c", tmp_path / "kernel"], capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"\b[A-Z]*MMA[.\w]*", code) == [instruction] * count


def test_sources_have_no_headers_and_one_place_for_ptx():
    for path in KERNELS_FOLDER.iterdir():
        text = path.read_text()
        assert "#include <" not in text
        assert ("asm" in re.findall(r"\w+", text)) == (path.name == "mma.cuh")
    for spec in KERNELS.values():
        assert "#include" not in spec.source


def test_compiler_says_what_is_wrong():
    with pytest.raises(RuntimeError, match="expected a"):
        compilers()[12].ptx('extern "C" __global__ void f() { 1 }', 80)


def test_log_of_the_compiler_is_understood():
    """A kernel whose needs are known: spills and shared memory are seen."""
    source = """extern "C" __global__ void __launch_bounds__(1024, 2) f(const double* x, double* y, int n)
    { __shared__ double s[100]; double a[40];
    for (int i = 0; i < 40; ++i) a[i] = x[i * n]; s[threadIdx.x % 100] = a[0]; __syncthreads();
    for (int k = 0; k < n; ++k) for (int i = 0; i < 40; ++i) a[i] = a[i] * a[(i + 7) % 40] + s[k];
    for (int i = 0; i < 40; ++i) y[i * n] = a[i]; }"""
    taken = resources(compilers()[12].cubin(source, 80)[1])["f"]
    assert taken["shared"] == 800
    assert taken["registers"] <= 32
    assert taken["spills"] + taken["stack"] > np.dtype("float64").itemsize
