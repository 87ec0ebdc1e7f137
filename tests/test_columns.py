"""Samples that are the columns of many matrices: same bits, and nothing computed anew."""

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk.gram.work.sides import Sides


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2)
    ).eval()


@pytest.mark.parametrize("scale", ["fan_in", "cosine"])
def test_known_columns_give_the_same_bits(net, scale, rng):
    X, Z = (rng.normal(size=(n, 1, 4, 4)).astype(np.float32) for n in (19, 3))
    made = npk.NeuralPathKernel(net, scale=scale, progress=False)
    columns = made.columns(X)
    np.testing.assert_array_equal(made(Z, columns), made(Z, X))
    np.testing.assert_array_equal(made(columns), made(X))
    assert len(columns) == 19


def test_the_diagonal_of_known_columns_is_not_computed_again(net, rng, monkeypatch):
    made = npk.NeuralPathKernel(net, scale="cosine", progress=False)
    columns = made.columns(rng.normal(size=(19, 1, 4, 4)))
    seen, diagonal = [], Sides.diagonal
    monkeypatch.setattr(
        Sides, "diagonal", lambda self, gates: seen.append(len(gates)) or diagonal(self, gates)
    )
    made(rng.normal(size=(3, 1, 4, 4)), columns)
    made(columns)
    assert seen == [3]
