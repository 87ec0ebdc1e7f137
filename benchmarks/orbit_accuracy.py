"""What averaging a kernel over all circular shifts does to a machine's accuracy: on test pictures
as they are, and shifted by chance.

python benchmarks/orbit_accuracy.py
python benchmarks/orbit_accuracy.py --data idx:/usr/share/datasets/fashion-mnist --train 300

Gates are those of networks with random weights. Each seed draws weights, samples and shifts anew;
means over seeds with standard errors.
"""

import argparse

import numpy as np

import npk
from npk.machines import ridge

# options of the network, and the sides of the average: one is enough where K(gx, gx') = K(x, x')
NETWORKS = {
    "circular, flatten": ({"readout": "flatten"}, "one"),
    "circular, stride 2, global pool": ({"strides": [1, 2]}, "both"),
    "circular, global pool": ({}, "one"),
}


def main() -> None:
    """Fit machines on both kernels, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--train", type=int, default=100)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(
        f"{options.data}: ridge on {options.train} samples, {options.test} test samples, per cent"
    )
    print("network | kernel | as they are | shifted by chance")
    for name, make in NETWORKS.items():
        found = np.array([one_seed(make, options, seed) for seed in range(options.seeds)])
        mean, error = found.mean(0), found.std(0, ddof=1) / len(found) ** 0.5
        for row, kernel in enumerate(("K", "averaged K")):
            cells = zip(mean[row], error[row], strict=True)
            print(f"{name} | {kernel} | " + " | ".join(f"{m:.1f} ± {e:.1f}" for m, e in cells))


def one_seed(make: tuple[dict, str], options: argparse.Namespace, seed: int) -> list[list[float]]:
    """Accuracy of both kernels on both kinds of test pictures."""
    whole = npk.data.load(options.data)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(whole))[: options.train + options.test]
    X, y = whole.X[order], whole.require_labels()[order]
    net = npk.networks.build(
        "conv",
        input_shape=X.shape[1:],
        classes=len(np.unique(y)),
        channels=[options.channels] * 2,
        seed=seed,
        **make[0],
    )
    train, test = X[: options.train], X[options.train :]
    by = rng.integers(0, X.shape[2:], (len(test), 2))
    moved = np.stack([np.roll(x, shift, (1, 2)) for x, shift in zip(test, by, strict=True)])
    rows = np.concatenate([test, moved])
    plain = {"bias": "ignore", "dtype": "float64", "progress": False}
    kernels = [
        (npk.kernel(net, train, **plain), npk.kernel(net, rows, train, **plain)),
        (
            npk.orbit_average(net, train, sides=make[1], **plain),
            npk.orbit_average(net, rows, train, sides=make[1], **plain),
        ),
    ]
    targets = y[: options.train], y[options.train :]
    return [accuracies(K, cross, *targets) for K, cross in kernels]


def accuracies(K: np.ndarray, cross: np.ndarray, y: np.ndarray, truth: np.ndarray) -> list[float]:
    """Of ridge, its parameter chosen by leave-one-out, on test pictures and on shifted ones."""
    signs, classes = ridge.signed_targets(y)
    fitted = ridge.fit(K, signs, "auto", criterion="accuracy")
    guessed = classes[(cross @ fitted.solution.coefficients).argmax(1)]
    right = guessed.reshape(2, -1) == truth
    return (100 * right.mean(1)).tolist()


if __name__ == "__main__":
    main()
