"""What `make gpu` runs, as far as it goes without a GPU: launches on an emulator, peers on the CPU,
command lines, outputs, the page.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import conftest
import numpy as np
import pytest
import torch
from emu.fibers import compiler_is_missing
from emu.launcher import EmulatedLauncher
from test_cuda_backend import fake_cupy, raising

import npk
from npk.backends.cuda import launcher as devices
from npk.errors import BackendError

FOLDER = Path(__file__).parents[1] / "benchmarks"
SMALL = {
    "dense": {"n": 70, "width": 40, "depth": 2},
    "conv": {"n": 4, "side": 4, "channels": 9, "depth": 2},
    "ridge": {"n": 60},
}
needs_compiler = pytest.mark.skipif(
    compiler_is_missing(), reason="the emulator by C++ needs g++, and there is none here"
)


@pytest.fixture
def script(monkeypatch):
    """Scripts of benchmarks, imported as they are when they run: from their own folder."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


# --- the sanitizer ---

CLEAN = "sm_80: npk_program float\nall kernels of npk have run\n========= ERROR SUMMARY: 0 errors\n"
RACES = (
    "all kernels of npk have run\n========= RACECHECK SUMMARY: 2 hazards displayed (1 error, "
    "1 "
    "warning)\n"
)


@pytest.mark.parametrize(
    ("output", "code", "errors"),
    [
        (CLEAN, 0, 0),
        (CLEAN.replace("0 errors", "1 error"), 9, 1),
        (CLEAN.replace("0 errors", "123 errors"), 9, 123),
        (RACES, 9, 2),
        (
            RACES.replace(
                "2 hazards displayed (1 error, 1 warning)",
                "0 hazards displayed (0 errors, 0 warnings)",
            ),
            0,
            0,
        ),
        (CLEAN, 1, None),  # no error was found, and still it failed
        ("========= ERROR SUMMARY: 0 errors\n", 0, None),  # the script did not get to its end
        ("========= ERROR SUMMARY: 4 errors\n", 9, 4),
        ("all kernels of npk have run\n", 0, None),
        (
            "========= Error: Target application terminated before first instrumented API call\n",
            255,
            None,
        ),
    ],
)
def test_output_of_the_sanitizer(script, output, code, errors):
    finding = script("gpu_sanitizer").judged("memcheck", output, code)
    assert (finding.errors, finding.passed) == (errors, errors == 0)
    assert finding.output == output.rstrip("\n")


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_command_line_of_the_sanitizer(script, tool, tmp_path):
    sanitizer = script("gpu_sanitizer")
    assert tool in sanitizer.TOOLS
    program = tmp_path / "cuda_sanitizer_api" / "bin" / "compute-sanitizer"
    line = sanitizer.command(program, tool)
    assert line[:3] == [str(program), "--tool", tool]
    assert line[-2:] == [sys.executable, str(FOLDER / "gpu_launches.py")]
    assert line[line.index("--kernel-name") + 1] == "kernel_substring=npk_"
    assert ("--padding" in line) == (tool == "memcheck")
    assert "--injection-path" not in line
    library = tmp_path / "cuda_sanitizer_api" / "lib" / "libsanitizer-collection.so"
    library.parent.mkdir(parents=True)
    library.touch()
    line = sanitizer.command(program, tool)
    assert line[line.index("--injection-path") + 1] == str(library.parent)


def test_where_the_sanitizer_is(script, monkeypatch, tmp_path):
    sanitizer = script("gpu_sanitizer")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sanitizer.sysconfig, "get_path", lambda name: str(tmp_path))
    assert sanitizer.find_sanitizer() is None
    packaged, on_path = (
        tmp_path / "nvidia" / "cu13" / "bin" / "compute-sanitizer",
        tmp_path / "compute-sanitizer",
    )
    for program in (packaged, on_path):
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        assert sanitizer.find_sanitizer() == program


def test_the_sanitizer_is_run(script, tmp_path):
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\necho '{CLEAN}' \"$2\"\nexit 0\n")
    program.chmod(0o755)
    finding = script("gpu_sanitizer").run_tool(program, "synccheck")
    assert finding.passed
    assert finding.output.endswith("synccheck")


def test_a_sanitizer_that_is_missing(script, monkeypatch, capsys):
    run = script("gpu_run")
    monkeypatch.setattr(run.gpu_sanitizer, "find_sanitizer", lambda: None)
    assert run.run_sanitizer() == ([], False)
    assert "compute-sanitizer is not installed" in (said := capsys.readouterr().err)
    assert "pip install 'cuda-toolkit[sanitizer]==12.*'" in said


def test_findings_are_told(script, monkeypatch, capsys):
    run = script("gpu_run")
    found = {
        "memcheck": (0, "fine"),
        "racecheck": (2, "hazards"),
        "initcheck": (None, "crash"),
        "synccheck": (0, "fine"),
    }
    monkeypatch.setattr(run.gpu_sanitizer, "find_sanitizer", lambda: Path("compute-sanitizer"))
    monkeypatch.setattr(
        run.gpu_sanitizer,
        "run_tool",
        lambda sanitizer, tool: run.gpu_sanitizer.Finding(tool, *found[tool]),
    )
    findings, clean = run.run_sanitizer()
    assert ([finding.tool for finding in findings], clean) == (list(found), False)
    expected = (
        "memcheck: 0 errors\nracecheck: 2 errors\nhazards\ninitcheck: did not get to its "
        "end\ncrash\nsynccheck: 0 errors\n"
    )
    assert capsys.readouterr().out == expected


# --- every kernel ---


@pytest.fixture
def emulated(monkeypatch, script):
    """The launcher of a device that is an emulator, for the launching script."""
    launcher = EmulatedLauncher("fast", 80)
    launcher.allocators = []
    made = {"empty": np.empty, "zeros": np.zeros, "ones": np.ones}
    launcher.xp = SimpleNamespace(
        cuda=SimpleNamespace(set_allocator=launcher.allocators.append), **made
    )
    monkeypatch.setattr(script("gpu_launches"), "find_launcher", lambda: launcher)
    return launcher


@needs_compiler
# some kernels are made for one network each, and compiled here for the first time
@pytest.mark.slow
def test_every_kernel_is_launched(script, emulated, capsys):
    launches = script("gpu_launches")
    assert launches.main() == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == script("gpu_sanitizer").DONE
    for kernel in (
        "npk_dense_popc float",
        "npk_dense_bmma double",
        "npk_stage residual",
        "npk_program float",
        "npk_program double",
    ):
        assert kernel in said
    assert emulated.allocators == [None]


@needs_compiler
def test_a_kernel_that_is_not_reached_is_told(script, emulated, monkeypatch, capsys):
    launches = script("gpu_launches")
    dense = next(launches.tables())
    monkeypatch.setattr(launches, "tables", lambda: iter([dense]))
    assert launches.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("not reached: ")
    assert said.endswith("; results as promised\n")
    assert "program.cu" in said
    assert "dense" not in said


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("worst", [1.1, float("nan")])
def test_a_wrong_result_is_told(script, worst, monkeypatch, capsys):
    launches = script("gpu_launches")
    monkeypatch.setattr(
        launches, "launch_all", lambda launcher: (set(launches.KERNELS.values()), worst)
    )
    monkeypatch.setattr(launches, "expected", lambda capability: {"dense_popc.cu"})
    assert launches.main() == 1
    assert "not reached: none; results wrong" in capsys.readouterr().err


@needs_compiler
def test_results_are_compared_with_the_cpus(script):
    launches = script("gpu_launches")
    launcher = EmulatedLauncher("fast", 75)
    table = next(launches.tables())
    assert launches.deviation(table, "float32", launches.Watched(launcher, 75)) < 1e-5
    launcher.copy = lambda array, out=None: lambda: array + 1
    assert launches.deviation(table, "float32", launches.Watched(launcher, 75)) > 1e-3


def test_what_a_device_has_to_reach(script):
    launches = script("gpu_launches")
    assert launches.expected(75) == launches.expected(100) == {"dense_popc.cu", "program.cu"}
    files = {
        file.name for file in (Path(npk.__file__).parent / "backends/cuda/kernels").glob("*.cu")
    }
    assert launches.expected(90) == files | {"stage.cu, residual"}


# --- peers and comparisons ---


def test_peers_compute_the_kernel(script, rng):
    peers, compare = script("gpu_peers"), script("gpu_compare")
    options = SimpleNamespace(**SMALL["dense"])
    table = npk.record_gates(
        compare.bench_dense.network(options), compare.bench_dense.samples(options)
    )
    expected = npk.kernel(table, bias="ignore")
    for dtype in (torch.float16, torch.float32):
        np.testing.assert_allclose(
            peers.MatrixProducts(table, "cpu", dtype)(),
            expected,
            rtol=1e-3,
            atol=1e-4 * expected.max(),
        )
    net = npk.networks.build(
        "conv", input_shape=(3, 4, 4), classes=2, channels=[9, 7], bias=False, seed=0
    )
    table = npk.record_gates(net, rng.standard_normal((5, 3, 4, 4), dtype=np.float32))
    for room, pairs in ((3 * 4**4, 3), (10**6, 5), (1, 1)):
        fields = peers.Fields(table, 4, "cpu", room)
        np.testing.assert_allclose(fields(), npk.kernel(table)[0, :pairs], rtol=1e-5)
        assert fields.pairs == pairs


@needs_compiler
def test_comparisons_and_their_page(script, monkeypatch, tmp_path):
    compare, table = script("gpu_compare"), script("gpu_table")
    monkeypatch.setitem(sys.modules, "cuml", None)
    monkeypatch.setattr(script("timing"), "_REST", 0.0)
    place = compare.Place(EmulatedLauncher("fast", 75), lambda: None, "cpu", "cpu")
    found = compare.compare_all(place, SMALL, 2)
    assert [[len(t.seconds) for t in comparison.timings] for comparison in found] == [
        [2] * 4,
        [2] * 3,
        [2] * 3,
    ]
    findings = [
        script("gpu_sanitizer").Finding("memcheck", 0, ""),
        script("gpu_sanitizer").Finding("racecheck", None, ""),
    ]
    table.write(table.results_of({"device": "emulated"}, "3 passed", findings, found), tmp_path)
    page = (tmp_path / "gpu.md").read_text()
    assert page == table.page(table.read(tmp_path))
    assert (
        "- device: emulated\n- tests: 3 passed\n- compute-sanitizer: memcheck 0 errors, "
        "racecheck did not get to its end\n"
    ) in page
    assert "| dense layers: n 70, width 40, depth 2 | npk npk_dense_popc |" in page
    assert page.count("| 1.00 |") >= 3
    assert "cuML is not installed: nothing to compare with" in page


def test_ratios_are_those_of_the_same_turn(script):
    timings = [
        {"name": "npk", "seconds": [1.0, 10.0, 2.0]},
        {"name": "peer", "seconds": [2.0, 30.0, 8.0]},
    ]
    row = (
        script("gpu_table")
        .table([{"name": "task", "unit": "tile", "sizes": {"n": 3}, "timings": timings}])
        .splitlines()[-1]
    )
    assert row == "| task: n 3 | peer | 8 s a tile | 2 s .. 30 s | 3.00 |"


def test_a_peer_that_computes_something_else_is_no_peer(script):
    with pytest.raises(AssertionError, match="Mismatched elements: 1 / 4"):
        script("gpu_compare").check(
            torch.tensor([[1.0, 2.0], [3.0, 4.1]]), np.array([[1.0, 2.0], [3.0, 4.0]])
        )


def test_cuml_takes_part_where_it_is_installed(script, monkeypatch):
    class KernelRidge:
        def __init__(self, **options):
            self.options = options

        def fit(self, K, y):
            fitted.append((self.options, K.shape, y.shape))

    fitted, package, module = [], ModuleType("cuml"), ModuleType("cuml.kernel_ridge")
    module.KernelRidge = KernelRidge
    monkeypatch.setitem(sys.modules, "cuml", package)
    monkeypatch.setitem(sys.modules, "cuml.kernel_ridge", module)
    compare = script("gpu_compare")
    found = compare.solvers(compare.Place(None, lambda: None, "cpu", "cpu"), 40, 1)
    assert [timing.name for timing in found.timings][2] == "cuML KernelRidge"
    assert found.notes == []
    assert fitted[0] == (
        {"alpha": pytest.approx(1e-3), "kernel": "precomputed"},
        (40, 40),
        (40, 10),
    )


# --- the page ---


def test_the_page_that_is_there_is_of_the_results_that_are_there(script):
    table = script("gpu_table")
    assert (table.FOLDER / "gpu.md").read_text(encoding="utf-8") == table.page(table.read())


def test_a_page_without_results_says_so(script, tmp_path):
    table = script("gpu_table")
    table.write(None, tmp_path)
    page = (tmp_path / "gpu.md").read_text()
    assert "Nobody has run this on a GPU yet" in page
    assert page.splitlines()[-1] == "|---|---|---|---|---|"
    assert table.read(tmp_path) is None


# --- the command ---


@pytest.fixture
def run(script, monkeypatch):
    """The command, on a machine that has everything."""
    module = script("gpu_run")
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        module, "find_launcher", lambda: SimpleNamespace(xp=fake_cupy(), capability=90)
    )
    return module


def spoiled(run, monkeypatch, what):
    if what == "driver":
        monkeypatch.setattr(
            run.ctypes, "CDLL", raising(OSError("libcuda.so.1: cannot open shared object file"))
        )
    elif what == "torch":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    else:
        module = None if what == "cupy" else fake_cupy(devices=0)
        monkeypatch.setitem(sys.modules, "cupy", module)
        monkeypatch.setattr(run, "find_launcher", devices.find_launcher)


@pytest.mark.parametrize(
    ("what", "match"),
    [
        (
            "driver",
            "make gpu needs an NVIDIA GPU, and there is no NVIDIA driver on this machine. "
            "Run it where nvidia-smi lists a GPU.",
        ),
        ("cupy", "pip install -e '.[cuda12]' 'cuda-toolkit[cublas,cusolver,sanitizer]==12.*'"),
        ("device", "make gpu cannot run: there is an NVIDIA driver, but no device can be seen"),
        ("torch", "make gpu needs a PyTorch for CUDA"),
    ],
)
def test_without_a_gpu_one_line_and_code_2(run, what, match, monkeypatch, capsys, tmp_path):
    spoiled(run, monkeypatch, what)
    assert run.main(["--out", str(tmp_path / "results")]) == 2
    out, err = capsys.readouterr()
    assert match in err
    assert "backend=" not in err.replace('backend="cuda" needs', "")
    assert (out, err.count("\n"), err[:5]) == ("", 1, "npk: ")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("tests", "clean", "code"), [(True, True, 0), (False, True, 1), (True, False, 1)]
)
def test_steps_and_exit_codes(run, tests, clean, code, monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setattr(run, "run_tests", lambda: ("7 passed", tests))
    monkeypatch.setattr(run, "run_sanitizer", lambda: ([], clean))
    monkeypatch.setattr(run, "about", lambda launcher: {"device": "an H100"})
    monkeypatch.setattr(
        run.gpu_compare,
        "compare_all",
        lambda place, sizes, repeat: asked.append((sizes, repeat)) or [],
    )
    monkeypatch.setattr(run.gpu_compare, "Place", lambda *args: None)
    monkeypatch.setattr(
        run, "find_launcher", lambda: SimpleNamespace(xp=fake_cupy_with_synchronize())
    )
    assert run.main(["--out", str(tmp_path), "--repeat", "3"]) == code
    assert asked == [(run.gpu_compare.LARGE, 3)]
    assert "- tests: 7 passed" in (tmp_path / "gpu.md").read_text()
    assert "- device: an H100" in capsys.readouterr().out
    assert run.main(["--out", str(tmp_path), "--only", "sanitizer"]) == (0 if clean else 1)
    assert len(asked) == 1


def fake_cupy_with_synchronize(**parts):
    made = fake_cupy(**parts)
    made.cuda.runtime.deviceSynchronize = lambda: None
    return made


def test_what_the_page_says_of_the_machine(run, monkeypatch, tmp_path):
    xp = fake_cupy(__version__="14.2.0")
    xp.cuda.runtime.getDeviceProperties = lambda number: {
        "name": b"NVIDIA H100",
        "totalGlobalMem": 85 * 10**9,
    }
    launcher = SimpleNamespace(xp=xp, capability=90, device=SimpleNamespace(id=0))
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 575.57.08\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    about = run.about(launcher)
    assert about["device"] == "NVIDIA H100, sm_90, 85 GB"
    assert about["driver"] == "575.57.08, CUDA 12090; runtime 12090"
    assert about["versions"] == f"npk {npk.__version__}, CuPy 14.2.0"
    program.unlink()
    assert run.driver() == "version not known (no nvidia-smi)"


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("....\n\n=== 7 passed, 1 skipped in 3s ===\n\n", "7 passed, 1 skipped in 3s"),
        ("", "no output"),
    ],
)
def test_last_line_of_pytest(script, output, line):
    assert script("gpu_run").summary(output) == line


def test_tests_for_gpus_are_run(script, monkeypatch, capsys):
    run, asked = script("gpu_run"), []
    done = SimpleNamespace(stdout="1 failed in 2s\n", returncode=1)
    monkeypatch.setattr(run.subprocess, "run", lambda command, **_: asked.append(command) or done)
    assert run.run_tests() == ("1 failed in 2s", False)
    assert asked[0][1:5] == ["-m", "pytest", "-m", "gpu"]
    assert capsys.readouterr().out == "1 failed in 2s\n\n"


def test_make_gpu_runs_it():
    makefile = (FOLDER.parent / "Makefile").read_text(encoding="utf-8")
    assert "gpu: .venv/.installed-dev" in makefile
    assert "$(BIN)/python benchmarks/gpu_run.py" in makefile


# --- the marker ---


def test_tests_for_gpus_say_why_they_are_skipped(monkeypatch):
    why = conftest.no_device.__wrapped__
    monkeypatch.setattr(
        devices,
        "find_launcher",
        raising(BackendError('no driver. Install one, or use backend="cpu".')),
    )
    assert why() == "no driver. Install one"
    monkeypatch.setattr(devices, "find_launcher", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert why() == f"PyTorch {torch.__version__} finds none"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not why()
