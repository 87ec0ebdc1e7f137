"""Figures of the runs of regimes.py."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machines_on_fresh import SIZES
from matplotlib.axes import Axes
from regime_tables import DATA, TITLES, Runs, last, machine

from npk.report.style import COLOR, INK, MUTED, house_style, panels

LINES = {
    "trained": ("the network's kernel", COLOR["dnn"], "-", "o"),
    "before": ("the same before training", COLOR["dgn"], "--", "s"),
    "penultimate": ("features before the last layer", COLOR["dlgn"], "-.", "^"),
    "pixels": ("RBF on pixels", MUTED, ":", "v"),
}


def draw(runs: Sequence[dict[str, Any]], out: Path) -> list[Path]:
    """All figures; the files that were written."""
    of = Runs(runs)
    files = []
    with house_style():
        for data in of.data:
            figure, axes = panels(len(TITLES) + 1, 4, (2.5, 2.1))
            for i, (ax, name) in enumerate(zip(axes, TITLES, strict=False)):
                learning(ax, of, data, name)
                ax.set(
                    xlabel="n" if i + 4 >= len(axes) - 1 else "", ylabel="" if i % 4 else "per cent"
                )
            legend(axes[-1])
            figure.suptitle(
                f"{DATA[data]}: accuracy of ridge machines on n fresh samples", fontsize=9
            )
            files.append(out / f"regimes_{data}.png")
            figure.savefig(files[-1], dpi=160)
        figure, axes = panels(2 * len(of.data), len(of.data), (4.2, 2.8))
        for i, data in enumerate(of.data):
            dots(axes[i], of, data)
            stages(axes[len(of.data) + i], of, data)
        files.append(out / "regimes.png")
        figure.savefig(files[-1], dpi=160)
    return files


def learning(ax: Axes, of: Runs, data: str, name: str) -> None:
    """One regime: accuracy against the number of fresh samples."""
    for which, (_, color, dash, marker) in LINES.items():
        source = "pixels" if which == "pixels" else name
        if which == "trained" and name == "flnpf":
            source = "relu"  # with lent gates the kernel is that of the lender
        points = [
            (n, [*found.values()])
            for n in SIZES
            if (found := of.values(data, source, machine(which, n)))
        ]
        if points:
            errorbar(ax, points, color=color, linestyle=dash, marker=marker)
    networks = [*of.values(data, name, last).values()]
    if networks:
        ax.axhline(100 * np.mean(networks), color=INK, linewidth=0.7)
    ax.set_xscale("log")
    ax.set_xticks(SIZES, list(map(str, SIZES)))
    ax.minorticks_off()
    ax.set(title=TITLES[name], ylim=limits(of, data))


def errorbar(ax: Axes, points: list[tuple[Any, list[float]]], **look: Any) -> None:
    """Means with standard errors over seeds."""
    means = [100 * np.mean(values) for _, values in points]
    errors = [
        100 * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0
        for _, values in points
    ]
    ax.errorbar([x for x, _ in points], means, yerr=errors, capsize=2, markersize=3, **look)


def limits(of: Runs, data: str) -> tuple[float, float]:
    """All that the panels show, so that they can be compared."""
    seen = [
        accuracy
        for (its_data, _, _), run in of.by_key.items()
        if its_data == data
        for curve in [
            *run.get("machines", {}).values(),
            {"": run["test"][-1]} if "test" in run else {},
        ]
        for accuracy in curve.values()
    ]
    return 100 * min(seen) - 2, 100 * max(seen) + 2


def legend(ax: Axes) -> None:
    """What the lines are, in the place of a panel."""
    for name, color, dash, marker in LINES.values():
        ax.plot([], [], color=color, linestyle=dash, marker=marker, label=name)
    ax.plot([], [], color=INK, linewidth=0.7, label="the network itself")
    ax.legend(loc="center left", bbox_to_anchor=(-0.1, 0.5))
    ax.axis("off")


def dots(ax: Axes, of: Runs, data: str) -> None:
    """Test accuracy of every regime, the best on top."""
    found = {name: [*of.values(data, name, last).values()] for name in TITLES}
    order = sorted((name for name in found if found[name]), key=lambda name: np.mean(found[name]))
    for height, name in enumerate(order):
        values = 100 * np.array(found[name])
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0
        ax.errorbar(values.mean(), height, xerr=error, capsize=2, color=COLOR["dnn"], marker="o")
        ax.plot(values, [height] * len(values), "|", color=MUTED, markersize=5)
    ax.set_yticks(range(len(order)), [TITLES[name] for name in order])
    ax.grid(axis="x")
    ax.set(title=DATA[data], xlabel="test accuracy, per cent; ticks are seeds")


def stages(ax: Axes, of: Runs, data: str) -> None:
    """FLNPF against the epoch whose gates were copied."""
    names = {key[1] for key in of.by_key if key[0] == data and key[1].startswith("stage-")}
    at = sorted(int(name.split("-")[1]) for name in names)
    points = [(epoch, [*of.values(data, f"stage-{epoch}", last).values()]) for epoch in at]
    relu = [run for key, run in of.by_key.items() if key[:2] == (data, "relu")]
    ends = [*of.values(data, "flnpf", last).values()]
    if ends and relu:
        points.append((len(relu[0]["test"]), ends))
    if points:
        errorbar(ax, points, color=COLOR["dgn"], linestyle="-", marker="s", label="FLNPF")
    for name, color in (("relu", COLOR["dnn"]), ("dlnpf", COLOR["dlgn"])):
        if values := [*of.values(data, name, last).values()]:
            ax.axhline(100 * np.mean(values), color=color, linewidth=0.9, label=TITLES[name])
    ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    ticks = [epoch for epoch, _ in points]
    ax.set_xticks(ticks, list(map(str, ticks)))
    ax.minorticks_off()
    ax.set(
        title=f"{DATA[data]}: FLNPF",
        xlabel="epoch of ReLU whose gates are copied",
        ylabel="test accuracy, per cent",
    )
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 0.05))
