"""Instruments on a trained residual network: its depth spectrum before and after training, lesions
of its blocks beside what the kernel predicts, and machines on its kernel and its tangent kernel.

python benchmarks/trained_instruments.py --data digits --picture lesions.png

A gated residual network of ``--blocks`` blocks with batch norm is trained on half of the data; what
is measured is measured on samples that no weight has seen: of these the first ``--fit`` are what
machines learn from, the others what they are tried on.
"""

import argparse
from pathlib import Path
from typing import Any

from timing import machine, timed

import npk
from npk import measures, networks
from npk.machines import ridge
from npk.progress import duration

SAMPLES = 64  # of spectra


def main() -> None:
    """Train, measure, print, draw."""
    options = parsed()
    print(machine())
    train, fresh = npk.data.split(npk.data.load(options.data), test=0.5, seed=options.seed)
    net = networks.build(
        "residual",
        input_shape=train.X.shape[1:],
        classes=len(train.classes),
        skip="gated",
        widths=[options.width] * options.blocks,
        batch_norm=True,
        seed=options.seed,
    )
    tell(net, fresh, "before training")
    _, seconds = timed(
        lambda: networks.train(
            net, train.X, train.require_labels(), epochs=options.epochs, progress=False
        )
    )
    print(f"\ntrained in {duration(seconds)} on {len(train.X)} samples")
    tell(net, fresh, "after training")
    found = npk.lesions(net, fresh.X, fresh.require_labels(), name="lesions, fresh samples")
    print(f"\n{found}")
    if options.picture:
        picture: Any = npk.plot.lesions(found).figure
        picture.savefig(options.picture, dpi=200)
    machines(net, fresh, options.fit)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="DATA")
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument(
        "--fit", type=int, default=200, help="fresh samples that machines learn from"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="file for the picture of the lesions")
    return parser.parse_args()


def tell(net: networks.PlainNetwork, fresh: npk.data.Dataset, name: str) -> None:
    """Print the depth spectrum."""
    found, seconds = timed(
        lambda: npk.depth_spectrum(net, fresh.X[:SAMPLES], bias="ignore", name=name)
    )
    print(f"\n{found}\n({duration(seconds)})")


def machines(net: networks.PlainNetwork, fresh: npk.data.Dataset, fit: int) -> None:
    """Ridge on both kernels, and how much these look alike."""
    y = fresh.require_labels()
    table = npk.record_gates(net, fresh.X)
    targets, classes = ridge.signed_targets(y[:fit])
    options = {"scale": "cosine", "bias": "ignore", "dtype": "float64", "progress": False}
    whole = {
        of: npk.kernel(table, of=of, **options) for of in ("paths", "tangent", "tangent=standard")
    }
    print(f"\nridge on {fit} fresh samples, tried on {len(y) - fit}")
    for of, K in whole.items():
        made = ridge.fit(K[:fit, :fit], targets, criterion="accuracy")
        guesses = classes[(K[fit:, :fit] @ made.solution.coefficients).argmax(1)]
        right = (guesses == y[fit:]).mean()
        error = (right * (1 - right) / len(guesses)) ** 0.5
        alike = measures.cka(K, whole["paths"])
        print(
            f"{of:18} accuracy {100 * right:.1f} +- {100 * error:.1f} %, alignment "
            f"{measures.alignment(K, y):.3f}, CKA with the kernel {alike:.4f}"
        )


if __name__ == "__main__":
    main()
