"""Studies: samples are drawn as promised, errors are those of the numbers, and every number of a
study is that which its parts give by hand.
"""

import base64
import dataclasses
import io
import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk import cli
from npk.data import Dataset
from npk.errors import DataError, OptionError, ShapeError
from npk.gates.halfspaces import random_gates
from npk.machines import ridge
from npk.reading.tracing import trace_network
from npk.results import MODELS, FitReport, StudyResult
from npk.studies import asking
from npk.studies import cost as costs
from npk.studies.asking import ask
from npk.studies.checking import check_all
from npk.studies.cost import parse_budget
from npk.studies.draws import drawn, labeled
from npk.studies.kernels import Asked, State
from npk.studies.measuring import measured
from npk.studies.pictures import Album
from npk.studies.running import within_budget
from npk.studies.scores import ridge_of, standard_error
from npk.studies.subjects import Subject, before_training, decided, outputs, penultimate

CLASSES = 3
SHAPE = (1, 6, 6)


def samples(n=120, seed=0, classes=CLASSES):
    """Noisy pictures of a few patterns."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    patterns = np.random.default_rng(99).standard_normal((classes, *SHAPE))
    X = (patterns[y] + 1.2 * rng.standard_normal((n, *SHAPE))).astype(np.float32)
    return Dataset(X, y.astype(np.int64), tuple("abc"[:classes]), "patterns")


def network(kind="dnn", seed=0, **options):
    made = {"arch": "conv", "channels": [4, 3], "readout": "flatten", "input_shape": SHAPE}
    return npk.networks.build(**{**made, "classes": CLASSES, "kind": kind, "seed": seed, **options})


# ---- draws


def test_every_draw_holds_every_class_and_no_sample_is_in_two():
    found = drawn(labeled(samples(300), None, None, "X"), None, (6, 20), splits=4)
    assert found.sizes == (6, 20)
    assert found.disjoint
    assert len(np.unique(np.concatenate(found.order))) == 80
    y = found.labels[0]
    for order in found.order:
        assert sorted(np.unique(y[order[:6]])) == [0, 1, 2]
        assert np.bincount(y[order]).min() >= 5
    both = np.concatenate([found.fresh.X.reshape(-1, 36), found.test.X.reshape(-1, 36)])
    assert len(np.unique(both, axis=0)) == 300


def test_a_rare_class_is_in_every_draw_and_draws_share_what_there_is_little_of():
    y = np.array([0] * 60 + [1] * 4)
    whole = labeled(np.random.default_rng(0).random((64, 2), np.float32), y, None, "X")
    found = drawn(whole, None, (5, 20), splits=3)
    assert not found.disjoint
    for order in found.order:
        assert set(found.labels[0][order[:5]]) == {0, 1}
        assert len(set(order)) == 20
    assert 1 in found.labels[1]


def test_draws_are_those_of_the_seed():
    whole = labeled(samples(), None, None, "X")
    a, b, other = (drawn(whole, None, (9,), seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(x, z) for x, z in zip(a.order, b.order, strict=True))
    assert not all(np.array_equal(x, z) for x, z in zip(a.order, other.order, strict=True))


def test_sizes_go_as_far_as_there_are_samples():
    whole = labeled(samples(700), None, None, "X")
    assert drawn(whole, None, None).sizes == (30, 100)
    few = labeled(samples(24), None, None, "X")
    assert drawn(few, None, None).sizes == (4,)
    assert drawn(few, labeled(samples(9, 5), None, None, "T"), 24).sizes == (24,)


def one_each(y):
    return np.zeros((len(y), 4), np.float32) + np.arange(len(y))[:, None], np.array(y)


REFUSED = {
    "one class": (
        lambda: ask(net4(), *one_each([1] * 8)),
        DataError,
        "needs two classes, y has 1 class: [1]",
    ),
    "a class with one sample": (
        lambda: ask(net4(), *one_each([0, 0, 0, 1, 1, 2])),
        DataError,
        "has 1 sample of class '2'",
    ),
    "fewer fresh samples than classes": (
        lambda: ask(network(), samples(), n=2),
        DataError,
        "2 fresh samples cannot hold 3 classes",
    ),
    "more than there are": (
        lambda: ask(network(), samples(), n=(30, 100)),
        DataError,
        "n is 100, and there are 60",
    ),
    "another number of outputs": (
        lambda: ask(network(classes=4), samples()),
        DataError,
        "network has 4 outputs, and the labels have 3 classes",
    ),
    "three samples": (lambda: ask(net4(), *one_each([0, 0, 1])), DataError, "has 3 samples"),
    "labels of others": (
        lambda: ask(net4(), one_each([0, 1])[0], [0, 1, 1]),
        ShapeError,
        "3 labels for 2 samples",
    ),
    "test samples without labels": (
        lambda: ask(network(), samples(), test=samples().X),
        DataError,
        "has no labels, and the other samples have",
    ),
    "test samples of another shape": (
        lambda: ask(network(), samples(), test=one_each([0, 1, 2])),
        ShapeError,
        "test samples have shape (4,)",
    ),
    "a class in the test alone": (
        lambda: ask(network(), samples(classes=2), test=samples(), classes="abc"),
        DataError,
        "has samples of class 'c', and",
    ),
    "classes without a name": (
        lambda: ask(net4(), *one_each([0, 1, 2, 2, 1, 0]), classes="ab"),
        DataError,
        "labels go up to 2, and 2 classes are named",
    ),
    "no sizes": (lambda: ask(network(), samples(), n=()), OptionError, "n is empty"),
    "a size that is none": (lambda: ask(network(), samples(), n=2.5), OptionError, "n is"),
    "no splits": (lambda: ask(network(), samples(), splits=0), OptionError, "splits is 0"),
    "an unknown check": (
        lambda: ask(network(), samples(), checks=("taste",)),
        OptionError,
        "checks has 'taste'",
    ),
    "an unknown baseline": (
        lambda: ask(network(), samples(), baselines=("SVM",)),
        OptionError,
        "baselines has 'SVM'",
    ),
    "a budget that is none": (
        lambda: ask(network(), samples(), budget="soon"),
        OptionError,
        "budget is 'soon'",
    ),
    "neither seen nor fresh": (
        lambda: ask(network(), samples(), seen="no"),
        OptionError,
        "seen is 'no'",
    ),
    "two of one name": (
        lambda: ask([network(), network()], samples(), names=("a", "a")),
        OptionError,
        "Give each network a name of its own",
    ),
    "no network": (lambda: ask([], samples()), OptionError, "there is no network"),
    "an unknown bias": (lambda: Asked(bias="some"), OptionError, "bias='some'"),
}


def net4():
    return npk.networks.build("fc", input_shape=(4,), classes=3, hidden=[3], seed=0)


def residual():
    options = {"flavor": "fc", "widths": [5, 5], "seed": 0}
    return npk.networks.build("residual", input_shape=(4,), classes=2, **options)


@pytest.mark.parametrize(("make", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_studied_is_refused_in_a_sentence(make, error, text):
    with pytest.raises(error) as told:
        make()
    assert text in str(told.value)
    assert "\n" not in str(told.value)


# ---- errors of numbers


def test_one_row_has_the_usual_standard_error(rng):
    values = rng.random((1, 50))
    expected = values.std(ddof=1) / np.sqrt(50)
    assert standard_error(values) == pytest.approx(expected, rel=1e-12)
    assert standard_error(np.ones((3, 1))) is None


def test_standard_error_is_that_of_splits_and_samples_drawn_anew(rng):
    """Against many repetitions of the whole experiment, with errors of both kinds."""
    means, errors = [], []
    for _ in range(2000):
        rows, columns = 0.3 * rng.standard_normal((4, 1)), rng.standard_normal((1, 20))
        values = rows + columns + 0.5 * rng.standard_normal((4, 20))
        means.append(values.mean())
        errors.append(standard_error(values) ** 2)
    # the maximum of its parts makes it a little too large, never too small
    assert 1.0 <= np.mean(errors) / np.var(means) < 1.15


# ---- parts


def test_ridge_is_the_machine_of_the_room_of_machines(rng):
    features = rng.standard_normal((20, 5))
    y, K = np.arange(20) % 3 + 4, features @ features.T + np.eye(20)
    cross = rng.standard_normal((7, 20))
    targets, classes = ridge.signed_targets(y)
    machine = ridge.fit(K, targets, criterion="accuracy")
    said, chosen, _ = ridge_of(K, y, cross)
    assert chosen["alpha"] == machine.alpha
    expected = classes[(cross @ machine.solution.coefficients).argmax(1)]
    np.testing.assert_array_equal(said, expected)


class Pooled(nn.Module):
    """A network whose last layer of weights is a convolution."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        return self.b(torch.relu(self.a(x))).mean((2, 3))


@pytest.mark.parametrize(
    "net", [network(), network("dlgn"), network(readout="gap"), Pooled()], ids=lambda n: str(n)[:30]
)
def test_penultimate_features_times_the_last_weights_are_the_output(net):
    X, net = samples(9).X, net.eval()
    features = penultimate(trace_network(net, SHAPE), X)
    last = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    weight = last.weight.detach().double().numpy().reshape(CLASSES, -1)
    again = features @ weight.T + last.bias.detach().double().numpy()
    np.testing.assert_allclose(again, outputs(net, X), rtol=1e-5, atol=1e-6)


def test_one_layer_has_no_penultimate_features():
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).eval()
    assert penultimate(trace_network(net, SHAPE), samples(4).X) is None


def test_one_output_decides_between_two_classes():
    assert decided(np.array([[-1.0], [0.5]])).tolist() == [0, 1]
    assert decided(np.array([[1.0, 2.0], [3.0, 0.0]])).tolist() == [1, 0]


def test_random_gates_are_half_spaces_through_the_mean():
    table = npk.record_gates(network(), samples(60).X)
    mean = table.inputs.mean(0)
    found = random_gates(table, mean, seed=3)
    assert [found.entries[n].shape for n in found.names] == [
        table.entries[n].shape for n in table.names
    ]
    # the other side of the mean has all gates turned; no ties among random directions
    mirrored = dataclasses.replace(table, inputs=2 * mean - table.inputs)
    for gates, others in zip(found, random_gates(mirrored, mean, seed=3), strict=True):
        np.testing.assert_array_equal(gates, ~others)
        assert 0.3 < gates.mean() < 0.7
    again = random_gates(table.take(slice(7)), mean, seed=3)
    np.testing.assert_array_equal(again[1], found[1][:7])
    assert (random_gates(table, mean, seed=4)[0] != found[0]).any()


def test_random_gates_take_soft_gates_and_pools():
    soft = npk.record_gates(network("dlgn"), samples(8).X)
    assert {e.kind for e in random_gates(soft, 0 * soft.inputs[0], 0).entries.values()} == {"hard"}
    net = network(pool_after=[1], pool="max", pool_size=2)
    pooled = npk.record_gates(net, samples(40).X)
    found = random_gates(pooled, pooled.inputs.mean(0), 0)
    name = next(n for n, e in pooled.entries.items() if e.kind == "selection")
    assert set(np.unique(found.entries[name].data)) == {0, 1, 2, 3}
    npk.kernel(found, progress=False)


def test_networks_are_made_anew_in_the_way_that_is_known():
    built = Subject(network(seed=5), "built")
    make, words = before_training(built)
    assert "description" in words
    expected = [p.detach().numpy() for p in network(seed=8).parameters()]
    for parameter, value in zip(make(8).parameters(), expected, strict=True):
        np.testing.assert_array_equal(parameter.detach().numpy(), value)
    plain, state = Pooled().eval(), torch.get_rng_state()
    make, words = before_training(Subject(plain, "plain"))
    first, again, other = (make(seed).a.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, plain.a.weight)
    assert torch.equal(torch.get_rng_state(), state)
    arch = Subject(plain, "arch", arch=Pooled)
    assert torch.equal(before_training(arch)[0](3).b.bias, before_training(arch)[0](3).b.bias)


class Own(nn.Module):
    """A network with parameters that nothing draws anew."""

    def __init__(self):
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(9, 36)), nn.Parameter(torch.randn(3, 9))

    def forward(self, x):
        return torch.relu(x.flatten(1) @ self.w.T) @ self.v.T


def test_a_network_that_nothing_makes_anew_says_so():
    make, words = before_training(Subject(Own().eval(), "own"))
    assert make is None
    assert "Own has no reset_parameters" in words
    given = Subject(Own().eval(), "own", untrained=lambda seed: network(seed=seed))
    assert before_training(given)[0](4) is not None


def test_budget_is_a_time():
    assert [parse_budget(b) for b in (None, 90, "90s", "1.5min", "2h", "7")] == [
        None,
        90.0,
        90.0,
        90.0,
        7200.0,
        7.0,
    ]


def test_a_budget_chooses_the_largest_study_that_it_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "measure", lambda *_: SimpleNamespace(seconds_a_pair=1e-3))
    asked = {"baselines": ("untrained",), "checks": ()}
    whole = samples(1300)
    seconds = {}
    for budget in ("1h", 60):
        question, plan = within_budget(ask(network(), whole, budget=budget, **asked), tmp_path)
        seconds[budget] = plan.seconds
        assert plan.seconds <= 0.8 * parse_budget(budget)
        assert plan.sizes == question.draws.sizes
        assert f"n = {', '.join(map(str, plan.sizes))} fresh samples" in str(plan)
    assert question.draws.sizes == (30,)
    assert len(question.draws.test) < 650
    assert within_budget(ask(network(), whole, budget="1h", **asked), tmp_path)[0].draws.sizes == (
        30,
        100,
    )
    with pytest.raises(OptionError, match=r"a budget of 1\.0 s is too small: the smallest study"):
        within_budget(ask(network(), whole, budget=1, **asked), tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- the whole


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two checkpoints, a little trained."""
    folder = tmp_path_factory.mktemp("networks")
    for kind in ("dnn", "dlgn"):
        net = network(kind, bias=kind == "dnn")
        npk.networks.train(net, samples(90, 7).X, samples(90, 7).y, epochs=4, progress=False)
        npk.save(net, folder / f"{kind}.safetensors")
    return folder


@pytest.fixture(scope="module")
def found(trained, tmp_path_factory):
    """A study by the command line, and its folder."""
    out = tmp_path_factory.mktemp("study")
    whole = samples(200, 3)
    np.savez(out.parent / "fresh.npz", X=whole.X, y=whole.y, classes=np.array(whole.classes))
    words = ["study", str(trained), "--data", str(out.parent / "fresh.npz"), "--fresh"]
    words += ["-n", "6,12,24", "--splits", "2", "--out", str(out)]
    assert cli.run(words) == 0
    return StudyResult.load(out / "results.json"), out


def test_a_study_has_every_model_at_every_size(found):
    result, out = found
    names = ["dlgn", "dnn"]
    assert [n.name for n in result.networks] == names
    assert (result.sizes, result.splits, result.disjoint) == ((6, 12, 24), 2, True)
    assert result.seen == "fresh"
    own = [m for m in MODELS if m not in ("RBF", "logistic", "network")]
    expected = {(name, model, n) for name in names for model in own for n in result.sizes}
    expected |= {("", model, n) for model in ("RBF", "logistic") for n in result.sizes}
    expected |= {(name, "network", 0) for name in names}
    assert {(a.network, a.model, a.samples) for a in result.accuracies} == expected
    values = json.loads((out / "results.json").read_text())
    assert {"accuracies", "checks", "measures"} <= values.keys()
    assert all(entry["error"] is not None for entry in values["accuracies"])
    assert all("tolerance" in entry for entry in values["checks"])
    every = [*values["accuracies"], *values["checks"], *values["measures"]]
    assert all(entry["command"] for entry in every)
    assert {check["name"] for check in values["checks"]} == {"duality", "invariance"}
    assert (out / "report.html").exists()
    assert (out / "figures" / "curves.png").exists()


def test_an_accuracy_is_that_of_kernel_and_ridge_by_hand(found, trained):
    result, out = found
    net = npk.load(trained / "dnn.safetensors")
    with np.load(out / "test.npz") as test, np.load(out / "fresh1.npz") as fresh:
        X, y, X_test, y_test = fresh["X"][:12], fresh["y"][:12], test["X"], test["y"]
    options = {"scale": "cosine", "bias": "paths", "progress": False}
    K, cross = npk.kernel(net, X, **options), npk.kernel(net, X_test, X, **options)
    targets, classes = ridge.signed_targets(y)
    machine = ridge.fit(K, targets, criterion="accuracy")
    right = classes[(cross @ machine.solution.coefficients).argmax(1)] == y_test
    one = accuracy_of(result, "dnn", "trained", 12)
    assert one.by_split[1] == right.mean()
    own = outputs(net, X_test).argmax(1) == y_test
    assert accuracy_of(result, "dnn", "network", 0).accuracy == own.mean()
    assert next(n.bias for n in result.networks if n.name == "dnn") == "paths"
    assert next(n.bias for n in result.networks if n.name == "dlgn") == "ignore"


def accuracy_of(result, network, model, n):
    key = (network, model, n)
    return next(a for a in result.accuracies if (a.network, a.model, a.samples) == key)


@pytest.mark.parametrize("model", ["trained", "untrained"])
@pytest.mark.parametrize("name", ["dnn", "dlgn"])
def test_the_command_of_an_accuracy_gives_it_again(found, name, model, monkeypatch, tmp_path):
    result, out = found
    one = accuracy_of(result, name, model, 12)
    assert one.command.startswith("for k in 0 1; do npk fit ")
    line = one.command.split("; do npk ")[1].removesuffix("; done")
    monkeypatch.chdir(out)
    shares = []
    for k in range(2):
        words = shlex.split(line.replace("$k", str(k)))
        assert cli.run([*words, "--json", str(tmp_path / "one.json")]) == 0
        shares.append(FitReport.load(tmp_path / "one.json").machine.accuracy)
    assert shares == list(one.by_split)


def test_samples_in_the_folder_are_not_prepared_again(tmp_path, monkeypatch):
    """They are what the network was given, and its file says how that was made."""
    net, given = network(seed=1), npk.data.preparation(0.5, 0.1)
    npk.save(net, tmp_path / "net.safetensors", preparation=given)
    whole = samples(60, 3)
    np.savez(tmp_path / "fresh.npz", X=whole.X, y=whole.y)
    monkeypatch.chdir(tmp_path)
    words = ["--data", "fresh.npz", "-n", "9", "--splits", "1", "--checks", "duality"]
    assert cli.run(["study", "net.safetensors", *words, "--baselines", "untrained"]) == 0
    result = StudyResult.load("study/results.json")
    monkeypatch.chdir("study")
    known = {sample.tobytes() for sample in given(whole.X)}
    assert {sample.tobytes() for sample in np.load("fresh0.npz")["X"]} < known
    for model in ("trained", "untrained"):
        one = accuracy_of(result, "net", model, 9)
        line = one.command.split("; do npk ")[1].removesuffix("; done").replace("$k", "0")
        assert cli.run([*shlex.split(line), "--json", "one.json"]) == 0
        assert (FitReport.load("one.json").machine.accuracy,) == one.by_split
    (check,) = result.checks
    assert check.command.endswith("--mean none")


def test_differences_are_paired(found):
    result, _ = found
    for n in result.sizes:
        for name in ("dnn", "dlgn"):
            parts = [accuracy_of(result, name, m, n).accuracy for m in ("trained", "untrained")]
            one = difference_of(result, name, "untrained", n)
            assert one.difference == pytest.approx(parts[0] - parts[1], abs=1e-12)
            assert one.error > 0
        each = [difference_of(result, name, "RBF", n).difference for name in ("dnn", "dlgn")]
        mean = difference_of(result, "", "RBF", n).difference
        assert mean == pytest.approx(np.mean(each), abs=1e-12)


def difference_of(result, network, against, n):
    key = (network, against, n)
    return next(d for d in result.differences if (d.network, d.against, d.samples) == key)


def test_measures_are_those_of_each_draw(found, trained):
    result, out = found
    net = npk.load(trained / "dnn.safetensors")
    parts = []
    for k in range(2):
        with np.load(out / f"fresh{k}.npz") as fresh:
            K = npk.kernel(net, fresh["X"], scale="cosine", bias="paths", progress=False)
            table = npk.record_gates(net, fresh["X"])
            parts.append(
                {
                    "alignment": npk.measures.alignment(K, fresh["y"]),
                    "effective rank": npk.measures.effective_rank(K),
                    "class overlap": npk.measures.class_overlap(table, fresh["y"])[1],
                    "activity": npk.measures.gate_statistics(table).layers[1].activity,
                    "NASWOT": npk.measures.naswot(table),
                }
            )
    for name in parts[0]:
        values = [part[name] for part in parts]
        one = [
            m for m in result.measures if (m.network, m.gates, m.name) == ("dnn", "trained", name)
        ]
        assert one[-1].value == pytest.approx(np.mean(values), rel=1e-6)
        assert one[-1].error == pytest.approx(abs(values[0] - values[1]) / 2, rel=1e-4)


def test_a_picture_of_a_kernel_names_its_samples_and_its_spectrum_is_that_of_all_draws(
    found, trained
):
    result, out = found
    one = next(k for k in result.kernels if (k.network, k.gates) == ("dnn", "trained"))
    known = {picture.number: picture for picture in result.pictures}
    assert [known[number].label for number in one.heat_pictures] == one.heat_labels
    net, spectra = npk.load(trained / "dnn.safetensors"), []
    for k in range(2):
        with np.load(out / f"fresh{k}.npz") as fresh:
            X, y = fresh["X"], fresh["y"]
        K = npk.kernel(net, X, scale="cosine", bias="paths", progress=False)
        spectra.append(npk.measures.spectrum(K))
        if k == 0:
            first = X[np.flatnonzero(y == 0)[0], 0]
    np.testing.assert_allclose(one.spectrum, np.mean(spectra, 0), rtol=1e-4)
    np.testing.assert_allclose(
        one.spectrum_error, abs(spectra[0] - spectra[1]) / 2, rtol=1e-3, atol=1e-8
    )
    pixels = np.frombuffer(base64.b64decode(known[one.heat_pictures[0]].pixels), np.uint8)
    assert np.corrcoef(pixels, first.ravel())[0, 1] > 0.999


def test_depths_are_those_of_paths_from_the_input():
    net = residual()
    X = np.random.default_rng(0).standard_normal((20, 4), np.float32)
    table = npk.record_gates(net, X)
    state = State(table, npk.kernel(net, X, progress=False), np.zeros((0, 20)))
    made = [m for m in measured("a net", "trained", [state], [None]) if m.name == "depth share"]
    expected = npk.depth_spectrum(net, X[:16])
    assert [int(m.layer) for m in made] == expected.depths.tolist()
    np.testing.assert_allclose([m.value for m in made], expected.mean, rtol=1e-12)
    plain = npk.record_gates(net4(), X)
    others = measured("plain", "trained", [State(plain, state.K, state.cross)], [None])
    assert not [m for m in others if m.name == "depth share"]


def test_networks_are_compared_on_the_same_samples(found, trained):
    result, out = found
    pairs = [(c.first, c.second, c.gates) for c in result.comparisons]
    assert pairs == [
        ("dlgn", "dlgn", "untrained"),
        ("dnn", "dnn", "untrained"),
        ("dlgn", "dnn", "trained"),
    ]
    one, (before, after) = result.comparisons[1], (out / "untrained/dnn-0.safetensors", "dnn")
    with np.load(out / "fresh0.npz") as fresh:
        X = fresh["X"]
    nets = npk.load(trained / f"{after}.safetensors"), npk.load(before)
    options = {"scale": "cosine", "bias": "paths", "progress": False}
    kernels = [npk.kernel(net, X, **options) for net in nets]
    assert one.cka == pytest.approx(npk.measures.cka(*kernels), abs=1e-6)
    assert one.cka_low <= one.cka <= one.cka_high
    gates = [
        np.concatenate([g.reshape(24, -1) for g in npk.record_gates(net, X)], 1) for net in nets
    ]
    assert one.flips == pytest.approx((gates[0] != gates[1]).mean(), abs=1e-12)
    assert result.comparisons[0].flips is None  # soft


def test_neighbors_are_the_largest_entries_of_the_kernel(found, trained):
    result, out = found
    rows = [n for n in result.neighbors if (n.network, n.gates) == ("dnn", "trained")]
    assert len(rows) == CLASSES
    net = npk.load(trained / "dnn.safetensors")
    with np.load(out / "test.npz") as test, np.load(out / "fresh0.npz") as fresh:
        options = {"scale": "cosine", "bias": "paths", "progress": False}
        cross = npk.kernel(net, test["X"], fresh["X"], **options)
        asked = int(np.flatnonzero(test["y"] == 0)[0])
    expected = np.sort(cross[asked])[::-1][:6]
    np.testing.assert_allclose(rows[0].cosines, expected, atol=6e-4)
    labels = {p.number: p.label for p in result.pictures}
    assert labels[rows[0].sample] == 0
    assert set(rows[0].near) <= labels.keys()


def test_mistakes_are_those_of_the_first_draw_with_the_most_samples(found):
    result, _ = found
    wrong = [m for m in result.mistakes if m.network == "dnn"]
    share = 1 - accuracy_of(result, "dnn", "trained", 24).by_split[0]
    assert len(wrong) == min(8, round(share * result.samples_test))
    labels = {p.number: p.label for p in result.pictures}
    assert all(labels[m.sample] != m.said for m in wrong)


def test_a_study_goes_on_with_the_kernels_that_are_there(found, trained, monkeypatch):
    result, out = found
    stamps = {path: path.stat().st_mtime_ns for path in (out / "kernels").glob("*/tiles/*/c/*/*")}
    assert len(stamps) == 20  # of each network: trained, and of two draws two others, twice
    tile = next(iter(stamps))
    tile.unlink()  # as a kill may leave it
    net = {name: npk.load(trained / f"{name}.safetensors") for name in ("dlgn", "dnn")}
    monkeypatch.setattr(asking, "write", lambda *_: None)  # the page is not looked at again
    whole = samples(200, 3)
    again = npk.study(
        net, whole, seen=False, n=(6, 12, 24), splits=2, out=out, checks=(), progress=False
    )
    changed = [p for p in stamps if p.stat().st_mtime_ns != stamps[p]]
    assert changed == [tile]
    assert [a.accuracy for a in again.accuracies] == [a.accuracy for a in result.accuracies]
    # another network under the name replaces the stores of the old one
    other = npk.study(
        network(seed=3),
        whole,
        names="dnn",
        n=6,
        splits=1,
        out=out,
        baselines=(),
        checks=(),
        progress=False,
    )
    assert len(other.accuracies) == 2
    assert other.notes == ()


def test_without_labels_what_needs_none_is_studied(tmp_path):
    result = npk.study(Own().eval(), samples(60).X, n=20, splits=2, out=tmp_path, progress=False)
    assert result.accuracies == result.differences == ()
    assert {m.name for m in result.measures} == {
        "effective rank", "activity", "dead", "always on", "NASWOT"
    }  # fmt: skip
    assert result.seen == "not known"
    assert any("network before training left out" in note for note in result.notes)
    assert any("check of ensemble left out" in note for note in result.notes)
    assert [check.name for check in result.checks] == ["duality", "invariance"]
    assert result.neighbors
    page = (tmp_path / "report.html").read_text()
    assert "Without labels nothing is said of accuracy" in page
    assert "is not known" in page


def test_vectors_and_text_labels_of_two_classes(tmp_path, rng):
    y = np.array(["no", "yes"])[np.arange(60) % 2]
    X = rng.standard_normal((60, 4), np.float32) + (y == "yes")[:, None]
    net = npk.networks.build("fc", input_shape=(4,), classes=1, hidden=[5], seed=0)
    result = npk.study(net, X, y, n=8, out=tmp_path, checks=(), progress=False)
    assert result.classes == ["no", "yes"]
    assert result.pictures == ()
    assert {a.model for a in result.accuracies} == set(MODELS)


def test_checks_that_do_not_apply_are_named():
    subject = Subject(network(), "a net")
    results, left_out = check_all(
        ("duality", "ensemble"), subject, samples(6).X, 0, lambda n: f"npk {n}"
    )
    assert [(r.name, r.command) for r in results] == [("duality", "npk duality")]
    assert left_out == [("ensemble", "no skip connections")]


def test_checks_tell_their_progress_to_whom_the_study_tells_its_own(tmp_path):
    told = io.StringIO()
    made = {"checks": ("duality",), "baselines": (), "n": 9, "splits": 1, "out": tmp_path}
    npk.study(network(), samples(30, 1), progress=npk.progress.Events(told), **made)
    assert '"task": "random value networks"' in told.getvalue()


def test_samples_without_positions_are_not_shifted():
    net = npk.networks.build("fc", input_shape=(4,), classes=2, hidden=[5], seed=0)
    X = np.ones((6, 4), np.float32)
    results, left_out = check_all(("invariance",), Subject(net, "a net"), X, 0, str)
    assert (results, left_out) == ([], [("invariance", "samples have no positions to shift")])


def test_outputs_that_are_no_numbers():
    net = nn.Linear(4, 2)
    nn.init.constant_(net.weight, np.inf)
    with pytest.raises(DataError, match="the network gives NaN or infinite values"):
        outputs(net, np.ones((6, 4), np.float32))


def test_large_pictures_are_shown_small():
    X = np.random.default_rng(0).random((4, 3, 100, 60), np.float32)
    found = drawn(labeled(X, None, None, "X"), None, 2)
    album = Album(found)
    album.add(True, 0)
    (picture,) = album.pictures.values()
    assert picture.shape == (34, 20, 3)
    assert picture.label == -1


MODELS_FILE = """
import torch
from torch import nn
class Blurred(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)
        self.blur = nn.Conv2d(4, 4, 2, groups=4, bias=False)
        nn.init.constant_(self.blur.weight, 0.25)
    def forward(self, x):
        return self.last(torch.relu(self.blur(torch.relu(self.conv(x)))).mean((2, 3)))
"""


@pytest.fixture
def blurred(tmp_path):
    """A checkpoint whose blur is fixed, and what made it."""
    (tmp_path / "models.py").write_text(MODELS_FILE)
    made = {}
    exec(MODELS_FILE, made)
    torch.manual_seed(0)
    net = made["Blurred"]().eval()
    torch.save(net.state_dict(), tmp_path / "blurred.pt")
    return net


def test_fixed_coefficients_are_those_of_every_kernel_and_command(blurred, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = samples(60)
    np.savez("fresh.npz", X=whole.X, y=whole.y)
    words = ["study", "blurred.pt", "--arch", "models.py:Blurred", "--data", "fresh.npz"]
    words += ["-n", "9", "--splits", "2", "--checks", "duality,invariance", "--out", "study"]
    assert cli.run([*words, "--fixed", "blur.weight"]) == 0
    result = StudyResult.load("study/results.json")
    X, y, X_test, y_test = (
        np.load(f"study/{name}.npz")[key] for name in ("fresh0", "test") for key in "Xy"
    )
    shares = []
    for fixed in ("blur.weight", ()):
        of = {"scale": "cosine", "bias": "paths", "fixed": fixed, "progress": False}
        K, cross = npk.kernel(blurred, X, **of), npk.kernel(blurred, X_test, X, **of)
        said, _, _ = ridge_of(K, y, cross)
        shares.append((K, (said == y_test).mean()))
    assert np.abs(shares[0][0] - shares[1][0]).max() > 1e-3
    assert accuracy_of(result, "blurred", "trained", 9).by_split[0] == shares[0][1]
    commands = [check.command for check in result.checks]
    commands += [accuracy_of(result, "blurred", "trained", 9).command, result.measures[0].command]
    assert all("--fixed blur.weight" in command for command in commands)
    assert result.networks[0].untrained.endswith("fixed coefficients as they are")


def test_the_network_before_training_has_the_same_fixed_coefficients(blurred):
    with torch.no_grad():
        blurred.blur.weight.fill_(0.125)
    make, _ = before_training(Subject(blurred, "a net", fixed=("blur.*",)))
    anew = make(3)
    assert torch.equal(anew.blur.weight, blurred.blur.weight)
    assert not torch.equal(anew.conv.weight, blurred.conv.weight)
    bare, _ = before_training(Subject(blurred, "a net"))
    assert not torch.equal(bare(3).blur.weight, blurred.blur.weight)
    torch.nn.init.constant_(anew.blur.weight, 0.5)  # a copy: the network itself stays
    assert torch.equal(blurred.blur.weight, torch.full((4, 1, 2, 2), 0.125))


def test_the_ensemble_is_not_checked_with_fixed_coefficients():
    X = np.ones((6, 4), np.float32)
    results, left_out = check_all(
        ("ensemble",), Subject(residual(), "a net", fixed=("any.*",)), X, 0, str
    )
    assert (results, left_out) == ([], [("ensemble", "it takes no fixed coefficients")])


BAD = {
    "one class": (one_each([1] * 8), ("-n", "2"), "needs two classes, y has 1 class"),
    "a class with one sample": (one_each([0, 0, 0, 1, 1, 2]), (), "has 1 sample of class '2'"),
    "fewer fresh samples than classes": (
        one_each(list(range(3)) * 8),
        ("-n", "2"),
        "2 fresh samples cannot hold 3 classes",
    ),
    "another number of classes": (
        one_each(list(range(4)) * 8),
        (),
        "has 3 outputs, and the labels have 4 classes",
    ),
    "no labels in the test": (
        one_each(list(range(3)) * 8),
        ("--test", "bare.npy"),
        "bare.npy has no labels, and the other samples have",
    ),
    "labels that are missing": (
        (one_each([0, 1] * 8)[0],),
        ("--labels", "none.npy"),
        "there is no file of labels none.npy",
    ),
    "a fixed tensor that is not there": (
        one_each(list(range(3)) * 8),
        ("--fixed", "blur.*"),
        "blur.*",
    ),
}


@pytest.mark.parametrize(("arrays", "words", "text"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(arrays, words, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    npk.save(net4(), "net.safetensors")
    np.savez("data.npz", **dict(zip("Xy", arrays, strict=False)))
    np.save("bare.npy", arrays[0])
    assert cli.run(["study", "net.safetensors", "--data", "data.npz", *words]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert text in told
    assert not (tmp_path / "study" / "results.json").exists()


def test_a_folder_without_checkpoints_is_one_line(tmp_path, capsys):
    assert cli.run(["study", str(tmp_path), "--data", "digits"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert str(tmp_path) in told


def test_dry_run_writes_nothing(trained, found, tmp_path, capsys):
    _, out = found
    words = ["study", str(trained / "dnn.safetensors"), "--data", str(out.parent / "fresh.npz")]
    assert cli.run([*words, "--dry-run", "--out", str(tmp_path / "none")]) == 0
    told = capsys.readouterr().out
    assert "n = 30 fresh samples in 3 splits, 99 test samples: kernels take about" in told
    assert "Nothing was computed or written." in told
    assert list(tmp_path.iterdir()) == []
