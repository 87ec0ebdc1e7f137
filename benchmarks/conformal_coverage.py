"""Coverage of conformal sets on digits, in a shuffled order and in that of the file, whose samples
of one writer stand together: the promise rests on an order that says nothing.

python benchmarks/conformal_coverage.py
"""

import numpy as np
import torch

import npk
from npk.machines import ridge
from npk.machines.uncertainty import conformal

LEVELS, ALPHA, N = (0.8, 0.9, 0.95), 1e-3, 600


def main() -> None:
    """Print a table."""
    digits = npk.data.load("digits")
    torch.manual_seed(0)
    net = npk.networks.build("fc", input_shape=(1, 8, 8), classes=10, seed=0).eval()
    kernel = npk.NeuralPathKernel(net, scale="cosine", progress=False)
    rng = np.random.default_rng(0)
    orders = {"shuffled": rng.permutation(len(digits)), "as in the file": np.arange(len(digits))}
    print("order           level   covered          classes a set")
    for name, order in orders.items():
        fresh, test = order[:N], order[N:]
        columns = kernel.columns(digits.X[fresh])
        factored = ridge.factor(kernel(columns))
        cross = kernel(digits.X[test], columns)
        for level in LEVELS:
            inside, _ = conformal.sets(factored, digits.y[fresh], ALPHA, cross, level=level)
            hits = inside[np.arange(len(test)), digits.y[test]]
            error = np.sqrt(hits.mean() * (1 - hits.mean()) / len(hits))
            print(
                f"{name:15} {level:5.2f}   {100 * hits.mean():.1f} % ± {100 * error:.1f}"
                f"     {inside.sum(1).mean():.2f}"
            )


if __name__ == "__main__":
    main()
