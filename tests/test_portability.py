"""Other processors: vector code for each of them, the same numbers without AVX-512, and the
promises of bits with every BLAS kernel.
"""

import os
import platform
import re
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from llvmlite import binding, ir
from numba import types
from torch import nn

import npk
from npk.backends.cpu.vectors import COUNTS, I64, Vectors

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"


def overlaps_of_eight_rows(kind):
    """LLVM text of the engine's inner loops: counted bits times a sum of numbers, for eight rows
    and sixteen columns.
    """
    module = ir.Module()
    word, real = (
        ir.PointerType(ir.IntType(32)),
        ir.PointerType(ir.FloatType() if kind == types.float32 else ir.DoubleType()),
    )
    made = ir.Function(
        module, ir.FunctionType(ir.VoidType(), [word, word, real, real, real, I64, I64]), "overlaps"
    )
    *arrays, words, channels = made.args
    rows, lanes, numbers, lane_numbers, out = (SimpleNamespace(data=array) for array in arrays)
    b, zero = ir.IRBuilder(made.append_basic_block()), I64(0)
    e = Vectors(None, b, SimpleNamespace(args=()), (), (0,) * 8, SimpleNamespace(dtype=kind))
    pairs = zip(
        e.counted(rows, zero, lanes, zero, words),
        e.summed(numbers, zero, lane_numbers, zero, channels),
        strict=True,
    )
    for r, (count, total) in enumerate(pairs):
        e.store(b.fmul(count, total), out, e.row(zero, r))
    b.ret_void()
    assert str(COUNTS) in str(module)
    return str(module)


def assembly(kind, triple, cpu):
    """Optimized for a processor, whichever this one is: how often each instruction is there, with
    the form of its registers.
    """
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    module = binding.parse_assembly(overlaps_of_eight_rows(kind))
    module.triple, module.data_layout = triple, str(machine.target_data)
    builder = binding.create_pass_builder(
        machine, binding.create_pipeline_tuning_options(speed_level=3)
    )
    builder.getModulePassManager().run(module, builder)
    lines = re.findall(r"^\s+([a-z]\w*)\s+(.*)$", machine.emit_assembly(module), re.M)
    return Counter(
        f"{name} {form.group()}" if (form := re.search(r"[xyz]mm|\d+[bhsd]\b", rest)) else name
        for name, rest in lines
    )


@pytest.mark.parametrize("kind", [types.float32, types.float64])
@pytest.mark.parametrize(
    ("triple", "cpu", "counting", "adding"),
    [
        (X86, "icelake-server", "vpopcntd [yz]mm", "vfmadd.* [yz]mm"),
        (X86, "haswell", "vpshufb ymm", "vfmadd.* ymm"),
        (X86, "x86-64-v2", "pshufb xmm", "addp[sd] xmm"),
        (X86, "x86-64", "psadbw xmm|psrlw xmm", "addp[sd] xmm"),
        (ARM, "generic", "cnt 16b", "fmla (4s|2d)"),
    ],
)
def test_inner_loops_are_vectors_everywhere(kind, triple, cpu, counting, adding):
    found = assembly(kind, triple, cpu)
    assert any(re.fullmatch(counting, name) for name in found)
    assert any(re.fullmatch(adding, name) for name in found)
    assert not {
        "popcnt",
        "popcntl",
        "popcntq",
        "fmov",
        "addss xmm",
        "mulss xmm",
        "vfmadd231ss xmm",
    } & set(found)


ELSEWHERE = """
import sys
import numpy as np, npk
from npk.backends.program import program
from numba.core.registry import cpu_target

folder, rows, dtype = sys.argv[1:]
program._PLANE = program._PLANE if rows == "8" else 0
np.save(folder + "/kernel.npy", npk.kernel(npk.GateTable.load(folder + "/gates"), scale="count", bias="ignore", dtype=dtype))
print(cpu_target.target_context.codegen().magic_tuple()[1])
"""
CONVOLUTIONS = (layer for i in (2, 9) for layer in (nn.Conv2d(i, 9, 3, padding=1), nn.ReLU()))
NETWORKS = {
    "product": nn.Sequential(
        nn.Flatten(),
        nn.Linear(24, 70),
        nn.ReLU(),
        nn.Linear(70, 9),
        nn.LeakyReLU(0.5),
        nn.Linear(9, 2),
    ),
    "program": nn.Sequential(*CONVOLUTIONS, nn.MaxPool2d(2, 2), nn.Flatten(), nn.Linear(18, 2)),
}


def runs_here(cpu):
    """Whether this processor can run code for another one."""
    features = binding.get_host_cpu_features() if platform.machine() in ("x86_64", "AMD64") else {}
    return all(
        features.get(name, False)
        for name in {
            "haswell": ("avx2", "fma", "bmi2"),
            "x86-64-v2": ("sse4.2",),
            "x86-64": ("sse2",),
        }[cpu]
    )


def check_elsewhere(cpu, network, folder, rows="8", dtype="float32"):
    """Whole numbers come out whole in a process that compiles for another processor."""
    if not runs_here(cpu):
        pytest.skip(f"this processor cannot run code for {cpu}")
    samples = np.random.default_rng(0).integers(-3, 4, (19, 2, 3, 4)).astype(np.float32)
    table = npk.record_gates(NETWORKS[network].eval(), samples)
    table.save(folder / "gates")
    # features of its own, not of this one
    settings = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", ELSEWHERE, folder, rows, dtype]
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == cpu
    expected = npk.kernel(table, scale="count", dtype="float64", backend="reference", bias="ignore")
    assert 2**10 < expected.max() < 2**24
    np.testing.assert_array_equal(np.load(folder / "kernel.npy"), expected)


def test_products_without_avx512(tmp_path):
    check_elsewhere("haswell", "product", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", ["8", "4"])
@pytest.mark.parametrize("cpu", ["haswell", "x86-64-v2", "x86-64"])
def test_programs_without_avx512(cpu, rows, dtype, tmp_path):
    check_elsewhere(cpu, "program", tmp_path, rows, dtype)


ROUNDED = """
import sys
import numpy as np, threadpoolctl
from npk.backends import reference
from npk.gram import products, tiles

class Held:
    def __init__(self, values):
        self.plan = tiles.TilePlan(*values.shape, 40, True)
        self.read = lambda tile: values[tile.rows, tile.cols].copy()

rng = np.random.default_rng(0)
K, V = rng.standard_normal((67, 67)), rng.standard_normal((67, 3))
held = Held(K + K.T)
for width in (1, 3):
    expected = products.multiply(held, V[:, :width].copy())
    for other in (V[:, :width], np.asfortranarray(V[:, :width])):
        assert (products.multiply(held, other) == expected).all(), "a layout changes bits"
for channels in (1, 3, 17, 130):
    left, right = rng.standard_normal((33, 4, channels)), rng.standard_normal((20, 4, channels))
    whole = reference._overlaps(left, right)
    for i, j in ((0, 0), (32, 19), (7, 3)):
        assert (reference._overlaps(left[i : i + 1], right[j : j + 1])[0, 0] == whole[i, j]).all(), "a tile changes bits"
print({found["architecture"] for found in threadpoolctl.threadpool_info() if found["internal_api"] == "openblas"})
"""
CORES = {
    "Nehalem": ("sse4.2",),
    "Haswell": ("avx2", "fma"),
    "SkylakeX": ("avx512f", "avx512vl", "avx512bw", "avx512dq"),
}


@pytest.mark.parametrize("core", CORES)
def test_bits_that_are_promised_hold_with_every_kernel_of_openblas(core):
    """Products of a matrix on disk do not depend on how V lies in memory, those of the reference
    not on the tile.
    """
    features = binding.get_host_cpu_features() if platform.machine() in ("x86_64", "AMD64") else {}
    if not all(features.get(name, False) for name in CORES[core]):
        pytest.skip(f"this processor cannot run the kernels for {core}")
    settings = {"OPENBLAS_CORETYPE": core, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ROUNDED],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("set()", f"{{'{core}'}}")  # NumPy may have another BLAS
