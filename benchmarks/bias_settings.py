"""Accuracy of ridge regression on the gates of trained networks with biases or batch norm, for the
three things that a kernel may take of them::

    python benchmarks/bias_settings.py --cifar FILE.npz

FILE: CIFAR-10 as X, y of 3 x 32 x 32 bytes; four pixels are averaged to one. The networks learn from
some pictures, machines from few fresh ones, ``--splits`` times, the same fresh ones for all; means
over the splits and their standard errors. Gates before training come from the same architecture.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np

import npk
from npk import networks
from npk.machines import ridge
from npk.studies.subjects import decided, outputs

SETTINGS: dict[str, dict[str, Any]] = {
    '`bias="ignore"`': {"bias": "ignore"},
    '`value_input="ones"`': {"bias": "ignore", "value_input": "ones"},
    '`bias="paths"`': {"bias": "paths"},
}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "conv, batch norm": (
        "conv",
        {"batch_norm": True, "channels": [32] * 4, "strides": [2, 1, 1, 1]},
    ),
    "conv, biases": ("conv", {"bias": True, "channels": [32] * 4, "strides": [2, 1, 1, 1]}),
    "residual, batch norm": (
        "residual",
        {"batch_norm": True, "skip": "gated", "widths": [16, 32, 32]},
    ),
}
SIDE = 16  # of the averaged pictures
Pictures = tuple[np.ndarray, np.ndarray]


def main() -> None:
    """Train, fit, print the table."""
    options = parsed()
    X, y = pictures(options.cifar)
    order = np.random.default_rng(options.seed).permutation(len(X))
    learnt, rest = order[: options.train], order[options.train :]
    test, fresh = rest[: options.test], rest[options.test :]
    print(f"| gates | {' | '.join(SETTINGS)} | the network |\n|---|{'---|' * (len(SETTINGS) + 1)}")
    for name in options.only or NETWORKS:
        arch, made = NETWORKS[name]
        net: Any = networks.build(
            arch, input_shape=X.shape[1:], classes=10, seed=options.seed, **made
        )
        given = [(X[fresh[some]], y[fresh[some]]) for some in splits(options, len(fresh))]
        print(row(f"{name}, before training", net, given, (X[test], y[test])), flush=True)
        networks.train(
            net, X[learnt], y[learnt], epochs=options.epochs, learning_rate=3e-3, progress=False
        )
        print(row(name, net, given, (X[test], y[test]), own=True), flush=True)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar", type=Path, required=True, help="npz file of CIFAR-10")
    parser.add_argument("--train", type=int, default=6000, help="pictures for the networks")
    parser.add_argument("--fit", type=int, default=400, help="fresh pictures for a machine")
    parser.add_argument("--test", type=int, default=600)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, help="rows of the table")
    return parser.parse_args()


def pictures(file: Path) -> Pictures:
    """Pictures of 16 x 16 with mean 0 and variance 1 of all values, and their classes."""
    with np.load(file) as held:
        X, y = held["X"].astype(np.float32), held["y"].astype(np.int64)
    X = X.reshape(len(X), 3, SIDE, 2, SIDE, 2).mean((3, 5))
    return ((X - X.mean()) / X.std()).astype(np.float32), y


def splits(options: argparse.Namespace, fresh: int) -> list[slice]:
    """Which of the fresh pictures each machine learns from; no two share one."""
    ends = range(0, options.fit * (options.splits + 1), options.fit)
    if ends[-1] > fresh:
        raise SystemExit(f"{ends[-1]} fresh pictures are asked for, and {fresh} are left.")
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def row(name: str, net: Any, fresh: list[Pictures], test: Pictures, *, own: bool = False) -> str:
    """A row of the table: mean and standard error over the splits, in per cent."""
    table = npk.record_gates(net, test[0])
    tables = [npk.record_gates(net, X) for X, _ in fresh]
    cells = []
    for asked in SETTINGS.values():
        kernel = npk.NeuralPathKernel(None, scale="cosine", progress=False, **asked)
        right = [
            accuracy(kernel(rows), kernel(table, rows), y, test[1])
            for rows, (_, y) in zip(tables, fresh, strict=True)
        ]
        error = np.std(right, ddof=1) / len(right) ** 0.5
        cells.append(f"{100 * np.mean(right):.1f} ± {100 * error:.1f}")
    network = f"{100 * np.mean(decided(outputs(net, test[0])) == test[1]):.1f}" if own else ""
    return f"| {name} | {' | '.join(cells)} | {network} |"


def accuracy(K: np.ndarray, cross: np.ndarray, y: np.ndarray, truth: np.ndarray) -> float:
    """Of ridge, its parameter chosen by leave-one-out on the fresh pictures."""
    signs, classes = ridge.signed_targets(y)
    fitted = ridge.fit(K, signs, "auto", criterion="accuracy")
    return float(np.mean(classes[(cross @ fitted.solution.coefficients).argmax(1)] == truth))


if __name__ == "__main__":
    main()
