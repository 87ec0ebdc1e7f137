"""The suite of ensembles: every network is the sum that theory says; a stopped run goes on."""

import numpy as np
import pytest
import torch

import npk
from npk.bench import ensemble
from npk.bench.streams import STREAMS
from npk.checks import theorem
from npk.checks.theorem import lesion_theorem
from npk.cli import run
from npk.errors import DataError, StoreError
from npk.report.ensemble_page import ENSEMBLE_HEAD, ensemble_row
from npk.results import DepthShares, EnsembleRun, EnsembleSuite, RandomLesion

X = np.random.default_rng(0).standard_normal((2, 1, 4, 4))
# blocks, least and largest number of layers
SHAPES = {
    "plain": (0, 7, 7),
    "dense block, joined": (0, 2, 5),
    "no ReLU after sums": (3, 3, 9),
    "ReLU after sums": (3, 2, 8),
    "one layer a block": (3, 2, 5),
    "batch norm": (3, 2, 8),
    "stages of He et al.": (3, 4, 8),
    "projection in shortcuts": (2, 4, 6),
    "DGN": (3, 2, 8),
    "DLGN": (3, 2, 8),
    "ten blocks, no ReLU after sums": (10, 3, 23),
    "ten blocks": (10, 2, 22),
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    given = [("mine", STREAMS[4].network((1, 4, 4), 5))]
    return folder, ensemble.run(folder, X, given, data="noise", draws=60, progress=False)


def test_every_network_is_the_sum_of_its_sub_networks(suite):
    _, found = suite
    runs = {one.name: one for one in found.runs}
    assert list(runs) == ["mine", *SHAPES]
    for name, one in runs.items():
        assert one.passed, name
        depths = one.spectrum.depths
        if name != "mine":
            assert (len(one.lesions), depths[0], depths[-1]) == SHAPES[name], name
        assert sum(one.mean) == pytest.approx(1)
        assert one.quantile(0.1) <= one.path_length <= depths[-1]
        assert (one.check is None) == (not one.lesions)
        if one.check is not None:
            assert one.check.measured < 1e-12
            assert all(0 < lesion.predicted < 1 for lesion in one.lesions)


def test_predicted_lesions_are_what_the_kernel_loses(suite):
    """Of the trace, each block left out by itself."""
    mine = next(one for one in suite[1].runs if one.name == "mine")
    table = npk.record_gates(STREAMS[4].network((1, 4, 4), 5), X)

    def trace(of):
        return np.trace(npk.kernel(table, of=of, bias="ignore", dtype="float64", progress=False))

    for lesion in mine.lesions:
        left = trace(npk.Without(block=lesion.block)) / trace("paths")
        assert lesion.predicted == pytest.approx(1 - left, rel=1e-9)


def test_what_is_written(suite):
    folder, found = suite
    assert EnsembleSuite.load(folder / "results.json") == found
    for name in ("spectra", "blocks"):
        assert (folder / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    page = (folder / "report.html").read_text(encoding="utf-8")
    for words in ("13 networks", "ten blocks", "lesions within 3 s.e.", "60 draws", "10-90 %"):
        assert words in page
    assert page.count("<svg") == 4


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    spectrum, calls = ensemble.depth_spectrum, []

    def counted(net, table, **options):
        calls.append(options["name"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return spectrum(net, table, **options)

    monkeypatch.setattr(ensemble, "depth_spectrum", counted)
    monkeypatch.setattr(ensemble, "STREAMS", STREAMS[:3])
    with pytest.raises(KeyboardInterrupt):
        ensemble.run(tmp_path, X, draws=40, progress=False)
    assert not (tmp_path / "results.json").exists()
    found = ensemble.run(tmp_path, X, draws=40, progress=False)
    names = [one.name for one in STREAMS[:3]]
    assert calls == [*names[:2], *names[1:]]
    assert ensemble.run(tmp_path, X, draws=40, progress=False) == found
    assert len(calls) == 4
    ensemble.run(tmp_path, X, draws=41, progress=False)
    assert len(calls) == 7


def test_a_wrong_share_is_found(monkeypatch):
    """A block's share that is off by a fifth of the kernel."""
    net = STREAMS[3].network((1, 4, 4), 0)
    table = npk.record_gates(net, X)
    lesions, limit = lesion_theorem(table, 200)
    shares = [one.predicted for one in npk.lesions(net, X, bias="ignore").lesions]
    assert [one.predicted for one in lesions] == pytest.approx(shares, rel=1e-9)
    assert max(abs(one.measured - one.predicted) / one.error for one in lesions) < limit
    through = theorem.through_blocks
    monkeypatch.setattr(
        theorem, "through_blocks", lambda *given: [part * 1.6 for part in through(*given)]
    )
    lesions, limit = lesion_theorem(table, 200)
    assert max(abs(one.measured - one.predicted) / one.error for one in lesions) > limit


def shares(*rows, kernel):
    return DepthShares("a net", "fan_in", "ignore", (2, 4, 6), rows, kernel)


def test_a_row_of_the_table():
    lesions = tuple(RandomLesion(k, 0.2 * k, 0.25 * k, 0.05) for k in (1, 2))
    live = shares((0.2, 0.3, 0.5), (0.0, 0.0, 0.0), kernel=(2.0, 0.0))
    one = EnsembleRun("a net", (), live, lesions, 40, 1.5, 1.0)
    assert one.path_length == pytest.approx(4.6)
    assert (one.quantile(0.1), one.quantile(0.5), one.quantile(0.9)) == (2, 4, 6)
    assert one.worst == pytest.approx(2)
    assert not one.passed
    row = dict(zip(ENSEMBLE_HEAD, ensemble_row(one), strict=True))
    assert (row["layers"], row["mean layers"], row["10-90 %"]) == ("2 to 6", "4.6", "2 to 6")
    assert row["largest block"].startswith("2: 40")
    assert row["lesions within 3 s.e."] == "2 of 2"
    assert row["identities off by"].endswith("(FAIL)")
    dead = EnsembleRun("dead", (), shares(kernel=()), (), 0, 0.0, 1.0)
    assert (dead.mean, dead.path_length, dead.quantile(0.5), dead.worst) == ((), None, None, None)
    assert dead.passed
    ensemble_row(dead)


def test_what_is_refused(tmp_path, capsys, monkeypatch):
    for shape in ((2, 5), (2, 1, 3, 4)):
        with pytest.raises(DataError, match="take pictures of at least 4 rows and columns"):
            ensemble.run(tmp_path, np.zeros(shape), progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make the folder"):
        ensemble.run(tmp_path / "file", X, progress=False)
    monkeypatch.setattr(ensemble, "STREAMS", STREAMS[:1])
    assert run(["bench", "ensemble", "--shifts", "all", "--out", str(tmp_path / "run")]) == 2
    assert "--shifts is of the suite invariance" in capsys.readouterr().err


def test_the_command_checks_checkpoints(tmp_path, capsys, monkeypatch):
    options = {"input_shape": (1, 4, 4), "classes": 2, "widths": [4, 4], "seed": 0}
    npk.save(npk.networks.build("residual", **options), tmp_path / "net.safetensors")
    np.save(tmp_path / "X.npy", X.astype(np.float32))
    words = ["bench", "ensemble", str(tmp_path / "net.safetensors"), "--no-kinds"]
    words += ["--data", str(tmp_path / "X.npy"), "--out", str(tmp_path / "run")]
    assert run(words) == 0
    text = capsys.readouterr().out
    assert "as theory says: 1 of 1" in text
    assert (tmp_path / "run" / "report.html").exists()
    monkeypatch.setattr(EnsembleRun, "passed", False)
    assert run(words) == 1
    assert "(FAIL)" in capsys.readouterr().out


def test_streams_have_names_of_their_own():
    assert len({one.name for one in STREAMS}) == len(STREAMS) >= 10
    net = STREAMS[-1].network((3, 6, 8), 0)
    assert isinstance(net, torch.nn.Module)
    again = STREAMS[-1].network((3, 6, 8), 0)
    assert all((a == b).all() for a, b in zip(net.parameters(), again.parameters(), strict=True))
