"""Coverage of conformal sets on digits, in a shuffled order and in that of the file, whose samples
of one writer stand together: the promise rests on an order that says nothing.

python benchmarks/conformal_coverage.py

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
    print("order           level   covered          classes a set")
    for row in found[0]:
        order, level = row
        values = np.array([each[row] for each in found])
        errors = values.std(0, ddof=1) / np.sqrt(len(values))
        (share, size), (share_error, size_error) = values.mean(0), errors
        print(
            f"{order:15} {level:5.2f}   {100 * share:.1f} ± {100 * share_error:.1f} %"
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
) -> dict[tuple[str, float], tuple[float, float]]:
    """Of each order and level the share of test samples whose class is in the set, and its size."""
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
            hits = inside[np.arange(len(test)), digits.y[test]]
            found[name, level] = float(hits.mean()), float(inside.sum(1).mean())
    return found


if __name__ == "__main__":
    main()
