"""Explanations tried: without the samples that are named, does a prediction move as said?

python benchmarks/removals.py --data digits [--net NET.safetensors]

Ridge on the path kernel of a network (trained here if none is given) of fresh samples. For each test
sample: the shares and the single removals that the explanation tells, against refits without that
sample, and without groups of samples. Rank correlations over samples; mean and standard error over
seeds, of the network and of the samples.
"""

import argparse

import numpy as np
from scipy.stats import spearmanr

import npk
from npk import networks
from npk.machines import ridge
from npk.machines.explaining import Removal, representer_shares

FARTHEST = "largest difference of the two"


def main() -> None:
    """Print the rank correlations."""
    options = parsed()
    data = npk.data.load(options.data)
    rows = [compared(data, options, seed) for seed in range(options.seeds)]
    print(f"{options.n} training samples, {options.tested} test samples, {options.seeds} seeds")
    for what in rows[0]:
        values = np.array([row[what] for row in rows])
        if what == FARTHEST:
            print(f"    {what} {values.max():.1e}")
            continue
        error = values.std(ddof=1) / np.sqrt(len(values))
        print(f"{what:34} rank correlation {values.mean():.4f} +- {error:.4f}")


def compared(data: npk.data.Dataset, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Rank correlations of what is told with what refits find, mean over test samples."""
    X, y = data.X, data.y
    half, n = len(X) // 2, options.n
    net = npk.load(options.net) if options.net else trained(X[:half], y[:half], seed)
    rng = np.random.default_rng(seed)
    fresh = half + rng.permutation(len(X) - half)[: n + options.tested]
    K = npk.kernel(net, X[fresh], scale="cosine", dtype="float64", progress=False)
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
    told = np.array([effects[:, S].sum(1) for S in groups]).T
    shared = np.array([-shares[:, S].sum(1) for S in groups]).T
    return {
        "single removals told, and refits": correlation(effects, single),
        FARTHEST: float(np.abs(effects - single).max()),
        "shares, and what refits lose": correlation(-shares, single),
        "groups: sums of single removals": correlation(told, moved),
        "groups: sums of shares": correlation(shared, moved),
    }


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits", help="what npk.data.load reads")
    parser.add_argument("--net", help="checkpoint; else one is trained on half of the data")
    parser.add_argument("--n", type=int, default=300, help="training samples of the machine")
    parser.add_argument("--tested", type=int, default=50, help="predictions that are explained")
    parser.add_argument("--seeds", type=int, default=3, help="of network and samples")
    return parser.parse_args()


def trained(X: np.ndarray, y: np.ndarray, seed: int):
    """A fully connected network."""
    net = networks.build("fc", hidden=[64] * 3, input_shape=X.shape[1:], classes=10, seed=seed)
    networks.train(net, X, y, epochs=15, learning_rate=3e-3, seed=seed)
    return net.eval()


def refitted(gram, targets, alpha, removed, cross) -> np.ndarray:
    """Scores of a machine that is fitted anew without some samples."""
    kept = np.setdiff1d(np.arange(len(gram)), removed)
    unit = np.mean(np.diagonal(gram)) / np.mean(np.diagonal(gram)[kept])
    part = ridge.fit(gram[np.ix_(kept, kept)], targets[kept], alpha * unit)
    return cross[:, kept] @ part.solution.coefficients


def correlation(said: np.ndarray, found: np.ndarray) -> float:
    """Rank correlation over training samples or groups, mean over test samples."""
    return float(np.mean([spearmanr(a, b).statistic for a, b in zip(said, found, strict=True)]))


if __name__ == "__main__":
    main()
