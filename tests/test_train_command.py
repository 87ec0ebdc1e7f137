"""`npk train`: one seed or several, a test set of its own, snapshots, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import npk
from npk import cli
from npk.cli.training import TrainReport
from npk.networks.options import CHOICES

FEW = ("--epochs", 3, "--option", "hidden=[8]", "--batch-size", 16)


def accuracy(net, X, y):
    with torch.no_grad():
        return float((net(torch.as_tensor(X)).argmax(1).numpy() == y).mean())


@pytest.fixture
def npk_train(capsys, monkeypatch, tmp_path):
    """Run ``npk train fc`` in this process; gives exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = cli.run(["train", "fc", *map(str, arguments)])
        return (code, *capsys.readouterr())

    return call


def done(result):
    code, out, err = result
    assert (code, err) == (0, "")
    return out


def test_the_curve_is_printed_and_in_the_file(npk_train):
    options = ("--data", "digits[:200]", "--out", "a.safetensors", "--json", "a.json")
    out = done(npk_train(*options, *FEW))
    report = TrainReport.load("a.json")
    (trial,) = report.trials
    went = trial.training
    assert (report.data, report.test, report.test_samples) == ("digits[:200]", "", 50)
    assert (report.accuracy, report.standard_error) == (trial.accuracy, None)
    assert (went.select, went.best_epoch, went.epochs) == ("last", 3, 3)
    rows = [line.split() for line in out.splitlines()[1:] if line]
    assert rows[0][:3] == ["epoch", "training", "loss"]
    curves = zip(went.curve_train, went.curve_validation_loss, went.curve_validation, strict=True)
    assert rows[1:] == [
        [str(epoch), f"{loss:.3g}", f"{held:.3g}", f"{100 * share:.1f}", "%"]
        for epoch, (loss, held, share) in enumerate(curves, 1)
    ]
    assert "epoch 3 of 3 (the last one)" in out
    assert json.loads(Path("a.json").read_text())["trials"][0]["training"]["curve_train"]


def test_several_seeds_have_a_network_each_and_their_mean(npk_train):
    options = ("--data", "digits[:200]", *FEW, "--validation", 0, "--json", "a.json")
    out = done(npk_train(*options, "--seeds", "0,3,5", "--out", "a.safetensors"))
    report = TrainReport.load("a.json")
    rights = [trial.accuracy for trial in report.trials]
    assert [trial.seed for trial in report.trials] == [0, 3, 5]
    assert report.accuracy == pytest.approx(np.mean(rights))
    assert report.standard_error == pytest.approx(np.std(rights, ddof=1) / np.sqrt(3))
    mean, error = 100 * report.accuracy, 100 * report.standard_error
    assert f"test accuracy {mean:.1f} ± {error:.1f} % (mean of 3 seeds, standard error)" in out
    assert "mean of the seeds" in out
    assert " - " in out.splitlines()[-2]  # there is no validation
    for trial in report.trials:
        name = f"a-seed{trial.seed}.safetensors"
        assert trial.checkpoint == name
        held = npk.data.split(npk.data.load("digits[:200]"), test=0.25, seed=trial.seed)[1]
        assert accuracy(npk.load(name), held.X, held.y) == trial.accuracy
    done(npk_train(*options, "--seed", 3, "--out", "b.safetensors"))  # the same network alone
    one, two = npk.load("b.safetensors"), npk.load("a-seed3.safetensors")
    assert all(np.array_equal(a, two.state_dict()[name]) for name, a in one.state_dict().items())


def test_a_test_set_leaves_all_data_for_training(npk_train):
    options = ("--data", "digits[:200]", "--test", "digits[200:300]", "--validation", 0)
    out = done(npk_train(*options, *FEW, "--out", "a.safetensors", "--json", "a.json"))
    report = TrainReport.load("a.json")
    held, kept = npk.data.load("digits[200:300]"), npk.data.load("digits[:200]")
    assert f"{100 * report.accuracy:.1f} % (100 samples)" in out
    assert report.accuracy == accuracy(npk.load("a.safetensors"), held.X, held.y)
    assert npk.checkpoint.read_details("a.safetensors")["test"] == "digits[200:300]"
    net = npk.networks.build("fc", input_shape=(1, 8, 8), classes=10, hidden=[8], seed=0)
    options = {"epochs": 3, "batch_size": 16, "validation": 0, "progress": False}
    result = npk.networks.train(net, kept.X, kept.y, **options)
    assert result.curve_train == report.trials[0].training.curve_train


def test_snapshots_are_networks_in_a_folder_beside_the_checkpoint(npk_train, tmp_path):
    options = ("--data", "digits[:200]", "--out", "a.safetensors", "--snapshots", "0,2,11")
    done(npk_train(*options, *FEW, "--epochs", 11))
    folder = tmp_path / "a-epochs"
    names = [path.name for path in sorted(folder.iterdir())]
    assert names == [f"epoch-{epoch}.safetensors" for epoch in ("00", "02", "11")]
    nets = [npk.load(path).state_dict() for path in (folder / names[2], "a.safetensors")]
    assert all(np.array_equal(a, nets[1][name]) for name, a in nets[0].items())
    fresh = npk.networks.build("fc", input_shape=(1, 8, 8), classes=10, hidden=[8], seed=0)
    start = npk.load(folder / names[0]).state_dict()
    assert all(np.array_equal(a, start[name]) for name, a in fresh.state_dict().items())
    assert npk.checkpoint.read_details(folder / names[1])["epoch"] == 2


def test_each_seed_goes_on_from_its_own_state(npk_train, tmp_path):
    options = ("--data", "digits[:200]", "--out", "a.safetensors", "--seeds", "1,2", *FEW)
    done(npk_train(*options, "--resume", "state.ckpt"))
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == [
        "state-seed1.ckpt",
        "state-seed2.ckpt",
    ]
    done(npk_train(*options, "--resume", "state.ckpt", "--json", "a.json"))
    assert [t.training.resumed_from for t in TrainReport.load("a.json").trials] == [3, 3]


@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_every_option_reaches_the_training(optimizer, npk_train, monkeypatch):
    given = {}

    def train(net, X, y, **options):
        given.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("npk.cli.training.train", train)
    numbers = {"warm-up": 0.5, "label-smoothing": 0.1, "momentum": 0.8, "validation": 0.2}
    numbers |= {"shift": 2, "patience": 2, "weight-decay": 0.01, "learning-rate": 0.5}
    numbers |= {"epochs": 4, "batch-size": 8}
    words = {"loss": "mse", "schedule": "step", "augment": "flip,crop", "select": "accuracy"}
    words |= {"optimizer": optimizer, "regime": "relu", "device": "cpu"}
    options = [part for k, v in (numbers | words).items() for part in (f"--{k}", v)]
    lists = ("--milestones", "1,3", "--snapshots", "0,4")
    code, *_ = npk_train("--data", "digits[:200]", "--out", "a.safetensors", *options, *lists)
    assert code == 130
    expected = {name.replace("-", "_"): value for name, value in (numbers | words).items()}
    expected |= {"milestones": [1, 3], "snapshots": [0, 4], "seed": 0, "progress": True}
    assert given == expected | {"features": None, "checkpoint": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "a.pt"), "--out a.pt is no .safetensors file"),
        (("--seeds", "0,x"), "--seeds 0,x is not understood. Write whole numbers with commas"),
        (("--seeds", "1,1"), "--seeds 1,1 names a seed twice"),
        (("--seeds", "1,2", "--seed", 3), "--seed 3 and --seeds 1,2 were given. Give one of them"),
        (("--snapshots", "0.5"), "--snapshots 0.5 is not understood"),
        (("--snapshots", "4"), "snapshots is [4], it must hold ascending"),
        (("--snapshots", "1", "--out", "there.safetensors"), "there-epochs: it is a file"),
        (("--milestones", "²"), "--milestones ² is not understood"),
        (
            ("--milestones", "2"),
            "milestones belong to --schedule step, and it is 'one-cycle'. Leave --milestones out",
        ),
        (("--select", "best"), "'--select': 'best' is not one of 'last', 'accuracy', 'loss'"),
        (("--test", "digits.npz"), "there is no data set and no file called 'digits.npz'"),
        (("--test", "flat.npy"), "flat.npy has no labels"),
        (("--test", "flat.npz"), "flat.npz has samples of shape [5], digits[:200] of [1, 8, 8]"),
        (("--test", "more.npz"), "more.npz has labels up to 10, digits[:200] has 10 classes"),
        (("--json", "folder"), "cannot write folder: it is a folder"),
    ],
)
def test_wrong_use_is_refused_in_one_line(options, message, npk_train, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "there-epochs").touch()
    np.savez(tmp_path / "flat.npz", X=np.zeros((3, 5)), y=np.zeros(3, int))
    np.save(tmp_path / "flat.npy", np.zeros((3, 1, 8, 8)))
    np.savez(tmp_path / "more.npz", X=np.zeros((3, 1, 8, 8)), y=np.array([0, 1, 10]))
    monkeypatch.setattr("npk.networks.run.Run.epoch", None)  # refused before any training
    out = () if "--out" in options else ("--out", "a.safetensors")
    code, _, err = npk_train("--data", "digits[:200]", *FEW, *out, *options)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
