"""Weights over depths and networks: does learning them gain anything over equal weights?

python benchmarks/several_kernels.py --data DIR [--json several.json] [--figure docs/img/kernel_weights.png]

DIR: Fashion-MNIST's idx files. Two residual networks are trained on the first pictures; machines learn
from few fresh ones, drawn several times, and are tried on test pictures. Errors are standard errors over
the draws; differences are paired.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import npk
from npk import networks
from npk.machines.several import NPKMultiKernelRidgeClassifier

SEEDS = (0, 1)
WEIGHTS = ("uniform", "alignment")


def main() -> None:
    """Train, fit, print a table."""
    options = parsed()
    data, test = (npk.data.load(f"idx:{options.data}{part}") for part in ("", "/test"))
    X_test, y_test = test.X[: options.tested], test.y[: options.tested]
    nets = {f"seed {seed}": trained(data, options, seed) for seed in SEEDS}
    asked = {
        "depths of network 0": ({"seed 0": nets["seed 0"]}, "depths"),
        "depths of network 1": ({"seed 1": nets["seed 1"]}, "depths"),
        "both networks": (nets, "paths"),
        "depths of both": (nets, "depths"),
    }
    rows, shown = {}, {}
    for name, (some, of) in asked.items():
        scores = np.zeros((len(WEIGHTS), options.draws))
        for draw in range(options.draws):
            rng = np.random.default_rng(draw)
            fresh = options.training + rng.permutation(len(data.X) - options.training)[: options.n]
            for row, weights in enumerate(WEIGHTS):
                machine = NPKMultiKernelRidgeClassifier(some, of=of, weights=weights)
                machine.fit(data.X[fresh], data.y[fresh])
                scores[row, draw] = machine.score(X_test, y_test)
                shown[name] = machine.weights_
        gain = scores[1] - scores[0]
        rows[name] = {
            "uniform": mean(scores[0]),
            "alignment": mean(scores[1]),
            "gain": mean(gain),
            "weights": shown[name],
        }
        text = ", ".join(
            f"{key} {100 * v[0]:.2f} +- {100 * v[1]:.2f}"
            for key, v in rows[name].items()
            if key != "weights"
        )
        print(f"{name:20} {text}", flush=True)
        print("   ", {key: round(value, 3) for key, value in shown[name].items()}, flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    if options.figure:
        figure = npk.plot.kernel_weights(shown["depths of both"]).figure
        figure.savefig(options.figure, dpi=160)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of the idx files")
    parser.add_argument("--training", type=int, default=10_000, help="pictures of the networks")
    parser.add_argument("--n", type=int, default=300, help="fresh pictures of a machine")
    parser.add_argument("--draws", type=int, default=5, help="of fresh pictures")
    parser.add_argument("--tested", type=int, default=2000, help="test pictures")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    return parser.parse_args()


def trained(data: npk.data.Dataset, options: argparse.Namespace, seed: int):
    """A fully connected network of four skippable blocks."""
    net = networks.build(
        "residual",
        flavor="fc",
        widths=[128] * 4,
        input_shape=data.X.shape[1:],
        classes=10,
        seed=seed,
    )
    part = slice(options.training)
    networks.train(
        net, data.X[part], data.y[part], epochs=options.epochs, learning_rate=1e-3, seed=seed
    )
    return net.eval()


def mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


if __name__ == "__main__":
    main()
