"""Networks as people use them: the moment identity, and the network's own output from its paths."""

import numpy as np
import pytest
import torch
from conftest import kernel_deviation
from frozen_gates import freeze, random_outputs
from mid_networks import MID_NETWORKS, make_mid

import npk
from npk.definition.value_network import evaluate, own_weights
from npk.gates.recording import record_gates

DRAWS = 1000
SLOW = ("resnet-18", "mobilenet", "inception")
CASES = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in MID_NETWORKS
]
SLOW_TO_DRAW = (*SLOW, "shufflenet", "vgg-11", "u-net", "densenet", "squeezenet")
DRAWN = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW_TO_DRAW else name
    for name in MID_NETWORKS
]


def recorded(name, rng):
    net, shape = make_mid(name, rng)
    likeness = rng.standard_normal((1, *shape))
    return net, record_gates(net, likeness + 0.7 * rng.standard_normal((3, *shape)))


@pytest.mark.parametrize("name", DRAWN)
def test_moment_identity(name, rng):
    """E[f f'] = K, the torch module itself run with random weights under frozen gates: within 4
    standard errors, every entry.
    """
    net, table = recorded(name, rng)
    X = torch.as_tensor(table.inputs)
    gates, _ = freeze(net, X)
    outputs = random_outputs(net, X, gates, torch.Generator().manual_seed(0), draws=DRAWS)
    products = torch.einsum("dnu,dmu->dnm", outputs, outputs).numpy() / outputs.shape[2]
    error = products.std(0) / DRAWS**0.5
    kernel = npk.kernel(table, dtype="float64", progress=False, bias="ignore")
    assert (error < 0.15 * np.abs(kernel).max()).all()  # else the test could not fail
    deviation = np.abs(products.mean(0) - kernel) / error
    assert (deviation <= 4).all(), deviation
    assert kernel_deviation(npk.kernel(table, progress=False, bias="ignore"), kernel) < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_the_network_is_its_value_network(name, rng):
    """Duality with the network's own weights, biases and shifts."""
    net, table = recorded(name, rng)
    with torch.no_grad():
        output = net(torch.as_tensor(table.inputs)).numpy()
    again = evaluate(table, own_weights(net)).reshape(output.shape)
    np.testing.assert_allclose(again, output, rtol=1e-9, atol=1e-9 * np.abs(output).max())
