"""The command line: every command does what its help says, on small networks and few samples."""

import dataclasses
import importlib
import json
import math
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from test_report import build_run, one_network
from torch import nn

import npk
from npk import cli
from npk.cli import reading, tables
from npk.cli.commands import app
from npk.cli.fitting import tried
from npk.cli.solvers import solver_named
from npk.machines import ridge
from npk.machines.approximate import feature_ridge
from npk.results import MODELS, CheckResult, FitReport, InspectReport, Node

COMMANDS = [
    command.name or command.callback.__name__.replace("_", "-")
    for command in app.registered_commands
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of a network that knows its shape, and one of a residual network."""
    found = tmp_path_factory.mktemp("cli")
    net = npk.networks.build(
        "conv", input_shape=(1, 8, 8), classes=10, channels=[8, 8], strides=[2, 2], seed=1
    )
    npk.save(net, found / "conv.safetensors")
    npk.save(
        npk.networks.build(
            "fc", kind="dlgn", input_shape=(1, 8, 8), classes=10, hidden=[6], seed=2
        ),
        found / "dlgn.safetensors",
    )
    return found


@pytest.fixture
def npk_command(capsys, monkeypatch, folder):
    """Run a command line in this process; gives exit code, standard output and standard error."""
    monkeypatch.chdir(folder)

    def call(*arguments):
        code = cli.run([str(argument) for argument in arguments])
        return (code, *capsys.readouterr())

    return call


def done(result):
    code, out, err = result
    assert code == 0, err
    assert [line for line in err.splitlines() if not line.startswith("plan: ")] == []
    return out


def test_commands_are_those_of_the_design():
    assert COMMANDS == [
        "demo",
        "train",
        "inspect",
        "gates",
        "kernel",
        "verify-store",
        "fit",
        "check",
        "report",
        "bench",
        "spectrum",
        "plot",
        "lesions",
        "study",
        "track",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_one_example(npk_command, command):
    out = done(npk_command(command, "--help"))
    assert out.count("Example: npk " + command) == 1


def test_no_command_is_the_help(npk_command):
    assert done(npk_command()) == done(npk_command("--help"))


def test_version(npk_command):
    assert done(npk_command("--version")) == f"npk {npk.__version__}\n"


def test_module_and_help_load_nothing_heavy():
    heavy = ("torch", "numba", "zarr", "scipy", "matplotlib", "sklearn")
    code = (
        f"import sys; from npk import cli; cli.run(['kernel', '--help']); print([name for name "
        f"in {heavy} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.endswith("[]\n")


def test_python_m_npk():
    found = subprocess.run(
        [sys.executable, "-m", "npk", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stdout == f"npk {npk.__version__}\n"


def test_main_exits_with_the_code_of_the_run(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["npk", "frob"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()


def test_train_saves_a_network_with_its_accuracy(npk_command, tmp_path):
    out = tmp_path / "net.safetensors"
    said = done(
        npk_command(
            "train",
            "fc",
            "--kind",
            "dgn",
            "--data",
            "digits[:400]",
            "--out",
            out,
            "--epochs",
            4,
            "--option",
            "hidden=16,8",
            "--seed",
            3,
        )
    )
    details, net = npk.checkpoint.read_details(out), npk.load(out)
    assert net.architecture["hidden"] == [16, 8]
    assert net.architecture["kind"] == "dgn"
    test = npk.data.split(npk.data.load("digits[:400]"), test=0.25, seed=3)[1]
    with torch.no_grad():
        right = (net(torch.from_numpy(test.X)).argmax(1).numpy() == test.y).mean()
    assert details["accuracy"] == pytest.approx(right)
    assert details["data"] == "digits[:400]"
    assert details["seed"] == 3
    assert f"test accuracy {100 * right:.1f} % (100 samples)" in said


def test_train_copies_the_gates_of_a_trained_network(npk_command, tmp_path):
    first, second = tmp_path / "dnn.safetensors", tmp_path / "flnpf.safetensors"
    options = ["--data", "digits[:200]", "--epochs", 1, "--option", "hidden=[8]"]
    done(npk_command("train", "fc", "--out", first, *options))
    done(
        npk_command(
            "train",
            "fc",
            "--kind",
            "dgn",
            "--regime",
            "flnpf",
            "--features",
            first,
            "--option",
            "gates=hard",
            "--out",
            second,
            *options,
        )
    )
    lent, got = npk.load(first), npk.load(second)
    X = npk.data.load("digits[:20]").X
    np.testing.assert_array_equal(npk.record_gates(lent, X)[0], npk.record_gates(got, X)[0])


def test_inspect_shows_graph_gates_and_cost(npk_command):
    out = done(npk_command("inspect", "conv.safetensors", "--data", "digits[:40]"))
    net = npk.load("conv.safetensors")
    graph, table = npk.trace(net, (1, 8, 8)), npk.record_gates(net, npk.data.load("digits[:40]").X)
    lines = [line.split() for line in out.splitlines()]
    assert ["0", "input", "1x8x8"] in [[line[0], *line[2:4]] for line in lines if line]
    assert f"10^{np.log10(graph.path_count()):.1f} paths reach one output unit" in out
    row = next(line for line in lines if table.names[0] in line)
    on = table[0].mean(0)
    assert row[2:4] == ["gate", "8x4x4"]
    assert row[5:] == [
        str(on.size),
        str((on == 0).sum()),
        str((on == 1).sum()),
        f"{100 * on.mean():.1f}",
        "%",
    ]
    assert "1000 x 1000" in out
    assert "60000 x 60000" in out


def test_inspect_tells_shifts_and_the_plan(npk_command):
    out = done(npk_command("inspect", "conv.safetensors"))
    assert (
        "circular shifts by multiples of 4: stride 2 at value.layers.0; stride 2 at value.layers.2"
    ) in out
    assert "forms 3 masks a sample and computes 3 fields on 403 pairs of positions" in out
    assert re.search(r"numbers: measured [\d.]+ .?s", out)
    assert re.search(r"its masks: measured [\d.]+ .?s\nbefore the first tile: [\d.]+ .?s", out)
    assert "always on" not in out


def test_operators_are_broken_between_words(npk_command, monkeypatch, tmp_path, capsys):
    """A notebook shows commands in 80 columns."""
    place = tmp_path / "i.json"
    done(npk_command("inspect", "conv.safetensors", "--data", "digits[:9]", "--json", place))
    source = "activation.py:1432"
    node = Node(10, "10.conv1", "convolution 3x3, padding 1", (8, 8, 8), source, 512, 10, 23, 0.5)
    found = dataclasses.replace(InspectReport.load(place), nodes=(node,) * 12)
    monkeypatch.setattr(tables, "console", lambda: Console(width=80, color_system=None))
    tables.graph(found)
    shown = capsys.readouterr().out
    assert shown.count("convolution ") == 12
    assert shown.count("50.0 %") == 12
    assert max(map(len, shown.splitlines())) <= 80


def test_inspect_looks_whether_gates_from_outside_move(npk_command, tmp_path):
    net = npk.networks.build(
        "conv", kind="dlgn", input_shape=(1, 8, 8), classes=10, channels=[4, 4], seed=1
    )
    npk.save(net, tmp_path / "dlgn.safetensors")
    out = done(npk_command("inspect", tmp_path / "dlgn.safetensors"))
    assert "all circular shifts" in out
    assert (
        "the gates of 2 layers that come from outside move with the input too, as they do on 4 "
        "samples"
    ) in out


def test_inspect_needs_no_data_for_a_known_shape(npk_command):
    out = done(npk_command("inspect", "dlgn.safetensors"))
    assert "6 gates in 1 layers" in out


def test_inspect_takes_a_foreign_state_dict(npk_command, tmp_path, monkeypatch):
    (tmp_path / "foreign_arch.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), "
        "nn.Linear(4, 2))\n"
    )
    torch.save(
        nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).state_dict(), tmp_path / "net.pt"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    out = done(
        npk_command(
            "inspect", tmp_path / "net.pt", "--arch", "foreign_arch:make", "--input-shape", "3"
        )
    )
    assert "4 gates in 1 layers" in out
    code, _, err = npk_command("inspect", tmp_path / "net.pt", "--arch", "foreign_arch:make")
    assert (code, err) == (
        2,
        "npk: the checkpoint does not say the shape of a sample. Give "
        "--input-shape, such as 1,8,8, or --data.\n",
    )


def test_kernel_of_a_subset_is_that_of_the_split(npk_command, tmp_path):
    out = done(
        npk_command(
            "kernel",
            "conv.safetensors",
            "--data",
            "digits[:80]",
            "--subset",
            "train",
            "--out",
            tmp_path / "K.zarr",
            "--seed",
            5,
        )
    )
    train, test = npk.data.split(npk.data.load("digits[:80]"), test=0.25, seed=5)
    net = npk.load("conv.safetensors")
    np.testing.assert_array_equal(
        np.asarray(npk.Gram.load(tmp_path / "K.zarr")), npk.kernel(net, train.X)
    )
    assert "60 x 60 float32" in out
    sides = [
        "--data",
        "digits[:80]",
        "--subset",
        "test",
        "--against",
        "digits[:80]",
        "--against-subset",
        "train",
        "--seed",
        5,
    ]
    done(
        npk_command(
            "kernel",
            "conv.safetensors",
            *sides,
            "--scale",
            "cosine",
            "--dtype",
            "float64",
            "--out",
            tmp_path / "K.npy",
        )
    )
    expected = npk.kernel(net, test.X, train.X, scale="cosine", dtype="float64")
    np.testing.assert_array_equal(np.load(tmp_path / "K.npy"), expected)


def test_kernel_of_gate_tables_is_that_of_the_network(npk_command, tmp_path):
    rows, cols = tmp_path / "rows.gates", tmp_path / "cols.gates"
    done(npk_command("gates", "conv.safetensors", "--data", "digits[:12]", "--out", rows))
    done(npk_command("gates", "conv.safetensors", "--data", "digits[12:17]", "--out", cols))
    done(npk_command("kernel", rows, "--against", cols, "--out", tmp_path / "K.npy"))
    X = npk.data.load("digits[:17]").X
    np.testing.assert_array_equal(
        np.load(tmp_path / "K.npy"), npk.kernel(npk.load("conv.safetensors"), X[:12], X[12:])
    )


def test_statistics_of_gates(npk_command, tmp_path):
    told = ["--statistics", "--json", tmp_path / "gates.json"]
    out = done(npk_command("gates", "conv.safetensors", "--data", "digits[:12]", *told))
    table = npk.record_gates(npk.load("conv.safetensors"), npk.data.load("digits[:12]").X)
    expected = npk.measures.gate_statistics(table)
    report = npk.measures.GateReport.load(tmp_path / "gates.json")
    assert report.statistics == expected
    assert report.naswot == pytest.approx(npk.measures.naswot(table), rel=1e-12)
    assert "gates on 12 samples" in out
    for layer in expected.layers:
        (row,) = [line.split() for line in out.splitlines() if line.startswith(layer.name)]
        assert row[-1] == f"{layer.entropy:.3f}"
        assert {"gate", "x".join(map(str, layer.shape)), str(layer.dead)} <= set(row)
    assert f"NASWOT of the first 12 samples: {report.naswot:.2f}" in out
    done(npk_command("gates", "conv.safetensors", "--data", "digits[:12]", "--out", tmp_path / "G"))
    assert done(npk_command("gates", tmp_path / "G", "--statistics")) == without_accuracy(out)
    soft = done(npk_command("gates", "dlgn.safetensors", "--data", "digits[:5]", "--statistics"))
    assert "NASWOT of the first 5 samples: none, for NASWOT counts gates that are on or off" in soft


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["conv.safetensors", "--data", "digits"], "--out is missing: it names the folder"),
        (["conv.safetensors", "--statistics"], "--data is missing: it names the samples to record"),
        (["conv.safetensors", "--data", "digits", "--out", "G", "--json", "J"], "Add --statistics"),
        (
            ["rows.gates", "--data", "digits", "--statistics"],
            "is a gate table and holds its samples",
        ),
    ],
)
def test_gates_that_nothing_is_done_with(npk_command, tmp_path, arguments, text):
    if arguments[0] == "rows.gates":
        done(
            npk_command("gates", "conv.safetensors", "--data", "digits[:3]", "--out", arguments[0])
        )
    code, _, err = npk_command("gates", *arguments)
    assert code == 2
    assert text in err


def test_a_second_kernel_run_uses_the_tiles(npk_command, tmp_path):
    command = ["kernel", "dlgn.safetensors", "--data", "digits[:20]", "--out", tmp_path / "K.zarr"]
    assert "earlier" not in done(npk_command(*command))
    assert "1 of 1 tiles from an earlier run" in done(npk_command(*command))


def test_dry_run_as_an_event(npk_command):
    (found,) = events(
        done(
            npk_command(
                "kernel", "dlgn.safetensors", "--data", "digits[:20]", "--dry-run", "--events"
            )
        )
    )
    assert (found["event"], found["n"], found["m"], found["tiles"], found["side"]) == (
        "plan",
        20,
        20,
        1,
        1024,
    )
    assert found["seconds"] > 0
    assert found["bytes"] > 0


def test_dry_run_tells_the_plan_and_writes_nothing(npk_command, tmp_path):
    out = done(
        npk_command(
            "kernel",
            "dlgn.safetensors",
            "--data",
            "digits[:1200]",
            "--dry-run",
            "--out",
            tmp_path / "K.zarr",
        )
    )
    assert "1200 x 1200 float32, one triangle: 3 tiles of at most 1024 x 1024" in out
    time = r"[\d.]+ .?s"
    told = rf"time about {time}: {time} before the first tile, then measured {time} a sample and {time}"
    assert re.search(told, out)
    assert list(tmp_path.iterdir()) == []


def events(out):
    """All but what is said of the samples, which is first."""
    told = [json.loads(line) for line in out.splitlines()]
    return [event for event in told if event["event"] != "samples"]


def without_accuracy(out):
    """What is printed beside the accuracy of the network itself, which comes first."""
    return "".join(line for line in out.splitlines(True) if "the network itself" not in line)


@pytest.mark.parametrize("name", ["K.zarr", "K.npy"])
def test_kernel_tells_events(npk_command, tmp_path, name):
    command = [
        "kernel",
        "dlgn.safetensors",
        "--data",
        "digits[:20]",
        "--events",
        "--out",
        tmp_path / name,
    ]
    code, out, err = npk_command(*command)
    assert (code, err) == (0, "")
    told = events(out)
    (plan,) = (event for event in told if event["event"] == "plan")
    assert plan.items() >= {"n": 20, "m": 20, "tiles": 1, "todo": 1}.items()
    of_tiles = [event["event"] for event in told if event.get("task") == "kernel tiles"]
    assert (of_tiles[0], of_tiles[-1], told[-1]["event"]) == ("begin", "end", "done")
    assert "progress" in of_tiles
    assert told[-1]["out"] == str(tmp_path / name)
    assert told[-1]["shape"] == [20, 20]
    if name == "K.zarr":
        assert events(npk_command(*command)[1])[-1].items() >= {"tiles": 1, "earlier": 1}.items()
        code, out, err = npk_command(*command, "--scale", "cosine")
        assert (code, events(out)) == (2, [])
        assert re.fullmatch(r"npk: [^\n]*K.zarr holds another kernel: --scale is [^\n]*\n", err)


@pytest.fixture
def process(monkeypatch):
    """A process of 300 MB, and of 1 MB more at every look."""
    peaks = iter(range(300 * 10**6, 400 * 10**6, 10**6))
    monkeypatch.setattr("npk.cli.writing.peak_of_process", lambda: next(peaks))


@pytest.fixture(scope="module")
def rows(folder):
    """A gate table of the first samples, as `npk kernel` takes it."""
    npk.record_gates(npk.load(folder / "conv.safetensors"), npk.data.load("digits[:50]").X).save(
        folder / "rows.gates"
    )
    return ["rows.gates"]


@pytest.mark.parametrize("name", ["K.zarr", "K.npy"])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("gates", [False, True])
def test_the_smallest_budget_that_is_named_works(
    npk_command, tmp_path, process, rows, gates, wide, name
):
    """Though the process is a little larger the next time."""
    sides = (
        [*rows, *["--against", "rows.gates"] * wide]
        if gates
        else ["conv.safetensors", "--data", "digits[:50]"]
    )
    sides += ["--against", "digits[50:80]"] * (wide and not gates)
    command = ["kernel", *sides, "--out", tmp_path / name, "--memory"]
    code, out, err = npk_command(*command, "1kB")
    assert (code, without_accuracy(out)) == (2, "")
    found = re.fullmatch(
        r"npk: --memory 1000 bytes is too little for 50 x \d+ samples: the smallest "
        r"that works is (\d+) .*\n",
        err,
    )
    assert 300 * 10**6 < int(found[1]) < 320 * 10**6
    assert list(tmp_path.iterdir()) == []
    done(npk_command(*command, found[1]))


def test_gates_are_not_read_for_a_budget_that_is_too_small(
    npk_command, tmp_path, process, rows, monkeypatch
):
    from npk.gates.store import GateStore

    take = GateStore.take
    monkeypatch.setattr(
        GateStore,
        "take",
        lambda self, rows: (
            take(self, rows) if rows != slice(None) else pytest.fail("all gates were read")
        ),
    )
    code, _, err = npk_command("kernel", *rows, "--out", tmp_path / "K.npy", "--memory", "1kB")
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "name", ["K.zarr", "K.npy", pytest.param("old.zarr", marks=pytest.mark.slow)]
)
def test_dry_runs_tell_the_plan_of_the_run(npk_command, tmp_path, monkeypatch, name):
    monkeypatch.setattr("npk.cli.writing.peak_of_process", lambda: 3 * 10**8)
    command = [
        "kernel",
        "dlgn.safetensors",
        "--data",
        "digits[:100]",
        "--out",
        tmp_path / name,
        "--memory",
    ]
    if name == "old.zarr":
        monkeypatch.setattr("npk.gram.tiles._LARGEST", 16)
        done(
            npk_command(
                "kernel", "dlgn.safetensors", "--data", "digits[:70]", "--out", tmp_path / name
            )
        )
        monkeypatch.setattr("npk.gram.tiles._LARGEST", 1024)
    least = re.search(r"works is (\d+)", npk_command(*command, 1)[2])[1]
    for memory in (least, int(least) + 10**6):
        said = done(npk_command(*command, memory, "--dry-run"))
        tiles, side = map(int, re.search(r"(\d+) tiles of at most (\d+) x", said).groups())
        told = next(
            event
            for event in events(npk_command(*command, memory, "--events")[1])
            if event["event"] == "plan"
        )
        assert (told["tiles"], told["side"]) == (tiles, side)
        if told["todo"]:  # of a finished store nothing is compiled, so that nothing is known
            assert f"memory at most {tables.si(told['bytes'])}B" in said
        (tmp_path / "K.npy").unlink(missing_ok=True)
        shutil.rmtree(tmp_path / "K.zarr", ignore_errors=True)


def test_dry_runs_refuse_a_store_of_something_else(npk_command, tmp_path):
    command = ["kernel", "dlgn.safetensors", "--data", "digits[:20]", "--out", tmp_path / "K.zarr"]
    done(npk_command(*command))
    code, out, err = npk_command(*command, "--dry-run", "--scale", "count")
    assert (code, without_accuracy(out)) == (2, "")
    assert "K.zarr holds another kernel: --scale is 'fan_in' there and 'count' here" in err


def test_a_cluster_writes_no_file(npk_command, tmp_path):
    code, out, err = npk_command(
        "kernel",
        "dlgn.safetensors",
        "--data",
        "digits[:9]",
        "--out",
        tmp_path / "K.npy",
        "--dask",
        "tcp://x:1",
    )
    assert (code, out) == (2, "")
    assert re.fullmatch(
        r"npk: --dask needs a store that all workers write to, \S*K.npy is one "
        r"file. Give --out K.zarr.\n",
        err,
    )


@pytest.mark.parametrize(
    ("platform", "unit"), [("linux", 1024), ("darwin", 1), ("freebsd14", 1024)]
)
@pytest.mark.parametrize("status", [None, "VmRSS:  5 kB\n"])
def test_the_peak_where_proc_does_not_tell(monkeypatch, tmp_path, platform, unit, status):
    """Some sandboxes have the file without the line."""
    import resource

    from npk.cli import writing
    from npk.errors import BackendError

    if status is not None:
        (tmp_path / "status").write_text(status)
    monkeypatch.setattr(writing, "Path", lambda _: tmp_path / "status")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=7000))
    assert writing.peak_of_process() == 7000 * unit
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=0))
    with pytest.raises(
        BackendError,
        match="this system does not tell how much memory a process takes. Leave --memory out",
    ):
        writing.peak_of_process()
    (tmp_path / "status").write_text("VmRSS:  5 kB\nVmHWM:\t  123 kB\n")
    assert writing.peak_of_process() == 123 * 1024


@pytest.mark.parametrize("solver", ["ridge", "svm"])
def test_fit_gives_the_accuracy_of_the_estimator(npk_command, tmp_path, solver):
    out = done(
        npk_command(
            "fit",
            "conv.safetensors",
            "--data",
            "digits[:160]",
            "--solver",
            solver,
            "--seed",
            1,
            "--json",
            tmp_path / "a.json",
        )
    )
    train, test = npk.data.split(npk.data.load("digits[:160]"), test=0.25, seed=1)
    machine = (npk.NPKSVC if solver == "svm" else npk.NPKRidgeClassifier)(
        npk.load("conv.safetensors")
    ).fit(train.X, train.y)
    report = FitReport.load(tmp_path / "a.json")
    found = report.machine
    assert found.accuracy == pytest.approx(machine.score(test.X, test.y))
    assert found.parameters == pytest.approx(
        {"C": machine.C_, "support vectors": len(machine.support_)}
        if solver == "svm"
        else {"alpha": machine.alpha_}
    )
    assert found.network == "conv"
    assert f"test accuracy {tables.percent(found.accuracy)}" in out
    net = npk.load("conv.safetensors")
    with torch.no_grad():
        own = (net(torch.as_tensor(test.X)).argmax(1).numpy() == test.y).mean()
    assert report.network == pytest.approx(own)
    assert report.bias == machine.bias_
    assert (report.of, report.data) == ("conv.safetensors", "digits[:160]")
    assert (report.samples_training, report.samples_test) == (len(train), len(test))
    assert report.on_training == pytest.approx(machine.score(train.X, train.y))


def test_fit_by_a_gaussian_process(npk_command, tmp_path):
    place = tmp_path / "a.json"
    command = "fit", "conv.safetensors", "--data", "digits[:120]", "--solver", "gp"
    out = done(npk_command(*command, "--json", place))
    found = FitReport.load(place).machine
    assert set(found.parameters) == {"alpha", "amplitude", "log likelihood"}
    assert found.accuracy > 0.7
    assert "NPK-GP with alpha" in out


def features_of(solver, net, seed):
    if solver == "features":
        return npk.RandomPathFeatures(net, 30, random_state=seed)
    return npk.NPKNystroem(net, 30, random_state=seed)


@pytest.mark.parametrize("solver", ["nystroem", "features"])
def test_fit_on_features_is_ridge_on_those_of_the_estimator(npk_command, tmp_path, solver):
    place = tmp_path / "a.json"
    command = ["fit", "conv.safetensors", "--data", "digits[:160]", "--solver", solver]
    out = done(npk_command(*command, "--components", 30, "--seed", 1, "--json", place))
    found = FitReport.load(place).machine
    train, test = npk.data.split(npk.data.load("digits[:160]"), test=0.25, seed=1)
    made = features_of(solver, npk.load("conv.safetensors"), 1)
    targets, classes = ridge.signed_targets(train.y)
    machine = feature_ridge.fit(made.fit_transform(train.X), targets, criterion="accuracy")
    said = ridge.classified(made.transform(test.X) @ machine.weights, classes)
    assert found.accuracy == pytest.approx(np.mean(said == test.y))
    assert found.accuracy > 0.3
    wanted = {"components": 30.0, "alpha": machine.alpha}
    if solver == "nystroem":
        wanted["share left out"] = pytest.approx(made.residual_trace_ / made.trace_)
    assert found.parameters == wanted
    assert f"{found.model} with components 30" in out


def test_components_if_nothing_is_said(npk_command, tmp_path):
    """All samples are landmarks where there are fewer: then it is ridge on the kernel."""
    command = "fit", "conv.safetensors", "--data", "digits[:120]", "--dtype", "float64", "--json"
    done(npk_command(*command, tmp_path / "a.json", "--solver", "nystroem"))
    done(npk_command(*command, tmp_path / "b.json"))
    found, exact = (FitReport.load(tmp_path / name).machine for name in ("a.json", "b.json"))
    assert found.parameters["components"] <= 90
    assert found.parameters["share left out"] < 1e-9
    assert found.parameters["alpha"] == pytest.approx(exact.parameters["alpha"])
    assert found.accuracy == exact.accuracy


@pytest.mark.parametrize("solver", ["nystroem", "features"])
def test_features_beside_baselines(npk_command, tmp_path, solver):
    place = tmp_path / "a.json"
    command = ["fit", "conv.safetensors", "--data", "digits[:160]", "--solver", solver]
    asked = "--baselines", "network,untrained", "--components", 20, "--json", place
    done(npk_command(*command, *asked))
    found = FitReport.load(place)
    own, network, untrained = found.accuracies
    assert untrained.parameters["components"] == 20
    assert [one.against for one in found.differences] == ["network", "untrained"]
    assert found.differences[0].difference == pytest.approx(own.accuracy - network.accuracy)


def test_fit_beside_baselines(npk_command, tmp_path):
    place = tmp_path / "a.json"
    command = "fit", "conv.safetensors", "--data", "digits[:160]", "--baselines", "all"
    out = done(npk_command(*command, "--json", place))
    found = FitReport.load(place)
    names = [one.model for one in found.accuracies]
    assert names == ["NPK-ridge", "network", "penultimate", "untrained", "RBF", "logistic"]
    own = found.accuracies[0]
    for row, difference in zip(found.accuracies[1:], found.differences, strict=True):
        assert difference.against == row.model
        assert difference.difference == pytest.approx(own.accuracy - row.accuracy)
        share = row.accuracy
        assert row.error == pytest.approx(np.sqrt(share * (1 - share) / found.samples_test))
        assert f"{MODELS[row.model]}: {tables.percent(share)} (95 %: " in out
    test = npk.data.split(npk.data.load("digits[:160]"), test=0.25, seed=0)[1]
    net = npk.load("conv.safetensors")
    said = net(torch.as_tensor(test.X)).argmax(1).numpy()
    assert found.accuracies[1].accuracy == pytest.approx(np.mean(said == test.y))


def test_fit_with_a_test_set_of_its_own(npk_command):
    out = done(
        npk_command("fit", "dlgn.safetensors", "--data", "digits[:60]", "--test", "digits[60:75]")
    )
    assert "15 test and 60 training samples" in out
    share = float(re.search(r"test accuracy ([\d.]+) %", out)[1]) / 100
    low, high = (f"{100 * end:.1f}" for end in tables.wilson(round(share * 15) / 15, 15))
    assert f" % (95 %: {low} to {high}), training" in out


@pytest.mark.parametrize("right", [0, 7, 20])
def test_an_interval_of_an_accuracy(right):
    """Its ends are where the normal approximation at the true share just allows what was seen."""
    low, high = tables.wilson(right / 20, 20)
    assert 0 <= low < high <= 1
    for end in (low, high):
        if 1e-12 < end < 1 - 1e-12:
            assert abs(right / 20 - end) == pytest.approx(1.96 * math.sqrt(end * (1 - end) / 20))
    assert (low > 1e-12) == (right > 0)
    assert (high < 1 - 1e-12) == (right < 20)


def test_an_accuracy_of_all_has_no_error_of_0(rng):
    y = np.arange(12) % 2
    X = rng.standard_normal((12, 3))
    K = np.where(y[:, None] == y, 1.0, 0.0) + 1e-3 * X @ X.T
    problem = SimpleNamespace(matrices=lambda: (K, K), backend="reference")
    found = tried(solver_named("ridge"), problem, (y, y), "net", 0.0)
    assert (found.test.accuracy, found.test.error) == (1, None)


@pytest.mark.parametrize("name", ["duality", "invariance"])
def test_check_says_what_it_measured(npk_command, tmp_path, name):
    code, out, err = npk_command(
        "check",
        name,
        "conv.safetensors",
        "--data",
        "digits",
        "--samples",
        2,
        "--json",
        tmp_path / "c.json",
    )
    found = CheckResult.load(tmp_path / "c.json")
    assert (found.name, found.network, found.passed) == (name, "conv", True)
    assert (code, err) == (0, "")
    assert f"tolerance {found.tolerance:.3g}: PASS" in out
    assert " ".join(f"{name}: {found.statement}".split()) in " ".join(out.split())


def test_check_of_the_ensemble(npk_command, tmp_path):
    net = npk.networks.build(
        "residual",
        input_shape=(4,),
        classes=3,
        flavor="fc",
        widths=[24, 24],
        block_layers=1,
        seed=0,
    )
    npk.save(net, tmp_path / "res.safetensors")
    np.save(tmp_path / "X.npy", np.random.default_rng(0).standard_normal((4, 4), dtype=np.float32))
    assert "PASS" in done(
        npk_command("check", "ensemble", tmp_path / "res.safetensors", "--data", tmp_path / "X.npy")
    )


def test_report_is_made_from_results_alone(npk_command, tmp_path):
    few = dataclasses.replace(one_network(), networks=())
    few.save(tmp_path / "results.json")
    out = done(
        npk_command(
            "report", tmp_path, "--out", tmp_path / "page.html", "--figures", tmp_path / "figures"
        )
    )
    assert "<html" in (tmp_path / "page.html").read_text()
    assert len(out.splitlines()) == 1 + len(list((tmp_path / "figures").iterdir()))


def test_a_report_is_written_where_the_run_wrote_it(npk_command, tmp_path):
    (tmp_path / "study").mkdir()
    dataclasses.replace(one_network(), networks=()).save(tmp_path / "study/results.json")
    page = tmp_path / "study/report.html"
    assert done(npk_command("report", tmp_path / "study")) == f"{page}\n"
    assert "<html" in page.read_text()
    page.unlink()
    page.mkdir()
    assert "it is a folder" in npk_command("report", tmp_path / "study")[2]


def test_demo_prints_what_the_run_found(npk_command, monkeypatch, tmp_path):
    run = build_run()
    asked = {}
    monkeypatch.setattr(
        "npk.demo.run", lambda out, **options: asked.update(options, out=out) or run
    )
    code, out, _ = npk_command("demo", "--out", tmp_path, "--seed", 7)
    assert (asked["out"], asked["seed"], asked["data"]) == (tmp_path, 7, "digits")
    assert code == (0 if all(check.passed for check in run.checks) else 1)
    for accuracy in run.accuracies:
        assert f"{100 * accuracy.accuracy:.1f} ± {100 * accuracy.error:.1f}" in out
    assert "After 30, 100 and 300 fresh samples, ridge regression" in out
    assert "note: check of ensemble left out for conv-gap dnn: no skip connections" in out
    assert str(tmp_path / "report.html") in out


def test_notes_are_one_line_and_no_error(npk_command, tmp_path, recwarn):
    X = np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)
    net = npk.networks.build("fc", input_shape=(1, 8, 8), classes=2, hidden=[3], bias=False, seed=0)
    for parameter in net.parameters():
        parameter.data.abs_()
    npk.save(net, tmp_path / "dead.safetensors")
    np.save(tmp_path / "X.npy", np.concatenate([X, np.zeros((1, 1, 8, 8), np.float32)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.filters", [])
        code, _, err = npk_command(
            "kernel",
            tmp_path / "dead.safetensors",
            "--data",
            tmp_path / "X.npy",
            "--out",
            tmp_path / "K.npy",
        )
    assert (code, err.splitlines()[1:]) == (
        0,
        ["npk: note: 1 of 5 samples have no active path: K(x, x) = 0."],
    )


def test_settings_read_json_lists_and_text():
    assert reading.settings(["channels=64,32", "bias=false", "readout=gap", "beta=2.5", "hidden=[3]"]) == {
        "channels": [64, 32], "bias": False, "readout": "gap", "beta": 2.5, "hidden": [3]
    }  # fmt: skip


def test_result_files_are_json(npk_command, tmp_path):
    done(
        npk_command(
            "check",
            "duality",
            "dlgn.safetensors",
            "--data",
            "digits[:3]",
            "--json",
            tmp_path / "c.json",
        )
    )
    assert json.loads((tmp_path / "c.json").read_text())["name"] == "duality"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (90, "90.0 s"), (600, "10.0 min"), (7201, "2.0 h"), (4e5, "4.6 days")],
)
def test_durations(seconds, text):
    assert tables.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.2e6, "3.2 M"), (12.0, "12 "), (0.004, "4 m"), (8.5e-6, "8.5 u"), (2e9, "2 G")],
)
def test_prefixes(value, text):
    assert tables.si(value) == text
