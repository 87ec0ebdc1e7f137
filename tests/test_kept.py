"""One kernel a search: what estimators compute of it, counted in pairs of samples."""

import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV, LeaveOneOut, cross_val_score
from torch import nn

import npk
from npk.errors import OptionError, StoreError
from npk.gram.kernel import NeuralPathKernel
from npk.machines.estimators import NPKSVC, Grams, NPKRidge, NPKRidgeClassifier, base

N = 36


@pytest.fixture
def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)
        return nn.Sequential(*layers).eval()


@pytest.fixture
def data(rng):
    X = rng.normal(size=(N, 1, 3, 3)).astype(np.float32)
    y = np.arange(N) % 3
    return X + y[:, None, None, None], y


@pytest.fixture(autouse=True)
def grams(monkeypatch):
    """Nothing is kept of other tests."""
    own = Grams(1 << 20)
    monkeypatch.setattr(base, "GRAMS", own)
    return own


@pytest.fixture
def pairs(monkeypatch):
    """How many different pairs of samples each computation is of."""
    computed, compute = [], NeuralPathKernel.__call__

    def counted(self, X, Y=None):
        computed.append(len(X) * (len(X) + 1) // 2 if Y is None else len(X) * len(Y))
        return compute(self, X, Y)

    monkeypatch.setattr(NeuralPathKernel, "__call__", counted)
    return computed


def test_a_search_over_costs_and_folds_computes_one_kernel(net, data, pairs):
    search = GridSearchCV(NPKSVC(net), {"C": [0.1, 1.0, 10.0]}, cv=3, return_train_score=True)
    search.fit(*data)
    assert sum(pairs) == N * (N + 1) // 2
    search.predict(data[0])
    assert sum(pairs) == N * (N + 1) // 2


def test_calibration_computes_one_kernel(net, data, pairs):
    X, y = data
    machine = CalibratedClassifierCV(NPKRidgeClassifier(net, alpha=0.1), cv=2)
    assert machine.fit(X, y).predict_proba(X).shape == (N, 3)
    assert sum(pairs) == N * (N + 1) // 2


def test_leaving_one_out_computes_one_kernel_and_two_rows(net, data, pairs):
    cross_val_score(NPKRidgeClassifier(net, alpha=0.1), *data, cv=LeaveOneOut())
    # those of the first two folds are predicted before both are learnt from
    assert sum(pairs) == N * (N + 1) // 2 + 2 * (N - 1)


def test_processes_share_one_kernel_on_disk(net, data, tmp_path):
    X, y = data
    expected = cross_val_score(NPKSVC(net, C=1.0, cache=False), X, y, cv=3)
    machine = NPKSVC(net, C=1.0, cache=tmp_path / "kernels")
    actual = cross_val_score(machine, X, y, cv=3, n_jobs=2)
    np.testing.assert_array_equal(actual, expected)
    stored = [npk.Gram.load(path) for path in (tmp_path / "kernels").glob("*/*.zarr")]
    sizes = [
        n * (n + 1) // 2 if gram.symmetric else n * m for gram in stored for n, m in [gram.shape]
    ]
    assert sum(sizes) == N * (N + 1) // 2


def test_a_folder_serves_the_next_process(net, data, tmp_path, pairs, monkeypatch):
    folder = str(tmp_path / "kernels")
    X, y = data
    first = NPKRidge(net, alpha=0.1, cache=folder).fit(X, y)
    expected = first.predict(X)
    monkeypatch.setattr(base, "GRAMS", Grams(1 << 20))  # as another process has it
    stored, store = [], NeuralPathKernel.to_store
    monkeypatch.setattr(
        NeuralPathKernel, "to_store", lambda *a, **k: stored.append(1) or store(*a, **k)
    )
    again = NPKRidge(net, alpha=0.1, cache=folder).fit(X, y)
    np.testing.assert_array_equal(again.predict(X), expected)
    assert (stored, pairs) == ([], [])


@pytest.mark.parametrize("scale", ["cosine", "fan_in"])
def test_what_is_cut_out_is_the_kernel(net, data, scale, rng):
    X, kept = data[0], Grams(1 << 20)
    made = NeuralPathKernel(net, scale=scale, progress=False)
    compute = base.kernel
    for _ in range(6):
        rows = rng.permutation(N)[: rng.integers(17, N)]
        cols = rng.permutation(N)[: rng.integers(1, N)]
        table, columns = made.record(X[rows]), made.columns(X[cols])
        found = kept.matrix(made, compute, table, columns)
        np.testing.assert_allclose(found, made(X[rows], X[cols]), rtol=3e-7)
        square = kept.matrix(made, compute, made.columns(X[rows]))
        np.testing.assert_allclose(square, made(X[rows]), rtol=3e-7)
        np.testing.assert_array_equal(square, square.T)


def test_other_networks_options_and_samples_are_other_kernels(net, data, pairs):
    X, y = data
    NPKRidge(net, alpha=0.1).fit(X, y)
    other = nn.Sequential(*net[:3], nn.Linear(72, 3)).eval()  # reads out other weights, same gates
    other[1] = nn.LeakyReLU(0.5)
    for machine, samples in (
        (NPKRidge(net, scale="fan_in"), X),
        (NPKRidge(net, dtype="float64"), X),
        (NPKRidge(other), X),
        (NPKRidge(net), 2 * X),
    ):
        before = len(pairs)
        machine.set_params(alpha=0.1).fit(samples, y)
        assert pairs[before:] == [N * (N + 1) // 2]


def test_weights_that_change_give_other_gates(net, data, pairs):
    X, y = data
    NPKRidge(net, alpha=0.1).fit(X, y)
    with torch.no_grad():
        net[0].weight.neg_()
    fitted = NPKRidge(net, alpha=0.1).fit(X, y)
    expected = NPKRidge(net, alpha=0.1, cache=False).fit(X, y)
    np.testing.assert_array_equal(fitted.dual_coef_, expected.dual_coef_)


def test_what_is_kept_has_a_limit(net, data, grams):
    X, y = data
    for size in range(20, N):
        NPKRidge(net, alpha=0.1).fit(X[:size], y[:size])
    assert sum(kept.nbytes for kept in grams._kept.values()) <= grams.limit
    small = Grams(N * N * 4 - 1)
    made = NeuralPathKernel(net, progress=False)
    K = small.matrix(made, base.kernel, made.columns(X))
    np.testing.assert_array_equal(K, made(X))
    assert not small._kept
    grams.clear()
    assert not grams._kept


def test_the_first_ones_make_room(net, rng):
    kept, made = Grams(20 * 20 * 4 * 2), NeuralPathKernel(net, progress=False)
    several = [made.columns(rng.normal(size=(20, 1, 3, 3))) for _ in range(3)]
    for columns in several:
        kept.matrix(made, base.kernel, columns)
    assert len(kept._kept) == 2


@pytest.mark.parametrize("options", [{"memory": "1GB"}, {"cache": False}])
def test_nothing_is_kept_beside_a_promise_or_where_it_is_not_wanted(net, data, grams, options):
    X, y = data
    NPKRidge(net, alpha=0.1, **options).fit(X, y).predict(X)
    assert not grams._kept


def test_caches_that_are_none(net, data, tmp_path):
    with pytest.raises(OptionError, match="cache is None. Give a folder for kernels, True"):
        NPKRidge(net, cache=None).fit(*data)
    with pytest.raises(StoreError, match="there is no folder"):
        NPKRidge(net, cache=tmp_path / "none" / "kernels").fit(*data)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot keep kernels in .*file"):
        NPKRidge(net, cache=tmp_path / "file").fit(*data)
