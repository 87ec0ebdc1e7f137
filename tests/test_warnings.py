"""A warning names the line of the user's code, whichever door of npk it came through."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from torch import nn

import npk
from npk.checks.duality import check_duality
from npk.errors import CheckpointWarning, KernelWarning, warn
from npk.machines import ridge

SILENT = {"progress": False}


def small():
    torch.manual_seed(0)
    layers = nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False)
    return nn.Sequential(*layers).double().eval()


class Skip(nn.Module):
    """One block around which the stream skips."""

    def __init__(self):
        super().__init__()
        sizes = (4, 6), (6, 6), (6, 2)
        self.first, self.block, self.last = (nn.Linear(*size, bias=False) for size in sizes)

    def forward(self, x):
        x = self.first(x).relu()
        return self.last(x + self.block(x).relu())


NET, SKIP = small(), Skip().double().eval()
X = np.random.default_rng(0).standard_normal((8, 4))
X[1] = 0  # no path is active
Y, LABELS = X[:, 0] + 1, np.arange(8) % 2
TABLE = npk.record_gates(NET, X)
PICTURES = np.random.default_rng(0).standard_normal((2, 1, 3, 3))
PICTURES[1] *= 1e-170  # their entries are below the range of float64
CONVOLUTION = nn.Sequential(
    nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular", bias=False),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(2, 2, bias=False),
)
CONVOLUTION.double().eval()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = NET.state_dict()
    torch.save({"one": {"0.weight": torch.ones(2)}, "two": state}, "two.pt")
    wrapped = {f"net.{name}": tensor for name, tensor in state.items()}
    torch.save({**wrapped, "beside": torch.ones(1)}, "prefix.pt")


@pytest.fixture
def fitted():
    with pytest.warns(KernelWarning):
        return npk.NPKRidge(NET, alpha=1e-3, scale="fan_in").fit(X, Y)


# Each on one line, which is the line that the warning must name.
KERNELS = {
    "kernel": lambda: npk.kernel(NET, X, **SILENT),
    "kernel of a gate table": lambda: npk.kernel(TABLE, **SILENT),
    "kernel in a store": lambda: npk.kernel(NET, X, out="K.zarr", **SILENT),
    "kernel by the reference": lambda: npk.kernel(NET, X, backend="reference", **SILENT),
    "kernel object": lambda: npk.NeuralPathKernel(NET, **SILENT)(X),
    "kernel object, store": lambda: npk.NeuralPathKernel(NET, **SILENT).to_store(X, None, "K.zarr"),
    "ridge": lambda: npk.NPKRidge(NET, alpha=1e-3).fit(X, Y),
    "ridge classifier": lambda: npk.NPKRidgeClassifier(NET, alpha=1e-3).fit(X, LABELS),
    "support vectors": lambda: npk.NPKSVC(NET, C=1.0).fit(X, LABELS),
    "scikit-learn's pipeline": lambda: make_pipeline(npk.NPKSVC(NET, C=1.0)).fit(X, LABELS),
    "scikit-learn's folds": lambda: cross_val_predict(npk.NPKRidge(NET), X, Y, cv=2),
    "duality": lambda: npk.check_duality(NET, X, draws=10),
    "duality by its module": lambda: check_duality(NET, X, draws=10),
    "ensemble": lambda: npk.check_ensemble(SKIP, X),
    "invariance": lambda: npk.check_invariance(CONVOLUTION, PICTURES),
}
TINY = X * 1e-45  # its entries are below the range of float32
PREDICTIONS = {
    "predict": lambda machine: machine.predict(TINY),
    "score": lambda machine: machine.score(TINY, Y),
}
CHECKPOINTS = {
    "one of two dictionaries": lambda: npk.load("two.pt", small),
    "weights under a prefix": lambda: npk.load("prefix.pt", arch=small),
}


def assert_names_the_line(call, category, *arguments):
    with pytest.warns(category) as told:
        call(*arguments)
    of_npk = [warning for warning in told if issubclass(warning.category, category)]
    lines = {(warning.filename, warning.lineno) for warning in of_npk}
    assert lines == {(__file__, call.__code__.co_firstlineno)}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("door", KERNELS)
def test_warnings_of_a_kernel(door):
    assert_names_the_line(KERNELS[door], KernelWarning)


@pytest.mark.parametrize("door", PREDICTIONS)
def test_warnings_of_a_prediction(door, fitted):
    assert_names_the_line(PREDICTIONS[door], KernelWarning, fitted)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("door", CHECKPOINTS)
def test_warnings_of_a_checkpoint(door):
    assert_names_the_line(CHECKPOINTS[door], CheckpointWarning)


@pytest.mark.filterwarnings("ignore::npk.errors.KernelWarning")
def test_warnings_of_a_solver_on_a_matrix_on_disk(tmp_path, monkeypatch):
    K = npk.kernel(NET, X, out=tmp_path / "K.zarr", memory="1GB", **SILENT)
    monkeypatch.setattr(ridge, "_lacking", lambda *_: "on purpose")
    solve = ridge.conjugate_gradients.solve
    stops = lambda *given, **options: solve(*given, **options, most=1)  # noqa: E731
    monkeypatch.setattr(ridge.conjugate_gradients, "solve", stops)
    assert_names_the_line(lambda: ridge.fit(K, Y, 1e-9), ConvergenceWarning)


def test_without_a_line_of_the_users_the_outermost_one_is_named():
    frame_of_npk = {"__name__": "npk.somewhere", "warn": warn}
    with pytest.warns(UserWarning, match="nobody called"):
        exec("warn('nobody called', UserWarning)", frame_of_npk)


def test_there_is_one_place_that_warns():
    """Another one would count the calls above it, and be wrong after the next change."""
    root = Path(npk.__file__).parent
    calls = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn"
    ]
    assert calls == ["errors.py"]
