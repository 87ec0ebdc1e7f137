"""What a network adds to its samples before the first weight is data: the kernel is that of the
shifted samples, and no path starts there.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import npk
from npk.definition.paths import path_kernel
from npk.graph.operators import Input, Shift
from npk.reading.tracing import trace_network
from npk.samples import as_samples

MEAN = torch.tensor([0.4, -0.3])
PLANE = (2, 4, 4)


class Prepared(nn.Module):
    """Prepares its samples, and goes on with a small network."""

    def __init__(self, prepare, rest=None, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        conv = {"kernel_size": 3, "padding": 1}
        self.rest = rest or nn.Sequential(
            nn.Conv2d(2, 3, **conv), nn.ReLU(), nn.Conv2d(3, 3, **conv), nn.ReLU(),
            nn.Flatten(), nn.Linear(48, 2),
        )  # fmt: skip
        self.register_buffer("mean", MEAN.reshape(2, 1, 1).clone())
        self.learned = nn.Parameter(self.mean.clone())
        self.prepare = prepare
        self.to(dtype).eval()

    def forward(self, x):
        return self.rest(self.prepare(self, x))


def by_channel(X, factor=1.0):
    return factor * X - MEAN.double().numpy().reshape(2, 1, 1)


# what the network does to its samples; the samples that its first weight sees up to a factor
FOLDED = {
    "a mean in a buffer": (lambda net, x: x - net.mean, by_channel),
    "a parameter": (lambda net, x: x + net.learned, lambda X: X + MEAN.numpy().reshape(2, 1, 1)),
    "a number": (lambda net, x: 0.5 - x, lambda X: 0.5 - X),
    "a factor before it": (lambda net, x: x / 4 - net.mean, lambda X: by_channel(X, 0.25)),
    "a factor behind it": (lambda net, x: (x - net.mean) * 3, lambda X: 3 * by_channel(X)),
    "two of them": (lambda net, x: 2 * (x - net.mean) + 1, lambda X: 2 * by_channel(X) + 1),
    "zeros around it": (
        lambda net, x: F.pad(x - net.mean, (1, 1, 1, 1))[..., 1:-1, 1:-1],
        by_channel,
    ),
    "circles around the sample": (
        lambda net, x: (F.pad(x, (1, 1, 1, 1), mode="circular") - net.mean)[..., 1:-1, 1:-1],
        by_channel,
    ),
    "channels turned": (
        lambda net, x: (x.permute(0, 2, 3, 1) - net.mean.reshape(2)).permute(0, 3, 1, 2),
        by_channel,
    ),
    "read twice": (lambda net, x: torch.cat([x - net.mean, x - net.mean], 1)[:, 1:3].flip(1), by_channel),
}  # fmt: skip
# where no one sum does for all that is read: the shift starts paths, as others do
KEPT = {
    "read with it and without": lambda net, x: torch.cat([(x - net.mean)[:, :1], x[:, :1]], 1),
    "zeros that are shifted": lambda net, x: (F.pad(x, (1, 0)) - net.mean)[..., :-1],
    "behind a weight": lambda net, x: x * net.learned - net.mean,
}  # fmt: skip


@pytest.mark.parametrize("bias", ["auto", "ignore"])
@pytest.mark.parametrize("name", FOLDED)
def test_the_kernel_is_that_of_the_shifted_samples(name, bias, rng):
    prepare, prepared = FOLDED[name]
    net, X = Prepared(prepare), rng.standard_normal((4, *PLANE))
    bare = Prepared(lambda net, x: x)
    K = npk.kernel(net, X, bias=bias, dtype="float64", progress=False)
    expected = npk.kernel(bare, prepared(X), bias=bias, dtype="float64", progress=False)
    np.testing.assert_allclose(K, expected, rtol=1e-11, atol=1e-11 * expected.max())
    table = npk.record_gates(net, X)
    assert not any(isinstance(node.operator, Shift) for node in table.graph.nodes)
    assert npk.check_duality(net, X, draws=20).passed
    enumerated = path_kernel(*2 * [table.take(slice(0, 2))], bias=bias)
    np.testing.assert_allclose(enumerated, expected[:2, :2], rtol=1e-11)


@pytest.mark.parametrize("name", KEPT)
def test_a_shift_that_not_all_see_starts_paths(name, rng):
    net, X = Prepared(KEPT[name]), rng.standard_normal((4, *PLANE))
    trace = trace_network(net, PLANE)
    assert trace.added is None
    assert any(isinstance(node.operator, Shift) for node in trace.graph.nodes)
    np.testing.assert_array_equal(npk.record_gates(net, X).inputs, X)
    assert npk.check_duality(net, X, draws=20).passed


def test_no_path_starts_at_it(rng):
    """Without another bias there is nothing to take, and nothing that would differ."""
    rest = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    rest[-1].bias = None
    net, X = Prepared(lambda net, x: x - net.mean, rest), rng.standard_normal((4, *PLANE))
    auto, paths, ones = (
        npk.kernel(net, X, progress=False, **options)
        for options in ({}, {"bias": "paths"}, {"value_input": "ones"})
    )
    np.testing.assert_array_equal(auto, paths)
    bare = Prepared(lambda net, x: x, rest)
    table = npk.record_gates(bare, by_channel(X))
    np.testing.assert_allclose(
        ones, npk.kernel(table, value_input="ones", progress=False), rtol=1e-6
    )


@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_samples_are_shifted_as_precisely_as_the_network_sees_them(dtype, wide, rng):
    net = Prepared(lambda net, x: x / 255 - net.mean, dtype=wide)
    X = rng.integers(0, 255, (3, *PLANE)).astype(dtype)
    table = npk.record_gates(net, X)
    exact = dtype == np.float64 or wide == torch.float64
    assert table.inputs.dtype == (np.float64 if exact else np.float32)
    assert table.inputs.dtype == npk.record_gates(net, X[:1]).inputs.dtype
    seen = by_channel(as_samples(X).astype(float), 1 / 255) * 255
    np.testing.assert_allclose(table.inputs, seen, rtol=1e-12 if exact else 1e-5, atol=1e-5)
    assert npk.check_duality(net, X, draws=20).passed


def test_another_mean_is_another_trace_and_another_store(rng, tmp_path):
    net, X = Prepared(lambda net, x: x - net.mean), rng.standard_normal((4, *PLANE))
    kernel = npk.NeuralPathKernel(net, dtype="float64", progress=False)
    before = kernel(X)
    on_disk = kernel.to_store(X, None, tmp_path / "K.zarr")
    np.testing.assert_array_equal(np.asarray(on_disk), before)
    with torch.no_grad():
        net.mean += 1
    after = kernel(X)
    np.testing.assert_allclose(after, npk.kernel(net, X, dtype="float64", progress=False))
    assert not np.allclose(before, after)
    with pytest.raises(npk.errors.StoreError, match="another network or other weights"):
        kernel.to_store(X, None, tmp_path / "K.zarr")


def test_promises_count_the_shifted_samples(rng):
    net, X = Prepared(lambda net, x: x - net.mean), rng.standard_normal((40, *PLANE))
    with pytest.raises(npk.errors.OptionError, match="the smallest that works is") as refused:
        npk.kernel(net, X, memory=20_000, progress=False)
    least = int(str(refused.value).split("works is ")[1].split()[0])
    bare = Prepared(lambda net, x: x)
    with pytest.raises(npk.errors.OptionError, match="the smallest that works is") as refused:
        npk.kernel(bare, X, memory=20_000, progress=False)
    assert least >= int(str(refused.value).split("works is ")[1].split()[0])
    npk.kernel(net, X, memory=least, progress=False)


def test_an_onnx_file_that_subtracts_a_mean(tmp_path, rng):
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weights = {
        "c": rng.standard_normal((1, 2, 1, 1)).astype(np.float32),
        "d": np.float32(0.25),
        "w": rng.standard_normal((3, 2, 3, 3)).astype(np.float32),
        "b": rng.standard_normal(3).astype(np.float32),
    }
    nodes = [
        helper.make_node("Sub", ["x", "c"], ["shifted"]),
        helper.make_node("Add", ["shifted", "d"], ["prepared"]),
        helper.make_node("Conv", ["prepared", "w", "b"], ["q"], pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("Relu", ["q"], ["h"]),
        helper.make_node("GlobalAveragePool", ["h"], ["y"]),
    ]
    place = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    graph = helper.make_graph(
        nodes, "g", [place("x", ["n", *PLANE])], [place("y", None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "x.onnx")
    net, X = npk.load(tmp_path / "x.onnx"), rng.standard_normal((3, *PLANE))
    table = npk.record_gates(net, X)
    assert [type(node.operator) for node in table.graph.nodes[:1]] == [Input]
    assert not any(isinstance(node.operator, Shift) for node in table.graph.nodes)
    np.testing.assert_allclose(table.inputs, X - weights["c"] + weights["d"], rtol=1e-6)
    assert npk.check_duality(net, X, draws=20).passed
