"""All measures of a network's gates through its training, on samples that no weight has seen:
means over seeds with standard errors, drawn against epochs.

python benchmarks/measures_over_training.py --data digits --out measures_over_training.png
python benchmarks/measures_over_training.py --data idx:/usr/share/datasets/fashion-mnist

Each seed draws weights, order and split anew. The folder of Fashion-MNIST is that of its four idx
files, as Debian's package dataset-fashion-mnist has them.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import npk
from npk import measures, networks, plot
from npk.report.style import house_style, panels

SNAPSHOTS = (0, 1, 2, 4, 8, 15)  # epochs
BATCH, RATE = 64, 1e-3  # Adam, one-cycle
Found = dict[str, list[list]]  # of each measure: seeds, epochs, and layers where it has them


def main() -> None:
    """Train, measure, draw."""
    options = parsed()
    found: Found = {}
    for seed in range(options.seeds):
        train, fresh = sides(npk.data.load(options.data), options, seed)
        for name, values in one_seed(train, fresh, options, seed).items():
            found.setdefault(name, []).append(values)
        print(f"seed {seed}: {accuracies(found)}", flush=True)
    draw(found, options)
    if options.json is not None:
        options.json.write_text(json.dumps({"epochs": SNAPSHOTS, **vars_of(options), **found}))


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits", help="DATA, such as digits or idx:DIR")
    parser.add_argument("--kind", default="dnn", help="dnn (ReLU), dgn or dlgn")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128] * 4, help="widths")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=10_000, help="training samples, at most")
    parser.add_argument("--fresh", type=int, default=500, help="samples that are measured")
    parser.add_argument("--ridge", type=float, default=1e-2, help="lambda of nu")
    parser.add_argument("--out", type=Path, default=Path("measures_over_training.png"))
    parser.add_argument("--json", type=Path, help="file for all numbers")
    return parser.parse_args()


def vars_of(options: argparse.Namespace) -> dict:
    """The options as JSON values."""
    return {key: str(v) if isinstance(v, Path) else v for key, v in vars(options).items()}


def sides(
    whole: npk.data.Dataset, options: argparse.Namespace, seed: int
) -> tuple[npk.data.Dataset, npk.data.Dataset]:
    """What the network is trained on, and fresh samples, as vectors."""
    train, fresh = npk.data.split(whole, test=options.fresh / len(whole.X), seed=seed)
    return first(train, options.train), first(fresh, options.fresh)


def first(data: npk.data.Dataset, most: int) -> npk.data.Dataset:
    """The first samples, as vectors."""
    X = data.X[:most].reshape(len(data.X[:most]), -1)
    return npk.data.Dataset(X, data.require_labels()[:most], data.classes, data.name)


def one_seed(
    train: npk.data.Dataset, fresh: npk.data.Dataset, options: argparse.Namespace, seed: int
) -> dict[str, list]:
    """Every measure at every snapshot of one training."""
    net = networks.build(
        "fc",
        options.kind,
        input_shape=train.X.shape[1:],
        classes=len(train.classes),
        hidden=options.hidden,
        seed=seed,
    )
    found: dict[str, list] = {}
    start = npk.record_gates(net, fresh.X, gates="hard")
    for _ in snapshots(net, train, seed):
        for name, value in measured(net, fresh, start, options.ridge).items():
            found.setdefault(name, []).append(value)
    return found


def snapshots(net: nn.Module, data: npk.data.Dataset, seed: int) -> Iterator[int]:
    """Train, and stop at each snapshot, in evaluation mode."""
    torch.manual_seed(seed)
    X, y = torch.from_numpy(data.X), torch.from_numpy(data.require_labels())
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    steps = SNAPSHOTS[-1] * -(-len(X) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + 1)
    for epoch in range(SNAPSHOTS[-1] + 1):
        if epoch in SNAPSHOTS:
            yield epoch
        if epoch == SNAPSHOTS[-1]:
            return
        net.train()
        for batch in torch.randperm(len(X)).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(net(X[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
        net.eval()


def measured(
    net: nn.Module, fresh: npk.data.Dataset, start: npk.GateTable, ridge: float
) -> dict[str, float | list[float]]:
    """Every measure of the network as it is now."""
    X, y = fresh.X, fresh.require_labels()
    table = npk.record_gates(net, X)
    hard = npk.record_gates(net, X, gates="hard")
    K = npk.kernel(table, scale="cosine", bias="ignore", dtype="float64", progress=False)
    with torch.no_grad():
        right = net(torch.from_numpy(X)).argmax(1).numpy() == y
    return {
        "network accuracy": float(right.mean()),
        "leave-one-out accuracy": measures.predicted_risk(K, y).best_accuracy or 0.0,
        "alignment": measures.alignment(K, y),
        "nu": measures.nu(K, y, ridge),
        "effective rank": measures.effective_rank(K),
        "class overlap": measures.class_overlap(table, y).ratio.tolist(),
        "flips": measures.flips(start, hard).share.tolist(),
    }


def accuracies(found: Found) -> str:
    """Of the last snapshot of the last seed."""
    names = ("network accuracy", "leave-one-out accuracy")
    return ", ".join(f"{name} {100 * found[name][-1][-1]:.1f} %" for name in names)


def draw(found: Found, options: argparse.Namespace) -> None:
    """Six panels."""
    with house_style():
        figure, axes = panels(6, 3, (3.4, 2.5))
        both = {
            "ridge on the kernel": found["leave-one-out accuracy"],
            "the network itself": found["network accuracy"],
        }
        plot.through_training(SNAPSHOTS, both, ax=axes[0])
        plot.through_training(SNAPSHOTS, found["alignment"], ax=axes[1])
        plot.through_training(SNAPSHOTS, found["effective rank"], ax=axes[2])
        plot.through_training(SNAPSHOTS, found["nu"], ax=axes[3])
        plot.through_training(SNAPSHOTS, by_layer(found["class overlap"]), ordered=True, ax=axes[4])
        plot.through_training(SNAPSHOTS, by_layer(found["flips"]), ordered=True, ax=axes[5])
        axes[0].legend(loc="lower right")
        axes[4].legend().remove()  # the colors are those of the panel beside it
        titles = (
            "accuracy on fresh samples",
            "centred alignment with the labels",
            f"effective rank, of {options.fresh}",
            f"ν, λ = {options.ridge:g}",
            "class overlap: same class / other class",
            "share of the gates flipped since epoch 0",
        )
        for ax, title in zip(axes, titles, strict=True):
            ax.set_title(title)
        widths = "-".join(map(str, options.hidden))
        name = options.data.rpartition("/")[-1]
        what = f"{name}, {options.kind} {widths}, {options.fresh} samples that no weight has seen"
        figure.suptitle(f"{what}; mean of {options.seeds} seeds, standard errors", fontsize=9)
        figure.savefig(options.out, dpi=160)


def by_layer(values: list[list]) -> dict[str, np.ndarray]:
    """(seeds, epochs, layers) as one table a layer."""
    table = np.array(values)
    return {f"layer {i + 1}": table[:, :, i] for i in range(table.shape[2])}


if __name__ == "__main__":
    main()
