"""Bad input through the command line: exit code 2 and one line that says what is wrong, what came
and what to do.
"""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk import cli
from npk.gram.store import GramStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Good and bad files, and two modules of a user's own."""
    found = tmp_path_factory.mktemp("bad")
    net = npk.networks.build("fc", input_shape=(1, 8, 8), classes=10, hidden=[16], seed=0)
    npk.save(net, found / "net.safetensors")
    gates = npk.record_gates(net, np.ones((2, 1, 8, 8), np.float32), progress=False)
    gates.save(found / "some.gates")
    whole = (found / "net.safetensors").read_bytes()
    (found / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (found / "text.safetensors").write_text("this is a letter, not a checkpoint\n")
    (found / "empty.safetensors").touch()
    for suffix in ("onnx", "ts"):
        (found / f"text.{suffix}").write_text("this is a letter, not a checkpoint\n")
    torch.save(nn.Sequential(nn.Linear(2, 2)), found / "pickled.pt")
    torch.save(
        nn.Sequential(nn.Linear(64, 4), nn.LayerNorm(4), nn.Linear(4, 2)).state_dict(),
        found / "layernorm.pt",
    )
    (found / "bad_input_arch.py").write_text(
        "from torch import nn\n\n"
        "def layernorm():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), "
        "nn.LayerNorm(4), nn.Linear(4, 2))\n\n"
        "def flat():\n    return nn.Sequential(nn.Linear(64, 4), nn.LayerNorm(4), nn.Linear(4, "
        "2))\n\n"
        "def broken():\n    raise RuntimeError('no such size')\n\n"
        "number = 3\n"
    )
    for name, value in (("nan", float("nan")), ("infinite", float("inf"))):
        next(net.parameters()).data[0, 0] = value
        npk.save(net, found / f"{name}.safetensors")
    X = np.random.default_rng(0).random((6, 1, 8, 8), dtype=np.float32)
    np.save(found / "X.npy", X)
    np.save(found / "wide.npy", X[:, :, :, :5])
    X[2, 0, 0, 0] = np.nan
    np.save(found / "nan.npy", X)
    np.savez(found / "labelled.npz", X=X[:1], y=np.array([0]))
    pictures = np.random.default_rng(1).random((12, 1, 8, 8), dtype=np.float32)
    for name, y in STUDIED.items():
        np.savez(found / f"{name}.npz", X=pictures[: len(y)], y=np.array(y))
    np.save(found / "y.npy", np.zeros((3, 2), int))
    (found / "nothing").mkdir()
    np.save(found / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (found / "results").mkdir()
    (found / "damaged").mkdir()
    (found / "damaged" / "results.json").write_text('{"version": "0.1.0", "netw')
    return found


@pytest.fixture
def npk_command(capsys, monkeypatch, folder):
    """Run a command line in this process; gives exit code, standard output and standard error."""
    monkeypatch.chdir(folder)

    def call(*arguments):
        code = cli.run([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return call


def refused(result, *texts):
    """Exit code 2, nothing on standard output, one line on standard error that holds the texts,
    below the plan if it came so far.
    """
    code, out, err = result
    err = err[err.index("\n") + 1 :] if err.startswith("plan: ") else err
    assert code == 2
    assert out == ""
    assert err.startswith("npk: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "unexpected" not in err, err
    assert "Traceback" not in err
    for text in texts:
        assert text in err


# labels of files for studies; the network tells ten classes apart
STUDIED = {
    "one-class": [1] * 8,
    "lonely": [0, 0, 0, 0, 0, 1],
    "three-classes": [0, 1, 2] * 4,
    "two-classes": [0, 1] * 6,
}
STUDY = ["study", "net.safetensors", "--out", "out", "--data"]
KERNEL = ["kernel", "net.safetensors", "--data", "X.npy", "--out", "K.npy"]
FEATURES = ["fit", "net.safetensors", "--data", "digits", "--solver", "features"]
CASES = {
    "no checkpoint": (
        ["kernel", "nte.safetensors", *KERNEL[2:]],
        "there is no file nte.safetensors. Did you mean net.safetensors?",
    ),
    "truncated checkpoint": (["inspect", "cut.safetensors"], "cut.safetensors", "truncated"),
    "empty checkpoint": (["inspect", "empty.safetensors"], "empty.safetensors is empty"),
    "text as a checkpoint": (["inspect", "text.safetensors"], "text.safetensors"),
    "checkpoint of unknown kind": (
        ["inspect", "X.npy"],
        "X.npy is a NumPy array. Use .safetensors",
    ),
    "pickled network": (
        ["inspect", "pickled.pt", "--arch", "bad_input_arch:flat"],
        "pickled.pt",
        "state_dict",
    ),
    "state dict without arch": (
        ["inspect", "layernorm.pt"],
        "does not describe its architecture",
        "--arch module:callable",
    ),
    "arch without a colon": (
        ["inspect", "layernorm.pt", "--arch", "bad_input_arch"],
        "names no callable",
        "module:callable",
    ),
    "arch of no module": (
        ["inspect", "layernorm.pt", "--arch", "no_such_module:make"],
        "importing no_such_module failed",
    ),
    "arch of no callable": (
        ["inspect", "layernorm.pt", "--arch", "bad_input_arch:number"],
        "has no callable number",
    ),
    "arch that fails": (
        ["inspect", "layernorm.pt", "--arch", "bad_input_arch:broken"],
        "failed with RuntimeError: no such size",
    ),
    "arch that does not fit": (
        ["inspect", "layernorm.pt", "--arch", "bad_input_arch:layernorm"],
        "does not fit bad_input_arch:layernorm",
    ),
    "arch option without a value": (
        ["inspect", "layernorm.pt", "--arch", "bad_input_arch:flat", "--arch-option", "width"],
        "--arch-option 'width' is not understood. Write a keyword argument as key=value",
    ),
    "arch option without arch": (
        ["inspect", "layernorm.pt", "--arch-option", "width=5"],
        "width are arguments of --arch",
    ),
    "output that is not there": (
        ["inspect", "net.safetensors", "--output", "haed"],
        "has no output 'haed': it returns a single tensor",
    ),
    "unknown layout": (
        ["inspect", "net.safetensors", "--layout", "hwc"],
        "'--layout': 'hwc' is not one of 'nchw', 'nhwc'",
    ),
    "text as ONNX": (["inspect", "text.onnx"], "text.onnx is truncated, no ONNX file"),
    "text as TorchScript": (
        ["inspect", "text.ts"],
        "text.ts is truncated or was not written by torch.save",
    ),
    "unsupported layer": (
        ["inspect", "layernorm.pt", "--arch", "bad_input_arch:flat", "--input-shape", "64"],
        "layer_norm",
    ),
    "shape that is no shape": (
        ["inspect", "net.safetensors", "--input-shape", "8,x"],
        "--input-shape 8,x is no shape. Write whole numbers",
    ),
    "shape that does not fit": (
        ["inspect", "net.safetensors", "--input-shape", "5"],
        "does not accept samples of shape (5,)",
    ),
    "unknown data": (
        [*KERNEL[:3], "digit", *KERNEL[4:]],
        "no data set and no file called 'digit'. Did you mean digits?",
    ),
    "empty slice": ([*KERNEL[:3], "X.npy[6:]", *KERNEL[4:]], "X.npy[6:] holds no values"),
    "slice that is none": (
        [*KERNEL[:3], "X.npy[a]", *KERNEL[4:]],
        "ends in something that is no slice. Write [a:b]",
    ),
    "data with NaN": (
        [*KERNEL[:3], "nan.npy", *KERNEL[4:]],
        "1 of 6 samples hold NaN",
        "the first is sample 2",
    ),
    "data of Python objects": (
        [*KERNEL[:3], "objects.npy", *KERNEL[4:]],
        "holds Python objects, which npk never unpickles",
    ),
    "data of another shape": (
        [*KERNEL[:3], "wide.npy", *KERNEL[4:]],
        "does not accept samples of shape (1, 8, 5)",
    ),
    "columns of another shape": (
        [*KERNEL, "--against", "wide.npy"],
        "does not accept samples of shape (1, 8, 5)",
    ),
    "no data": (
        ["kernel", "net.safetensors", "--out", "K.npy"],
        "--data is missing",
        "--data digits",
    ),
    "no place": (KERNEL[:4], "--out is missing", "--out K.zarr"),
    "subset without labels": (
        [*KERNEL, "--subset", "train"],
        "X.npy has no labels and they are needed here",
    ),
    "unknown subset": (
        [*KERNEL, "--subset", "half"],
        "'--subset': 'half' is not one of 'train', 'test'. See `npk kernel --help`",
    ),
    "columns' subset alone": (
        [*KERNEL, "--against-subset", "test"],
        "--against-subset test needs --against",
    ),
    "unknown scale": (
        [*KERNEL, "--scale", "big"],
        "'--scale': 'big' is not one of 'fan_in', 'count', 'cosine'",
    ),
    "unknown dtype": ([*KERNEL, "--dtype", "int8"], "'int8' is not one of 'float32', 'float64'"),
    "unknown gates": ([*KERNEL, "--gates", "wide"], "'wide' is not one of 'auto', 'hard', 'soft'"),
    "soft gates of a ReLU network": ([*KERNEL, "--gates", "soft"], "has hard gates"),
    "unknown bias": ([*KERNEL, "--bias", "drop"], "'drop' is not one of 'auto', 'ignore', 'paths'"),
    "unknown backend": ([*KERNEL, "--backend", "gpu"], "'gpu' is not one of 'auto', 'cpu'"),
    "no CUDA": ([*KERNEL, "--backend", "cuda"], "cuda"),
    "too little memory": (
        [*KERNEL, "--memory", "1kB"],
        "--memory 1000 bytes is too little",
        "the smallest that works is",
    ),
    "memory that is no size": ([*KERNEL, "--memory", "much"], "--memory much is not a size"),
    "weights of NaN": (
        ["kernel", "nan.safetensors", *KERNEL[2:]],
        "holds NaN or infinity",
        "did its training diverge",
    ),
    "infinite weights": (
        ["gates", "infinite.safetensors", "--data", "X.npy", "--out", "G"],
        "holds NaN or infinity",
    ),
    "folder that is not there": (
        [*KERNEL[:5], "none/K.zarr"],
        "cannot write none/K.zarr: there is no folder",
        "Make it",
    ),
    "folder as a gate table": (
        ["kernel", "results", "--out", "K.npy"],
        "cannot read results as a gate table",
    ),
    "gate table and data": (
        ["kernel", "some.gates", "--data", "X.npy", "--out", "K.npy"],
        "some.gates is a gate table and holds its samples already",
    ),
    "empty folder and data": (
        ["kernel", "results", "--data", "X.npy", "--out", "K.npy"],
        "cannot read results as a gate table",
    ),
    "fit without labels": (["fit", "net.safetensors", "--data", "X.npy"], "X.npy has no labels"),
    "fit of one sample a class": (
        ["fit", "net.safetensors", "--data", "digits[:10]"],
        "digits[:10] cannot be split",
    ),
    "unknown solver": (
        ["fit", "net.safetensors", "--data", "digits", "--solver", "lasso"],
        "'--solver': 'lasso' is not one of 'ridge', 'svm', 'gp', 'nystroem', 'features'",
    ),
    "unknown baseline": (
        ["fit", "net.safetensors", "--data", "digits", "--baselines", "RBF,forest"],
        "the baseline 'forest' is not known. Choose of network, penultimate",
    ),
    "components of a solver without": (
        ["fit", "net.safetensors", "--data", "digits", "--components", "9"],
        "--components 9 is for the solvers nystroem and features, and ridge has none",
    ),
    "no components": (
        [*FEATURES, "--components", "0"],
        "components is 0. Give a whole number, 1 or more",
    ),
    "features of tangents": (
        [*FEATURES, "--of", "tangent"],
        "--of tangent is of a kernel, and the solver features computes none. Leave it out",
    ),
    "features in float64": ([*FEATURES, "--dtype", "float64"], "--dtype float64 is of a kernel"),
    "features within a promise": ([*FEATURES, "--memory", "1GB"], "--memory is of a kernel"),
    "unknown check": (
        ["check", "truth", "net.safetensors", "--data", "X.npy"],
        "'truth' is not one of 'duality', 'invariance'",
    ),
    "unknown instrument": (
        ["kernel", "net.safetensors", "--data", "X.npy", "--out", "K.npy", "--of", "depths"],
        "--of depths is not known. Choose one of paths, tangent",
    ),
    "depth that no path has": (
        ["kernel", "net.safetensors", "--data", "X.npy", "--out", "K.npy", "--of", "depth=90"],
        "depth=90, but no path of this network passes 90 layers. Choose one of",
    ),
    "spectrum as a text file": (
        ["spectrum", "net.safetensors", "--data", "X.npy", "--figure", "s.txt"],
        "--figure s.txt is no picture. Give a file that ends in .png, .svg, .pdf",
    ),
    "spectrum of gates with data": (
        ["spectrum", "some.gates", "--data", "X.npy"],
        "some.gates is a gate table and holds its samples already",
    ),
    "spectrum without data": (["spectrum", "net.safetensors"], "--data is missing"),
    "lesions without skips": (
        ["lesions", "net.safetensors", "--data", "X.npy"],
        "net has 0 skip connections",
    ),
    "ensemble without skips": (
        ["check", "ensemble", "net.safetensors", "--data", "X.npy"],
        "net has 0 skip connections",
    ),
    "no samples to check": (
        ["check", "duality", "net.safetensors", "--data", "X.npy", "--samples", "0"],
        "--samples",
        "greater than or equal to 1",
    ),
    "JSON in no folder": (
        ["check", "duality", "net.safetensors", "--data", "X.npy", "--json", "none/c.json"],
        "there is no folder",
    ),
    "no results": (["report", "results"], "cannot read results/results.json"),
    "results cut off": (["report", "damaged"], "this is not a StudyResult in JSON", "cut off"),
    "unknown architecture": (
        ["train", "mlp", "--data", "digits", "--out", "m.safetensors"],
        "'arch': 'mlp' is not one of 'fc', 'conv'",
    ),
    "unknown kind": (
        ["train", "fc", "--kind", "rnn", "--data", "digits", "--out", "m.safetensors"],
        "'--kind': 'rnn' is not one of 'dnn', 'dgn'",
    ),
    "unknown option": (
        ["train", "fc", "--data", "digits", "--out", "m.safetensors", "--option", "depth=3"],
        "fc has no option 'depth'",
    ),
    "option of another type": (
        ["train", "fc", "--data", "digits", "--out", "m.safetensors", "--option", "beta=x"],
        "cannot be used",
        "as JSON",
    ),
    "option without a value": (
        ["train", "fc", "--data", "digits", "--out", "m.safetensors", "--option", "beta"],
        "--option 'beta' is not understood",
    ),
    "option of the command": (
        ["train", "fc", "--data", "digits", "--out", "m.safetensors", "--option", "seed=1"],
        "is not understood",
    ),
    "checkpoint that cannot say": (
        ["train", "fc", "--data", "digits", "--out", "m.pt"],
        "m.pt is no .safetensors file",
    ),
    "no epochs": (
        ["train", "fc", "--data", "digits", "--out", "m.safetensors", "--epochs", "0"],
        "epochs is 0, it must be a positive",
    ),
    "demo on vectors": (["demo", "--data", "labelled.npz", "--out", "run"], "labelled.npz"),
    "demo in no folder": (["demo", "--out", "X.npy/run"], "cannot make the folder X.npy/run"),
    "study of one class": ([*STUDY, "one-class.npz"], "needs two classes, y has 1 class"),
    "study of a class with one sample": (
        [*STUDY, "lonely.npz"],
        "lonely.npz has 1 sample of class '1'",
    ),
    "study of other classes": (
        [*STUDY, "three-classes.npz"],
        "net has 10 outputs, and the labels have 3 classes",
    ),
    "study of fewer samples than classes": (
        [*STUDY, "two-classes.npz", "-n", "2,1"],
        "n is 1. Give a whole number from 2",
    ),
    "study of more samples than there are": (
        [*STUDY, "two-classes.npz", "-n", "30"],
        "n is 30, and there are 6 fresh samples",
    ),
    "study of no checkpoint": (
        ["study", "nothing", "--data", "two-classes.npz", "--out", "out"],
        "nothing is a folder without weights",
    ),
    "study with sizes that are none": (
        [*STUDY, "two-classes.npz", "--n", "4,many"],
        "-n 4,many is not understood",
    ),
    "study with a budget that is none": (
        [*STUDY, "two-classes.npz", "--budget", "soon"],
        "budget is 'soon'",
    ),
    "study with labels that are none": (
        [*STUDY, "X.npy", "--labels", "y.npy"],
        "y.npy holds no labels",
    ),
    "study with labels that are no file": (
        [*STUDY, "X.npy", "--labels", "Y.npy"],
        "there is no file of labels Y.npy",
    ),
    "study with too many names": (
        [*STUDY, "two-classes.npz", "--name", "a", "--name", "b"],
        "--name is given 2 times for 1 checkpoints",
    ),
    "study of an unknown baseline": (
        [*STUDY, "two-classes.npz", "--baselines", "SVM"],
        "baselines has 'SVM'",
    ),
    "study into a file": (
        ["study", "net.safetensors", "--data", "two-classes.npz", "--out", "X.npy"],
        "cannot write X.npy: it is a file",
    ),
    "no argument": (["kernel"], "Missing argument 'CKPT'. See `npk kernel --help`."),
    "unknown flag": (
        ["fit", "net.safetensors", "--fast"],
        "No such option: --fast",
        "See `npk fit --help`.",
    ),
    "number that is none": ([*KERNEL, "--seed", "one"], "'--seed'", "See `npk kernel --help`."),
    "negative seed": ([*KERNEL, "--seed", "-1"], "Invalid value for '--seed'"),
    "unknown command": (["frob"], "No such command 'frob'. See `npk --help`."),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_line(npk_command, name):
    arguments, *texts = CASES[name]
    refused(npk_command(*arguments), *texts)


def test_as_a_process_of_its_own(folder):
    arguments = [sys.executable, "-m", "npk", "inspect", "text.safetensors"]
    environment = {**os.environ, "PYTHONPATH": str(Path(npk.__file__).parents[1])}
    found = subprocess.run(
        arguments,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    refused((found.returncode, found.stdout, found.stderr), "text.safetensors")


def test_debug_shows_the_traceback(npk_command):
    code, _, err = npk_command("inspect", "--debug", "text.safetensors")
    assert code == 2
    assert err.startswith("Traceback")
    assert "CheckpointError" in err
    assert err.splitlines()[-1].startswith("npk: text.safetensors")


def test_read_only_folder(npk_command, monkeypatch):
    # the tests may run as root, whom no folder refuses
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    refused(
        npk_command(*KERNEL), "cannot write K.npy: the folder", "is read-only. Choose another one."
    )


def test_store_of_another_kernel_is_left_alone(npk_command, tmp_path):
    store = tmp_path / "K.zarr"
    assert npk_command("kernel", "net.safetensors", "--data", "X.npy", "--out", store)[0] == 0
    before = np.asarray(npk.Gram.load(store))
    refused(
        npk_command("kernel", "net.safetensors", "--data", "X.npy[:5]", "--out", store),
        "holds another kernel: it has 6 rows, here are 5",
        "Choose another name",
    )
    refused(
        npk_command(
            "kernel", "net.safetensors", "--data", "X.npy", "--scale", "count", "--out", store
        ),
        "scale is 'fan_in' there and 'count' here",
    )
    np.testing.assert_array_equal(np.asarray(npk.Gram.load(store)), before)


def test_place_taken_by_something_else(npk_command, tmp_path):
    (tmp_path / "K.zarr").write_text("mine")
    refused(
        npk_command("kernel", "net.safetensors", "--data", "X.npy", "--out", tmp_path / "K.zarr"),
        "K.zarr: it is a file, and a store is a folder",
    )
    assert (tmp_path / "K.zarr").read_text() == "mine"


def test_damaged_chunk_of_a_gate_table(npk_command, tmp_path):
    assert (
        npk_command("gates", "net.safetensors", "--data", "X.npy", "--out", tmp_path / "G")[0] == 0
    )
    chunk = next(
        path
        for path in sorted((tmp_path / "G" / "0" / "inputs").rglob("*"))
        if path.is_file() and path.name != "zarr.json"
    )
    content = chunk.read_bytes()
    chunk.write_bytes(content[:10] + bytes([content[10] ^ 255]) + content[11:])
    refused(npk_command("kernel", tmp_path / "G", "--out", "K.npy"), "G", "Record the gates again")


def test_damaged_chunk_of_a_kernel(npk_command, tmp_path):
    store = tmp_path / "K.zarr"
    assert npk_command("kernel", "net.safetensors", "--data", "X.npy", "--out", store)[0] == 0
    chunk = next(
        path
        for path in sorted((store / "checksums").rglob("*"))
        if path.is_file() and path.name != "zarr.json"
    )
    chunk.write_bytes(b"no chunk")
    refused(
        npk_command("kernel", "net.safetensors", "--data", "X.npy", "--out", store),
        "damaged",
        "K.zarr",
    )


def test_manifest_that_is_gone(npk_command, tmp_path):
    store = tmp_path / "K.zarr"
    assert npk_command("kernel", "net.safetensors", "--data", "X.npy", "--out", store)[0] == 0
    (store / "zarr.json").unlink()
    refused(npk_command("kernel", "net.safetensors", "--data", "X.npy", "--out", store), "K.zarr")


def small_tiles(monkeypatch):
    """Kernels of three tiles."""
    monkeypatch.setattr("npk.gram.tiles._LARGEST", 4)


def failing_second_write(monkeypatch, error):
    """Every write of a tile but the first raises."""
    write, calls = GramStore.write, []

    def fail(self, tile, values):
        calls.append(tile)
        if len(calls) > 1:
            raise error
        write(self, tile, values)

    monkeypatch.setattr(GramStore, "write", fail)


def expected(folder):
    return npk.kernel(npk.load(folder / "net.safetensors"), np.load(folder / "X.npy"))


def test_full_disk_keeps_finished_tiles(npk_command, tmp_path, folder):
    command = ["kernel", "net.safetensors", "--data", "X.npy", "--out", tmp_path / "K.zarr"]
    with pytest.MonkeyPatch.context() as patch:
        small_tiles(patch)
        failing_second_write(patch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "K.zarr"))
        refused(npk_command(*command), "No space left on device", "K.zarr", "the room on the disk")
    code, out, _ = npk_command(*command)
    assert code == 0
    assert "1 of 3 tiles from an earlier run" in out
    np.testing.assert_array_equal(np.asarray(npk.Gram.load(tmp_path / "K.zarr")), expected(folder))


def test_interruption_keeps_finished_tiles(npk_command, tmp_path, folder):
    command = ["kernel", "net.safetensors", "--data", "X.npy", "--out", tmp_path / "K.zarr"]
    with pytest.MonkeyPatch.context() as patch:
        small_tiles(patch)
        failing_second_write(patch, KeyboardInterrupt())
        code, out, err = npk_command(*command)
    assert (code, out) == (130, "")
    assert err.endswith(
        "npk: interrupted. Finished tiles of a kernel in a store are kept: run the "
        "same command to go on.\n"
    )
    code, out, _ = npk_command(*command)
    assert code == 0
    assert "1 of 3 tiles from an earlier run" in out
    np.testing.assert_array_equal(np.asarray(npk.Gram.load(tmp_path / "K.zarr")), expected(folder))


def test_interruption_between_commands(npk_command, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.main.get_command", interrupted)
    assert npk_command("--version")[0] == 130


def test_full_disk_at_a_single_file(npk_command, monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", full)
    refused(
        npk_command("kernel", "net.safetensors", "--data", "X.npy", "--out", tmp_path / "K.npy"),
        "cannot write",
        "No space left on device",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            MemoryError("Unable to allocate 9 TiB"),
            "not enough memory (Unable to allocate 9 TiB). Use fewer samples",
        ),
        (
            OSError(errno.EIO, "Input/output error", "K.npy"),
            "cannot read or write K.npy: Input/output error. Check the path",
        ),
    ],
)
def test_errors_of_the_machine(npk_command, monkeypatch, error, text):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("npk.gram.kernel.NeuralPathKernel.__call__", fail)
    refused(npk_command(*KERNEL), text)


def test_a_mistake_of_npk_says_so(npk_command, monkeypatch):
    def fail(*_, **__):
        raise IndexError("7")

    monkeypatch.setattr("npk.gram.kernel.NeuralPathKernel.__call__", fail)
    code, _, err = npk_command(*KERNEL)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("npk: unexpected IndexError: 7. This is a mistake in npk")


def test_nothing_is_left_behind(folder):
    assert not {"K.npy", "m.safetensors", "G", "run", "none"} & set(os.listdir(folder)), os.listdir(
        folder
    )
    assert not [name for name in os.listdir(folder) if name.endswith((".tmp", ".old"))]
    shutil.rmtree(folder / "results")
    assert Path(folder).is_dir()
