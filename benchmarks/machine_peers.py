"""Machines on one and the same kernel beside other libraries, where these are installed: an SVM of two
classes beside TorchKM, ridge with many alphas beside himalaya.

pip install torchkm himalaya
python benchmarks/machine_peers.py --n 2000

The kernel is that of a fully connected network with random weights on ``mnist5k``, scale "cosine", in
float64. TorchKM fits a path of C with 5 folds, and so does npk; at one C, too. himalaya chooses alpha by
5 folds, npk by leave-one-out of one decomposition. Accuracies are on 1,000 other samples.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.svm import SVC
from timing import Route, duration, machine, measured, write_samples

import npk
from npk.machines import ridge, svm
from npk.machines.svm import COSTS

ALPHAS = np.logspace(-6, 3, 31)
Scores = Callable[[], np.ndarray]


def main() -> None:
    """Measure, print medians and accuracies, write raw samples."""
    options = parsed()
    print(machine())
    K, cross, y, y_test = problem(options.n)
    two, two_test = y % 2, y_test % 2  # even and odd digits
    found: dict[str, float] = {}

    def route(name: str, run: Scores, truth: np.ndarray) -> Route:
        def once() -> None:
            found[name] = float((run() == truth).mean())

        return Route(name, once, 2)

    asked = [route(name, run, two_test) for name, run in supports(K, cross, two).items()]
    asked += [route(name, run, y_test) for name, run in ridges(K, cross, y).items()]
    timings = measured(asked, options.repeat)
    for timing in timings:
        right = f"{100 * found[timing.name]:.1f} %"
        print(f"{timing.name:38} {duration(timing.median):>9} {timing.spread}  {right}")
    write_samples(options.json, "machine_peers", timings, n=options.n)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000, help="training samples")
    parser.add_argument("--repeat", type=int, default=3, help="samples of each time")
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    return parser.parse_args()


def problem(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The kernel of training samples, that of test samples with them, and the labels of both."""
    data = npk.data.load("mnist5k")
    order = np.random.default_rng(0).permutation(len(data.X))
    rows, others = order[:n], order[n : n + 1000]
    X, y = data.X.reshape(len(data.X), -1), data.require_labels()
    net = npk.networks.build(
        "fc", input_shape=X.shape[1:], classes=10, hidden=[256] * 4, seed=0
    ).eval()
    kernel = npk.NeuralPathKernel(net, scale="cosine", dtype="float64", progress=False)
    columns = kernel.columns(X[rows])
    return kernel(columns), kernel(X[others], columns), y[rows], y[others]


def supports(K: np.ndarray, cross: np.ndarray, y: np.ndarray) -> dict[str, Scores]:
    """Support vector machines of two classes, by what each is called."""
    several = f"SVM, {len(COSTS)} C, 5 folds"
    routes: dict[str, Scores] = {
        "SVM, C = 1: scikit-learn": lambda: (
            SVC(kernel="precomputed", C=1.0).fit(K, y).predict(cross)
        ),
        "SVM, C = 1: npk": lambda: svm.fit(K, y, 1.0).machine.predict(cross),
        f"{several}: npk": lambda: svm.fit(K, y).machine.predict(cross),
    }
    try:
        from torchkm import TorchKMSVC
    except ImportError as error:
        print(f"without TorchKM: {error}")
        return routes

    def theirs(costs: list[float], folds: int) -> np.ndarray:
        with warnings.catch_warnings(action="ignore"):
            made = TorchKMSVC(kernel="precomputed", Cs=costs, cv=folds, device="cpu")
            return np.asarray(made.fit(K, y).predict(cross))

    routes["SVM, C = 1 with 2 folds: TorchKM"] = lambda: theirs([1.0], 2)
    routes[f"{several}: TorchKM"] = lambda: theirs(list(COSTS), 5)
    return routes


def ridges(K: np.ndarray, cross: np.ndarray, y: np.ndarray) -> dict[str, Scores]:
    """Ridge of ten classes, by what each is called."""
    targets, classes = ridge.signed_targets(y)

    def ours() -> np.ndarray:
        fitted = ridge.fit(K, targets, criterion="accuracy")
        return ridge.classified(cross @ fitted.solution.coefficients, classes)

    routes: dict[str, Scores] = {"ridge, 31 alphas, leave-one-out: npk": ours}
    try:
        from himalaya.kernel_ridge import KernelRidgeCV
    except ImportError as error:
        print(f"without himalaya: {error}")
        return routes

    def theirs() -> np.ndarray:
        made = KernelRidgeCV(alphas=ALPHAS, kernel="precomputed", cv=5).fit(K, targets)
        return ridge.classified(np.asarray(made.predict(cross)), classes)

    return {**routes, "ridge, 31 alphas, 5 folds: himalaya": theirs}


if __name__ == "__main__":
    main()
