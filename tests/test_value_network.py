"""Linear layers of the value network by their definition: weights times what each offset sees."""

import numpy as np
import pytest
import torch

from npk.definition import windows
from npk.definition.paths import neural_path_feature, neural_path_value
from npk.definition.value_network import ValueNetwork, evaluate, random_weights
from npk.gates.recording import record_gates
from npk.gates.table import GateTable
from npk.graph.node import PathNode
from npk.graph.operators import Convolution, Input
from npk.graph.path_graph import PathGraph, window_taps
from npk.graph.positions import Window

NO, ONE = (0, 0), (1, 1)
WINDOWS = {
    "none": (Window((), (), (), ()), ()),
    "of a row": (Window((3,), (1,), (ONE,), (1,)), (7,)),
    "with a stride": (Window((3, 2), (2, 1), (ONE, NO), (1, 1)), (5, 4)),
    "dilated": (Window((2, 3), (1, 2), (ONE, (2, 2)), (2, 1)), (5, 4)),
    "padded on one side": (Window((3, 3), (1, 1), ((0, 2), (1, 0)), (1, 1)), (4, 5)),
    "cut": (Window((2, 3), (1, 1), ((-1, 0), (-1, 2)), (1, 1)), (5, 6)),
    "cut on both sides": (Window((2, 1), (1, 1), ((-1, -1), NO), (1, 1)), (6, 2)),
    "of a box": (Window((2, 1, 3), (1, 1, 2), (NO, NO, ONE), (1, 1, 1)), (3, 2, 4)),
    "of four axes": (Window((2, 1, 2, 1), (1, 2, 1, 1), (ONE, NO, NO, NO), (1,) * 4), (2, 3, 2, 1)),
    "of everything": (Window.whole((3, 2)), (3, 2)),
    "of everything, padded": (Window((5, 2), (1, 1), (ONE, NO), (1, 1)), (3, 2)),
    "of one of several": (Window((1, 1), (3, 1), (NO, NO), (1, 1)), (3, 1)),
    "transposed": (Window((3, 2), (2, 1), (ONE, NO), (1, 1), True, (1, 0)), (3, 4)),
    "transposed and dilated": (Window((2,), (3,), ((1, 0),), (2,), True, (0,)), (4,)),
    "transposed, one position": (Window((1, 1), (1, 1), (NO, NO), (1, 1), True, (0, 0)), (1, 1)),
    "transposed, of a box": (
        Window((2, 1, 2), (1, 2, 2), (NO,) * 3, (1,) * 3, True, (0, 0, 1)),
        (2, 2, 2),
    ),
}


def table_of(window, grid, groups, rng):
    """Two samples before one linear layer."""
    shapes = (2 * groups, *grid), (3 * groups, *window.output(grid))
    nodes = (
        PathNode("x", Input(), (), shapes[0]),
        PathNode("y", Convolution("w", "b", window, groups), ("x",), shapes[1]),
    )
    return GateTable(PathGraph(nodes, shapes[0]), rng.standard_normal((2, *shapes[0])), {})


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("name", WINDOWS)
def test_a_linear_layer_is_the_sum_over_what_its_window_sees(name, groups, rng):
    window, grid = WINDOWS[name]
    table = table_of(window, grid, groups, rng)
    node, before = table.graph.output, table.graph["x"]
    shape = windows.weight_shape(table.graph, node, node.operator)
    weight, bias = rng.standard_normal(shape), rng.standard_normal(node.channels)
    value = table.inputs.reshape(2, before.channels, before.positions)
    expected = np.repeat(bias[None, :, None], 2, 0) + np.zeros((2, node.channels, node.positions))
    for (offset, position), place in np.ndenumerate(window_taps(table.graph, node)):
        for out in range(node.channels) if place >= 0 else ():
            for c in range(2):
                group, own = divmod(out, 3)
                number = (2 * group + c, own) if window.transposed else (out, c)
                factor = weight.reshape(*shape[:2], -1)[(*number, offset)]
                expected[:, out, position] += factor * value[:, 2 * group + c, place]
    weights = {"w": torch.as_tensor(weight), "b": torch.as_tensor(bias)}
    actual = evaluate(table, weights)
    assert actual.shape == (2, *node.shape)
    np.testing.assert_allclose(actual.reshape(expected.shape), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", WINDOWS)
def test_a_value_network_is_the_sum_over_its_paths(name, rng):
    table = table_of(*WINDOWS[name], 2, rng)
    weights = random_weights(table.graph, rng, bias=True)
    output = evaluate(table, weights).reshape(2, table.graph.output.channels, -1)
    for unit, position in ((0, 0), (-1, -1)):
        at = {"unit": unit % output.shape[1], "position": position % output.shape[2]}
        for sample in range(2):
            feature = neural_path_feature(table, sample, bias="paths", **at)
            value = sum(c * neural_path_value(table.graph, p, weights) for p, c in feature.items())
            assert value == pytest.approx(output[sample, unit, position], abs=1e-12)


def test_a_prepared_network_takes_any_weights_in_its_arithmetic(rng):
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3, padding=1),
        torch.nn.BatchNorm2d(3),
        torch.nn.ReLU6(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(12, 2),
    ).eval()
    table = record_gates(net, rng.standard_normal((3, 1, 4, 4)).astype(np.float32))
    exactly, quick = ValueNetwork(table), ValueNetwork(table, dtype=torch.float32)
    seen = []
    for seed in range(3):
        weights = random_weights(table.graph, np.random.default_rng(seed), bias=True)
        before = {name: weight.clone() for name, weight in weights.items()}
        output = exactly(weights)
        assert (output.dtype, quick(weights).dtype) == (np.float64, np.float32)
        np.testing.assert_array_equal(output, evaluate(table, weights))
        np.testing.assert_allclose(quick(weights), output, rtol=1e-4, atol=1e-5)
        assert all(torch.equal(weight, before[name]) for name, weight in weights.items())
        seen.append(output)
    assert not np.allclose(seen[0], seen[1])


def test_random_weights_are_signs_of_one_size(rng):
    table = table_of(*WINDOWS["dilated"], 3, rng)
    drawn = [random_weights(table.graph, rng, bias=True) for _ in range(200)]
    values = torch.stack([weights["w"] for weights in drawn])
    assert set(values.abs().flatten().tolist()) == {(1 / 12) ** 0.5}
    assert float(values.mean(0).abs().max()) < 0.35
    assert not drawn[0]["w"].equal(drawn[1]["w"])
    assert set(torch.stack([weights["b"] for weights in drawn]).abs().flatten().tolist()) == {
        (1 / 12) ** 0.5
    }


INDEX = np.array([[2, -1, 0], [1, 1, 2]])


def test_values_are_looked_up_with_zeros_outside():
    value = torch.arange(12.0).reshape(2, 2, 3)
    looked = windows.lookup(INDEX)(value).numpy()
    expected = np.where(INDEX < 0, 0, value.numpy()[:, :, np.maximum(INDEX, 0)])
    np.testing.assert_array_equal(looked, expected)
    own = np.stack([INDEX, INDEX[:, ::-1]])
    gathered = windows.gather(own)(value).numpy()
    expected = np.take_along_axis(np.pad(value.numpy(), ((0, 0), (0, 0), (0, 1))), own % 4, 2)
    np.testing.assert_array_equal(gathered, expected)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_zeros_outside_are_zeros_beside_what_is_no_number(number):
    value = torch.tensor([[[number, 1.0]]])
    assert windows.lookup(np.array([-1, 1]))(value).tolist() == [[[0.0, 1.0]]]
    assert windows.gather(np.array([[[-1, 1]]]))(value).tolist() == [[[0.0, 1.0]]]
