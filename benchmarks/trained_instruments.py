"""Instruments on a trained residual network: its depth spectrum before and after training, lesions
of its blocks beside what the kernel predicts, and machines on its kernel and its tangent kernel.

python benchmarks/trained_instruments.py --data digits --blocks 1 --epochs 15
python benchmarks/trained_instruments.py --data cifar.npz --side 16 --train 6000 --epochs 8

Three stages of ``--blocks`` blocks with batch norm, in the form of He et al. (3: a ResNet-20), are
trained on ``--train`` samples. All is measured on others, which no weight has seen: lesions on
``--groups`` groups of them, from which their standard errors come; machines learn from ``--fit`` of
them and are tried on the rest.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import machine, timed
from torch import nn

import npk
from npk import measures, networks
from npk.checks.spectrum import DepthSpectrum
from npk.machines import ridge
from npk.progress import duration
from npk.results import LesionTable

SAMPLES = 50  # of spectra
KERNELS = ("paths", "tangent", "tangent=standard")


def main() -> None:
    """Train, measure, print, draw."""
    options = parsed()
    print(machine())
    train, fresh = chosen(options)
    net = networks.build(
        "resnet110",
        input_shape=train.X.shape[1:],
        classes=len(train.classes),
        blocks=options.blocks,
        width=options.width,
        seed=options.seed,
    )
    spectra = {"before training": tell(net, fresh, "before training")}
    _, seconds = timed(
        lambda: networks.train(
            net,
            train.X,
            train.require_labels(),
            epochs=options.epochs,
            seed=options.seed,
            progress=False,
        )
    )
    print(f"\ntrained in {duration(seconds)} on {len(train.X)} samples of {train.X.shape[1:]}")
    spectra["after training"] = tell(net, fresh, "after training")
    found = [lesioned(net, some) for some in groups(fresh, options)]
    print_lesions(found)
    if options.picture:
        save(npk.plot.lesions(npk.lesions(net, fresh.X, fresh.require_labels())), options.picture)
    if options.spectra:
        save(npk.plot.depth_spectrum(spectra), options.spectra)
    machines(net, fresh, options.fit)


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="DATA")
    parser.add_argument("--side", type=int, help="pictures are averaged to so many rows")
    parser.add_argument("--train", type=int, default=800)
    parser.add_argument("--fresh", type=int, default=800)
    parser.add_argument("--blocks", type=int, default=3, help="a stage")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--groups", type=int, default=5, help="of fresh samples")
    parser.add_argument(
        "--fit", type=int, default=400, help="fresh samples that machines learn from"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="file for the picture of the lesions")
    parser.add_argument("--spectra", type=Path, help="file for the picture of the spectra")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> tuple[npk.data.Dataset, npk.data.Dataset]:
    """Samples to train on, and fresh ones, made smaller."""
    whole = smaller(npk.data.load(options.data), options.side)
    order = np.random.default_rng(options.seed).permutation(len(whole.X))
    ends = options.train, options.train + options.fresh
    return whole[order[: ends[0]]], whole[order[ends[0] : ends[1]]]


def smaller(data: npk.data.Dataset, side: int | None) -> npk.data.Dataset:
    """Pictures averaged to some rows and columns."""
    n, channels, height, width = data.X.shape
    if side is None or side == height:
        return data
    cut = data.X.reshape(n, channels, side, height // side, side, width // side)
    return npk.data.Dataset(cut.mean((3, 5)), data.y, data.classes, data.name)


def tell(net: nn.Module, fresh: npk.data.Dataset, name: str) -> DepthSpectrum:
    """Print the depth spectrum."""
    found, seconds = timed(
        lambda: npk.depth_spectrum(net, fresh.X[:SAMPLES], bias="ignore", name=name)
    )
    length = found.path_length[found.live]
    error = length.std(ddof=1) / len(length) ** 0.5
    print(f"\n{found} +- {error:.2g}\n({duration(seconds)})")
    return found


def groups(fresh: npk.data.Dataset, options: argparse.Namespace) -> list[npk.data.Dataset]:
    """Fresh samples in groups."""
    return [fresh[part] for part in np.array_split(np.arange(len(fresh.X)), options.groups)]


def lesioned(net: nn.Module, some: npk.data.Dataset) -> LesionTable:
    """Lesions on some samples."""
    return npk.lesions(net, some.X, some.require_labels())


def print_lesions(found: list[LesionTable]) -> None:
    """Means over the groups with their standard errors, per cent."""
    print(f"\nlesions, {len(found)} groups of {found[0].samples} fresh samples, per cent")
    print("block | predicted | frozen gates | live gates | accuracy lost")
    for block in range(len(found[0].lesions)):
        rows = []
        for table in found:
            one = table.lesions[block]
            lost = np.nan if one.accuracy is None else (table.accuracy or 0.0) - one.accuracy
            rows.append([one.predicted, one.frozen, one.live, lost])
        values = 100 * np.array(rows, float)
        errors = values.std(0, ddof=1) / len(values) ** 0.5
        cells = zip(values.mean(0), errors, strict=True)
        print(f"{block + 1} | " + " | ".join(f"{m:.1f} ± {e:.1f}" for m, e in cells))


def save(axes: Any, place: Path) -> None:
    """Write a picture."""
    axes.figure.savefig(place, dpi=200)


def machines(net: nn.Module, fresh: npk.data.Dataset, fit: int) -> None:
    """Ridge on the kernels, and how much these look alike."""
    y = fresh.require_labels()
    table = npk.record_gates(net, fresh.X)
    targets, classes = ridge.signed_targets(y[:fit])
    right = {}
    print(f"\nridge on {fit} fresh samples, tried on {len(y) - fit}")
    first = None
    for of in KERNELS:
        K = npk.kernel(table, of=of, scale="cosine", bias="ignore", dtype="float64", progress=False)
        first = K if first is None else first
        made = ridge.fit(K[:fit, :fit], targets, criterion="accuracy")
        guesses = classes[(K[fit:, :fit] @ made.solution.coefficients).argmax(1)]
        right[of] = 100.0 * (guesses == y[fit:])
        more = right[of] - right["paths"]
        error, paired = (v.std(ddof=1) / len(v) ** 0.5 for v in (right[of], more))
        print(
            f"{of:18} accuracy {right[of].mean():.1f} ± {error:.1f} %, beyond that of the kernel "
            f"{more.mean():+.1f} ± {paired:.1f}, alignment {measures.alignment(K, y):.3f}, CKA with "
            f"the kernel {measures.cka(K, first):.4f}"
        )
    with torch.no_grad():
        outputs = net(torch.from_numpy(fresh.X[fit:])).numpy()
    print(f"the network itself: {100 * (outputs.argmax(1) == y[fit:]).mean():.1f} %")


if __name__ == "__main__":
    main()
