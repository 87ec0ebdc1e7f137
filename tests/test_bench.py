"""The suite of invariance: every kind is as its structure promises; a stopped run goes on."""

import numpy as np
import pytest
from torch import nn

import npk
from npk.bench import invariance
from npk.bench.kinds import KINDS
from npk.cli import run
from npk.errors import DataError, StoreError
from npk.results import InvarianceSuite

X = np.random.default_rng(0).standard_normal((2, 1, 4, 4))
# elements that leave the kernel alone, of all that were looked at
HOLD = {
    "circular": (16, 16),
    "zero padding": (1, 16),
    "stride 2": (4, 16),
    "strides 2 and 2": (1, 16),
    "max pool 2": (4, 16),
    "average pool 2": (4, 16),
    "blur pool, declared fixed": (4, 16),
    "blur pool, read as weights": (4, 16),
    "polyphase sampling": (16, 16),
    "flatten": (1, 16),
    "residual, no gate after sums": (16, 16),
    "residual, gate after sums": (16, 16),
    "DGN": (16, 16),
    "DLGN": (16, 16),
    "zero padding, filled shifts": (1, 49),
    "circular, turned and reflected": (1, 8),
    "four turned copies": (4, 4),
    "1x1 filters and fixed blurs": (8, 8),
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    given = [invariance.Given("mine", KINDS[2].network((1, 4, 4), 5))]
    return folder, invariance.run(folder, X, given, data="noise", seed=1, progress=False)


def test_measured_is_predicted_on_every_kind(suite):
    _, found = suite
    cases = {case.label: (check, case) for check, case in found.cases()}
    assert list(cases) == ["mine", *HOLD]
    assert len(HOLD) >= 12
    for name, (check, case) in cases.items():
        assert check.passed, name
        assert case.also == 0, name
        if name != "mine":
            assert (case.holds, case.inside + case.outside) == HOLD[name], name
        assert case.worst_inside < 1e-12


def test_a_declared_blur_moves_the_kernel_less():
    pictures, shifts = (
        np.random.default_rng(0).standard_normal((2, 1, 8, 8)),
        [(0, 1), (1, 0), (1, 1)],
    )
    names = ("blur pool, declared fixed", "blur pool, read as weights", "max pool 2")
    worst = []
    for kind in sorted((k for k in KINDS if k.name in names), key=lambda k: names.index(k.name)):
        net = kind.network((1, 8, 8), 0)
        found = npk.check_invariance(net, pictures, shifts, fixed=kind.fixed)
        worst.append(found.details.cases[0].outside_median)
    assert worst[0] < worst[1] < worst[2]


def test_what_is_written(suite):
    folder, found = suite
    assert InvarianceSuite.load(folder / "results.json") == found
    for name in ("maps", "levels", "elements"):
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    page = (folder / "report.html").read_text(encoding="utf-8")
    for words in ("polyphase sampling", "even shifts", "What breaks the others", "stride 2 at"):
        assert words in page
    assert "19 networks" in page
    assert page.count("<svg") == 6


def test_a_stopped_run_goes_on(suite, tmp_path, monkeypatch):
    check = invariance.check_invariance
    calls = []

    def counted(net, *given, **options):
        calls.append(options["name"])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return check(net, *given, **options)

    monkeypatch.setattr(invariance, "check_invariance", counted)
    few = KINDS[:6]
    monkeypatch.setattr(invariance, "KINDS", few)
    with pytest.raises(KeyboardInterrupt):
        invariance.run(tmp_path, X, progress=False)
    assert not (tmp_path / "results.json").exists()
    found = invariance.run(tmp_path, X, progress=False)
    assert calls == [kind.name for kind in few[:4]] + [kind.name for kind in few[3:]]
    assert [check.network for check in found.checks] == [kind.name for kind in few]
    before = len(calls)
    assert invariance.run(tmp_path, X, progress=False) == found
    assert len(calls) == before
    invariance.run(tmp_path, X, seed=1, progress=False)
    assert len(calls) == before + len(few)


def test_what_is_refused(tmp_path):
    for shape in ((2, 5), (2, 1, 5, 4), (2, 1, 2, 2)):
        with pytest.raises(DataError, match="take pictures with an even number"):
            invariance.run(tmp_path, np.zeros(shape), progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make the folder"):
        invariance.run(tmp_path / "file", X, progress=False)


@pytest.fixture
def checkpoint(tmp_path):
    net = npk.networks.build("conv", input_shape=(1, 4, 4), classes=2, channels=[4], seed=0)
    npk.save(net, tmp_path / "net.safetensors")
    np.save(tmp_path / "X.npy", X.astype(np.float32))
    return tmp_path


def test_the_command_checks_checkpoints(checkpoint, capsys):
    out = checkpoint / "run"
    words = ["bench", "invariance", str(checkpoint / "net.safetensors")]
    data = ["--data", str(checkpoint / "X.npy")]
    assert run([*words, *data, "--no-kinds", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "measured as predicted: 1 of 1" in text
    assert "all shifts" in text
    assert (out / "report.html").exists()
    assert run([*words, "--no-kinds", "--out", str(out)]) == 2
    assert "--data is missing: checkpoints need samples" in capsys.readouterr().err
    assert run(["bench", "speed"]) == 2
    assert "'speed' is not one of 'invariance', 'ensemble'" in capsys.readouterr().err
    assert run(["bench", "invariance", "--no-kinds"]) == 2
    assert "--no-kinds leaves nothing to measure" in capsys.readouterr().err


def test_a_prediction_that_fails_is_exit_code_1(checkpoint, capsys, monkeypatch):
    from npk.structure.prediction import Prediction

    monkeypatch.setattr(Prediction, "keeps", lambda self, motion: True)
    net = npk.networks.build(
        "conv", input_shape=(1, 4, 4), classes=2, channels=[4], padding="zero", seed=0
    )
    npk.save(net, checkpoint / "zero.safetensors")
    words = ["bench", "invariance", str(checkpoint / "zero.safetensors"), "--no-kinds"]
    data = ["--data", str(checkpoint / "X.npy"), "--out", str(checkpoint / "run")]
    assert run([*words, *data]) == 1
    assert "(FAIL)" in capsys.readouterr().out


def test_kinds_have_names_of_their_own():
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert isinstance(KINDS[0].network((3, 6, 8), 0), nn.Module)
