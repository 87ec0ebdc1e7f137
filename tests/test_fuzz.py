"""Random networks: each is read exactly, or refused; never another error, never a wrong number."""

import contextlib
import json
import random
import warnings

import numpy as np
import pytest
import torch
from conftest import assert_kernels_equal
from frozen_gates import Normed, TooManyError, differentiated_kernel, freeze, frozen_output
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import random_network, randomize, turns_channels_into_positions

import npk
from npk.dual.path_graph import from_dict, to_dict
from npk.dual.paths import path_kernel
from npk.dual.recording import record_gates
from npk.dual.value_network import evaluate, own_weights
from npk.errors import ShapeError, UnsupportedGraphError

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
COEFFICIENTS = 20_000  # most that are found by differentiation
SETTINGS = settings(derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@st.composite
def drawn_networks(draw):
    """A random network, the shape of a sample, and a seed for its weights."""
    net, shape = random_network(lambda options: draw(st.sampled_from(list(options))))
    return net, shape, draw(st.integers(0, 2**16))


def examine(net, shape, seed):
    """Compare every number that npk gives for the network with its definition. Tells whether the network was read."""
    rng = np.random.default_rng(seed)
    randomize(net, rng)
    X = rng.standard_normal((3, *shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dead inputs, padded copies
        try:
            table = record_gates(net, X)
        except (UnsupportedGraphError, ShapeError) as error:
            return str(error)
        assert from_dict(json.loads(json.dumps(to_dict(table.graph)))) == table.graph
        assert str(table.graph)
        _examine_outputs(net, table, rng)
        return next(filter(None, [_examine_kernel(net, table, bias) for bias in ("ignore", "paths")]), None)


def _examine_outputs(net, table, rng):
    """The value network is the network, under its own weights and under others."""
    X, own = torch.as_tensor(table.inputs), own_weights(net)
    gates, output = freeze(net, X)
    np.testing.assert_allclose(output, net(X).detach(), atol=1e-12)  # the oracle
    np.testing.assert_allclose(evaluate(table, own).reshape(output.shape), output, rtol=1e-9, atol=1e-11)
    other = {name: w * torch.as_tensor(rng.uniform(0.5, 1.5, tuple(w.shape))) for name, w in own.items()}
    expected = frozen_output(net, X, gates, other, Normed).detach()
    np.testing.assert_allclose(evaluate(table, other).reshape(expected.shape), expected, rtol=1e-9, atol=1e-11)


def _examine_kernel(net, table, bias):
    """Both backends against enumeration and, where coefficients are few, against differentiation."""
    options = {"scale": "count", "bias": bias, "dtype": "float64", "progress": False}
    try:
        kernels = [npk.kernel(table, backend=backend, **options) for backend in ("reference", "cpu")]
    except UnsupportedGraphError as error:
        return str(error)
    expected = [np.array(path_kernel(table, table, scale="count", bias=bias))]
    if bias == "ignore" or not turns_channels_into_positions(net):  # a constant is a bias of each channel
        with contextlib.suppress(TooManyError):
            expected.append(differentiated_kernel(net, torch.as_tensor(table.inputs), bias=bias, most=COEFFICIENTS))
    for kernel in kernels:
        for definition in expected:
            assert_kernels_equal(kernel, definition, "float64", (np.diagonal(definition), np.diagonal(definition)))
    return None


@settings(SETTINGS, max_examples=60)
@given(drawn_networks())
def test_random_networks_are_read_exactly_or_refused(drawn):
    examine(*drawn)


@pytest.mark.slow
@settings(SETTINGS, max_examples=300)
@given(drawn_networks())
def test_many_random_networks_are_read_exactly_or_refused(drawn):
    examine(*drawn)


@pytest.mark.slow
def test_most_random_networks_are_read():
    """A reader that refuses everything would pass the tests above."""
    reasons = [examine(*random_network(random.Random(seed).choice), seed) for seed in range(40)]
    assert sum(reason is None for reason in reasons) >= 24, [reason for reason in reasons if reason]
