"""`--json FILE` is alike in every command: the result that is printed, strict JSON, in a file."""

import json
import shutil

import numpy as np
import pytest
import typer
from test_report import build_run
from test_results import SUITE, SUM_SUITE, TRACK

import npk
from npk import cli
from npk.cli import options
from npk.cli.commands import app
from npk.results import (
    InspectReport,
    InvarianceSuite,
    KernelPlan,
    KernelReport,
    StoreReport,
    StudyPlan,
    StudyResult,
    TrackResult,
    kind_of,
)

COMMANDS = typer.main.get_command(app).commands
DRAWS = {"plot", "report"}  # they write a picture, or a page of a result that is there


@pytest.fixture
def folder(tmp_path, monkeypatch):
    net = npk.networks.build("conv", input_shape=(1, 4, 4), classes=2, channels=[4, 3], seed=0)
    npk.save(net, tmp_path / "net.safetensors")
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 1, 4, 4), dtype=np.float32), np.arange(40) % 2
    np.savez(tmp_path / "data.npz", X=X, y=y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def run(*words):
    return cli.run([str(word) for word in words])


def test_every_command_that_finds_something_has_the_same_option():
    for name, command in COMMANDS.items():
        found = [p for p in command.params if "--json" in p.opts]
        assert bool(found) == (name not in DRAWS), name
        assert all(
            (p.is_flag, p.metavar, p.help) == (False, "FILE", "Write the result as JSON too.")
            for p in found
        )


def test_inspect(folder, capsys):
    assert run("inspect", "net.safetensors", "--data", "data.npz", "--json", "i.json") == 0
    found, net = InspectReport.load("i.json"), npk.load("net.safetensors")
    X = npk.data.load("data.npz").X
    graph, table = npk.trace(net, (1, 4, 4)), npk.record_gates(net, X)
    assert (found.of, found.data, found.samples) == ("net.safetensors", "data.npz", 40)
    assert found.input_shape == (1, 4, 4)
    assert [node.shape for node in found.nodes] == [tuple(node.shape) for node in graph.nodes]
    gated = [node for node in found.nodes if node.gates]
    for layer, node in zip(table, gated, strict=True):
        assert node.gates == layer[0].size
        assert node.dead == (~layer.any(0)).sum()
        assert node.always_on == layer.all(0).sum()
        assert node.on == pytest.approx(layer.mean())
    assert (found.gates, found.gate_layers) == (sum(node.gates for node in gated), len(gated))
    assert 10**found.log10_paths == pytest.approx(float(graph.path_count()))
    assert (found.steps, found.bias, found.shifted) == ((1, 1), "paths", False)
    assert [one.samples for one in found.kernels] == [1_000, 10_000, 60_000]
    cost = found.cost
    pairs, samples = cost.seconds_a_pair * 1_000 * 1_001 / 2, cost.seconds_a_sample * 1_000
    assert found.kernels[0].seconds == pytest.approx(cost.before + samples + pairs)
    assert found.kernels[0].bytes == 4 * 1_000**2
    (note,) = found.notes
    said = capsys.readouterr().out
    assert note in said
    assert f"for {found.shifts}" in " ".join(said.split())


def test_inspect_says_nothing_of_gates_on_random_samples(folder):
    assert run("inspect", "net.safetensors", "--json", "i.json") == 0
    found = InspectReport.load("i.json")
    assert (found.data, found.notes) == ("", ())
    assert all(node.dead is None and node.on is None for node in found.nodes)
    assert any(node.gates for node in found.nodes)


@pytest.mark.parametrize("name", ["K.npy", "K.zarr"])
def test_kernel(folder, capsys, name):
    words = "kernel", "net.safetensors", "--data", "data.npz", "--out", name
    assert run(*words, "--json", "k.json", "--events", "--scale", "cosine") == 0
    found = KernelReport.load("k.json")
    assert (found.of, found.out) == ("net.safetensors", name)
    assert (found.rows, found.columns, found.dtype) == (40, 40, "float32")
    assert (found.scale, found.bias) == ("cosine", "paths")
    assert (found.tiles, found.earlier) == ((1, 0) if name == "K.zarr" else (None, None))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["text"] for event in told if event["event"] == "samples"] == list(found.notes)
    assert told[-1]["event"] == "done"
    assert run(*words, "--json", "k.json", "--scale", "cosine") == 0
    assert KernelReport.load("k.json").earlier == (1 if name == "K.zarr" else None)
    assert f"{name}: 40 x 40 float32" in capsys.readouterr().out


def test_dry_run_of_a_kernel(folder):
    words = ("--data", "data.npz", "--against", "data.npz[:7]", "--dry-run", "--json", "p.json")
    assert run("kernel", "net.safetensors", *words) == 0
    found = KernelPlan.load("p.json")
    assert (found.rows, found.columns, found.symmetric, found.tiles) == (40, 7, False, 1)
    pairs, samples = 40 * 7 * found.seconds_a_pair, 47 * found.seconds_a_sample
    assert found.seconds == pytest.approx(found.before + samples + pairs)
    assert found.bytes > found.bytes_of_gates > 0
    assert {path.name for path in folder.iterdir()} <= {
        *("net.safetensors", "data.npz", "p.json", "cache")
    }


def test_stores_sound_damaged_and_mended(folder, capsys):
    words = "verify-store", "K.zarr", "--json", "v.json"
    assert run("kernel", "net.safetensors", "--data", "data.npz", "--out", "K.zarr") == 0
    assert run(*words) == 0
    found = StoreReport.load("v.json")
    assert (found.path, found.content) == ("K.zarr", "40 x 40 float32, 1 tiles")
    assert (found.missing, found.damaged, found.dropped) == (0, (), False)
    tile = max((folder / "K.zarr" / "tiles").rglob("*"), key=lambda path: path.stat().st_size)
    tile.write_bytes(tile.read_bytes()[:-8] + bytes(8))
    assert run(*words) == 2
    assert StoreReport.load("v.json").damaged == ("tile (0, 0)",)
    assert "K.zarr is damaged: tile (0, 0)" in capsys.readouterr().err
    assert run(*words, "--drop") == 0
    assert StoreReport.load("v.json").dropped
    assert run(*words) == 0
    assert StoreReport.load("v.json").missing == 1


def test_dry_run_of_a_study(folder, capsys):
    words = ("--data", "data.npz", "--n", "4", "--splits", 2, "--dry-run", "--json", "p.json")
    assert run("study", "net.safetensors", *words) == 0
    found = StudyPlan.load("p.json")
    assert (found.sizes, found.splits) == ((4,), 2)
    assert [one.network for one in found.networks] == ["net"]
    assert found.seconds == sum(one.seconds for one in found.networks)


def test_what_is_in_the_folder_of_a_run_is_in_the_file(folder, monkeypatch):
    study = build_run()
    monkeypatch.setattr("npk.demo.run", lambda out, **asked: study)
    monkeypatch.setattr("npk.studies.asking.conduct", lambda *asked: study)
    monkeypatch.setattr("npk.tracks.conduct", lambda *asked: TRACK)
    monkeypatch.setattr("npk.bench.invariance.run", lambda *asked, **options: SUITE)
    monkeypatch.setattr("npk.bench.ensemble.run", lambda *asked, **options: SUM_SUITE)
    run("demo", "--json", "demo.json")
    assert StudyResult.load("demo.json") == study
    run("study", "net.safetensors", "--data", "data.npz", "--json", "study.json")
    assert StudyResult.load("study.json") == study
    (folder / "epochs").mkdir()
    for epoch in range(2):
        shutil.copy("net.safetensors", f"epochs/epoch-{epoch}.safetensors")
    run("track", "epochs", "--data", "data.npz", "--json", "track.json")
    assert TrackResult.load("track.json") == TRACK
    run("bench", "invariance", "--json", "suite.json")
    assert InvarianceSuite.load("suite.json") == SUITE
    run("bench", "ensemble", "--json", "sums.json")
    assert kind_of("sums.json") == "EnsembleSuite"


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - DRAWS))
def test_a_place_that_cannot_be_written_is_refused_at_once(folder, capsys, name):
    ahead = {
        "bench": ["invariance"],
        "check": ["duality", "net.safetensors", "--data", "data.npz"],
        "demo": [],
        "gates": ["net.safetensors", "--statistics"],
        "kernel": ["net.safetensors", "--data", "data.npz", "--out", "K.npy"],
        "train": ["fc", "--data", "data.npz", "--out", "t.safetensors"],
        "track": [".", "--data", "data.npz"],
        "verify-store": ["."],
    }
    words = ahead.get(name, ["net.safetensors", "--data", "data.npz"])
    assert run(name, *words, "--json", "none/r.json") == 2
    assert "npk: cannot write none/r.json: there is no folder" in capsys.readouterr().err
    assert not list(folder.glob("K.npy"))


def test_an_option_is_no_file(folder, capsys):
    """`npk kernel --json` was a switch, and told events."""
    words = "kernel", "net.safetensors", "--data", "data.npz"
    for spelling in (["--out", "K.npy", "--json"], ["--json", "--out", "K.npy"]):
        assert run(*words, *spelling) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert options.JSON_IS_A_FILE in err
        assert not (folder / "K.npy").exists()
