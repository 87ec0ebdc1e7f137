"""The demo, in small: everything it promises, what it re-uses, and that its kernels come out of the
shell again.
"""

import json

import numpy as np
import pytest

import npk
from npk import cli, demo
from npk.demo import networks as demo_networks
from npk.demo.kernels import balanced
from npk.errors import DataError, NpkError, StoreError
from npk.networks import recipes
from npk.results import RunResult

pytestmark = pytest.mark.filterwarnings(
    "ignore::npk.errors.KernelWarning",
    "ignore::FutureWarning",
    "ignore::sklearn.exceptions.ConvergenceWarning",
)
DATA = "digits[:260]"
KINDS = ("dnn", "dlgn")
TRAIN_APART = demo_networks._train_apart  # the fixture below replaces it


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The demo with four networks of four channels, trained for one epoch, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for (family, kind), (make, fit) in recipes.RECIPES["digits"].items():
            layers = 2 if family == "conv-flat" else 3
            patch.setitem(
                recipes.RECIPES["digits"],
                (family, kind),
                ({**make, "channels": [4] * layers}, {**fit, "epochs": 1}),
            )
        patch.setattr(demo_networks, "_train_apart", lambda plan: plan.train())
        patch.setattr(demo_networks, "KINDS", KINDS)
        # one after the other: trainings in one process share torch's random state
        patch.setattr("os.cpu_count", lambda: 1)
        out = tmp_path_factory.mktemp("demo")
        first = demo.run(out, data=DATA, progress=False)
        stamps = {path: path.stat().st_mtime_ns for path in (out / "kernels").rglob("c/*/*")}
        (out / "conv-gap-dlgn.safetensors").write_bytes(b"cut")
        # what the first run has shown is not computed and drawn again
        patch.setattr(demo, "check_theory", lambda *_: first.checks)
        patch.setattr(demo, "write_figures", lambda *_: None)
        patch.setattr(demo, "write_page", lambda *_: None)
        second = demo.run(out, data=DATA, progress=False)
        yield out, first, second, stamps


def test_every_network_has_every_model(small):
    _, run, _, _ = small
    names = [f"{family} {kind}" for family in demo_networks.FAMILIES for kind in KINDS]
    assert [network.name for network in run.networks] == names
    models = [
        "network",
        *(f"NPK-{m}{s}" for s in ("", " at random initialisation") for m in ("SVM", "ridge")),
    ]
    assert [(a.network, a.model) for a in run.accuracies[:-2]] == [
        (name, model) for name in names for model in models
    ]
    assert {a.model for a in run.accuracies[-2:]} == {"logistic regression", "RBF-SVM"}
    assert all(0 <= a.accuracy <= 1 for a in run.accuracies)
    assert run.samples_train + run.samples_test == 260


def test_files_are_written(small):
    out, _, second, _ = small
    assert RunResult.load(out / "results.json") == second
    page = (out / "report.html").read_text()
    assert "conv-gap dlgn" in page
    assert len(list((out / "figures").glob("*.png"))) >= 7
    assert json.loads((out / "results.json").read_text())["data"] == DATA


def test_checks_hold_and_their_counter_examples_break(small):
    _, run, _, _ = small
    assert [check.name for check in run.checks] == ["duality"] * 4 + ["invariance"] + [
        "ensemble"
    ] * 2
    assert all(check.passed for check in run.checks), [
        check for check in run.checks if not check.passed
    ]
    cases = {case.label: case for case in run.checks[4].details.cases}
    assert all(cases[f"conv-gap {kind}"].holds == 64 for kind in KINDS)
    assert max(cases[f"conv-gap {kind}"].worst_inside for kind in KINDS) < 1e-5
    assert min(cases[name].outside_worst for name in ("zero padding", "flatten read-out")) > 1e-3
    products = [
        {case.label: case.deviation for case in check.details.cases} for check in run.checks[5:]
    ]
    assert products[0]["product form"] < 1e-10
    assert products[1]["product form"] > 1e-3


def test_second_run_reuses_all_that_is_whole(small):
    _, first, second, stamps = small
    assert [network.reused for network in first.networks] == [False] * 4
    assert [network.reused for network in second.networks] == [
        name != "conv-gap dlgn" for name in (n.name for n in second.networks)
    ]
    assert [a.accuracy for a in second.accuracies] == [
        a.accuracy for a in first.accuracies
    ]  # the broken one was trained to the same weights
    assert stamps
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


@pytest.mark.parametrize("stem", ["conv-gap-dnn", "conv-flat-dlgn"])
def test_the_shell_gives_the_very_matrix(small, stem, monkeypatch, capsys):
    out, _, _, _ = small
    monkeypatch.chdir(out)
    command = [
        "kernel",
        f"{stem}.safetensors",
        "--data",
        "train.npz",
        "--scale",
        "cosine",
        "--out",
        f"{stem}.zarr",
    ]
    assert cli.run(command) == 0, capsys.readouterr().err
    there = np.asarray(npk.Gram.load(out / "kernels" / f"{stem}.train.zarr"))
    np.testing.assert_array_equal(np.asarray(npk.Gram.load(out / f"{stem}.zarr")), there)
    with np.load(out / "train.npz") as train:
        np.testing.assert_array_equal(
            npk.kernel(npk.load(out / f"{stem}.safetensors"), train["X"], scale="cosine"), there
        )


def test_balanced_takes_equally_many_of_each_class():
    rows = balanced(np.array([1, 0, 1, 1, 0, 2, 2, 2]), 5)
    assert rows.tolist() == [1, 4, 0, 2, 5, 6]


def test_data_without_pictures_is_refused(tmp_path):
    np.savez(tmp_path / "flat.npz", X=np.zeros((4, 3), np.float32), y=np.array([0, 0, 1, 1]))
    with pytest.raises(DataError, match="the demo shows convolutions"):
        demo.run(tmp_path / "out", data=str(tmp_path / "flat.npz"), progress=False)


def test_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make the folder"):
        demo.run(tmp_path / "file" / "out", data=DATA, progress=False)


def test_training_apart_reports_its_failure(tmp_path):
    plan = demo_networks.Plan(
        demo.choose_samples("digits[:200]", 0), tmp_path, "conv-gap", "no-kind", 0
    )
    with pytest.raises(NpkError, match=r"training conv-gap-no-kind failed: .*there is no recipe"):
        TRAIN_APART(plan)
