"""Explanations tried: without the samples that are named, does a prediction move as said?

python benchmarks/removals.py --data digits [--net NET.safetensors]

Ridge on the path kernel of a network (trained here if none is given) of fresh samples. For each test
sample: the shares and the single removals that the explanation tells, against refits without that
sample, and without groups of samples. Rank correlations over samples, mean and standard error over test
samples.
"""

import argparse

import numpy as np
from scipy.stats import spearmanr

import npk
from npk import networks
from npk.machines import ridge
from npk.machines.explaining import Removal, representer_shares


def main() -> None:
    """Print the rank correlations."""
    options = parsed()
    data = npk.data.load(options.data)
    X, y = data.X, data.y
    half = len(X) // 2
    net = npk.load(options.net) if options.net else trained(X[:half], y[:half])
    rng = np.random.default_rng(0)
    fresh = half + rng.permutation(len(X) - half)[: options.n + options.tested]
    K = npk.kernel(net, X[fresh], scale="cosine", dtype="float64", progress=False)
    n = options.n
    targets, _ = ridge.signed_targets(y[fresh][:n])
    gram, cross = K[:n, :n], K[n:, :n]
    fitted = ridge.fit(gram, targets, "auto", criterion="accuracy")
    removal = Removal(gram, targets, fitted.alpha)
    scores = cross @ removal.coefficients
    largest = scores.argmax(1)
    each = np.arange(len(cross))
    shares = representer_shares(cross, removal.coefficients)[each, :, largest]
    effects = removal.effects(cross)[each, :, largest]
    refits = np.array([refitted(gram, targets, fitted.alpha, [i], cross) for i in range(n)])
    single = (refits - scores)[:, each, largest].T
    groups = [rng.choice(n, n // 20, replace=False) for _ in range(100)]
    moved = np.array([refitted(gram, targets, fitted.alpha, S, cross) for S in groups])
    moved = (moved - scores)[:, each, largest].T
    print(f"{n} training samples, alpha {fitted.alpha:.3g}, {len(cross)} test samples")
    told("single removals told, and refits", effects, single)
    print(f"    largest difference {np.abs(effects - single).max():.1e}")
    told("shares, and what refits lose", -shares, single)
    told(
        "groups: sums of single removals", np.array([effects[:, S].sum(1) for S in groups]).T, moved
    )
    told("groups: sums of shares", np.array([-shares[:, S].sum(1) for S in groups]).T, moved)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits", help="what npk.data.load reads")
    parser.add_argument("--net", help="checkpoint; else one is trained on half of the data")
    parser.add_argument("--n", type=int, default=300, help="training samples of the machine")
    parser.add_argument("--tested", type=int, default=50, help="predictions that are explained")
    return parser.parse_args()


def trained(X: np.ndarray, y: np.ndarray):
    """A fully connected network."""
    net = networks.build("fc", hidden=[64] * 3, input_shape=X.shape[1:], classes=10, seed=0)
    networks.train(net, X, y, epochs=15, learning_rate=3e-3, seed=0)
    return net.eval()


def refitted(gram, targets, alpha, removed, cross) -> np.ndarray:
    """Scores of a machine that is fitted anew without some samples."""
    kept = np.setdiff1d(np.arange(len(gram)), removed)
    unit = np.mean(np.diagonal(gram)) / np.mean(np.diagonal(gram)[kept])
    part = ridge.fit(gram[np.ix_(kept, kept)], targets[kept], alpha * unit)
    return cross[:, kept] @ part.solution.coefficients


def told(what: str, said: np.ndarray, found: np.ndarray) -> None:
    """Rank correlation of each test sample."""
    values = [spearmanr(a, b).statistic for a, b in zip(said, found, strict=True)]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    print(f"{what:34} rank correlation {np.mean(values):.4f} +- {error:.4f}")


if __name__ == "__main__":
    main()
