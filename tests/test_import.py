"""`import npk` is light, and its public names are what they say."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import npk

HEAVY = ("torch", "numba", "matplotlib", "zarr", "sklearn", "scipy", "cupy", "typer")


def in_fresh_interpreter(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()


def test_import_loads_no_heavy_library():
    loaded = in_fresh_interpreter(
        f"import npk, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert loaded == "[]"


def test_import_takes_less_than_a_second():
    seconds = in_fresh_interpreter(
        "import time; start = time.perf_counter(); import npk; print(time.perf_counter() - start)"
    )
    # milliseconds when nothing heavy is loaded: a wide guard, not a measurement
    assert float(seconds) < 1


def test_names_and_errors_need_nothing_heavy():
    code = (
        f"import npk, sys; npk.errors.NpkError; dir(npk); print([name for name in {HEAVY!r} if "
        f"name in sys.modules])"
    )
    assert in_fresh_interpreter(code) == "[]"


def test_help_loads_few_modules():
    """What the commands are, and what writes them on a terminal: no results, no arrays."""
    code = (
        "import sys; before = set(sys.modules); from npk import cli; cli.run(['--help']); "
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = in_fresh_interpreter(code).splitlines()[-1].split()
    ours = [name for name in loaded if name.partition(".")[0] == "npk"]
    assert ours == [
        "npk",
        "npk.choices",
        "npk.cli",
        "npk.cli.commands",
        "npk.cli.laboratory",
        "npk.cli.options",
        "npk.cli.words",
        "npk.errors",
        "npk.forks",
        "npk.progress",
        "npk.shown",
    ]
    heavy = {"numpy", "pydantic", *HEAVY} - {"typer"}
    assert not heavy & {name.partition(".")[0] for name in loaded}
    assert len(loaded) < 320  # 253 with typer 0.29 and rich 15


def test_a_kernel_loads_only_what_it_uses(tmp_path):
    """Of the rooms no machines and no studies, of libraries none but torch and numba with theirs."""
    net = npk.networks.build("conv", input_shape=(1, 8, 8), classes=10, channels=[4, 4], seed=0)
    npk.save(net.eval(), tmp_path / "net.safetensors")
    arguments = ["kernel", "net.safetensors", "--data", "digits[:20]", "--out", "K.npy"]
    code = (
        f"import os, sys; from npk import cli; os.chdir({str(tmp_path)!r}); "
        f"code = cli.run({arguments}); print(code, *sys.modules)"
    )
    code, *loaded = in_fresh_interpreter(code).splitlines()[-1].split()
    assert code == "0"
    assert {"torch", "numba"} <= set(loaded)
    unused = {"sklearn", "pandas", "matplotlib", "plotly", "onnx", "zarr", "dask", "cupy"}
    assert not unused & {name.partition(".")[0] for name in loaded}
    assert not {"scipy.stats", "scipy.optimize"} & set(loaded)  # of SciPy what numba loads itself
    rooms = {name.split(".")[1] for name in loaded if name.startswith("npk.")}
    assert not rooms & {"machines", "measures", "checks", "bench", "plot", "demo", "tracks"}
    assert "npk.studies.running" not in loaded


def test_version_is_readable_without_importing():
    tree = ast.parse(Path(npk.__file__).read_text())
    values = [
        n.value
        for n in tree.body
        if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", None) == "__version__"
    ]
    assert [ast.literal_eval(value) for value in values] == [npk.__version__]


def test_type_checker_and_interpreter_see_the_same_names():
    tree = ast.parse(Path(npk.__file__).read_text())
    (block,) = [
        n
        for n in tree.body
        if isinstance(n, ast.If) and getattr(n.test, "id", None) == "TYPE_CHECKING"
    ]
    typed = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == npk._HOME


@pytest.mark.parametrize("name", npk.__all__)
def test_public_name_is_there(name):
    assert getattr(npk, name) is not None
    assert name in dir(npk)


def test_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(AttributeError, match=r"no attribute 'kernels'. Public names are: .*kernel"):
        npk.kernels  # noqa: B018
