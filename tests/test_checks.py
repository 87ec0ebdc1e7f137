"""Each check passes where the theory holds, and fails where the network or the code breaks it."""

import io
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import npk
from npk.checks import duality, ensemble
from npk.errors import OptionError
from npk.gates.table import GateLayer, GateTable
from npk.results import CheckResult


def conv(i, o, **options):
    return nn.Conv2d(i, o, 3, **{"padding": 1, "padding_mode": "circular", **options})


GAP = (nn.AdaptiveAvgPool2d(1), nn.Flatten())


def network(*layers):
    torch.manual_seed(0)
    for layer in layers:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return nn.Sequential(*layers).double().eval()


class Skips(nn.Module):
    """Two blocks around which the stream skips; a ReLU after the sums, or not."""

    def __init__(self, gated):
        super().__init__()
        self.gated, (self.stem, self.a, self.b, self.head) = (
            gated,
            (nn.Linear(*io) for io in ((3, 8), (8, 8), (8, 8), (8, 2))),
        )

    def forward(self, x):
        h = F.relu(self.stem(x))
        for layer in (self.a, self.b):
            h = F.relu(h + layer(h)) if self.gated else h + F.relu(layer(h))
        return self.head(h)


@pytest.fixture(scope="module")
def skips():
    torch.manual_seed(0)
    return {gated: Skips(gated).double().eval() for gated in (False, True)}


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape)


# duality


def test_duality_holds(skips):
    result = npk.check_duality(skips[True], draw(20, 3), draws=100, name="skips")
    assert result.passed
    assert result.measured < 1e-12
    assert (result.name, result.network, result.tolerance) == ("duality", "skips", 1e-9)
    assert [case.label for case in result.details.cases] == ["own weights", "paths one by one"]
    details = result.details
    assert (details.moment, details.draws) == ("agrees", 100)
    assert 0 < details.moment_errors < 3
    assert 0 < details.moment_spread < 0.3
    assert details.tail < 0.7
    said = f"within {details.moment_errors:.2g} standard errors (one is {100 * details.moment_spread:.2g} %"
    assert (
        f"E[f f'] = K over 100 random value networks: agrees {said} of K(x, x))" in result.statement
    )
    assert CheckResult.from_json(result.to_json()) == result


def test_duality_in_single_precision():
    result = npk.check_duality(
        network(
            conv(1, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), *GAP, nn.Linear(2, 2)
        ).float(),
        draw(3, 1, 4, 4),
        draws=50,
    )
    assert result.passed
    assert 0 < result.measured < result.tolerance == 1e-4


class Normalizes(nn.Module):
    """Constants of the code: an attribute, and a tensor that is made while the network runs."""

    def __init__(self):
        super().__init__()
        self.mean = torch.tensor([0.5, 0.4, -0.3])

    def forward(self, x):
        return (x - self.mean) / torch.tensor([0.2, 0.3, 0.1])


def test_duality_of_a_network_with_constants():
    net = nn.Sequential(Normalizes(), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 3), Normalizes())
    result = npk.check_duality(net.eval(), draw(5, 3), draws=50)
    assert result.passed
    assert 0 < result.measured < 1e-5


class Named(nn.Sequential):
    """Its output is in a dictionary."""

    def forward(self, x):
        return {"logits": super().forward(x)}


def test_duality_of_an_output_in_a_dictionary():
    torch.manual_seed(0)
    assert npk.check_duality(
        Named(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).eval(), draw(5, 3), draws=50
    ).passed


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_duality_in_half_precision(kind):
    """Rounding of 1e-3 would hide mistakes: what is compared is a copy in float64."""
    layers = [layer for i in (4, 32, 32) for layer in (nn.Linear(i, 32), nn.ReLU())]
    net = network(*layers, nn.Linear(32, 2)).to(getattr(torch, kind))
    before = {name: w.clone() for name, w in net.state_dict().items()}
    result = npk.check_duality(net, draw(6, 4), draws=50)
    assert result.passed
    assert result.measured < 1e-9
    assert result.tolerance == 1e-9
    assert f"of the {kind} network a copy in float64" in result.statement
    assert all(
        w.dtype == getattr(torch, kind) and torch.equal(w, before[name])
        for name, w in net.state_dict().items()
    )


class Narrows(nn.Module):
    """Its code asks for a type of number."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x):
        return x.to(self.kind)


@pytest.mark.parametrize(
    ("kind", "inner"), [("float64", "float32"), ("float32", "float16"), ("float16", "float16")]
)
def test_duality_goes_by_the_coarsest_numbers_of_the_network(kind, inner):
    inner = getattr(torch, inner)
    net = nn.Sequential(
        network(nn.Linear(3, 32), nn.ReLU()).to(getattr(torch, kind)),
        Narrows(inner),
        network(nn.Linear(32, 2)).to(inner),
    )
    result = npk.check_duality(net.eval(), draw(5, 3), draws=50)
    assert result.passed
    assert result.measured > 1e-9
    assert result.tolerance == {torch.float32: 1e-4, torch.float16: 0.05}[inner]
    assert "copy" not in result.statement


def test_duality_sees_one_flipped_gate(skips, monkeypatch):
    """The gate with the largest effect; one whose pre-activation is near 0 would hardly show."""
    record = duality.record_trace

    def flip(trace, X, **options):
        table = record(trace, X, **options)
        name = table.names[0]
        entry = table.entries[name]
        return GateTable(
            table.graph,
            table.inputs,
            {**table.entries, name: GateLayer(entry.kind, entry.shape, entry.data ^ np.uint64(1))},
        )

    monkeypatch.setattr(duality, "record_trace", flip)
    result = npk.check_duality(skips[True], draw(5, 3), draws=10)
    assert not result.passed
    assert result.measured > 1e-3


def test_duality_sees_a_wrong_kernel(skips, monkeypatch):
    kernel = duality.NeuralPathKernel.__call__
    monkeypatch.setattr(
        duality.NeuralPathKernel, "__call__", lambda self, X, Y=None: 2 * kernel(self, X, Y)
    )
    result = npk.check_duality(skips[True], draw(5, 3), draws=200)
    assert not result.passed
    assert result.details.moment == "deviates"
    assert result.details.moment_errors > 5
    assert result.measured < 1e-12
    assert "random value networks: deviates by" in result.statement
    assert CheckResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_duality_does_not_judge_means_of_heavy_tails(factor, monkeypatch):
    """60 layers of 3 units: with hundreds of draws nobody can tell."""
    layers = [
        layer for _ in range(60) for layer in (nn.Linear(3, 3, bias=False), nn.LeakyReLU(0.5))
    ]
    net = network(*layers, nn.Linear(3, 1, bias=False))
    kernel = duality.NeuralPathKernel.__call__
    result = npk.check_duality(net, draw(5, 3))
    assert result.passed
    assert (result.details.moment, result.details.draws) == ("undecided", 200)
    assert result.details.tail is None or result.details.tail > 0.7
    assert "E[f f'] = K: not decided by 200 random value networks" in result.statement
    assert "so that the outputs alone decide" in result.statement
    monkeypatch.setattr(
        duality.NeuralPathKernel, "__call__", lambda self, X, Y=None: factor * kernel(self, X, Y)
    )
    assert npk.check_duality(net, draw(5, 3)).details.moment == "undecided"


@pytest.mark.parametrize("size", [1e-42, 1e20])
def test_duality_of_samples_that_single_precision_does_not_hold(skips, size):
    result = npk.check_duality(skips[True], size * draw(5, 3), draws=400)
    assert result.passed
    assert result.details.moment == "agrees"


def test_duality_draws_in_one_thread_and_gives_the_others_back(skips, monkeypatch):
    seen, draw_weights = set(), duality.random_weights

    def watched(*given, **options):
        seen.add(torch.get_num_threads())
        return draw_weights(*given, **options)

    monkeypatch.setattr(duality, "random_weights", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        npk.check_duality(skips[True], draw(5, 3), draws=3)
        assert (seen, torch.get_num_threads()) == ({1}, 3)
    finally:
        torch.set_num_threads(before)


def test_duality_tells_how_far_it_is(skips):
    events = io.StringIO()
    npk.check_duality(skips[True], draw(5, 3), draws=7, progress=npk.progress.Events(events))
    told = [json.loads(line) for line in events.getvalue().splitlines()]
    ended = {event["task"]: event["done"] for event in told if event["event"] == "end"}
    assert ended["random value networks"] == 7
    assert "recording gates" in ended


@pytest.mark.parametrize("draws", [0, -1, 2.5, True, "many"])
def test_duality_refuses_draws_that_are_no_number_of_networks(skips, draws):
    with pytest.raises(OptionError, match=r"draws is .*, it must be a positive whole number"):
        npk.check_duality(skips[True], draw(5, 3), draws=draws)


def test_a_comparison_that_is_no_number_does_not_hide_behind_another(skips, monkeypatch):
    monkeypatch.setattr(duality, "_enumerated", lambda *_: np.array([[np.nan]]))
    result = npk.check_duality(skips[True], draw(5, 3), draws=5)
    assert (result.passed, result.measured) == (False, None)
    assert [case.deviation is None for case in result.details.cases] == [False, True]
    assert CheckResult.from_json(result.to_json()) == result


# ensemble


@pytest.mark.parametrize("gated", [False, True])
def test_ensemble_is_the_sum_of_sub_networks(gated, skips):
    result = npk.check_ensemble(skips[gated], draw(6, 3), bias="ignore")
    cases = {case.label: case.deviation for case in result.details.cases}
    assert result.passed
    assert cases["sum of 4 sub-networks"] < 1e-12
    assert (cases["product form"] < 1e-12) == (not gated)
    assert not gated or cases["product form"] > 1e-2
    assert not gated or cases["cumulative masks"] < 1e-12
    shares = result.details.shares
    assert shares.depth == (2, 3, 4)
    assert sum(shares.share) == pytest.approx(1)
    assert len(shares.blocks) == 2
    assert all(0 < share < 1 for share in shares.blocks)
    assert CheckResult.from_json(result.to_json()) == result


def test_ensemble_sees_a_missing_sub_network(skips, monkeypatch):
    part = ensemble._part
    monkeypatch.setattr(
        ensemble, "_part", lambda *of: (3, 0 * part(*of)[1]) if of[-1] == (1, 1) else part(*of)
    )
    result = npk.check_ensemble(skips[False], draw(6, 3))
    assert not result.passed
    assert result.measured > 1e-2


def test_ensemble_needs_skips():
    plain = network(conv(1, 2), nn.ReLU(), conv(2, 3), nn.ReLU(), *GAP, nn.Linear(3, 2))
    with pytest.raises(OptionError, match="plain has 0 skip connections"):
        npk.check_ensemble(plain, draw(2, 1, 4, 4), name="plain")
