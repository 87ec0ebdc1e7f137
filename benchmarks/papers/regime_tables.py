"""Tables of the runs of regimes.py: means over seeds with standard errors, as Markdown."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machines_on_fresh import SIZES

ROOT = Path(__file__).parents[2]
PAGE, PICTURES = ROOT / "docs/experiments.md", ROOT / "docs/img"
RESULTS = ROOT / "benchmarks/results/regimes.json"
BLOCK = re.compile(
    r"(<!-- printed by benchmarks/papers/regimes.py -->\n).*?(<!-- end -->)", re.DOTALL
)
DATA = {
    "fashion": "Fashion-MNIST, fc",
    "cifar": "CIFAR-10 16 × 16, conv",
    "digits-fc": "digits, fc",
    "digits-conv": "digits, conv",
}
TITLES = {
    "relu": "ReLU",
    "dlnpf": "DLNPF",
    "flnpf": "FLNPF",
    "frnpf-ii": "FRNPF(II)",
    "frnpf-di": "FRNPF(DI)",
    "dlgn": "DLGN",
    "dlgn-x": "DLGN, value input x",
    "dlgn-sf": "DLGN-SF",
    "half-spaces": "random half-spaces",
    "permuted": "DLGN, gates permuted",
    "ones": "DLNPF, value input ones",
}
# NeurIPS 2020, Adam, five runs: MNIST (fc), CIFAR-10 (GCONV), and the standard errors given there
PAPER = {
    "frnpf-ii": ("96.02 ± 0.13", "67.09 ± 0.58"),
    "frnpf-di": ("96.09 ± 0.12", "67.08 ± 0.27"),
    "dlnpf": ("98.22 ± 0.05", "77.12 ± 0.19"),
    "flnpf": ("97.82 ± 0.02", "79.68 ± 0.32"),
    "relu": ("98.14 ± 0.07", "80.32 ± 0.35"),
}
# What the papers say of pairs: fc on MNIST, then conv on CIFAR-10; or in words
PAIRS = {
    ("frnpf-di", "frnpf-ii"): "+0.07; -0.01",
    ("dlnpf", "frnpf-ii"): "+2.20; +10.03",
    ("flnpf", "dlnpf"): "-0.40; +2.56",
    ("relu", "flnpf"): "+0.32; +0.64",
    ("relu", "dlnpf"): "-0.08; +3.20",
    ("relu", "dlgn"): "a DLGN keeps at least 83.5 % of the accuracy",
    ("dlgn", "dlgn-x"): "ones in the place of x lose nothing",
    ("dlnpf", "ones"): "the same",
    ("dlgn", "permuted"): "permuted gates lose nothing",
    ("dlgn", "dlgn-sf"): "",
    ("dlgn-sf", "half-spaces"): "",
}
Run = dict[str, Any]


def mean(values: Iterable[float], digits: int = 1, sign: str = "") -> str:
    """Mean with standard error, in points."""
    points = 100 * np.array([*values])
    if not len(points):
        return "–"
    spread = points.std(ddof=1) / np.sqrt(len(points)) if len(points) > 1 else np.nan
    error = f" ± {spread:.{digits}f}" if np.isfinite(spread) else ""
    return f"{points.mean():{sign}.{digits}f}{error}"


class Runs:
    """The runs, by data set, name and seed."""

    def __init__(self, runs: Sequence[Run]):
        self.by_key = {
            tuple(run["about"][key] for key in ("data", "name", "seed")): run for run in runs
        }
        names = {key[0] for key in self.by_key}
        self.data = [name for name in DATA if name in names]

    def values(self, data: str, name: str, of: Callable[[Run], float]) -> dict[int, float]:
        """A number of each seed that has it."""
        found = {}
        for (its_data, its_name, seed), run in self.by_key.items():
            if (its_data, its_name) == (data, name):
                try:
                    found[seed] = of(run)
                except KeyError:
                    continue
        return found

    def difference(
        self, data: str, names: tuple[str, str], of: Sequence[Callable[[Run], float]]
    ) -> list[float]:
        """The first less the second, seed by seed."""
        one, two = (self.values(data, name, what) for name, what in zip(names, of, strict=True))
        return [one[seed] - two[seed] for seed in one if seed in two]


def last(run: Run) -> float:
    """Test accuracy after the last epoch."""
    return run["test"][-1]


def machine(which: str, size: int) -> Callable[[Run], float]:
    """Accuracy of machines of a kind on so many samples."""
    return lambda run: run["machines"][which][str(size)]


def page(runs: Sequence[Run], regimes: Mapping[str, Any]) -> str:
    """All tables."""
    of = Runs(runs)
    parts = [networks(of, regimes), differences(of), epochs(of, regimes)]
    parts += [machines(of, data, regimes) for data in of.data]
    return "\n\n".join([*parts, stages(of)])


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table under its title; the first column is text."""
    lines = [f"| {' | '.join(row)} |" for row in [head, *rows]]
    rule = f"|---|{'---:|' * (len(head) - 1)}"
    return "\n".join([f"**{title}**", "", lines[0], rule, *lines[1:]])


def networks(of: Runs, regimes: Mapping[str, Any]) -> str:
    """Test accuracies, beside the paper's."""
    rows = [
        (TITLES[name], *(mean(of.values(data, name, last).values()) for data in of.data), *paper)
        for name in regimes
        for paper in [PAPER.get(name, ("", ""))]
    ]
    head = ("", *(DATA[data] for data in of.data), "paper: MNIST, fc", "paper: CIFAR-10, conv")
    return table("Test accuracy after the last epoch, per cent", head, rows)


def differences(of: Runs) -> str:
    """Pairs of regimes of the same seeds."""
    rows = [
        (
            f"{TITLES[one]} less {TITLES[two]}",
            *(mean(of.difference(d, (one, two), (last, last)), 1, "+") for d in of.data),
            said,
        )
        for (one, two), said in PAIRS.items()
    ]
    kept = [
        100
        * np.mean([*of.values(d, "dlgn", last).values()])
        / np.mean([*of.values(d, "relu", last).values()])
        if of.values(d, "dlgn", last) and of.values(d, "relu", last)
        else np.nan
        for d in of.data
    ]
    rows.append(
        ("share of ReLU's accuracy that the DLGN keeps", *(f"{k:.1f} %" for k in kept), "83.5 %")
    )
    head = ("points, seed by seed", *(DATA[data] for data in of.data), "papers")
    return table("What the papers order", head, rows)


def by(select: str) -> Callable[[Run], float]:
    """Test accuracy of the epoch that is selected."""

    def of(run: Run) -> float:
        right, loss = (
            run["validation"],
            [np.inf if x is None else x for x in run["validation loss"]],
        )
        scores = {"last": range(len(right)), "accuracy": right, "loss": [-value for value in loss]}
        order = sorted(range(len(right)), key=lambda i: (scores[select][i], -loss[i]))
        return run["test"][order[-1]]

    return of


def epochs(of: Runs, regimes: Mapping[str, Any]) -> str:
    """What another choice of epoch does."""
    rows = [
        (
            TITLES[name],
            *(
                mean(of.difference(data, (name, name), (by(select), last)), 2, "+")
                for data in of.data
                for select in ("accuracy", "loss")
            ),
        )
        for name in regimes
    ]
    head = ("", *(f"{DATA[d]}: by {s}" for d in of.data for s in ("accuracy", "loss")))
    return table(
        "Another epoch, chosen on validation, less the last one: points of test accuracy",
        head,
        rows,
    )


def machines(of: Runs, data: str, regimes: Mapping[str, Any]) -> str:
    """Ridge on fresh samples: with the network's kernel, before training, and on its features."""
    rows = []
    for name, regime in regimes.items():
        source = "relu" if regime.gates == "lent" else name
        trained = [mean(of.values(data, source, machine("trained", n)).values()) for n in SIZES]
        pairs = [
            mean(
                of.difference(data, (name, name), (machine("trained", n), machine("before", n))),
                1,
                "+",
            )
            for n in SIZES
        ]
        gains = [pair if regime.gates == "learnt" else "" for pair in pairs]
        features = of.values(data, name, machine("penultimate", SIZES[-1])).values()
        cells = [
            f"{right} ({gain})" if gain else right
            for right, gain in zip(trained, gains, strict=True)
        ]
        rows.append((TITLES[name], *cells, mean(features)))
    pixels = [mean(of.values(data, "pixels", machine("pixels", n)).values()) for n in SIZES]
    rows.append(("RBF on pixels", *pixels, ""))
    head = ("", *(f"n = {n}" for n in SIZES), f"features, n = {SIZES[-1]}")
    title = f"{DATA[data]}: ridge on n fresh samples, per cent (in brackets: less the same before training)"
    return table(title, head, rows)


def stages(of: Runs) -> str:
    """FLNPF by the epoch whose gates were copied."""
    rows = []
    for data in of.data:
        found = {
            key[1]: mean(of.values(data, key[1], last).values())
            for key in of.by_key
            if key[0] == data and key[1].startswith("stage-")
        }
        order = sorted(found, key=lambda name: int(name.split("-")[1]))
        cells = [f"{found[name]} ({name.split('-')[1]})" for name in order]
        end = mean(of.values(data, "flnpf", last).values())
        rows.append((DATA[data], "; ".join([*cells, f"{end} (the end)"])))
    return table(
        "FLNPF with the gates that ReLU had after so many epochs",
        ("", "test accuracy (epochs)"),
        rows,
    )


def write(text: str, runs: Sequence[Run], figures: Iterable[Path]) -> None:
    """Put tables, numbers and pictures where the documents have them."""
    old = PAGE.read_text()
    PAGE.write_text(BLOCK.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", old))
    RESULTS.write_text(json.dumps(runs))
    for figure in figures:
        (PICTURES / figure.name).write_bytes(figure.read_bytes())
