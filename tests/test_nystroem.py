"""Landmarks: the features against scikit-learn's, what is computed, and what scikit-learn asks."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_estimators import FullyConnected, closed_form
from torch import nn

import npk
from npk.errors import DataError, OptionError, ShapeError
from npk.machines import of_network
from npk.machines.approximate.nystroem import KernelEntries, NPKNystroem

SELECTIONS = ["rpcholesky", "random", "greedy"]
fully_connected = FullyConnected()


class Table(np.ndarray):
    """Samples in the place of their gates."""

    def take(self, rows):
        return self[rows]


@pytest.fixture
def fake(monkeypatch):
    """npk.NeuralPathKernel replaced by a closed form; the shapes of the kernels that were computed."""
    shapes = []

    class ClosedForm:
        def __init__(self, net, **options):
            self.net = net
            self.options = SimpleNamespace(dtype=options["dtype"], scale=options["scale"])

        def keep_promise(self, X, Y):
            pass

        def record(self, X):
            return X.view(Table)

        def diagonal(self, X):
            return np.concatenate([closed_form(self.net, x[None], dtype="float64")[0] for x in X])

        def __call__(self, rows, cols=None):
            shapes.append((len(rows), len(rows if cols is None else cols)))
            return closed_form(self.net, rows, cols, **vars(self.options))

    monkeypatch.setattr(of_network, "NeuralPathKernel", ClosedForm)
    return shapes


def samples(rng, n=60):
    return rng.normal(size=(n, 6)).astype(np.float32)


@pytest.fixture
def net():
    return nn.Sequential(
        nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 2)
    ).eval()


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("scale", ["cosine", "fan_in"])
def test_features_are_those_of_scikit_learn(rng, net, selection, scale):
    X = samples(rng, 80)
    ours = NPKNystroem(net, 15, selection=selection, scale=scale, dtype="float64").fit(X[:60])
    K = npk.kernel(net, X, scale=scale, dtype="float64", progress=False)
    # scikit-learn takes the first samples of a permutation: the landmarks, shown to it alone
    S = ours.component_indices_
    theirs = Nystroem(kernel=lambda i, j: K[int(i[0]), int(j[0])], n_components=15, random_state=0)
    theirs.fit(S[:, None])
    expected = theirs.transform(np.arange(80)[:, None])
    # theirs are those of the same landmarks in another order, which permutes the features
    order = np.argsort(theirs.component_indices_)
    size = np.sqrt(K.diagonal().max())
    np.testing.assert_allclose(ours.transform(X), expected[:, order], atol=1e-8 * size)
    np.testing.assert_allclose(
        ours.fit_transform(X[:60]), expected[:60][:, order], atol=1e-8 * size
    )


@pytest.mark.parametrize("selection", SELECTIONS)
def test_what_is_left_is_told(rng, net, selection):
    X = samples(rng)
    made = NPKNystroem(net, 20, selection=selection, dtype="float64")
    Z = made.fit_transform(X)
    K = npk.kernel(net, X, scale="cosine", dtype="float64", progress=False)
    rest = K - Z @ Z.T
    assert made.residual_trace_ == pytest.approx(np.trace(rest), abs=1e-9)
    assert np.abs(np.linalg.eigvalsh(rest)).max() <= made.residual_trace_ + 1e-9
    assert made.trace_ == pytest.approx(60)
    np.testing.assert_array_equal(made.components_, X[made.component_indices_])
    assert len(made.gates_) == 20


@pytest.mark.parametrize("selection", SELECTIONS)
def test_nothing_but_the_columns_of_the_landmarks_is_computed(fake, rng, selection):
    made = NPKNystroem(fully_connected, 20, selection=selection)
    made.fit_transform(samples(rng, 200))
    columns = [shape for shape in fake if shape[1] == 200]
    blocks = [shape for shape in fake if shape[1] != 200]
    assert sum(rows for rows, _ in columns) == 20
    assert all(rows == cols <= 20 for rows, cols in blocks)
    fake.clear()
    made.transform(samples(rng, 7))
    assert fake == [(7, 20)]


def test_the_kernel_in_float32_gives_no_more_landmarks_than_it_can_show(rng, net):
    X = samples(rng, 10)
    made = NPKNystroem(net, 25).fit(np.tile(X, (3, 1)))
    assert made.transform(X).shape == (10, 10)
    assert sorted(made.component_indices_ % 10) == list(range(10))
    K = npk.kernel(net, X, scale="cosine", progress=False)
    Z = made.transform(X)
    np.testing.assert_allclose(Z @ Z.T, K, atol=1e-4)  # noise of float32, through the root


def test_a_pickle_is_the_same_transformer(rng, net):
    X = samples(rng)
    made = NPKNystroem(net, 10, progress=False).fit(X)
    again = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(again.transform(X), made.transform(X))


def test_a_linear_model_behind_it_is_a_kernel_machine(rng, net):
    X = samples(rng, 200)
    y = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")
    machine = make_pipeline(NPKNystroem(net, 60), RidgeClassifier(alpha=0.1)).fit(X[:150], y[:150])
    assert machine.score(X[150:], y[150:]) > 0.7
    named = NPKNystroem(net, 3).fit(X).set_output(transform="pandas").transform(X)
    assert list(named.columns) == ["npknystroem0", "npknystroem1", "npknystroem2"]


def test_entries_of_dead_samples(net):
    with torch.no_grad():
        net[0].bias.fill_(-1.0)
    X = np.zeros((3, 6), np.float32)
    X[0] = 3.0
    X[1] = -3.0
    kernel = npk.NeuralPathKernel(net, scale="cosine", bias="ignore", progress=False)
    assert set(KernelEntries(kernel, kernel.record(X)).diagonal().tolist()) == {0.0, 1.0}


@pytest.mark.usefixtures("fake")
def test_what_is_refused(rng):
    X = samples(rng)
    for options, match in [
        ({"n_components": 0}, "n_components is 0. Give a whole number"),
        ({"selection": "best"}, "selection='best' is not known"),
    ]:
        with pytest.raises(OptionError, match=match):
            NPKNystroem(fully_connected, **options).fit(X)
    with pytest.raises(NotFittedError):
        NPKNystroem(fully_connected).transform(X)
    made = NPKNystroem(fully_connected, 5, input_shape=(1, 2, 3)).fit(X)
    with pytest.raises(ShapeError, match="channels stand last"):
        made.transform(X.reshape(-1, 2, 3, 1))
    with pytest.raises(DataError, match="NaN"):
        made.transform(np.full((2, 6), np.nan))
    with torch.no_grad():
        made.net_[1].weight += 1
    with pytest.raises(OptionError, match="net_ has changed since fit"):
        made.transform(X)


@parametrize_with_checks([NPKNystroem(fully_connected, 20)], legacy=True)
@pytest.mark.usefixtures("fake")
def test_scikit_learn_contract(estimator, check):
    check(estimator)
