"""Tracks: the numbers of every epoch are those of its network by hand, and checkpoints stand in the
order of their epochs.
"""

import dataclasses
import json
import math
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from test_studies import network, samples

import npk
from npk import cli
from npk.errors import CheckpointError, DataError, OptionError, StoreError
from npk.report.track_page import _shade
from npk.results import TrackResult, kind_of
from npk.tracks import in_order, snapshots_of

EPOCHS = (0, 1, 3)
NAMES = ["epoch 0", "epoch 1", "epoch 3"]
OF = {"scale": "cosine", "bias": "paths", "progress": False}


@pytest.fixture(scope="module")
def training():
    """A small network, its snapshots and its curves."""
    net = network(seed=1)
    return npk.networks.train(
        net,
        samples(90, 7).X,
        samples(90, 7).y,
        epochs=3,
        snapshots=EPOCHS,
        learning_rate=0.05,
        seed=0,
        progress=False,
    )


@pytest.fixture(scope="module")
def found(training, tmp_path_factory):
    """A track, and its folder."""
    out = tmp_path_factory.mktemp("track")
    given = {"seen": False, "n": 24, "splits": 2, "progress": False}
    return npk.track(training, samples(200, 3), out=out, **given), out


def part(out, name):
    with np.load(out / f"{name}.npz") as file:
        return file["X"], file["y"]


def test_accuracies_are_those_of_each_network(found, training):
    result, out = found
    assert (result.epochs, [n.name for n in result.networks]) == (EPOCHS, NAMES)
    X_test, y_test = part(out, "test")
    for epoch in EPOCHS:
        net, shares = training.snapshots[epoch], []
        for k in range(2):
            X, y = part(out, f"fresh{k}")
            machine = npk.NPKRidgeClassifier(net, scale="cosine", bias="paths").fit(X, y)
            shares.append((machine.predict(X_test) == y_test).mean())
        by_model = {a.model: a for a in result.accuracies if a.network == f"epoch {epoch}"}
        assert set(by_model) == {"network", "penultimate", "trained"}
        assert by_model["trained"].by_split == pytest.approx(shares, abs=1e-12)
        own = net(torch.tensor(X_test)).argmax(1).numpy()
        assert by_model["network"].accuracy == (own == y_test).mean()
    ends = [a.accuracy for a in result.accuracies if a.model == "trained"]
    assert result.gain == pytest.approx(ends[-1] - ends[0], abs=1e-12)
    assert result.gain_error > 0


def test_the_way_is_that_of_kernels_and_gates(found, training):
    result, out = found
    X, _ = part(out, "fresh0")
    kernels = {e: npk.kernel(training.snapshots[e], X, **OF) for e in EPOCHS}
    gates = {e: npk.record_gates(training.snapshots[e], X) for e in EPOCHS}
    assert [(m.since, m.epoch) for m in result.from_start] == [(0, 1), (0, 3)]
    assert [(m.since, m.epoch) for m in result.steps] == [(0, 1), (1, 3)]
    for move in (*result.from_start, *result.steps):
        cka = npk.measures.cka(kernels[move.since], kernels[move.epoch])
        assert move.angle == pytest.approx(math.acos(min(1.0, cka)), abs=1e-5)
        assert move.angle_low <= move.angle <= move.angle_high
        assert move.velocity == move.angle / (move.epoch - move.since)
        pairs = zip(gates[move.since], gates[move.epoch], strict=True)
        assert move.flips == pytest.approx([(a != b).mean() for a, b in pairs], abs=1e-12)


def test_measures_and_curves_are_there(found, training):
    result, _ = found
    names = {(m.network, m.name) for m in result.measures}
    wanted = {"alignment", "effective rank", "class overlap", "activity", "dead", "NASWOT"}
    assert {(network, name) for network in NAMES for name in wanted} <= names
    assert result.curve_train == training.curve_train
    assert result.curve_validation == training.curve_validation
    assert [kernel.network for kernel in result.kernels] == NAMES
    assert all(not kernel.heat_pictures for kernel in result.kernels)


def test_what_was_found_is_in_the_folder(found, tmp_path):
    result, out = found
    assert TrackResult.load(out / "results.json").to_json() == result.to_json()
    assert kind_of(out / "results.json") == "TrackResult"
    drawn = {path.stem for path in (out / "figures").iterdir()}
    assert drawn == {"accuracy", "movement", "kernel", "heats", "layers"}
    page = (out / "report.html").read_text()
    assert "From epoch 0 to 3 ridge regression on the kernel of the gates" in page
    assert "No weight of the network has seen these samples." in page
    assert page.count('role="img"') == 10
    assert cli.run(["report", str(out), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text() == page


def test_a_second_run_goes_on_with_the_kernels(found, training, monkeypatch, tmp_path):
    result, out = found

    def refuse(*_, **__):
        raise AssertionError("computed again")

    monkeypatch.setattr("npk.gram.work.Work.tiles", refuse)
    given = {"seen": False, "n": 24, "splits": 2, "progress": False}
    again = npk.track(training.snapshots, samples(200, 3), out=out, **given)
    assert again.accuracies[0].by_split == result.accuracies[0].by_split
    assert (again.curve_train, again.from_start) == ([], result.from_start)


def test_soft_gates_do_not_flip_and_few_samples_have_no_angle(tmp_path):
    nets = {epoch: network("dlgn", seed=epoch) for epoch in (0, 2)}
    result = npk.track(nets, samples(40).X, n=6, splits=1, out=tmp_path, progress=False)
    (move,) = result.from_start
    assert (move.angle, move.level, move.layers, move.flips, move.velocity) == (
        None, None, (), (), None
    )  # fmt: skip
    assert (result.accuracies, result.gain, result.seen) == ((), None, "not known")
    assert "Neither accuracies nor distances were found." in (tmp_path / "report.html").read_text()


def test_a_folder_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = samples(120)
    np.savez("train.npz", X=whole.X, y=whole.y)
    words = ["train", "conv", "--data", "train.npz", "--option", "channels=4,4", "--epochs", "2"]
    words += ["--snapshots", "0,2", "--json", "t.json", "--out", "m.safetensors"]
    assert cli.run(words) == 0
    fresh = samples(80, 5)
    np.savez("fresh.npz", X=fresh.X, y=fresh.y)
    words = ["track", "m-epochs", "--data", "fresh.npz", "--fresh", "-n", "9", "--splits", "2"]
    assert cli.run([*words, "--curves", "t.json", "--out", "track"]) == 0
    result = TrackResult.load("track/results.json")
    assert (result.epochs, result.seen, result.size) == ((0, 2), "fresh", 9)
    trial = json.loads(Path("t.json").read_text())["trials"][0]["training"]
    assert result.curve_train == trial["curve_train"]
    assert "ridge regression on the kernel of the gates" in capsys.readouterr().out
    for one in (a for a in result.accuracies if a.model == "trained"):
        assert one.command.startswith("for k in 0 1; do npk fit ../m-epochs/epoch-")


def test_numbers_tell_the_order():
    files = [Path(f"run2-epoch{e}-loss0.{e % 2}.pt") for e in (10, 9, 100)]
    assert list(in_order([*files, Path("best.pt")])) == [9, 10, 100]


REFUSED = {
    "one checkpoint": (
        lambda _: in_order([Path("e1.pt"), Path("best.pt")]),
        DataError,
        "1 of 2 checkpoints have a number in their names",
    ),
    "numbers that are the same": (
        lambda _: in_order([Path("a1.pt"), Path("b1.pt")]),
        DataError,
        "no number tells the checkpoints a1.pt, b1.pt apart",
    ),
    "no folder": (lambda path: snapshots_of(path / "none"), CheckpointError, "none is no folder"),
    "an empty folder": (snapshots_of, CheckpointError, "is a folder without weights"),
    "one network": (
        lambda _: snapshots_of({0: network()}),
        DataError,
        "there is 1 network. A track needs two or more",
    ),
    "networks without epochs": (
        lambda _: snapshots_of([network(), network()]),
        OptionError,
        "a track is of networks by epoch, and this is list",
    ),
    "an epoch that is text": (
        lambda _: snapshots_of({"a": network(), "b": network()}),
        OptionError,
        "a track is of networks by epoch",
    ),
}


@pytest.mark.parametrize(("make", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_track_is_refused(make, error, text, tmp_path):
    with pytest.raises(error) as told:
        make(tmp_path)
    assert text in str(told.value)
    assert "\n" not in str(told.value)


def test_curves_of_other_trainings_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = samples(60)
    np.savez("train.npz", X=whole.X, y=whole.y)
    words = ["train", "conv", "--data", "train.npz", "--option", "channels=2,2", "--epochs", "1"]
    words += ["--snapshots", "0,1", "--seeds", "0,1", "--json", "t.json", "--out", "m.safetensors"]
    assert cli.run(words) == 0
    Path("m-seed0-epochs").rename("other")
    capsys.readouterr()
    assert cli.run(["track", "other", "--data", "train.npz", "--curves", "t.json"]) == 2
    told = capsys.readouterr().err
    assert "t.json tells of 2 trainings, and other is the folder of none of them" in told
    assert told.count("\n") == 1


def test_epochs_ascend(found):
    with pytest.raises(DataError, match=r"epochs are \(3, 1\), and must ascend"):
        dataclasses.replace(found[0], epochs=(3, 1))


def test_what_is_no_result_has_no_kind(tmp_path):
    assert kind_of(tmp_path / "none.json") == ""
    (tmp_path / "bad.json").write_text("[")
    assert kind_of(tmp_path / "bad.json") == ""
    with pytest.raises(StoreError, match="cannot read"):
        TrackResult.load(tmp_path / "none.json")


def test_layers_are_seen_on_light_and_on_dark_pages():
    """Of several layers the darkest and the lightest differ from both papers by a contrast of 2."""

    def light(color):
        parts = np.array(to_rgb(color))
        linear = np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return 0.05 + linear @ (0.2126, 0.7152, 0.0722)

    page = resources.files("npk.report").joinpath("templates/page.css").read_text()
    papers = [light(paper) for paper in re.findall(r"--paper: (#\w{6});", page)]
    assert len(papers) == 2
    for place in range(5):
        shade = light(_shade(place, "abcde")["color"][:3])
        assert min(max(shade, paper) / min(shade, paper) for paper in papers) > 2
