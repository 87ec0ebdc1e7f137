"""The scikit-learn estimators, on a closed-form kernel that stands in for npk.NeuralPathKernel, and
on that itself.
"""

import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import (
    check_sample_weight_equivalence_on_dense_data,
    parametrize_with_checks,
)
from torch import nn

from npk.errors import DataError, KernelWarning, OptionError, ShapeError
from npk.gates import recording
from npk.machines import of_network, ridge
from npk.machines.estimators import (
    NPKSVC,
    NPKGaussianProcessRegressor,
    NPKRidge,
    NPKRidgeClassifier,
    base,
)
from npk.reading import tracing

CLASSIFIERS = [NPKRidgeClassifier, NPKSVC]
MACHINES = [NPKRidge, *CLASSIFIERS]


class FullyConnected:
    """Makes a random network, always the same for one input shape. A function would give tests
    names that change with its address.
    """

    def __call__(self, input_shape: tuple[int, ...]) -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            width = math.prod(input_shape)
            return nn.Sequential(
                nn.Flatten(),
                nn.Linear(width, 64),
                nn.ReLU(),
                nn.Linear(64, 64),
                nn.ReLU(),
                nn.Linear(64, 1),
            ).eval()

    def __repr__(self):
        return "fully_connected"

    def __deepcopy__(self, memo):
        return self


fully_connected = FullyConnected()


def closed_form(net, X, Y=None, *, scale="fan_in", dtype="float32", **options):
    """<x, x'> times the overlaps of all gate layers, for ``fully_connected``."""
    rows = _inputs_and_gates(net, X)
    columns = rows if Y is None else _inputs_and_gates(net, Y)
    K = math.prod(a @ b.T for a, b in zip(rows, columns, strict=True))
    if scale == "cosine":
        roots = [np.sqrt(math.prod((a * a).sum(axis=1) for a in side)) for side in (rows, columns)]
        size = np.outer(*roots)
        K = np.divide(K, size, out=np.zeros_like(K), where=size > 0)
    return K.astype(dtype)


def _inputs_and_gates(net, X):
    inputs = np.asarray(X, dtype=np.float64).reshape(len(X), -1)
    activations, found = torch.tensor(X, dtype=torch.float32), [inputs]
    with torch.no_grad():
        for layer in net:
            activations = layer(activations)
            if isinstance(layer, nn.ReLU):
                found.append((activations > 0).double().numpy())
    return found


@pytest.fixture
def calls(monkeypatch):
    """npk.NeuralPathKernel replaced, its gates by the samples themselves; the list of the options
    that kernels were made with.
    """
    made = []

    class ClosedForm:
        def __init__(self, net, **options):
            self.net, self.given, self.options = net, options, SimpleNamespace(**options)
            if net is not None:
                made.append(options)

        def keep_promise(self, X):
            pass

        def record(self, X):
            return X

        def settled(self, X):
            return SimpleNamespace(bias="ignore")

        def columns(self, X):
            return SimpleNamespace(table=X)

        def __call__(self, rows, cols=None):
            rows, cols = (getattr(side, "table", side) for side in (rows, cols))
            return closed_form(self.net, rows, cols, **self.given)

    monkeypatch.setattr(of_network, "NeuralPathKernel", ClosedForm)
    direct = SimpleNamespace(matrix=lambda made, compute, rows, cols, _: compute(made, rows, cols))
    monkeypatch.setattr(base, "GRAMS", direct)
    return made


@pytest.fixture
def fake(calls):
    return calls


@pytest.fixture
def pictures():
    digits = load_digits()
    X, y = digits.images[:300, None] / 16, digits.target[:300]
    return X[:200], y[:200], X[200:], y[200:]


def targets_for(machine, labels):
    return labels.astype(float) if machine is NPKRidge else labels


# --- numbers ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake")
def test_ridge_is_kernel_ridge(rng):
    X, y, test = rng.normal(size=(40, 6)), rng.normal(size=(40, 2)), rng.normal(size=(7, 6))
    machine = NPKRidge(fully_connected, alpha=0.3, scale="fan_in", dtype="float64").fit(X, y)
    K = closed_form(machine.net_, X, dtype="float64")
    cross = closed_form(machine.net_, test, X, dtype="float64")
    expected = (
        KernelRidge(alpha=0.3 * np.mean(np.diagonal(K)), kernel="precomputed")
        .fit(K, y)
        .predict(cross)
    )
    np.testing.assert_allclose(machine.predict(test), expected, rtol=1e-9)
    assert machine.predict(test).shape == (7, 2)
    assert machine.alpha_ == 0.3
    assert machine.choice_ is None


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("classes", [2, 10])
def test_svc_is_scikit_learns(pictures, classes):
    X, y, X_test, _ = pictures
    machine = NPKSVC(fully_connected, C=3.0).fit(X, y % classes)
    expected = SVC(kernel="precomputed", C=3.0).fit(
        closed_form(machine.net_, X, scale="cosine"), y % classes
    )
    cross = closed_form(machine.net_, X_test, X, scale="cosine")
    np.testing.assert_allclose(
        machine.decision_function(X_test), expected.decision_function(cross), rtol=1e-9
    )
    np.testing.assert_array_equal(machine.predict(X_test), expected.predict(cross))
    np.testing.assert_array_equal(machine.support_, expected.support_)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("machine", CLASSIFIERS)
@pytest.mark.parametrize("classes", [2, 10])
def test_strings_as_classes(pictures, machine, classes):
    X, y, X_test, y_test = pictures
    names = np.array([f"digit {k}" for k in range(10)])
    by_number, by_name = (
        machine(fully_connected).fit(X, y % classes),
        machine(fully_connected).fit(X, names[y % classes]),
    )
    assert by_name.classes_.tolist() == names[:classes].tolist()
    np.testing.assert_array_equal(by_name.predict(X_test), names[by_number.predict(X_test)])
    assert by_name.score(X_test, names[y_test % classes]) > 0.85
    assert by_name.decision_function(X_test).shape == ((100,) if classes == 2 else (100, 10))


@pytest.mark.usefixtures("fake")
def test_auto_uses_leave_one_out_and_folds(pictures):
    X, y, *_ = pictures
    classifier = NPKRidgeClassifier(fully_connected).fit(X, y)
    targets, _ = ridge.signed_targets(y)
    expected = ridge.fit(
        closed_form(classifier.net_, X, scale="cosine"), targets, criterion="accuracy"
    )
    assert classifier.alpha_ == expected.alpha
    np.testing.assert_allclose(classifier.dual_coef_, expected.solution.coefficients)
    assert classifier.choice_.accuracy.max() > 0.85
    svc = NPKSVC(fully_connected).fit(X, y)
    assert svc.C_ == svc.choice_.C
    assert svc.choice_.accuracy.max() > 0.85


@pytest.mark.parametrize("machine", MACHINES)
def test_every_option_reaches_the_kernel(calls, machine, rng):
    options = {
        "scale": "fan_in",
        "dtype": "float64",
        "gates": "hard",
        "value_input": "x",
        "bias": "paths",
        "backend": "cpu",
        "fixed": (),
        "of": "tangent",
        "memory": "1GB",
    }
    X, y = rng.normal(size=(12, 3)), np.arange(12) % 2
    machine(fully_connected, progress=True, **options).fit(X, y).predict(X)
    assert calls == [{**options, "progress": True}]  # predict goes on with the kernel of fit


# --- shapes ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("machine", MACHINES)
def test_pictures_and_rows_are_the_same(pictures, machine):
    X, y, X_test, _ = pictures
    y = targets_for(machine, y)
    told = machine(fully_connected, input_shape=(1, 8, 8)).fit(X.reshape(200, 64), y)
    seen = machine(fully_connected).fit(X, y)
    net = fully_connected((64,))
    net.architecture = {"input_shape": [1, 8, 8]}
    known = machine(net).fit(X.reshape(200, 64), y)
    for fitted in (told, seen, known):
        assert fitted.input_shape_ == (1, 8, 8)
        assert fitted.n_features_in_ == 64
        np.testing.assert_array_equal(fitted.X_fit_, X)
        np.testing.assert_array_equal(fitted.predict(X_test), seen.predict(X_test))
        np.testing.assert_array_equal(fitted.predict(X_test.reshape(100, 64)), seen.predict(X_test))


@pytest.mark.usefixtures("fake")
def test_pictures_for_a_network_of_rows(pictures):
    X, y, *_ = pictures
    machine = NPKRidgeClassifier(fully_connected, input_shape=(64,)).fit(X, y)
    assert machine.X_fit_.shape == (200, 64)
    assert machine.predict(X[:3]).shape == (3,)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("machine", MACHINES)
def test_wrong_shapes(pictures, machine):
    X, y, *_ = pictures
    y = targets_for(machine, y)
    with pytest.raises(
        ShapeError,
        match=r"X has 64 features a sample, input_shape \(3, 5\) has "
        r"15",
    ):
        machine(fully_connected, input_shape=(3, 5)).fit(X.reshape(200, 64), y)
    with pytest.raises(
        ShapeError,
        match=r"X is \(n, 1, 8, 8\); the network wants \(8, 8, 1\). "
        r"Bring the axes",
    ):
        machine(fully_connected, input_shape=(8, 8, 1)).fit(X, y)
    fitted = machine(fully_connected).fit(X, y)
    with pytest.raises(
        ShapeError,
        match=r"wants \(1, 8, 8\): channels stand last, give "
        r"X.transpose\(0, 3, 1, 2\)",
    ):
        fitted.predict(X.reshape(200, 8, 8, 1))
    with pytest.raises(ValueError, match=r"X has 49 features, but .* is expecting 64"):
        fitted.predict(X[:, :, :7, :7])
    with pytest.raises(ValueError, match="0 sample"):
        fitted.predict(X[:0])


# --- errors ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("machine", MACHINES)
def test_not_fitted(machine):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        machine(fully_connected).predict(np.zeros((2, 3)))


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("machine", CLASSIFIERS)
def test_one_class_is_refused(machine, rng):
    with pytest.raises(DataError, match=r"y has 1 class: \['a'\]"):
        machine(fully_connected).fit(rng.normal(size=(5, 3)), ["a"] * 5)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("machine", CLASSIFIERS)
def test_continuous_classes_are_refused(machine, rng):
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        machine(fully_connected).fit(rng.normal(size=(5, 3)), rng.normal(size=5))


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("machine", MACHINES)
def test_nan_is_refused(machine, rng):
    X, y = rng.normal(size=(6, 1, 2, 2)), np.arange(6) % 2
    spoilt = X.copy()
    spoilt[3, 0, 1, 1] = np.nan
    with pytest.raises(ValueError, match="X contains NaN"):
        machine(fully_connected).fit(spoilt, y)
    with pytest.raises(ValueError, match="X contains NaN"):
        machine(fully_connected).fit(X, y).predict(spoilt)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("scale", ["cosine", "fan_in"])
def test_dead_network_is_refused(machine, scale, rng):
    net = fully_connected((3,))
    with torch.no_grad():
        net[1].bias.fill_(-100.0)  # no gate of the first layer opens
    with pytest.raises(DataError, match="every input is dead"):
        machine(net, scale=scale).fit(rng.normal(size=(6, 3)), np.arange(6) % 2)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("machine", MACHINES)
def test_a_path_is_no_network(machine):
    with pytest.raises(OptionError, match=r"net is a str\. Give a torch module"):
        machine("run/model.safetensors").fit(np.eye(4), np.arange(4) % 2)


LATE = {
    "a C of zero": (NPKSVC, {"C": 0}, None, "C is 0"),
    "a C of text": (NPKSVC, {"C": "1"}, None, "C is '1'"),
    "an alpha of text": (NPKRidge, {"alpha": "best"}, None, "alpha is 'best'"),
    "a negative alpha": (NPKRidgeClassifier, {"alpha": -1}, None, "alpha is -1"),
    "an unknown backend": (NPKRidge, {"backend": "gpu"}, None, "backend='gpu' is not known"),
    "a memory of NaN": (NPKSVC, {"memory": math.nan}, None, "memory=nan is not a size"),
    "a shape that is none": (NPKSVC, {"input_shape": "3"}, None, "input_shape is '3'"),
    "labels that are continuous": (
        NPKSVC,
        {},
        np.linspace(0, 1, 8),
        "Unknown label type: continuous",
    ),
    "continuous labels of a ridge": (
        NPKRidgeClassifier,
        {"alpha": 0.1},
        np.linspace(0, 1, 8),
        "Unknown label type: continuous",
    ),
    "labels that hold NaN": (
        NPKRidgeClassifier,
        {},
        np.array([0, 1, np.nan, 0, 1, 0, 1, 0]),
        "y contains NaN",
    ),
    "one class": (NPKRidgeClassifier, {"alpha": 0.1}, np.zeros(8, int), "y has 1 class"),
    "a class of one sample": (NPKSVC, {}, np.arange(8) // 7, "class 1 has 1 sample"),
    "labels that are too few": (NPKSVC, {}, np.arange(7) % 2, "inconsistent numbers of samples"),
}


@pytest.mark.parametrize(("machine", "options", "y", "text"), LATE.values(), ids=LATE)
def test_what_cannot_be_learnt_is_refused_before_there_is_a_kernel(
    machine, options, y, text, monkeypatch, rng
):
    computed = []
    monkeypatch.setattr(base.NeuralPathKernel, "record", lambda *_: computed.append("gates"))
    monkeypatch.setattr(base, "kernel", lambda *_: computed.append("kernel"))
    with pytest.raises((DataError, OptionError), match=text):
        machine(fully_connected, **options).fit(
            rng.normal(size=(8, 3)), np.arange(8) % 2 if y is None else y
        )
    assert computed == []


def test_samples_of_all_kinds_are_those_of_the_kernel(rng):
    X, y = torch.tensor(rng.normal(size=(8, 1, 2, 2)), dtype=torch.float32), torch.arange(8) % 2
    expected = NPKRidgeClassifier(fully_connected).fit(X.numpy(), y.numpy()).predict(X.numpy())
    machine = NPKRidgeClassifier(fully_connected).fit(X.clone().requires_grad_(), y)
    for samples in (X, list(X), torch.utils.data.TensorDataset(X, y)):
        np.testing.assert_array_equal(machine.predict(samples), expected)
    with pytest.raises(DataError, match="X is sparse"):
        machine.predict(X.to_sparse())
    with pytest.raises(DataError, match="masked"):
        machine.predict(np.ma.array(X.numpy(), mask=X.numpy() > 0))


def test_predict_sends_its_own_samples_alone_through_the_network(rng, monkeypatch):
    seen, traced = [], []
    net = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 2)).eval()
    X, y = rng.normal(size=(30, 3)).astype(np.float32), np.arange(30) % 2
    machine = NPKRidgeClassifier(net, alpha=0.1).fit(X, y)
    record, trace = recording.record_entries, tracing.program_of
    monkeypatch.setattr(
        recording,
        "record_entries",
        lambda t, X, *a, **k: seen.append(len(X)) or record(t, X, *a, **k),
    )
    monkeypatch.setattr(tracing, "program_of", lambda *a: traced.append(1) or trace(*a))
    machine.predict(X[:1])
    assert (seen, traced) == ([1], [])
    again = pickle.loads(pickle.dumps(machine))
    assert not hasattr(again, "kernel_")
    np.testing.assert_array_equal(again.predict(X[:2]), machine.predict(X[:2]))
    assert (seen, traced) == ([1, 2, 2], [1])


@pytest.mark.parametrize("machine", MACHINES)
def test_a_copy_that_was_changed_is_refused(machine, rng):
    X, y = rng.normal(size=(8, 3)), np.arange(8) % 2
    fitted = machine(nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 2)).eval()).fit(
        X, targets_for(machine, y)
    )
    before = fitted.predict(X)
    with torch.no_grad():
        fitted.net[0].weight.neg_()  # the user's own: fit has copied it
    np.testing.assert_array_equal(fitted.predict(X), before)
    with torch.no_grad():
        fitted.net_[0].weight.neg_()
    with pytest.raises(OptionError, match="net_ has changed since fit"):
        fitted.predict(X)


# --- the estimator contract ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("machine", MACHINES)
def test_pickle_gives_the_same_predictions(pictures, machine):
    X, y, X_test, _ = pictures
    fitted = machine(fully_connected((1, 8, 8))).fit(X, targets_for(machine, y))
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(X_test), fitted.predict(X_test))


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("machine", MACHINES)
def test_training_the_network_later_changes_nothing(pictures, machine):
    X, y, X_test, _ = pictures
    net = fully_connected((1, 8, 8))
    fitted = machine(net).fit(X, targets_for(machine, y))
    before = fitted.predict(X_test)
    with torch.no_grad():
        net[1].weight.neg_()
    np.testing.assert_array_equal(fitted.predict(X_test), before)
    assert np.any(machine(net).fit(X, targets_for(machine, y)).predict(X_test) != before)


@pytest.mark.parametrize("machine", MACHINES)
def test_clone_keeps_parameters(machine):
    net = fully_connected((3,))
    copy = clone(machine(net, scale="fan_in", input_shape=(3,)))
    assert copy.scale == "fan_in"
    assert copy.input_shape == (3,)
    assert all(
        torch.equal(a, b) for a, b in zip(copy.net.parameters(), net.parameters(), strict=True)
    )
    assert copy.set_params(scale="cosine").get_params()["scale"] == "cosine"


@pytest.mark.usefixtures("fake")
def test_inside_a_pipeline_and_a_search():
    X, y = make_blobs(60, centers=3, random_state=0)
    pipeline = make_pipeline(StandardScaler(), NPKRidgeClassifier(fully_connected, alpha=0.1))
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.8
    search = GridSearchCV(NPKSVC(fully_connected, C=1.0), {"C": [0.1, 10.0]}, cv=2).fit(X, y)
    assert search.best_params_["C"] in (0.1, 10.0)


FIXED = [NPKRidge(fully_connected, alpha=0.1), NPKRidgeClassifier(fully_connected, alpha=0.1)]
# Of an SVM this holds to what libsvm stops at, a thousandth; of probabilities it does not: of a
# repeated sample one is left in where the other is left out.
CHECKED = [
    *(machine(fully_connected) for machine in MACHINES),
    NPKGaussianProcessRegressor(fully_connected),
]


def chosen_by_validation(estimator):
    """Of a sample twice one is left in, where the other is left out."""
    if "auto" in (getattr(estimator, "alpha", 0), getattr(estimator, "C", 0)):
        return {"check_sample_weight_equivalence_on_dense_data": "left out samples are repeated"}
    return {}


@parametrize_with_checks(CHECKED, legacy=True, expected_failed_checks=chosen_by_validation)
@pytest.mark.usefixtures("fake")
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("machine", FIXED, ids=lambda machine: type(machine).__name__)
def test_a_weight_is_a_repetition(machine):
    check_sample_weight_equivalence_on_dense_data(type(machine).__name__, machine)


# --- on npk.kernel itself --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
def test_npk_kernel_in_the_place_of_the_closed_form(pictures, machine, request):
    X, y, X_test, _ = pictures
    net, y = fully_connected((1, 8, 8)), targets_for(machine, y)
    actual = machine(net, dtype="float64", bias="ignore").fit(X, y).predict(X_test)
    request.getfixturevalue("fake")
    expected = machine(net, dtype="float64", bias="ignore").fit(X, y).predict(X_test)
    # alpha may be small: the solution magnifies rounding
    np.testing.assert_allclose(actual, expected, rtol=1e-7)


def test_dead_network_on_npk_kernel(rng):
    net = fully_connected((3,))
    with torch.no_grad():
        net[1].bias.fill_(-100.0)
    with (
        pytest.warns(KernelWarning, match="6 of 6 samples have no active path"),
        pytest.raises(DataError, match="every input is dead"),
    ):
        NPKRidge(net, bias="ignore").fit(rng.normal(size=(6, 3)), np.arange(6) % 2)


@pytest.mark.slow
# the other two reach the kernel by the same code
@parametrize_with_checks(
    [NPKRidgeClassifier(fully_connected)], legacy=True, expected_failed_checks=chosen_by_validation
)
def test_scikit_learn_contract_on_npk_kernel(estimator, check):
    check(estimator)
