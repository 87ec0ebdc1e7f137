"""Whatever kind of thing comes for an argument or an option: it is taken, or refused by an
NpkError; never a traceback.
"""

import contextlib
import math

import numpy as np
import pytest
import torch
import zarr
from torch import nn

import npk
from npk import cli
from npk.errors import DataError, NpkError, OptionError, StoreError
from npk.gram.options import check_store_place, dtype_named, parse_bytes
from npk.machines import conjugate_gradients, ridge, svm
from npk.progress import as_progress

KINDS = {
    "None": None,
    "zero": 0,
    "negative": -1,
    "fraction": 0.5,
    "NaN": math.nan,
    "infinite": math.inf,
    "truth": True,
    "text": "some text",
    "no text": "",
    "bytes": b"x",
    "long text": "9" * 400 + "GB",
    "complex": 1j,
    "list": [],
    "tuple": (1, "a"),
    "dict": {},
    "set": {1},
    "array": np.array([1, 2]),
    "words": np.array(["fan_in", "count"]),
    "tensor": torch.zeros(2),
    "object": object(),
    "class": dict,
    "function": len,
}

OPTIONS = ("scale", "dtype", "gates", "value_input", "bias", "backend", "memory", "progress")
NET = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 2)).eval()
X, Y = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32), np.arange(6) % 2
K = X.astype(np.float64) @ X.T


@pytest.fixture(scope="module")
def table():
    return npk.record_gates(NET, X)


def only_refusals(call):
    """Values are fine, and so are npk's own errors; any other error fails the test."""
    with contextlib.suppress(NpkError):
        call()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_any_kind_of_option_of_a_kernel(kind, table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some of the kinds are names of a store, or of a checkpoint
    for option in OPTIONS:
        only_refusals(lambda option=option: npk.NeuralPathKernel(None, **{option: kind}))
    for option in ("out", "client"):
        only_refusals(
            lambda option=option: npk.kernel(table, progress=False, **{"out": "", option: kind})
        )
    for machine in (npk.NPKRidge, npk.NPKRidgeClassifier, npk.NPKSVC):
        for option in (*OPTIONS, "alpha" if machine is not npk.NPKSVC else "C", "input_shape"):
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(npk.NeuralPathKernel, "record", stop)
                only_refusals(
                    lambda machine=machine, option=option: machine(NET, **{option: kind}).fit(X, Y)
                )


def stop(*_):
    raise DataError("far enough: options were looked at")


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_any_kind_of_data(kind, table):
    for call in (
        lambda: npk.kernel(NET, kind, progress=False),
        lambda: npk.kernel(table, kind, progress=False),
        lambda: npk.record_gates(NET, kind),
        lambda: npk.check_invariance(NET, kind),
        lambda: npk.check_ensemble(NET, kind),
        lambda: npk.networks.train(NET, kind, Y, epochs=1, progress=False),
        lambda: npk.networks.train(NET, X, kind, epochs=1, progress=False),
        lambda: npk.data.load(kind),
        lambda: npk.data.split(kind),
        lambda: npk.data.Dataset(kind, None, (), "name"),
        lambda: npk.data.Dataset(X, kind, (), "name"),
        *(
            lambda machine=machine: machine(NET).fit(kind, Y)
            for machine in (npk.NPKRidge, npk.NPKSVC)
        ),
        *(
            lambda machine=machine: machine(NET).fit(X[:, :0], kind)
            for machine in (npk.NPKRidgeClassifier, npk.NPKSVC)
        ),
    ):
        only_refusals(call)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_any_kind_for_the_solvers(kind):
    for call in (
        lambda: ridge.fit(kind, Y, 0.1),
        lambda: ridge.fit(K, kind, 0.1),
        lambda: ridge.fit(K, Y, kind),
        lambda: ridge.fit(K, Y, 0.1, criterion=kind),
        lambda: ridge.fit(K, Y, 0.1, backend=kind),
        lambda: ridge.signed_targets(kind),
        lambda: svm.fit(kind, Y, 1.0),
        lambda: svm.fit(K, kind, 1.0),
        lambda: svm.fit(K, Y, kind),
        lambda: svm.fit(K, Y, folds=kind),
        lambda: conjugate_gradients.solve(kind, Y, 0.1),
        lambda: conjugate_gradients.solve(K, kind, 0.1),
        lambda: conjugate_gradients.solve(K, Y, kind),
        *(
            lambda name=name: conjugate_gradients.solve(K, Y, 0.1, **{name: kind})
            for name in ("tolerance", "most", "start", "progress")
        ),
    ):
        only_refusals(call)


TRAINING = (
    "regime",
    "features",
    "validation",
    "epochs",
    "batch_size",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "momentum",
    "schedule",
)
TRAINING += (
    "label_smoothing",
    "augment",
    "shift",
    "patience",
    "seed",
    "device",
    "checkpoint",
    "progress",
)
TRAINING += ("loss", "warm_up", "milestones", "select", "snapshots", "callback")


@pytest.mark.parametrize(
    "kind",
    [KINDS[name] for name in KINDS if name != "text"],
    ids=[name for name in KINDS if name != "text"],
)
def test_any_kind_of_option_of_the_training(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for option in TRAINING:
        if option == "callback" and callable(kind):
            continue  # what one raises is the caller's own
        net = nn.Sequential(nn.Linear(3, 2))
        only_refusals(
            lambda option=option, net=net: npk.networks.train(
                net, X, Y, **{"epochs": 1, "progress": False, "validation": 0.4, option: kind}
            )
        )


@pytest.mark.parametrize(
    ("memory", "size"),
    [
        (2e9, 2 * 10**9),
        (np.int64(5), 5),
        (np.float32(8), 8),
        ("8GB", 8 * 10**9),
        (" .5 kib ", 512),
        (None, None),
    ],
)
def test_sizes(memory, size):
    assert parse_bytes(memory) == size


@pytest.mark.parametrize(
    "memory",
    [
        "9" * 400 + "GB",
        math.nan,
        math.inf,
        -1.0,
        0.5,
        True,
        np.True_,
        "٣GB",
        "",
        "0",
        10**400,
        "8 G B",
    ],
)
def test_what_is_no_size(memory):
    with pytest.raises(OptionError, match="is not a size. Give a number of bytes"):
        parse_bytes(memory)


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32"), torch.float32])
def test_a_type_of_numbers_may_come_as_such(dtype):
    assert dtype_named(dtype) == "float32"
    assert npk.NeuralPathKernel(None, dtype=dtype).options.dtype == "float32"


@pytest.mark.parametrize("dtype", ["float16", np.float16, torch.bfloat16, float, int, "<f4", None])
def test_other_types_of_numbers_are_refused(dtype):
    with pytest.raises(OptionError, match="is not known"):
        npk.NeuralPathKernel(None, dtype=dtype)


@pytest.mark.parametrize(
    "name", ["K.npz", "K.csv", "K.pt", "K.mat", "K.h5", "K.parquet", "K.txt", "K.NPY", "K.json"]
)
def test_a_store_under_the_name_of_a_file_is_refused(name, tmp_path, table):
    with pytest.raises(
        OptionError,
        match=r"npk writes .npy files, or stores \(folders\) such as "
        r".*K.zarr",
    ):
        npk.kernel(table, out=tmp_path / name, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_places_of_stores(tmp_path, table):
    for name in ("K", "K.zarr", "net-0.5"):
        assert check_store_place(tmp_path / name) == tmp_path / name
    (tmp_path / "empty").mkdir()
    np.testing.assert_array_equal(
        np.asarray(npk.kernel(table, out=tmp_path / "empty", progress=False)),
        npk.kernel(table, progress=False),
    )
    (tmp_path / "file").touch()
    for place, why in (
        ("file", "it is a file"),
        ("none/K", "there is no folder"),
        ("file/K", "file is a file"),
    ):
        with pytest.raises(NpkError, match=why):
            npk.kernel(table, out=tmp_path / place, progress=False)


def test_an_array_of_somebody_elses_is_no_store(tmp_path, table):
    zarr.create_array(str(tmp_path / "other.zarr"), shape=(4, 4), dtype="f4")
    with pytest.raises(StoreError, match="other.zarr holds something that npk did not write"):
        npk.kernel(table, out=tmp_path / "other.zarr", progress=False)


def test_progress_may_be_anything_that_has_tasks():
    Steps = type("Steps", (), {"task": lambda *_: None})
    assert as_progress(progress := Steps()) is progress
    for other, kind in ((Steps, "type"), (3, "int"), (None, "NoneType")):
        with pytest.raises(OptionError, match=f"progress is of type {kind}. Give True, False or"):
            as_progress(other)


# --- the command line -------------------------------------------------------------------------------------------------------------

VALUES = (
    "",
    "-1",
    "nan",
    "inf",
    "1e400",
    "text",
    "{}",
    "3.5",
    "/dev/null",
    "a=b",
    "9" * 400,
    "\N{GREEK SMALL LETTER ALPHA}",
)
NAMED = {
    "kernel": (
        "scale",
        "dtype",
        "gates",
        "value-input",
        "bias",
        "backend",
        "memory",
        "seed",
        "subset",
        "against-subset",
        "layout",
        "out",
        "data",
    ),
    "fit": (
        "scale",
        "dtype",
        "backend",
        "memory",
        "solver",
        "seed",
        "layout",
        "test",
        "json",
        "data",
    ),
    "gates": ("gates", "layout", "output", "data", "out"),
    "check": ("samples", "layout", "json", "data"),
    "inspect": ("input-shape", "layout", "output", "data", "arch", "arch-option"),
    "train": (
        "kind",
        "regime",
        "epochs",
        "batch-size",
        "optimizer",
        "learning-rate",
        "weight-decay",
        "augment",
        "patience",
        "device",
        "seed",
        "option",
        "data",
    ),
    "report": ("out", "figures"),
    "demo": ("data", "seed"),
    "verify-store": (),
}
BEFORE = {"check": ["duality", "none.safetensors"], "train": ["fc"], "demo": [], "report": ["none"]}
AFTER = {"kernel": ["--out", "K.npy"], "gates": ["--out", "G"], "train": ["--out", "n.safetensors"]}


@pytest.mark.parametrize("command", NAMED)
def test_any_value_of_any_option_of_a_command(command, tmp_path, monkeypatch, capsys):
    """With a checkpoint that is not there (and data of no file for training), so that nothing is
    computed.
    """
    monkeypatch.chdir(tmp_path)
    for option in NAMED[command]:
        for value in VALUES:
            if option == "data" and command == "demo" and value == "":
                continue
            given = [command, *BEFORE.get(command, ["none.safetensors"]), *AFTER.get(command, ())]
            given += (
                []
                if option == "data" or command in ("inspect", "report", "demo")
                else ["--data", "none.npz"]
            )
            given += ["--data", "none.npz"] if command == "demo" and option != "data" else []
            code = cli.run([*given, f"--{option}", value])
            said = capsys.readouterr().err.encode("utf-8", "replace").decode()
            assert code == 2, (given, option, value)
            assert said.count("\n") == 1, (option, value, said)
            assert "mistake in npk" not in said, (option, value, said)
            assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == []
