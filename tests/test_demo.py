"""The demo, in small: everything it promises, what it re-uses, and that its numbers come out of the
shell again.
"""

import json

import numpy as np
import pytest

from npk import cli, demo
from npk.demo import networks as demo_networks
from npk.errors import DataError, NpkError, StoreError
from npk.networks import recipes
from npk.results import FitReport, StudyResult

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
        patch.setattr(demo, "ensembles", lambda *_: ())
        patch.setattr("npk.studies.running.check_all", lambda *_: ([], []))
        patch.setattr(demo, "write", lambda result, out, _: result.save(out / "results.json"))
        second = demo.run(out, data=DATA, progress=False)
        yield out, first, second, stamps


def test_every_network_is_studied(small):
    _, run, _, _ = small
    names = [f"{family} {kind}" for family in demo_networks.FAMILIES for kind in KINDS]
    assert [network.name for network in run.networks] == names
    assert (run.samples_train, run.samples_fresh, run.samples_test) == (130, 30, 65)
    assert (run.seen, run.sizes, run.splits) == ("fresh", (10,), 3)
    models = {"network", "trained", "untrained", "penultimate", "random gates"}
    for name in names:
        assert {a.model for a in run.accuracies if a.network == name} == models
    assert {a.model for a in run.accuracies if not a.network} == {"RBF", "logistic"}
    assert all(len(n.curve_train) == 1 for n in run.networks)
    assert [n.family for n in run.networks[:2]] == ["shift-invariant"] * 2


def test_files_are_written(small):
    out, _, second, _ = small
    assert StudyResult.load(out / "results.json") == second
    page = (out / "report.html").read_text()
    assert "conv-gap dlgn" in page
    assert len(list((out / "figures").glob("*.png"))) >= 9
    assert json.loads((out / "results.json").read_text())["data"] == DATA


def test_checks_hold(small):
    _, run, _, _ = small
    names = [check.name for check in run.checks]
    assert names.count("duality") == 4
    assert names[-2:] == ["ensemble"] * 2
    assert all(check.passed for check in run.checks), [
        check for check in run.checks if not check.passed
    ]
    products = [
        {case.label: case.deviation for case in check.details.cases} for check in run.checks[-2:]
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


def test_the_shell_gives_the_very_accuracies(small, monkeypatch, tmp_path):
    out, run, _, _ = small
    one = next(a for a in run.accuracies if (a.network, a.model) == ("conv-flat dlgn", "untrained"))
    monkeypatch.chdir(out)
    words = ["fit", "untrained/conv-flat-dlgn-1.safetensors", "--data", "fresh1.npz[:10]"]
    words += ["--test", "test.npz", "--bias", "paths", "--json", str(tmp_path / "one.json")]
    assert cli.run(words) == 0
    assert FitReport.load(tmp_path / "one.json").machine.accuracy == one.by_split[1]


def test_the_networks_have_not_seen_the_fresh_samples(small):
    out, _, _, _ = small
    train = demo.choose_samples(DATA, 0).train.X
    for name in ("fresh0", "fresh1", "fresh2", "test"):
        with np.load(out / f"{name}.npz") as part:
            both = np.concatenate([train, part["X"]]).reshape(-1, 64)
            distinct = len(np.unique(train.reshape(-1, 64), axis=0))
            assert len(np.unique(both, axis=0)) >= distinct + len(part["X"]) - 1


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
