"""Depth spectra, ensembles of many blocks, lesions and the check of the tangent kernel."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import npk
from npk import plot
from npk.checks import ensemble, tangent
from npk.checks.spectrum import DepthSpectrum
from npk.definition.paths import kernel_by_layers
from npk.definition.value_network import evaluate, random_weights
from npk.errors import DataError, OptionError, StoreError
from npk.gates.table import GateTable
from npk.gram.options import KernelOptions
from npk.graph.parts import blocks_of, without_block
from npk.results import CheckResult, DepthShares, Lesion, LesionTable

# networks of a few units have dead inputs
pytestmark = pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning")


class Stream(nn.Module):
    """Blocks of two layers around which a stream skips; a ReLU after the sums, or not."""

    def __init__(self, blocks, gated, width=6):
        super().__init__()
        self.gated, self.stem, self.head = gated, nn.Linear(4, width), nn.Linear(width, 3)
        pairs = [(nn.Linear(width, width), nn.Linear(width, width)) for _ in range(blocks)]
        self.first, self.second = (nn.ModuleList(side) for side in zip(*pairs, strict=True))

    def forward(self, x):
        h = F.relu(self.stem(x))
        for first, second in zip(self.first, self.second, strict=True):
            h = h + second(F.relu(first(h)))
            h = F.relu(h) if self.gated else h
        return self.head(h)


@functools.cache
def stream(blocks, gated=True):
    torch.manual_seed(blocks)
    return Stream(blocks, gated).double().eval()


def draw(*shape):
    return np.random.default_rng(0).standard_normal(shape)


# spectrum


@pytest.mark.parametrize("bias", ["ignore", "paths"])
def test_shares_are_those_of_the_paths_of_each_length(bias):
    net, X = stream(2), draw(5, 4)
    found = npk.depth_spectrum(net, X, bias=bias, name="stream")
    table = npk.record_gates(net, X)
    parts = kernel_by_layers(table, table, bias=bias)
    lengths = sorted({len(layers) for layers in parts})
    assert found.depths.tolist() == lengths
    assert found.shares.shape == (5, len(lengths))
    whole = sum(np.diagonal(part) for part in parts.values())
    for depth, share in zip(lengths, found.shares.T, strict=True):
        wanted = sum(np.diagonal(part) for layers, part in parts.items() if len(layers) == depth)
        np.testing.assert_allclose(share, wanted / whole, rtol=1e-12)
    np.testing.assert_allclose(found.kernel, whole, rtol=1e-12)
    kernels = [
        npk.kernel(table, of=of, bias=bias, dtype="float64", progress=False)
        for of in ("tangent", "paths")
    ]
    slopes = np.diagonal(kernels[0]) / np.diagonal(kernels[1])
    np.testing.assert_allclose(found.path_length, slopes, rtol=1e-12)


def test_a_deep_stream_keeps_every_share():
    """Without gates on the stream K is a product over blocks of 1 + 6 g, of which 6 units pass each
    gate count g on: every share, those below 1e-12 too, as the polynomial in whole numbers has it.
    """
    blocks, X = 40, draw(2, 4)
    found = npk.depth_spectrum(stream(blocks, gated=False), X, scale="count", bias="ignore")
    _, *inner = npk.record_gates(stream(blocks, gated=False), X)
    assert found.depths.tolist() == list(range(2, 3 + 2 * blocks, 2))
    for i, shares in enumerate(found.shares):
        product = [1]
        for layer in inner:
            grown = [6 * int(layer[i].sum()) * value for value in product]
            product = [a + b for a, b in zip([*product, 0], [0, *grown], strict=True)]
        wanted = [value / sum(product) for value in product]
        assert min(wanted) < 1e-30
        np.testing.assert_allclose(shares, wanted, rtol=1e-12)


def test_a_spectrum_travels(tmp_path):
    found = npk.depth_spectrum(stream(2), draw(3, 4), bias="ignore", name="stream")
    found.save(tmp_path / "s.json")
    for again in (
        DepthSpectrum.load(tmp_path / "s.json"),
        DepthSpectrum.from_json(found.to_json()),
    ):
        np.testing.assert_array_equal(again.shares, found.shares)
        np.testing.assert_array_equal(again.depths, found.depths)
        np.testing.assert_array_equal(again.kernel, found.kernel)
        assert (again.network, again.scale, again.bias) == ("stream", "fan_in", "ignore")
    with pytest.raises(StoreError, match="not a DepthShares"):
        DepthSpectrum.from_json(LesionTable("a", 1, "paths", None, ()).to_json())
    with pytest.raises(DataError, match="give a share for each sample and depth"):
        DepthShares("a", "fan_in", "ignore", (1, 2), ((1.0,),), (1.0,))


def test_a_spectrum_in_words():
    found = npk.depth_spectrum(stream(2), draw(3, 4), bias="ignore", name="stream")
    head, columns, *rows, last = str(found).splitlines()
    assert head == (
        'stream: shares of K(x, x) by layers, 3 samples; no paths from biases (bias="paths" takes '
        "those that a network has)"
    )
    assert columns.split() == ["layers", "mean", "share", "s.d.", "over", "samples"]
    assert [int(row.split()[0]) for row in rows] == [2, 4, 6]
    assert last == f"mean number of layers of a path {found.path_length.mean():.4g}"
    assert found.between(2, 4) == pytest.approx(found.shares[:, :2].sum(1))


def test_samples_without_any_path():
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1)).double().eval()
    nn.init.ones_(net[0].weight)
    found = npk.depth_spectrum(net, np.array([[1.0, 1.0], [-1.0, -1.0]]), bias="ignore")
    assert found.live.tolist() == [True, False]
    assert found.shares.tolist() == [[1.0], [0.0]]
    assert found.mean.tolist() == [1.0]
    assert "1 without any active path left out" in str(found)
    none = npk.depth_spectrum(net, np.array([[-1.0, -1.0]]), bias="ignore")
    assert (none.mean.tolist(), str(none).splitlines()[-1]) == ([0.0], "no path")


def test_a_spectrum_of_gates_is_that_of_the_network():
    X = draw(4, 4)
    table = npk.record_gates(stream(3), X)
    found, again = npk.depth_spectrum(None, table), npk.depth_spectrum(stream(3), X)
    np.testing.assert_array_equal(found.shares, again.shares)
    exact = npk.depth_spectrum(None, table, backend="reference")
    np.testing.assert_allclose(found.shares, exact.shares, rtol=1e-12)


def test_sizes_of_samples_do_not_matter():
    X = draw(3, 4)
    found = npk.depth_spectrum(stream(2), X, bias="ignore")
    small = npk.record_gates(stream(2), X)
    scaled = GateTable(small.graph, X * np.array([[1.0], [2.0**40], [2.0**-40]]), small.entries)
    moved = npk.depth_spectrum(None, scaled, bias="ignore")
    np.testing.assert_allclose(moved.shares, found.shares, rtol=1e-12)
    np.testing.assert_allclose(moved.kernel / found.kernel, [1, 2.0**80, 2.0**-80], rtol=1e-12)


# ensemble


@pytest.mark.parametrize("gated", [False, True])
def test_an_ensemble_of_more_blocks_than_sub_networks_can_be_summed_of(gated):
    result = npk.check_ensemble(stream(12, gated), draw(3, 4), bias="ignore")
    cases = {case.label: case.deviation for case in result.details.cases}
    assert result.passed
    assert result.measured < 1e-12
    assert set(cases) == {"sum over depths", "tangent kernel", "product form"}
    assert (cases["product form"] < 1e-12) == (not gated)
    shares = result.details.shares
    assert shares.depth == tuple(range(2, 27, 2))
    assert sum(shares.share) == pytest.approx(1)
    assert len(shares.blocks) == 12
    spectrum = npk.depth_spectrum(stream(12, gated), draw(3, 4), bias="ignore")
    assert shares.share == pytest.approx(tuple(spectrum.mean))
    assert shares.path_length == pytest.approx(spectrum.path_length.mean())
    assert CheckResult.from_json(result.to_json()) == result


@pytest.mark.parametrize("bias", ["ignore", "paths"])
def test_blocks_carry_what_is_lost_without_them(bias):
    table = npk.record_gates(stream(3), draw(3, 4))
    asked = KernelOptions(dtype="float64", bias=bias)
    options = {"bias": bias, "dtype": "float64", "progress": False}
    whole = npk.kernel(table, **options)
    for block, part in enumerate(ensemble.through_blocks(table, asked, whole), 1):
        left = npk.kernel(table, of=npk.Without(block=block), **options)
        np.testing.assert_allclose(part, whole - left, rtol=0, atol=1e-13 * whole.max())


def test_blocks_that_layers_do_not_tell(monkeypatch):
    """Then each is computed by what is left without it."""
    table, asked = npk.record_gates(stream(2), draw(3, 4)), KernelOptions(dtype="float64")
    whole = npk.kernel(table, dtype="float64", progress=False)
    told = ensemble.through_blocks(table, asked, whole)
    monkeypatch.setattr(ensemble, "last_layers_of", lambda graph, block, biases: None)
    for part, other in zip(ensemble.through_blocks(table, asked, whole), told, strict=True):
        np.testing.assert_allclose(part, other, rtol=0, atol=1e-13 * whole.max())


def test_an_ensemble_sees_a_depth_that_is_missing(monkeypatch):
    found = ensemble._by_depth

    def without_one(table, asked):
        known, parts = found(table, asked)
        return known, parts * (np.array(known) != 6)[:, None, None]

    monkeypatch.setattr(ensemble, "_by_depth", without_one)
    result = npk.check_ensemble(stream(3), draw(3, 4))
    assert not result.passed
    assert result.measured > 1e-2


# lesions


@pytest.fixture(scope="module")
def lesioned():
    X, y = draw(40, 4), np.arange(40) % 3
    return X, y, npk.lesions(stream(3), X, y, name="stream")


def test_lesions_of_a_network(lesioned):
    """Frozen: the value network with the network's own weights; live: the module without a block."""
    X, y, found = lesioned
    net = stream(3)
    with torch.no_grad():
        whole = net(torch.as_tensor(X)).numpy()
    assert (found.network, found.samples, found.bias) == ("stream", 40, "paths")
    assert found.accuracy == np.mean(whole.argmax(1) == y)
    table = npk.record_gates(net, X)
    K = npk.kernel(table, bias="paths", dtype="float64", progress=False)
    for lesion in found.lesions:
        left = [k for k in range(3) if k != lesion.block - 1]
        other = Stream(2, True).double().eval()
        other.stem, other.head = net.stem, net.head
        other.first, other.second = (
            nn.ModuleList([side[k] for k in left]) for side in (net.first, net.second)
        )
        with torch.no_grad():
            after = other(torch.as_tensor(X)).numpy()
        # the ReLU after the sum that is gone does nothing to what is positive already
        assert lesion.live == pytest.approx(np.square(whole - after).sum() / np.square(whole).sum())
        assert lesion.accuracy == np.mean(after.argmax(1) == y)
        of = npk.Without(block=lesion.block)
        less = npk.kernel(table, of=of, bias="paths", dtype="float64", progress=False)
        assert lesion.predicted == pytest.approx(1 - np.trace(less) / np.trace(K))
        assert 0 < lesion.frozen < 1
        assert lesion.source


def test_lesions_travel_and_are_told(lesioned):
    found = lesioned[2]
    assert LesionTable.from_json(found.to_json()) == found
    head, columns, *rows = str(found).splitlines()
    assert head == (
        f"stream: 40 samples, accuracy {100 * found.accuracy:.1f} %; biases start paths "
        '(bias="ignore" leaves these out)'
    )
    assert columns.split("  ")[0].strip() == "block"
    assert [int(row.split()[0]) for row in rows] == [1, 2, 3]
    silent = LesionTable("a", 1, "paths", None, (Lesion(1, "", None, 0.5, None, None),))
    assert str(silent).splitlines()[-1].split() == ["1", "-", "0.5", "-", "-"]


def test_lesion_theorem():
    """Random weights, frozen gates: the mean square that is lost with a block is its share of the
    kernel, within 3 standard errors.
    """
    X, rng = draw(6, 4), np.random.default_rng(5)
    table = npk.record_gates(stream(3), X)
    lefts = [
        GateTable(without_block(table.graph, block), table.inputs, table.entries)
        for block in range(1, 1 + len(blocks_of(table.graph)))
    ]
    shares = [lesion.predicted for lesion in npk.lesions(stream(3), X, bias="ignore").lesions]
    off = []
    for _ in range(2000):
        weights = random_weights(table.graph, rng)
        f = evaluate(table, weights)
        lost = [np.square(f - evaluate(left, weights)).sum() for left in lefts]
        off.append(np.array(lost) - np.array(shares) * np.square(f).sum())
    errors = np.std(off, 0) / len(off) ** 0.5
    assert (np.abs(np.mean(off, 0)) < 3 * errors).all()
    assert all(0.01 < share < 0.9 for share in shares)


@pytest.mark.parametrize(
    ("y", "why"),
    [
        ([0, 1], "y is no class of each of the 4 samples for 3 outputs. Give whole numbers from 0"),
        ([0.0, 1.0, 2.0, 0.0], "y is no class"),
        ([0, 1, 2, 3], "y is no class"),
    ],
)
def test_labels_that_are_no_classes_of_the_outputs(y, why):
    with pytest.raises(DataError, match=why):
        npk.lesions(stream(2), draw(4, 4), y)


def test_lesions_need_blocks():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double().eval()
    with pytest.raises(OptionError, match="plain has 0 skip connections"):
        npk.lesions(net, draw(3, 4), name="plain")


class Differs(nn.Module):
    """A difference with a factor, the branches the other way round, and a broadcast."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        h = F.relu(self.stem(x))
        return self.head(F.relu(torch.sub(h, self.body(h), alpha=0.5)))


def test_a_lesion_of_a_difference():
    torch.manual_seed(0)
    net, X = Differs().double().eval(), draw(5, 4)
    (lesion,) = npk.lesions(net, X).lesions
    with torch.no_grad():
        x = torch.as_tensor(X)
        whole, left = net(x).numpy(), net.head(F.relu(net.stem(x))).numpy()
    assert lesion.live == pytest.approx(np.square(whole - left).sum() / np.square(whole).sum())


# tangent


@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
def test_tangent_holds(parametrization):
    result = npk.check_tangent(
        stream(2), draw(6, 4), parametrization=parametrization, bias="paths", name="stream"
    )
    details = result.details
    assert result.passed
    assert 0 < result.measured < result.tolerance
    assert (result.name, details.parametrization, details.draws) == (
        "tangent",
        parametrization,
        400,
    )
    assert len(details.entries) == 10  # of four samples
    assert 2 < details.path_length < 6
    assert CheckResult.from_json(result.to_json()) == result


def test_tangent_of_a_gated_output_is_the_mean_over_its_units():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU()).double().eval()
    assert npk.check_tangent(net, draw(3, 3)).passed


def test_tangent_sees_a_wrong_kernel(monkeypatch):
    """The kernel of paths is none of slopes."""
    real = tangent._kernel
    monkeypatch.setattr(
        tangent, "_kernel", lambda table, asked, of="paths": real(table, asked, "paths")
    )
    result = npk.check_tangent(stream(2), draw(2, 4))
    assert not result.passed
    assert result.measured > result.tolerance


def test_the_limit_knows_how_many_are_compared():
    assert tangent.limit_of(10, 20) > tangent.limit_of(1, 20) > 5
    assert tangent._worst(np.ones(2), np.array([1.0, 1.5]), np.array([0.0, 0.1])) == pytest.approx(
        5
    )
    assert tangent._worst(np.ones(1), np.array([2.0]), np.zeros(1)) == np.inf


@pytest.mark.parametrize("draws", [399, True, 400.0])
def test_tangent_refuses_few_draws(draws):
    with pytest.raises(OptionError, match="and 400 at least are needed: slopes have heavy tails"):
        npk.check_tangent(stream(2), draw(2, 4), draws=draws)


# figures


def test_figures(lesioned):
    found = npk.depth_spectrum(stream(2), draw(3, 4))
    axes = plot.depth_spectrum({"a": found, "b": npk.depth_spectrum(stream(3), draw(3, 4))})
    assert axes.get_xlabel() == "layers of the path"
    assert f"a mean {found.path_length.mean():.1f} layers" in [
        text.get_text() for text in axes.get_legend().get_texts()
    ]
    (line, *_) = axes.get_lines()
    np.testing.assert_allclose(line.get_ydata(), 100 * found.mean)
    axes = plot.lesions(lesioned[2])
    told = {text.get_text() for text in axes.get_legend().get_texts()}
    assert told == {"predicted", "frozen gates", "live gates"}
    assert [bar.get_height() for bar in axes.patches] == [
        lesion.predicted for lesion in lesioned[2].lesions
    ]
