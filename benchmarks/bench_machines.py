"""Kernel machines end to end: what ``predict`` of one sample takes after ``fit``; the SVM beside
scikit-learn's on the same kernel and C, with the same decision values; ridge with 31 alphas beside
LAPACK's own eigendecomposition.

python benchmarks/bench_machines.py --json machines.json
python benchmarks/bench_machines.py --solvers 5000
"""

import argparse
from pathlib import Path

import numpy as np
from scipy import linalg
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC
from timing import Route, duration, machine, measured, write_samples

import npk
from npk.machines import ridge, svm


def main() -> None:
    """Measure, print medians, write raw samples."""
    options = parsed()
    print(machine())
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
