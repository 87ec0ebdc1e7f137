"""Kernel machines end to end: what ``predict`` of one sample takes after ``fit``; the SVM beside
scikit-learn's on the same kernel and C, with the same decision values; ridge with 31 alphas beside
LAPACK's own eigendecomposition.

python benchmarks/bench_machines.py --json machines.json
python benchmarks/bench_machines.py --solvers 5000
python benchmarks/bench_machines.py --svm 1500 3000 5000 [--search]
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import linalg
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC
from timing import Route, duration, machine, measured, write_samples

import npk
from npk.machines import ridge, svm


def main() -> None:
    """Measure, print medians, write raw samples."""
    options = parsed()
    print(machine())
    if options.svm:
        svm_table(options.svm, options.repeat, options.search)
        return
    if options.solvers:
        timings = measured(solver_routes(options.solvers), options.repeat)
    else:
        timings = measured(predict_routes(options.n), options.repeat)
    for timing in timings:
        print(f"{timing.name}: {duration(timing.median)} {timing.spread}")
    write_samples(options.json, "machines", timings, n=options.solvers or options.n)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="training samples")
    parser.add_argument(
        "--solvers", type=int, metavar="N", help="solvers alone, on so many samples"
    )
    parser.add_argument(
        "--svm", type=int, nargs="+", metavar="N", help="the SVM alone, on so many digits"
    )
    parser.add_argument("--search", action="store_true", help="of --svm: the search of C instead")
    parser.add_argument("--repeat", type=int, default=9, help="samples of each time")
    parser.add_argument("--json", type=Path, help="file for the raw samples")
    return parser.parse_args()


def predict_routes(n: int) -> list[Route]:
    """One sample against n, by a fitted machine, and by a kernel that knows nothing of them."""
    digits = npk.data.load("digits")
    net = npk.networks.build(
        "conv", input_shape=(1, 8, 8), classes=10, seed=0, channels=(64,) * 4
    ).eval()
    fitted = npk.NPKRidgeClassifier(net, alpha=1e-3).fit(digits.X[:n], digits.y[:n])
    one = digits.X[n : n + 1]
    return [
        Route("predict one sample", lambda: fitted.predict(one)),
        Route(
            "kernel of one sample and all gates, nothing known of these",
            lambda: fitted.kernel_(one, fitted.gates_),
        ),
        Route(
            "npk.kernel of one sample and all samples",
            lambda: npk.kernel(net, one, digits.X[:n], scale="cosine", progress=False),
        ),
    ]


def svm_table(sizes: list[int], repeat: int, search: bool) -> None:
    """The SVM beside scikit-learn's in turns, on digits as they are and with labels of which three
    in ten are drawn anew.
    """
    digits, rng = npk.data.load("mnist5k"), np.random.default_rng(0)
    order = rng.permutation(len(digits))
    for n in sizes:
        X, y = digits.X[order[:n]].reshape(n, -1).astype(np.float64), digits.y[order[:n]]
        K = rbf_kernel(X, gamma=0.02)
        noisy = np.where(rng.random(n) < 0.3, rng.integers(0, 10, n), y)
        for name, labels in (("digits", y), ("noisy labels", noisy)):
            theirs, ours = svm_searches(K, labels) if search else svm_fits(K, labels)
            timings = measured([Route("SVC", theirs), Route("svm", ours)], repeat)
            their_time, our_time = (timing.median for timing in timings)
            print(
                f"n = {n}, {name:12}: scikit-learn {duration(their_time)}, npk "
                f"{duration(our_time)}, {their_time / our_time:.2f} x",
                flush=True,
            )


def svm_fits(K: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Scikit-learn's machine for a given C, and npk's: with the same support vectors and values."""

    def theirs() -> SVC:
        return SVC(kernel="precomputed", C=1.0).fit(K, labels)

    def ours() -> svm.Machine:
        return svm.fit(K, labels, 1.0).machine

    found, wanted = ours(), theirs()
    values = (machine.decision_function(K) for machine in (found, wanted))
    np.testing.assert_allclose(*values, rtol=1e-8, atol=1e-10)
    np.testing.assert_array_equal(found.support_, wanted.support_)
    return theirs, ours


def svm_searches(K: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Scikit-learn's search of C by five folds, and npk's: with the same C."""
    costs = {"C": np.array(svm.COSTS) / np.mean(np.diagonal(K))}

    def theirs() -> float:
        search = GridSearchCV(SVC(kernel="precomputed"), costs, cv=StratifiedKFold(5), refit=False)
        return search.fit(K, labels).best_params_["C"]

    def ours() -> float:
        return svm.choose_cost(K, labels).C

    print(f"C = {theirs():g} by scikit-learn, {ours():g} by npk")
    return theirs, ours


def solver_routes(n: int) -> list[Route]:
    """Machines of ten classes on one matrix, and their peers, nothing checked or measured."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, n)
    features = rng.normal(size=(n, 20)) + rng.normal(size=(10, 20))[labels]
    K = rbf_kernel(features, gamma=0.02)
    targets, _ = ridge.signed_targets(labels)
    theirs, ours = SVC(kernel="precomputed", C=1.0).fit(K, labels), svm.fit(K, labels, 1.0).machine
    np.testing.assert_allclose(ours.decision_function(K), theirs.decision_function(K), rtol=1e-8)
    print(f"{len(ours.support_)} support vectors of {n} samples; decision values agree")
    return [
        Route("scikit-learn's SVC", lambda: SVC(kernel="precomputed", C=1.0).fit(K, labels)),
        Route("svm.fit", lambda: svm.fit(K, labels, 1.0)),
        Route("LAPACK syevd", lambda: linalg.lapack.dsyevd(K, lower=1)),
        Route("ridge.fit, alpha auto", lambda: ridge.fit(K, targets, criterion="accuracy")),
    ]


if __name__ == "__main__":
    main()
