"""Coverage of conformal sets on digits, in a shuffled order and in that of the file, whose samples
of one writer stand together: the promise rests on an order that says nothing.

python benchmarks/conformal_coverage.py

Where crepes is installed (pip install crepes), its ConformalClassifier stands beside, given the same
leave-one-out scores; it compares them with those of the one machine of all samples, npk with those of
the machine without each sample.

Mean and standard error over seeds, of the network and of the shuffled order; the order of the file is
one split, so that its error is that of the network alone.
"""

import argparse

import numpy as np

import npk
from npk.machines import ridge
from npk.machines.uncertainty import conformal

LEVELS, ALPHA = (0.8, 0.9, 0.95), 1e-3


def main() -> None:
    """Print a table."""
    options = parsed()
    digits = npk.data.load("digits")
    found = [covered(digits, seed, options.n) for seed in range(options.seeds)]
    print(f"{options.n} samples, alpha {ALPHA}, {options.seeds} seeds")
    print("order           by      level   covered          classes a set")
    for row in found[0]:
        order, library, level = row
        values = np.array([each[row] for each in found])
        errors = values.std(0, ddof=1) / np.sqrt(len(values))
        (share, size), (share_error, size_error) = values.mean(0), errors
        print(
            f"{order:15} {library:7} {level:5.2f}   {100 * share:.1f} ± {100 * share_error:.1f} %"
            f"     {size:.2f} ± {size_error:.2f}"
        )


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=600, help="samples of the machine")
    parser.add_argument("--seeds", type=int, default=3, help="of network and shuffled order")
    return parser.parse_args()


def covered(
    digits: npk.data.Dataset, seed: int, n: int
) -> dict[tuple[str, str, float], tuple[float, float]]:
    """Of each order, library and level the share of test samples whose class is in the set, and its size."""
    net = npk.networks.build("fc", input_shape=(1, 8, 8), classes=10, seed=seed).eval()
    kernel = npk.NeuralPathKernel(net, scale="cosine", progress=False)
    shuffled = np.random.default_rng(seed).permutation(len(digits))
    orders = {"shuffled": shuffled, "as in the file": np.arange(len(digits))}
    found = {}
    for name, order in orders.items():
        fresh, test = order[:n], order[n:]
        columns = kernel.columns(digits.X[fresh])
        factored = ridge.factor(kernel(columns))
        cross = kernel(digits.X[test], columns)
        for level in LEVELS:
            inside, _ = conformal.sets(factored, digits.y[fresh], ALPHA, cross, level=level)
            sets = {"npk": inside, **of_crepes(factored, digits.y[fresh], cross, level)}
            for library, inside in sets.items():
                hits = inside[np.arange(len(test)), digits.y[test]]
                found[name, library, level] = float(hits.mean()), float(inside.sum(1).mean())
    return found


def of_crepes(
    factored: ridge.Factor, labels: np.ndarray, cross: np.ndarray, level: float
) -> dict[str, np.ndarray]:
    """Sets by crepes, where it is installed."""
    try:
        from crepes import ConformalClassifier
    except ImportError:
        return {}
    targets, classes = ridge.signed_targets(labels)
    held_out = targets - ridge.leave_one_out(factored, targets, ALPHA)
    said = cross @ ridge.solve(factored, targets, ALPHA).coefficients
    own = np.searchsorted(classes, labels)
    fitted = ConformalClassifier().fit(-margins(held_out)[np.arange(len(own)), own])
    inside = fitted.predict_set(-margins(said), confidence=level, smoothing=False)
    return {"crepes": np.asarray(inside, bool)}


def margins(scores: np.ndarray) -> np.ndarray:
    """How far each class is above the best of the others."""
    others = [np.delete(scores, k, axis=1).max(axis=1) for k in range(scores.shape[1])]
    return scores - np.stack(others, axis=1)


if __name__ == "__main__":
    main()
